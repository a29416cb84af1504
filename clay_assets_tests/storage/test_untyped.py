"""A table of items holds any mix of types: what fits no column comes back from the column of JSON as it was."""

from __future__ import annotations

import copy
import io
import json
import math
import random
from pathlib import Path
from typing import Any

import duckdb
import geopandas as gpd
import pyarrow.parquet as pq
import pytest
import shapely
import stac_geoparquet.arrow as sga

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.stac import MEMBERS, Item, as_stac_1_1, item_datetime
from clay_assets.storage.stac_geoparquet import decode_items, encode_items
from clay_assets.storage.untyped import TIMES, UNTYPED
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item
from clay_assets_tests.storage.test_stac_geoparquet import rustac_items

WHEN = "2020-06-01T10:00:00Z"
BASELINE = "s2:processing_baseline"


def item_of(name: str, /, **properties: Any) -> Item:
    item = as_stac_1_1(sentinel_2_item(name, WHEN))
    item["properties"].update(properties)
    return item


def table_of(items: list[Item]) -> Any:
    return pq.read_table(io.BytesIO(encode_items(items, {})))


def round_trip(items: list[Item]) -> list[Item]:
    before = copy.deepcopy(items)
    back = decode_items(encode_items(items, {}), "items")
    assert exact(items) == exact(before), "the items given were changed"
    return back


def exact(value: Any, name: str = "") -> Any:
    """A value so that == tells true from 1, and takes 1 for 1.0, one moment for itself, and NaN for NaN.

    A member of an object that is null is as good as none.
    """
    if isinstance(value, dict):
        return {key: exact(entry, key) for key, entry in value.items() if entry is not None}
    if isinstance(value, (list, tuple)):
        return [exact(entry) for entry in value]
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, str) and name in TIMES and value.endswith("Z"):
        return item_datetime({"id": "a", "properties": {"datetime": value}})
    return value


def assert_same(items: list[Item], back: list[Item]) -> None:
    assert [item["id"] for item in back] == [item["id"] for item in items]
    for one, other in zip(items, back, strict=True):
        for member in {*one, *other} - {"properties", "assets", "bbox"}:
            assert exact(other.get(member)) == exact(one.get(member)), member
        for name in {*one["properties"], *other["properties"]}:
            given, got = one["properties"].get(name), other["properties"].get(name)
            assert exact({name: got}) == exact({name: given}), name
        assert exact(other["assets"]) == exact(one["assets"])


