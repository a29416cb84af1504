"""Sentinel-1, NAIP, LINZ and MODIS on real input: every recorded item goes through the assets as Dagster runs them.

Expected values were worked out apart from our code, from the recorded items; where they come from stands beside them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

from clay_assets.chips.index import open_index
from clay_assets.definitions import build_definitions
from clay_assets.orchestration.failures import run_error
from clay_assets.runs.whole_chain import Step, run_steps
from clay_assets.stac import Item, as_stac_1_1
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stac_geoparquet import decode_items, encode_items
from clay_assets_tests.chain import Chain, instance_in

RECORDED = {
    "sentinel-1-rtc": "sentinel-1-rtc__planetary-computer",
    "naip": "naip__planetary-computer",
    "modis-09A1-061": "modis-09A1-061__stactools-examples",
}
NAIP_IMAGE = "al_m_3008501_ne_16_1_20110815_20111017"
TERRA = "MOD09A1.A2022033.h19v10.061"
SEED = 42  # of clay_v1
SHEETS_EACH = 12
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")


def recorded(real_data: Path, collection: str) -> list[Item]:
    """The real items of a collection, as the catalogue answered."""
    path = real_data / "stac" / "items" / f"{RECORDED[collection]}.ndjson.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def footprints(items: list[Item]) -> gpd.GeoDataFrame:
    """Id, time and outline of items."""
    return gpd.GeoDataFrame(
        {"id": [item["id"] for item in items], "time": [item["properties"]["datetime"] for item in items]},
        geometry=[shapely.geometry.shape(item["geometry"]) for item in items],
        crs="EPSG:4326",
    )


def clay_v1_with(folder: Path, *changes: tuple[str, str]) -> Path:
    """The built-in recipe with some of its text replaced, each where it stands once, as a file."""
    text = (resources.files("clay_assets.recipes") / "clay_v1.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


MONTHS = "years = [2018, 2023]\nmonths = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]"
CHANGES = (
    ("years = [2018, 2023]\nyears_per_location = 1\nquarters = [1, 2, 3, 4]\nquarters_per_year = 1",
     "years = [2024, 2024]\nyears_per_location = 1\nquarters = [1, 2, 3, 4]\nquarters_per_year = 4"),
    ('source = "planetary-computer"', 'source = "naip-analytic"'),
    ("max_scenes = 2000", f"max_scenes = {SHEETS_EACH}"),
    (MONTHS, "years = [2022, 2022]\nmonths = [1, 2]"),
    ('tiles = "computed"', 'tiles = "published"'),
)  # fmt: skip


@pytest.fixture(scope="module")
def snapshot(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real items as a STAC-GeoParquet snapshot, one file per collection; the two versions of NAIP's fit one."""
    folder = tmp_path_factory.mktemp("planetary_computer")
    for collection in RECORDED:
        to_parquet(parse_stac_items_to_arrow(recorded(real_data, collection)), folder / f"{collection}.parquet")
    return folder


