"""The tiles of the sinusoidal grid: their outlines, and how a recipe may name them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Transformer

from clay_assets.errors import InputError
from clay_assets.platforms.modis import ModisOptions
from clay_assets.recipes import load_recipe
from clay_assets.sampling.modis_grid import sin_grid
from clay_assets_tests.sampling.composites import SINUSOIDAL, name_of

RADIUS = 6_371_007.181  # m
TILE = np.pi * RADIUS / 18  # m
PARALLELS = (
    80,
    70,
    60,
    50,
    40,
    30,
    20,
    10,
    0,
    0,
    10,
    20,
    30,
    40,
    50,
    60,
    70,
    80,
)  # edge nearest to the equator, by row
PIXEL = 1 / 120  # degrees of latitude: the published bounds are of whole 1 km pixels, 1,200 per tile


@pytest.fixture(scope="module")
def grid() -> gpd.GeoDataFrame:
    return sin_grid()


def to_sphere(geometries: Any) -> Any:
    """Geometries in Lambert's cylindrical equal-area projection, m."""

    def project(lonlat: Any) -> Any:
        lon, lat = np.radians(lonlat.T)
        return RADIUS * np.column_stack([lon, np.sin(lat)])

    return shapely.transform(geometries, project)


def is_whole(vertical: int, horizontal: int) -> bool:
    """Whether all four corners of a tile lie on the Earth."""
    y = max(abs(9 - vertical), abs(8 - vertical))
    return max(abs(horizontal - 18), abs(horizontal - 17)) <= 18 * np.cos(np.radians(10 * y)) + 1e-9


# --- the grid ---------------------------------------------------------------------------------------


def test_what_a_table_of_tiles_is(grid: gpd.GeoDataFrame) -> None:
    assert list(grid.columns) == ["name", "vertical", "horizontal", "geometry"]
    assert grid.crs == "EPSG:4326"
    assert grid["name"].tolist() == [name_of(v, h) for v, h in zip(grid["vertical"], grid["horizontal"], strict=True)]
    assert grid[["vertical", "horizontal"]].apply(tuple, axis=1).is_monotonic_increasing
    assert grid["name"].is_unique
    assert len(grid) == 460
    # As many tiles as the parallel nearest to the equator needs, on both sides of the central meridian.
    rows = grid["vertical"].value_counts().sort_index()
    assert rows.tolist() == [2 * int(np.ceil(18 * np.cos(np.radians(abs(v))) - 1e-9)) for v in PARALLELS]


def test_shapes(grid: gpd.GeoDataFrame) -> None:
    assert grid.geometry.is_valid.all()
    assert (grid.geom_type == "Polygon").all()
    assert grid.geometry.exterior.is_ccw.all()
    west, south, east, north = grid.total_bounds
    assert (west, south, east, north) == (-180, -90, 180, 90)


def test_inner_tiles_have_the_same_area_and_all_have_the_earth_s(grid: gpd.GeoDataFrame) -> None:
    areas = shapely.area(to_sphere(grid.geometry.array))
    whole = np.array([is_whole(v, h) for v, h in zip(grid["vertical"], grid["horizontal"], strict=True)])
    assert whole.sum() == 360
    np.testing.assert_allclose(areas[whole], TILE**2, rtol=1e-4)
    assert (areas[~whole] < TILE**2 * (1 + 1e-4)).all()
    assert areas.sum() == pytest.approx(4 * np.pi * RADIUS**2, rel=1e-5)


@pytest.mark.slow
def test_corners_are_those_of_the_projection(grid: gpd.GeoDataFrame) -> None:
    to_lonlat = Transformer.from_crs(SINUSOIDAL, "EPSG:4326", always_xy=True)
    checked = 0
    for tile in grid.itertuples():
        if is_whole(tile.vertical, tile.horizontal):
            x = TILE * (tile.horizontal - 18 + np.array([0, 1, 1, 0]))
            y = TILE * (9 - tile.vertical - np.array([0, 0, 1, 1]))
            corners = shapely.points(*to_lonlat.transform(x, y))
            assert shapely.distance(corners, shapely.MultiPoint(tile.geometry.exterior.coords[:])).max() < 1e-6
            checked += 1
    assert checked == 360


