"""The chip grid of a scene: whole square chips counted on its finest grid, and their polygons.

The ragged right and bottom edges are not chips. Polygons are the chips' four projected corners in EPSG:4326, split
at the antimeridian (RFC 7946, section 3.1.9).
"""

from __future__ import annotations

from typing import Any

import antimeridian
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN, Grid

_EARTH = pyproj.Geod(ellps="WGS84")


def chips_in(grid: Grid, size: int) -> tuple[int, int]:
    """Columns and rows of whole chips of `size` pixels."""
    return grid.width // size, grid.height // size


def chip_polygons(grid: Grid, size: int) -> NDArray[Any]:
    """Chip polygons in EPSG:4326, row by row from the upper left; shape (rows * columns,).

    Corners run from the lower right, anticlockwise, as shapely's `box` does.

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
    rings = rings.reshape(-1, 5, 2)
    polygons: NDArray[Any] = shapely.polygons(rings)
    crossing = np.ptp(rings[:, :, 0], axis=1) > HALF_TURN
    for number in np.flatnonzero(crossing):  # at most one column of chips or so
        # Edges are straight in degrees (RFC 7946, section 3.1.1; GeoParquet's `planar`), not great circles.
        polygons[number] = antimeridian.fix_polygon(polygons[number], fix_winding=True, great_circle=False)
    return polygons


def ground_sample_distance(grid: Grid, size: int) -> NDArray[np.float64]:
    """True size of a pixel in the middle of each chip, metres, in the order of `chip_polygons`; (rows * columns,).

    The geometric mean of both directions, along geodesics of WGS 84 across the chip.
    """
    columns, rows = chips_in(grid, size)
    column, row = np.meshgrid((np.arange(columns) + 0.5) * size, (np.arange(rows) + 0.5) * size)
    half = size / 2
    product = np.ones(columns * rows)
    for across, down in ((half, 0), (0, half)):
        first, second = _lonlat(grid, column - across, row - down), _lonlat(grid, column + across, row + down)
        lon, lat = first.reshape(-1, 2).T
        product *= _EARTH.inv(lon, lat, *second.reshape(-1, 2).T)[2]
    return np.sqrt(product) / size


def _lonlat(grid: Grid, column: NDArray[np.float64], row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel coordinates as longitude and latitude, degrees; shape (…, 2)."""
    t = grid.transform
    x, y = t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f
    lon, lat = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True).transform(x, y)
    lonlat = np.stack([lon, lat], axis=-1)
    if not np.isfinite(lonlat).all():
        raise InputError(f"a grid of {grid.height} × {grid.width} pixels in {grid.crs} does not lie on the Earth.")
    return lonlat
