"""What is to be taken away from the numbers of a scene, where its catalogue cannot be trusted to say it.

A platform whose files are not all alike names a `Radiometry`. Files are opened by the stages: here are decisions and
arithmetic alone.
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
    """What is to be taken away from the numbers of a scene, and why.

    Attributes:
        offset: what every valid number of the file holds too much, in the file's own unit; 0: nothing.
        evidence: what decided.
        baseline: processing baseline that the item states, such as `05.09`; None: it states none, or several.
        flagged: the offset that the item's flags tell of, whether they decided or not; None: they tell of none.
        lows: band → a low percentile of its overview; empty where no pixels were looked at.
        projected: the offset at which the bands meet as a scene darkens; None where that was not looked at, or not to
            be told.
        contradiction: which parts of the evidence disagree; None: none do.
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
    """How a platform tells what is to be taken away from the numbers of a scene.

    Attributes:
        bands: assets whose overviews are looked at.
        decide: (item, overviews) → the decision. Overviews: asset → pixels as they are stored, nodata 0, of any
            shape and resolution; or a function that reads them, which is called only where pixels are needed. Assets
            that could not be read are left out. It raises on no item, whatever its properties hold.
    """

    bands: tuple[str, ...]
    decide: Callable[[Item, Overviews | Callable[[], Overviews]], RadiometricOffset]


def harmonise(pixels: NDArray[Any], offset: int) -> NDArray[Any]:
    """Pixels without an offset, in their own type: nodata stays 0, and what is valid stays at least 1.

    Args:
        pixels: as they are stored, unsigned integers of any shape, nodata 0.
        offset: to be taken away. 0 gives `pixels` itself, not a copy.
    """
    if offset == 0:
        return pixels
    import numpy as np

    without: NDArray[Any] = np.maximum(pixels, pixels.dtype.type(offset + 1))
    without -= pixels.dtype.type(offset)
    without *= pixels != NODATA
    return without
