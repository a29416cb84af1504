"""Rules over columns give the same result as the rules item by item, even for odd items, and if kept in files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.catalogues import candidate_rows, candidates
from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.eligibility import RuleError, best_candidate
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.processing import Processings
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.scenes.picks import Picks, pick_scenes
from clay_assets.stac import Item
from clay_assets_tests.scenes.items import snapshot

TILE, NEIGHBOUR = shapely.box(6, 0, 7, 1), shapely.box(5.2, 0.5, 6.3, 1.4)
ACROSS = shapely.MultiPolygon([shapely.box(179.5, 0, 180, 1), shapely.box(-180, 0, -179.5, 1)])
PLACES: dict[str, BaseGeometry] = {"32NLG": TILE, "32NLH": NEIGHBOUR, "P": shapely.Point(6.5, 0.5), "1NAA": ACROSS}
DAYS = ("2020-01-01", "2020-02-15", "2020-03-31", "2020-04-01", "2020-12-28")
TIMES = ("00:00:00", "10:00:00", "10:00:00.5", "10:00:01", "23:59:59.999999")
# Values of every type, and at the limits.
ODD: tuple[Any, ...] = (
    None,
    "",
    "  ",
    "x",
    5,
    -1,
    0.0,
    1e308,
    True,
    [],
    ["VV"],
    [None],
    {"a": 1},
    75,
    75.0000001,
    "12",
)
ODD_NUMBERS = (float("nan"), float("inf"), -1.0, 0.0, 20.0, 75.0, 75.0000001)
ODD_TEXTS = ("", "  ", " MGRS-32NLG ", "zzz", " iw ")
PROPERTIES: dict[str, dict[str, tuple[Any, ...]]] = {
    "sentinel-2-l2a": {
        "eo:cloud_cover": (3.0, 3.0, 40.5, 80.0),
        "s2:nodata_pixel_percentage": (0.0, 0.0, 12.0, 30.0),
        "sentinel2:nodata_pixel_percentage": (0.0, 21.0),
        "grid:code": ("MGRS-32NLG", "MGRS-32NLG", "MGRS-32NLH", "MGRS-01NAA", "MGRS-1NAA"),
        "platform": ("sentinel-2a", "Sentinel-2A", "sentinel-2b"),
        "s2:processing_baseline": ("02.14", "05.00"),
        "created": ("2022-11-06T07:22:17Z", "2023-09-22T22:19:53Z"),
    },
    "landsat": {
        "eo:cloud_cover": (3.0, -1.0, 40.5, 80.0),
        "platform": ("LANDSAT_8", "landsat-9", "LANDSAT_7"),
        "eo:platform": ("LANDSAT_8",),
        "view:sun_elevation": (30.0, -3.0),
        "eo:sun_elevation": (10.0,),
        "landsat:scene_id": ("LC80470272020046LGN00",),
    },
    "sentinel-1-rtc": {
        "sar:instrument_mode": ("IW", "IW", "EW", "iw "),
        "sar:polarizations": (["VV", "VH"], ["VH", "VV"], ["VV"], ["HH", "HV"]),
        "platform": ("SENTINEL-1A", "sentinel-1b"),
        "s1:orbit_source": ("RESORB", "POEORB"),
    },
    "modis": {
        "platform": ("terra", "Terra", "aqua"),
        "modis:vertical-tile": (4, 5),
        "modis:horizontal-tile": (18, 19),
    },
}
IDS = {
    "sentinel-2-l2a": ("S2A_32NLG_{day}_{n}_L2A", "S2B_T32NLG_{day}_{n}_L2A", "item-{n}"),
    "landsat": ("LC08_L2SP_04702{d}_{day}_2021031{d}_02_T1_{n}", "LC09_L2SP_047026_{day}_20210313_02_RT", "x{n}"),
    "sentinel-1-rtc": ("S1A_IW_GRDH_1SDV_{day}T_{n}", "y{n}"),
    "naip": ("al_m_3008501_ne_16_060_{day}", "al_m_3008501_ne_16_060_{day}_2020010{d}", "z{n}"),
    "modis": ("MOD09A1.A2020001.h18v04.061.2020042{n:06}", "MYD09A1.A2020001.h18v04.061.2020042{n:06}", "q{n}"),
    "linz": ("sheet-{n}", "sheet-3"),
}


def family(key: str) -> str:
    return "landsat" if key.startswith("landsat") else key


def geometry(draw: random.Random) -> Any:
    west, south = draw.uniform(4.5, 7), draw.uniform(-0.8, 1)
    shapes = (
        *[shapely.geometry.mapping(shapely.box(west, south, west + 1.2, south + 1.1))] * 6,
        shapely.geometry.mapping(TILE),
        shapely.geometry.mapping(shapely.MultiPolygon([shapely.box(6, 0, 6.4, 1), shapely.box(6.6, 0, 7, 1)])),
        shapely.geometry.mapping(TILE.buffer(0.1).difference(TILE.buffer(-0.1))),
        {"type": "Polygon", "coordinates": [[[6, 0], [7, 1], [7, 0], [6, 1], [6, 0]]]},  # self-intersecting
        {"type": "Polygon", "coordinates": [[[6, 0, 5], [7, 0, 5], [7, 1, 5], [6, 1, 5], [6, 0, 5]]]},
        {"type": "Polygon", "coordinates": [[[179, -1], [-179, -1], [-179, 2], [179, 2], [179, -1]]]},
        {"type": "Polygon", "coordinates": [[[366, 0], [367, 0], [367, 1], [366, 1], [366, 0]]]},
        {"type": "Point", "coordinates": [6.5, 0.5]},
        {"type": "LineString", "coordinates": [[6, 0], [7, 1]]},
    )
    return draw.choice(shapes)


def assets(draw: random.Random, platform: AnyPlatform, name: str) -> dict[str, Any]:
    old = {meant: alias for alias, meant in platform.assets.aliases.items()} if draw.random() < 0.3 else {}
    given: dict[str, Any] = {
        old.get(asset, asset): {"href": f"https://example.com/{name}/{asset}.tif", "title": asset}
        for asset in platform.asset_names
    }
    if draw.random() < 0.2:
        given[draw.choice(list(given))] = draw.choice(({"href": ""}, {"title": "no href"}, {"href": "./a.tif"}))
    if draw.random() < 0.2:
        del given[draw.choice(list(given))]
    return given


def hostile_items(key: str, count: int, seed: int, *, mixed: bool) -> Iterator[Item]:
    """Items of a platform, some with odd values, or with mixed types, which no column can hold."""
    draw, platform = random.Random(f"{key} {seed} {mixed}"), PLATFORMS[key]
    names: list[str] = []
    for n in range(count):
        day = draw.choice(DAYS)
        name = draw.choice(IDS[family(key)]).format(n=n, d=n % 10, day=day.replace("-", ""))
        name = draw.choice([name] * 30 + [*names[:1], "é" * 200 + str(n)])
        names.append(name)
        properties = {
            field: draw.choice(values)
            for field, values in PROPERTIES.get(family(key), {}).items()
            if draw.random() < 0.9
        }
        for field in draw.sample(sorted(properties), k=min(len(properties), draw.choice((0, 0, 0, 1, 2)))):
            value = properties[field]
            odd = ODD_NUMBERS if isinstance(value, float) else ODD_TEXTS if isinstance(value, str) else (value,)
            properties[field] = draw.choice(ODD if mixed else odd)
        when = f"{day}T{draw.choice(TIMES)}Z"
        times = {"datetime": None, "start_datetime": when, "end_datetime": when} if draw.random() < 0.05 else {}
        footprint = geometry(draw)
        yield {
            "type": "Feature",
            "stac_version": draw.choice(("1.0.0", "1.1.0")),
            "stac_extensions": [],
            "id": name,
            "collection": platform.scenes.collection or "any",
            "geometry": footprint,
            "bbox": list(shapely.geometry.shape(footprint).bounds),
            "properties": {"datetime": when, **times, **properties},
            "links": [{"rel": "self", "href": "https://example.com/item.json"}],
            "assets": assets(draw, platform, name),
        }


def requests(key: str) -> list[Request]:
    made = []
    for name, place in PLACES.items():
        filters: list[tuple[dict[str, Any], ...]] = [()]
        if key == "sentinel-2-l2a":
            filters.append(({"grid:code": f"MGRS-{name}"}, {"grid:code": f"MGRS-{name.zfill(5)}"}))
        if key == "modis":
            filters = [({"modis:vertical-tile": row, "modis:horizontal-tile": 18},) for row in (4, 5)]
        for quarter in (1, 2, 4):
            for number, wanted in enumerate(filters):
                where = "sheet-3" if key == "linz" else name
                period = quarter_bounds(2020, quarter)
                made.append(Request(f"{name}-{quarter}-{number}", where, "q", *period, place, wanted))
    return made


def item_by_item(platform: AnyPlatform) -> AnyPlatform:
    return replace(platform, rules=replace(platform.rules, columns=None))


def picks(platform: AnyPlatform, location: str) -> Picks:
    return pick_scenes(platform, 2020, requests(platform.key), SnapshotCatalogue(location), platform.rules.options())


def assert_same(one: Picks, other: Picks) -> None:
    assert one.ledger.to_json(orient="records") == other.ledger.to_json(orient="records")
    assert json.dumps(one.items) == json.dumps(other.items)


@pytest.fixture(scope="module", params=sorted(PLATFORMS))
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["one type", "mixed types"])
def location(request: pytest.FixtureRequest, key: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A snapshot of hostile items in two files with different columns."""
    folder = tmp_path_factory.mktemp("hostile")
    mixed = request.param == "mixed types"
    for seed in range(2):
        snapshot(folder / f"{seed}.parquet", list(hostile_items(key, 100, seed, mixed=mixed)))
    return str(folder)


