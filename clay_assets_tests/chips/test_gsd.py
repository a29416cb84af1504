"""The column `gsd`, the ground size of a pixel, compared with pyproj's areas and with projection formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from clay_assets.chips.grid import ground_sample_distance
from clay_assets.chips.index import index_scene
from clay_assets.grids import Grid
from clay_assets.platforms import PLATFORMS
from clay_assets_tests.chips.factories import L2, S2, landsat, sentinel_2

EARTH = pyproj.Geod(ellps="WGS84")
SIZE = 256
MERCATOR_RADIUS = 6378137.0  # metres, of EPSG:3857


def grid(crs: str, left: float, top: float, gsd: float, columns: int = 4, rows: int = 3) -> Grid:
    height, width = rows * SIZE + 17, columns * SIZE + 30  # a partial edge, which is not a chip
    return Grid(CRS.from_user_input(crs), from_origin(left, top, gsd, gsd), height, width)


def across(crs: str, north: float, gsd: float) -> Grid:
    """A grid of 5 × 3 chips whose third column crosses 180°."""
    latitude = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(500_000, north)[1]
    edge = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(180, latitude)[0]
    return grid(crs, edge - 2.4 * SIZE * gsd, north, gsd, columns=5)


def middles(one: Grid) -> NDArray[np.float64]:
    """Longitude and latitude of each chip's centre, only with pyproj; shape (chips, 2)."""
    columns, rows = one.width // SIZE, one.height // SIZE
    row, column = np.divmod(np.arange(rows * columns), columns)
    x = one.transform.c + one.transform.a * (column + 0.5) * SIZE
    y = one.transform.f + one.transform.e * (row + 0.5) * SIZE
    return np.column_stack(pyproj.Transformer.from_crs(one.crs.to_wkt(), 4326, always_xy=True).transform(x, y))


def side_by_area(one: Grid) -> NDArray[np.float64]:
    """Side of a square with the area of one pixel of each chip, from pyproj's geodesic area of the chip's outline.

    The outline has many points along the projected sides, since a side is not a geodesic.
    """
    columns, rows = one.width // SIZE, one.height // SIZE
    along = np.linspace(0, SIZE, 65)[:-1]
    still = np.zeros_like(along)
    outline_x = np.concatenate([along, still + SIZE, SIZE - along, still])
    outline_y = np.concatenate([still, along, still + SIZE, SIZE - along])
    to_degrees = pyproj.Transformer.from_crs(one.crs.to_wkt(), 4326, always_xy=True)
    sides = []
    for row in range(rows):
        for column in range(columns):
            x = one.transform.c + one.transform.a * (column * SIZE + outline_x)
            y = one.transform.f + one.transform.e * (row * SIZE + outline_y)
            area, _ = EARTH.polygon_area_perimeter(*to_degrees.transform(x, y))
            sides.append(np.sqrt(abs(area)) / SIZE)
    return np.array(sides)


GRIDS = {
    "UTM at the equator": grid("EPSG:32632", 500_000, 100_020, 10),
    "UTM at the edge of its zone": grid("EPSG:32632", 170_000, 5_500_000, 10),
    "UTM far north": grid("EPSG:32606", 300_000, 7_900_000, 30),
    "UTM across 180°": across("EPSG:32701", 8_000_000, 10),
    "UTM of NAD83": grid("EPSG:26916", 601_135, 3_430_446, 1),
    "New Zealand": grid("EPSG:2193", 1_500_000, 5_200_000, 0.3),
    "Mercator at the equator": grid("EPSG:3857", 0, 100_000, 463.3),
    "Mercator at 60° N": grid("EPSG:3857", 1_000_000, 8_500_000, 925),
    "Mercator at 50° S": grid("EPSG:3857", -7_000_000, -6_300_000, 720),
    "Polar": grid("EPSG:3031", -500_000, 1_500_000, 30),
}


