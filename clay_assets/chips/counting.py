"""How many pixels of each chip are cloud, and how many are nodata.

Pixels are judged and counted in slabs that the processor's cache holds. Where the pixels of one quality asset are codes
of 8 or 16 bits, the platform judges each code once, and pixels are compared with those that count: looking each of
them up would take ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.platforms.base import Mask, Pixels, Quality

SLAB_BYTES = 1 << 17  # of pixels judged at a time; a core's second-level cache holds them and what is made of them
SLAB_ROWS = 255  # counted at a time, so that the count of a column is a byte
CODES = ("uint8", "uint16")  # types of pixels whose every value is judged beforehand
MOST_SPANS = 5  # of codes that are compared; more are looked up

Judge = Callable[[NDArray[Any]], Mask]
_Judges = tuple[Judge | None, Judge | None]


class ChipCounts:
    """Counts of cloud and of nodata, filled part by part.

    Args:
        quality: how pixels are judged.
        side: pixels of a chip's side, at the resolution of the pixels that are counted.
        rows: of chips.
        columns: of chips.
        what: what to say of pixels that the platform cannot judge.
    """

    def __init__(self, quality: Quality, side: int, rows: int, columns: int, what: str) -> None:
        self._quality, self._what, self.side = quality, what, side
        self._counts = np.zeros((2, rows, columns), np.int64)  # of cloud and of nodata

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of all chips, in pixels that are counted."""
        _, rows, columns = self._counts.shape
        return rows * self.side, columns * self.side

    def shares(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shares of cloud and of nodata among the pixels of each chip, 0 to 1; (rows, columns) each."""
        cloud, nodata = (self._counts / self.side**2).astype(np.float32)
        return cloud, nodata

    def add(self, row: int, column: int, pixels: Pixels) -> None:
        """Judge and count a part of the chips.

        Args:
            row: of its upper left pixel.
            column: of its upper left pixel.
            pixels: of each quality asset, (height, width) all.

        Raises:
            InputError: pixels that the platform cannot judge.
        """
        judges = self._judges(pixels)
        height, width = next(iter(pixels.values())).shape
        step = max(1, SLAB_BYTES // (width * sum(band.itemsize for band in pixels.values())))
        starts = np.arange(column - column % self.side, column + width, self.side).clip(column) - column
        for top in range(0, height, step):
            slab = {name: band[top : top + step] for name, band in pixels.items()}
            for mask, counts in zip(self._masks(slab, judges), self._counts, strict=True):
                if mask is not None:
                    self._count(mask, row + top, column // self.side, starts, counts)

    def add_everywhere(self, pixels: Mapping[str, int]) -> None:
        """Count every chip as one whose pixels all have the same value, told of each quality asset."""
        masks = self._masks({name: np.full((1, 1), value, np.uint8) for name, value in pixels.items()}, None)
        self._counts += np.array(masks).reshape(2, 1, 1) * self.side**2

    def _masks(self, slab: Pixels, judges: _Judges | None) -> tuple[Mask | None, Mask | None]:
        """Cloud and nodata, each None where there is none."""
        if judges is not None:
            (codes,) = slab.values()
            cloud, nodata = (None if judge is None else judge(codes) for judge in judges)
            return cloud, nodata
        try:
            return self._quality.judge(slab)
        except (IndexError, TypeError) as error:
            raise InputError(f"{self._what} ({error}). Check the item's hrefs.") from error

    def _judges(self, pixels: Pixels) -> _Judges | None:
        """What tells cloud and nodata by codes; None where the platform is asked."""
        if len(pixels) > 1:
            return None
        ((name, band),) = pixels.items()
        return judges_of(self._quality.judge, name, band.dtype.name) if band.dtype.name in CODES else None

    def _count(self, mask: Mask, row: int, column: int, starts: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        """Add the pixels of a mask, whose columns begin new chips at `starts`, to the chips from `column` on."""
        true, top = np.asarray(mask, np.bool_).view(np.uint8), 0
        while top < len(true):
            chip, inside = divmod(row + top, self.side)
            stop = min(top + SLAB_ROWS, top + self.side - inside, len(true))
            of_columns = np.add.reduce(true[top:stop], axis=0, dtype=np.uint8)
            counts[chip, column : column + len(starts)] += np.add.reduceat(of_columns, starts, dtype=np.int64)
            top = stop


@cache
def judges_of(judge: Callable[[Pixels], tuple[Mask, Mask]], asset: str, dtype: str) -> _Judges | None:
    """What tells cloud and nodata by the codes of one quality asset, None of that which no code is.

    Returns:
        None where the platform cannot judge every code of the type; then it may judge those that occur.
    """
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[np.newaxis]
    try:
        cloud, nodata = (np.asarray(mask, np.bool_).reshape(codes.size) for mask in judge({asset: codes}))
    except Exception:  # whatever a platform makes of codes that its files never have
        return None
    return _judge_by(cloud, codes.dtype), _judge_by(nodata, codes.dtype)


def _judge_by(table: Mask, dtype: np.dtype[Any]) -> Judge | None:
    """What tells which pixels have a code that is True in the table; None if none is."""
    if not table.any():
        return None
    codes = np.arange(len(table))
    bits = sum(1 << bit for bit in range(8 * dtype.itemsize) if table[1 << bit])
    if np.array_equal((codes & bits) != 0, table):
        flags = dtype.type(bits)
        return lambda pixels: (pixels & flags) != 0
    edges = np.flatnonzero(np.diff(table, prepend=False, append=False)).reshape(-1, 2)
    if len(edges) > MOST_SPANS:
        return lambda pixels: np.take(table, pixels, mode="wrap")  # the quickest mode; every code is in the table
    spans = [(dtype.type(first), dtype.type(stop - 1)) for first, stop in edges.tolist()]

    def judge(pixels: NDArray[Any]) -> Mask:
        mask = _within(pixels, *spans[0])
        for first, last in spans[1:]:
            mask |= _within(pixels, first, last)
        return mask

    return judge


def _within(pixels: NDArray[Any], first: Any, last: Any) -> Mask:
    """Which codes lie between two, both included."""
    if first == last:
        return np.asarray(pixels == first)
    return np.asarray((pixels - first) <= (last - first))  # codes below the first wrap around, to above the last
