"""An excluded scene is never picked: the next best one is, in every catalogue, by columns or item by item."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.catalogues.stac_api import ApiCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.recipes import load_recipe
from clay_assets.recipes.exclusions import Exclusion
from clay_assets.scenes.picks import Picks, excluded_candidates, pick_scenes, rejections
from clay_assets.scenes.requests import resolve_requests
from clay_assets.scenes.rules import picks_as_requested
from clay_assets_tests.catalogues.test_columns import assert_same, hostile_items, item_by_item, requests
from clay_assets_tests.scenes.items import SENTINEL_2, Properties, sentinel_2_item, snapshot
from clay_assets_tests.scenes.test_resolve import made_item, searches
from clay_assets_tests.servers.stac_api import StacApi

PLATFORM = PLATFORMS[SENTINEL_2]
OLD, NEW = "S2A_32NLG_20200301_0_L2A", "S2A_32NLG_20200301_1_L2A"  # two processings of one acquisition
ITEMS = [
    sentinel_2_item("S2A_32NLG_20200201_0_L2A", "2020-02-01T10:00:00Z", 5.0),
    sentinel_2_item("S2A_32NLG_20200211_0_L2A", "2020-02-11T10:00:00Z", 7.0),
    sentinel_2_item("S2A_32NLG_20200221_0_L2A", "2020-02-21T10:00:00Z", 90.0),
    sentinel_2_item(OLD, "2020-03-01T10:00:00Z", 6.0, **Properties({"s2:processing_baseline": "02.14"})),
    sentinel_2_item(NEW, "2020-03-01T10:00:00Z", 9.0, **Properties({"s2:processing_baseline": "05.00"})),
    # Not decided by columns: its cloud cover is text.
    sentinel_2_item("S2B_32NLG_20200305_0_L2A", "2020-03-05T10:00:00Z", "3"),  # type: ignore[arg-type]
]
BEST, SECOND, CLOUDY = (item["id"] for item in ITEMS[:3])
REQUEST = Request(
    "32NLG-2020-Q1",
    "32NLG",
    "Q1",
    *quarter_bounds(2020, 1),
    shapely.box(6.2, 0.2, 6.8, 0.8),
    ({"grid:code": "MGRS-32NLG"},),
)


@pytest.fixture(scope="module")
def api(stac_api: StacApi) -> Iterator[StacApi]:
    stac_api.clear()
    stac_api.load([], ITEMS)
    yield stac_api
    stac_api.clear()


@pytest.fixture(params=["columns", "item by item", "API"])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[AnyPlatform, Catalogue]:
    if request.param == "API":
        return PLATFORM, ApiCatalogue(request.getfixturevalue("api").url, requests_in_flight=1)
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "items.parquet", ITEMS))
    return PLATFORM if request.param == "columns" else item_by_item(PLATFORM), catalogue


def pick(ways: tuple[AnyPlatform, Catalogue], excluded: dict[str, str]) -> Picks:
    platform, catalogue = ways
    return pick_scenes(platform, 2020, [REQUEST], catalogue, PLATFORM.rules.options(), excluded=excluded)


def test_the_next_best_is_taken_and_the_ledger_tells(ways: tuple[AnyPlatform, Catalogue]) -> None:
    assert pick(ways, {}).items[0]["id"] == BEST
    picks = pick(ways, {BEST: "haze", CLOUDY: "stripes", "not there": "never seen"})
    (row,) = picks.ledger.to_dict("records")
    assert ([item["id"] for item in picks.items], row["outcome"]) == ([SECOND], "picked")
    told = json.loads(row["rejected"])
    assert told[f"{BEST} is excluded: haze"] == 1
    assert told[f"{CLOUDY} is excluded: stripes"] == 1  # not "cloud cover above 75 %"
    assert excluded_candidates(picks.ledger, {BEST: "haze", CLOUDY: "stripes"}) == 2
    assert {"reason": f"{BEST} is excluded: haze", "candidates refused": 1, "requests without a scene": 0} in (
        rejections(picks.ledger)
    )


@pytest.mark.slow
def test_an_excluded_processing_stands_for_nothing(ways: tuple[AnyPlatform, Catalogue]) -> None:
    others = {BEST: "haze", SECOND: "haze"}
    assert pick(ways, others).items[0]["id"] == NEW
    assert pick(ways, {**others, NEW: "shifted"}).items[0]["id"] == OLD
    assert pick(ways, {**others, OLD: "shifted"}).items[0]["id"] == NEW


def test_a_request_whose_every_candidate_is_excluded_gets_none(ways: tuple[AnyPlatform, Catalogue]) -> None:
    picks = pick(ways, {item["id"]: "the sensor was broken" for item in ITEMS})
    (row,) = picks.ledger.to_dict("records")
    assert (picks.items, row["outcome"]) == ([], "none")
    assert f"1 × {BEST} is excluded: the sensor was broken" in row["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(PLATFORMS))
def test_columns_say_the_same_of_hostile_items(key: str, tmp_path: Path) -> None:
    items = list(hostile_items(key, 140, 0, mixed=True))
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "hostile.parquet", items))
    platform, asked = PLATFORMS[key], requests(key)

    def picks(platform: AnyPlatform, excluded: dict[str, str]) -> Picks:
        return pick_scenes(platform, 2020, asked, catalogue, platform.rules.options(), excluded=excluded)

    picked = {item["id"] for item in picks(platform, {}).items}
    excluded = {
        name: "by hand" for name in [*sorted(picked), *(item["id"] for item in items[::3])] if isinstance(name, str)
    }
    found = picks(platform, excluded)
    assert_same(found, picks(item_by_item(platform), excluded))
    assert picked
    assert not {item["id"] for item in found.items} & set(excluded)


def test_what_was_picked_before_is_found_by_the_check(tmp_path: Path) -> None:
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "items.parquet", ITEMS))
    picks = pick((PLATFORM, catalogue), {})
    options = PLATFORM.rules.options()
    assert picks_as_requested(PLATFORM, 2020, [REQUEST], picks.ledger, picks.items, options).ok
    (said,) = picks_as_requested(
        PLATFORM, 2020, [REQUEST], picks.ledger, picks.items, options, {BEST: "haze"}
    ).violations
    assert said == f"request {REQUEST.id}: scene {BEST} is refused: {BEST} is excluded: haze"


def test_years_are_those_of_scenes_that_may_be_taken(tmp_path: Path) -> None:
    """NAIP's requests come from its searches, so the year of an excluded image is not requested."""
    names = ["al_m_3008501_ne_16_030_20211103", "al_m_3008501_ne_16_060_20191109"]
    items = [made_item(names[0]), made_item(names[1])]
    items[1]["properties"]["datetime"] = "2019-11-09T16:00:00Z"
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "naip.parquet", items))
    recipe = load_recipe("clay_v1")
    here = {"alabama": (-85.905986, 30.969000)}

    def years(excluded: tuple[Exclusion, ...]) -> dict[str, int]:
        changed = recipe.model_copy(update={"exclude": excluded})
        resolved = resolve_requests(PLATFORMS["naip"], searches(recipe, here), catalogue, changed)
        assert [item["id"] for item in resolved.items] == sorted(set(names) - {one.name for one in excluded})
        return dict(zip(resolved.requests["period"], resolved.requests["year"], strict=True))

    assert years(()) == {"latest": 2021, "older": 2019}
    assert years((Exclusion(platform="naip", scene=names[0], reason="a seam"),)) == {"latest": 2019}
