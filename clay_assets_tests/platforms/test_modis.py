"""MODIS: months of sinusoidal tiles, Terra only, cloud by the state, and how images are resampled."""

from __future__ import annotations

import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.eligibility import eligible_items
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import month_bounds
from clay_assets.recipes import load_recipe
from clay_assets.sampling.modis_grid import sample_of, tile_states
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import requests_of
from clay_assets.stac import item_datetime
from clay_assets_tests.platforms.factories import item, mistake, recipe_with, requests, same, table
from clay_assets_tests.scenes.items import MODIS, real_items, snapshot

KEY = "modis"
PLATFORM = PLATFORMS[KEY]
BANDS = [f"sur_refl_b0{number}" for number in range(1, 8)]
QC, STATE = "sur_refl_qc_500m", "sur_refl_state_500m"
FILL, STATE_FILL, QC_FILL = -28672, 65535, 787410671
TERRA = {"platform": "terra", "modis:vertical-tile": 10, "modis:horizontal-tile": 19}
HERE = shapely.box(10.6, -20, 20.3, -10)


def scene(item_id: str = "a", start: str = "2022-02-02T00:00:00Z", **changes: Any) -> dict[str, Any]:
    """An item as in the catalogue: with an interval instead of a single time."""
    assets = changes.pop("assets", [*BANDS, QC, STATE])
    end = start.replace("T00:00:00", "T23:59:59")
    return item(
        item_id, MODIS, None, assets, HERE, **{**TERRA, "start_datetime": start, "end_datetime": end, **changes}
    )


def asked(year: int = 2022, month: int = 2, vertical: int = 10, horizontal: int = 19) -> Request:
    found = requests(KEY, tiles([(vertical, horizontal)]))
    return next(one for one in found if one.id == f"h{horizontal:02}v{vertical:02}-{year}-M{month:02}")


def tiles(places: list[tuple[int, int]]) -> gpd.GeoDataFrame:
    """A sample in the form of `modis_sample`."""
    rows = [{"name": f"h{h:02}v{v:02}", "vertical": v, "horizontal": h, "geometry": HERE} for v, h in places]
    return gpd.GeoDataFrame(rows, columns=["name", "vertical", "horizontal", "geometry"], crs="EPSG:4326")


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ("months = [0]", r"months \[0\]: only 1 to 12, each once"),
        ("months = [1, 13]", r"months \[1, 13\]: only 1 to 12, each once"),
        ("months = [6, 6]", r"months \[6, 6\]: only 1 to 12, each once"),
        ("months = []", "modis, months: .*at least 1 item"),
        ("month = [6]", "modis, month: no such field; check the spelling"),
        ('reference_date = "an equinox"', "modis, reference_date: .*valid date"),
        ("reference_date = 2023-09-22T12:00:00Z", "modis, reference_date: .*exact dates"),
        ('reference_band = "b01"', "modis, reference_band: .*'sur_refl_b01', 'sur_refl_b02'"),
        ('reference_band = "sur_refl_qc_500m"', "modis, reference_band: .*'sur_refl_b01', 'sur_refl_b02'"),
        ('tiles = "all"', "modis, tiles: .*'computed' or 'published'"),
        ('tiles = "published"', "published_tiles is empty"),
        ("published_tiles = [[18, 0]]", "published_tiles"),
        ("published_tiles = [[0, 36]]", "published_tiles"),
        ("published_tiles = [[-1, 3]]", "published_tiles"),
        ("published_tiles = [[0, 0]]", "published_tiles h00v00: not on the Earth"),
        ("published_tiles = [[12]]", "published_tiles"),
        ("published_tiles = [[2, 12], [2, 12]]", "published_tiles: one is repeated"),
        ("years = [2023, 2018]", "the first is after the last"),
        ('imagery = "copy"', "modis, imagery: .*'derived'"),
        ('imagery = "reference"', "modis, imagery: .*'derived'"),
    ],
)
def test_a_mistake_in_the_recipe_names_its_field(tmp_path: Path, section: str, named: str) -> None:
    assert re.search(named, mistake(tmp_path, KEY, section))


def test_the_recipe_carries_the_published_tiles() -> None:
    options = load_recipe("clay_v1").options(KEY)
    assert len(options.published_tiles) == 233
    assert options.tiles == "computed"
    assert (options.reference_date, options.reference_band) == (date(2023, 9, 22), "sur_refl_b01")


def test_the_published_tiles_are_those_that_were_published(real_data: Path) -> None:
    lines = (real_data / "published" / "modis_sin_tiles.csv").read_text(encoding="utf-8").split()
    published = {tuple(map(int, line.split(","))) for line in lines if line[0].isdigit()}
    assert set(load_recipe("clay_v1").options(KEY).published_tiles) == published


