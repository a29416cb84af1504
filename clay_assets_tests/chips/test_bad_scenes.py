"""Everything that can be wrong with a scene: what still works, and the messages for the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pystac
import pytest
from rasterio.transform import from_origin

from clay_assets.chips.index import index_scene
from clay_assets.errors import InputError
from clay_assets.stac import Item
from clay_assets_tests.chips.factories import (
    EPSG,
    L2,
    LEFT,
    S2,
    TOP,
    landsat,
    scl_pixels,
    sentinel_2,
    without_proj,
    write_tiff,
)

AT_20 = from_origin(LEFT, TOP, 20, 20)


def index(document: Any, platform: Any = S2) -> pa.Table:
    return index_scene(pystac.Item.from_dict(document, preserve_dict=True), platform)


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    return sentinel_2(tmp_path)


def scl(scene: Item) -> Path:
    return Path(scene["assets"]["scl"]["href"])


# --- what still works --------------------------------------------------------------------------------------------


def test_without_proj_fields_the_files_tell_the_grid(scene: Item) -> None:
    assert index(without_proj(scene)).equals(index(scene))


def test_landsat_without_proj_fields(tmp_path: Path) -> None:
    document = landsat(tmp_path, np.zeros((600, 600), np.uint16))
    assert index(without_proj(document), L2).equals(index(document, L2))


def test_proj_code_in_place_of_proj_epsg(scene: Item) -> None:
    expected = index(scene)
    scene["properties"]["proj:code"] = f"EPSG:{scene['properties'].pop('proj:epsg')}"
    assert index(scene).equals(expected)


def test_only_a_shape(scene: Item) -> None:
    expected = index(scene)
    scene["properties"].pop("proj:epsg")
    scene["assets"]["red"].pop("proj:transform")
    scene["assets"]["red"]["href"] = "/nowhere/B04.tif"
    assert index(scene).equals(expected)


def test_an_interval_counts_from_its_start(scene: Item) -> None:
    scene["properties"].update(
        datetime=None, start_datetime="2020-03-04T05:06:07Z", end_datetime="2020-03-12T05:06:07Z"
    )
    table = index(scene)
    assert {str(moment) for moment in table["datetime"].to_pylist()} == {"2020-03-04 05:06:07+00:00"}
    assert {str(day) for day in table["date"].to_pylist()} == {"2020-03-04"}


# --- what is refused ---------------------------------------------------------------------------------------------


def refused(document: Any, *words: Any, platform: Any = S2) -> None:
    with pytest.raises(InputError) as caught:
        index(document, platform)
    for word in words:
        assert word in str(caught.value)


def test_truncated_file(scene: Item) -> None:
    content = scl(scene).read_bytes()
    scl(scene).write_bytes(content[: len(content) // 2])
    refused(scene, str(scl(scene)), "not a readable raster", "Download it again")


def test_file_truncated_in_its_header(scene: Item) -> None:
    scl(scene).write_bytes(scl(scene).read_bytes()[:6])
    refused(scene, str(scl(scene)), "not a readable raster")


def test_garbage(scene: Item) -> None:
    scl(scene).write_bytes(b"<html>It works!</html>" * 100)
    refused(scene, str(scl(scene)), "not a readable raster")


def test_a_file_that_does_not_exist(scene: Item) -> None:
    scl(scene).unlink()
    refused(scene, str(scl(scene)), "file not found", "Check the href")


def test_no_quality_asset(scene: Item) -> None:
    del scene["assets"]["scl"]
    refused(scene, scene["id"], "asset scl not found, only red", "Sentinel-2 L2A cannot be indexed without it")


def test_neither_shape_nor_the_asset_on_the_finest_grid(scene: Item) -> None:
    del scene["assets"]["red"]
    refused(scene, scene["id"], "neither proj:shape nor the asset red")


def test_the_asset_on_the_finest_grid_does_not_exist_where_it_must_be_read(scene: Item) -> None:
    Path(scene["assets"]["red"]["href"]).unlink()
    refused(without_proj(scene), "B04.tif", "file not found")


def test_crs_of_the_item_contradicts_the_file(scene: Item) -> None:
    scene["properties"]["proj:epsg"] = EPSG + 1
    refused(scene, str(scl(scene)), f"EPSG:{EPSG}", f"its item says EPSG:{EPSG + 1}")


def test_corner_of_the_item_contradicts_the_file(scene: Item) -> None:
    scene["assets"]["red"]["proj:transform"] = [10, 0, LEFT + 500, 0, -10, TOP]
    refused(scene, str(scl(scene)), "its corner is 500 m from the item's", "different scenes")


@pytest.mark.parametrize("shape", [["high", "wide"], [600], [0, 600], 600])
@pytest.mark.parametrize("with_crs", [True, False])
def test_a_shape_that_makes_no_sense(scene: Item, shape: Any, with_crs: bool) -> None:
    scene["assets"]["red"]["proj:shape"] = shape
    if not with_crs:
        del scene["properties"]["proj:epsg"]
    refused(scene, scene["id"], "invalid proj: fields", "proj:shape")


@pytest.mark.parametrize("transform", [["a", 0, 0, 0, 0, 0], [10, 0], 10])
def test_a_transform_that_makes_no_sense(scene: Item, transform: Any) -> None:
    scene["assets"]["red"]["proj:transform"] = transform
    refused(scene, scene["id"], "invalid proj: fields")


def test_unknown_crs(scene: Item) -> None:
    scene["properties"]["proj:epsg"] = 999_999
    refused(scene, scene["id"], "invalid proj: fields")


def test_smaller_than_one_chip(tmp_path: Path) -> None:
    scene = sentinel_2(tmp_path, scl_pixels(127))
    refused(scene, str(scl(scene)), "a scene of 254 × 254 pixels is smaller than a chip of 256 × 256")


@pytest.mark.parametrize("side", [400, 200, 599, 1200])
def test_factor_that_is_not_whole_or_does_not_divide_the_chip(scene: Item, side: int) -> None:
    """For a finest grid of 600 pixels: factors 1.5, 3, just above 1, and ½."""
    gsd = 6000 / side
    write_tiff(scl(scene), scl_pixels(side), from_origin(LEFT, TOP, gsd, gsd), f"EPSG:{EPSG}")
    refused(scene, str(scl(scene)), f"{side} × {side} pixels", "600 × 600", "the factor must be an integer")


def test_no_crs(scene: Item) -> None:
    write_tiff(scl(scene), scl_pixels(), AT_20, None)
    refused(scene, str(scl(scene)), "no CRS in the file")


def test_degrees(scene: Item) -> None:
    write_tiff(scl(scene), scl_pixels(), from_origin(9, 1, 0.0001, 0.0001), "EPSG:4326")
    refused(scene, str(scl(scene)), "EPSG:4326 is not a projected CRS in metres")


def test_feet(scene: Item) -> None:
    write_tiff(scl(scene), scl_pixels(), AT_20, "EPSG:2229")
    refused(scene, str(scl(scene)), "is not a projected CRS in metres")


@pytest.mark.parametrize(("platform", "dtype"), [(S2, np.uint16), (S2, np.float32), (L2, np.float32)])
def test_a_band_in_the_place_of_the_quality_band(tmp_path: Path, platform: Any, dtype: Any) -> None:
    values = np.full((512, 512), 3000, dtype)
    if platform == S2:
        scene = sentinel_2(tmp_path)
        file = write_tiff(scl(scene), values[:300, :300], AT_20, f"EPSG:{EPSG}")
    else:
        scene = landsat(tmp_path, values)
        file = Path(scene["assets"]["qa_pixel"]["href"])
    refused(scene, str(file), np.dtype(dtype).name, "not a valid quality band", platform=platform)


def test_no_time(scene: Item) -> None:
    scene["properties"].update(datetime=None, start_datetime=None)
    item = pystac.Item.from_dict({**scene, "properties": {**scene["properties"], "datetime": "2020-01-01T00:00:00Z"}})
    item.datetime = None
    item.properties["datetime"] = None
    with pytest.raises(InputError, match="neither datetime nor start_datetime is given"):
        index_scene(item, S2)
