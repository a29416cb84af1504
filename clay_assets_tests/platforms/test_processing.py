"""Only the newest processing of an acquisition is a candidate, whatever its cloud cover."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely

from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.choice import OLDER
from clay_assets.catalogues.eligibility import best_candidate, eligible_items
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.platforms.base import Request
from clay_assets.platforms.processing import Processing, superseded, time_of, version_of
from clay_assets.scenes.picks import pick_scenes
from clay_assets.stac import Item
from clay_assets_tests.platforms.factories import item, request
from clay_assets_tests.scenes.items import (
    LANDSAT_L1,
    LANDSAT_L2,
    MODIS,
    NAIP,
    REAL_FILES,
    SENTINEL_1,
    SENTINEL_2,
    landsat_item,
    real_items,
    sentinel_2_item,
    snapshot,
)

WHEN = "2020-05-01T18:04:03.406Z"
S2 = "S2B_32NLG_20200501_{}_L2A"
PRODUCT = "S2B_MSIL2A_20200501T174909_{}_R141_T32NLG_{}.SAFE"


def taken(key: str, *items: Item, asked: Request | None = None, **options: Any) -> tuple[list[str], dict[str, int]]:
    """Ids of the eligible items, and the number of refused ones by reason."""
    one = platform_of(key)
    answer = Answer(asked or request(), [one.read_item(document) for document in items])
    found, rejected = eligible_items(one, answer, one.rules.options(**options))
    return [document["id"] for document in found], dict(rejected)


def both_ways(key: str, older: Item, newer: Item, **arguments: Any) -> None:
    """Assert that the newer one is picked, in either order."""
    for pair in ((older, newer), (newer, older)):
        assert taken(key, *pair, **arguments) == ([newer["id"]], {OLDER: 1})


def s2(sequence: int | str, cloud: float = 10.0, when: str = WHEN, **properties: Any) -> Item:
    return sentinel_2_item(S2.format(sequence), when, cloud, **properties)


# --- which is the newest ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"s2:processing_baseline": "02.14"}, {"s2:processing_baseline": "05.00"}),
        ({"s2:processing_baseline": "02.14"}, {"s2:processing_baseline": 5}),
        ({"s2:processing_baseline": "9.09"}, {"s2:processing_baseline": "10.00"}),  # compared as versions, not as text
        ({"s2:processing_baseline": 5.09}, {"s2:processing_baseline": "05.10"}),
        ({"sentinel2:processing_baseline": "02.11"}, {"s2:processing_baseline": "02.14"}),
        ({"s2:product_uri": PRODUCT.format("N0214", "20200501T220131")}, {"s2:processing_baseline": "05.00"}),
        ({"s2:datatake_id": "GS2B_20200501T174909_016469_N02.14"}, {"s2:processing_baseline": "05.00"}),
        (
            {"sentinel:product_id": PRODUCT.format("N0211", "20200501T220131").removesuffix(".SAFE")},
            {"s2:product_uri": PRODUCT.format("N0211", "20200502T010203")},
        ),
        ({"s2:generation_time": "2020-05-01T22:01:31Z"}, {"s2:generation_time": "2023-05-04T03:28:18.000000Z"}),
        # The catalogue added the older one later: the product's own evidence takes precedence.
        (
            {"s2:processing_baseline": "02.14", "created": "2024-01-01T00:00:00Z"},
            {"s2:processing_baseline": "05.00", "created": "2023-09-22T22:19:53Z"},
        ),
        ({"created": "2022-11-06"}, {"created": "2023-09-22T22:19:53.321Z"}),
        ({"created": "2022-11-06T07:22:17Z", "updated": "2022-11-06T07:22:17Z"}, {"updated": "2023-09-22T00:00:00"}),
        (
            {"s2:processing_baseline": []},
            {"s2:processing_baseline": "05.00"},
        ),  # then the number in the id
        ({"created": ""}, {"created": "2023-09-22T22:19:53.321Z"}),
        ({}, {}),
    ],
)
def test_of_sentinel_2_the_highest_baseline_is_taken(older: dict[str, Any], newer: dict[str, Any]) -> None:
    both_ways(SENTINEL_2, s2(0, 1.0, **older), s2(1, 50.0, **newer))


@pytest.mark.parametrize(
    "changes",
    [
        {"when": "2020-05-01T18:04:13.406Z"},  # the other datastrip of the tile
        {"when": "2020-05-01T19:44:00Z"},  # the next orbit, far in the north
        {"platform": "sentinel-2a"},
    ],
)
def test_another_acquisition_of_the_day_is_a_candidate_too(changes: dict[str, Any]) -> None:
    assert taken(SENTINEL_2, s2(0), s2(1, **changes)) == ([S2.format(0), S2.format(1)], {})


@pytest.mark.parametrize("when", ["2020-05-01T18:04:03Z", "2020-05-01T18:04:04.1Z", "2020-05-01T20:04:03.406+02:00"])
def test_sensing_times_are_compared_to_a_second(when: str) -> None:
    both_ways(SENTINEL_2, s2(0, 1.0, when), s2(1, 50.0))


def test_processings_that_nothing_tells_apart_are_both_candidates() -> None:
    same: dict[str, Any] = {"s2:processing_baseline": "05.00", "created": "2023-01-01T00:00:00Z"}
    assert taken(SENTINEL_2, s2("0", **same), sentinel_2_item("S2B_T32NLG_X_L2A", WHEN, **same)) == (
        [S2.format(0), "S2B_T32NLG_X_L2A"],
        {},
    )


@pytest.mark.parametrize("key", [LANDSAT_L1, LANDSAT_L2])
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("LC08_L1TP_193026_20200501_20200504_02_RT", "LC08_L1TP_193026_20200501_20200509_02_T1"),
        ("LC08_L1GT_193026_20200501_20200501_02_RT", "LC08_L1TP_193026_20200501_20200501_02_T2"),
        ("LC08_L1TP_193026_20200501_20200509_01_T1", "LC08_L1TP_193026_20200501_20200509_02_T1"),
        ("LC08_L2SP_193026_20200501_20200509_02_T2_SR", "LC08_L2SP_193026_20200501_20210313_02_T1_SR"),
        ("LC08_L2SP_193026_20200501_20200509_02_T1_SR", "LC08_L2SP_193026_20200501_20210313_02_T1"),
    ],
)
def test_of_landsat_the_date_of_processing_tells(key: str, older: str, newer: str) -> None:
    first = landsat_item(older, "2020-05-01", 1.0)  # old items only have the day
    both_ways(key, first, landsat_item(newer, "2020-05-01T10:05:46.732651Z", 50.0))


def test_other_scenes_of_landsat_are_other_acquisitions() -> None:
    names = [
        "LC08_L2SP_193026_20200501_20200509_02_T1_SR",
        "LC08_L2SP_193027_20200501_20210313_02_T1_SR",  # next row
        "LC08_L2SP_193026_20200517_20210313_02_T1_SR",
        "LC09_L2SP_193026_20200501_20210313_02_T1_SR",
    ]
    assert taken(LANDSAT_L2, *(landsat_item(name, "2020-05-01T10:00:00Z") for name in names)) == (names, {})


def test_of_landsat_items_without_a_product_name_the_scene_tells() -> None:
    scene: dict[str, Any] = {"landsat:scene_id": "LC81930262020122LGN00"}
    older = landsat_item("a", "2020-05-01", 1.0, **scene, created="2021-07-26T00:31:22Z")
    both_ways(LANDSAT_L2, older, landsat_item("b", "2020-05-01", 50.0, **scene, created="2022-01-01T00:00:00Z"))


MODIS_TILE = {"modis:vertical-tile": 10, "modis:horizontal-tile": 19, "start_datetime": "2022-02-02T00:00:00Z"}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (("MOD09A1.A2022033.h19v10.061.2022042043514", {}), ("MOD09A1.A2022033.h19v10.061.2022050000000", {})),
        (("MOD09A1.A2022033.h19v10.006.2022050000000", {}), ("MOD09A1.A2022033.h19v10.061.2022042043514", {})),
        (
            ("MOD09A1.A2022033.h19v10.061", {"created": "2022-02-11T04:35:14Z"}),
            ("MOD09A1.A2022033.h19v10.061.2022050000000", {"platform": ""}),
        ),
    ],
)
def test_of_modis_the_time_of_production_tells(
    older: tuple[str, dict[str, Any]], newer: tuple[str, dict[str, Any]]
) -> None:
    asked = request("h19v10", year=2022, filters=({"modis:vertical-tile": 10, "modis:horizontal-tile": 19},))
    names = PLATFORMS["modis"].asset_names
    pair = [
        item(name, MODIS, None, names, **{**MODIS_TILE, "platform": "terra", **said}) for name, said in (older, newer)
    ]
    both_ways("modis", *pair, asked=asked)


def test_of_naip_the_date_of_delivery_tells() -> None:
    name = "al_m_3008501_ne_16_060_20200501"
    documents = [item(f"{name}{made}", NAIP, WHEN, ["image"]) for made in ("", "_20200601", "_20210114")]
    for order in itertools.permutations(documents):
        assert taken("naip", *order) == ([documents[2]["id"]], {OLDER: 2})
    others = [item(other, NAIP, WHEN, ["image"]) for other in (name, name.replace("_060_", "_030_"), f"{name[:-2]}02")]
    assert taken("naip", *others)[1] == {}


SAR = {"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"], "platform": "SENTINEL-1A"}


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({"s1:orbit_source": "PREORB"}, {"s1:orbit_source": "RESORB"}),
        ({"s1:orbit_source": "RESORB", "platform": None}, {"s1:orbit_source": "POEORB", "sar:polarizations": []}),
        ({"created": "2020-05-02T00:00:00Z"}, {"created": "2020-06-02T00:00:00Z"}),
    ],
)
def test_of_sentinel_1_the_last_in_the_catalogue_or_the_better_orbit_tells(
    older: dict[str, Any], newer: dict[str, Any]
) -> None:
    name = "S1A_IW_GRDH_1SDV_20200501T180349_20200501T180414_053498_067DF2_{}_rtc"
    pair = [
        item(name.format(suffix), SENTINEL_1, WHEN, ["vv", "vh"], **{**SAR, **said})
        for suffix, said in (("5AB3", older), ("09F1", newer))
    ]
    both_ways(SENTINEL_1, *pair)


# --- what it decides --------------------------------------------------------------------------------


def test_the_older_is_not_taken_because_the_newer_is_refused() -> None:
    older = s2(0, 1.0, **{"s2:processing_baseline": "02.14"})
    newer = s2(1, 99.0, **{"s2:processing_baseline": "05.00"})
    refused = {OLDER: 1, "cloud cover above 75 %": 1}
    assert taken(SENTINEL_2, older, newer) == ([], refused)
    assert taken(SENTINEL_2, newer, older) == ([], refused)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"without": ("scl",)}, "without asset scl"),
        ({"s2:nodata_pixel_percentage": "few"}, "property s2:nodata_pixel_percentage: text, expected a number"),
    ],
)
def test_a_newer_item_that_cannot_be_read_leaves_the_older_in_place(fault: dict[str, Any], reason: str) -> None:
    assert taken(SENTINEL_2, s2(0), s2(1, **fault)) == ([S2.format(0)], {reason: 1})


def test_a_second_that_is_older_does_not_hide_a_third_acquisition() -> None:
    one = platform_of(SENTINEL_2)
    found = [s2(0, 1.0), s2(1, 50.0), s2(0, 20.0, "2020-05-11T18:04:03Z") | {"id": "S2B_32NLG_20200511_0_L2A"}]
    best, rejected = best_candidate(one, Answer(request(), found), one.rules.options())
    assert best is not None
    assert best["id"] == "S2B_32NLG_20200511_0_L2A"
    assert rejected == {OLDER: 1}


def test_no_order_of_evidence_leaves_an_acquisition_without_a_candidate() -> None:
    rng = np.random.default_rng(11)
    for _ in range(300):
        told = [
            Processing(
                ("32NLG",), datetime.fromisoformat(WHEN), tuple(float(n) or None for n in rng.integers(4, size=3))
            )
            for _ in range(rng.integers(1, 6))
        ]
        older = superseded(told)
        assert not all(older)
        for order in itertools.permutations(range(len(told)), len(told)):
            again = superseded([told[number] for number in order])
            assert [older[number] for number in order] == again
    assert superseded([None, None]) == [False, False]
    assert superseded([]) == []


@pytest.mark.parametrize("value", [None, "", " ", "x", [], ["05.00"], {}, True, float("nan"), 10**400, -5, pd.NaT])
def test_values_that_tell_nothing(value: Any) -> None:
    assert version_of(value) is None
    assert time_of(value) is None
    for platform in PLATFORMS.values():
        if platform.rules.processings is not None:
            told = dict.fromkeys(platform.rules.processings.properties, value) | {"datetime": WHEN}
            for name in ("a", S2.format(0), "LC08_L1TP_193026_20209999_20200504_02_RT", "MOD09A1.A2022033.h19v10.061"):
                platform.rules.processings.tell({"id": name, "properties": told})


@pytest.mark.parametrize("value", [pd.Timestamp("2020-01-01", tz="UTC"), "2020-01-01", '"2020-01-01T00:00:00Z"'])
def test_times_of_tables_and_of_json_are_the_same(value: Any) -> None:
    assert time_of(value) == datetime.fromisoformat("2020-01-01T00:00:00Z").timestamp()


# --- real items -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_the_real_pair_the_reprocessed_item_is_picked(real_data: Path, tmp_path: Path) -> None:
    """Even if the older one is less cloudy, and if both come from a snapshot with typed columns."""
    pair = [one for one in real_items(real_data, SENTINEL_2) if one["id"].startswith("S2B_13SDV_20200501_")]
    assert [one["properties"]["s2:processing_baseline"] for one in pair] == ["02.14", "05.00"]
    pair[1]["properties"]["eo:cloud_cover"] = 60.0
    one = platform_of(SENTINEL_2)
    point = shapely.geometry.shape(pair[0]["geometry"]).representative_point()
    asked = request("13SDV", point, filters=({"grid:code": "MGRS-13SDV"},))
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "pair.parquet", pair))
    for highest in (75.0, 20.0):
        options = one.rules.options(max_cloud_cover=highest, max_scene_nodata=100)
        (row,) = pick_scenes(one, 2020, [asked], catalogue, options).ledger.to_dict("records")
        assert row["candidates"] == 2
        assert OLDER in row["rejected"]
        assert row["outcome"] == ("picked" if highest > 60 else "none")
    assert row["reason"] == f"1 × cloud cover above 20 %; 1 × {OLDER}"


@pytest.mark.slow
def test_times_out_of_a_snapshot_tell_it_too(real_data: Path, tmp_path: Path) -> None:
    """In a snapshot `created` and `updated` are columns of timestamps; from an API they are text."""
    pair = [one for one in real_items(real_data, SENTINEL_2) if one["id"].startswith("S2B_13SDV_20200501_")]
    for found, cloud in zip(pair, (1.0, 60.0), strict=True):
        kept = {name: found["properties"][name] for name in ("datetime", "created", "updated", "grid:code", "platform")}
        found["properties"] = {**kept, "eo:cloud_cover": cloud, "s2:nodata_pixel_percentage": 0.0}
    # Swap the sequence numbers, so that the ids would decide the other way.
    pair[0]["id"], pair[1]["id"] = "S2B_13SDV_20200501_1_L2A", "S2B_13SDV_20200501_0_L2A"
    one = platform_of(SENTINEL_2)
    point = shapely.geometry.shape(pair[0]["geometry"]).representative_point()
    asked = request("13SDV", point, filters=({"grid:code": "MGRS-13SDV"},))
    picks = pick_scenes(
        one, 2020, [asked], SnapshotCatalogue(snapshot(tmp_path / "pair.parquet", pair)), one.rules.options()
    )
    assert [item["id"] for item in picks.items] == ["S2B_13SDV_20200501_0_L2A"]
    assert picks.ledger["rejected"].tolist() == [f'{{"{OLDER}": 1}}']


@pytest.mark.parametrize(("collection", "pairs"), [(name, int(name == SENTINEL_2)) for name in REAL_FILES])
def test_every_real_item_tells_its_acquisition(real_data: Path, collection: str, pairs: int) -> None:
    key = next(key for key, platform in PLATFORMS.items() if platform.scenes.collection == collection)
    processings = PLATFORMS[key].rules.processings
    assert processings is not None
    told = [processings.tell(one) for one in real_items(real_data, collection)]
    assert None not in told
    assert Counter(superseded(told))[True] == pairs
