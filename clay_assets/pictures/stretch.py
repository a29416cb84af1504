"""How measured values become colours, so that a scene looks about as it would to the eye."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

CLIPPED = (2, 98)  # percentiles that become black and white
ROOM = 0.15  # of the way from the brightest ground to the brightest cloud, to where it is white
HAZE = 0.05  # of the way from black to white; what the darkest pixels of a band are lighter by, beyond this, is haze
MIDDLE, EXPONENTS = 0.34, (0.42, 1.0)  # of the median, how light it is to be, and the exponents that may make it so
VIVID = 0.4  # difference between the bands of all but the most colourful pixels, at most
LEAST_POWER = 1e-5  # −50 dB, below all that radars measure


@dataclass(frozen=True)
class Stretch:
    """How measured values become colours.

    Attributes:
        black: what is black in each band.
        white: what is white in all of them, as clouds and snow are about as bright in each.
        exponent: by which the light that is left is raised.
        vivid: share of the differences between bands that is kept.
    """

    black: NDArray[np.float32]
    white: float
    exponent: float = 1
    vivid: float = 1

    @classmethod
    def of(cls, values: NDArray[np.float32], clouds: NDArray[np.float32]) -> Stretch:
        """The stretch for values like these, some of which may be clouds; both (bands, pixels)."""
        if not values.size:
            return cls(np.zeros(len(values), np.float32), 1)
        low, high = np.percentile(_scaled(values), CLIPPED, axis=1)
        brightest = np.percentile(_scaled(clouds), CLIPPED[1], axis=1)
        # Some room above the ground, so that the edges of clouds are soft.
        white = float((high + ROOM * np.maximum(brightest - high, 0)).max())
        # Air lightens blue most. But not all that is blue or green is air.
        floor = low.min()
        black = floor + np.maximum(low - floor - HAZE * (white - floor), 0)
        plain = cls(black.astype(np.float32), max(white, float(black.max()) + 1e-6))
        if len(values) == 1:
            return plain
        shown = plain.applied(values)
        middle = float(np.clip(np.median(shown.mean(axis=0)), 1e-3, 1 - 1e-3))
        bright = replace(plain, exponent=float(np.clip(np.log(MIDDLE) / np.log(middle), *EXPONENTS)))
        colourful = float(np.percentile(np.ptp(bright.applied(values), axis=0), CLIPPED[1]))
        return replace(bright, vivid=min(1.0, VIVID / max(colourful, 1e-6)))

    def applied(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colours, 0 to 1, of measured values, both (bands, …)."""
        black = self.black.reshape(-1, *(1,) * (values.ndim - 1))
        light = np.clip((_scaled(values) - black) / (self.white - black), 0, 1) ** np.float32(self.exponent)
        grey = light.mean(axis=0, keepdims=True)
        colours: NDArray[np.float32] = grey + np.float32(self.vivid) * (light - grey)
        return colours


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """One band alone is backscatter, which is looked at in decibels."""
    return 10 * np.log10(np.maximum(values, LEAST_POWER)) if len(values) == 1 else values
