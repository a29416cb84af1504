"""A bad item is refused and counted; an exception in any rule is a bug of the rule."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import shapely

from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.eligibility import (
    RuleError,
    best_candidate,
    best_item,
    eligible_items,
    resolved_requests,
)
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.properties import Property
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.stac import Item
from clay_assets_tests.scenes.items import LANDSAT_L2, NAIP, SENTINEL_1, SENTINEL_2, Properties, sentinel_2_item

WHEN = "2020-02-01T10:00:00Z"
LOGGER = "clay_assets.catalogues.eligibility"
REQUEST = Request("32NLG-2020-Q1", "32NLG", "Q1", *quarter_bounds(2020, 1), shapely.box(6.2, 0.2, 6.8, 0.8))


def changed(key: str = SENTINEL_2, /, **rules: Any) -> AnyPlatform:
    """A platform with some of its rules replaced."""
    one = platform_of(key)
    return replace(one, rules=replace(one.rules, **rules))


def eligible(platform: AnyPlatform, *items: Item) -> tuple[list[str], dict[str, int]]:
    found, rejected = eligible_items(platform, Answer(REQUEST, list(items)), platform.rules.options())
    return [item["id"] for item in found], dict(rejected)


def typo(*arguments: Any) -> Any:
    """A rule with a misspelt property."""
    return arguments[0]["properties"]["eo:cloud_covr"]


def share_outside(item: Item) -> float:
    """A geometry operation that GEOS refuses on self-intersecting footprints."""
    footprint = shapely.geometry.shape(item["geometry"])
    return float(footprint.difference(shapely.box(6.4, -1, 6.6, 2)).area)


def crossing(item_id: str) -> Item:
    return sentinel_2_item(item_id, WHEN, geometry=shapely.Polygon([(6, 0), (7, 1), (7, 0), (6, 1)]))


SHARE = {
    "refuse": lambda item, request, options: None if share_outside(item) else "inside",
    "rank": lambda item, request: (share_outside(item), item["id"]),
    "resolve": lambda request, items, options, seed: [request for item in items if share_outside(item)],
}


# --- bad items --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cloud": "12.5"}, "property eo:cloud_cover: text, expected a number"),
        ({"cloud": float("nan")}, "property eo:cloud_cover: not finite, expected a number"),
        ({"cloud": True}, "property eo:cloud_cover: true or false, expected a number"),
        ({"grid:code": 32}, "property grid:code: a number, expected text"),
        ({"nodata": [0]}, "property s2:nodata_pixel_percentage: a list of other values, expected a number"),
        ({"cloud": None}, "cloud cover unknown"),
        ({"nodata": None}, "nodata share unknown"),
        ({"cloud": 10**400}, "property eo:cloud_cover: not finite, expected a number"),
    ],
)
def test_items_with_the_same_fault_are_counted_together(changes: dict[str, Any], reason: str) -> None:
    bad = [sentinel_2_item(name, WHEN, **changes) for name in ("a", "b")]
    assert eligible(platform_of(SENTINEL_2), *bad, sentinel_2_item("good", WHEN)) == (["good"], {reason: 2})


def test_no_rule_sees_an_item_that_breaks_its_declaration() -> None:
    seen = []
    platform = changed(
        refuse=lambda item, request, options: seen.append(item["id"]),
        properties=(Property("eo:cloud_cover", float, required=True), Property("view:off_nadir", float)),
    )
    items = [
        sentinel_2_item("whole", WHEN),
        sentinel_2_item("without", WHEN, None),
        sentinel_2_item("text", WHEN, **Properties({"view:off_nadir": "0"})),
        {**sentinel_2_item("nowhere", WHEN), "geometry": None},
        sentinel_2_item("late", "2020-04-01T00:00:00Z", None),
    ]
    assert eligible(platform, *items) == (
        ["whole"],
        {
            "property eo:cloud_cover: missing": 1,
            "property view:off_nadir: text, expected a number": 1,
            "without footprint": 1,
            "outside the period": 1,
        },
    )
    assert seen == ["whole"]


@pytest.mark.parametrize(
    ("key", "properties", "reason"),
    [
        (LANDSAT_L2, {"eo:platform": 8}, "property eo:platform: a number, expected text"),
        (LANDSAT_L2, {"view:sun_elevation": "high"}, "property view:sun_elevation: text, expected a number"),
        (LANDSAT_L2, {}, "not Landsat 8 or 9"),
        (LANDSAT_L2, {"platform": "LANDSAT_8"}, "sun elevation unknown"),
        (SENTINEL_1, {"sar:polarizations": "VV"}, "property sar:polarizations: text, expected a list of text"),
        (SENTINEL_1, {}, "not in IW mode"),
        ("modis", {"modis:vertical-tile": "10"}, "property modis:vertical-tile: text, expected a whole number"),
        ("modis", {"platform": ["terra"]}, "property platform: a list of text, expected text"),
        ("modis", {}, "not Terra"),
    ],
)
def test_what_our_platforms_declare(key: str, properties: dict[str, Any], reason: str) -> None:
    item = {**sentinel_2_item("a", WHEN), "properties": {"datetime": WHEN, **properties}}
    assert eligible(platform_of(key), item) == ([], {reason: 1})


def test_a_stored_item_without_a_time_is_a_bad_item() -> None:
    item = sentinel_2_item("a", WHEN)
    item["properties"]["datetime"] = "one day"
    assert eligible(platform_of(SENTINEL_2), item) == ([], {"invalid item (datetime)": 1})


@pytest.mark.parametrize("rule", ["refuse", "rank"])
def test_a_footprint_that_geometry_operations_cannot_take_is_a_bad_item(rule: str) -> None:
    platform = changed(**{rule: SHARE[rule]})
    items = [crossing("a"), sentinel_2_item("b", WHEN), crossing("c")]
    best, rejected = best_candidate(platform, Answer(REQUEST, items), platform.rules.options())
    assert best is items[1]
    assert rejected == {"invalid footprint (GEOSException)": 2}
    best, rejected = best_candidate(platform, Answer(REQUEST, [items[0]]), platform.rules.options())
    assert best is None
    assert rejected == {"invalid footprint (GEOSException)": 1}


def test_what_a_catalogue_found_invalid_is_counted_too() -> None:
    answer = Answer(REQUEST, [sentinel_2_item("a", WHEN, 80)])
    answer.invalid["invalid item (assets is not an object)"] = 2
    platform = platform_of(SENTINEL_2)
    assert best_candidate(platform, answer, platform.rules.options()) == (
        None,
        {"invalid item (assets is not an object)": 2, "cloud cover above 75 %": 1},
    )


# --- bugs of rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        pytest.param({"refuse": typo}, "refuse raised KeyError('eo:cloud_covr') on item a", id="refuse"),
        pytest.param({"rank": typo}, "rank raised KeyError('eo:cloud_covr') on item a", id="rank"),
        pytest.param(
            {"refuse": lambda item, request, options: item.id},
            "refuse raised AttributeError(\"'dict' object has no attribute 'id'\") on item a",
            id="attribute",
        ),
        pytest.param({"refuse": lambda item: None}, "refuse raised TypeError(", id="another signature"),
        pytest.param(
            {"refuse": lambda item, request, options: False},
            "refuse raised TypeError('returned False, neither a reason nor None') on item a",
            id="no reason",
        ),
        pytest.param(
            {"rank": lambda item, request: (None if item["id"] == "b" else 1,)},
            "rank raised TypeError(\"'<' not supported between instances of 'NoneType' and 'int'\") on item b",
            id="keys that cannot be compared",
        ),
    ],
)
def test_what_a_rule_raises_names_platform_rule_item_and_error(
    caplog: pytest.LogCaptureFixture, rules: dict[str, Callable[..., Any]], said: str
) -> None:
    platform = changed(**rules)
    answer = Answer(REQUEST, [sentinel_2_item(name, WHEN) for name in ("a", "b")])
    with caplog.at_level(logging.ERROR, LOGGER), pytest.raises(RuleError) as raised:
        best_candidate(platform, answer, platform.rules.options())
    assert str(raised.value).startswith(f"sentinel-2-l2a: {said}")
    assert str(raised.value).endswith(". Fix the platform's rule.")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is raised.value.__cause__


def test_a_long_error_is_cut_in_the_message_and_whole_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*arguments: Any) -> str | None:
        raise ValueError("x" * 5000)

    with pytest.raises(RuleError) as raised:
        eligible(changed(refuse=refuse), sentinel_2_item("a", WHEN))
    assert len(str(raised.value)) < 500
    assert "x" * 5000 in caplog.text


def test_resolve_is_named_with_its_request(caplog: pytest.LogCaptureFixture) -> None:
    def resolve(request: Request, items: list[Item], options: Any, seed: int) -> Any:
        yield items[0]["propertys"]

    platform = changed(NAIP, resolve=resolve)
    items = [sentinel_2_item("a", WHEN)]
    with pytest.raises(
        RuleError, match=r"^naip: resolve raised KeyError\('propertys'\) on the items of request 32NLG-2020-Q1\. Fix"
    ):
        resolved_requests(platform, REQUEST, items, platform.rules.options(), 42)
    assert "Traceback" in caplog.text


def test_resolve_that_meets_a_bad_footprint_fails_the_request_alone() -> None:
    platform = changed(NAIP, resolve=SHARE["resolve"])
    with pytest.raises(RuleError, match=r"invalid footprint \(GEOSException\) in resolve of request 32NLG-2020-Q1"):
        resolved_requests(platform, REQUEST, [crossing("a")], platform.rules.options(), 42)


def test_of_items_that_rank_the_same_the_first_is_taken() -> None:
    items = [sentinel_2_item(name, WHEN) for name in ("b", "a")]
    platform = changed(rank=lambda item, request: (0,))
    assert best_item(platform, items, REQUEST) == (items[0], {})
    assert best_item(platform, [], REQUEST) == (None, {})
