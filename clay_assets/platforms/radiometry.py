"""The offset to subtract from a scene's pixel values, for catalogues whose metadata cannot be trusted.

A platform whose files are not all alike declares a `Radiometry`. Files are opened by the stages; this module only has
the decision and the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from clay_assets.stac import Item

if TYPE_CHECKING:
    from numpy.typing import NDArray

Evidence: TypeAlias = Literal["baseline", "pixels", "flags", "default"]
Overviews: TypeAlias = "Mapping[str, NDArray[Any]]"
NODATA = 0


@dataclass(frozen=True)
class RadiometricOffset:
    """The offset to subtract from a scene's pixel values, and the evidence for it.

    Attributes:
        offset: the offset to subtract from every valid pixel value, in the file's unit; 0: none.
        evidence: the evidence that decided.
        baseline: processing baseline that the item states, such as `05.09`; None: it states none, or several.
        flagged: the offset by the item's flags, whether they decided or not; None: unknown.
        lows: band → a low percentile of its overview; empty if no pixels were read.
        projected: the value at which the bands converge as a scene darkens; None if not computed or unknown.
        contradiction: the parts of the evidence that disagree, or None.
    """

    offset: int
    evidence: Evidence
    baseline: str | None = None
    flagged: int | None = None
    lows: Mapping[str, float] = field(default_factory=dict)
    projected: float | None = None
    contradiction: str | None = None


@dataclass(frozen=True)
class Radiometry:
    """How a platform finds the offset to subtract from a scene's pixel values.

    Attributes:
        bands: assets whose overviews are used.
        decide: (item, overviews) → the decision. Overviews: asset → stored pixels, nodata 0, of any shape and
            resolution; or a function that reads them, called only if pixels are needed. Assets that could not be read
            are missing. Must not raise on any item, whatever its properties.
    """

    bands: tuple[str, ...]
    decide: Callable[[Item, Overviews | Callable[[], Overviews]], RadiometricOffset]


def harmonise(pixels: NDArray[Any], offset: int) -> NDArray[Any]:
    """Subtract an offset from pixels, keeping the dtype: nodata stays 0, and valid pixels stay at least 1.

    Args:
        pixels: pixels as stored, unsigned integers of any shape, nodata 0.
        offset: the offset to subtract. With 0, `pixels` itself is returned, not a copy.
    """
    if offset == 0:
        return pixels
    import numpy as np

    without: NDArray[Any] = np.maximum(pixels, pixels.dtype.type(offset + 1))
    without -= pixels.dtype.type(offset)
    without *= pixels != NODATA
    return without