@pytest.mark.parametrize("place", GRIDS)
def test_it_is_the_side_of_a_pixel_s_area(place: str) -> None:
    one = GRIDS[place]
    found = ground_sample_distance(one, SIZE)
    assert found.shape == ((one.width // SIZE) * (one.height // SIZE),)
    large = one.transform.a > 100  # chips of 100 km and more: scale changes within them
    np.testing.assert_allclose(found, side_by_area(one), rtol=2e-3 if large else 1e-5)


@pytest.mark.parametrize("top", [100_000, 2_500_000, 5_000_000, 8_500_000, -3_000_000, -9_500_000])
def test_in_web_mercator_it_shrinks_with_the_cosine_of_latitude(top: float) -> None:
    one = grid("EPSG:3857", -1_000_000, top, 500, columns=3, rows=5)
    latitude = middles(one)[:, 1]
    found = ground_sample_distance(one, SIZE)
    np.testing.assert_allclose(found, 500 * np.cos(np.radians(latitude)), rtol=0.007)
    # More precisely: scale along a parallel and along a meridian of the ellipsoid.
    e2, sin = EARTH.es, np.sin(np.radians(latitude))
    normal = EARTH.a / np.sqrt(1 - e2 * sin**2)
    meridian = normal * (1 - e2) / (1 - e2 * sin**2)
    exact = 500 * np.cos(np.radians(latitude)) * np.sqrt(normal * meridian) / MERCATOR_RADIUS
    np.testing.assert_allclose(found, exact, rtol=0.002)


@pytest.mark.parametrize(
    "place", ["UTM at the equator", "UTM at the edge of its zone", "UTM far north", "UTM of NAD83"]
)
def test_in_utm_it_is_the_grid_s_own_within_a_thousandth(place: str) -> None:
    one = GRIDS[place]
    np.testing.assert_allclose(ground_sample_distance(one, SIZE), one.transform.a, rtol=0.001)


def test_on_the_central_meridian_it_is_the_grid_s_over_the_scale() -> None:
    """UTM's scale is 0.9996 there (Snyder, Map Projections, 1987, p. 57)."""
    one = grid("EPSG:32632", 500_000 - SIZE * 10 / 2, 4_000_000, 10, columns=1, rows=1)
    np.testing.assert_allclose(ground_sample_distance(one, SIZE), [10 / 0.9996], rtol=1e-6)


@pytest.mark.parametrize(("crs", "north"), [("EPSG:32701", 4_000_000), ("EPSG:32660", 5_000_000)])
def test_chips_across_180_degrees_are_no_larger_than_their_neighbours(crs: str, north: float) -> None:
    one = across(crs, north, 10)
    longitudes = middles(one)[:5, 0]
    assert longitudes.min() < -179 < 179 < longitudes.max()
    found = ground_sample_distance(one, SIZE)
    assert np.ptp(found) < 0.01
    np.testing.assert_allclose(found, 10, rtol=0.001)
    np.testing.assert_allclose(found, side_by_area(one), rtol=1e-5)


def test_a_grid_of_oblong_pixels_gives_their_geometric_mean() -> None:
    one = Grid(CRS.from_epsg(26916), Affine(25.9296875, 0, 601_135, 0, -29.63671875, 3_430_446), 256, 256)
    np.testing.assert_allclose(ground_sample_distance(one, SIZE), np.sqrt(25.9296875 * 29.63671875), rtol=0.001)
    np.testing.assert_allclose(ground_sample_distance(one, SIZE), side_by_area(one), rtol=1e-5)


def test_the_size_of_a_chip_does_not_matter_where_scale_does_not_change() -> None:
    one = GRIDS["UTM at the equator"]
    assert ground_sample_distance(one, 64).shape == (16 * 12,)
    small, large = (ground_sample_distance(one, size).mean() for size in (64, 256))
    np.testing.assert_allclose(small, large, rtol=1e-5)


# --- in the index ---------------------------------------------------------------------------------


def test_the_index_tells_it_for_the_finest_grid(tmp_path: Path) -> None:
    for document, platform, gsd in (
        (sentinel_2(tmp_path), S2, 10),
        (landsat(tmp_path, np.zeros((600, 600), np.uint16)), L2, 30),
    ):
        table = index_scene(pystac.Item.from_dict(document), platform)
        assert table.schema.field("gsd").type == "float"
        np.testing.assert_allclose(table["gsd"].to_numpy(), gsd, rtol=0.001)


def test_each_row_of_the_index_has_that_of_its_own_chip(tmp_path: Path) -> None:
    """In Web Mercator it differs from row to row; skipped chips must not shift it."""
    pixels = np.zeros((300, 200), np.uint8)
    pixels[:128] = 0  # the upper chip is nodata
    pixels[128:] = 4
    document = sentinel_2(tmp_path, pixels)
    left, top = 1_000_000, 8_500_000
    for name, gsd in (("scl", 1000), ("red", 500)):
        asset = document["assets"][name]
        with rasterio.open(asset["href"], "r+") as sink:
            sink.crs, sink.transform = CRS.from_epsg(3857), from_origin(left, top, gsd, gsd)
        asset["proj:transform"] = [gsd, 0, left, 0, -gsd, top]
    document["properties"]["proj:epsg"] = 3857
    table = index_scene(pystac.Item.from_dict(document), S2)
    assert table["chip_index_y"].to_pylist() == [1]
    polygon = shapely.from_wkb(table["geometry"][0].as_py())
    latitude = polygon.centroid.y
    assert table["gsd"][0].as_py() == pytest.approx(500 * np.cos(np.radians(latitude)), rel=0.007)
    every = index_scene(pystac.Item.from_dict(document), S2, options=PLATFORMS[S2].rules.options(max_chip_nodata=1))
    assert every["gsd"].to_pylist()[1] == table["gsd"][0].as_py()
    assert every["gsd"][0].as_py() < 0.985 * every["gsd"][1].as_py()