@pytest.fixture(scope="module")
def nz_imagery(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static catalogue of the real collections, with the one real item in the place of every sheet's."""
    source, folder = real_data / "stac" / "linz", tmp_path_factory.mktemp("nz-imagery")
    sheet = folder / "item"
    sheet.write_bytes((source / "example_items" / "BC40_2000_2421.json").read_bytes())
    children = []
    for path in sorted(source.rglob("collection.json*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        here = folder / path.parent.relative_to(source)
        here.mkdir(parents=True)
        (here / "collection.json").write_bytes(content)
        for link in json.loads(content)["links"]:
            if link["rel"] == "item":
                os.link(sheet, here / link["href"])
        children.append({"rel": "child", "href": f"./{here.relative_to(folder).as_posix()}/collection.json"})
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "nz-imagery", "description": "", "links": children}
    (folder / "catalog.json").write_text(json.dumps(root), encoding="utf-8")
    return folder


NewChain = Callable[..., Chain]


@pytest.fixture(scope="module")
def real_chain_on(
    real_data: Path, snapshot: Path, nz_imagery: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewChain]:
    """Makes a chain on the real sources, in a storage of its own, by clay_v1 with changes; settings by keyword."""
    with ExitStack() as stack:

        def make(*changes: tuple[str, str], **settings: str) -> Chain:
            folder = tmp_path_factory.mktemp("real")
            instance = stack.enter_context(instance_in(folder))
            overrides: dict[str, Any] = {
                "storage": str(folder / "clay"),
                "recipe": str(clay_v1_with(folder, *changes)),
                "mgrs_grid": str(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet"),
                "worldcover": str(real_data / "worldcover"),
                "natural_earth": str(real_data / "natural_earth"),
                "linz_catalog": str(nz_imagery),
                "stac_planetary_computer": str(snapshot),
                **settings,
            }
            return Chain(build_definitions(**overrides), instance, overrides["storage"])

        yield make


@pytest.fixture(scope="module")
def chain(real_chain_on: NewChain) -> Chain:
    """The chain that most of these tests share: each of them works on a platform of its own."""
    return real_chain_on(*CHANGES)


def run(chain: Chain, job: str, partition: str | None = None, asset: str | None = None) -> dg.ExecuteInProcessResult:
    """Run one job, or one asset of it; it must succeed."""
    ((_, result),) = run_steps([Step(job, partition, asset)], chain.defs.resolve_job_def, chain.instance, "CRITICAL")
    assert result is not None
    assert result.success, run_error(result)
    return result


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [entry for entry in result.get_asset_check_evaluations() if entry.check_name == name]
    return found


def table(chain: Chain, key: str) -> pd.DataFrame:
    return decode(chain.clay.store().read(key), key)


def items_of(chain: Chain, asset: str, *partition: str | int) -> list[Item]:
    key = layout.table(asset, *partition)
    return decode_items(chain.clay.store().read(key), key)


def ledger(chain: Chain, platform: str, year: int) -> pd.DataFrame:
    return table(chain, layout.request_ledger(platform, year)).set_index("request_id")


# --- items ------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """An item without what its writers may choose: members that say nothing, and the notation of times."""
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, str) and TIME.match(value):
        return datetime.fromisoformat(value).astimezone(UTC)
    return value


@pytest.mark.slow
@pytest.mark.parametrize("collection", RECORDED)
def test_real_items_survive_a_table(real_data: Path, collection: str) -> None:
    items = [as_stac_1_1(item) for item in recorded(real_data, collection)]
    read = decode_items(encode_items(items, {}), collection)
    assert [item["id"] for item in read] == [item["id"] for item in items]
    for item, original, back in zip(items, recorded(real_data, collection), read, strict=True):
        assert plain(back) == plain(item)
        # Of what the catalogue said, the pipeline's part is as it was.
        assert back["geometry"] == original["geometry"]
        assert {n: a["href"] for n, a in back["assets"].items()} == {
            n: a["href"] for n, a in original["assets"].items()
        }
        lost = set(original["properties"]) - set(back["properties"]) - {"proj:epsg"}  # which is proj:code now
        assert {name for name in lost if original["properties"][name] is not None} == set()


def test_the_real_items_of_linz_survive_a_table(real_data: Path) -> None:
    path = real_data / "stac" / "linz" / "example_items" / "BC40_2000_2421.json"
    item = as_stac_1_1(json.loads(path.read_text()))
    (back,) = decode_items(encode_items([item], {}), "linz")
    assert plain(back) == plain(item)
    assert back["properties"]["start_datetime"] == "2021-12-01T11:00:00.000000Z"


# --- NAIP -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def naip_requests(chain: Chain, real_data: Path) -> gpd.GeoDataFrame:
    """Requests of the real sample, and of the middle of each real item, since few of the sample have one."""
    run(chain, "sampling", asset="naip_sample")
    sample = chain.clay.table("naip_sample")
    middles = footprints(recorded(real_data, "naip"))
    middles = gpd.GeoDataFrame(
        {"name": "middle-" + middles["id"], "layer": "random", "feature": ""},
        geometry=middles.representative_point(),
        crs="EPSG:4326",
    )
    both = pd.concat([sample, middles], ignore_index=True).sort_values("name", ignore_index=True)
    chain.clay.write_table(layout.table("naip_sample"), both)
    run(chain, "requests", "naip")
    found = table(chain, layout.table("scene_requests", "naip"))
    for year in sorted(found["year"].unique()):
        run(chain, "scenes", f"naip|{year}", "scene_picks")
    assert isinstance(found, gpd.GeoDataFrame)
    return found


@pytest.fixture(scope="module")
def naip_expected(chain: Chain, naip_requests: gpd.GeoDataFrame, real_data: Path) -> dict[str, tuple[int, str]]:
    """By hand: request id → year and item. Latest of the latest year, and latest of one older year, by lot."""
    sample, items = chain.clay.table("naip_sample"), footprints(recorded(real_data, "naip"))
    items["time"] = pd.to_datetime(items["time"])
    there = pd.DataFrame(sample.sjoin(items, predicate="intersects")[["name", "id", "time"]])
    there["year"] = there["time"].dt.year
    of_year = there.groupby(["name", "year"])
    latest = there[there["time"] == of_year["time"].transform("max")].groupby(["name", "year"])["id"].min()
    expected = {}
    for name, own in latest.reset_index().groupby("name"):
        found = {int(year): (int(year), str(item_id)) for year, item_id in zip(own["year"], own["id"], strict=True)}
        years = sorted(found)
        expected[f"{name}-latest"] = found[years.pop()]
        lots = {hashlib.blake2b(f"{SEED}\x1fnaip\x1f{name}\x1f{y}".encode(), digest_size=8).digest(): y for y in years}
        if lots:
            expected[f"{name}-older"] = found[lots[min(lots)]]
    return expected


@pytest.mark.slow
def test_naip_sample_of_the_real_layers(chain: Chain, naip_requests: gpd.GeoDataFrame) -> None:
    # Counted with geopandas, state by state, in the tests of sampling.natural_earth.
    sample = chain.clay.table("naip_sample")
    sample = sample[~sample["name"].str.startswith("middle-")]
    assert sample["layer"].value_counts().to_dict() == {
        "random": 4000, "populated_places": 659, "parks_point": 277, "rivers": 160, "airports": 121, "lakes": 113,
        "ports": 67, "parks_area": 47, "parks_line": 27,
    }  # fmt: skip
    assert len(sample) == 5471
    shown = str(chain.metadata("naip_sample")["layers"])
    assert "| rivers | ne_10m_rivers_lake_centerlines.parquet | 1455 | 1 | 0 | 0 | 160 |" in shown
    assert "| lakes | ne_10m_lakes.parquet | 1354 | 0 | 2 | 0 | 113 |" in shown


@pytest.mark.slow
def test_naip_requests_of_every_real_item(
    chain: Chain, naip_requests: gpd.GeoDataFrame, naip_expected: dict[str, tuple[int, str]]
) -> None:
    years = naip_requests.set_index("request_id")["year"].to_dict()
    assert len(years) == len(naip_requests)
    assert {name: years[name] for name in naip_expected} == {name: year for name, (year, _) in naip_expected.items()}
    without = set(years) - set(naip_expected)  # where there is no image, a request says so, in the last year searched
    assert {years[name] for name in without} == {2023}
    assert {name.removesuffix("-latest") for name in without} == {
        name for name in chain.clay.table("naip_sample")["name"] if f"{name}-latest" not in naip_expected
    }
    assert len(without) == 5471 - 34  # of the real sample 34 locations lie in a recorded item
    assert chain.metadata("scene_requests", "naip")["searches_made_now"] == 5471 + 716
    older = [name for name in naip_expected if name.endswith("-older")]
    assert len(older) > 100
    assert {naip_expected[name][0] for name in older} == {*range(2011, 2020), 2021}


def test_naip_picks_of_every_year(
    chain: Chain, naip_requests: gpd.GeoDataFrame, naip_expected: dict[str, tuple[int, str]]
) -> None:
    years = sorted(naip_requests["year"].unique())
    ledgers = pd.concat([ledger(chain, "naip", year) for year in years])
    assert sorted(ledgers.index) == sorted(naip_requests["request_id"])
    picked = ledgers[ledgers["outcome"] == "picked"]
    got = {name: (int(row.year), str(row.item_id)) for name, row in picked.iterrows()}
    assert got == naip_expected
    assert set(ledgers["outcome"]) == {"picked", "none"}
    assert set(ledgers.loc[ledgers["outcome"] == "none", "reason"]) == {"no item in the catalogue"}
    for year in years:
        ids = [item["id"] for item in items_of(chain, "scene_picks", "naip", year)]
        assert ids == sorted({item_id for when, item_id in naip_expected.values() if when == year})


def test_naip_items_are_whole_and_of_one_version(
    chain: Chain, naip_requests: gpd.GeoDataFrame, naip_expected: dict[str, tuple[int, str]], real_data: Path
) -> None:
    original = {item["id"]: item for item in recorded(real_data, "naip")}
    key = layout.search_results("naip")
    found = {item["id"]: item for item in decode_items(chain.clay.store().read(key), key)}
    assert set(found) == {item_id for _, item_id in naip_expected.values()}
    beta = [name for name in found if original[name]["stac_version"] == "1.0.0-beta.2"]
    assert beta
    for name, item in found.items():
        assert item["stac_version"] == "1.1.0"
        assert item["properties"]["proj:code"] == f"EPSG:{original[name]['properties']['proj:epsg']}"
        assert item["properties"]["gsd"] == original[name]["properties"]["gsd"]
        assert item["assets"]["image"]["href"] == original[name]["assets"]["image"]["href"]
        assert list(item["assets"]) == ["image"]


@pytest.mark.slow
def test_naip_images_are_read_from_the_bucket_that_the_recipe_names(
    chain: Chain, naip_requests: gpd.GeoDataFrame
) -> None:
    hrefs: dict[str, str] = {}
    for year in (2014, 2021, 2022):
        run(chain, "scenes", f"naip|{year}", "scene_imagery")
        items = items_of(chain, "scene_imagery", "naip", year)
        assert items
        hrefs |= {item["id"]: item["assets"]["image"]["href"] for item in items}
    # By eye, from the hrefs of the items.
    bucket = "s3://naip-analytic"
    assert hrefs["al_m_3008501_ne_16_030_20211103"] == (
        f"{bucket}/al/2021/30cm/rgbir_cog/30085/m_3008501_ne_16_030_20211103.tif"
    )
    assert hrefs["ny_m_4207719_ne_18_060_20221110"] == (
        f"{bucket}/ny/2022/60cm/rgbir_cog/42077/m_4207719_ne_18_060_20221110.tif"
    )
    assert hrefs["vt_m_4407316_nw_18_1_20140711_20141006"] == (
        f"{bucket}/vt/2014/100cm/rgbir_cog/44073/m_4407316_nw_18_1_20140711.tif"
    )
    assert all(href.startswith(f"{bucket}/") for href in hrefs.values())


@pytest.mark.slow
def test_the_real_naip_image_from_its_location_to_the_merged_index(
    real_chain_on: NewChain, real_data: Path, tmp_path: Path
) -> None:
    folder = real_data / "rasters" / "naip_m_3008501"
    item = json.loads((folder / f"{NAIP_IMAGE}.item.json").read_text())
    item["assets"]["image"]["href"] = str(folder / "m_3008501_ne_16_1_20110815.tif")
    with rasterio.open(item["assets"]["image"]["href"]) as source:  # the file is reduced
        grid = {"proj:shape": [source.height, source.width], "proj:transform": list(source.transform)[:6]}
    item["properties"] |= grid
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    to_parquet(parse_stac_items_to_arrow([item]), catalogue / "naip.parquet")
    # The official tiles here and those of the one real file of WorldCover; all of them are run in test_real_chain.
    official = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet")
    west, south = item["bbox"][:2]
    tiles = pd.concat([official.cx[west - 2 : west + 2, south - 2 : south + 2], official.cx[5:10, -1:4]])
    tiles.to_parquet(tmp_path / "tiles.parquet")
    chain = real_chain_on(stac_planetary_computer=str(catalogue), mgrs_grid=str(tmp_path / "tiles.parquet"))
    middle = footprints([item]).representative_point()
    point = gpd.GeoDataFrame({"name": ["here"], "layer": ["random"], "feature": [""]}, geometry=middle.array)
    chain.clay.write_table(layout.table("naip_sample"), point.set_crs("EPSG:4326"))
    for job, partition in (("landcover", None), ("requests", "naip"), ("cell", "naip|2011"), ("merge", None)):
        checks = run(chain, job, partition).get_asset_check_evaluations()
        assert {check.check_name for check in checks if not check.passed} <= {"reconciled", "shares_of_splits"}
    assert ledger(chain, "naip", 2011)["item_id"].to_dict() == {"here-latest": NAIP_IMAGE}
    (chip,) = open_index(chain.clay.store().uri(layout.MERGED)).to_table().to_pylist()
    assert chip["chipid"] == f"{NAIP_IMAGE}-0-0"
    assert (chip["cloud_cover_percentage"], chip["nodata_percentage"]) == (0, 0)
    assert (chip["landcover"], chip["landcover_class"]) == (None, None)  # the one real file is of another continent
    with rasterio.open(folder / "m_3008501_ne_16_1_20110815.tif") as source:
        outline = gpd.GeoSeries([shapely.box(*source.bounds)], crs=source.crs).to_crs("EPSG:4326").iloc[0]
        side = np.sqrt(source.res[0] * source.res[1])
    np.testing.assert_allclose(shapely.from_wkb(chip["geometry"]).bounds, outline.bounds, atol=1e-6)
    assert chip["gsd"] == pytest.approx(side, rel=2e-3)  # UTM's scale is within 0.1 % of true


# --- Sentinel-1 -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sentinel_1_takes_the_scene_that_overlaps_most(chain: Chain, real_data: Path) -> None:
    items = recorded(real_data, "sentinel-1-rtc")
    run(chain, "landcover", asset="mgrs_grid")
    grid = chain.clay.table("mgrs_grid")
    around = grid.cx[13.5:18, 29.5:36]
    chain.clay.write_table(layout.table("mgrs_sample"), around[["name", "geometry"]])
    run(chain, "requests", "sentinel-1-rtc")
    run(chain, "scenes", "sentinel-1-rtc|2024")
    found = ledger(chain, "sentinel-1-rtc", 2024)
    assert sorted(found.index) == sorted(
        f"{name}-2024-Q{quarter}" for name in around["name"] for quarter in (1, 2, 3, 4)
    )
    # By hand: areas in an equal-area projection of the Mediterranean (LAEA). All four are of 19 April.
    equal_area = "+proj=laea +lat_0=33 +lon_0=16"
    scenes = footprints(items).to_crs(equal_area)
    tiles = around.to_crs(equal_area).set_index("name").geometry
    areas = pd.DataFrame({scene.id: tiles.intersection(scene.geometry).area for scene in scenes.itertuples()})
    best = areas[areas.max(axis=1) > 0].idxmax(axis=1)
    assert len(best) == 26
    assert found["item_id"].dropna().to_dict() == {f"{name}-2024-Q2": item_id for name, item_id in best.items()}
    assert set(best) == {item["id"] for item in items}
    assert found.loc["33SWT-2024-Q2", "candidates"] == 2  # 55 % and 45 % of it
    assert set(found.loc[found["outcome"] == "none", "reason"]) == {"no item in the catalogue"}
    read = items_of(chain, "scene_imagery", "sentinel-1-rtc", 2024)
    assert [item["id"] for item in read] == sorted(item["id"] for item in items)
    unsigned = {item["id"]: {name: item["assets"][name]["href"] for name in ("vv", "vh")} for item in items}
    assert {item["id"]: {n: a["href"] for n, a in item["assets"].items()} for item in read} == unsigned


# --- MODIS ------------------------------------------------------------------------------------------


def published_tiles(real_data: Path) -> set[str]:
    lines = (real_data / "published" / "modis_sin_tiles.csv").read_text().split()
    pairs = [line.split(",") for line in lines if line[0].isdigit()]
    return {f"h{int(horizontal):02d}v{int(vertical):02d}" for vertical, horizontal in pairs}


@pytest.mark.slow
def test_modis_takes_terra_in_the_month_that_its_composite_starts_in(chain: Chain, real_data: Path) -> None:
    result = run(chain, "sampling", asset="modis_sample")
    assert check(result, "published_tiles").passed
    assert check(result, "no_failed_tiles").passed
    published = published_tiles(real_data)
    assert len(published) == 233
    assert set(chain.clay.table("modis_sample")["name"]) == published
    run(chain, "requests", "modis")
    result = run(chain, "scenes", "modis|2022")
    found = ledger(chain, "modis", 2022)
    assert sorted(found.index) == sorted(f"{name}-2022-M{month}" for name in published for month in ("01", "02"))
    # By eye: two items of one Terra composite that starts on 2 February, two of one of Aqua, 25 January.
    assert found["item_id"].dropna().to_dict() == {"h19v10-2022-M02": TERRA}
    assert found.loc["h19v10-2022-M02", "candidates"] == 2
    others = found.drop("h19v10-2022-M02")
    assert others["reason"].value_counts().to_dict() == {"no item in the catalogue": 464, "2 × not Terra": 1}
    assert others.loc["h09v08-2022-M01", "reason"] == "2 × not Terra"
    assert json.loads(others["rejected"]["h09v08-2022-M01"]) == {"not Terra": 2}

    # Its files are not here: one scene that fails is set aside, with its error.
    (item,) = items_of(chain, "scene_picks", "modis", 2022)
    assert item["properties"]["start_datetime"].startswith("2022-02-02T00:00:00")
    assert items_of(chain, "scene_imagery", "modis", 2022) == []
    row: Any
    (row,) = table(chain, layout.imagery_ledger("modis", 2022)).itertuples()
    assert (row.item_id, row.outcome) == (TERRA, "failed")
    assert "MOD09A1.A2022033.h19v10.061.2022042043514_sur_refl_b01.tif: file not found" in row.error
    assert not check(result, "no_failed_copies").passed


COMPUTED = (
    (MONTHS, "years = [2022, 2022]\nmonths = [1, 2]"),
    ("reference_date = 2023-09-22", "reference_date = 2022-02-05"),
)


@pytest.mark.slow
def test_a_modis_tile_that_cannot_be_read_is_named(real_chain_on: NewChain, real_data: Path) -> None:
    chain = real_chain_on(*COMPUTED)
    result = run(chain, "sampling", asset="modis_sample")
    failed = check(result, "no_failed_tiles")
    assert not failed.passed
    assert failed.metadata["failed"].value == 1
    shown = str(failed.metadata["failures"].value)
    assert "| h19v10 | ../../../../tests/data-files/external/MOD09A1.A2022033.h19v10.061.2022042043514" in shown
    assert "sur_refl_b01.tif: relative href without a base address" in shown
    differing = check(result, "published_tiles")
    assert not differing.passed
    assert differing.metadata["sampled_not_published"].value == "none"
    assert str(differing.metadata["published_not_sampled"].value).split(", ") == sorted(published_tiles(real_data))
    outcomes = chain.metadata("modis_sample")["outcomes"]
    assert outcomes == {"no item": chain.metadata("modis_sample")["tiles_on_the_earth"] - 1, "failed": 1}
    assert len(chain.clay.table("modis_sample")) == 0


@pytest.mark.slow
def test_modis_tiles_that_cannot_be_read_stop_the_run_where_none_may(real_chain_on: NewChain) -> None:
    chain = real_chain_on(*COMPUTED, ("failed_requests = 0.01", "failed_requests = 0"))
    step = Step("sampling", asset="modis_sample")
    ((_, result),) = run_steps([step], chain.defs.resolve_job_def, chain.instance, "CRITICAL")
    assert result is not None
    assert not result.success
    said = run_error(result)
    assert "modis_sample: 1 tiles failed" in said
    assert "MOD09A1.A2022033.h19v10.061.2022042043514_sur_refl_b01.tif: relative href without a base" in said
    assert not chain.clay.store().exists(layout.table("modis_sample"))


# --- LINZ -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_linz_sheets_of_the_real_surveys(chain: Chain, real_data: Path) -> None:
    result = run(chain, "sampling", asset="linz_sample")
    listed = (real_data / "published" / "linz_surveys.txt").read_text().split()
    there = {
        "/".join(p.relative_to(real_data / "stac" / "linz").parts[:2]) for p in real_data.rglob("collection.json*")
    }
    surveys = [name for name in listed if name in there]
    assert len(surveys) == 6
    warned = check(result, "surveys_found")
    assert not warned.passed
    assert warned.severity == dg.AssetCheckSeverity.WARN
    assert str(warned.metadata["surveys_absent"].value).split(", ") == [name for name in listed if name not in there]
    assert check(result, "no_failed_sheets").passed
    sample = chain.clay.table("linz_sample")
    assert (sample["linz:region"] + "/" + sample["linz:survey"]).value_counts().to_dict() == dict.fromkeys(
        surveys, SHEETS_EACH
    )

    # The one real item was flown from December 2021 to 2022: all its sheets are of 2021.
    run(chain, "requests", "linz")
    requests = table(chain, layout.table("scene_requests", "linz"))
    assert sorted(requests["request_id"]) == sorted(sample["id"])
    assert set(requests["year"]) == {2021}
    assert requests.geometry.within(sample.geometry.iloc[0]).all()
    run(chain, "scenes", "linz|2021", "scene_picks")
    found = ledger(chain, "linz", 2021)
    assert found["item_id"].to_dict() == {name: name for name in sample["id"]}
    assert set(found["candidates"]) == {6 * SHEETS_EACH}  # they share one outline here
    assert sorted(item["id"] for item in items_of(chain, "scene_picks", "linz", 2021)) == sorted(sample["id"])