def test_every_point_of_the_earth_is_in_the_tile_that_the_projection_says(grid: gpd.GeoDataFrame) -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 5000), np.degrees(np.arcsin(rng.uniform(-1, 1, 5000)))
    x, y = Transformer.from_crs("EPSG:4326", SINUSOIDAL, always_xy=True).transform(lon, lat)
    columns, rows = 18 + x / TILE, 9 - y / TILE
    apart = np.minimum(np.abs(columns - columns.round()), np.abs(rows - rows.round())) > 1e-3  # of a side
    said = [name_of(int(v), int(h)) for v, h in zip(rows[apart], columns[apart], strict=True)]
    points, tiles = grid.sindex.query(shapely.points(lon[apart], lat[apart]), predicate="within")
    assert points.tolist() == list(range(apart.sum()))
    assert grid["name"].to_numpy()[tiles].tolist() == said


def published_bounds(real_data: Path) -> dict[str, tuple[float, float, float, float]]:
    """NASA's list of the tiles: name → west, east, south, north."""
    rows = [line.split() for line in (real_data / "modis_grid" / "sn_bound_10deg.txt").read_text().splitlines()]
    numbers = [[float(value) for value in row] for row in rows if len(row) == 6 and row[0].isdigit()]
    assert len(numbers) == 648
    return {name_of(int(v), int(h)): tuple(bounds) for v, h, *bounds in numbers if bounds[0] > -999}  # type: ignore[misc]


def test_the_tiles_are_those_of_the_published_list(grid: gpd.GeoDataFrame, real_data: Path) -> None:
    assert set(grid["name"]) == set(published_bounds(real_data))


def test_bounds_agree_with_the_published_list(grid: gpd.GeoDataFrame, real_data: Path) -> None:
    places = grid.set_index("name").geometry
    for name, (west, east, south, north) in published_bounds(real_data).items():
        found = places[name].bounds
        assert np.abs(np.subtract(found[1::2], (south, north))).max() < PIXEL, name
        if name in ("h17v00", "h17v17"):
            # At the pole, a pixel beyond the central meridian reaches 57.3°; the list has nothing beyond that.
            assert (found[0], found[2]) == (-180, 0)
            assert (west, east) == (-180, 57.2957)
            continue
        # The width of a pixel in degrees of longitude at the tile's edge nearest to the pole.
        wider = PIXEL / np.cos(np.radians(min(max(abs(south), abs(north)), 90 - PIXEL)))
        if name in ("h18v00", "h18v17"):
            wider = PIXEL
        assert np.abs(np.subtract(found[::2], (west, east))).max() < wider + 2e-4, name  # rounded to 1e-4


def test_the_published_sample_is_part_of_the_grid(grid: gpd.GeoDataFrame, real_data: Path) -> None:
    with (real_data / "published" / "modis_sin_tiles.csv").open() as file:
        rows = [(int(row["vertical"]), int(row["horizontal"])) for row in csv.DictReader(file)]
    assert len(set(rows)) == 233
    assert {name_of(*row) for row in rows} <= set(grid["name"])
    assert set(load_recipe("clay_v1").options("modis").published_tiles) == set(rows)


@pytest.mark.parametrize(
    ("tile", "name"),
    [
        ((18, 3), "h03v18"),
        ((3, 36), "h36v03"),
        ((-1, 20), "h20v-1"),
        ((0, 0), "h00v00"),
        ((0, 13), "h13v00"),  # outside the Earth
        ((2, 8), "h08v02"),  # touches it at a corner
        ((17, 22), "h22v17"),
    ],
)
def test_a_tile_outside_the_grid_is_refused_by_its_name(tmp_path: Path, tile: tuple[int, int], name: str) -> None:
    text = (
        'name = "x"\nseed = 1\n[[tile_rules]]\nrule = "r"\nclass = "Cropland"\ntiles = 1\nfrom_highest = 1\n'
        f"[platforms.modis]\npublished_tiles = [[4, 18], {list(tile)}, [2, 9]]\n"
    )
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=rf"platforms: modis: published_tiles {name}: not on the Earth.*0 to 17"):
        load_recipe(tmp_path / "recipe.toml")


def test_a_recipe_may_name_every_tile_of_the_grid_and_no_other(grid: gpd.GeoDataFrame) -> None:
    on_earth = set(zip(grid["vertical"].tolist(), grid["horizontal"].tolist(), strict=True))
    for vertical in range(18):
        for horizontal in range(36):
            try:
                ModisOptions(published_tiles=((vertical, horizontal),))
                taken = True
            except ValueError:
                taken = False
            assert taken == ((vertical, horizontal) in on_earth)
