"""One search per location, and the requests it becomes: real NAIP items in both kinds of catalogue."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.opening import open_catalogue
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.catalogues.stac_api import ApiCatalogue
from clay_assets.errors import SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.request_table import requests_in
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import Resolved, make_requests, requests_of, resolve_requests
from clay_assets.scenes.rules import some_search_finds
from clay_assets.stac import Item
from clay_assets_tests.platforms import factories
from clay_assets_tests.scenes.items import NAIP, real_items, snapshot, without_links
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.stac_api import StacApi

PLATFORM = PLATFORMS[NAIP]
SEARCH = "/search"
ATTEMPTS = 3
NOTHING = "mid-pacific"  # no image there
SINGLE = "florida"  # only images of 2019
PLACES = {
    "alabama": (-85.905986, 30.969000),  # 2011, 2013, … 2023
    SINGLE: (-80.656258, 26.968745),
    "idaho": (-116.031259, 48.968761),  # two images of 2023, from Idaho and from Montana
    NOTHING: (-150.0, 20.0),
    "new-york": (-77.6875115, 42.750025),  # two quads of 2022, on different days
    "pennsylvania": (-80.406235, 41.156251),
    "vermont-north": (-73.156233, 44.968756),  # 2014, 2016, 2018
    "vermont-south": (-73.156229, 43.968750),  # seven years
}
LATEST_OF_TWO = {  # determined by eye: the later day; on the same day the lower id
    "new-york": "ny_m_4207711_sw_18_060_20221126",
    "idaho": "id_m_4811608_ne_11_060_20231117_20240103",
}


def sample(places: dict[str, tuple[float, float]]) -> gpd.GeoDataFrame:
    points = [shapely.Point(where) for where in places.values()]
    return gpd.GeoDataFrame({"name": list(places)}, geometry=points, crs="EPSG:4326")


def searches(recipe: Recipe, places: dict[str, tuple[float, float]] = PLACES) -> gpd.GeoDataFrame:
    return make_requests(PLATFORM, sample(places), recipe)


def resolve(
    catalogue: Catalogue, recipe: Recipe | None = None, places: dict[str, tuple[float, float]] = PLACES
) -> Resolved:
    recipe = recipe or load_recipe("clay_v1")
    return resolve_requests(PLATFORM, searches(recipe, places), catalogue, recipe)


def by_hand(items: list[Item], first: int = 2010, last: int = 2023) -> dict[str, tuple[int, str | None]]:
    """Request → its year and its item, derived item by item from the rules as documented."""
    expected: dict[str, tuple[int, str | None]] = {}
    for name, where in PLACES.items():
        here: dict[int, list[Item]] = {}
        for item in items:
            year = int(item["properties"]["datetime"][:4])
            if first <= year <= last and shapely.from_geojson(json.dumps(item["geometry"])).intersects(
                shapely.Point(where)
            ):
                here.setdefault(year, []).append(item)
        if not here:
            expected[f"{name}-latest"] = last, None
            continue
        latest = max(here)
        chosen = {"latest": latest}
        if len(here) > 1:
            older = [year for year in here if year != latest]
            chosen["older"] = min(older, key=lambda year: hash_of(42, "naip", name, year))
        for which, year in chosen.items():
            ordered = sorted(here[year], key=lambda item: item["id"])
            newest = max(item["properties"]["datetime"] for item in ordered)
            best = next(item for item in ordered if item["properties"]["datetime"] == newest)
            expected[f"{name}-{which}"] = year, best["id"]
    return expected


def hash_of(*names: str | int) -> bytes:
    return hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()


def made_item(item_id: str, asset: str = "image") -> Item:
    place = shapely.Point(PLACES["alabama"]).buffer(0.03)
    return factories.item(item_id, NAIP, "2021-11-03T16:00:00Z", [asset], place)


def test_a_catalogue_whose_every_image_is_refused_is_found(tmp_path: Path) -> None:
    """The ledger of a year would not show it: it only sees the items that the searches found."""
    name = "al_m_3008501_ne_16_030_20211103"
    renamed = resolve(SnapshotCatalogue(snapshot(tmp_path / "renamed.parquet", [made_item(name, "data")])))
    assert (renamed.candidates, dict(renamed.rejected)) == (1, {"without asset image": 1})
    assert some_search_finds(PLATFORM, renamed).violations == (
        "naip: none of 1 candidates of its searches is eligible (1 × without asset image)",
    )
    both = [made_item(name, "data"), made_item(f"{name}_20220114")]
    found = some_search_finds(PLATFORM, resolve(SnapshotCatalogue(snapshot(tmp_path / "both.parquet", both))))
    assert (found.ok, found.numbers) == (True, {"candidates": 2, "picked": 1})
    nowhere = resolve(SnapshotCatalogue(snapshot(tmp_path / "nowhere.parquet", [])), places={NOTHING: PLACES[NOTHING]})
    assert some_search_finds(PLATFORM, nowhere).ok


def years(found: Resolved) -> dict[str, int]:
    return dict(zip(found.requests["request_id"], found.requests["year"].tolist(), strict=True))


@pytest.fixture(scope="module")
def items(real_data: Path) -> list[Item]:
    return real_items(real_data, NAIP)


@pytest.fixture(scope="module")
def at_rest(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> SnapshotCatalogue:
    return SnapshotCatalogue(snapshot(tmp_path_factory.mktemp("naip") / "items.parquet", items))


@pytest.fixture(scope="module")
def api(stac_api: StacApi, items: list[Item]) -> Iterator[StacApi]:
    stac_api.clear()
    stac_api.load([], items)
    yield stac_api
    stac_api.clear()


@pytest.fixture
def proxy(api: StacApi, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(api.url)


def online(url: str) -> ApiCatalogue:
    return ApiCatalogue(url, requests_in_flight=1, attempts=ATTEMPTS, back_off=0.02, timeout=(2, 5))


def asked(proxy: FaultProxy) -> int:
    return sum(seen.path.startswith(SEARCH) for seen in proxy.seen)


# --- both kinds of catalogue ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_snapshot_gives_what_the_rules_say(at_rest: SnapshotCatalogue, items: list[Item]) -> None:
    found = resolve(at_rest)
    expected = by_hand(items)
    assert years(found) == {name: year for name, (year, _) in expected.items()}
    assert {item["id"] for item in found.items} == {item_id for _, item_id in expected.values() if item_id}
    assert set(LATEST_OF_TWO.values()) <= {item["id"] for item in found.items}
    assert len(found.failures) == 0
    assert list(found.failures.columns) == ["location", "error"]


def test_an_api_gives_the_same_requests_and_items(
    at_rest: SnapshotCatalogue, proxy: FaultProxy, items: list[Item]
) -> None:
    here, there = resolve(at_rest), resolve(online(proxy.url))
    pd.testing.assert_frame_equal(pd.DataFrame(here.requests), pd.DataFrame(there.requests))
    assert without_links(here.items) == without_links(there.items)
    assert asked(proxy) == len(PLACES)  # one search per location, over all years
    whole = {item["id"]: item for item in items}
    for item in there.items:
        assert set(item["assets"]) == {"image"}
        assert item["assets"]["image"]["href"] == whole[item["id"]]["assets"]["image"]["href"]
        assert item["properties"]["naip:state"] == whole[item["id"]]["properties"]["naip:state"]
        assert item["properties"]["proj:shape"] == whole[item["id"]]["properties"]["proj:shape"]


def test_requests_are_within_one_year_and_say_what_they_are(at_rest: SnapshotCatalogue) -> None:
    found = resolve(at_rest).requests
    assert found["request_id"].is_unique
    assert found["request_id"].is_monotonic_increasing
    assert set(found["platform"]) == {"naip"}
    assert (found["request_id"] == found["location"] + "-" + found["period"]).all()
    assert (found["start"].dt.year == found["year"]).all()
    assert (found["end"] == pd.to_datetime((found["year"] + 1).astype(str) + "-01-01", utc=True)).all()
    assert set(found.loc[found["period"] == "latest", "draw"]) == {0}
    for row in found[found["period"] == "older"].itertuples():
        assert row.draw == int.from_bytes(hash_of(42, "naip", row.location, row.year), "big")
    points = dict(zip(found["location"], found.geometry, strict=True))
    assert {name: (point.x, point.y) for name, point in points.items()} == PLACES


def test_a_location_without_images_and_one_of_a_single_year(at_rest: SnapshotCatalogue) -> None:
    found = years(resolve(at_rest, places={name: PLACES[name] for name in (NOTHING, SINGLE)}))
    assert found == {f"{NOTHING}-latest": 2023, f"{SINGLE}-latest": 2019}


@pytest.mark.slow
def test_the_picks_are_made_from_what_was_found(at_rest: SnapshotCatalogue, items: list[Item], tmp_path: Path) -> None:
    found = resolve(at_rest)
    kept = SnapshotCatalogue(snapshot(tmp_path / "found.parquet", found.items))
    picked = {}
    for year in range(2010, 2024):
        asked = requests_of(found.requests, year)
        picks = pick_scenes(PLATFORM, year, asked, kept, load_recipe("clay_v1").options("naip"))
        row: Any
        for row in picks.ledger.itertuples():
            picked[row.request_id] = year, None if pd.isna(row.item_id) else row.item_id
            reason = "no item in the catalogue" if row.location == NOTHING else None
            assert row.reason == reason if reason else pd.isna(row.reason)
        assert {item["id"] for item in picks.items} == set(picks.ledger["item_id"].dropna())
    assert picked == by_hand(items)


def test_years_outside_the_recipe_are_not_searched(
    at_rest: SnapshotCatalogue, items: list[Item], proxy: FaultProxy
) -> None:
    recipe = load_recipe("clay_v1")
    narrow = recipe.options("naip").model_copy(update={"years": (2012, 2018)})
    recipe = recipe.model_copy(update={"platforms": {**recipe.platforms, "naip": narrow}})
    expected = by_hand(items, 2012, 2018)
    for catalogue in (at_rest, online(proxy.url)):
        found = resolve(catalogue, recipe)
        assert years(found) == {name: year for name, (year, _) in expected.items()}
        assert {item["id"] for item in found.items} == {item_id for _, item_id in expected.values() if item_id}
    assert years(found)[f"{SINGLE}-latest"] == 2018  # its images are of 2019
    assert min(years(found).values()) >= 2012


def test_row_order_and_one_more_location_change_nothing(at_rest: SnapshotCatalogue) -> None:
    whole = resolve(at_rest)
    backwards = resolve(at_rest, places=dict(reversed(PLACES.items())))
    pd.testing.assert_frame_equal(pd.DataFrame(whole.requests), pd.DataFrame(backwards.requests))
    assert whole.items == backwards.items
    fewer = resolve(at_rest, places={name: where for name, where in PLACES.items() if name != "vermont-south"})
    kept = whole.requests[whole.requests["location"] != "vermont-south"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(kept), pd.DataFrame(fewer.requests))


def test_neighbours_that_get_one_image_keep_it_once(at_rest: SnapshotCatalogue) -> None:
    longitude, latitude = PLACES[SINGLE]
    found = resolve(at_rest, places={"here": (longitude, latitude), "there": (longitude + 0.001, latitude)})
    assert years(found) == {"here-latest": 2019, "there-latest": 2019}
    assert len(found.items) == 1


def test_no_locations_ask_nobody(proxy: FaultProxy) -> None:
    found = resolve(online(proxy.url), places={})
    assert (len(found.requests), found.items, len(found.failures)) == (0, [], 0)
    assert requests_in(found.requests) == []
    assert proxy.total == 0


def test_progress_counts_the_locations(at_rest: SnapshotCatalogue) -> None:
    recipe, seen = load_recipe("clay_v1"), []
    resolve_requests(PLATFORM, searches(recipe), at_rest, recipe, lambda done, total: seen.append((done, total)))
    assert seen == [(number, len(PLACES)) for number in range(1, len(PLACES) + 1)]


# --- errors -----------------------------------------------------------------------------------------


def test_searches_that_fail_are_listed_and_touch_no_other(at_rest: SnapshotCatalogue, proxy: FaultProxy) -> None:
    catalogue = online(proxy.url)
    first, second = sorted(PLACES)[:2]
    proxy.answer(503, times=ATTEMPTS, path=SEARCH)
    proxy.answer(400, times=1, path=SEARCH, body=b'{"description": "no such field"}')
    found = resolve(catalogue)
    assert found.failures["location"].tolist() == [first, second]
    assert "too many 503" in found.failures["error"][0]
    assert "no such field" in found.failures["error"][1]
    whole = resolve(at_rest)
    kept = whole.requests[~whole.requests["location"].isin([first, second])].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(kept), pd.DataFrame(found.requests))
    assert asked(proxy) == len(PLACES) + ATTEMPTS - 1


def test_a_search_that_fails_in_passing_is_tried_again(at_rest: SnapshotCatalogue, proxy: FaultProxy) -> None:
    proxy.answer(503, times=1, path=SEARCH)
    proxy.truncate(times=1, path=SEARCH)
    found = resolve(online(proxy.url))
    assert len(found.failures) == 0
    assert without_links(found.items) == without_links(resolve(at_rest).items)


def answer(features: list[Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": features, "links": []}).encode()


def test_an_item_that_is_not_valid_is_named_with_its_location(tmp_path: Path, items: list[Item]) -> None:
    item = next(one for one in items if one["id"] == "fl_m_2608003_ne_17_060_20191215_20200113")
    path = snapshot(tmp_path / "items.parquet", [item])
    table = pq.read_table(path)
    kinds = pa.array(["Collection"])  # not checked before the item is picked
    pq.write_table(table.set_column(table.schema.get_field_index("type"), "type", kinds), path)
    found = resolve(open_catalogue(path, 8), places={SINGLE: PLACES[SINGLE]})
    assert found.failures["location"].tolist() == [SINGLE]
    assert f"{item['id']}: invalid item (type is 'Collection')" in found.failures["error"][0]
    assert found.items == []


def test_items_that_cannot_be_taken_give_no_year(proxy: FaultProxy, items: list[Item]) -> None:
    item = next(one for one in items if one["id"] == "fl_m_2608003_ne_17_060_20191215_20200113")
    broken = [
        {**item, "id": "bare", "assets": {}, "properties": {"datetime": "2021-01-01T00:00:00Z"}},
        {**item, "id": "timeless", "properties": {"datetime": "one day"}},
        {**item, "id": "late", "properties": {"datetime": "2024-01-01T00:00:00Z"}},
    ]
    proxy.answer(200, times=1, path=SEARCH, body=answer([*broken, item]))
    found = resolve(online(proxy.url), places={SINGLE: PLACES[SINGLE]})
    assert years(found) == {f"{SINGLE}-latest": 2019}
    assert [one["id"] for one in found.items] == [item["id"]]
    assert len(found.failures) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("refuse", r"naip: refuse raised KeyError\('gone'\) on item \w+\. Fix the platform's rule\."),
        ("rank", r"naip: rank raised KeyError\('gone'\) on item \w+\. Fix the platform's rule\."),
        ("resolve", r"naip: resolve raised KeyError\('gone'\) on the items of request idaho\. Fix .*"),
    ],
)
def test_a_rule_that_raises_fails_its_location_alone(at_rest: SnapshotCatalogue, rule: str, said: str) -> None:
    sound = getattr(PLATFORM.rules, rule)
    montana = shapely.Point(PLACES["idaho"])

    def raises_in_idaho(*arguments: Any) -> Any:
        request = arguments[0] if rule == "resolve" else arguments[1]
        if request.geometry == montana:
            raise KeyError("gone")
        return sound(*arguments)

    changes: dict[str, Any] = {rule: raises_in_idaho}
    platform = replace(PLATFORM, rules=replace(PLATFORM.rules, **changes))
    recipe = load_recipe("clay_v1")
    found = resolve_requests(platform, searches(recipe), at_rest, recipe)
    assert found.failures["location"].tolist() == ["idaho"]
    assert re.fullmatch(said, found.failures["error"][0])
    whole = resolve(at_rest)
    kept = whole.requests[whole.requests["location"] != "idaho"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(kept), pd.DataFrame(found.requests))
    assert {item["id"] for item in whole.items} - {item["id"] for item in found.items} >= {LATEST_OF_TWO["idaho"]}


def test_a_catalogue_that_does_not_answer_at_all_is_an_error(proxy: FaultProxy) -> None:
    proxy.garbage(times=None)
    with pytest.raises(SourceError, match="did not answer as a STAC API"):
        resolve(online(proxy.url))
