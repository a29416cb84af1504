"""The chip grid of a scene: whole square chips on its finest grid, and their polygons.

Partial chips at the right and bottom edges are omitted. Polygons are the chips' four projected corners in EPSG:4326,
split at the antimeridian (RFC 7946, section 3.1.9).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import antimeridian
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN, Grid

CORNERS = 5  # points of a chip's closed ring
TRANSFORMERS = 128  # cache size; UTM has 120 zones
# For interpolating true pixel sizes: minimum number of chips, nodes and test chips along each side, and the relative
# tolerance. A geodesic of 77 m between rounded degrees is accurate to 4e-11.
FEWEST_TO_INTERPOLATE, NODES, TRIED, UNSURE = 400, 7, 5, 2e-9
_EARTH = pyproj.Geod(ellps="WGS84")


def chips_in(grid: Grid, size: int) -> tuple[int, int]:
    """Number of columns and rows of whole chips of `size` pixels."""
    return grid.width // size, grid.height // size


def chip_corners(grid: Grid, size: int) -> NDArray[np.float64]:
    """Rings of the chips as longitude and latitude, degrees, row by row from the upper left; (rows * columns, 5, 2).

    Corners run anticlockwise from the lower right, like shapely's `box`. A ring wider than half the world crosses the
    antimeridian.

    Args:
        grid: the finest grid of a scene, in a projected CRS in metres.
        size: side length of a chip in pixels.

    Raises:
        InputError: the grid is not on the Earth.
    """
    columns, rows = chips_in(grid, size)
    corners = _lonlat(grid, *np.meshgrid(np.arange(columns + 1.0) * size, np.arange(rows + 1.0) * size))
    upper_left, upper_right = corners[:-1, :-1], corners[:-1, 1:]
    lower_left, lower_right = corners[1:, :-1], corners[1:, 1:]
    rings = np.stack([lower_right, upper_right, upper_left, lower_left, lower_right], axis=2)
    return rings.reshape(-1, CORNERS, 2)


def chip_polygons(grid: Grid, size: int) -> NDArray[Any]:
    """Chip polygons in EPSG:4326, in the order of `chip_corners`, split at the antimeridian; shape (rows * columns,).

    Raises:
        InputError: the grid is not on the Earth.
    """
    return polygons_of(chip_corners(grid, size))


def polygons_of(rings: NDArray[np.float64]) -> NDArray[Any]:
    """Polygons of `chip_corners`, split at the antimeridian."""
    polygons: NDArray[Any] = shapely.polygons(rings)
    for number in np.flatnonzero(crosses(shapely.bounds(polygons))):  # at most about one column of chips
        # Edges are straight in degrees (RFC 7946, section 3.1.1; GeoParquet's `planar`), not great circles.
        polygons[number] = antimeridian.fix_polygon(polygons[number], fix_winding=True, great_circle=False)
    return polygons


def crosses(bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bounds of `chip_corners`, (n, 4), belong to chips that cross the antimeridian."""
    return np.asarray(bounds.reshape(-1, 4)[:, 2] - bounds.reshape(-1, 4)[:, 0] > HALF_TURN)


def ground_sample_distance(grid: Grid, size: int) -> NDArray[np.float64]:
    """True pixel size at the centre of each chip, metres, in the order of `chip_corners`; (rows * columns,).

    The geometric mean of both directions, along geodesics of WGS 84 across the chip.
    """
    columns, rows = chips_in(grid, size)
    edges = np.arange(columns + 1.0) * size, np.arange(rows + 1.0) * size
    middles = (np.arange(columns) + 0.5) * size, (np.arange(rows) + 0.5) * size
    upright = _lonlat(grid, *np.meshgrid(edges[0], middles[1]))  # midpoints of the edges shared by two chips
    level = _lonlat(grid, *np.meshgrid(middles[0], edges[1]))
    across = _distance(upright[:, :-1], upright[:, 1:])
    return (np.sqrt(across * _distance(level[:-1], level[1:])) / size).ravel()


