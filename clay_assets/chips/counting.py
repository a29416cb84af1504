"""Count the cloud and nodata pixels of each chip.

Pixels are classified and counted in slabs that fit the processor's cache. If the pixels of the single quality asset are
8- or 16-bit codes, the platform classifies each code once, and pixels are compared with the matching codes, which is
ten times as fast as a lookup per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.platforms.base import Mask, Pixels, Quality

SLAB_BYTES = 1 << 18  # bytes of pixels classified at a time; they and the derived arrays fit the cache
MOST_ROWS, FEWEST_ROWS = 255, 32  # limits of the rows per column sum; up to 255 it fits a byte
FOLDED = 4  # rows summed side by side: fewer and longer additions take two thirds of the time
CODES = ("uint8", "uint16")  # pixel types for which every value is classified in advance
MOST_SPANS = 5  # spans of codes that are compared; more are looked up
MOST_SCATTERED, FEWEST_SCATTERED = 16, 8  # codes, from 0, for which a single comparison is tried


class ChipCounts:
    """Counts of cloud and nodata, filled part by part. Not thread-safe.

    Args:
        quality: the platform's classification of pixels.
        side: side length of a chip in counted pixels.
        rows: number of rows of chips.
        columns: number of columns of chips.
        what: message for pixels that the platform cannot classify.
    """

    def __init__(self, quality: Quality, side: int, rows: int, columns: int, what: str) -> None:
        self.shape = rows * side, columns * side  # size of all chips in counted pixels
        self.side = side
        self._quality, self._what, self._scratch = quality, what, _Scratch()
        # Column sums over blocks of rows, added up when all are counted.
        self._rows = next((rows for rows in range(MOST_ROWS, FEWEST_ROWS, -1) if side % rows == 0), side)
        dtype = np.uint8 if self._rows <= MOST_ROWS else np.uint32
        self._cloud, self._nodata = (np.zeros((self.shape[0] // self._rows, self.shape[1]), dtype) for _ in range(2))
        self._known: dict[Any, tuple[Codes, Codes] | None] = {}

    def shares(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Shares of cloud and nodata among the pixels of each chip, 0 to 1; (rows, columns) each."""
        side, (height, width) = self.side, self.shape
        parts = height // side, side // self._rows, width // side, side
        cloud, nodata = (
            (each.reshape(parts).sum(axis=(1, 3), dtype=np.int64) / (side * side)).astype(np.float32)
            if each.any()
            else np.zeros(parts[::2], np.float32)
            for each in (self._cloud, self._nodata)
        )
        return cloud, nodata

    def add(self, row: int, column: int, pixels: Pixels) -> None:
        """Classify and count a part of the chips; add each pixel only once.

        Args:
            row: row of the upper left pixel.
            column: column of the upper left pixel.
            pixels: pixels of each quality asset, all (height, width).

        Raises:
            InputError: pixels that the platform cannot classify.
        """
        codes = self._codes(pixels)
        if codes is not None and (values := next(iter(pixels.values()))).nbytes <= SLAB_BYTES:
            self._look_for(codes, values, row, column)
            return
        height, width = next(iter(pixels.values())).shape
        step = max(1, SLAB_BYTES // (width * sum(band.itemsize for band in pixels.values())))
        for top in range(0, height, step):
            slab = pixels if step >= height else {name: band[top : top + step] for name, band in pixels.items()}
            if codes is None:
                cloud, nodata = self._judged(slab)
                self._count(np.asarray(cloud, np.bool_), row + top, column, self._cloud)
                self._count(np.asarray(nodata, np.bool_), row + top, column, self._nodata)
            else:
                (values,) = slab.values()
                self._look_for(codes, values, row + top, column)

    def _look_for(self, codes: tuple[Codes, Codes], values: NDArray[Any], row: int, column: int) -> None:
        """Count the codes of cloud and of nodata in a slab."""
        cloud, nodata = codes
        lowest = highest = 0
        if cloud.by_range or nodata.by_range:
            lowest, highest = int(np.minimum.reduce(values, None)), int(np.maximum.reduce(values, None))
        for each, counts in ((cloud, self._cloud), (nodata, self._nodata)):
            found = each.among(values, lowest, highest, self._scratch)
            if found is not None:
                self._count(found, row, column, counts)

    def _judged(self, slab: Pixels) -> tuple[Mask, Mask]:
        try:
            return self._quality.judge(slab)
        except (IndexError, TypeError) as error:
            raise InputError(f"{self._what} ({error}). Check the item's hrefs.") from error

    def _codes(self, pixels: Pixels) -> tuple[Codes, Codes] | None:
        """Codes of cloud and of nodata; None if the platform must classify pixels directly."""
        if len(pixels) > 1:
            return None
        ((name, band),) = pixels.items()
        if band.dtype not in self._known:
            dtype = band.dtype.name
            self._known[band.dtype] = codes_of(self._quality.judge, name, dtype) if dtype in CODES else None
        return self._known[band.dtype]

    def _count(self, mask: Mask, row: int, column: int, counts: NDArray[Any]) -> None:
        """Add the column sums of a mask."""
        height, width = mask.shape
        rows, columns = self._rows, slice(column, column + width)
        if row % rows == height % rows == 0:  # most blocks are a whole number of chips high
            parts = mask.view(np.uint8)
            if rows % FOLDED == 0:
                wide = parts.reshape(-1, rows // FOLDED, FOLDED * width)
                parts, rows_left = np.add.reduce(wide, 1, dtype=counts.dtype), FOLDED
            else:
                rows_left = rows
            out = counts[row // rows : (row + height) // rows, columns]
            np.add.reduce(parts.reshape(-1, rows_left, width), 1, dtype=counts.dtype, out=out)
            return
        top = 0
        while top < height:
            part, inside = divmod(row + top, rows)
            stop = min(top + rows - inside, height)
            counts[part, columns] += np.add.reduce(mask[top:stop].view(np.uint8), axis=0, dtype=counts.dtype)
            top = stop


@cache
def codes_of(judge: Callable[[Pixels], tuple[Mask, Mask]], asset: str, dtype: str) -> tuple[Codes, Codes] | None:
    """The codes of a quality asset that are cloud, and those that are nodata.

    Returns:
        None if the platform cannot classify every code of the type, even if it can classify those that occur.
    """
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)[np.newaxis]
    try:
        cloud, nodata = judge({asset: codes})
        tables = [np.asarray(mask, np.bool_).reshape(codes.size) for mask in (cloud, nodata)]
    except Exception:  # whatever a platform raises for codes that never occur in its files
        return None
    return Codes(tables[0], codes.dtype), Codes(tables[1], codes.dtype)


class Codes:
    """A set of 8- or 16-bit codes, and a fast test of which pixels have one of them.

    Args:
        table: whether each code, from 0, is in the set.
        dtype: data type of pixels.
    """

    def __init__(self, table: Mask, dtype: np.dtype[Any]) -> None:
        self._table, self._flags = table, None
        bits = sum(1 << bit for bit in range(8 * dtype.itemsize) if table[1 << bit])
        if np.array_equal((np.arange(len(table)) & bits) != 0, table):
            self._flags = np.array(bits, dtype)
        edges = np.flatnonzero(np.diff(table, prepend=False, append=False)).reshape(-1, 2)
        spans = [(first, stop - 1) for first, stop in edges.tolist()]
        self._any, self._few = bool(spans), len(spans) <= MOST_SPANS
        self.by_range = self._any and self._few and self._flags is None
        self._spans = [_Span(*span, dtype) for span in spans] if self.by_range else []
        self._scattered = _Scattered.of(table) if dtype == np.uint8 and 1 < len(spans) <= MOST_SPANS else None
        self._zero = np.array(0, dtype)

    def among(self, pixels: NDArray[Any], lowest: int, highest: int, scratch: _Scratch) -> Mask | None:
        """Which pixels have one of the codes, in a scratch array; None: none of them.

        Args:
            pixels: a slab of pixels.
            lowest: lowest pixel value; used if codes go `by_range`.
            highest: highest pixel value; used likewise.
            scratch: buffers for the result, which is valid until their next use.
        """
        if not self._any:
            return None
        # Few spans overlap the range of pixels, and for some a comparison with one end suffices.
        spans = [span for span in self._spans if span.first <= highest and span.last >= lowest]
        if self.by_range and not spans:
            return None
        mask, other, words = scratch.like(pixels)
        if self._flags is not None:
            if not np.bitwise_or.reduce(pixels, None) & self._flags:
                return None
            np.not_equal(np.bitwise_and(pixels, self._flags, words), self._zero, mask)
        elif not self._few:
            self._table.take(pixels, out=mask, mode="wrap")  # the fastest mode; the table covers every code
        elif len(spans) > 1 and self._scattered is not None and highest < self._scattered.codes:
            self._scattered.among(pixels, mask)
        else:
            spans[0].among(pixels, lowest, highest, words, mask)
            for span in spans[1:]:
                span.among(pixels, lowest, highest, words, other)
                np.logical_or(mask, other, mask)
        return mask


class _Span:
    """The codes from `first` to `last`, kept as arrays, since scalars would be converted at each comparison."""

    def __init__(self, first: int, last: int, dtype: np.dtype[Any]) -> None:
        self.first, self.last = first, last
        self._first, self._last, self._width = (np.array(code, dtype) for code in (first, last, last - first))

    def among(self, pixels: NDArray[Any], lowest: int, highest: int, words: NDArray[Any], out: Mask) -> None:
        """Write which pixels have one of the codes; `lowest` and `highest` are the extremes of the pixels."""
        if self.first == self.last:
            np.equal(pixels, self._first, out)
        elif highest <= self.last:
            np.greater_equal(pixels, self._first, out)
        elif lowest >= self.first:
            np.less_equal(pixels, self._last, out)
        else:  # codes below the first wrap around to values above the last
            np.less_equal(np.subtract(pixels, self._first, words), self._width, out)


@dataclass(frozen=True)
class _Scattered:
    """Non-contiguous low 8-bit codes that one comparison separates from the others.

    After a multiplication with overflow and an XOR, exactly these codes are at or above a limit.

    Attributes:
        codes: number of codes, from 0, that are separated.
        factor, turned, limit: parameters of the comparison.
    """

    codes: int
    factor: NDArray[Any]
    turned: NDArray[Any]
    limit: NDArray[Any]

    @classmethod
    def of(cls, table: Mask) -> _Scattered | None:
        """Separate as many low codes as possible; None if that is too few.

        Args:
            table: whether each code, from 0, is in the set.
        """
        numbers = np.arange(256, dtype=np.uint8)
        products = numbers[:MOST_SCATTERED, None, None] * numbers[:, None] ^ numbers
        for codes in range(MOST_SCATTERED, FEWEST_SCATTERED - 1, -1):
            those, others = (products[:codes][which[:codes]] for which in (table, ~table))
            limits = those.min(axis=0, initial=255)
            found = np.argwhere(limits > others.max(axis=0, initial=0))
            if len(found):
                factor, turned = found[0]
                return cls(codes, numbers[factor, ...], numbers[turned, ...], limits[factor, turned, ...])
        return None

    def among(self, pixels: NDArray[Any], out: Mask) -> None:
        """Write which pixels have one of the codes."""
        words = out.view(np.uint8)  # in place, as another array would not fit the cache
        np.bitwise_xor(np.multiply(pixels, self.factor, words), self.turned, words)
        np.greater_equal(words, self.limit, out)


class _Scratch:
    """Reusable arrays for results of a slab; allocating new ones would double the time."""

    def __init__(self) -> None:
        self._arrays = np.empty((3, 0), np.uint64)
        self._views: dict[Any, tuple[Mask, Mask, NDArray[Any]]] = {}

    def like(self, pixels: NDArray[Any]) -> tuple[Mask, Mask, NDArray[Any]]:
        """Two masks and an array of the pixels' type, all of the pixels' shape."""
        key = pixels.shape, pixels.dtype
        if key not in self._views:
            if pixels.nbytes > self._arrays[0].nbytes:
                self._arrays = np.empty((3, -(-pixels.nbytes // 8)), np.uint64)
                self._views.clear()

            def view(number: int, dtype: Any) -> NDArray[Any]:
                array: NDArray[Any] = self._arrays[number].view(dtype)[: pixels.size]
                return array.reshape(pixels.shape)

            self._views[key] = view(0, np.bool_), view(1, np.bool_), view(2, pixels.dtype)
        return self._views[key]
