"""The index equals stacchip 0.1.38's, row for row, on scenes of the planet and on real ones."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely

from clay_assets.chips.index import index_scene
from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets.stac import as_stac_1_1
from clay_assets_tests.chips.factories import L1, L2, S2
from clay_assets_tests.oracle.environment import Indexer, Stacchip

INDEXERS: dict[str, Indexer] = {S2: "Sentinel2Indexer", L1: "LandsatIndexer", L2: "LandsatIndexer"}
PROJECTION = "https://stac-extensions.github.io/projection/v1.0.0/schema.json"


def assert_same(
    stacchip: Stacchip, folder: Path, document: Any, for_stacchip: Any, platform: str, max_nodata: Any
) -> int:
    """Compare both indexes of one scene, and return the number of rows."""
    options = PLATFORMS[platform].rules.options(max_chip_nodata=max_nodata)
    ours = index_scene(pystac.Item.from_dict(document, preserve_dict=True), platform, options=options)
    path = folder / "item.json"
    path.write_text(json.dumps(for_stacchip))
    theirs = stacchip.index(path, INDEXERS[platform], max_nodata)
    for column in (
        "chipid",
        "date",
        "chip_index_x",
        "chip_index_y",
        "cloud_cover_percentage",
        "nodata_percentage",
    ):
        assert ours[column].to_pylist() == theirs[column].cast(ours[column].type).to_pylist(), column
    # stacchip's rings run clockwise and start at another corner.
    polygons = shapely.normalize(shapely.from_wkb(ours["geometry"].to_numpy(zero_copy_only=False)))
    expected = shapely.normalize(shapely.from_wkt(theirs["geometry"].to_numpy(zero_copy_only=False)))
    np.testing.assert_allclose(shapely.get_coordinates(polygons), shapely.get_coordinates(expected), rtol=0, atol=1e-9)
    return ours.num_rows


def with_finest_grid(document: Any) -> dict[str, Any]:
    """For stacchip, which uses the coarsest of several transforms unless one is in the properties."""
    changed = deepcopy(document)
    changed["properties"].update({name: document["assets"]["red"][name] for name in ("proj:shape", "proj:transform")})
    return changed


def wedged(planet: Planet, platform: str, place: str) -> dict[str, Any]:
    """A scene with a nodata wedge through its chips, and a CRS in a form that stacchip understands."""
    for item in planet.items(platform):
        shares = planet.chip_truth(item["id"])["nodata_percentage"]
        if place in item["id"] and "proj:epsg" in item["properties"] and shares.max() > 0.5:
            return item
    raise AssertionError(f"the planet has no such scene of {place}")


def test_sentinel_2_of_the_planet(planet: Planet, stacchip: Stacchip, tmp_path: Path) -> None:
    document = wedged(planet, S2, "33UUU")
    assert 0 < assert_same(stacchip, tmp_path, document, with_finest_grid(document), S2, 0.5) < 16


@pytest.mark.parametrize(("platform", "max_nodata"), [(L1, 0.0), (L2, 1.0)])
def test_landsat_of_the_planet(
    planet: Planet, stacchip: Stacchip, tmp_path: Path, platform: Any, max_nodata: float
) -> None:
    document = wedged(planet, platform, "188060")
    assert assert_same(stacchip, tmp_path, document, document, platform, max_nodata) == (2 if max_nodata < 1 else 4)


def test_real_sentinel_2_scene(real_data: Path, stacchip: Stacchip, tmp_path: Path) -> None:
    """29RKH, whose files are reduced ten times: 1098 pixels of 100 m, 549 of 200 m."""
    folder = real_data / "rasters" / "sentinel2_29RKH"
    document = json.loads((folder / "S2A_29RKH_20200219_0_L2A.json").read_text())
    document["assets"] = {name: document["assets"][name] for name in ("red", "scl")}
    for name, file, size, gsd in (("red", "B04.tif", 1098, 100), ("scl", "SCL.tif", 549, 200)):
        fields = {"proj:shape": [size, size], "proj:transform": [gsd, 0, 199980, 0, -gsd, 2800020]}
        document["assets"][name] |= {"href": str(folder / file), **fields}
    assert assert_same(stacchip, tmp_path, document, with_finest_grid(document), S2, 0.5) == 16


@pytest.mark.parametrize(("max_nodata", "rows"), [(0.0, 0), (1.0, 1)])
def test_real_landsat_scene(real_data: Path, stacchip: Stacchip, tmp_path: Path, max_nodata: float, rows: int) -> None:
    """LC08 001062, reduced to 5 % of its size: one whole chip, a corner of which is fill."""
    folder = real_data / "rasters" / "landsat_LC08_001062"
    name = "LC08_L2SP_001062_20201031_20201106_02_T2"
    document = as_stac_1_1(json.loads((folder / f"{name}_SR_stac.json").read_text()))
    quality = document["assets"]["QA_PIXEL.TIF"]
    quality["href"] = str(folder / f"{name}_QA_PIXEL.TIF")
    quality.pop("alternate", None)
    # The scene's corners, divided by the pixels of the reduced file; our own reading only uses the file.
    west, east, south, north = 143685, 371115, -436215, -204285
    transform = [(east - west) / 379, 0, west, 0, (south - north) / 386, north]
    grid = {"proj:epsg": 32620, "proj:shape": [386, 379], "proj:transform": transform}
    for_stacchip = deepcopy(document)
    for_stacchip["stac_extensions"] = [PROJECTION]
    for_stacchip["properties"].update(grid)
    for_stacchip["assets"] = {"qa_pixel": {**quality, "alternate": {"s3": {"href": quality["href"]}}}}
    assert assert_same(stacchip, tmp_path, document, for_stacchip, L2, max_nodata) == rows