# --- requests ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_request_per_tile_year_and_month() -> None:
    places = list(load_recipe("clay_v1").options(KEY).published_tiles)
    found = requests(KEY, tiles(places))
    assert len(found) == 233 * 72 == 16776
    months = {(year, month): month_bounds(year, month) for year in range(2018, 2024) for month in range(1, 13)}
    expected = {
        f"h{h:02}v{v:02}-{year}-M{month:02}": (f"h{h:02}v{v:02}", f"M{month:02}", bounds, v, h)
        for v, h in places
        for (year, month), bounds in months.items()
    }
    assert {
        one.id: (
            one.location,
            one.period,
            (one.start, one.end),
            one.filters[0]["modis:vertical-tile"],
            one.filters[0]["modis:horizontal-tile"],
        )
        for one in found
    } == expected
    assert {(len(one.filters), len(one.filters[0]), one.draw) for one in found} == {(1, 2, 0)}
    assert {one.geometry for one in found} == {HERE}


def test_months_are_half_open_and_meet() -> None:
    assert month_bounds(2020, 2) == (datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC))
    assert month_bounds(2020, 12) == (datetime(2020, 12, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    bounds = [month_bounds(year, month) for year in (2019, 2020) for month in range(1, 13)]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))


def test_the_recipe_chooses_years_and_months(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, KEY, "years = [2020, 2021]\nmonths = [11, 3]")
    found = requests(KEY, tiles([(10, 19), (2, 12)]), recipe)
    assert [one.id for one in found] == [
        f"{name}-{year}-M{month}" for name in ("h12v02", "h19v10") for year in (2020, 2021) for month in ("03", "11")
    ]


def test_row_order_and_one_more_tile_change_nothing() -> None:
    places = [(10, 19), (2, 12), (8, 9)]
    same(table(KEY, tiles(places)), table(KEY, tiles(places[::-1])))
    more = table(KEY, tiles([*places, (8, 10)]))
    same(table(KEY, tiles(places)), more[more["location"] != "h10v08"].reset_index(drop=True))
    assert len(more) == 4 * 72
    assert len(table(KEY, tiles([]))) == 0


