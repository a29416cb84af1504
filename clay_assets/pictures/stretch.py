"""Stretch measured values to colours, so that a scene looks roughly natural."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

CLIPPED = (2, 98)  # percentiles mapped to black and white
ROOM = 0.15  # white is this share of the way from the brightest ground to the brightest cloud
HAZE = 0.05  # share of black to white; the darkest pixels of a band may be this much lighter, and the rest is haze
MIDDLE, EXPONENTS = 0.34, (0.42, 1.0)  # target lightness of the median, and limits of the exponent
VIVID = 0.4  # largest difference between bands, except in the most colourful pixels
LEAST_POWER = 1e-5  # −50 dB, below any radar measurement


@dataclass(frozen=True)
class Stretch:
    """A mapping of measured values to colours.

    Attributes:
        black: value shown as black in each band.
        white: value shown as white in all bands, as clouds and snow are about equally bright in each.
        exponent: exponent applied to the scaled values.
        vivid: share of the differences between bands that is kept.
    """

    black: NDArray[np.float32]
    white: float
    exponent: float = 1
    vivid: float = 1

    @classmethod
    def of(cls, values: NDArray[np.float32], clouds: NDArray[np.float32]) -> Stretch:
        """Derive a stretch from ground values and values that may include clouds; both (bands, pixels)."""
        if not values.size:
            return cls(np.zeros(len(values), np.float32), 1)
        low, high = np.percentile(_scaled(values), CLIPPED, axis=1)
        brightest = np.percentile(_scaled(clouds), CLIPPED[1], axis=1)
        # Some headroom above the ground, so that cloud edges are soft.
        white = float((high + ROOM * np.maximum(brightest - high, 0)).max())
        # The atmosphere brightens blue most, but not everything blue or green is haze.
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
        """Map measured values to colours, 0 to 1; both (bands, …)."""
        black = self.black.reshape(-1, *(1,) * (values.ndim - 1))
        light = np.clip((_scaled(values) - black) / (self.white - black), 0, 1) ** np.float32(self.exponent)
        grey = light.mean(axis=0, keepdims=True)
        colours: NDArray[np.float32] = grey + np.float32(self.vivid) * (light - grey)
        return colours


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A single band is radar backscatter, which is shown in decibels."""
    return 10 * np.log10(np.maximum(values, LEAST_POWER)) if len(values) == 1 else values
