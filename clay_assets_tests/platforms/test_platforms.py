"""Which items each platform picks, how it ranks them, and how it masks pixels; with synthetic and real items."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import request_table, requests_in
from clay_assets.platforms.sentinel_2_l2a import grid_codes, tile_of
from clay_assets.settings import Settings
from clay_assets.stac import item_datetime
from clay_assets_tests.scenes.items import (
    LANDSAT_ASSETS,
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL_2,
    SENTINEL_2_ASSETS,
    Properties,
    landsat_item,
    real_items,
    sentinel_2_item,
)

WHEN = "2020-02-03T10:00:00Z"


def request(location: str = "32NLG") -> Request:
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 4, 1, tzinfo=UTC)
    return Request(f"{location}-2020-Q1", location, "Q1", start, end, shapely.box(6, 0, 7, 1))


def refusal(key: str, item: dict[str, Any], location: str = "32NLG", **options: Any) -> str | None:
    one = platform_of(key)
    return one.rules.refuse(item, request(location), one.rules.options(**options))


def test_an_unknown_platform_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown platform 'landsat'; known: landsat-c2l1, .*sentinel-2-l2a"):
        platform_of("landsat")


def test_the_seven_platforms() -> None:
    assert {
        key: (one.scenes.collection, one.scenes.catalogue, one.scenes.sample) for key, one in PLATFORMS.items()
    } == {
        "landsat-c2l1": ("landsat-c2l1", "stac_usgs", "mgrs_sample"),
        "landsat-c2l2-sr": ("landsat-c2l2-sr", "stac_usgs", "mgrs_sample"),
        "linz": (None, "linz_catalog", "linz_sample"),
        "modis": ("modis-09A1-061", "stac_planetary_computer", "modis_sample"),
        "naip": ("naip", "stac_planetary_computer", "naip_sample"),
        "sentinel-1-rtc": ("sentinel-1-rtc", "stac_planetary_computer", "mgrs_sample"),
        "sentinel-2-l2a": ("sentinel-2-l2a", "stac_earth_search", "mgrs_sample"),
    }
    assert [len(one.assets.bands) for one in PLATFORMS.values()] == [6, 6, 1, 7, 1, 2, 10]


def test_each_platform_is_complete() -> None:
    for key, one in PLATFORMS.items():
        assert one.key == key
        assert one.scenes.catalogue in Settings.model_fields
        assert one.assets.grid in one.asset_names
        assert set(one.quality.assets) | set(one.assets.bands) == set(one.asset_names)
        assert len(one.asset_names) == len(set(one.asset_names))
        assert set(one.assets.optional) < set(one.asset_names)
        assert set(one.assets.aliases.values()) <= set(one.asset_names)
        # Platforms with a derivation have derived imagery by default, others never.
        assert (one.files.derivation is None) == (one.rules.options().imagery != "derived")
        assert one.typical.image_bytes > 0
        assert (one.typical.derived_bytes > 0) == (one.files.derivation is not None)
        assert min(one.typical.height, one.typical.width) > 256
    assert list(PLATFORMS[SENTINEL_2].asset_names) == SENTINEL_2_ASSETS
    assert list(PLATFORMS[LANDSAT_L1].asset_names) == list(PLATFORMS[LANDSAT_L2].asset_names) == LANDSAT_ASSETS


def test_requests_come_back_from_their_table() -> None:
    start, end = datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)
    filters: tuple[dict[str, str | int], ...] = ({"grid:code": "a"}, {"modis:vertical-tile": 3})
    asked = [
        Request("b-1", "b", "M02", start, end, shapely.Point(1, 2)),
        Request("a-1", "a", "M02", start, end, shapely.box(6, 0, 7, 1), filters, 2**64 - 1),
    ]
    assert requests_in(request_table("modis", asked)) == asked[::-1]
    assert request_table("modis", asked)["year"].tolist() == [2020, 2020]
    assert requests_in(request_table("modis", [])) == []


@pytest.mark.parametrize("key", sorted(set(PLATFORMS) - {LANDSAT_L1, LANDSAT_L2}))  # Landsat's apply to any bucket
def test_files_of_our_own_storage_are_read_as_our_own(key: str) -> None:
    own = f"s3://our-bucket/imagery/{key}/a/b.tif"
    access = platform_of(key).access_to(own)
    assert access.signer is None
    assert not access.unsigned
    assert not access.requester_pays
    assert access.address(own) == own


def test_a_settled_item_keeps_one_address_per_asset() -> None:
    one = platform_of(LANDSAT_L2)
    item = landsat_item("a", WHEN)
    item["assets"]["red"] = {
        "href": "https://landsatlook.usgs.gov/red.TIF",
        "alternate": {"s3": {"href": "s3://usgs-landsat/red.TIF"}},
    }
    settled = one.settled(item, one.rules.options(), {"blue": "/data/blue.tif"})
    assert settled["assets"]["red"] == {"href": "s3://usgs-landsat/red.TIF"}
    assert settled["assets"]["blue"] == {"href": "/data/blue.tif"}
    assert settled["assets"]["green"] == item["assets"]["green"]
    assert "alternate" in item["assets"]["red"]  # the item itself is not modified


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"cloud": 75.0}, None),
        ({"cloud": 75.001}, "cloud cover above 75 %"),
        ({"cloud": 0.0}, None),
        ({"cloud": -1.0}, "cloud cover below 0 (not assessed)"),
        ({"cloud": None}, "cloud cover unknown"),
        ({"cloud": float("nan")}, "cloud cover unknown"),
        ({"nodata": 20.0}, None),
        ({"nodata": 20.01}, "nodata above 20 %"),
        ({"nodata": None}, "nodata share unknown"),
        ({"nodata": None, "sentinel2:nodata_pixel_percentage": 5.0}, None),
        ({"nodata": None, "sentinel2:nodata_pixel_percentage": 50.0}, "nodata above 20 %"),
        ({"tile": "32NLH"}, "of another tile"),
    ],
)
def test_what_sentinel_2_refuses(changes: dict[str, Any], expected: str | None) -> None:
    assert refusal(SENTINEL_2, sentinel_2_item("a", WHEN, **changes)) == expected


def test_the_limits_of_sentinel_2_are_the_recipe_s() -> None:
    item = sentinel_2_item("a", WHEN, 30.0, nodata=10.0)
    assert refusal(SENTINEL_2, item, max_cloud_cover=20) == "cloud cover above 20 %"
    assert refusal(SENTINEL_2, item, max_scene_nodata=9.5) == "nodata above 9.5 %"


@pytest.mark.parametrize("code", ["MGRS-09VWK", "MGRS-9VWK"])
def test_a_tile_of_zones_1_to_9_in_both_spellings(code: str) -> None:
    item = sentinel_2_item("S2A_9VWK_20200203_0_L2A", WHEN, **Properties({"grid:code": code}))
    assert tile_of(item) == "09VWK"
    assert refusal(SENTINEL_2, item, "09VWK") is None
    assert [wanted["grid:code"] for wanted in grid_codes("09VWK")] == ["MGRS-09VWK", "MGRS-9VWK"]
    assert [wanted["grid:code"] for wanted in grid_codes("9VWK")] == ["MGRS-09VWK", "MGRS-9VWK"]
    assert [wanted["grid:code"] for wanted in grid_codes("32NLG")] == ["MGRS-32NLG"]


def test_without_grid_code_the_id_tells_the_tile() -> None:
    assert tile_of(sentinel_2_item("S2B_9VWK_20200203_0_L2A", WHEN, **Properties({"grid:code": None}))) == "09VWK"
    assert tile_of(sentinel_2_item("scene-1", WHEN, **Properties({"grid:code": None}))) is None


@pytest.mark.parametrize("empty", [None, "", " ", "MGRS-", []])
@pytest.mark.parametrize(
    "item_id",
    [
        "S2B_9VWK_20200203_0_L2A",
        "S2C_T09VWK_20200203T180403_L2A",
        "S2B_MSIL2A_20200203T174909_N0500_R141_T09VWK_20230504T032818",
    ],
)
def test_an_empty_grid_code_is_none(empty: Any, item_id: str) -> None:
    item = sentinel_2_item(item_id, WHEN, **{"grid:code": empty})
    assert platform_of(SENTINEL_2).rules.properties[1].problem(item["properties"]) is None
    assert tile_of(item) == "09VWK"
    assert refusal(SENTINEL_2, item, "09VWK") is None


@pytest.mark.parametrize("key", [LANDSAT_L1, LANDSAT_L2])
@pytest.mark.parametrize(
    ("item_id", "platform", "expected"),
    [
        ("LC08_L2SP_193026_20200203_20200824_02_T1_SR", "", None),
        ("LC09_L1TP_193026_20200203_20200824_02_T1", " ", None),
        ("LC08_L1TP_193026_20200203_20200203_02_RT", None, None),
        ("LE07_L2SP_193026_20200203_20200824_02_T1_SR", "", "not Landsat 8 or 9"),
        ("scene-1", "", "not Landsat 8 or 9"),
        ("scene-1", "landsat-8", None),  # spelling of other catalogues
        ("LE07_L2SP_193026_20200203_20200824_02_T1_SR", "LANDSAT_8", None),  # an existing label decides
        ("LC08_L2SP_193026_20200203_20200824_02_T1_SR", "LANDSAT_7", "not Landsat 8 or 9"),
    ],
)
def test_without_a_label_the_id_tells_the_spacecraft(
    key: str, item_id: str, platform: Any, expected: str | None
) -> None:
    for name in ("platform", "eo:platform"):
        changes = {"platform": "", name: platform}
        assert refusal(key, landsat_item(item_id, WHEN, **changes)) == expected


def test_sentinel_2_ranks_by_cloud_nodata_time_id() -> None:
    ordered = [
        sentinel_2_item("d", "2020-03-01T00:00:00Z", 1.0, nodata=9.0),
        sentinel_2_item("c", "2020-03-01T00:00:00Z", 2.0, nodata=1.0),
        sentinel_2_item("b", "2020-01-01T00:00:00Z", 2.0, nodata=2.0),
        sentinel_2_item("a", "2020-01-02T00:00:00Z", 2.0, nodata=2.0),
        sentinel_2_item("e", "2020-01-02T00:00:00Z", 2.0, nodata=2.0),
    ]
    rank = platform_of(SENTINEL_2).rules.rank
    backwards = ordered[::-1]
    assert sorted(backwards, key=lambda item: rank(item, request())) == ordered


@pytest.mark.parametrize("key", [LANDSAT_L1, LANDSAT_L2])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"platform": "LANDSAT_9"}, None),
        ({"platform": "LANDSAT_7"}, "not Landsat 8 or 9"),
        ({"platform": None, "eo:platform": "LANDSAT_8"}, None),
        ({"platform": None}, "not Landsat 8 or 9"),
        ({"cloud": 75.0}, None),
        ({"cloud": 75.5}, "cloud cover above 75 %"),
        ({"cloud": -1.0}, "cloud cover below 0 (not assessed)"),
        ({"cloud": None}, "cloud cover unknown"),
        ({"sun": -0.1}, "sun below 0°"),
        ({"sun": 0.0}, None),
        ({"sun": None}, "sun elevation unknown"),
        ({"sun": None, "eo:sun_elevation": 30.0}, None),
        ({"sun": None, "eo:sun_elevation": -30.0}, "sun below 0°"),
    ],
)
def test_what_landsat_refuses(key: str, changes: dict[str, Any], expected: str | None) -> None:
    assert refusal(key, landsat_item("a", WHEN, **changes)) == expected


def test_landsat_ranks_by_cloud_time_id() -> None:
    ordered = [
        landsat_item("c", "2020-03-01T00:00:00Z", 0.0),
        landsat_item("b", "2020-01-01T00:00:00Z", 2.0),
        landsat_item("a", "2020-01-02T00:00:00Z", 2.0),
        landsat_item("d", "2020-01-02T00:00:00Z", 2.0),
    ]
    rank = platform_of(LANDSAT_L2).rules.rank
    backwards = ordered[::-1]
    assert sorted(backwards, key=lambda item: rank(item, request())) == ordered


def test_scl_codes() -> None:
    scl = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cloud, nodata = platform_of(SENTINEL_2).quality.judge({"scl": scl})
    assert cloud.dtype == nodata.dtype == np.bool_
    assert scl[cloud].tolist() == [1, 3, 8, 9, 10]
    assert scl[nodata].tolist() == [0]


@pytest.mark.parametrize("key", [LANDSAT_L1, LANDSAT_L2])
def test_qa_pixel_bits(key: str) -> None:
    qa = (1 << np.arange(16, dtype=np.uint16)).astype(np.uint16)
    cloud, nodata = platform_of(key).quality.judge({"qa_pixel": qa})
    assert np.flatnonzero(cloud).tolist() == [1, 3, 4]
    assert np.flatnonzero(nodata).tolist() == [0]
    # 21824 clear land, 22280 high-confidence cloud, 1 fill: LSDS-1619, table 6-4.
    cloud, nodata = platform_of(key).quality.judge({"qa_pixel": np.array([21824, 22280, 1], np.uint16)})
    assert cloud.tolist() == [False, True, False]
    assert nodata.tolist() == [False, False, True]


def test_landsat_files_are_read_from_s3_where_the_requester_pays() -> None:
    s3 = {"href": "s3://usgs-landsat/a.TIF", "storage:requester_pays": True}
    asset = {"href": "https://landsatlook.usgs.gov/a.TIF", "alternate": {"s3": s3}}
    for key in (LANDSAT_L1, LANDSAT_L2):
        one = platform_of(key)
        assert one.href(asset) == "s3://usgs-landsat/a.TIF"
        assert one.href({"href": "https://landsatlook.usgs.gov/a.TIF"}) == "https://landsatlook.usgs.gov/a.TIF"
        access = one.access_to("s3://usgs-landsat/a.TIF")
        assert (access.requester_pays, access.unsigned, access.signer) == (True, False, None)
    assert platform_of(SENTINEL_2).href(asset) == "https://landsatlook.usgs.gov/a.TIF"
    public = platform_of(SENTINEL_2).access_to("s3://sentinel-cogs/sentinel-s2-l2a-cogs/a.tif")
    assert (public.requester_pays, public.unsigned, public.signer) == (False, True, None)


def test_assets_get_the_names_of_today() -> None:
    old: dict[str, Any] = {"id": "a", "properties": {"datetime": "2020-01-01"}}
    old["assets"] = {f"SR_B{n}.TIF": {"href": str(n)} for n in range(1, 8)}
    old["assets"]["QA_PIXEL.TIF"] = {"href": "qa"}
    renamed = platform_of(LANDSAT_L2).read_item(old)["assets"]
    assert {name: asset["href"] for name, asset in renamed.items()} == {
        "blue": "2",
        "green": "3",
        "red": "4",
        "nir08": "5",
        "swir16": "6",
        "swir22": "7",
        "qa_pixel": "qa",
    }


# --- real items -------------------------------------------------------------------------------------


def test_real_sentinel_2_items_know_their_tile(real_data: Path) -> None:
    items = real_items(real_data, SENTINEL_2)
    assert len(items) == 178
    tiles = {item["id"]: tile_of(item) for item in items}
    assert all(tile is not None and len(tile) == 5 for tile in tiles.values())
    assert all(tile.lstrip("0") in item_id for item_id, tile in tiles.items() if tile)
    assert tiles["S2A_13SEA_20200403_0_L2A"] == "13SEA"  # has no grid:code
    assert "05CNL" in tiles.values()  # written 5CNL


def test_real_sentinel_2_items_are_taken_or_refused_as_their_properties_say(real_data: Path) -> None:
    one, taken, counted = platform_of(SENTINEL_2), 0, 0
    for item in real_items(real_data, SENTINEL_2):
        found = one.read_item(item)
        reason = one.rules.refuse(found, request(tile_of(item) or ""), one.rules.options())
        said = item["properties"]
        nodata = said.get("s2:nodata_pixel_percentage", said.get("sentinel2:nodata_pixel_percentage"))
        assert (reason is None) == (nodata is not None and nodata <= 20 and said["eo:cloud_cover"] <= 75)
        assert one.rules.refuse(found, request("01AAA"), one.rules.options()) == "of another tile"
        assert item_datetime(found) == datetime.fromisoformat(said["datetime"])
        taken, counted = taken + (reason is None), counted + 1
    assert counted == 178
    assert 0 < taken < 178


@pytest.mark.parametrize(
    ("collection", "taken"),
    [
        (LANDSAT_L1, set()),
        (
            LANDSAT_L2,
            {
                "LC08_L2SP_005009_20150710_20200908_02_T2",
                "LC08_L2SP_028030_20200114_20200824_02_T1_SR",
                "LC08_L2SP_030034_20201111_20201212_02_T1",
                "LC08_L2SP_047027_20201204_20210313_02_T1",
                "LC08_L2SP_047027_20201204_20210313_02_T1_SR",
                "LC08_L2SR_081119_20200101_20200823_02_T2",
                "LC08_L2SR_084024_20160111_20201016_02_T1",
                "LC08_L2SR_232122_20191218_20201023_02_T2",
                "LC09_L2SP_092068_20230607_20230609_02_T1_SR",
            },
        ),
    ],
)
def test_real_landsat_items(real_data: Path, collection: str, taken: set[str]) -> None:
    one = platform_of(collection)
    items = [one.read_item(item) for item in real_items(real_data, collection)]
    assert {item["id"] for item in items if one.rules.refuse(item, request(), one.rules.options()) is None} == taken
    whole = {item["id"] for item in items if set(item["assets"]) == set(LANDSAT_ASSETS)}
    assert taken <= whole
    for item in items:
        if item["id"][1] != "C":  # Landsat 1 to 7
            assert one.rules.refuse(item, request(), one.rules.options()) == "not Landsat 8 or 9"