def rounded_ground_sample_distance(grid: Grid, size: int) -> NDArray[np.float32]:
    """`ground_sample_distance` as float32, identical to the last bit, but five times as fast for whole scenes.

    It hardly varies across a scene, so it is interpolated, and only computed for chips whose last bit might depend on
    the interpolation error; if that is larger than expected, such as around a pole, it is computed for all chips.
    """
    columns, rows = chips_in(grid, size)
    if columns * rows < FEWEST_TO_INTERPOLATE:
        return ground_sample_distance(grid, size).astype(np.float32)
    last = np.array([columns - 1, rows - 1])
    # Positions of nodes and of test chips along each side, both on one grid.
    places = [
        np.concatenate([(_NODES + 1) / 2 * count, np.linspace(0, count, TRIED).astype(np.intp)]) for count in last
    ]
    exact = _gsd_at(grid, size, *np.meshgrid(*places))
    x, y = (places[axis][NODES:].astype(np.intp) for axis in (0, 1))
    of_columns, of_rows = (_chebyshev(np.arange(count + 1) * (2 / max(count, 1)) - 1) @ _TO_CHEBYSHEV for count in last)
    found = of_rows @ exact[:NODES, :NODES] @ of_columns.T
    if not np.abs(found[np.ix_(y, x)] / exact[NODES:, NODES:] - 1).max() <= UNSURE / 10:
        return ground_sample_distance(grid, size).astype(np.float32)
    rounded = found.astype(np.float32)
    unsure = np.nonzero((found * (1 - UNSURE)).astype(np.float32) != (found * (1 + UNSURE)).astype(np.float32))
    rounded[unsure] = _gsd_at(grid, size, unsure[1].astype(np.float64), unsure[0].astype(np.float64))
    return rounded.ravel()


def _chebyshev(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first Chebyshev polynomials at positions in −1 to 1; (positions, polynomials)."""
    return np.cos(np.arange(NODES) * np.arccos(np.clip(at, -1, 1))[:, None])


_NODES = np.cos((np.arange(NODES) + 0.5) * np.pi / NODES)
_TO_CHEBYSHEV = np.linalg.inv(_chebyshev(_NODES))  # values at the nodes → coefficients


def _gsd_at(grid: Grid, size: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Like `ground_sample_distance`, for chips given by column and row, which may be fractional."""
    left, middle, right = (x + part for part in (0, 0.5, 1))
    upper, centre, lower = (y + part for part in (0, 0.5, 1))
    ends = _lonlat(
        grid, np.stack([left, middle, right, middle]) * size, np.stack([centre, upper, centre, lower]) * size
    )
    gsd: NDArray[np.float64] = np.sqrt(_distance(ends[:2], ends[2:]).prod(axis=0)) / size
    return gsd


def _distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres between positions, longitude and latitude (…, 2)."""
    lon, lat, lon2, lat2 = (np.ascontiguousarray(place[..., axis]) for place in (first, second) for axis in (0, 1))
    metres: NDArray[np.float64] = _EARTH.inv(lon, lat, lon2, lat2, return_back_azimuth=False)[2]
    return metres


def _lonlat(grid: Grid, column: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel coordinates as longitude and latitude, degrees; shape (…, 2)."""
    t = grid.transform
    x, y = t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f
    lon, lat = _to_lonlat(grid.crs.to_wkt()).transform(x, y)
    lonlat = np.stack([lon, lat], axis=-1)
    if not np.isfinite(lonlat).all():
        raise InputError(f"a grid of {grid.height} × {grid.width} pixels in {grid.crs} is not on the Earth.")
    return lonlat


@lru_cache(maxsize=TRANSFORMERS)
def _to_lonlat(wkt: str) -> pyproj.Transformer:
    """A transformer from a CRS; cached, as creating one is slower than projecting a scene's chips. Thread-safe."""
    return pyproj.Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)