PAIRS: dict[str, tuple[Any, Any]] = {
    "text and number": ("05.09", 5),
    "number and text": (5, "05.09"),
    "true and number": (True, 1),
    "number and true": (1, True),
    "fraction and true": (1.5, True),
    "true and fraction": (True, 0.0),
    "object and text": ({"a": 1}, "a"),
    "list and number": ([1], 1),
    "lists of other things": ([1, 2], ["a", "b"]),
    "a list of mixed things": ([1, "a", None, {"b": [True]}], [1]),
    "a list of numbers and true": ([1.5, True], [1.0]),
    "lists of lists": ([[1], 2], [[[1]]]),
    "objects with other members": ({"a": 1}, {"b": "c"}),
    "objects with members of other types": ({"a": 1}, {"a": {"b": 2}}),
    "objects in lists": ([{"a": 1}], [{"a": "b"}]),
    "a large whole number": (2**63, 1),
    "a larger one": (10**30, -1),
    "a large one beside a fraction": (2**53 + 1, 0.5),
    "not a number": (math.nan, "a"),
    "infinite": (math.inf, {"a": -math.inf}),
    "empty objects": ({}, {}),
    "an empty object": ({}, {"a": 1}),
    "empty objects inside": ({"a": {"b": {}}}, {"a": {"b": {}}}),
    "empty objects in a list": ([{}], [{}, {}]),
    "empty lists": ([], [[]]),
    "an empty list and an object": ([], {}),
    "a name that is empty": ({"": 1}, {"": 2}),
    "half of a character": ("\ud83d", "whole"),
    "half of a character in a name": ({"\ud83d": 1}, {}),
    "a null beside others": (None, {"a": None, "b": [None, {"c": None}]}),
    "text with odd characters": ("a\0b\n\u2028é", 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_two_types_of_one_field_in_one_table(pair: tuple[Any, Any]) -> None:
    items = [item_of("a"), item_of("b"), item_of("c")]  # the third has no such field
    for item, value in zip(items, pair, strict=False):
        item["properties"]["x:y"] = copy.deepcopy(value)
        item["properties"]["x:z"] = {"of": [{"the": copy.deepcopy(value)}]}
        item["assets"]["scl"]["x:y"] = copy.deepcopy(value)
        item["links"][0]["x:y"] = copy.deepcopy(value)
    assert_same(items, round_trip(items))
    assert_same(items[::-1], round_trip(items[::-1]))


def test_only_the_field_that_differs_leaves_its_column() -> None:
    items = [item_of("a", **{BASELINE: "05.09"}), item_of("b", **{BASELINE: 5}), item_of("c")]
    table = table_of(items)
    assert BASELINE not in table.column_names
    assert {"id", "datetime", "eo:cloud_cover", "assets"} <= set(table.column_names)
    assert [json.loads(text) if text else None for text in table[UNTYPED].to_pylist()] == [
        {"properties": {BASELINE: "05.09"}},
        {"properties": {BASELINE: 5}},
        None,
    ]
    assert [item["properties"].get(BASELINE) for item in round_trip(items)] == ["05.09", 5, None]


def test_a_table_whose_fields_fit_has_no_such_column() -> None:
    items = [item_of("a", **{"x:y": 1, "x:z": {"q": True, "r": 0.5}}), item_of("b", **{"x:y": 1.5})]
    assert UNTYPED not in table_of(items).column_names
    assert_same(items, round_trip(items))


TIME_FORMS: list[Any] = ["2020-06-01", "2020-06-01T10:00:00", "", "soon", 1591005600, None, [WHEN], {"at": WHEN}, True]


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["of all names", "of each name another"])
@pytest.mark.parametrize("first", range(len(TIME_FORMS)), ids=map(str, TIME_FORMS))
def test_times_in_odd_forms(first: int, together: bool) -> None:
    names = [name for name in TIMES if name != "datetime"]
    odd = {name: TIME_FORMS[first if together else (first + at) % len(TIME_FORMS)] for at, name in enumerate(names)}
    items = [item_of("a", **odd), item_of("b", **dict.fromkeys(names, WHEN)), item_of("c")]
    assert_same(items, round_trip(items))
    assert sga.stac_table_to_items(table_of(items))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2020-06-01", "2020-06-01T00:00:00+00:00"),
        ("2020-06-01T10:00:00", "2020-06-01T10:00:00+00:00"),
        ("2020-06-01T10:00:00.123456789Z", "2020-06-01T10:00:00.123456+00:00"),
        ("20200601T100000Z", "2020-06-01T10:00:00+00:00"),
        ("soon", None),
        (7, None),
    ],
)
@pytest.mark.parametrize("name", ["start_datetime", "created"])
def test_times_keep_their_column(name: str, written: Any, utc: str | None) -> None:
    items = [item_of("a", **{name: written}), item_of("b", **{name: WHEN})]
    column = table_of(items)[name]
    assert str(column.type) == "timestamp[us, tz=UTC]"
    first, second = column.to_pylist()
    assert (first and first.isoformat(), second.isoformat()) == (utc, "2020-06-01T10:00:00+00:00")
    assert round_trip(items)[0]["properties"][name] == written


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MEMBERS, UNTYPED, ""])
def test_a_property_with_the_name_of_a_column_is_not_lost(name: str) -> None:
    items = [item_of("a", **{name: "mine"}), item_of("b", **{name: 7}), item_of("c")]
    assert_same(items, round_trip(items))


POINT = {"type": "Point", "coordinates": [5.0, 6.0]}
TORN = {"type": "Polygon", "coordinates": [[[0, 0]]]}


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, {}, "POINT (5 6)", POINT, {**POINT, "crs": {"a": 1}}, TORN])
def test_projected_geometries_that_some_items_have(value: Any) -> None:
    items = [item_of("a", **{"proj:geometry": value}), item_of("b"), item_of("c", **{"proj:geometry": POINT})]
    items[0]["assets"]["scl"]["proj:geometry"] = value
    del items[1]["assets"]["scl"]
    assert_same(items, round_trip(items))
    assert len(list(sga.stac_table_to_items(table_of(items)))) == 3


