"""Sentinel-1 RTC: its requests, which scenes are picked, how they rank, and how pixels are masked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.quarters import QuarterlyOptions, quarterly_requests
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.platforms.sentinel_1_rtc import overlap
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import requests_of
from clay_assets_tests.platforms.factories import (
    TILE,
    TWO_PARTS,
    hashed,
    item,
    lowest,
    mistake,
    recipe_with,
    request,
    requests,
    same,
    table,
    world,
)
from clay_assets_tests.scenes.items import SENTINEL_1, Properties, real_items, snapshot

SENTINEL_2 = "sentinel-2-l2a"
PLATFORM = PLATFORMS[SENTINEL_1]
WHEN = "2020-02-03T10:00:00Z"
IW = {"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"]}
# The scenes of one pass, from north to south, by their start time.
PASS = ["045749", "045814", "045839", "045904"]


def scene(item_id: str = "a", when: str = WHEN, geometry: Any = TILE, **properties: Any) -> dict[str, Any]:
    return item(item_id, SENTINEL_1, when, ["vv", "vh"], geometry, **{**IW, **properties})


def refusal(one: dict[str, Any], geometry: Any = TILE) -> str | None:
    return PLATFORM.rules.refuse(one, request(geometry=geometry), PLATFORM.rules.options())


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ("quarters_per_year = 0", "sentinel-1-rtc, quarters_per_year: .* greater than or equal to 1"),
        ("quarters_per_year = 5", "sentinel-1-rtc, quarters_per_year: .* less than or equal to 4"),
        ("quarters = [1, 2]\nquarters_per_year = 3", "quarters_per_year 3 is more than the 2 quarters of .1, 2."),
        ("quarters = [0]", r"quarters \[0\]: only 1, 2, 3 and 4, each once"),
        ("quarters = [2, 2]", r"quarters \[2, 2\]: only 1, 2, 3 and 4, each once"),
        ("quarters = []", "sentinel-1-rtc, quarters: .* at least 1 item"),
        ("years_per_location = 0", "sentinel-1-rtc, years_per_location: .* greater than or equal to 1"),
        ("years_per_location = 7", r"years_per_location 7 is more than the 6 years of \[2018, 2023\]"),
        ("years = [2023, 2018]", r"years \[2023, 2018\]: the first is after the last"),
        ("years = [2001, 2018]", r"years \[2001, 2018\]: outside the partitions 2010 to"),
        ("max_chip_nodata = -0.1", "sentinel-1-rtc, max_chip_nodata: .* greater than or equal to 0"),
        ("max_cloud_cover = 75", "sentinel-1-rtc, max_cloud_cover: no such field"),
        ("quarter_per_year = 1", "sentinel-1-rtc, quarter_per_year: no such field; check the spelling"),
        ('imagery = "derived"', "sentinel-1-rtc, imagery: .*'reference' or 'copy'"),
    ],
)
def test_a_mistake_in_the_recipe_names_its_field(tmp_path: Path, section: str, named: str) -> None:
    assert re.search(named, mistake(tmp_path, SENTINEL_1, section))


def test_by_default_one_year_and_one_quarter(tmp_path: Path) -> None:
    options = recipe_with(tmp_path, SENTINEL_1, "").options(SENTINEL_1)
    assert (options.years, options.years_per_location) == ((2018, 2023), 1)
    assert (options.quarters, options.quarters_per_year) == ((1, 2, 3, 4), 1)


# --- requests ---------------------------------------------------------------------------------------


def test_one_random_year_and_one_random_quarter_of_each_tile() -> None:
    sample = world(200)
    asked = requests(SENTINEL_1, sample)
    assert [one.location for one in asked] == sorted(sample["name"])
    tiles = dict(zip(sample["name"], sample.geometry, strict=True))
    for one in asked:
        year = lowest(range(2018, 2024), 42, SENTINEL_1, one.location)
        quarter = lowest(range(1, 5), 42, SENTINEL_1, one.location, year, "quarter")
        assert (one.id, one.period) == (f"{one.location}-{year}-Q{quarter}", f"Q{quarter}")
        assert (one.start, one.end) == quarter_bounds(year, quarter)
        assert one.draw == hashed(42, SENTINEL_1, one.location, year)
        assert one.filters == ()
        assert one.geometry == tiles[one.location]


def test_the_whole_tile_is_asked_for_also_in_two_parts() -> None:
    sample = gpd.GeoDataFrame({"name": ["60KYG"]}, geometry=[TWO_PARTS], crs="EPSG:4326")
    assert requests(SENTINEL_1, sample)[0].geometry == TWO_PARTS


def test_every_quarter_of_every_year_is_as_likely() -> None:
    drawn = Counter((one.start.year, one.period) for one in requests(SENTINEL_1, world(1920)))
    assert len(drawn) == 24
    assert min(drawn.values()) >= 45  # 1920 / 24 = 80, standard deviation 9
    assert max(drawn.values()) <= 115


def test_neither_row_order_nor_one_more_tile_changes_a_draw() -> None:
    before = table(SENTINEL_1, world(60))
    same(before, table(SENTINEL_1, world(60).sample(frac=1, random_state=5)))
    after = table(SENTINEL_1, world(61))
    same(before, after[after["location"].isin(before["location"])].reset_index(drop=True))
    assert len(after) == 61


def test_year_and_quarter_are_drawn_apart_from_other_platforms() -> None:
    sample = world(600)
    radar, optical = table(SENTINEL_1, sample), table(SENTINEL_2, sample)
    years = optical.groupby("location")["year"].agg(set)
    shared = sum(year in years[name] for name, year in zip(radar["location"], radar["year"], strict=True))
    assert 150 <= shared <= 250  # 600 / 3 = 200, standard deviation 12
    options = QuarterlyOptions(years=(2020, 2020))
    quarters = {
        key: quarterly_requests(key, sample, options, 42, quarters_per_year=1).set_index("location")["period"]
        for key in (SENTINEL_1, SENTINEL_2, "landsat-c2l1")
    }
    single = PLATFORM.rules.requests(sample, PLATFORM.rules.options(years=(2020, 2020)), 42)
    assert single.set_index("location")["period"].equals(quarters[SENTINEL_1])
    for other in (SENTINEL_2, "landsat-c2l1"):
        equal = int((quarters[SENTINEL_1] == quarters[other]).sum())
        assert 110 <= equal <= 190  # 600 / 4 = 150, standard deviation 11


def test_the_recipe_chooses_how_many_quarters_and_of_which(tmp_path: Path) -> None:
    recipe = recipe_with(
        tmp_path,
        SENTINEL_1,
        "years = [2019, 2021]\nyears_per_location = 2\nquarters = [1, 3, 4]\nquarters_per_year = 2",
    )
    asked = requests(SENTINEL_1, world(100), recipe)
    assert len(asked) == 400
    assert {one.start.year for one in asked} == {2019, 2020, 2021}
    pairs = Counter((one.location, one.start.year) for one in asked)
    assert set(pairs.values()) == {2}
    assert {one.period for one in asked} == {"Q1", "Q3", "Q4"}
    two = recipe.options(SENTINEL_1)
    single = two.model_copy(update={"quarters_per_year": 1})
    first = PLATFORM.rules.requests(world(100), single, 42)["request_id"]
    assert set(first) < {one.id for one in asked}  # one more quarter does not change the other


# --- which scenes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"sar:polarizations": ["VH", "VV"]}, None),
        ({"sar:polarizations": ["VV", "VH", "HH"]}, None),
        ({"sar:polarizations": ["VV"]}, "not both VV and VH"),
        ({"sar:polarizations": ["HH", "HV"]}, "not both VV and VH"),
        ({"sar:polarizations": []}, "not both VV and VH"),
        ({"sar:polarizations": None}, "not both VV and VH"),
        ({"sar:instrument_mode": "EW"}, "not in IW mode"),
        ({"sar:instrument_mode": "SM"}, "not in IW mode"),
        ({"sar:instrument_mode": None}, "not in IW mode"),
        ({"geometry": shapely.box(6.9, 0.9, 9, 3)}, None),
        ({"geometry": shapely.box(7, 0, 8, 1)}, "does not overlap the tile"),  # they touch
        ({"geometry": shapely.box(8, 0, 9, 1)}, "does not overlap the tile"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], expected: str | None) -> None:
    assert refusal(scene(**changes)) == expected


@pytest.mark.parametrize("empty", [None, "", " ", [], [""]])
@pytest.mark.parametrize(
    ("item_id", "expected"),
    [
        ("S1A_IW_GRDH_1SDV_20200203T100000_20200203T100025_031091_039277_rtc", None),
        ("S1C_IW_GRDH_1SDV_20200203T100000_20200203T100025_031091_039277_5AB3", None),
        ("S1A_EW_GRDM_1SDV_20200203T100000_20200203T100025_031091_039277_rtc", "not in IW mode"),
        ("S1A_IW_GRDH_1SSV_20200203T100000_20200203T100025_031091_039277_rtc", "not both VV and VH"),
        ("S1A_IW_GRDH_1SDH_20200203T100000_20200203T100025_031091_039277_rtc", "not both VV and VH"),
        ("scene-1", "not in IW mode"),
    ],
)
def test_without_labels_the_id_tells_mode_and_polarizations(empty: Any, item_id: str, expected: str | None) -> None:
    mode = empty if not isinstance(empty, list) else ""
    one = PLATFORM.read_item(
        scene(item_id, **Properties({"sar:instrument_mode": mode, "sar:polarizations": empty or []}))
    )
    assert refusal(one) == expected


def test_labels_that_are_there_decide_against_the_id() -> None:
    name = "S1A_EW_GRDM_1SDH_20200203T100000_20200203T100025_031091_039277_rtc"
    assert refusal(scene(name)) is None
    name = "S1A_IW_GRDH_1SDV_20200203T100000_20200203T100025_031091_039277_rtc"
    assert refusal(scene(name, **{"sar:instrument_mode": "EW"})) == "not in IW mode"
    assert refusal(scene(name, **Properties({"sar:polarizations": ["VV"]}))) == "not both VV and VH"


def test_overlap_is_the_share_of_the_tile() -> None:
    assert overlap(scene(geometry=shapely.box(5, -1, 8, 2)), request()) == 1
    assert overlap(scene(geometry=shapely.box(6.5, 0.5, 9, 9)), request()) == 0.25
    turned = shapely.Polygon([(6, 0), (7, 1), (7, 0), (6, 1)])  # self-intersecting, as some footprints are
    assert overlap(scene(geometry=turned), request()) == 0.5


@pytest.mark.parametrize(
    ("footprint", "share"),
    [
        (shapely.box(179, -17, 180, -16), 0.5),  # the western part whole
        (shapely.box(-180, -17, -179, -16), 0.5),
        (shapely.MultiPolygon([shapely.box(179, -16.5, 180, -16), shapely.box(-180, -16.5, -179, -16)]), 0.5),
        (shapely.MultiPolygon([shapely.box(179, -18, 180, -15), shapely.box(-180, -18, -179, -15)]), 1),
        (shapely.box(179.75, -17, 180, -16), 0.25),
    ],
)
def test_overlap_with_a_tile_in_two_parts(footprint: Any, share: float) -> None:
    assert overlap(scene(geometry=footprint), request("60KYG", TWO_PARTS)) == share


def test_rank_by_overlap_then_time_then_id() -> None:
    ordered = [
        scene("d", "2020-03-01T00:00:00Z", shapely.box(6, 0, 7, 0.9)),
        scene("c", "2020-01-01T00:00:00Z", shapely.box(6, 0, 7, 0.8)),
        scene("a", "2020-01-02T00:00:00Z", shapely.box(6, 0.2, 7, 1)),
        scene("b", "2020-01-02T00:00:00Z", shapely.box(6.2, 0, 7, 1)),
        scene("e", "2020-01-01T00:00:00Z", shapely.box(6, 0, 7, 0.7)),
    ]
    backwards = ordered[::-1]
    assert sorted(backwards, key=lambda one: PLATFORM.rules.rank(one, request())) == ordered


def test_overlap_that_differs_by_rounding_only_is_equal() -> None:
    early, late = (scene(name, f"2020-01-0{day}T00:00:00Z") for name, day in (("z", 1), ("a", 2)))
    early["geometry"] = shapely.geometry.mapping(shapely.box(6, 0, 7, 1 - 1e-9))
    assert PLATFORM.rules.rank(early, request()) < PLATFORM.rules.rank(late, request())


# --- pixels and files -------------------------------------------------------------------------------


def test_nodata_is_where_either_polarization_has_none() -> None:
    values = np.array([0.1, 1e-6, 0.0, -1e-6, -32768.0, np.nan, np.inf], np.float32)
    valid = np.array([True, True, False, False, False, False, True])
    vv, vh = np.meshgrid(values, values)
    cloud, nodata = PLATFORM.quality.judge({"vv": vv, "vh": vh})
    assert cloud.dtype == nodata.dtype == np.bool_
    assert cloud.shape == nodata.shape == (7, 7)
    assert not cloud.any()
    assert (nodata == ~np.outer(valid, valid)).all()


def test_only_files_of_the_platform_s_account_are_signed() -> None:
    assert PLATFORM.access_to("https://sentinel1euwestrtc.blob.core.windows.net/sentinel1-grd-rtc/a.tiff").signer
    for href in (
        "https://naipeuwest.blob.core.windows.net/naip/a.tif",
        "https://example.com/a.tiff",
        "s3://bucket/imagery/sentinel-1-rtc/a/vv.tif",
        "/data/a.tiff",
    ):
        access = PLATFORM.access_to(href)
        assert (access.signer, access.unsigned, access.requester_pays) == (None, False, False)


def test_its_images_are_not_made_anew() -> None:
    assert PLATFORM.files.derivation is None
    assert PLATFORM.rules.resolve is None
    assert PLATFORM.asset_names == ("vv", "vh")
    assert PLATFORM.quality.reads == "band"


# --- real items -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, dict[str, Any]]:
    """The four real scenes of one pass, by their start time."""
    return {one["id"].split("T")[1][:6]: one for one in real_items(real_data, SENTINEL_1)}


@pytest.fixture(scope="module")
def grid(real_data: Path) -> dict[str, Any]:
    """Real MGRS tiles, by name."""
    tiles = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet", columns=["name", "geometry"])
    return {name: shapely.force_2d(shape) for name, shape in zip(tiles["name"], tiles.geometry, strict=True)}


# Shares of the tile in a Lambert equal-area projection around its centre (pyproj, edges split to 0.01°, shapely).
SHARES = {
    "33SWT": (0.5586, 0.4412, 0, 0),
    "33SXT": (0.7088, 0.2799, 0, 0),
    "33SWR": (0, 0.3028, 0.6966, 0),
    "33SXR": (0, 0.3292, 0.3805, 0),
    "33RVQ": (0, 0, 0.7484, 0.2025),
    "33RWP": (0, 0, 0.0542, 0.6711),
    "33SWU": (1, 0, 0, 0),
    "33RUP": (0, 0, 0, 0.0974),
}


@pytest.mark.slow
@pytest.mark.parametrize("tile", SHARES)
def test_real_overlaps_with_real_tiles(real: dict[str, Any], grid: dict[str, Any], tile: str) -> None:
    asked = request(tile, grid[tile], 2024)
    taken = [overlap(PLATFORM.read_item(real[second]), asked) for second in PASS]
    assert taken == pytest.approx(SHARES[tile], abs=0.002)  # nearly the same in degrees
    for second, share in zip(PASS, SHARES[tile], strict=True):
        expected = None if share else "does not overlap the tile"
        assert PLATFORM.rules.refuse(PLATFORM.read_item(real[second]), asked, PLATFORM.rules.options()) == expected


def test_the_projected_shares_are_what_they_are_said_to_be(real: dict[str, Any], grid: dict[str, Any]) -> None:
    import pyproj

    for tile, shares in SHARES.items():
        middle = grid[tile].centroid
        there = pyproj.Transformer.from_crs(
            "EPSG:4326", f"+proj=laea +lat_0={middle.y} +lon_0={middle.x} +ellps=WGS84", always_xy=True
        )

        def flat(shape: Any, there: pyproj.Transformer = there) -> Any:
            return shapely.transform(
                shapely.segmentize(shape, 0.01), lambda points: np.stack(there.transform(*points.T), 1)
            )

        area = flat(grid[tile])
        found = [flat(shapely.geometry.shape(real[second]["geometry"])).intersection(area).area for second in PASS]
        assert np.array(found) / area.area == pytest.approx(shares, abs=5e-5)


def test_of_the_real_scenes_each_tile_gets_the_one_that_covers_most(
    real: dict[str, Any], grid: dict[str, Any], tmp_path: Path
) -> None:
    options = PLATFORM.rules.options(years=(2024, 2024), quarters=(2,))
    sample = gpd.GeoDataFrame({"name": list(SHARES)}, geometry=[grid[tile] for tile in SHARES], crs="EPSG:4326")
    asked = requests_of(PLATFORM.rules.requests(sample, options, 42), 2024)
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "s1.parquet", list(real.values())))
    picks = pick_scenes(PLATFORM, 2024, asked, catalogue, options)
    best = {tile: real[PASS[int(np.argmax(shares))]]["id"] for tile, shares in SHARES.items()}
    assert dict(zip(picks.ledger["location"], picks.ledger["item_id"], strict=True)) == best
    assert set(picks.ledger["outcome"]) == {"picked"}
    assert {name for one in picks.items for name in one["assets"]} == {"vv", "vh"}


def test_real_scenes_are_as_large_as_they_are_said_to_be(real: dict[str, Any]) -> None:
    heights, widths = np.array(
        [
            one["assets"]["vv"].get("proj:shape", one["properties"]["proj:shape"])
            for second, one in real.items()
            if second != PASS[-1]
        ]
    ).T  # the pass ends in the last
    assert PLATFORM.typical.height == pytest.approx(np.median(heights), rel=0.01)
    assert PLATFORM.typical.width == pytest.approx(np.median(widths), rel=0.01)
    for one in real.values():
        assert PLATFORM.access_to(one["assets"]["vv"]["href"]).signer
        assert PLATFORM.href(one["assets"]["vv"], PLATFORM.rules.options()) == one["assets"]["vv"]["href"]
