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

SLAB_BYTES = 1 << 19  # of pixels judged at a time; a core's cache holds them and what is made of them
BYTE_ROWS, MOST_ROWS = 128, 255  # counted at a time, so that the count of a column is a byte
CODES = ("uint8", "uint16")  # types of pixels whose every value is judged beforehand
MOST_SPANS = 5  # of codes that are compared; more are looked up


class ChipCounts:
    """Counts of cloud and of nodata, filled part by part. Not to be shared between threads.

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
        self._scratch = _Scratch()

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
        codes = self._codes(pixels)
        height, width = next(iter(pixels.values())).shape
        first = column // self.side
        chips = slice(first, (column + width - 1) // self.side + 1)
        starts = np.arange(chips.start, chips.stop) * self.side - column
        starts[0] = 0
        step = max(1, SLAB_BYTES // (width * sum(band.itemsize for band in pixels.values())))
        for top in range(0, height, step):
            slab = {name: band[top : top + step] for name, band in pixels.items()}
            if codes is None:
                for mask, counts in zip(self._judged(slab), self._counts, strict=True):
                    self._count(np.asarray(mask, np.bool_), row + top, chips, starts, counts)
                continue
            (values,) = slab.values()
            for each, counts in zip(codes, self._counts, strict=True):
                found = each.among(values, self._scratch)
                if found is not None:
                    self._count(found, row + top, chips, starts, counts)

    def add_everywhere(self, pixels: Mapping[str, int]) -> None:
        """Count every chip as one whose pixels all have the same value, told of each quality asset."""
        masks = self._judged({name: np.full((1, 1), value, np.uint8) for name, value in pixels.items()})
        self._counts += np.array(masks, np.bool_).reshape(2, 1, 1) * self.side**2

    def _judged(self, slab: Pixels) -> tuple[Mask, Mask]:
        try:
            return self._quality.judge(slab)
        except (IndexError, TypeError) as error:
            raise InputError(f"{self._what} ({error}). Check the item's hrefs.") from error

    def _codes(self, pixels: Pixels) -> tuple[Codes, Codes] | None:
        """Codes of cloud and of nodata; None where the platform has to judge the pixels."""
        if len(pixels) > 1:
            return None
        ((name, band),) = pixels.items()
        return codes_of(self._quality.judge, name, band.dtype.name) if band.dtype.name in CODES else None

    def _count(self, mask: Mask, row: int, chips: slice, starts: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        """Add the pixels of a mask to the columns `chips`, which begin at `starts`."""
        height, side = len(mask), self.side
        rows = next((rows for rows in (side, BYTE_ROWS) if rows <= MOST_ROWS and side % rows == 0), 0)
        if (
            rows and len(starts) > 1 and row % side == height % side == 0
        ):  # most blocks are a whole number of chips high
            parts = mask.reshape(-1, rows, mask.shape[1]).view(np.uint8)
            of_columns = np.add.reduce(parts, axis=1, dtype=np.uint8)
            of_parts = np.add.reduceat(of_columns, starts, axis=1, dtype=np.int64)
            of_chips = of_parts.reshape(-1, side // rows, len(starts)).sum(axis=1)
            counts[row // side : (row + height) // side, chips] += of_chips
            return
        top = 0
        while top < height:
            chip, inside = divmod(row + top, side)
            part = mask[top : min(top + BYTE_ROWS, top + side - inside)]
            if len(starts) == 1:
                counts[chip, chips] += np.count_nonzero(part)
            else:
                of_columns = np.add.reduce(part.view(np.uint8), axis=0, dtype=np.uint8)
                counts[chip, chips] += np.add.reduceat(of_columns, starts, dtype=np.int64)
            top += len(part)


@cache
def codes_of(judge: Callable[[Pixels], tuple[Mask, Mask]], asset: str, dtype: str) -> tuple[Codes, Codes] | None:
    """The codes of one quality asset that are cloud, and those that are nodata.

    Returns:
        None where the platform cannot judge every code of the type; it may be able to judge those that occur.
    """
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[np.newaxis]
    try:
        cloud, nodata = judge({asset: codes})
        tables = [np.asarray(mask, np.bool_).reshape(codes.size) for mask in (cloud, nodata)]
    except Exception:  # whatever a platform makes of codes that its files never have
        return None
    return Codes(tables[0], codes.dtype), Codes(tables[1], codes.dtype)


class Codes:
    """Some codes of 8 or 16 bits, and which pixels have one of them.

    Args:
        table: True of each code that counts, from 0.
        dtype: of pixels.
    """

    def __init__(self, table: Mask, dtype: np.dtype[Any]) -> None:
        self.table, self.dtype = table, dtype
        bits = sum(1 << bit for bit in range(8 * dtype.itemsize) if table[1 << bit])
        self._flags = dtype.type(bits) if np.array_equal((np.arange(len(table)) & bits) != 0, table) else None
        self._spans = np.flatnonzero(np.diff(table, prepend=False, append=False)).reshape(-1, 2).tolist()

    def among(self, pixels: NDArray[Any], scratch: _Scratch) -> Mask | None:
        """Which pixels have one of the codes, in an array of the scratch; None: none of them."""
        if not self._spans:
            return None
        mask, other, words = scratch.like(pixels)
        if self._flags is not None:
            if not np.bitwise_or.reduce(pixels, axis=None) & self._flags:
                return None
            np.bitwise_and(pixels, self._flags, out=words)
            return np.not_equal(words, 0, out=mask)
        if len(self._spans) > MOST_SPANS:
            return np.take(self.table, pixels, out=mask, mode="wrap")  # the quickest mode; the table has every code
        lowest, highest = int(pixels.min()), int(pixels.max())
        spans = [(first, stop) for first, stop in self._spans if first <= highest and stop > lowest]
        for number, (first, stop) in enumerate(spans):
            out = other if number else mask
            if stop - first == 1:
                np.equal(pixels, self.dtype.type(first), out=out)
            else:  # codes below the first wrap around, and lie above the last
                np.subtract(pixels, self.dtype.type(first), out=words)
                np.less_equal(words, self.dtype.type(stop - first - 1), out=out)
            if number:
                np.logical_or(mask, other, out=mask)
        return mask if spans else None


class _Scratch:
    """Arrays for what is made of a slab; new ones each time would take as long as all else."""

    def __init__(self) -> None:
        self._mask = self._other = np.empty(0, np.bool_)
        self._words: NDArray[Any] = np.empty(0, np.uint8)

    def like(self, pixels: NDArray[Any]) -> tuple[Mask, Mask, NDArray[Any]]:
        """Two masks and an array of the pixels' type, all of their shape."""
        if self._mask.size < pixels.size or self._words.dtype != pixels.dtype:
            self._mask, self._other = (np.empty(pixels.size, np.bool_) for _ in range(2))
            self._words = np.empty(pixels.size, pixels.dtype)
        mask, other, words = (
            array[: pixels.size].reshape(pixels.shape) for array in (self._mask, self._other, self._words)
        )
        return mask, other, words
