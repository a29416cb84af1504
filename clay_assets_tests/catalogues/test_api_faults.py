"""The API catalogue when its server answers late, wrongly or not at all."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely

from clay_assets.catalogues.stac_api import GIVE_UP_AFTER, MAX_PAGES, PAGE_SIZE, ApiCatalogue
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.scenes.picks import Picks, pick_scenes
from clay_assets.storage.stac_geoparquet import decode_items, encode_items
from clay_assets_tests.scenes.items import SENTINEL_2, Properties, failed_share, sentinel_2_item
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.stac_api import StacApi

PLATFORM = PLATFORMS[SENTINEL_2]
TILES = [f"{zone}NLG" for zone in range(31, 34)]
ATTEMPTS = 3
WHEN = "2020-02-01T10:00:00Z"
SEARCH = "/search"


@pytest.fixture(scope="module")
def api(stac_api: StacApi) -> Iterator[StacApi]:
    """One item per tile in the first quarter of 2020; for 31NLG also at its edges."""
    stac_api.clear()
    items = [sentinel_2_item(f"item-{tile}", WHEN, 5.0, tile=tile) for tile in TILES]
    edges = {"last": "2020-03-31T23:59:59.999999Z", "next": "2020-04-01T00:00:00Z"}
    items += [sentinel_2_item(name, when, 50.0, tile="31NLG") for name, when in edges.items()]
    items += [sentinel_2_item("padded", WHEN, 9.0, tile="09VWK"), sentinel_2_item("plain", WHEN, 8.0, tile="9VWK")]
    stac_api.load([], items)
    yield stac_api
    stac_api.clear()


@pytest.fixture
def proxy(api: StacApi, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(api.url)


def request(tile: str, quarter: int = 1) -> Request:
    start, end = quarter_bounds(2020, quarter)
    codes = tuple({"grid:code": f"MGRS-{name}"} for name in dict.fromkeys((tile, tile.lstrip("0"))))
    return Request(f"{tile}-2020-Q{quarter}", tile, f"Q{quarter}", start, end, shapely.box(6.2, 0.2, 6.8, 0.8), codes)


def catalogue(url: str, **options: Any) -> ApiCatalogue:
    """A catalogue with short time-outs and one search at a time, so that a fault hits the first."""
    quick = {"requests_in_flight": 1, "attempts": ATTEMPTS, "back_off": 0.02, "timeout": (2, 5), **options}
    return ApiCatalogue(url, **quick)


def pick(url: str, tiles: list[str], **options: Any) -> Picks:
    requests = [request(tile) for tile in tiles]
    return pick_scenes(PLATFORM, 2020, requests, catalogue(url, **options), PLATFORM.rules.options())


def outcomes(picks: Picks) -> dict[str, str]:
    return dict(zip(picks.ledger["location"], picks.ledger["outcome"], strict=True))


def searches(proxy: FaultProxy) -> list[Any]:
    return [seen for seen in proxy.seen if seen.path.startswith(SEARCH)]


ALL_PICKED = dict.fromkeys(TILES, "picked")
FIRST_FAILED = {**ALL_PICKED, TILES[0]: "failed"}


def test_without_faults_one_search_each(proxy: FaultProxy) -> None:
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED
    assert len(searches(proxy)) == len(TILES)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(proxy: FaultProxy, status: int) -> None:
    proxy.answer(status, times=ATTEMPTS - 1, path=SEARCH)
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED
    assert len(searches(proxy)) == len(TILES) + ATTEMPTS - 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_status_that_stays_is_a_row_of_the_ledger(proxy: FaultProxy, status: int) -> None:
    proxy.answer(status, times=ATTEMPTS, path=SEARCH)
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    row = picks.ledger.iloc[0]
    assert f"too many {status} error responses" in row["reason"]
    assert row["reason"].startswith(f"{proxy.url}: search {TILES[0]}-2020-Q1 failed")
    assert row["candidates"] == 0
    assert row.isna()["item_id"]
    assert len(picks.items) == len(TILES) - 1
    assert failed_share(picks) == pytest.approx(1 / len(TILES))
    assert len(searches(proxy)) == len(TILES) + ATTEMPTS - 1  # not multiplied by another loop of attempts


def test_a_refusal_is_not_tried_again(proxy: FaultProxy) -> None:
    proxy.answer(400, times=1, path=SEARCH, body=b'{"code": "BadRequest", "description": "no such field"}')
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    assert "no such field" in picks.ledger["reason"].iloc[0]
    assert len(searches(proxy)) == len(TILES)


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_honoured(proxy: FaultProxy, kind: str) -> None:
    after: str | int = 1
    if kind == "date":
        moment = datetime.fromtimestamp(time.time() + 2.5, UTC)
        after = moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
    proxy.answer(429, times=1, retry_after=after, path=SEARCH)
    assert outcomes(pick(proxy.url, TILES[:1])) == {TILES[0]: "picked"}
    first, second = searches(proxy)
    assert second.at - first.at >= 0.99


@pytest.mark.parametrize("fault", ["garbage", "empty", "truncate", "reset"])
def test_nonsense_is_tried_again(proxy: FaultProxy, fault: str) -> None:
    getattr(proxy, fault)(times=2, path=SEARCH)
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED
    assert len(searches(proxy)) == len(TILES) + 2


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Internal server error"},
        {"type": "FeatureCollection"},
        {"type": "FeatureCollection", "features": None},
        [],
        {"type": "FeatureCollection", "features": ["item"]},
        "timeout",
        None,
    ],
)
def test_json_that_is_no_answer_is_not_taken_for_an_empty_one(proxy: FaultProxy, body: Any) -> None:
    proxy.answer(200, times=3, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    assert picks.ledger["reason"].iloc[0]
    assert len(searches(proxy)) == len(TILES) + 2


def test_an_empty_answer_is_one(proxy: FaultProxy) -> None:
    proxy.answer(200, times=1, path=SEARCH, body=b'{"type": "FeatureCollection", "features": [], "links": []}')
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == {**ALL_PICKED, TILES[0]: "none"}
    assert picks.ledger["reason"].iloc[0] == "no item in the catalogue"


def test_broken_items_are_refused_and_the_others_picked(proxy: FaultProxy) -> None:
    good = sentinel_2_item("good", WHEN, 20.0, tile=TILES[0])
    broken = [
        {**sentinel_2_item("no properties", WHEN, 1.0, tile=TILES[0]), "properties": None},
        {**sentinel_2_item("no assets", WHEN, 1.0, tile=TILES[0]), "assets": None},
        sentinel_2_item("no time", "yesterday", 1.0, tile=TILES[0]),
        sentinel_2_item("cloud in words", WHEN, tile=TILES[0], **Properties({"eo:cloud_cover": "little"})),
    ]
    body = {"type": "FeatureCollection", "features": [*broken, good], "links": []}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == ALL_PICKED
    assert picks.ledger["item_id"].iloc[0] == "good"
    assert picks.ledger["candidates"].iloc[0] == 5
    assert sum(json.loads(picks.ledger["rejected"].iloc[0]).values()) == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": 7}, "an item with id 7: invalid item (id is not text)"),
        ({"id": None}, "an item with id None: invalid item (id is not text)"),
        ({"id": ["a"]}, "an item with id ['a']: invalid item (id is not text)"),
        ({"type": "Collection"}, "invalid item (type is 'Collection')"),
        ({"properties": []}, "invalid item (properties is not an object)"),
        ({"assets": "none"}, "invalid item (assets is not an object)"),
        ({"assets": {"red": {"title": "without href"}}}, "without asset blue, green, red"),
        ({"geometry": {"type": "Polygon", "coordinates": [[["x", 0], [1, 1], [1, 0]]]}}, "invalid item (geometry: "),
        ({"geometry": {"type": "Point", "coordinates": [500_000, 4_000_000]}}, "not longitudes and latitudes"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "without footprint"),
        ({"geometry": {"type": "Point", "coordinates": [100, 0.5]}}, "outside the place"),
    ],
)
def test_an_item_that_cannot_be_used_is_counted_with_its_reason(
    proxy: FaultProxy, changes: dict[str, Any], reason: str
) -> None:
    good, bad = (sentinel_2_item(name, WHEN, cover, tile=TILES[0]) for name, cover in (("good", 20.0), ("bad", 1.0)))
    body = {"type": "FeatureCollection", "features": [{**bad, **changes}, good], "links": []}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == ALL_PICKED
    assert picks.ledger["item_id"].iloc[0] == "good"
    (refused,) = json.loads(picks.ledger["rejected"].iloc[0])
    assert reason in refused


@pytest.mark.parametrize(
    "changes",
    [
        {"stac_version": None},
        {"stac_version": 1.0},
        {"stac_version": "unknown"},
        {"type": None},
        {"links": None},
        {"links": [None, {"rel": 5, "href": "x"}]},
        {"stac_extensions": "eo"},
        {"stac_extensions": [5, "https://stac-extensions.github.io/eo/v0.0/schema.json"]},
        {"bbox": ["a", None]},
        {"bbox": [6, 0, 500, 7, 1, 900]},
        {"collection": 5},
        {"properties": {"eo:bands": 5}, "stac_version": "0.9.0"},
        {"geometry": {"type": "Polygon", "coordinates": [[[6, 0, 5], [7, 0, 5], [7, 1, 5], [6, 1, 5]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[6, 0], [7, 1], [7, 0], [6, 1], [6, 0]]]}},
    ],
)
def test_an_item_with_odd_members_that_decide_nothing_is_used(proxy: FaultProxy, changes: dict[str, Any]) -> None:
    item = sentinel_2_item("odd", WHEN, 1.0, tile=TILES[0])
    changed = {**item, **changes, "properties": {**item["properties"], **changes.get("properties", {})}}
    left_out = {name for name, value in changes.items() if value is None}
    body = {"type": "FeatureCollection", "features": [{k: v for k, v in changed.items() if k not in left_out}]}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES)
    assert picks.ledger["item_id"].iloc[0] == "odd"
    (kept,) = [one for one in picks.items if one["id"] == "odd"]
    assert kept["type"] == "Feature"
    assert len(kept["bbox"]) == 4
    assert shapely.geometry.shape(kept["geometry"]).is_valid
    assert decode_items(encode_items(picks.items, {}), "picks")


@pytest.mark.parametrize("told", [{"numberMatched": 3}, {"context": {"matched": 3, "returned": 2}}])
def test_a_server_that_stops_before_its_own_count_is_a_failed_search(proxy: FaultProxy, told: dict[str, Any]) -> None:
    items = [sentinel_2_item(name, WHEN, 10.0, tile=TILES[0]) for name in "ab"]
    body = {"type": "FeatureCollection", "features": items, "links": [], **told}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    assert "ends after 2 of 3 items" in picks.ledger["reason"].iloc[0]


@pytest.mark.parametrize(
    "told", [{"numberMatched": 2}, {"numberMatched": None}, {"numberMatched": "many"}, {"context": 5}, {}]
)
def test_a_count_that_is_reached_or_cannot_be_read_is_no_fault(proxy: FaultProxy, told: dict[str, Any]) -> None:
    items = [sentinel_2_item(name, WHEN, 10.0, tile=TILES[0]) for name in "ab"]
    body = {"type": "FeatureCollection", "features": items, "links": [], **told}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED


EMPTY = {"type": "FeatureCollection", "features": [], "links": []}


@pytest.mark.parametrize("told", [{"numberMatched": 3}, {"context": {"matched": 3, "returned": 0}}])
def test_no_items_of_several_is_not_an_empty_answer(proxy: FaultProxy, told: dict[str, Any]) -> None:
    proxy.answer(200, times=2, path=SEARCH, body=json.dumps({**EMPTY, **told}).encode())
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED  # a retry succeeded
    proxy.answer(200, times=3, path=SEARCH, body=json.dumps({**EMPTY, **told}).encode())
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    assert "response without features, after 0 of 3 items" in picks.ledger["reason"].iloc[0]


@pytest.mark.parametrize("told", [{"numberMatched": 0}, {"numberMatched": True}, {"numberMatched": "many"}, {}])
def test_no_items_of_none_are(proxy: FaultProxy, told: dict[str, Any]) -> None:
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps({**EMPTY, **told}).encode())
    assert outcomes(pick(proxy.url, TILES)) == {**ALL_PICKED, TILES[0]: "none"}


@pytest.mark.parametrize(
    ("matched", "outcome", "pages"),
    [
        pytest.param(1, "picked", 2, id="all were there already"),
        pytest.param(None, "picked", 2, id="nobody counts"),
        pytest.param(2, "failed", 3 * 2, id="one is missing"),
    ],
)
def test_a_page_without_items_after_others(proxy: FaultProxy, matched: int | None, outcome: str, pages: int) -> None:
    link = {"rel": "next", "href": f"{proxy.url}/search", "method": "POST", "body": {"token": "2"}}
    items = [sentinel_2_item("a", WHEN, 10.0, tile=TILES[0])]
    count = {} if matched is None else {"numberMatched": matched}
    for _ in range(pages // 2):
        for page in ({"features": items, "links": [link]}, {}):
            proxy.answer(200, times=1, path=SEARCH, body=json.dumps({**EMPTY, **count, **page}).encode())
    assert outcomes(pick(proxy.url, TILES[:1])) == {TILES[0]: outcome}
    assert len(searches(proxy)) == pages


def test_a_page_without_items_between_others_is_passed(proxy: FaultProxy) -> None:
    link = {"rel": "next", "href": f"{proxy.url}/search", "method": "POST", "body": {"token": "2"}}
    items = [sentinel_2_item("a", WHEN, 10.0, tile=TILES[0])]
    for page in ({"links": [link]}, {"features": items}):
        proxy.answer(200, times=1, path=SEARCH, body=json.dumps({**EMPTY, "numberMatched": 1, **page}).encode())
    assert outcomes(pick(proxy.url, TILES[:1])) == {TILES[0]: "picked"}


def test_a_search_that_is_never_answered_ends_and_the_others_go_on(proxy: FaultProxy) -> None:
    proxy.stall(times=ATTEMPTS, path=SEARCH)
    started = time.monotonic()
    picks = pick(proxy.url, TILES, timeout=(2, 0.5))
    assert time.monotonic() - started < ATTEMPTS * 0.5 + 6
    assert outcomes(picks) == FIRST_FAILED
    assert "timed out" in picks.ledger["reason"].iloc[0].lower()
    assert len(searches(proxy)) == len(TILES) + ATTEMPTS - 1


def test_a_slow_server_is_waited_for(proxy: FaultProxy) -> None:
    proxy.delay(0.6, path=SEARCH)
    picks = pick(proxy.url, TILES, requests_in_flight=6)
    assert outcomes(picks) == ALL_PICKED


def test_by_default_a_silent_server_costs_minutes_not_hours() -> None:
    one = ApiCatalogue("http://localhost")
    _, silence = one.timeout
    back_off = sum(one.back_off * 2**number + one.back_off for number in range(one.attempts))
    assert one.attempts * silence + back_off < 150  # seconds


def test_a_server_that_goes_down_is_given_up(proxy: FaultProxy) -> None:
    proxy.answer(503, times=None, path=SEARCH)
    tiles = [f"{zone}N{column}{row}" for zone in range(31, 37) for column in "ABCDE" for row in "FGH"]
    with pytest.raises(SourceError, match=rf"{GIVE_UP_AFTER} searches in a row failed.*too many 503"):
        pick(proxy.url, tiles, requests_in_flight=4)
    assert len(searches(proxy)) <= (GIVE_UP_AFTER + 2 * 4) * ATTEMPTS


def test_no_more_at_once_than_the_limit(proxy: FaultProxy) -> None:
    proxy.delay(0.1)
    tiles = TILES * 4
    requests = [
        Request(f"{number}", tile, "Q1", *quarter_bounds(2020, 1), shapely.box(6.2, 0.2, 6.8, 0.8))
        for number, tile in enumerate(tiles)
    ]
    picks = pick_scenes(PLATFORM, 2020, requests, catalogue(proxy.url, requests_in_flight=3), PLATFORM.rules.options())
    assert len(picks.ledger) == len(tiles)
    assert proxy.max_in_flight == 3


# --- the root ---------------------------------------------------------------------------------------


def test_nobody_there() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(SourceError, match=rf"{url}: did not answer as a STAC API .*Check the address in the CLAY_STAC"):
        pick(url, TILES)


@pytest.mark.parametrize("fault", ["garbage", "empty", "reset", "truncate", "stall"])
def test_a_root_that_answers_nonsense(proxy: FaultProxy, fault: str) -> None:
    getattr(proxy, fault)(times=None)
    with pytest.raises(SourceError, match=r"did not answer as a STAC API .*and the network"):
        pick(proxy.url, TILES, timeout=(2, 0.3))


@pytest.mark.parametrize("body", [b"[]", b"3", b'{"message": "no"}', b'{"type": "Catalog"}'])
def test_a_root_that_is_something_else(proxy: FaultProxy, body: bytes) -> None:
    proxy.answer(200, times=None, body=body)
    with pytest.raises((SourceError, InputError), match=r"did not answer as a STAC API|without item search"):
        pick(proxy.url, TILES)


@pytest.mark.parametrize("status", [404, 500])
def test_a_root_that_refuses(proxy: FaultProxy, status: int) -> None:
    proxy.answer(status, times=None)
    with pytest.raises(SourceError, match="did not answer as a STAC API"):
        pick(proxy.url, TILES)


def test_a_root_that_needs_another_try(proxy: FaultProxy) -> None:
    proxy.answer(503, times=1)
    proxy.garbage(times=1)
    assert outcomes(pick(proxy.url, TILES)) == ALL_PICKED


@pytest.mark.filterwarnings("ignore:Server does not advertise")
def test_a_static_catalogue_is_no_api(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> None:
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "x", "description": "x", "links": []}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    url = f"{file_server(tmp_path).url}/catalog.json"
    with pytest.raises(InputError, match=": STAC catalogue without item search"):
        pick(url, TILES)


def test_no_requests_ask_nobody(proxy: FaultProxy) -> None:
    assert len(pick(proxy.url, []).ledger) == 0
    assert proxy.total == 0


# --- searches and pages -----------------------------------------------------------------------------


def test_both_spellings_of_a_tile_are_asked_for(proxy: FaultProxy) -> None:
    picks = pick(proxy.url, ["09VWK"])
    assert picks.ledger[["outcome", "candidates", "item_id"]].to_numpy().tolist() == [["picked", 2, "plain"]]
    assert len(searches(proxy)) == 2


def test_quarters_are_half_open(api: StacApi) -> None:
    one = catalogue(api.url)
    first, second = (next(one.search(PLATFORM, [request("31NLG", quarter)])) for quarter in (1, 2))
    assert {item["id"] for item in first.candidates} == {"item-31NLG", "last"}
    assert {item["id"] for item in second.candidates} == {"next"}


def test_several_pages(stac_api: StacApi, api: StacApi, fault_proxy: Callable[[str], FaultProxy]) -> None:
    count = 2 * PAGE_SIZE + 50
    stac_api.load([], [sentinel_2_item(f"p{n}", WHEN, float(count - n) / 10, tile="40NAA") for n in range(count)])
    proxy = fault_proxy(api.url)
    picks = pick(proxy.url, ["40NAA"])
    assert picks.ledger[["candidates", "item_id"]].to_numpy().tolist() == [[count, f"p{count - 1}"]]
    assert len(searches(proxy)) == 3
    proxy.clear()
    proxy.answer(503, times=1, path=SEARCH)
    proxy.truncate(times=1, path=SEARCH)
    assert pick(proxy.url, ["40NAA"]).ledger["candidates"].tolist() == [count]


def page(proxy: FaultProxy, names: list[str], more: bool) -> bytes:
    link = {"rel": "next", "href": f"{proxy.url}/search", "method": "POST", "body": {"token": names[-1]}}
    items = [sentinel_2_item(name, WHEN, 10.0, tile=TILES[0]) for name in names]
    return json.dumps({"type": "FeatureCollection", "features": items, "links": [link] if more else []}).encode()


def test_items_that_repeat_from_page_to_page_count_once(proxy: FaultProxy) -> None:
    for names, more in ((["a", "b"], True), (["b", "c"], True), (["a", "c"], False)):
        proxy.answer(200, times=1, path=SEARCH, body=page(proxy, names, more))
    picks = pick(proxy.url, TILES[:1])
    assert picks.ledger[["candidates", "item_id"]].to_numpy().tolist() == [[3, "a"]]


def test_pages_without_end_are_cut_off(proxy: FaultProxy) -> None:
    proxy.answer(200, times=MAX_PAGES, path=SEARCH, body=page(proxy, ["a", "b"], True))
    picks = pick(proxy.url, TILES)
    assert outcomes(picks) == FIRST_FAILED
    assert f"has more than {MAX_PAGES} pages" in picks.ledger["reason"].iloc[0]
    assert len(searches(proxy)) == MAX_PAGES + len(TILES) - 1


def test_as_many_pages_as_allowed_are_taken(proxy: FaultProxy) -> None:
    for number in range(MAX_PAGES):
        body = page(proxy, [f"i{number}"], number < MAX_PAGES - 1)
        proxy.answer(200, times=1, path=SEARCH, body=body)
    picks = pick(proxy.url, TILES[:1])
    assert picks.ledger["candidates"].tolist() == [MAX_PAGES]


def test_a_server_that_ignores_the_query_gives_no_wrong_tile(proxy: FaultProxy) -> None:
    others = [sentinel_2_item(f"x{n}", WHEN, 1.0, tile="40NAA") for n in range(3)]
    late = sentinel_2_item("late", "2021-02-01T00:00:00Z", 1.0, tile=TILES[0])
    body = {"type": "FeatureCollection", "features": [*others, late], "links": []}
    proxy.answer(200, times=1, path=SEARCH, body=json.dumps(body).encode())
    picks = pick(proxy.url, TILES[:1])
    assert outcomes(picks) == {TILES[0]: "none"}
    assert picks.ledger["reason"].iloc[0] == "3 × of another tile; 1 × outside the period"


def test_an_api_without_the_collection_says_so(proxy: FaultProxy) -> None:
    one, asked = catalogue(proxy.url), [request(TILES[0])]
    assert one.doubts(PLATFORM, asked, 0) == []
    naip = PLATFORMS["naip"]
    (doubt,) = one.doubts(naip, asked, 0)
    assert "no collection naip" in doubt
    assert one.doubts(naip, asked, 3) == []
    assert one.doubts(naip, [], 0) == []


def test_an_api_that_does_not_describe_its_collections_leaves_no_doubt(proxy: FaultProxy) -> None:
    proxy.answer(403, times=9, path="/collections")
    assert catalogue(proxy.url).doubts(PLATFORMS["naip"], [request(TILES[0])], 0) == []
