"""Declared grids against files: matching scenes are indexed, contradicting ones are skipped with a message."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.transform import from_origin

from clay_assets.chips.declared import declared
from clay_assets.chips.index import counts_of, declared_grid, grid_of_file, index_scene
from clay_assets.chips.rules import geometry_in_scene
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.stac import Item
from clay_assets_tests.chips.factories import EPSG, L2, LEFT, S2, TOP, landsat, scl_pixels, sentinel_2, write_tiff

HIGH, WIDE = 512, 256  # pixels of 20 m


def index(document: Item, platform: str = S2) -> Any:
    return index_scene(pystac.Item.from_dict(document, preserve_dict=True), platform)


@pytest.fixture
def scene(tmp_path: Path) -> Item:
    """Taller than wide: 4 × 2 chips of 10 m."""
    document = sentinel_2(tmp_path, np.full((HIGH, WIDE), 4, np.uint8))
    document["assets"]["red"]["href"] = "/nowhere/B04.tif"  # it is not read if the item declares the grid
    return document


def red(scene: Item) -> dict[str, Any]:
    asset: dict[str, Any] = scene["assets"]["red"]
    return asset


def write_scl(scene: Item, height: int, width: int, pixel: float = 20, left: float = LEFT) -> None:
    pixels = np.full((height, width), 4, np.uint8)
    write_tiff(Path(scene["assets"]["scl"]["href"]), pixels, from_origin(left, TOP, pixel, pixel), f"EPSG:{EPSG}")


def without(asset: dict[str, Any], *names: str) -> None:
    for name in names:
        asset.pop(f"proj:{name}", None)


# --- what is tolerated ----------------------------------------------------------------------------


def change(**fields: Any) -> Callable[[Item], None]:
    def changed(scene: Item) -> None:
        red(scene).update({f"proj:{name}": value for name, value in fields.items()})

    return changed


def code(**fields: Any) -> Callable[[Item], None]:
    def changed(scene: Item) -> None:
        del scene["properties"]["proj:epsg"]
        scene["properties"].update({f"proj:{name}": value for name, value in fields.items()})

    return changed


TOLERATED = {
    "width before height": change(shape=[2 * WIDE, 2 * HIGH]),
    "nine terms": change(transform=[10, 0, LEFT, 0, -10, TOP, 0, 0, 1]),
    "text": change(transform=["10", "0", str(LEFT), "0", "-10", str(TOP)]),
    "GDAL's order of terms": change(transform=[LEFT, 10, 0, TOP, 0, -10]),
    "half a pixel": change(transform=[10, 0, LEFT + 5, 0, -10, TOP - 5]),
    "rounding": change(transform=[9.999999999, 0, LEFT + 1e-6, 0, -10.000000002, TOP]),
    "shape of fractions": change(shape=[2.0 * HIGH, 2.0 * WIDE]),
    "no transform": change(transform=None),
    "empty transform": change(transform=[]),
    "transform of nothing": change(transform=[None] * 6),
    "EPSG:None": code(code="EPSG:None"),
    "None": code(epsg=None, code=None),
    "text None": code(epsg="None"),
    "empty code": code(code=""),
    "NaN": code(epsg=float("nan")),
    "no code at all": code(),
    "nothing beside a code": code(code="EPSG:None", epsg=EPSG),
    "code as text": code(epsg=str(EPSG)),
    "code as fraction": code(epsg=float(EPSG)),
    "lower case": code(code=f"epsg:{EPSG}"),
    "WKT": code(wkt2=rasterio.CRS.from_epsg(EPSG).to_wkt()),
    "null on the asset, code on the item": change(epsg=None, code=None),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOLERATED)
def test_what_the_item_says_otherwise_and_means_the_same(scene: Item, kind: str) -> None:
    expected = index(scene)
    assert counts_of(expected) == (8, 0, 8)
    TOLERATED[kind](scene)
    assert index(scene).equals(expected)


@pytest.mark.parametrize("kind", ["width before height", "GDAL's order of terms", "EPSG:None"])
def test_the_audit_has_the_grid_of_the_files(scene: Item, kind: str) -> None:
    TOLERATED[kind](scene)
    document = PLATFORMS[S2].read_item(scene)
    table = index(scene)
    grid = grid_of_file(table) or declared_grid(PLATFORMS[S2], document)
    found = geometry_in_scene(table, grid, shapely.box(8, 0, 10, 2), 256)
    assert found.ok, found.violations
    assert grid_of_file(index(sentinel_2(Path(scene["assets"]["scl"]["href"]).parent))) is None


def test_the_bounding_box_agrees(scene: Item) -> None:
    expected = index(scene)
    without(red(scene), "transform")
    red(scene)["proj:bbox"] = [LEFT, TOP - HIGH * 20, LEFT + WIDE * 20, TOP]
    assert index(scene).equals(expected)
    red(scene)["proj:bbox"] = [LEFT, TOP - HIGH * 20, 0, LEFT + WIDE * 20 + 9, TOP, 100]
    assert index(scene).equals(expected)


@pytest.mark.parametrize("gsd", [10, 8, 13])
def test_a_nominal_size_is_about_that_of_a_pixel(scene: Item, gsd: float) -> None:
    expected = index(scene)
    without(red(scene), "transform")
    red(scene)["gsd"] = gsd
    assert index(scene).equals(expected)


@pytest.mark.slow
def test_every_real_item_is_understood(real_data: Path) -> None:
    understood = Counter[tuple[str, bool]]()
    for path in sorted((real_data / "stac" / "items").glob("*.ndjson.gz")):
        platform = next(
            (key for key in PLATFORMS if path.name.startswith((key, key.replace("modis", "modis-09A1")))), ""
        )
        with gzip.open(path) as lines:
            for line in lines if platform else ():
                item = PLATFORMS[platform].read_item(json.loads(line))
                understood[platform, declared(item, PLATFORMS[platform].assets.grid).grid is not None] += 1
    assert understood["sentinel-2-l2a", True] >= 159
    assert understood["naip", True] == 716


# --- what is skipped ----------------------------------------------------------------------------


def refused(scene: Item, *said: str, platform: str = S2) -> None:
    with pytest.raises(InputError) as caught:
        index(scene, platform)
    for words in (scene["id"], *said):
        assert words in str(caught.value)


def test_a_quality_file_of_a_quarter_of_the_scene(scene: Item) -> None:
    write_scl(scene, HIGH // 2, WIDE // 2)
    refused(scene, "SCL.tif", "asset scl, proj:shape")
    without(scene["assets"]["scl"], "shape", "transform")
    refused(scene, "SCL.tif: covers 5120 × 2560 m", "1024 × 512 pixels of 10 × 10 m", "asset red, proj:transform")
    without(red(scene), "transform")
    red(scene)["proj:bbox"] = [LEFT, TOP - HIGH * 20, LEFT + WIDE * 20, TOP]
    refused(scene, "SCL.tif: covers 5120 × 2560 m", "asset red, proj:bbox")
    without(red(scene), "bbox")
    red(scene)["gsd"] = 10
    refused(scene, "SCL.tif: covers 5120 × 2560 m", "asset red, gsd")


def test_a_quality_file_of_a_quarter_of_the_scene_beside_the_whole_file(tmp_path: Path) -> None:
    """If the item declares nothing, the file on the finest grid is used."""
    scene = sentinel_2(tmp_path)
    for asset in scene["assets"].values():
        without(asset, "shape", "transform")
    index(scene)
    write_scl(scene, 150, 150)
    with pytest.raises(InputError, match=r"SCL\.tif: covers 3000 × 3000 m, but .*B04\.tif 6000 × 6000 m"):
        index(scene)


@pytest.mark.parametrize("times", [2, 0.5])
def test_a_shape_alone_is_held_against_the_file_on_the_finest_grid(tmp_path: Path, times: float) -> None:
    scene = sentinel_2(tmp_path, np.full((HIGH, WIDE), 4, np.uint8))
    for asset in scene["assets"].values():
        without(asset, "transform")
    expected = index(scene)
    red(scene)["proj:shape"] = red(scene)["proj:shape"][::-1]
    assert index(scene).equals(expected)
    red(scene)["proj:shape"] = [int(times * 2 * side) for side in (HIGH, WIDE)]
    refused(scene, "B04.tif: has 1024 × 512 pixels", "asset red, proj:shape")


@pytest.mark.parametrize("times", [2, 4])
def test_a_shape_that_is_a_multiple_of_the_file_s(scene: Item, times: int) -> None:
    red(scene)["proj:shape"] = [times * side for side in red(scene)["proj:shape"]]
    refused(scene, "SCL.tif", "asset red, proj:transform")


def test_a_pixel_of_another_size(scene: Item) -> None:
    red(scene)["proj:transform"] = [20, 0, LEFT, 0, -20, TOP]
    refused(scene, "SCL.tif: covers 10240 × 5120 m", "pixels of 20 × 20 m", "asset red, proj:transform")


def test_fields_of_the_quality_asset_itself(scene: Item) -> None:
    scene["assets"]["scl"]["proj:transform"] = [60, 0, LEFT, 0, -60, TOP]
    refused(scene, "SCL.tif", "asset scl, proj:transform")


def test_another_corner_names_the_field(scene: Item) -> None:
    red(scene)["proj:transform"] = [10, 0, LEFT + 500, 0, -10, TOP]
    refused(scene, "its corner is 500 m from the item's", "asset red, proj:transform")


@pytest.mark.parametrize(
    ("name", "value"),
    [("code", "EPSG:999999"), ("code", "somewhere"), ("wkt2", "PROJCS[")],
)
def test_a_crs_that_cannot_be_understood_names_the_field(scene: Item, name: str, value: Any) -> None:
    code(**{name: value})(scene)
    refused(scene, "invalid proj: fields", f"proj:{name} {value!r}")


# --- where the quality asset is the grid, the file decides ----------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Item:
    return landsat(tmp_path, np.zeros((512, 768), np.uint16))


@pytest.mark.parametrize(
    "fields",
    [
        {"proj:shape": [1024, 1536]},
        {"proj:shape": [1024, 1536], "proj:transform": [15, 0, LEFT, 0, -15, TOP]},
        {"proj:shape": [768, 512]},
        {"proj:shape": [256, 384], "proj:transform": [60, 0, LEFT, 0, -60, TOP]},
        {"proj:epsg": None, "proj:code": "EPSG:None"},
        {"proj:transform": [LEFT, 30, 0, TOP, 0, -30]},
        {"gsd": 15},
    ],
)
def test_the_file_decides(whole: Item, fields: dict[str, Any]) -> None:
    expected = index(whole, L2)
    assert counts_of(expected) == (6, 0, 6)
    assert set(np.round(expected["gsd"].to_numpy())) == {30}
    contradicting = deepcopy(whole)
    contradicting["properties"].update(fields)
    table = index(contradicting, L2)
    assert table.equals(expected)
    grid = grid_of_file(table) or declared_grid(PLATFORMS[L2], PLATFORMS[L2].read_item(contradicting))
    assert geometry_in_scene(table, grid, None, 256).ok


def test_a_file_of_another_place_is_refused_all_the_same(whole: Item) -> None:
    elsewhere = deepcopy(whole)
    elsewhere["properties"]["proj:transform"] = [30, 0, LEFT + 3000, 0, -30, TOP]
    refused(elsewhere, "its corner is 3000 m from the item's", platform=L2)
    elsewhere = deepcopy(whole)
    elsewhere["properties"]["proj:epsg"] = EPSG + 1
    refused(elsewhere, f"its item says EPSG:{EPSG + 1}", platform=L2)


# --- files of one scene ---------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [Affine(10, 0, LEFT + 640, 0, -10, TOP), Affine(5, 0, LEFT, 0, -5, TOP)])
def test_two_quality_files_of_different_places(tmp_path: Path, moved: Affine) -> None:
    ones = np.ones((512, 512), np.float32)
    paths = {
        name: write_tiff(tmp_path / f"{name}.tif", ones, place, f"EPSG:{EPSG}")
        for name, place in (("vv", from_origin(LEFT, TOP, 10, 10)), ("vh", moved))
    }
    scene = sentinel_2(tmp_path, scl_pixels())
    scene["assets"] = {name: {"href": str(path)} for name, path in paths.items()}
    with pytest.raises(InputError, match=r"vh\.tif: covers .* but .*vv\.tif .*different scenes"):
        index(scene, "sentinel-1-rtc")
