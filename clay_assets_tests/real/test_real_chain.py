"""The pipeline on real input: the official grid, a real WorldCover tile, real STAC items, two real scenes.

Expected values were worked out apart from our code; where they come from stands beside them.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

from clay_assets.chips.index import open_index
from clay_assets.definitions import build_definitions
from clay_assets.orchestration.failures import run_error
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets_tests.chain import Chain, instance_in, recipe_with
from clay_assets_tests.servers.stac_api import StacApi

SENTINEL, LANDSAT = "S2A_29RKH_20200219_0_L2A", "LC08_L2SP_001062_20201031_20201106_02_T2"
S2_FILES = {
    "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06", "rededge3": "B07",
    "nir": "B08", "nir08": "B8A", "swir16": "B11", "swir22": "B12", "scl": "SCL",
}  # fmt: skip
EVERY = 8  # of the tiles of the published sample without an item, each n-th is searched
LANDSAT_TILE = "20MKC"  # a tile whose middle lies in path 1, row 62


def sentinel_item(real_data: Path) -> dict[str, Any]:
    """The item of the real Sentinel-2 scene, its hrefs local, its grids those of the reduced files."""
    folder = real_data / "rasters" / "sentinel2_29RKH"
    item = json.loads((folder / f"{SENTINEL}.json").read_text())
    item["assets"] = {name: item["assets"][name] for name in S2_FILES}
    for name, asset in item["assets"].items():
        asset["href"] = str(folder / f"{S2_FILES[name]}.tif")
        with rasterio.open(asset["href"]) as source:
            asset["proj:shape"] = [source.height, source.width]
            asset["proj:transform"] = list(source.transform)[:6]
    return item


def landsat_item(real_data: Path) -> dict[str, Any]:
    """The item of the real Landsat scene (STAC 0.7, no `proj:` fields), its hrefs local."""
    folder = real_data / "rasters" / "landsat_LC08_001062"
    item = json.loads((folder / f"{LANDSAT}_SR_stac.json").read_text())
    local = {path.name: str(path) for path in folder.glob("*.TIF")}
    item["assets"] = {
        name: {**asset, "href": local[asset["href"].rpartition("/")[2]]}
        for name, asset in item["assets"].items()
        if asset["href"].rpartition("/")[2] in local
    }
    return item


def recorded(real_data: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(real_data / "stac" / "items" / f"{name}.ndjson.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def catalogue(stac_api: StacApi, real_data: Path) -> Iterator[str]:
    """A real STAC API server that holds the real items."""
    sentinel = {item["id"]: item for item in recorded(real_data, "sentinel-2-l2a__earth-search-v1")}
    landsat = {
        (item["collection"], item["id"]): item
        for name in ("landsat-c2l1__landsatlook", "landsat-c2l2-sr__landsatlook")
        for item in recorded(real_data, name)
    }
    sentinel[SENTINEL] = sentinel_item(real_data)
    landsat["landsat-c2l2-sr", LANDSAT] = landsat_item(real_data)
    stac_api.clear()
    stac_api.load([], [*sentinel.values(), *landsat.values()])
    yield stac_api.url
    stac_api.clear()


@pytest.fixture(scope="module")
def real_chain(real_data: Path, catalogue: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The pipeline on the real grid and the real WorldCover folder; samples are taken, not drawn."""
    folder = tmp_path_factory.mktemp("real")
    # The Landsat scene is all cloud and has a margin of nodata in its one chip: limits that let it through.
    recipe = recipe_with(
        folder,
        ("years = [2021, 2023]\nyears_per_location = 2", "years = [2020, 2020]\nyears_per_location = 1"),
        ("years = [2021, 2023]\nyears_per_location = 1", "years = [2020, 2020]\nyears_per_location = 1"),
        ("max_cloud_cover = 75\nmin_sun_elevation", "max_cloud_cover = 100\nmin_sun_elevation"),
        ("max_chip_nodata = 0.0", "max_chip_nodata = 1.0"),
    )
    with instance_in(folder) as instance:
        definitions = build_definitions(
            storage=str(folder / "clay"),
            recipe=str(recipe),
            mgrs_grid=str(real_data / "s2_grid" / "S2_tiling_grid_kml.zip"),
            mgrs_sample=str(folder / "sample.gpkg"),
            worldcover=str(real_data / "worldcover"),
            stac_earth_search=catalogue,
            stac_usgs=catalogue,
        )
        chain = Chain(definitions, instance, str(folder / "clay"))
        result = chain.run("landcover")
        assert result.success, run_error(result)
        yield chain