@pytest.fixture(scope="module")
def by_columns(key: str, location: str) -> Picks:
    """By the rules over columns, in memory."""
    return picks(PLATFORMS[key], location)


def test_every_platform_of_this_package_declares_its_rules_over_columns() -> None:
    assert all(platform.rules.by_columns for platform in PLATFORMS.values())


@pytest.mark.slow
def test_columns_say_what_the_rules_say_of_every_item(key: str, location: str, by_columns: Picks) -> None:
    assert_same(by_columns, picks(item_by_item(PLATFORMS[key]), location))
    assert len({reason for text in by_columns.ledger["rejected"] for reason in json.loads(text)}) > 1
    assert (by_columns.ledger["outcome"] == "picked").any()


@pytest.mark.slow
def test_what_columns_know_of_candidates_is_what_their_items_say(
    key: str, location: str, request: pytest.FixtureRequest
) -> None:
    platform = item_by_item(PLATFORMS[key])
    processings = platform.rules.processings and replace(platform.rules.processings, apart=None, acquisition=None)
    unaided = replace(platform, rules=replace(platform.rules, processings=processings))
    known = 0
    for answer in SnapshotCatalogue(location).search(platform, requests(key)):
        known += sum(answer.sound)
        assert chosen(platform, answer) == chosen(unaided, replace(answer, sound=()))
    assert known or request.node.callspec.params["location"] == "mixed types"


