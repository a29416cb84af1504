"""One search for the quarters of a tile: the same answers as by separate searches, and none is lost if it fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import pytest
import shapely

from clay_assets.catalogues.stac_api import PAGE_SIZE, ApiCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.scenes.picks import Picks, pick_scenes
from clay_assets.stac import Item
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.stac_api import StacApi

PLATFORM = PLATFORMS[SENTINEL_2]
SEARCH, ATTEMPTS, QUARTERS = "/search", 2, (1, 2, 3, 4)
DAYS = {1: "2020-02-01", 2: "2020-04-01", 3: "2020-09-30", 4: "2020-12-31"}


@pytest.fixture(scope="module")
def api(stac_api: StacApi) -> Iterator[StacApi]:
    """One item per quarter of 2020 for 32NLG, the first two at the edges of their quarters; none for 33NLG."""
    stac_api.clear()
    stac_api.load([], [sentinel_2_item(f"Q{quarter}", f"{day}T00:00:00Z") for quarter, day in DAYS.items()])
    yield stac_api
    stac_api.clear()


@pytest.fixture
def proxy(api: StacApi, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(api.url)


def request(quarter: int, tile: str = "32NLG") -> Request:
    codes = ({"grid:code": f"MGRS-{tile}"},)
    place = shapely.box(6.2, 0.2, 6.8, 0.8)
    return Request(f"{tile}-Q{quarter}", tile, f"Q{quarter}", *quarter_bounds(2020, quarter), place, codes)


def pick(proxy: FaultProxy, requests: list[Request]) -> Picks:
    one = ApiCatalogue(proxy.url, requests_in_flight=1, attempts=ATTEMPTS, back_off=0.02, timeout=(2, 5))
    return pick_scenes(PLATFORM, 2020, requests, one, PLATFORM.rules.options())


def searches(proxy: FaultProxy) -> int:
    return sum(seen.path.startswith(SEARCH) for seen in proxy.seen)


def answer(items: list[Item], **told: Any) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": items, "links": [], **told}).encode()


ALL = [request(quarter) for quarter in QUARTERS]
PICKED = ["Q1", "Q2", "Q3", "Q4"]


def test_the_quarters_of_a_tile_are_one_search(proxy: FaultProxy) -> None:
    together = pick(proxy, ALL)
    assert together.ledger["item_id"].tolist() == PICKED
    assert searches(proxy) == 1
    alone = [pick(proxy, [one]).ledger for one in ALL]
    pd.testing.assert_frame_equal(pd.concat(alone, ignore_index=True), together.ledger)


def test_only_what_follows_one_another_at_one_place_is(proxy: FaultProxy) -> None:
    picks = pick(proxy, [request(1), request(3), request(4), request(1, "33NLG"), request(2, "33NLG")])
    assert searches(proxy) == 3
    assert picks.ledger["item_id"].fillna("").tolist() == ["Q1", "Q3", "Q4", "", ""]


@pytest.mark.parametrize("fault", ["refused", "garbage", "truncate", "busy"])
def test_a_search_that_fails_is_made_for_each_quarter(proxy: FaultProxy, fault: str) -> None:
    if fault == "refused":
        proxy.answer(400, times=1, path=SEARCH)
    elif fault == "busy":
        proxy.answer(503, times=ATTEMPTS, path=SEARCH)
    else:
        getattr(proxy, fault)(times=3, path=SEARCH)  # as often as it is tried
    assert pick(proxy, ALL).ledger["item_id"].tolist() == PICKED


def test_what_fails_for_one_quarter_fails_no_other(proxy: FaultProxy) -> None:
    proxy.answer(400, times=2, path=SEARCH)  # the shared search, and that for the first quarter
    ledger = pick(proxy, ALL).ledger
    assert ledger["outcome"].tolist() == ["failed", "picked", "picked", "picked"]
    assert ledger["reason"].iloc[0].startswith(f"{proxy.url}: search 32NLG-Q1 failed")
    assert searches(proxy) == 1 + len(ALL)


def test_more_than_the_pages_of_the_quarters_is_searched_by_quarters(proxy: FaultProxy) -> None:
    some = [sentinel_2_item("x", "2020-02-01T00:00:00Z", 1.0)]
    proxy.answer(200, times=1, path=SEARCH, body=answer(some, numberMatched=3 * PAGE_SIZE + 1))
    assert pick(proxy, ALL).ledger["item_id"].tolist() == PICKED
    assert searches(proxy) == 1 + len(ALL)


def test_an_answer_short_of_its_own_count_is_searched_by_quarters(proxy: FaultProxy) -> None:
    proxy.answer(
        200, times=1, path=SEARCH, body=answer([sentinel_2_item("x", "2020-02-01T00:00:00Z")], numberMatched=2)
    )
    assert pick(proxy, ALL).ledger["item_id"].tolist() == PICKED


def test_an_answer_without_items_that_counts_some_is_searched_by_quarters(proxy: FaultProxy) -> None:
    proxy.answer(200, times=3, path=SEARCH, body=answer([], numberMatched=4))  # as often as it is tried
    assert pick(proxy, ALL).ledger["item_id"].tolist() == PICKED
    assert searches(proxy) == 3 + len(ALL)


def test_a_page_that_fails_fails_no_quarter_that_its_own_search_answers(proxy: FaultProxy) -> None:
    link = {"rel": "next", "href": f"{proxy.url}/search", "method": "POST", "body": {"token": "2"}}
    proxy.answer(200, times=1, path=SEARCH, body=answer([sentinel_2_item("x", "2020-02-01T00:00:00Z")], links=[link]))
    proxy.answer(400, times=3, path=SEARCH)  # its second page; then the searches of two quarters
    ledger = pick(proxy, ALL).ledger
    assert ledger["outcome"].tolist() == ["failed", "failed", "picked", "picked"]
    assert ledger["item_id"].fillna("").tolist() == ["", "", "Q3", "Q4"]


def test_pages_that_are_few_are_read_on(proxy: FaultProxy) -> None:
    link = {"rel": "next", "href": f"{proxy.url}/search", "method": "POST", "body": {"token": "2"}}
    first = [sentinel_2_item("one", "2020-02-01T00:00:00Z", 1.0)]
    proxy.answer(200, times=1, path=SEARCH, body=answer(first, links=[link]))
    proxy.answer(200, times=1, path=SEARCH, body=answer([sentinel_2_item("two", "2020-05-01T00:00:00Z", 1.0)]))
    assert pick(proxy, ALL).ledger["item_id"].fillna("").tolist() == ["one", "two", "", ""]
    assert searches(proxy) == 2


@pytest.mark.parametrize(
    "times",
    [
        {"datetime": None, "start_datetime": "2020-03-28T00:00:00Z", "end_datetime": "2020-04-05T00:00:00Z"},
        {"start_datetime": "2020-03-28T00:00:00Z"},
        {"datetime": "yesterday"},
        {"datetime": "2019-12-31T23:59:59Z"},
    ],
)
def test_an_item_that_may_be_of_several_quarters_is_searched_by_quarters(
    proxy: FaultProxy, times: dict[str, Any]
) -> None:
    odd = sentinel_2_item("odd", "2020-04-01T00:00:00Z", 1.0)
    odd["properties"] |= times
    proxy.answer(200, times=1, path=SEARCH, body=answer([odd]))
    assert pick(proxy, ALL).ledger["item_id"].tolist() == PICKED
    assert searches(proxy) == 1 + len(ALL)


def test_what_a_server_refuses_as_too_much_is_asked_again_and_nothing_is_lost(proxy: FaultProxy) -> None:
    proxy.answer(429, times=6, path=SEARCH)
    one = ApiCatalogue(proxy.url, requests_in_flight=8, back_off=0.02, timeout=(2, 5))
    asked = [request(quarter, tile) for tile in ("32NLG", "33NLG", "34NLG", "35NLG") for quarter in (1, 3)]
    picks = pick_scenes(PLATFORM, 2020, asked, one, PLATFORM.rules.options())
    assert picks.ledger["outcome"].tolist() == ["picked"] * 2 + ["none"] * 6
    assert searches(proxy) == len(asked) + 6
    assert proxy.max_in_flight <= 8