def take(chain: Chain, sample: gpd.GeoDataFrame) -> None:
    """Publish a sample and let the chain take it."""
    path = Path(chain.clay.settings.mgrs_sample or "")
    path.unlink(missing_ok=True)
    sample.to_file(path, driver="GPKG", engine="pyogrio")
    result = chain.run("sampling", asset="mgrs_sample")
    assert result.success, run_error(result)


def ledger(chain: Chain, platform: str, year: int) -> pd.DataFrame:
    content = chain.clay.store().read(layout.request_ledger(platform, year))
    return pd.read_parquet(io.BytesIO(content)).set_index("request_id")


def test_the_official_grid_has_all_its_tiles(real_chain: Chain, real_data: Path) -> None:
    grid = real_chain.clay.table("mgrs_grid")
    published = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet")
    assert len(grid) == 56_686
    assert grid["name"].tolist() == sorted(published["name"])
    assert grid.geometry.is_valid.all()
    assert (grid.geometry.bounds["maxx"] - grid.geometry.bounds["minx"]).loc[grid.geom_type == "Polygon"].max() < 60


def test_land_cover_of_the_real_tile(real_chain: Chain) -> None:
    # Read off the overview of decimation 8 with numpy: pixel centres in the polygon, weighted by cos(latitude).
    stats = real_chain.clay.table("worldcover_stats").set_index("name")
    assert sorted(stats.index) == ["31NHA", "32NKF", "32NKG", "32NLG"]
    assert stats.loc["32NLG", "Tree cover"] == pytest.approx(0.03130510, abs=1e-6)
    assert stats.loc["32NLG", "Permanent water bodies"] == pytest.approx(0.96782173, abs=1e-6)
    assert stats.loc["32NKF", "Tree cover"] == pytest.approx(0.13880363, abs=1e-6)
    assert stats.loc["32NKF", "Built-up"] == pytest.approx(0.00236594, abs=1e-6)
    assert stats.loc[["32NLG", "32NKF"], "count"].tolist() == [7, 9]
    metadata = real_chain.metadata("worldcover_stats")
    counted = {name: metadata[name] for name in ("considered", "only_water", "decimation", "worldcover_tiles_read")}
    assert counted == {"considered": 56_686, "only_water": 4, "decimation": 8, "worldcover_tiles_read": 1}


