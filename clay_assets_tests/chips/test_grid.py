"""Fast computations of chip positions and sizes are bit-identical to the simple ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from clay_assets.chips import grid as chips_grid
from clay_assets.chips.grid import (
    chip_corners,
    chip_polygons,
    ground_sample_distance,
    rounded_ground_sample_distance,
)
from clay_assets.chips.index import _geometry
from clay_assets.grids import Grid


def grid_at(epsg: int, left: float, top: float, pixel: float, height: int, width: int) -> Grid:
    return Grid(CRS.from_epsg(epsg), Affine(pixel, 0, left, 0, -pixel, top), height, width)


GRIDS = {
    "Sentinel-2": grid_at(32632, 399_960, 5_300_040, 10, 10_980, 10_980),
    "Sentinel-2 at the edge of a zone": grid_at(32601, 99_960, 7_900_020, 10, 10_980, 10_980),
    "Sentinel-2 beyond 83° north": grid_at(32633, 499_980, 9_300_040, 10, 10_980, 10_980),
    "Sentinel-2 in the south": grid_at(32760, 699_960, 4_900_000, 10, 10_980, 10_980),
    "across 180°": grid_at(32660, 750_000, 8_100_000, 30, 7_800, 7_800),
    "Landsat": grid_at(32645, 150_285, 3_200_415, 30, 7_811, 7_671),
    "Landsat in the Antarctic": grid_at(3031, -1_300_000, 1_200_000, 30, 8_000, 8_000),
    "around the pole": grid_at(3031, -120_000, 120_000, 30, 8_000, 8_000),
    "NAIP": grid_at(26916, 622_000, 3_400_000, 0.6, 12_666, 9_704),
    "NAIP of 0.3 m": grid_at(26910, 500_000, 4_200_000, 0.3, 24_000, 19_000),
    "LINZ": grid_at(2193, 1_750_000, 5_430_000, 0.3, 7_200, 4_800),
    "MODIS": grid_at(3857, 1_111_950, 6_446_275, 463.3127, 2_400, 3_600),
    "as wide as the world": grid_at(3857, -20_000_000, 8_000_000, 500, 20_000, 79_000),
    "one row": grid_at(32632, 399_960, 5_300_040, 10, 300, 256 * 500),
    "one column": grid_at(32632, 399_960, 5_300_040, 10, 256 * 500, 300),
    "one chip": grid_at(32632, 399_960, 5_300_040, 10, 256, 256),
}


@pytest.mark.parametrize("name", GRIDS)
def test_interpolated_sizes(name: str) -> None:
    grid = GRIDS[name]
    exact = ground_sample_distance(grid, 256).astype(np.float32)
    np.testing.assert_array_equal(rounded_ground_sample_distance(grid, 256), exact)


def test_sizes_anywhere() -> None:
    generator = np.random.default_rng(0)
    for _ in range(25):
        zone, south = int(generator.integers(1, 61)), int(generator.integers(0, 2))
        north = generator.uniform(1_100_000, 9_900_000) if south else generator.uniform(300_000, 9_300_000)
        pixel, size = [(10, 10_980), (30, 7_800), (0.6, 12_000), (1.0, 8_000)][generator.integers(0, 4)]
        grid = grid_at(32600 + 100 * south + zone, generator.uniform(160_000, 780_000), north, pixel, size, size - 99)
        exact = ground_sample_distance(grid, 256).astype(np.float32)
        np.testing.assert_array_equal(rounded_ground_sample_distance(grid, 256), exact)


@pytest.mark.parametrize("name", GRIDS)
def test_polygons_are_written_as_shapely_writes_them(name: str) -> None:
    polygons, corners = chip_polygons(GRIDS[name], 256), chip_corners(GRIDS[name], 256)
    for kept in (np.ones(len(polygons), bool), np.arange(len(polygons)) % 3 == 1):
        geometry, bounds, types = _geometry(corners[kept])
        assert geometry.to_pylist() == shapely.to_wkb(polygons[kept]).tolist()
        np.testing.assert_array_equal(bounds, shapely.bounds(polygons[kept]).reshape(-1, 4))
        assert types == sorted({polygon.geom_type for polygon in polygons[kept]}, reverse=True)


def test_no_chip_is_written_too() -> None:
    geometry, bounds, types = _geometry(chip_corners(GRIDS["Landsat"], 256)[:0])
    assert (len(geometry), bounds.shape, types) == (0, (0, 4), [])


@pytest.mark.slow
def test_transformers_are_kept_for_all_threads() -> None:
    """Each thread uses its own transformer, with the same results as a new one."""
    grids = [GRIDS[name] for name in ("Sentinel-2", "Landsat", "NAIP", "LINZ")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda grid: chip_corners(grid, 256), grids * 8))
    assert chips_grid._to_lonlat(grids[0].crs.to_wkt()) is chips_grid._to_lonlat(grids[0].crs.to_wkt())
    for grid, corners in zip(grids * 8, found, strict=True):
        t = grid.transform
        x, y = np.meshgrid(np.arange(grid.width // 256 + 1) * 256.0, np.arange(grid.height // 256 + 1) * 256.0)
        new = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
        lon, lat = new.transform(t.a * x + t.c, t.e * y + t.f)
        expected = np.stack([lon[1:, 1:], lat[1:, 1:]], axis=-1).reshape(-1, 2)  # the lower right corners
        np.testing.assert_array_equal(corners[:, 0], expected)
