"""Counts the pixels of each value inside polygons.

All polygons of a file are counted in one pass over its pixels: a polygon's run of pixels in a row is the difference of
two running counts, kept with one bit per pixel and value. Overlapping tiles therefore cost nothing extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import geometry_mask

NEAR = 1e-7  # pixels; GDAL decides if an edge passes a pixel's centre this closely
SLAB = 1 << 19  # pixels counted at a time
WORD = 64  # pixels whose bits are counted at once

_INTS = npt.NDArray[np.intp]
_FLOATS = npt.NDArray[np.float64]

# rasterio warns that the in-memory raster of `geometry_mask` has no transform, although it is given one. The filter is
# process-wide, since `catch_warnings` is not thread-safe and would let some of the warnings through.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features")


@dataclass(frozen=True)
class Spans:
    """Runs of pixels within rows, ordered by row.

    Attributes:
        polygon: number of the polygon that the run lies in.
        row: row of the image.
        first: first column.
        stop: column after the last.
        weight: weight of each pixel of the run.
    """

    polygon: _INTS
    row: _INTS
    first: _INTS
    stop: _INTS
    weight: _FLOATS

    @classmethod
    def of(cls, polygons: Sequence[tuple[_INTS, _INTS, _INTS, _FLOATS]]) -> Spans:
        """Join the runs of several polygons, given as (row, first, stop, weight) per polygon."""
        number = np.repeat(np.arange(len(polygons)), [len(row) for row, *_ in polygons])
        row, first, stop, weight = (np.concatenate(each) for each in zip(*polygons, strict=True))
        order = np.argsort(row, kind="stable")
        return cls(number[order], row[order], first[order], stop[order], weight[order])

    def within(self, top: int, bottom: int) -> slice:
        """The slice of the runs in the rows from `top` to below `bottom`."""
        return slice(*np.searchsorted(self.row, (top, bottom)).tolist())

    def weighted(self, counts: npt.NDArray[np.int64], polygons: int) -> _FLOATS:
        """Sum the weights of each polygon's pixels by value, from counts (values, spans); (polygons, values).

        Added row by row, so that a sum does not depend on the other polygons.
        """
        order = np.lexsort((self.row, self.polygon))
        polygon, row = self.polygon[order], self.row[order]
        new = np.flatnonzero((np.diff(polygon, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
        if not len(new):
            return np.zeros((polygons, len(counts)))
        of_rows = counts[:, order]
        if len(new) < len(order):  # a polygon has several runs in a row
            of_rows = np.add.reduceat(of_rows, new, axis=1)
        weight = self.weight[order][new]
        return np.stack([np.bincount(polygon[new], each * weight, polygons) for each in of_rows], axis=1)


def spans_inside(polygon: Any, transform: rasterio.Affine, shape: tuple[int, int]) -> tuple[_INTS, _INTS, _INTS]:
    """Runs of pixels whose centres lie inside a polygon, as rasterised by GDAL: row, first and stop.

    Args:
        polygon: Polygon or MultiPolygon in the units of the transform.
        transform: transform of the grid, north up.
        shape: height and width of the grid; pixels outside are ignored.
    """
    height, width = shape
    points, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(polygon)), return_index=True)
    x, y = (points[:, 0] - transform.c) / transform.a, (points[:, 1] - transform.f) / transform.e
    edge = np.flatnonzero(ring[1:] == ring[:-1])
    begin, end = (np.where(y[edge] < y[edge + 1], *pair) for pair in ((edge, edge + 1), (edge + 1, edge)))
    # Rows whose centre line lies between the ends of an edge.
    top, bottom = (np.clip(np.ceil(y[ends] - 0.5), 0, height).astype(np.intp) for ends in (begin, end))
    count = bottom - top
    of_edge = np.repeat(np.arange(len(edge)), count)
    row = np.arange(len(of_edge)) - np.repeat(np.cumsum(count) - count, count) + top[of_edge]
    begin, end = begin[of_edge], end[of_edge]
    crossing = (row + 0.5 - y[begin]) * (x[end] - x[begin]) / (y[end] - y[begin]) + x[begin] + 0.5
    if (np.abs(crossing - np.rint(crossing)) < NEAR).any() or (np.abs(y - 0.5 - np.rint(y - 0.5)) < NEAR).any():
        return _runs(geometry_mask([polygon], shape, transform, invert=True))
    order = np.lexsort((crossing, row))
    column = np.clip(np.floor(crossing[order]), 0, width).astype(np.intp)
    row, first, stop = row[order][::2], column[::2], column[1::2]
    some = stop > first
    return row[some], first[some], stop[some]


def _runs(mask: npt.NDArray[np.bool_]) -> tuple[_INTS, _INTS, _INTS]:
    """Runs of True in the rows of a mask."""
    padded = np.pad(mask, ((0, 0), (1, 1)))
    row, column = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return row[::2], column[::2], column[1::2]


def count_values(
    slabs: Iterable[tuple[int, npt.NDArray[np.uint8]]], spans: Spans, values: Sequence[int]
) -> tuple[npt.NDArray[np.int64], int | None]:
    """Count the pixels of each value in each span.

    Args:
        slabs: first row and pixels (rows, width) of parts of the image, which together hold all spans.
        spans: the spans to count in.
        values: the values to count.

    Returns:
        Counts, (values, spans); and a value not in `values`, from the first polygon that has one, or None.
    """
    counts = np.zeros((len(values), len(spans.row)), np.int64)
    other: tuple[int, int] | None = None  # polygon, value
    for top, pixels in slabs:
        step = max(1, SLAB // pixels.shape[1])
        for begin in range(0, len(pixels), step):
            part = pixels[begin : begin + step]
            inside = spans.within(top + begin, top + begin + len(part))
            row, first, stop = spans.row[inside] - top - begin, spans.first[inside], spans.stop[inside]
            counts[:, inside] = _counted(part, row, first, stop, values)
            unknown = np.flatnonzero(counts[:, inside].sum(axis=0) != stop - first)
            if len(unknown):
                polygon = spans.polygon[inside][unknown]
                number = unknown[polygon.argmin()]
                if other is None or polygon.min() < other[0]:
                    run = part[row[number], first[number] : stop[number]]
                    other = int(polygon.min()), int(run[~np.isin(run, values)][0])
    return counts, None if other is None else other[1]


def _counted(
    pixels: npt.NDArray[np.uint8], row: _INTS, first: _INTS, stop: _INTS, values: Sequence[int]
) -> npt.NDArray[np.int64]:
    """Count the pixels of each value in each run of a part; (values, runs)."""
    height, width = pixels.shape
    words = width // WORD + 1  # one extra, for runs that end with the row
    same = np.zeros((height, words * WORD), np.bool_)
    before = np.zeros(
        (height, words), np.uint16 if width < 1 << 16 else np.uint32
    )  # number of bits in the words before
    found = np.zeros((len(values), len(row)), np.int64)
    ends = np.concatenate([first, stop])
    at = np.concatenate([row, row]) * words + ends // WORD
    below = (np.uint64(1) << (ends % WORD).astype(np.uint64)) - np.uint64(1)
    for number, value in enumerate(values):
        np.equal(pixels, value, out=same[:, :width])
        if not same.any():
            continue
        bits = np.packbits(same, axis=1, bitorder="little").view("<u8")
        np.cumsum(np.bitwise_count(bits[:, :-1]), axis=1, out=before[:, 1:])
        up_to = before.take(at).astype(np.int64) + np.bitwise_count(bits.take(at) & below)
        np.subtract(up_to[len(row) :], up_to[: len(row)], out=found[number])
    return found