# --- which scenes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"platform": "Terra"}, None),
        ({"platform": "aqua"}, "not Terra"),
        ({"platform": "terra,aqua"}, "not Terra"),
        ({"platform": None}, "not Terra"),
        ({"modis:horizontal-tile": 20}, "of another tile"),
        ({"modis:vertical-tile": 11}, "of another tile"),
        ({"modis:vertical-tile": 19, "modis:horizontal-tile": 10}, "of another tile"),
        ({"modis:vertical-tile": None}, "of another tile"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], expected: str | None) -> None:
    assert PLATFORM.rules.refuse(PLATFORM.read_item(scene(**changes)), asked(), PLATFORM.rules.options()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("empty", [None, "", " ", [], {}])
@pytest.mark.parametrize(
    ("item_id", "expected"),
    [
        ("MOD09A1.A2024065.h19v10.061.2024074041502", None),
        ("MOD09A1.A2024065.h19v10.061", None),
        ("MYD09A1.A2024065.h19v10.061.2024074041502", "not Terra"),
        ("MCD43A4.A2024065.h19v10.061.2024074041502", "not Terra"),  # of both
        ("composite-1", "not Terra"),
    ],
)
def test_without_a_label_the_id_tells_the_satellite(empty: Any, item_id: str, expected: str | None) -> None:
    """As the Planetary Computer writes items since day 2024065: https://github.com/microsoft/PlanetaryComputer/issues/380"""
    one = PLATFORM.read_item(scene(item_id, **{"platform": empty, "instruments": []}))
    found, rejected = eligible_items(PLATFORM, Answer(asked(), [one]), PLATFORM.rules.options())
    assert ([item["id"] for item in found], dict(rejected)) == (
        ([item_id], {}) if expected is None else ([], {expected: 1})
    )


@pytest.mark.parametrize(("platform", "satellite", "expected"), [("terra", "MYD", None), ("aqua", "MOD", "not Terra")])
def test_a_label_that_is_there_decides_against_the_id(platform: str, satellite: str, expected: str | None) -> None:
    one = PLATFORM.read_item(scene(f"{satellite}09A1.A2022033.h19v10.061", platform=platform))
    assert PLATFORM.rules.refuse(one, asked(), PLATFORM.rules.options()) == expected


def test_without_its_properties_the_id_tells_the_tile() -> None:
    unsaid: dict[str, Any] = {"modis:vertical-tile": None, "modis:horizontal-tile": None}
    for item_id, expected in (
        ("MOD09A1.A2022033.h19v10.061", None),
        ("MOD09A1.A2022033.h10v19.061", "of another tile"),
    ):
        one = PLATFORM.read_item(scene(item_id, **unsaid))
        assert PLATFORM.rules.refuse(one, asked(), PLATFORM.rules.options()) == expected


def test_a_composite_belongs_to_the_month_in_which_it_starts() -> None:
    starts = ["2022-01-31", "2022-02-01", "2022-02-26", "2022-03-01"]
    admitted, rejected = eligible_items(
        PLATFORM, Answer(asked(), [scene(day, f"{day}T00:00:00Z") for day in starts]), PLATFORM.rules.options()
    )
    assert [one["id"] for one in admitted] == ["2022-02-01", "2022-02-26"]
    assert rejected == {"outside the period": 2}
    assert item_datetime(PLATFORM.read_item(scene())) == datetime(2022, 2, 2, tzinfo=UTC)


def test_of_its_assets_a_scene_may_lack_the_state_only() -> None:
    candidates = [
        scene("whole"),
        scene("no state", assets=[*BANDS, QC]),
        scene("no qc", assets=[*BANDS, STATE]),
        scene("no red", assets=[*BANDS[1:], QC, STATE]),
        scene("no seven", assets=[*BANDS[:-1], QC, STATE]),
    ]
    admitted, rejected = eligible_items(PLATFORM, Answer(asked(), candidates), PLATFORM.rules.options())
    assert [one["id"] for one in admitted] == ["whole", "no state"]
    assert rejected == {f"without asset {name}": 1 for name in (QC, "sur_refl_b01", "sur_refl_b07")}


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["refuse", "rank"])
def test_a_rule_that_raises_fails_the_tiles_that_it_met_in_the_sample(tmp_path: Path, rule: str) -> None:
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "modis.parquet", [scene(start="2023-09-22T00:00:00Z")]))
    changes: dict[str, Any] = {rule: lambda item, *_: item["propertys"]}
    platform = replace(PLATFORM, rules=replace(PLATFORM.rules, **changes))
    with ThreadPoolExecutor(1) as pool:
        states = tile_states(platform, lambda: catalogue, PLATFORM.rules.options(), pool, 1)
    failed = states[states["outcome"] == "failed"]
    assert failed["name"].tolist() == ["h19v10"]
    assert failed["error"].tolist() == [
        f"modis: {rule} raised KeyError('propertys') on item a. Fix the platform's rule."
    ]
    assert set(states["outcome"]) == {"failed", "no item"}
    assert len(sample_of(states)) == 0


def test_rank_is_first_by_time_then_id() -> None:
    ordered = [
        scene("z", "2022-02-02T00:00:00Z"),
        scene("a", "2022-02-10T00:00:00Z"),
        scene("b", "2022-02-10T00:00:00Z"),
    ]
    ready = [PLATFORM.read_item(one) for one in ordered[::-1]]
    ready.sort(key=lambda one: PLATFORM.rules.rank(one, asked()))
    assert [one["id"] for one in ready] == ["z", "a", "b"]


# --- pixels and files -------------------------------------------------------------------------------


def test_every_combination_of_state_qc_and_red() -> None:
    # Only bits 0 and 1 of both count; others are set too, as in real files.
    states = np.array([0, 1, 2, 3, 4 | 0, 72 | 1, 8 | 2, 0xFFFC | 3], np.uint16)  # the last is the fill value
    qcs = np.array([0, 1, 2, 3, 0x40000000 | 0, 0x7FFFFFFC | 1, 0x3FFFFFFC | 2, QC_FILL], np.uint32)
    reds = np.array([FILL, -100, 0, 16000], np.int16)
    state, qc, red = (grid.astype(grid.dtype) for grid in np.meshgrid(states, qcs, reds, indexing="ij"))
    assert states[-1] == STATE_FILL
    assert QC_FILL % 4 == 3
    cloud, nodata = PLATFORM.quality.judge({STATE: state, QC: qc, BANDS[0]: red})
    assert cloud.dtype == nodata.dtype == np.bool_
    assert cloud.shape == nodata.shape == (8, 8, 4)
    for s, q, r in np.ndindex(8, 8, 4):
        by_state = s % 4 in (1, 2)  # cloudy, mixed; 0 clear, 3 not set
        by_qc = q % 4 == 2
        assert cloud[s, q, r] == (by_qc if s == 7 else by_state)
        assert nodata[s, q, r] == (q % 4 == 3 or r == 0)


