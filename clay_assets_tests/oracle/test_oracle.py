"""stacchip, in its own environment, gives its known answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely import from_wkt

from clay_assets_tests.oracle.environment import Stacchip
from clay_assets_tests.servers.rasters import raster


def scene_item(asset: dict[str, Any], assets_key: str, shape: tuple[int, int], resolution: float) -> dict[str, Any]:
    transform = [resolution, 0, 500000, 0, -resolution, 5000000]
    properties = {
        "datetime": "2020-05-06T10:11:12Z",
        "proj:epsg": 32632,
        "proj:shape": list(shape),
        "proj:transform": transform,
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": "scene",
        "geometry": {"type": "Polygon", "coordinates": [[[9, 45], [10, 45], [10, 46], [9, 46], [9, 45]]]},
        "bbox": [9, 45, 10, 46],
        "properties": properties,
        "assets": {assets_key: asset},
        "links": [],
    }


def test_stacchip_indexes_sentinel_2(stacchip: Stacchip, tmp_path: Path) -> None:
    scl = np.full((128 * 2 + 5, 128 * 2), 4, np.uint8)  # 20 m: two by two chips of 10 m, and a ragged edge
    scl[:64, :128] = 9  # half of chip (0, 0) is cloud
    scl[:128, 128:] = 0  # chip (1, 0) is empty
    raster(tmp_path / "scl.tif", scl, resolution=20)
    document = scene_item({"href": str(tmp_path / "scl.tif")}, "scl", (2 * 261, 512), 10)
    (tmp_path / "item.json").write_text(json.dumps(document))

    table = stacchip.index(tmp_path / "item.json", "Sentinel2Indexer")
    assert table.column("chipid").to_pylist() == ["scene-0-0", "scene-0-1", "scene-1-1"]
    assert table.column("cloud_cover_percentage").to_pylist() == [0.5, 0.0, 0.0]
    assert table.column("nodata_percentage").to_pylist() == [0.0, 0.0, 0.0]
    assert str(table.column("date")[0].as_py()) == "2020-05-06"
    # Easting 500000 is the zone's central meridian, 9 degrees east.
    west, _, east, north = from_wkt(table.column("geometry")[0].as_py()).bounds
    assert west == pytest.approx(9.0, abs=1e-9)
    assert 9.03 < east < 9.04
    assert 45.1 < north < 45.2
    everything = stacchip.index(tmp_path / "item.json", "Sentinel2Indexer", chip_max_nodata=1.0)
    assert everything.column("nodata_percentage").to_pylist() == [0.0, 1.0, 0.0, 0.0]


def test_stacchip_indexes_landsat(stacchip: Stacchip, tmp_path: Path) -> None:
    qa = np.zeros((256, 512), np.uint16)
    qa[:32, :256] = 1 << 3
    qa[32:64, :256] = 1 << 4
    qa[0, 300] = 1  # one pixel without data: stacchip drops the chip
    raster(tmp_path / "qa.tif", qa, resolution=30)
    asset = {"href": "https://example.com/qa.tif", "alternate": {"s3": {"href": str(tmp_path / "qa.tif")}}}
    (tmp_path / "item.json").write_text(json.dumps(scene_item(asset, "qa_pixel", (256, 512), 30)))

    table = stacchip.index(tmp_path / "item.json", "LandsatIndexer")
    assert table.column("chipid").to_pylist() == ["scene-0-0"]
    assert table.column("cloud_cover_percentage").to_pylist() == [0.25]


def test_stacchip_failure_shows_its_error(stacchip: Stacchip, tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text(json.dumps(scene_item({"href": "/nowhere.tif"}, "scl", (256, 256), 10)))
    with pytest.raises(RuntimeError, match="nowhere"):
        stacchip.index(tmp_path / "item.json", "Sentinel2Indexer")