def test_picks_for_the_published_sample(real_chain: Chain, real_data: Path) -> None:
    sample = gpd.read_file(real_data / "mgrs_sample" / "mgrs_sample_v0.gpkg")
    items = recorded(real_data, "sentinel-2-l2a__earth-search-v1")
    recorded_tiles = {item["properties"].get("grid:code", "").removeprefix("MGRS-").zfill(5) for item in items}
    has_items = sample["name"].isin(recorded_tiles)
    assert (len(sample), has_items.sum()) == (936, 6)
    sample = sample[has_items | (sample.index % EVERY == 0)]
    take(real_chain, sample)
    for job, partition in (("requests", "sentinel-2-l2a"), ("scenes", "sentinel-2-l2a|2020")):
        result = real_chain.run(job, partition)
        assert result.success, run_error(result)
    found = ledger(real_chain, "sentinel-2-l2a", 2020)
    assert len(found) == len(sample) * 4
    # By hand: of the recorded items of 2020, those whose tile is in the sample, at most 20 % nodata and 75 % cloud.
    best: dict[str, tuple[float, str]] = {}
    for item in items:
        properties = item["properties"]
        tile = properties.get("grid:code", "").removeprefix("MGRS-").zfill(5)
        nodata, cloud = properties.get("s2:nodata_pixel_percentage", 100), properties["eo:cloud_cover"]
        if tile in set(sample["name"]) and properties["datetime"].startswith("2020") and nodata <= 20 and cloud <= 75:
            quarter = (int(properties["datetime"][5:7]) + 2) // 3
            key = f"{tile}-2020-Q{quarter}"
            best[key] = min(best.get(key, (101.0, "")), (cloud, item["id"]))
    picked = found[found["outcome"] == "picked"]
    assert picked["item_id"].to_dict() == {key: item_id for key, (_, item_id) in best.items()}
    assert set(found["outcome"]) <= {"picked", "none"}


def test_two_real_scenes_from_sample_to_merged_index(real_chain: Chain, real_data: Path) -> None:
    grid = real_chain.clay.table("mgrs_grid")
    take(real_chain, grid[grid["name"].isin(["29RKH", LANDSAT_TILE])][["name", "geometry"]])
    for platform in ("sentinel-2-l2a", "landsat-c2l2-sr", "landsat-c2l1"):
        for job, partition in (("requests", platform), ("cell", f"{platform}|2020")):
            result = real_chain.run(job, partition)
            assert result.success, run_error(result)
            assert all(check.passed for check in result.get_asset_check_evaluations())
    sentinel, landsat = ledger(real_chain, "sentinel-2-l2a", 2020), ledger(real_chain, "landsat-c2l2-sr", 2020)
    assert sentinel["item_id"].dropna().to_dict() == {"29RKH-2020-Q1": SENTINEL}
    assert landsat["item_id"].dropna().to_dict() == {f"{LANDSAT_TILE}-2020-Q4": LANDSAT}
    assert ledger(real_chain, "landsat-c2l1", 2020)["reason"].unique().tolist() == ["no item in the catalogue"]
    key = layout.table("scene_imagery", "landsat-c2l2-sr", 2020)
    (item,) = decode_items(real_chain.clay.store().read(key), key)
    assert sorted(item["assets"]) == ["blue", "green", "nir08", "qa_pixel", "red", "swir16", "swir22"]

    assert real_chain.run("merge").success
    chips = open_index(real_chain.clay.store().uri(layout.MERGED)).to_table().to_pandas()
    assert chips.groupby("platform", observed=True).size().to_dict() == {"landsat-c2l2-sr": 1, "sentinel-2-l2a": 16}

    # By hand, from the files: 1098 px at 100 m hold 4 × 4 chips, each 128 px of the scene classification.
    with rasterio.open(real_data / "rasters" / "sentinel2_29RKH" / "SCL.tif") as source:
        scl = source.read(1)[:512, :512]
    cloud = np.isin(scl, [1, 3, 8, 9, 10]).reshape(4, 128, 4, 128).mean(axis=(1, 3)).astype(np.float32)
    table = chips[chips["item_id"] == SENTINEL].sort_values(["chip_index_y", "chip_index_x"])
    np.testing.assert_array_equal(table["cloud_cover_percentage"], cloud.ravel())
    assert (table["nodata_percentage"] == 0).all()

    with rasterio.open(real_data / "rasters" / "landsat_LC08_001062" / f"{LANDSAT}_QA_PIXEL.TIF") as source:
        qa = source.read(1)[:256, :256]
    (row,) = chips[chips["item_id"] == LANDSAT].itertuples()
    assert row.cloud_cover_percentage == np.float32(((qa >> 1 | qa >> 3 | qa >> 4) & 1).mean())
    assert row.nodata_percentage == np.float32((qa & 1).mean())