def test_without_a_state_the_qc_tells_of_clouds() -> None:
    qc = np.array([[0, 1, 2, 3, 4 | 2]], np.uint32)
    red = np.array([[1, 1, 1, 1, FILL]], np.int16)
    cloud, nodata = PLATFORM.quality.judge({QC: qc, BANDS[0]: red})
    assert cloud.dtype == nodata.dtype == np.bool_
    assert cloud.tolist() == [[False, False, True, False, True]]
    assert nodata.tolist() == [[False, False, False, True, True]]


def test_how_images_are_made_anew() -> None:
    derivation = PLATFORM.files.derivation
    assert derivation is not None
    assert (derivation.crs, derivation.gsd, derivation.bands) == ("EPSG:3857", None, None)
    assert (derivation.resampling, derivation.masked) == ("nearest", False)
    assert derivation.fill == {**dict.fromkeys(BANDS, FILL), QC: QC_FILL, STATE: STATE_FILL}
    # Pixels without source data are nodata, not cloud.
    made = {
        name: np.array([derivation.fill[name]], kind) for name, kind in ((STATE, "u2"), (QC, "u4"), (BANDS[0], "i2"))
    }
    cloud, nodata = PLATFORM.quality.judge(made)
    assert (cloud.tolist(), nodata.tolist()) == ([False], [True])
    assert list(PLATFORM.asset_names) == [*BANDS, STATE, QC]
    assert PLATFORM.rules.options().imagery == "derived"


@pytest.mark.parametrize(
    ("href", "signed"),
    [
        ("https://modiseuwest.blob.core.windows.net/modis-061-cogs/MOD09A1/19/10/a.tif", True),
        ("https://naipeuwest.blob.core.windows.net/naip/a.tif", False),
        ("s3://bucket/imagery/modis/a/sur_refl_b01.tif", False),
        ("/data/imagery/modis/a/sur_refl_b01.tif", False),
    ],
)
def test_only_files_of_the_platform_s_account_are_signed(href: str, signed: bool) -> None:
    access = PLATFORM.access_to(href)
    assert (access.signer is not None, access.requester_pays, access.unsigned) == (signed, False, False)


# --- real items -------------------------------------------------------------------------------------

TERRA_IDS = ["MOD09A1.A2022033.h19v10.061", "MOD09A1.A2022033.h19v10.061.2022042043514"]


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in real_items(real_data, MODIS)}


def test_real_items_are_terra_or_aqua(real: dict[str, Any]) -> None:
    said = {}
    for name, one in real.items():
        found = PLATFORM.read_item(one)
        assert set(found["assets"]) == {*BANDS, QC, STATE}
        vertical, horizontal = (one["properties"][f"modis:{way}-tile"] for way in ("vertical", "horizontal"))
        assert f".h{horizontal:02}v{vertical:02}." in name
        said[name] = PLATFORM.rules.refuse(found, asked(2022, 2, vertical, horizontal), PLATFORM.rules.options())
        day = datetime.strptime(name.split(".")[1], "A%Y%j").replace(tzinfo=UTC)  # 2022033 is 2 February
        assert item_datetime(found) == day
    assert said == {name: None if name in TERRA_IDS else "not Terra" for name in real}
    assert len(said) == 4


def test_real_items_are_picked_by_tile_and_month(real: dict[str, Any], tmp_path: Path) -> None:
    options = PLATFORM.rules.options(years=(2022, 2022), months=(1, 2))
    sample = tiles([(10, 19), (8, 9), (10, 20)]).set_geometry(
        [HERE, shapely.box(-91, 0.1, -80.5, 9.9), shapely.box(20, -20, 30, -10)], crs="EPSG:4326"
    )
    found = requests_of(PLATFORM.rules.requests(sample, options, 42), 2022)
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "modis.parquet", list(real.values())))
    ledger = pick_scenes(PLATFORM, 2022, found, catalogue, options).ledger.set_index("request_id")
    assert ledger["outcome"].to_dict() == {
        "h09v08-2022-M01": "none",  # Aqua, twice
        "h09v08-2022-M02": "none",
        "h19v10-2022-M01": "none",
        "h19v10-2022-M02": "picked",
        "h20v10-2022-M01": "none",  # a month without items, next to one with items
        "h20v10-2022-M02": "none",
    }
    assert ledger.loc["h19v10-2022-M02", "item_id"] == TERRA_IDS[0]
    assert ledger.loc["h19v10-2022-M02", "candidates"] == 2
    assert ledger.loc["h09v08-2022-M01", "reason"] == "2 × not Terra"
    assert ledger.loc["h20v10-2022-M02", "reason"] == "no item in the catalogue"


def test_a_real_tile_is_as_large_as_it_is_said_to_be(real: dict[str, Any]) -> None:
    shapes = {tuple(one["properties"]["proj:shape"]) for one in real.values()}
    assert shapes == {(PLATFORM.typical.height, PLATFORM.typical.width)}
