"""The chip grid of a scene: whole square chips counted on its finest grid, and their polygons.

The ragged right and bottom edges are not chips. Polygons are the chips' four projected corners in EPSG:4326, split
at the antimeridian (RFC 7946, section 3.1.9).
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

CORNERS = 5  # of a chip's ring, the first again at the end
TRANSFORMERS = 128  # that are kept; there are 120 zones of UTM
_EARTH = pyproj.Geod(ellps="WGS84")


def chips_in(grid: Grid, size: int) -> tuple[int, int]:
    """Columns and rows of whole chips of `size` pixels."""
    return grid.width // size, grid.height // size


def chip_corners(grid: Grid, size: int) -> NDArray[np.float64]:
    """Rings of the chips as longitude and latitude, degrees, row by row from the upper left; (rows * columns, 5, 2).

    Corners run from the lower right, anticlockwise, as shapely's `box` does. A ring that is wider than half of the
    world crosses the antimeridian.

    Args:
        grid: the finest grid of a scene, in a projected CRS in metres.
        size: pixels of a chip's side.

    Raises:
        InputError: the grid does not lie on the Earth.
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
        InputError: the grid does not lie on the Earth.
    """
    return polygons_of(chip_corners(grid, size))


def polygons_of(rings: NDArray[np.float64]) -> NDArray[Any]:
    """Polygons of `chip_corners`, split at the antimeridian."""
    polygons: NDArray[Any] = shapely.polygons(rings)
    for number in np.flatnonzero(crosses(shapely.bounds(polygons))):  # at most one column of chips or so
        # Edges are straight in degrees (RFC 7946, section 3.1.1; GeoParquet's `planar`), not great circles.
        polygons[number] = antimeridian.fix_polygon(polygons[number], fix_winding=True, great_circle=False)
    return polygons


def crosses(bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bounds of `chip_corners`, (n, 4), are of a chip that crosses the antimeridian."""
    return np.asarray(bounds.reshape(-1, 4)[:, 2] - bounds.reshape(-1, 4)[:, 0] > HALF_TURN)


def ground_sample_distance(grid: Grid, size: int) -> NDArray[np.float64]:
    """True size of a pixel in the middle of each chip, metres, in the order of `chip_corners`; (rows * columns,).

    The geometric mean of both directions, along geodesics of WGS 84 across the chip.
    """
    columns, rows = chips_in(grid, size)
    edges = np.arange(columns + 1.0) * size, np.arange(rows + 1.0) * size
    middles = (np.arange(columns) + 0.5) * size, (np.arange(rows) + 0.5) * size
    upright = _lonlat(grid, *np.meshgrid(edges[0], middles[1]))  # middles of the edges that two chips share
    level = _lonlat(grid, *np.meshgrid(middles[0], edges[1]))
    product = np.ones(columns * rows)
    for first, second in ((upright[:, :-1], upright[:, 1:]), (level[:-1], level[1:])):
        product *= _EARTH.inv(*first.reshape(-1, 2).T, *second.reshape(-1, 2).T, return_back_azimuth=False)[2]
    return np.sqrt(product) / size


def _lonlat(grid: Grid, column: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel coordinates as longitude and latitude, degrees; shape (…, 2)."""
    t = grid.transform
    x, y = t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f
    lon, lat = _to_lonlat(grid.crs.to_wkt()).transform(x, y)
    lonlat = np.stack([lon, lat], axis=-1)
    if not np.isfinite(lonlat).all():
        raise InputError(f"a grid of {grid.height} × {grid.width} pixels in {grid.crs} does not lie on the Earth.")
    return lonlat


@lru_cache(maxsize=TRANSFORMERS)
def _to_lonlat(wkt: str) -> pyproj.Transformer:
    """From a CRS; kept, as making one takes longer than projecting a scene's chips. pyproj has one for each thread."""
    return pyproj.Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)