def test_projected_geometries_that_all_items_have_stay_geometries() -> None:
    items = [item_of("a", **{"proj:geometry": POINT}), item_of("b", **{"proj:geometry": POINT})]
    assert str(table_of(items).schema.field("proj:geometry").type) == "binary"
    assert_same(items, round_trip(items))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bbox", [None, [], ["6", "0", "7", "1"], [None] * 4, [math.nan] * 4, "6,0,7,1", [6, 0, 9, 7, 1, 9]]
)
def test_a_bounding_box_that_cannot_be_used_is_that_of_the_geometry(bbox: Any) -> None:
    items = [{**item_of("a"), "bbox": bbox}, item_of("b")]
    assert [item["bbox"] for item in round_trip(items)] == [[6, 0, 7, 1]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("depth", [10, 15, 16, 17, 40, 300])
def test_deep_nesting(depth: int) -> None:
    deep: Any = 1
    for level in range(depth):
        deep = {"in": deep} if level % 2 else [deep]
    items = [item_of("a", deep=deep), item_of("b", deep=[deep])]
    back = decode_items(encode_items(items, {}), "items")
    assert json.dumps(back[0]["properties"]["deep"]) == json.dumps(deep)


def test_assets_and_names_that_no_column_can_have() -> None:
    items = [item_of("a"), item_of("b")]
    for name in ("", "\ud800", "a\0b"):
        items[0]["assets"][name] = {"href": "x.tif", "a": {}}
        items[0]["properties"][name] = name
    items[1]["assets"] = {"only": {"href": {"odd": 1}}, "bare": {}}
    assert_same(items, round_trip(items))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"id": 7}, "item with id 7: id is not text"),
        ({"id": "\ud800"}, "id is not text"),
        ({"properties": None}, "a: properties is not an object"),
        ({"assets": {"scl": "x.tif"}}, "a: scl is not an object"),
        ({"bbox": None, "geometry": None}, "a: geometry cannot be stored"),
    ],
)
def test_what_no_table_can_hold_is_named(damage: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        encode_items([{**item_of("a"), **damage}, item_of("b")], {})


# --- a thousand odd items ---------------------------------------------------------------------------


class Odd:
    """Items as no catalogue should write them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        kind = self.random.randrange(14 if depth < 4 else 10)
        if kind >= 12:
            return {self.name(): self.value(depth + 1) for _ in range(self.random.randrange(4))}
        if kind >= 10:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        return self.random.choice(
            [
                *(None, True, False, 0, 1, -1, 1.5, math.nan, math.inf, 2**53 + 1, 2**63, 2**64, -(2**70), 1e300),
                *("", "a", "05.09", "2020-01-01", WHEN, "é\u2028", "\ud800", "a\0b", "null", "{}", {}, [], [None]),
            ]
        )

    def name(self) -> str:
        return self.random.choice(["a", "b", "c", "d", "a.b", "A", "x:y", "id", "", "é", "\ud800", "item", "element"])

    def item(self, number: int) -> Item:
        names = [BASELINE, "gsd", "x:a", "x:b", "x:c", "links", "proj:geometry", UNTYPED, self.name(), *TIMES[1:]]
        item = item_of(f"item-{number}")
        for name in self.random.sample(names, self.random.randrange(8)):
            item["properties"][name] = self.value()
        for name in self.random.sample([*item["assets"], "odd", ""], 3):
            asset = item["assets"].setdefault(name, {"href": "https://example.com/a.tif"})
            asset[self.random.choice(["raster:bands", "eo:bands", "created", "proj:geometry", self.name()])] = (
                self.value()
            )
        if self.random.random() < 0.2:
            del item["assets"]["scl"]
        if self.random.random() < 0.3:
            item["links"].append({"rel": "self", "href": "https://example.com", self.name(): self.value()})
        if self.random.random() < 0.1:
            item["stac_extensions"] = self.random.choice([[7], None, ["a", None], "a", {}])
        if self.random.random() < 0.1:
            item["collection"] = self.value()
        return item


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_odd_items_come_back_and_every_reader_opens_them(seed: int, tmp_path: Path) -> None:
    odd = Odd(seed)
    items = [odd.item(number) for number in range(100)]
    for size in (1, 2, 3, 4, 90):
        group, items = items[:size], items[size:]
        back = round_trip(group)
        assert_same(group, back)
        path = tmp_path / f"{size}.parquet"
        path.write_bytes(encode_items(group, {}))
        ids = [item["id"] for item in group]
        frame = gpd.read_parquet(path)
        assert (frame["id"].tolist(), len(frame.geometry)) == (ids, size)
        assert [item["id"] for item in sga.stac_table_to_items(pq.read_table(path))] == ids
        assert [item["id"] for item in rustac_items(path)] == ids
        assert duckdb.sql(f"select id from '{path}'").fetchall() == [(name,) for name in ids]
    assert not items


# --- readers of stored tables ------------------------------------------------------------------------


def test_scenes_are_found_in_a_table_of_odd_items(tmp_path: Path) -> None:
    items = [
        item_of("a", **{BASELINE: "05.09", "created": "2020-06-02"}),
        item_of("b", **{BASELINE: 5, "created": WHEN}),
        item_of(
            "c", **{BASELINE: {"major": 5}, "datetime": None, "start_datetime": "2020-06-01", "end_datetime": WHEN}
        ),
    ]
    path = tmp_path / "items.parquet"
    path.write_bytes(encode_items(items, {}))
    catalogue, platform = SnapshotCatalogue(str(path)), PLATFORMS[SENTINEL_2]
    start, end = quarter_bounds(2020, 2)
    request = Request("32NLG-2020-Q2", "32NLG", "Q2", start, end, shapely.box(6.2, 0.2, 6.8, 0.8))
    (answer,) = catalogue.search(platform, [request])
    assert sorted(item["id"] for item in answer.candidates) == ["a", "b", "c"]
    whole = catalogue.complete(platform, answer.candidates)
    assert_same([platform.read_item(item) for item in items], sorted(whole, key=lambda item: str(item["id"])))
