"""A catalogue that cannot be the platform's is reported: as a warning in the run, and as a failed check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import geopandas as gpd
import pytest
import shapely

from clay_assets.demo import grid
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.requests import make_requests
from clay_assets.storage import layout
from clay_assets_tests.chain import Chain
from clay_assets_tests.scenes.items import NAIP, SENTINEL_2, landsat_item, snapshot

CHECK = "catalogue_of_platform"


def warnings_of(chain: Chain, run_id: str) -> str:
    records = chain.instance.all_logs(run_id)
    return "\n".join(record.user_message for record in records if record.level == 30)


def evaluation(result: dg.ExecuteInProcessResult) -> Any:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == CHECK]
    return found


@pytest.mark.parametrize("platform", [SENTINEL_2, NAIP])
def test_a_snapshot_of_another_collection(new_chain: Callable[..., Chain], tmp_path: Path, platform: str) -> None:
    location = snapshot(tmp_path / "landsat.parquet", [landsat_item("l", "2020-02-01T10:00:00Z")])
    chain = new_chain(stac_earth_search=location, stac_planetary_computer=location)
    tiles = gpd.GeoDataFrame({"name": ["32NLG"]}, geometry=[shapely.box(6, 0, 7, 1)], crs="EPSG:4326")
    if platform == NAIP:
        chain.clay.write_table(layout.table("naip_sample"), tiles.set_geometry(tiles.representative_point()))
        result = chain.run("requests", NAIP)
    else:
        requests = make_requests(PLATFORMS[platform], tiles, chain.clay.recipe())
        chain.clay.write_table(layout.table("scene_requests", platform), requests)
        year = chain.clay.requested_years(platform)[0]
        result = chain.run("scenes", f"{platform}|{year}", "scene_picks")
    assert result.success
    found = evaluation(result)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    said = f"{location}: holds no item of collection {platform}, but of landsat-c2l2-sr. Check the address."
    assert said.rstrip(".") in found.description
    assert said in warnings_of(chain, result.run_id)


def test_the_planet_s_own_catalogue(new_chain: Callable[..., Chain]) -> None:
    chain = new_chain()
    tile = grid.tiles()[0]
    tiles = gpd.GeoDataFrame({"name": [tile.name]}, geometry=[tile.polygon], crs="EPSG:4326")
    requests = make_requests(PLATFORMS[SENTINEL_2], tiles, chain.clay.recipe())
    chain.clay.write_table(layout.table("scene_requests", SENTINEL_2), requests)
    year = chain.clay.requested_years(SENTINEL_2)[0]
    assert evaluation(chain.run("scenes", f"{SENTINEL_2}|{year}", "scene_picks")).passed