def chosen(platform: AnyPlatform, answer: Answer) -> Any:
    try:
        return best_candidate(platform, answer, platform.rules.options())
    except RuleError as error:
        return str(error)


@pytest.mark.parametrize("rule", ["refuse", "rank", "processings"])
def test_a_rule_that_is_replaced_is_not_overruled_by_columns(key: str, rule: str) -> None:
    rules = PLATFORMS[key].rules
    other: Any = Processings(lambda item: None) if rule == "processings" else lambda *_: None
    assert replace(rules, **{rule: other}).by_columns is None
    assert rules.by_columns is not None


@pytest.mark.slow
def test_candidates_in_files_are_those_in_memory(
    key: str, location: str, by_columns: Picks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "IN_MEMORY", 1)
    for platform in (PLATFORMS[key], item_by_item(PLATFORMS[key])):
        assert_same(picks(platform, location), by_columns)


@pytest.mark.slow
def test_files_are_removed_also_where_the_caller_stops(
    location: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "IN_MEMORY", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answers = SnapshotCatalogue(location).search(PLATFORMS[key], requests(key))
    next(answers)
    assert list(tmp_path.iterdir())
    answers.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (float, pa.array([1.5, None, float("nan"), float("inf"), -0.0])),
        (float, pa.array([1, None, 2**60])),
        (float, pa.array([True, None])),
        (float, pa.array(["1", None, ""])),
        (int, pa.array([1.0, 1.5, None, float("nan"), 1e300])),
        (int, pa.array([1, None, -5], pa.int8())),
        (str, pa.array(["a", " a ", "", None, "\x1f", "\u00a0b"])),
        (str, pa.array([1.5, None])),
        (list[str], pa.array([["a"], [], None, [None], ["a", "b"]])),
        (list[str], pa.array([[1], None])),
    ],
)
def test_a_value_is_odd_if_its_declaration_says_so(kind: Any, values: pa.Array) -> None:
    from clay_assets.platforms.properties import Property, is_given

    declared = Property("x", kind)
    _, wrong, given = candidate_rows._typed(values, kind)
    for value, is_wrong, is_there in zip(values.to_pylist(), wrong.tolist(), given.tolist(), strict=True):
        if declared.problem({"x": value}):
            assert is_wrong
        assert is_there or not is_given(value)


def test_numbers_and_texts_are_the_first_that_an_item_has() -> None:
    from clay_assets.platforms.column_rules import Candidates

    properties = {
        "a": np.array([1.0, np.nan, np.nan]),
        "b": np.array([2.0, 3.0, np.nan]),
        "t": np.array(["x", "", ""], dtype=object),
        "u": np.array(["y", "z", ""], dtype=object),
    }
    ids = np.array(["i"] * 3, dtype=object)
    rows = Candidates(ids, np.zeros(3, np.int64), properties, lambda: ids, [], np.zeros(3, np.int64))
    assert rows.numbers("a", "none", "b").tolist()[:2] == [1.0, 3.0]
    assert np.isnan(rows.numbers("a", "b")[2])
    assert rows.texts("t", "u").tolist() == ["x", "z", ""]
