"""Damaged ledgers, picks and imagery are counted and named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import shapely

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import Request
from clay_assets.scenes.picks import Picks, pick_scenes
from clay_assets.scenes.rules import (
    imagery_of_picks,
    items_of_ledger,
    picks_as_requested,
    requests_in_ledger_once,
    some_candidate_passes,
)
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item, snapshot

PLATFORM = platform_of(SENTINEL_2)
OPTIONS = PLATFORM.rules.options()
TILE = "32NLG"


def request(quarter: int, tile: str = TILE, year: int = 2020) -> Request:
    first = 3 * quarter - 2
    end = datetime(year, first + 3, 1, tzinfo=UTC) if quarter < 4 else datetime(year + 1, 1, 1, tzinfo=UTC)
    name = f"{tile}-{year}-Q{quarter}"
    return Request(
        name, tile, f"Q{quarter}", datetime(year, first, 1, tzinfo=UTC), end, shapely.box(6.2, 0.2, 6.8, 0.8)
    )


REQUESTS = [request(quarter) for quarter in (1, 2, 3)]  # no scene was picked for the third


@pytest.fixture
def picks(tmp_path: Path) -> Picks:
    items = [
        sentinel_2_item("S2A_32NLG_20200215_0_L2A", "2020-02-15T10:00:00Z", 12.5),
        sentinel_2_item("S2A_32NLG_20200515_0_L2A", "2020-05-15T10:00:00Z", 40),
    ]
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "items.parquet", items))
    return pick_scenes(PLATFORM, 2020, REQUESTS, catalogue, OPTIONS)


def ids(requests: list[Request]) -> list[str]:
    return [one.id for one in requests]


def told(ledger: pd.DataFrame, items: list[dict[str, Any]], **changes: Any) -> tuple[str, ...]:
    arguments = {"year": 2020, "requests": REQUESTS, "options": OPTIONS, **changes}
    return picks_as_requested(PLATFORM, ledger=ledger, items=items, **arguments).violations


def test_picks_as_they_are_made_hold(picks: Picks) -> None:
    once = requests_in_ledger_once(ids(REQUESTS), picks.ledger)
    assert once.ok
    assert once.numbers == {"requests": 3, "ledger_rows": 3, "missing": 0, "twice": 0, "unasked": 0}
    named = items_of_ledger(picks.ledger, picks.items)
    assert named.ok
    assert named.numbers == {"picked": 2, "scenes": 2, "items": 2, "missing": 0, "twice": 0, "unnamed": 0}
    asked = picks_as_requested(PLATFORM, 2020, REQUESTS, picks.ledger, picks.items, OPTIONS)
    assert asked.ok
    assert asked.numbers == {"picks": 2, "refused": 0, "of_another_year": 0, "elsewhere": 0, "highest_cloud_cover": 40}


def test_a_ledger_that_is_not_of_its_requests_is_found(picks: Picks) -> None:
    damaged = pd.concat([picks.ledger.iloc[[0, 0, 1]], picks.ledger.iloc[[2]].assign(request_id="33UUU-2020-Q1")])
    found = requests_in_ledger_once(ids(REQUESTS), damaged)
    assert found.numbers == {"requests": 3, "ledger_rows": 4, "missing": 1, "twice": 1, "unasked": 1}
    assert found.violations == (
        "request 32NLG-2020-Q3 is not in the ledger",
        "request 32NLG-2020-Q1 is in the ledger more than once",
        "request 33UUU-2020-Q1 is in the ledger but not in the requests",
    )


def test_items_that_are_not_those_of_the_ledger_are_found(picks: Picks) -> None:
    first, second = picks.items
    found = items_of_ledger(picks.ledger, [second, second, {**first, "id": "S2B_OTHER"}])
    assert found.violations == (
        f"scene {first['id']} was picked but is not among the items",
        f"scene {second['id']} is among the items more than once",
        "scene S2B_OTHER is among the items but was picked for no request",
    )
    assert (found.numbers["missing"], found.numbers["twice"], found.numbers["unnamed"]) == (1, 1, 1)
    for row, outcome in ((0, "none"), (2, "picked")):
        unsaid = picks.ledger.copy()
        unsaid.loc[row, "outcome"] = outcome
        assert items_of_ledger(unsaid, picks.items).violations == (
            f"request 32NLG-2020-Q{row + 1} is picked without a scene, or has one without being picked",
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"eo:cloud_cover": 75.1}, "is refused: cloud cover above 75 %"),
        ({"datetime": "2020-04-01T00:00:00Z"}, "is refused: outside the period"),
        ({"grid:code": "MGRS-33UUU"}, "is refused: of another tile"),
        ({"s2:nodata_pixel_percentage": 20.5}, "is refused: nodata above 20 %"),
    ],
)
def test_a_pick_that_its_platform_refuses_is_found(picks: Picks, properties: dict[str, Any], reason: str) -> None:
    first, second = picks.items
    damaged = {**first, "properties": {**first["properties"], **properties}}
    assert told(picks.ledger, [damaged, second]) == (f"request 32NLG-2020-Q1: scene {first['id']} {reason}",)


def test_a_pick_of_another_year_is_found(picks: Picks) -> None:
    # A request table with rows in the wrong year: the period matches, the partition does not.
    assert told(picks.ledger, picks.items, year=2019) == (
        f"request 32NLG-2020-Q1: scene {picks.items[0]['id']} is of 2020 instead of 2019",
        f"request 32NLG-2020-Q2: scene {picks.items[1]['id']} is of 2020 instead of 2019",
    )


def test_a_pick_elsewhere_is_found(picks: Picks) -> None:
    first, second = picks.items
    away = shapely.box(7.0, 0.2, 7.5, 0.8)
    damaged = [{**first, "geometry": shapely.geometry.mapping(away)}, second]
    assert told(picks.ledger, damaged) == (f"request 32NLG-2020-Q1: scene {first['id']} does not intersect {TILE}",)
    touching = shapely.box(6.8 + 5e-6, 0.2, 7.5, 0.8)  # half a metre away: footprints are rounded
    assert told(picks.ledger, [{**first, "geometry": shapely.geometry.mapping(touching)}, second]) == ()
    assert told(picks.ledger, [{**first, "geometry": None}, second])


@pytest.mark.slow
@pytest.mark.parametrize(("longitude", "found"), [(179.7, False), (-179.7, False), (10.0, True), (178.9, True)])
def test_a_footprint_across_the_antimeridian_is_taken_as_it_is_stored(
    picks: Picks, longitude: float, found: bool
) -> None:
    first, second = picks.items
    parts = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    place = replace(REQUESTS[0], geometry=shapely.Point(longitude, 0.5))
    stored = [{**first, "geometry": shapely.geometry.mapping(parts)}, second]
    expected = (f"request 32NLG-2020-Q1: scene {first['id']} does not intersect {TILE}",) if found else ()
    assert told(picks.ledger, stored, requests=[place, *REQUESTS[1:]]) == expected


RING = [[6, 0], [7, 0], [7, 1], [6, 1], [6, 0]]
# Footprints that older storages may hold, from before they were made valid, and whether they intersect the tile.
ODD_FOOTPRINTS: dict[str, tuple[Any, bool]] = {
    "bow-tie": ({"type": "Polygon", "coordinates": [[[6, 0], [7, 1], [7, 0], [6, 1], [6, 0]]]}, True),
    "with heights": ({"type": "Polygon", "coordinates": [[[*point, 9] for point in RING]]}, True),
    "overlapping parts": ({"type": "MultiPolygon", "coordinates": [[RING], [RING]]}, True),
    "a collection": ({"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [RING]}]}, True),
    "flat": ({"type": "Polygon", "coordinates": [[[6, 0.5], [7, 0.5], [6, 0.5], [6, 0.5]]]}, True),
    "not a number": ({"type": "Polygon", "coordinates": [[[6, 0], [float("nan"), 1], [7, 0], [6, 0]]]}, False),
    "infinite": ({"type": "Polygon", "coordinates": [[[6, 0], [float("inf"), 1], [7, 0], [6, 0]]]}, False),
    "empty": ({"type": "Polygon", "coordinates": []}, False),
    "two points": ({"type": "Polygon", "coordinates": [[[6, 0], [7, 1]]]}, False),
    "without coordinates": ({"type": "Polygon"}, False),
    "unknown type": ({"type": "Circle", "coordinates": [6, 0], "radius": 1}, False),
    "text": ("POLYGON EMPTY", False),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize(("geometry", "touches"), ODD_FOOTPRINTS.values(), ids=ODD_FOOTPRINTS)
def test_no_footprint_ends_a_look_at_the_picks(picks: Picks, geometry: Any, touches: bool) -> None:
    first, second = picks.items
    said = told(picks.ledger, [{**first, "geometry": geometry}, second])
    assert said == (() if touches else (f"request 32NLG-2020-Q1: scene {first['id']} does not intersect {TILE}",))


def test_a_cell_whose_candidates_are_all_refused_is_found(tmp_path: Path) -> None:
    items = [
        sentinel_2_item(f"S2A_32NLG_2020{month:02}{day}_0_L2A", f"2020-{month:02}-{day}T10:00Z", cloud, nodata=nodata)
        for month, day, cloud, nodata in [
            (2, 15, 99.0, 0.0), (2, 25, 98.0, 0.0), (5, 15, 97.0, 0.0), (5, 16, None, 0.0), (5, 25, 10.0, None),
            (5, 26, -1.0, 0.0), (5, 27, 10.0, 90.0),
        ]
    ]  # fmt: skip
    refused = pick_scenes(
        PLATFORM, 2020, REQUESTS, SnapshotCatalogue(snapshot(tmp_path / "bad.parquet", items)), OPTIONS
    ).ledger
    found = some_candidate_passes(PLATFORM, 2020, refused)
    assert found.violations == (
        "sentinel-2-l2a 2020: none of 7 candidates of 3 requests is eligible (3 × cloud cover above 75 %; "
        "1 × cloud cover below 0 (not assessed); 1 × cloud cover unknown; and 2 other reasons)",
    )
    assert found.numbers == {"candidates": 7, "picked": 0}
    assert found.rows[0] == {"reason": "cloud cover above 75 %", "candidates refused": 3}
    assert len(found.rows) == 5


def test_one_pick_and_no_candidate_are_both_sound(picks: Picks) -> None:
    assert some_candidate_passes(PLATFORM, 2020, picks.ledger).numbers == {"candidates": 2, "picked": 2}
    assert some_candidate_passes(PLATFORM, 2020, picks.ledger).ok
    assert some_candidate_passes(PLATFORM, 2020, picks.ledger[picks.ledger["outcome"] == "none"]).ok
    assert some_candidate_passes(PLATFORM, 2020, picks.ledger.head(0)).ok


def test_candidates_on_which_a_rule_raised_do_not_pass(picks: Picks) -> None:
    ledger = picks.ledger.assign(outcome="failed", reason="a bug", item_id=None, cloud_cover=None)
    (said,) = some_candidate_passes(PLATFORM, 2020, ledger).violations
    assert said == "sentinel-2-l2a 2020: none of 2 candidates of 3 requests is eligible (2 × a bug)"


def test_imagery_that_is_not_of_the_picks_is_found() -> None:
    ledger = pd.DataFrame({"item_id": ["A", "B", "C"], "outcome": ["copied", "failed", "copied"]})
    sound = imagery_of_picks(["A", "B", "C"], ["A", "C"], ledger)
    assert sound.ok
    assert sound.numbers == {"picks": 3, "scenes": 2, "set_aside": 1, "missing": 0, "unpicked": 0}
    assert imagery_of_picks(["A", "B", "C"], ["A", "B"], ledger).violations == (
        "scene C was picked but has no imagery",
        "scene B has imagery but was set aside or not picked",
    )
    assert imagery_of_picks(["A", "B", "C", "D"], ["A", "C", "D"], ledger).violations == (
        "scene D is in only one of picks and imagery ledger",
    )
    assert imagery_of_picks(["A", "B", "C"], ["A", "C"], pd.concat([ledger, ledger.head(1)])).violations == (
        "scene A is in the imagery ledger more than once",
    )
