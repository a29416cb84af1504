"""Valid values of declared properties, and the reasons for items that violate a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.properties import Property, is_number

CLOUD = "eo:cloud_cover"
NODATA = ("s2:nodata_pixel_percentage", "sentinel2:nodata_pixel_percentage")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (float, 12.5),
        (float, 12),
        (float, -1),
        (float, 0.0),
        (int, 12),
        (int, 12.0),  # as in a table in which others are null
        (int, -3),
        (str, "IW"),
        (str, ""),
        (bool, True),
        (list[str], ["VV", "VH"]),
        (list[str], ("VV",)),
        (list[str], []),
    ],
)
def test_values_that_fit(kind: Any, value: Any) -> None:
    assert Property(CLOUD, kind).problem({CLOUD: value}) is None


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (float, "12.5", "text, expected a number"),
        (float, float("nan"), "not finite, expected a number"),
        (float, float("inf"), "not finite, expected a number"),
        (float, float("-inf"), "not finite, expected a number"),
        (float, 10**400, "not finite, expected a number"),  # valid in JSON, out of range for floats
        (float, True, "true or false, expected a number"),
        (float, [12.5], "a list of other values, expected a number"),
        (float, {"mean": 3}, "an object, expected a number"),
        (float, Decimal("12.5"), "Decimal, expected a number"),
        (int, 12.5, "a number, expected a whole number"),
        (int, float("nan"), "not finite, expected a whole number"),
        (int, False, "true or false, expected a whole number"),
        (int, "12", "text, expected a whole number"),
        (str, 12, "a number, expected text"),
        (str, ["IW"], "a list of text, expected text"),
        (bool, 1, "a number, expected true or false"),
        (bool, "true", "text, expected true or false"),
        (list[str], "VV", "text, expected a list of text"),
        (list[str], ["VV", None], "a list of other values, expected a list of text"),
        (list[str], [1, 2], "a list of other values, expected a list of text"),
    ],
)
def test_values_that_do_not_fit(kind: Any, value: Any, said: str) -> None:
    assert Property(CLOUD, kind).problem({CLOUD: value}) == f"property {CLOUD}: {said}"


EMPTY: tuple[Any, ...] = (None, "", " ", [], (), {})


@pytest.mark.parametrize("properties", [{}, *({CLOUD: empty} for empty in EMPTY)])
def test_a_missing_value_counts_only_where_it_is_required(properties: Mapping[str, Any]) -> None:
    assert Property(CLOUD, float).problem(properties) is None
    assert Property(CLOUD, float, required=True).problem(properties) == f"property {CLOUD}: missing"


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({NODATA[0]: 3}, None),
        ({NODATA[1]: 3}, None),
        ({NODATA[0]: None, NODATA[1]: 3}, None),
        ({NODATA[0]: 3, NODATA[1]: 4}, None),
        ({}, f"property {NODATA[0]} or {NODATA[1]}: missing"),
        ({NODATA[0]: None}, f"property {NODATA[0]} or {NODATA[1]}: missing"),
        ({NODATA[0]: 3, NODATA[1]: "4"}, f"property {NODATA[1]}: text, expected a number"),
    ],
)
def test_one_of_several_names_suffices_and_all_must_fit(properties: Mapping[str, Any], said: str | None) -> None:
    assert Property(NODATA, float, required=True).problem(properties) == said


@pytest.mark.parametrize("kind", [bytes, list, list[int], dict[str, str], None, "float"])
def test_a_type_that_cannot_be_declared_is_named(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"property a: type .* is not one of float, int, str, bool, list"):
        Property("a", kind)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, True),
        (-1.5, True),
        (float("nan"), False),
        (float("inf"), False),
        (10**400, False),
        (True, False),
        ("1", False),
        (None, False),
    ],
)
def test_numbers_are_finite_and_no_truth_values(value: Any, expected: bool) -> None:
    assert is_number(value) is expected


def test_names_are_those_of_all_declarations() -> None:
    rules = PLATFORMS["sentinel-2-l2a"].rules
    assert rules.processings is not None
    assert rules.property_names == (CLOUD, "grid:code", *NODATA, *rules.processings.properties)
    assert PLATFORMS["linz"].rules.property_names == ()


def test_a_missing_value_is_for_our_platforms_to_judge() -> None:
    """Their ledgers have reasons such as "cloud cover unknown"."""
    assert not [one for platform in PLATFORMS.values() for one in platform.rules.properties if one.required]
