"""Which scene each request gets, with both kinds of catalogue, compared with an independent answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.opening import open_catalogue
from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.quarters import QuarterlyOptions
from clay_assets.recipes import load_recipe
from clay_assets.scenes.picks import Picks, pick_scenes, rejections
from clay_assets.scenes.requests import requests_of
from clay_assets.scenes.rules import picks_as_requested
from clay_assets.stac import Item, as_stac_1_1
from clay_assets_tests.scenes.brute_force import Known, expected, plain
from clay_assets_tests.scenes.items import (
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL_2,
    failed_share,
    real_items,
    snapshot,
    without_links,
)
from clay_assets_tests.servers.stac_api import StacApi

ALL = (SENTINEL_2, LANDSAT_L1, LANDSAT_L2)
YEARS = range(2018, 2024)
QUARTERS = ("Q1", "Q2", "Q3", "Q4")


def every_year(platform: str, sample: gpd.GeoDataFrame, years: tuple[int, int]) -> tuple[gpd.GeoDataFrame, Any]:
    """Requests for all years of a span (a recipe would draw some), and their options."""
    options = PLATFORMS[platform].rules.options(years=years, years_per_location=years[1] - years[0] + 1)
    assert isinstance(options, QuarterlyOptions)
    return PLATFORMS[platform].rules.requests(sample, options, 42), options


def pick_all(platform: str, sample: gpd.GeoDataFrame, catalogue: Catalogue, years: tuple[int, int]) -> dict[int, Picks]:
    table, options = every_year(platform, sample, years)
    return {
        year: pick_scenes(PLATFORMS[platform], year, requests_of(table, year), catalogue, options)
        for year in range(years[0], years[1] + 1)
    }


def assert_both_pick_the_same(one: dict[int, Picks], other: dict[int, Picks]) -> None:
    for year in one:
        pd.testing.assert_frame_equal(one[year].ledger, other[year].ledger)
        assert [item["id"] for item in one[year].items] == [item["id"] for item in other[year].items]
        firsts, seconds = ([_as_written(item) for item in picks[year].items] for picks in (one, other))
        for first, second in zip(without_links(firsts), without_links(seconds), strict=True):
            assert _comparable(first) == _comparable(second)


def _as_written(item: Item) -> Item:
    """Restore the relative hrefs that one real item has: they depend on the catalogue's address."""
    place = next((link["href"].rpartition("/")[0] for link in item["links"] if link["rel"] == "self"), None)
    return {
        **item,
        "assets": {
            name: {**asset, "href": asset["href"].removeprefix(f"{place}/tests/")}
            for name, asset in item["assets"].items()
        },
    }


