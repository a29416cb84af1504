"""Invalid chips of a scene are found, counted and named, and never written."""

from __future__ import annotations

import math
import struct
from concurrent.futures import Executor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin

from clay_assets.chips.grid import chip_polygons, chips_in
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.rules import geometry_in_scene, geometry_valid, ids_unique, shares_in_range
from clay_assets.grids import Grid
from clay_assets.recipes import Recipe
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import (
    LEFT,
    S2,
    TOP,
    chip_table,
    scl_pixels,
    sentinel_2,
    without_proj,
    write_tiff,
)

SCENE = "S2A_B"
SIZE = 256
UTM_1 = CRS.from_epsg(32601)
GRID = Grid(CRS.from_epsg(32632), from_origin(LEFT, TOP, 10, 10), 4 * SIZE + 9, 5 * SIZE + 9)
ACROSS = Grid(UTM_1, from_origin(160_000, 100_020, 10, 10), 2 * SIZE, 8 * SIZE)  # 180° is at about x = 166,000


def scene(grid: Grid = GRID) -> pa.Table:
    """A chip index of a grid, whose polygons are computed here corner by corner."""
    columns, rows = chips_in(grid, SIZE)
    table = chip_table(S2, SCENE, 2020, 0, 0, columns, rows)
    return with_column(table, "geometry", pa.array(shapely.to_wkb(chip_polygons(grid, SIZE)), pa.binary()))


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def changed(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    """The table with one value replaced."""
    values = table[name].to_pylist()
    values[row] = value
    return with_column(table, name, pa.array(values, table.schema.field(name).type))


def test_chips_as_they_are_made_hold() -> None:
    table = scene()
    shares = shares_in_range(table)
    assert shares.ok
    assert shares.numbers["chips"] == 20
    assert shares.numbers["lowest_share"] == pc.min(table["nodata_percentage"]).as_py()
    assert shares.numbers["highest_share"] == pc.max(table["cloud_cover_percentage"]).as_py()
    ids = ids_unique(table, SCENE)
    assert ids.ok
    assert ids.numbers == {"chips": 20, "foreign_ids": 0, "repeated": 0}
    for grid in (GRID, ACROSS):
        placed = geometry_in_scene(scene(grid), grid, None, SIZE)
        assert placed.ok, placed
        assert placed.numbers["scenes_without_grid"] == 0


@pytest.mark.parametrize("value", [1.5, -0.01, float("nan")])
def test_shares_outside_0_to_1_are_counted(value: float) -> None:
    table = changed(changed(scene(), "nodata_percentage", 3, value), "cloud_cover_percentage", 4, value)
    found = shares_in_range(table)
    assert found.violation_count == found.numbers["outside"] == 2
    assert found.violations == (
        f"cloud_cover_percentage has values outside 0 to 1: 1 chips, first S2A_B-4-0 with {value:g}",
        f"nodata_percentage has values outside 0 to 1: 1 chips, first S2A_B-3-0 with {value:g}",
    )


def test_chip_ids_that_repeat_or_are_foreign_are_named() -> None:
    table = scene()
    twice = ids_unique(pa.concat_tables([table, table.slice(7, 2)]), SCENE)
    assert twice.numbers == {"chips": 22, "foreign_ids": 0, "repeated": 2}
    assert twice.violation_count == 2
    assert twice.violations == ("a chip id occurs twice: 2 chips, first S2A_B-2-1",)
    foreign = ids_unique(changed(table, "chipid", 6, "S2A_C-1-1"), SCENE)
    assert foreign.numbers == {"chips": 20, "foreign_ids": 1, "repeated": 0}
    assert foreign.violations == ("chip ids do not match scene S2A_B: S2A_C-1-1",)
    assert ids_unique(table, "S2A_C").violation_count == 20


@pytest.mark.parametrize(
    ("polygon", "number", "said"),
    [
        (shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), "invalid", "geometry is not a valid polygon"),
        (shapely.Polygon(), "invalid", "geometry is not a valid polygon"),
        (shapely.Point(9, 0.9), "invalid", "geometry is not a valid polygon"),
        (shapely.box(179.9, 0, 180.1, 0.2), "off_earth", "geometry is outside ±180° and ±90°"),
        (shapely.box(9, 89.9, 9.1, 90.1), "off_earth", "geometry is outside ±180° and ±90°"),
    ],
)
def test_geometry_that_cannot_be_is_named(polygon: shapely.Geometry, number: str, said: str) -> None:
    found = geometry_valid(changed(scene(), "geometry", 6, polygon.wkb))
    assert found.numbers == {"chips": 20, "invalid": 0, "off_earth": 0, number: 1}
    assert found.violations == (f"{said}: S2A_B-1-1",)


SQUARE = [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)]


def ring(*corners: tuple[float, float]) -> bytes:
    """WKB of one ring of five arbitrary points."""
    return struct.pack("<BIII10d", 1, 3, 1, len(corners), *(number for corner in corners for number in corner))


