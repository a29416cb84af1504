"""Check that chips of different splits are not too close to each other, regardless of how they were split.

The splits of all chips are painted on one grid of 1 km² cells: the equal-area EASE-Grid 2.0 (EPSG:6933), which includes
both poles and wraps at ±180. Its cells are square at 30°, and taller and narrower at higher latitudes: 2 km at 64°, 8
km at 84°, where UTM and EPSG:3857 end, and more towards the poles. A cell is painted if a chip's bounding box touches
it. Every painted cell is then grown by the distance; a cell of another split inside is a leak. So every pair of chips
that is too close is found, and chips that are apart by the distance plus two cells are never reported.

Memory is one byte per grid cell (0.5 GB if chips cover the whole Earth), for any number of chips. This module does not
depend on how splits are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import permutations
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from clay_assets.errors import InputError
from clay_assets.findings import Finding, make_finding

PAINTED = ("train", "validate", "test")
UNPAINTED = "buffer"
KNOWN = (*PAINTED, UNPAINTED)
NO_GEOMETRY = "chips have no geometry. Re-materialise their chip_index."

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Painted = Sequence[Numbers]  # boxes of cells for each split in `PAINTED`

TURN, HALF_TURN, POLE = 360.0, 180.0, 90.0
_EARTH = Geod(ellps="WGS84")
_E2 = _EARTH.es
_E = np.sqrt(_E2)
STANDARD_PARALLEL = np.radians(30.0)  # of EPSG:6933
SCALE = float(np.cos(STANDARD_PARALLEL) / np.sqrt(1 - _E2 * np.sin(STANDARD_PARALLEL) ** 2))
# On a sphere with the Earth's strongest curvature, no distance is larger than on WGS 84.
SMALLEST_RADIUS = _EARTH.a * (1 - _E2) / 1000  # km, radius of curvature of a meridian at the equator
SMALL = 256  # cells; larger chips are few, and are painted one by one
WINDOW = 64  # rows, and minimum columns, that are searched together
ROW_GROUPS = 16  # of a part that are read together
SIDES = ("xmin", "ymin", "xmax", "ymax")


def _authalic(latitude: Floats) -> Floats:
    """Snyder, "Map projections: a working manual", USGS professional paper 1395, 1987, equation 3-12."""
    sine = np.sin(np.radians(latitude))
    return np.asarray((1 - _E2) * (sine / (1 - _E2 * sine**2) + np.arctanh(_E * sine) / _E))


_AT_POLE = float(_authalic(np.array(POLE)))
COLUMNS = round(2 * np.pi * _EARTH.a * SCALE / 1000)
ROWS = round(_EARTH.a * _AT_POLE / SCALE / 1000)


class _Window(NamedTuple):
    """A part of the grid with surroundings that may be too close to it."""

    rows: slice  # without the surroundings
    columns: slice
    low: int  # first row and column of the surroundings; columns may extend beyond ±180
    west: int
    painted: NDArray[np.uint8]


def painted(boxes: Floats, splits: NDArray[np.uint8], polygons: Callable[[Mask], NDArray[Any]]) -> Painted:
    """Convert chips to what `Leaks.paint` paints: few numbers, which can be computed on any worker.

    Args:
        boxes: west, south, east and north of each chip, degrees; (n, 4).
        splits: index in `KNOWN` of each chip's split; (n,).
        polygons: returns the split polygons of those chips whose box spans more than half the world.
    """
    wide = boxes[:, 2] - boxes[:, 0] > HALF_TURN
    if wide.any():
        parts, chip = shapely.get_parts(polygons(wide), return_index=True)
        boxes = np.concatenate([boxes[~wide], shapely.bounds(parts)])
        splits = np.concatenate([splits[~wide], splits[wide][chip]])
    return [_packed(boxes[splits == number]) for number in range(len(PAINTED))]


def painted_rows(rows: pa.Table | pa.RecordBatch) -> Painted:
    """Convert rows of the merged index to what `Leaks.paint` paints.

    Args:
        rows: rows with `bbox` and `split`, and `geometry` if a chip crosses ±180.

    Raises:
        InputError: a split is unknown, or a chip has no geometry.
    """
    boxes = _boxes(rows["bbox"])
    splits = rows["split"].cast(pa.string()).to_numpy(zero_copy_only=False).astype(str)
    codes = _codes(splits)
    if not np.isfinite(boxes).all():
        raise InputError(NO_GEOMETRY)
    return painted(boxes, codes, lambda wide: shapely.from_wkb(rows["geometry"].filter(pa.array(wide)).to_pylist()))


def _codes(splits: NDArray[Any]) -> NDArray[np.uint8]:
    present, codes = np.unique(splits, return_inverse=True)
    unknown = sorted({*present.tolist()} - {*KNOWN})
    if unknown:
        raise InputError(f"{', '.join(map(repr, unknown))}: unknown split. Known: {', '.join(KNOWN)}.")
    return np.array([KNOWN.index(name) for name in present], np.uint8)[codes]


def _packed(boxes: Floats) -> Numbers:
    """First and last columns and rows of boxes packed in one number, without duplicates."""
    west, south, east, north = boxes.T
    corners = _column_at(west), _column_at(east), _row_at(south), _row_at(north)
    # Chips of a place recur every year, and small chips share cells.
    return distinct(np.ravel_multi_index(corners, (COLUMNS, COLUMNS, ROWS, ROWS)))


def distinct(numbers: Numbers) -> Numbers:
    """Sorted numbers without duplicates: what `numpy.unique` returns, which hashes them, in less time."""
    found = np.sort(numbers)
    first = np.ones(len(found), bool)
    np.not_equal(found[1:], found[:-1], out=first[1:])
    return np.asarray(found[first])


class Leaks:
    """Finds chips of different splits that are closer than a distance. Add all chips, then get the finding.

    Args:
        distance_km: minimum distance between chips of different splits; with 0, they must not share a cell.
    """

    def __init__(self, distance_km: float) -> None:
        self.distance_km = distance_km
        # Pages that are never written take no memory. numpy's own arrays have pages of 2 MB, and chips touch most.
        self._painted = np.frombuffer(mmap(-1, ROWS * COLUMNS), np.uint8).reshape(ROWS, COLUMNS)
        self._in_use = np.zeros(ROWS, bool)  # rows with painted cells
        # Squares of `WINDOW` cells painted since the last search, and the splits painted in each square.
        self._fresh = np.zeros((-(-ROWS // WINDOW), -(-COLUMNS // WINDOW)), bool)
        self._splits = np.zeros(self._fresh.shape, np.uint8)

    def add(self, geometry: NDArray[Any], splits: NDArray[Any]) -> None:
        """Paint chips.

        Args:
            geometry: chip polygons in EPSG:4326, split where they cross ±180; (n,).
            splits: split of each chip, `train`, `validate`, `test` or `buffer`; (n,).

        Raises:
            InputError: a split is unknown, or a chip has no geometry.
        """
        parts, chip = shapely.get_parts(geometry, return_index=True)
        if len(np.unique(chip)) < len(geometry):
            raise InputError(NO_GEOMETRY)
        self.add_boxes(shapely.bounds(parts), np.asarray(splits, dtype=str)[chip])

    def add_rows(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Paint rows of the merged index; see `painted_rows`."""
        self.paint(painted_rows(rows))

    def add_boxes(self, boxes: Floats, splits: NDArray[np.str_]) -> None:
        """Paint chips, or parts of chips, none of which crosses ±180.

        Args:
            boxes: west, south, east and north of each chip, degrees; (n, 4).
            splits: split of each box; (n,).

        Raises:
            InputError: a split is unknown, or a box is not finite.
        """
        codes = _codes(splits)
        if not np.isfinite(boxes).all():
            raise InputError(NO_GEOMETRY)
        self.paint(painted(boxes, codes, lambda wide: shapely.box(*boxes[wide].T)))

    def finding(self, *, fresh: bool = False) -> Finding:
        """The leaks among all chips that were added.

        Args:
            fresh: only search around chips that were added since the last search.

        Returns:
            `leaking_km2`, and unless `fresh`, `painted_km2`; violations name a position and both splits.
        """
        said: list[str] = []
        leaking = 0
        for window in self._windows(fresh):
            for first, second in permutations(range(len(PAINTED)), 2):
                cells = self._too_near(window, 1 << first, 1 << second)
                count = int(np.count_nonzero(cells))
                if not count:
                    continue
                leaking += count
                row, column = np.argwhere(cells)[0]
                latitude = self._edges[window.rows.start + row]
                longitude = (window.columns.start + column) * TURN / COLUMNS - HALF_TURN
                said.append(
                    f"a {PAINTED[first]} chip at latitude {latitude:.2f}°, longitude {longitude:.2f}° is closer than "
                    f"{self.distance_km:g} km to a {PAINTED[second]} chip"
                )
        self._fresh[:] = False
        if fresh:
            return make_finding(said, violation_count=leaking, leaking_km2=leaking)
        bands = range(0, ROWS, WINDOW)
        whole = sum(
            np.count_nonzero(self._painted[row : row + WINDOW])
            for row in bands
            if self._in_use[row : row + WINDOW].any()
        )
        return make_finding(said, violation_count=leaking, painted_km2=int(whole), leaking_km2=leaking)

    @cached_property
    def _edges(self) -> Floats:
        """Latitudes of the row edges, from pole to pole."""
        y = (np.arange(1, ROWS) / ROWS * 2 - 1) * _EARTH.a * _AT_POLE / 2 / SCALE
        _, latitude = Transformer.from_crs(6933, 4326, always_xy=True).transform(np.zeros_like(y), y)
        return np.concatenate([[-POLE], latitude, [POLE]])

    def paint(self, boxes: Painted) -> None:
        """Paint the result of `painted`."""
        for number, packed in enumerate(boxes):
            if len(packed):
                self._paint(packed, np.uint8(1 << number))

    def _paint(self, packed: Numbers, bit: np.uint8) -> None:
        left, right, low, high = np.unravel_index(packed, (COLUMNS, COLUMNS, ROWS, ROWS))
        wide, tall = right - left + 1, high - low + 1
        large = (wide * tall > SMALL) | (wide > SMALL)
        begun = np.bincount(low, minlength=ROWS + 1) - np.bincount(high + 1, minlength=ROWS + 1)
        self._in_use |= np.cumsum(begun)[:ROWS] > 0
        west, east, south, north = (one // WINDOW for one in (left, right, low, high))
        squares = np.zeros_like(self._fresh)
        for y, x in ((south, west), (south, east), (north, west), (north, east)):
            squares[y, x] = True
        several = (east > west + 1) | (north > south + 1)
        for x, across, y, up in zip(*(one[several].tolist() for one in (west, east, south, north)), strict=True):
            squares[y : up + 1, x : across + 1] = True
        self._fresh |= squares
        self._splits[squares] |= bit
        for x, y, across, up in zip(left[large], low[large], wide[large], tall[large], strict=True):
            self._painted[y : y + up, x : x + across] |= bit
        flat = self._painted.reshape(-1)
        first, shape = (low * COLUMNS + left)[~large], (tall * (SMALL + 1) + wide)[~large]
        for one in np.unique(shape):
            here = first[shape == one]
            up, across = divmod(int(one), SMALL + 1)
            for step in (y * COLUMNS + x for y in range(up) for x in range(across)):
                flat[here + step] |= bit

    def _windows(self, fresh: bool) -> Iterator[_Window]:
        """Parts of the grid, all or only fresh ones, around which more than one split is painted."""
        reach = np.degrees(self.distance_km / SMALLEST_RADIUS)
        for south, painted_lately in zip(range(0, ROWS, WINDOW), self._fresh, strict=True):
            north = min(south + WINDOW, ROWS)
            squares = painted_lately if fresh else np.full(len(painted_lately), self._in_use[south:north].any())
            if not squares.any():
                continue
            low = max(0, int(np.searchsorted(self._edges, self._edges[south] - reach)) - 1)
            high = min(ROWS, int(np.searchsorted(self._edges, self._edges[north] + reach)) + 1)
            aside = int(self._columns_within(np.array([low, high - 1]), np.array([low, high - 1])).max())
            step = max(WINDOW, 4 * aside)
            first = np.flatnonzero(squares) * WINDOW
            begin = np.unique([first // step, np.minimum(first + WINDOW - 1, COLUMNS - 1) // step]) * step
            begin = begin[self._may_mix(slice(low // WINDOW, -(-high // WINDOW)), begin - aside, begin + step + aside)]
            if not begin.size:
                continue
            columns = begin[:, None] + np.arange(-aside, step + aside)
            around = self._painted[low:high].take(columns % COLUMNS, axis=1)
            band = np.bitwise_or.reduce(around, axis=0)
            core = np.bitwise_or.reduce(around[south - low : north - low, :, aside : aside + step], axis=0)
            near = np.sum([_spread((band & 1 << n) > 0, aside) for n in range(len(PAINTED))], axis=0)
            suspect = (core > 0) & (near[:, aside : aside + step] > 1) & (columns[:, aside : aside + step] < COLUMNS)
            for number in np.flatnonzero(suspect.any(axis=1)).tolist():
                west, east = int(begin[number]), min(int(begin[number]) + step, COLUMNS)
                window = around[:, number, : east - west + 2 * aside]
                yield _Window(slice(south, north), slice(west, east), low, west - aside, window)

    def _may_mix(self, bands: slice, west: Numbers, east: Numbers) -> Mask:
        """Whether more than one split is painted in the squares that lie in some bands, between columns of cells."""
        here = np.bitwise_or.reduce(self._splits[bands], axis=0)
        # Columns continue beyond ±180, where the last square is a narrow one.
        squares = np.arange(-len(here), 2 * len(here))
        starts = squares // len(here) * COLUMNS + squares % len(here) * WINDOW
        first = np.searchsorted(starts, west, side="right") - 1
        last = np.searchsorted(starts, east - 1, side="right")
        painted = [(here[squares % len(here)] & 1 << number) > 0 for number in range(len(PAINTED))]
        sums = [np.concatenate([[0], np.cumsum(one)]) for one in painted]
        return np.asarray(np.sum([one[last] > one[first] for one in sums], axis=0) > 1)

    def _too_near(self, window: _Window, first: int, second: int) -> Mask:
        """Cells of the window, without its surroundings, that are painted by one split and too close to another."""
        aside, below = window.columns.start - window.west, window.rows.start - window.low
        rows = window.rows.stop - window.rows.start
        other = (window.painted & second) > 0
        own = window.painted[below : below + rows, aside : window.painted.shape[1] - aside]
        one = (own & first) > 0
        if not one.any() or not other.any():
            return np.zeros_like(one)
        around = _spread(other, aside)
        around = _spread(around.T, max(below, len(around) - below - rows)).T
        suspect = one & around[below : below + rows, aside : around.shape[1] - aside]
        for row in np.flatnonzero(suspect.any(axis=1)):
            columns = self._columns_within(
                np.full(len(other), window.rows.start + row), window.low + np.arange(len(other))
            )
            near = np.zeros(other.shape[1], bool)
            for line in np.flatnonzero((columns >= 0) & other.any(axis=1)):
                near |= _spread(other[line], int(columns[line]))
            suspect[row] &= near[aside : len(near) - aside]
        return suspect

    def _columns_within(self, rows: Numbers, others: Numbers) -> Numbers:
        """By how many columns cells of two rows can be apart and still be closer than the distance; -1 for none."""
        high, low = np.maximum(rows, others), np.minimum(rows, others)
        apart = np.radians(np.maximum(0, self._edges[high] - self._edges[low + 1])) * (rows != others)
        half = np.sin(self.distance_km / SMALLEST_RADIUS / 2)
        shrink = np.cos(np.radians(self._farthest[rows])) * np.cos(np.radians(self._farthest[others]))
        left = half**2 - np.sin(apart / 2) ** 2
        ratio = np.sqrt(np.maximum(left, 0) / np.maximum(shrink, np.finfo(float).tiny))
        around = 2 * np.arcsin(np.minimum(ratio, 1)) / (2 * np.pi) * COLUMNS
        columns = np.where(ratio >= 1, COLUMNS // 2, np.ceil(around)).astype(np.int64)
        return np.where((left > 0) | (rows == others), np.minimum(columns, COLUMNS // 2), -1)

    @cached_property
    def _farthest(self) -> Floats:
        """The latitude of each row that is farthest from the equator."""
        return np.maximum(np.abs(self._edges[:-1]), np.abs(self._edges[1:]))


def rows_to_paint(file: pq.ParquetFile, columns: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Read a part of the merged index for `Leaks.add_rows`; polygons are only read where chips may cross ±180.

    Args:
        file: the part.
        columns: additional columns to read.
    """
    for first in range(0, file.num_row_groups, ROW_GROUPS):
        groups = list(range(first, min(first + ROW_GROUPS, file.num_row_groups)))
        rows = file.read_row_groups(groups, columns=["bbox", "split", *columns])
        west, _, east, _ = _boxes(rows["bbox"]).T
        if (east - west > HALF_TURN).any():
            rows = rows.append_column("geometry", file.read_row_groups(groups, columns=["geometry"])["geometry"])
        yield rows


def _boxes(bbox: pa.StructArray | pa.ChunkedArray) -> Floats:
    sides = [pc.struct_field(bbox, side).to_numpy(zero_copy_only=False) for side in SIDES]
    return np.stack(sides, axis=1)


def _column_at(longitude: Floats) -> Numbers:
    return np.clip(np.floor((longitude + HALF_TURN) / TURN * COLUMNS), 0, COLUMNS - 1).astype(np.int64)


def _row_at(latitude: Floats) -> Numbers:
    share = (_authalic(np.clip(latitude, -POLE, POLE)) / _AT_POLE + 1) / 2
    return np.clip(np.floor(share * ROWS), 0, ROWS - 1).astype(np.int64)


def _spread(mask: Mask, by: int) -> Mask:
    """Dilate a mask by the given number of elements along its last axis."""
    count = mask.shape[-1]
    by = min(by, count)
    summed = np.empty((*mask.shape[:-1], count + 2 * by + 1), np.int32)  # padding repeats the first and last sums
    summed[..., : by + 1] = 0
    np.cumsum(mask, axis=-1, out=summed[..., by + 1 : by + 1 + count])
    summed[..., by + 1 + count :] = summed[..., by + count, None]
    return np.asarray(summed[..., 2 * by + 1 :] > summed[..., :count])