def _comparable(value: Any) -> Any:
    """Normalise for comparison: one format of times, lists for tuples, no fields without a value."""
    if isinstance(value, dict):
        return {name: _comparable(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_comparable(inner) for inner in value]
    if isinstance(value, str) and value[4:5] == "-" and value[10:11] == "T":
        return pd.Timestamp(value)
    return value


# --- the planet -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ALL)
def platform(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def snapshot_of(planet: Planet, platform: str) -> Catalogue:
    return open_catalogue(str(planet.earth_search if platform == SENTINEL_2 else planet.usgs), 8)


@pytest.fixture(scope="module")
def snapshot_picks(planet: Planet, planet_tiles: gpd.GeoDataFrame, platform: str) -> dict[int, Picks]:
    return pick_all(platform, planet_tiles, snapshot_of(planet, platform), (2018, 2023))


def test_every_request_of_the_planet_gets_the_scene_that_brute_force_finds(
    planet: Planet, planet_tiles: gpd.GeoDataFrame, platform: str, snapshot_picks: dict[int, Picks]
) -> None:
    tiles: dict[str, BaseGeometry] = dict(zip(planet_tiles["name"], planet_tiles.geometry, strict=True))
    wanted = [(tile, year, quarter) for tile in tiles for year in YEARS for quarter in QUARTERS]
    right = expected(platform, planet.items(platform), tiles, wanted)
    for year, picks in snapshot_picks.items():
        assert plain(picks.ledger) == plain(right[right["year"] == year])
        chosen = sorted(set(right.loc[right["year"] == year, "item_id"].dropna()))
        assert [item["id"] for item in picks.items] == chosen
        assert failed_share(picks) == 0
    outcomes = right["outcome"].value_counts()
    assert outcomes["picked"] > outcomes["none"] > 20


def test_every_kind_of_quarter_ends_as_it_was_made_to(
    planet: Planet, platform: str, snapshot_picks: dict[int, Picks]
) -> None:
    kinds = planet.quarters()
    family = "sentinel-2" if platform == SENTINEL_2 else "landsat"
    ledger = pd.concat([picks.ledger for picks in snapshot_picks.values()]).set_index("request_id")
    seen: dict[str, set[tuple[str, Any]]] = {}
    row: Any
    for row in kinds[kinds["family"] == family].itertuples():
        for tile in row.tiles:
            said: Any = ledger.loc[f"{tile}-{row.year}-Q{row.quarter}"]
            seen.setdefault(row.kind, set()).add((said["outcome"], None if pd.isna(said["reason"]) else said["reason"]))
    overcast = {("none", "2 × cloud cover above 75 %")}
    assert seen["empty"] == {("none", "no item in the catalogue")}
    assert seen["overcast"] == overcast
    assert seen["tie"] == {("picked", None)}
    if platform == SENTINEL_2:
        assert seen["only_wedge"] == {("none", "1 × nodata above 20 %")}
        assert seen["wedge_least_cloudy"] == {("picked", None)}
    else:
        night = "sun below 0°" if platform == LANDSAT_L1 else None  # night scenes are not processed to level 2
        assert seen["only_night"] == {("none", f"1 × {night}" if night else "no item in the catalogue")}
        assert seen["unknown_cloud"] == seen["landsat_7_least_cloudy"] == {("picked", None)}


def test_one_scene_for_two_tiles_is_taken_once_and_both_are_in_the_ledger(
    platform: str, snapshot_picks: dict[int, Picks]
) -> None:
    shared = 0
    for picks in snapshot_picks.values():
        ids = [item["id"] for item in picks.items]
        assert ids == sorted(set(ids))
        asked = picks.ledger.groupby("item_id")["location"].nunique()
        shared += int((asked > 1).sum())
        assert set(asked.index) == set(ids)
    assert shared == 0 if platform == SENTINEL_2 else shared > 10


def test_the_items_are_whole_and_of_today(platform: str, snapshot_picks: dict[int, Picks], planet: Planet) -> None:
    source = {item["id"]: item for item in planet.items(platform)}
    for picks in snapshot_picks.values():
        for item in picks.items:
            meant = as_stac_1_1(PLATFORMS[platform].read_item(source[item["id"]]))
            assert set(item["assets"]) == set(PLATFORMS[platform].asset_names)
            assert _comparable(without_links([item])) == _comparable(without_links([meant]))


def test_the_api_picks_the_same(
    planet_api: StacApi, planet_tiles: gpd.GeoDataFrame, platform: str, snapshot_picks: dict[int, Picks]
) -> None:
    found = pick_all(platform, planet_tiles, open_catalogue(planet_api.url, 8), (2018, 2023))
    assert_both_pick_the_same(found, snapshot_picks)
    assert sum(len(picks.items) for picks in found.values()) > 50


def test_a_cell_with_nothing_to_do(planet: Planet, platform: str) -> None:
    picks = pick_scenes(
        PLATFORMS[platform], 2012, [], snapshot_of(planet, platform), PLATFORMS[platform].rules.options()
    )
    assert picks.items == []
    assert len(picks.ledger) == 0
    assert failed_share(picks) == 0
    assert picks.ledger.columns.tolist() == (
        [
            "request_id",
            "platform",
            "location",
            "year",
            "period",
            "outcome",
            "reason",
            "candidates",
            "rejected",
            "item_id",
            "cloud_cover",
        ]
    )


def test_the_recipe_s_limits_decide(planet: Planet, planet_tiles: gpd.GeoDataFrame) -> None:
    platform = PLATFORMS[SENTINEL_2]
    table = platform.rules.requests(planet_tiles, load_recipe("clay_v1").options(SENTINEL_2), 42)
    options = platform.rules.options(max_cloud_cover=10, max_scene_nodata=0)
    picks = pick_scenes(platform, 2020, requests_of(table, 2020), snapshot_of(planet, SENTINEL_2), options)
    taken = picks.ledger[picks.ledger["outcome"] == "picked"]
    assert len(taken)
    assert (taken["cloud_cover"] <= 10).all()
    reasons = {reason for text in picks.ledger["rejected"] for reason in json.loads(text)}
    assert {"cloud cover above 10 %", "nodata above 0 %"} <= reasons


# --- errors -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(planet: Planet, planet_tiles: gpd.GeoDataFrame) -> Picks:
    """Sentinel-2 of 2020."""
    return pick_all(SENTINEL_2, planet_tiles, snapshot_of(planet, SENTINEL_2), (2020, 2020))[2020]


def picks_with(
    planet: Planet, tiles: gpd.GeoDataFrame, catalogue: Catalogue | None = None, /, **rules: Any
) -> tuple[Picks, gpd.GeoDataFrame]:
    """The same cell with some rules replaced, and its requests."""
    one = PLATFORMS[SENTINEL_2]
    table, options = every_year(SENTINEL_2, tiles, (2020, 2020))
    platform = replace(one, rules=replace(one.rules, **rules))
    catalogue = catalogue or snapshot_of(planet, SENTINEL_2)
    return pick_scenes(platform, 2020, requests_of(table, 2020), catalogue, options), table


@pytest.mark.parametrize("rule", ["refuse", "rank"])
def test_a_typo_in_a_rule_fails_every_request_that_meets_an_item(
    planet: Planet, planet_tiles: gpd.GeoDataFrame, sound: Picks, rule: str
) -> None:
    found, _ = picks_with(planet, planet_tiles, **{rule: lambda item, *_: item["properties"]["eo:cloud_covr"]})
    ledger = found.ledger
    assert found.items == []
    met = sound.ledger["candidates"] > 0 if rule == "refuse" else sound.ledger["outcome"] == "picked"
    assert (ledger["outcome"] == "failed").tolist() == met.tolist()
    assert ledger["candidates"].tolist() == sound.ledger["candidates"].tolist()
    said = rf"sentinel-2-l2a: {rule} raised KeyError\('eo:cloud_covr'\) on item S2\w+\. Fix the platform's rule\."
    assert ledger.loc[met, "reason"].str.fullmatch(said).all()
    others = ~met & (sound.ledger["candidates"] == 0)
    assert set(ledger.loc[others, "reason"]) == {"no item in the catalogue"}


def test_a_rule_that_fails_on_one_item_fails_the_requests_that_met_it_alone(
    planet: Planet, planet_tiles: gpd.GeoDataFrame, sound: Picks
) -> None:
    bad, refuse = sound.items[0]["id"], PLATFORMS[SENTINEL_2].rules.refuse

    def refuse_unless_bad(item: dict[str, Any], *others: Any) -> str | None:
        return str(item["properties"]["no such"]) if item["id"] == bad else refuse(item, *others)

    found, table = picks_with(planet, planet_tiles, refuse=refuse_unless_bad)
    failed = found.ledger["outcome"] == "failed"
    assert found.ledger.loc[failed, "request_id"].tolist() == (
        sound.ledger.loc[sound.ledger["item_id"] == bad, "request_id"].tolist()
    )
    pd.testing.assert_frame_equal(found.ledger[~failed], sound.ledger[~failed])
    assert [item["id"] for item in found.items] == [item["id"] for item in sound.items[1:]]
    # The same rule in a later check: an earlier pick cannot be shown to be within the limits.
    one = PLATFORMS[SENTINEL_2]
    platform = replace(one, rules=replace(one.rules, refuse=refuse_unless_bad))
    options, asked = one.rules.options(), requests_of(table, 2020)
    broken = picks_as_requested(platform, 2020, asked, sound.ledger, sound.items, options)
    assert broken.numbers["refused"] == int(failed.sum())
    assert f"scene {bad} is refused: sentinel-2-l2a: refuse raised KeyError('no such') on item" in broken.violations[0]
    assert picks_as_requested(one, 2020, asked, sound.ledger, sound.items, options).ok


def test_items_of_another_type_are_refused_at_both_ends(
    stac_api: StacApi, planet: Planet, planet_tiles: gpd.GeoDataFrame, sound: Picks, tmp_path: Path
) -> None:
    items = [item for item in planet.items(SENTINEL_2) if item["properties"]["datetime"].startswith("2020")]
    odd = [
        {**item, "properties": {**item["properties"], "eo:cloud_cover": str(item["properties"]["eo:cloud_cover"])}}
        for item in items
    ]
    stac_api.clear()
    stac_api.load([], odd)
    ends = [open_catalogue(snapshot(tmp_path / "odd.parquet", odd), 8), open_catalogue(stac_api.url, 8)]
    one, other = (picks_with(planet, planet_tiles, end)[0].ledger for end in ends)
    stac_api.clear()
    pd.testing.assert_frame_equal(one, other)
    reason = "property eo:cloud_cover: text, expected a number"
    row: Any
    for row, before in zip(one.itertuples(), sound.ledger.itertuples(), strict=True):
        assert row.outcome == "none"
        assert json.loads(row.rejected) == ({reason: before.candidates} if before.candidates else {})


# --- real items -------------------------------------------------------------------------------------

REAL_TILES = ("13SCA", "13SCV", "13SDA", "13SDV", "31UDQ", "35UPU", "35UPV", "13TDE", "05CNL", "52HGH", "32TMS")
# Read from the items: the least cloudy one of the quarter with at most 20 % nodata.
LEAST_CLOUDY = {
    "13SCA-2020-Q2": ("S2B_13SCA_20200411_0_L2A", 0.672503),
    "13SCV-2020-Q2": ("S2B_13SCV_20200411_0_L2A", 1.038391),  # one with 0.16 % has 57 % nodata
    "13SDA-2020-Q2": ("S2B_13SDA_20200408_0_L2A", 1.940991),
    "13SDV-2020-Q2": ("S2A_13SDV_20200403_0_L2A", 0.946059),
    "13TDE-2023-Q4": ("S2A_13TDE_20231008_0_L2A", 0.000299),
    "31UDQ-2023-Q2": ("S2B_31UDQ_20230609_0_L2A", 39.944384),
    "32TMS-2022-Q4": ("S2A_32TMS_20221207_0_L2A", 8.418052),
}
# The same for Landsat level 2, by path and row of the scene, without scenes beyond the limits.
LANDSAT_TAKEN = {
    "005009-2015-Q3": "LC08_L2SP_005009_20150710_20200908_02_T2",
    "028030-2020-Q1": "LC08_L2SP_028030_20200114_20200824_02_T1_SR",
    "030034-2020-Q4": "LC08_L2SP_030034_20201111_20201212_02_T1",
    "047027-2020-Q4": "LC08_L2SP_047027_20201204_20210313_02_T1",
    "081119-2020-Q1": "LC08_L2SR_081119_20200101_20200823_02_T2",
    "084024-2016-Q1": "LC08_L2SR_084024_20160111_20201016_02_T1",
    "092068-2023-Q2": "LC09_L2SP_092068_20230607_20230609_02_T1_SR",
    "232122-2019-Q4": "LC08_L2SR_232122_20191218_20201023_02_T2",
}


@pytest.fixture(scope="module")
def real_sample(real_data: Path) -> gpd.GeoDataFrame:
    world = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet")
    return world.loc[world["name"].isin(REAL_TILES), ["name", "geometry"]].reset_index(drop=True)


@pytest.fixture(scope="module")
def landsat_sample(real_data: Path) -> gpd.GeoDataFrame:
    """A place in the middle of every real level-2 scene since 2013, named by its path and row."""
    found = {}
    for item in real_items(real_data, LANDSAT_L2):
        if item["properties"]["datetime"] >= "2013":
            point = Known.of(item).shape.representative_point()
            lon = point.x - 360 if point.x > 180 else point.x
            found[item["id"].split("_")[2]] = shapely.Point(lon, point.y).buffer(0.1)
    return gpd.GeoDataFrame({"name": list(found)}, geometry=list(found.values()), crs="EPSG:4326")


@pytest.fixture(scope="module")
def real_api(stac_api: StacApi, real_data: Path) -> Iterator[StacApi]:
    stac_api.clear()
    stac_api.load([], [item for collection in ALL for item in real_items(real_data, collection)])
    yield stac_api
    stac_api.clear()


@pytest.fixture(scope="module")
def real_snapshot(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("real")
    for collection in ALL:
        snapshot(folder / f"{collection}.parquet", [as_stac_1_1(item) for item in real_items(real_data, collection)])
    return str(folder)


@pytest.fixture(scope="module")
def real_sentinel_2(real_sample: gpd.GeoDataFrame, real_snapshot: str) -> dict[int, Picks]:
    return pick_all(SENTINEL_2, real_sample, open_catalogue(real_snapshot, 8), (2020, 2023))


@pytest.mark.slow
def test_real_sentinel_2_picks(
    real_data: Path, real_sample: gpd.GeoDataFrame, real_sentinel_2: dict[int, Picks]
) -> None:
    tiles = dict(zip(real_sample["name"], real_sample.geometry, strict=True))
    wanted = [(tile, year, quarter) for tile in tiles for year in range(2020, 2024) for quarter in QUARTERS]
    right = expected(SENTINEL_2, real_items(real_data, SENTINEL_2), tiles, wanted)
    ledger = pd.concat([real_sentinel_2[year].ledger for year in sorted(real_sentinel_2)])
    assert plain(ledger.sort_values("request_id")) == plain(right)
    taken = ledger[ledger["outcome"] == "picked"].set_index("request_id")
    picked = {name: (row["item_id"], row["cloud_cover"]) for name, row in taken.iterrows()}
    assert picked == LEAST_CLOUDY


def test_real_sentinel_2_api_picks_the_same(
    real_api: StacApi, real_sample: gpd.GeoDataFrame, real_sentinel_2: dict[int, Picks]
) -> None:
    found = pick_all(SENTINEL_2, real_sample, open_catalogue(real_api.url, 8), (2020, 2023))
    assert_both_pick_the_same(found, real_sentinel_2)


def test_real_landsat_picks_at_both_ends(
    real_data: Path, landsat_sample: gpd.GeoDataFrame, real_snapshot: str, real_api: StacApi
) -> None:
    tiles = dict(zip(landsat_sample["name"], landsat_sample.geometry, strict=True))
    wanted = [(tile, year, quarter) for tile in tiles for year in range(2013, 2024) for quarter in QUARTERS]
    for collection, picked in ((LANDSAT_L2, LANDSAT_TAKEN), (LANDSAT_L1, {})):
        found = pick_all(collection, landsat_sample, open_catalogue(real_snapshot, 8), (2013, 2023))
        right = expected(collection, real_items(real_data, collection), tiles, wanted)
        ledger = pd.concat([found[year].ledger for year in sorted(found)])
        assert plain(ledger.sort_values("request_id")) == plain(right)
        taken = ledger[ledger["outcome"] == "picked"].set_index("request_id")["item_id"].to_dict()
        assert taken == picked
        assert_both_pick_the_same(
            pick_all(collection, landsat_sample, open_catalogue(real_api.url, 8), (2013, 2023)), found
        )


def test_reasons_are_one_row_each_for_candidates_and_requests() -> None:
    ledger = pd.DataFrame(
        [
            ("picked", None, '{"cloud cover above 75 %": 3}'),
            ("none", "2 × cloud cover above 75 %; 1 × night", '{"cloud cover above 75 %": 2, "night": 1}'),
            ("none", "no item in the catalogue", "{}"),
            ("none", "1 × cloud cover above 75 %", '{"cloud cover above 75 %": 1}'),
        ],
        columns=["outcome", "reason", "rejected"],
    )
    assert rejections(ledger) == [
        {"reason": "cloud cover above 75 %", "candidates refused": 6, "requests without a scene": 2},
        {"reason": "night", "candidates refused": 1, "requests without a scene": 1},
        {"reason": "no item in the catalogue", "candidates refused": 0, "requests without a scene": 1},
    ]