@pytest.mark.parametrize(
    "corners",
    [
        SQUARE,
        SQUARE[::-1],
        [SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]],  # a bow tie
        [*SQUARE[:3], (0.9, 0.9), SQUARE[0]],  # concave but valid
        [*SQUARE[:3], (0.5, 0.5), SQUARE[0]],  # flat at one corner
        [SQUARE[0]] * 5,
        [*SQUARE[:2], *SQUARE[:2], SQUARE[0]],
        [*SQUARE[:4], (1.0, 1e-9)],  # not closed
        [*SQUARE[:3], (math.nan, 0.0), SQUARE[0]],
        [(x + 179.5, y) for x, y in SQUARE],
        [(x, y + 89.5) for x, y in SQUARE],
        [(x * 1e-12, y * 1e-12) for x, y in SQUARE],
        [(x * 1e160, y * 1e160) for x, y in SQUARE],
    ],
)
def test_rings_are_judged_as_shapely_judges_them(corners: list[tuple[float, float]]) -> None:
    table = changed(scene(), "geometry", 6, ring(*corners))
    polygon = shapely.from_wkb(ring(*corners), on_invalid="ignore")
    sound = polygon is not None and bool(shapely.is_valid(polygon)) and not polygon.is_empty
    west, south, east, north = shapely.bounds(polygon)
    away = sound and not (west >= -180 and south >= -90 and east <= 180 and north <= 90)
    found = geometry_valid(table)
    assert (found.numbers["invalid"], found.numbers["off_earth"]) == (int(not sound), int(away))
    assert geometry_valid(table.slice(6, 1)).numbers["invalid"] == int(not sound)
    assert geometry_valid(table.slice(7)).ok


def test_bytes_that_are_no_geometry_are_named() -> None:
    found = geometry_in_scene(changed(scene(), "geometry", 6, b"none"), GRID, None, SIZE)
    assert found.numbers["invalid"] == 1


def test_chips_that_lie_elsewhere_are_named() -> None:
    table = scene()
    swapped = with_column(
        table, "geometry", pa.chunked_array([table["geometry"].take(pa.array([1, 0, *range(2, 20)]))])
    )
    found = geometry_in_scene(swapped, GRID, None, SIZE)
    assert (found.numbers["misplaced"], found.numbers["outside"], found.violation_count) == (2, 0, 2)
    assert found.violations == ("chips at wrong positions in their scene: 2 chips, first S2A_B-0-0",)


@pytest.mark.parametrize(("pixels", "misplaced"), [(1, 0), (3, 20)])
def test_a_file_may_lie_a_pixel_from_where_its_item_says(pixels: int, misplaced: int) -> None:
    shifted = Grid(GRID.crs, Affine.translation(10 * pixels, 0) @ GRID.transform, GRID.height, GRID.width)
    assert geometry_in_scene(scene(shifted), GRID, None, SIZE).numbers["misplaced"] == misplaced


def test_chips_beyond_the_grid_of_their_scene_are_named() -> None:
    smaller = Grid(GRID.crs, GRID.transform, 3 * SIZE, 5 * SIZE)
    found = geometry_in_scene(scene(), smaller, None, SIZE)
    assert (found.numbers["outside"], found.numbers["misplaced"]) == (5, 0)
    assert found.violations == ("chips outside their scene: 5 chips, first S2A_B-0-3",)


def test_where_no_grid_is_known_chips_have_to_touch_the_footprint() -> None:
    table = scene()
    polygons = shapely.from_wkb(table["geometry"].to_numpy())
    footprint = shapely.union_all(polygons[:15])
    found = geometry_in_scene(table, None, footprint, SIZE)
    assert found.ok  # the last row extends beyond it, but still touches it
    assert found.numbers["scenes_without_grid"] == 1
    found = geometry_in_scene(table, None, shapely.union_all(polygons[:10]), SIZE)
    assert found.numbers["outside"] == 5
    assert found.violations == ("chips outside their scene: 5 chips, first S2A_B-0-3",)
    assert geometry_in_scene(table, None, None, SIZE).ok


def test_a_scene_whose_chips_would_be_invalid_is_set_aside_and_not_written(
    store: LocalStore, recipe: Recipe, threads: Executor, tmp_path: Path
) -> None:
    """A file whose rows and columns run in the same direction: its chips are lines."""
    good = sentinel_2(tmp_path / "good", item_id="S2A_GOOD")
    bad = without_proj(sentinel_2(tmp_path / "bad", item_id="S2A_BAD"))
    (tmp_path / "bad" / "B04.tif").unlink()  # the shape would be checked against it
    bad["assets"]["red"]["proj:shape"] = [600, 600]
    write_tiff(tmp_path / "bad" / "SCL.tif", scl_pixels(), Affine(20, 20, LEFT, 20, 20, TOP), "EPSG:32632", nodata=0)
    cell = index_scenes(S2, 2020, [good, bad], store, recipe, threads, 2)
    ledger = cell.ledger.set_index("item_id")
    assert ledger["outcome"].to_dict() == {"S2A_GOOD": "indexed", "S2A_BAD": "failed"}
    assert ledger["error"]["S2A_BAD"].startswith(
        "S2A_BAD: geometry is not a valid polygon: 4 chips, first S2A_BAD-0-0. Check the item's proj: fields"
    )
    assert [key.rpartition("/")[2] for key in store.list("")] == ["S2A_GOOD.parquet"]
