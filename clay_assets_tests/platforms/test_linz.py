"""LINZ: one request per drawn sheet, in the year of its item."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import requests_of
from clay_assets.storage.geoparquet import decode
from clay_assets_tests.platforms.factories import hashed, item, mistake, recipe_with, request, requests, same, table
from clay_assets_tests.scenes.items import snapshot

KEY = "linz"
PLATFORM = PLATFORMS[KEY]
# A sheet with a corner of sea cut out, as in real footprints: its centre lies outside.
HOOK = shapely.Polygon([(170, -45), (171, -45), (171, -44.9), (170.1, -44.9), (170.1, -44), (170, -44)])


def sheet(name: str, when: str | None, start: str | None = None, shape: Any = HOOK) -> dict[str, Any]:
    end = start and start.replace("-01T", "-28T")
    return item(name, name.split("_")[0], when, ["visual"], shape, start_datetime=start, end_datetime=end)


def sample(tmp_path: Path, items: list[dict[str, Any]]) -> tuple[gpd.GeoDataFrame, str]:
    """The items as the sample's table, and its location."""
    place = snapshot(tmp_path / "linz_sample.parquet", items)
    return decode(Path(place).read_bytes(), place), place


SHEETS = [
    ("one_A1", "2022-03-01T00:00:00Z", None),
    ("one_A2", None, "2021-12-01T11:00:00Z"),  # a survey over a summer: the year in which it began
    ("two_A1", "2009-12-31T23:59:59Z", None),
    ("two_A2", "2010-01-01T00:00:00Z", None),
    ("two_A3", "2024-12-31T23:59:59Z", None),
    ("two_A4", "2025-01-01T00:00:00Z", None),
]


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ('surveys = "newest"', "linz, surveys.*'latest'"),
        ("surveys = []", "linz: surveys: empty list"),
        ('surveys = ["taranaki"]', "linz, surveys.*pattern"),
        ('surveys = ["taranaki/taranaki_2022_0.05m/rgb/2193"]', "linz, surveys.*pattern"),
        ('surveys = ["a/b", "a/b"]', "linz: surveys: one is repeated"),
        ('survey = ["a/b"]', "linz, survey: no such field; check the spelling"),
        ("share = 0", "linz, share: .*greater than 0"),
        ("share = 50", "linz, share: .*less than or equal to 1"),
        ("share = nan", "linz, share: "),
        ("min_scenes = 0", "linz, min_scenes: .*greater than or equal to 1"),
        ("max_scenes = 0", "linz, max_scenes: .*greater than or equal to 1"),
        ("max_scenes = 10.5", "linz, max_scenes: .*valid integer"),
        ("min_scenes = 20\nmax_scenes = 19", "min_scenes 20 is more than max_scenes 19"),
        ("gsd = 0", "linz, gsd: .*greater than 0"),
        ("gsd = -0.3", "linz, gsd: .*greater than 0"),
        ("gsd = inf", "linz, gsd: .*finite"),
        ("gsd = nan", "linz, gsd: "),
        ('gsd = "30 cm"', "linz, gsd: .*valid number"),
        ("years = [2024, 2010]", "the first is after the last"),
        ('imagery = "reference"', "linz, imagery: .*'derived'"),
        ("max_chip_nodata = 2", "linz, max_chip_nodata: .*less than or equal to 1"),
    ],
)
def test_a_mistake_in_the_recipe_names_its_field(tmp_path: Path, section: str, named: str) -> None:
    assert re.search(named, mistake(tmp_path, KEY, section))


def test_the_recipe_carries_the_published_surveys(real_data: Path) -> None:
    options = load_recipe("clay_v1").options(KEY)
    published = (real_data / "published" / "linz_surveys.txt").read_text(encoding="utf-8").split()
    assert sorted(options.surveys) == sorted(published)
    assert len(options.surveys) == 39
    assert (options.share, options.min_scenes, options.max_scenes, options.gsd) == (0.5, 10, 2000, 0.3)


def test_the_latest_surveys_are_the_other_choice(tmp_path: Path) -> None:
    assert recipe_with(tmp_path, KEY, 'surveys = "latest"').options(KEY).surveys == "latest"


# --- requests ---------------------------------------------------------------------------------------


def test_one_request_per_sheet_in_the_year_of_its_item(tmp_path: Path) -> None:
    sheets, _ = sample(tmp_path, [sheet(*one) for one in SHEETS])
    found = requests(KEY, sheets)
    assert {one.id: one.start.year for one in found} == {"one_A1": 2022, "one_A2": 2021, "two_A2": 2010, "two_A3": 2024}
    for one in found:
        assert one.location == one.id
        assert one.period == "survey"
        assert (one.start, one.end) == (
            datetime(one.start.year, 1, 1, tzinfo=UTC),
            datetime(one.start.year + 1, 1, 1, tzinfo=UTC),
        )
        assert one.draw == hashed(42, KEY, one.id)
        assert one.filters == ()
        assert one.geometry.geom_type == "Point"
        assert HOOK.contains(one.geometry)


def test_a_sample_without_intervals(tmp_path: Path) -> None:
    sheets, _ = sample(tmp_path, [sheet("one_A1", "2022-03-01T00:00:00Z")])
    assert "start_datetime" not in sheets
    assert [one.start.year for one in requests(KEY, sheets)] == [2022]


def test_a_sample_of_intervals_only(tmp_path: Path) -> None:
    sheets, _ = sample(tmp_path, [sheet("one_A1", None, "2022-11-01T00:00:00Z")])
    assert [one.start.year for one in requests(KEY, sheets)] == [2022]


def test_row_order_and_one_more_sheet_change_nothing(tmp_path: Path) -> None:
    sheets, _ = sample(tmp_path, [sheet(*one) for one in SHEETS])
    whole = table(KEY, sheets)
    same(whole, table(KEY, sheets.sample(frac=1, random_state=1)))
    fewer = table(KEY, sheets[sheets["id"] != "one_A2"])
    same(fewer, whole[whole["location"] != "one_A2"].reset_index(drop=True))
    assert len(table(KEY, sheets[:0])) == 0


def test_each_sheet_gets_its_own_item_out_of_the_sample(tmp_path: Path) -> None:
    # Two surveys of one area: their sheets have the same names and footprints.
    items = [sheet(*one) for one in SHEETS]
    sheets, place = sample(tmp_path, items)
    options = PLATFORM.rules.options()
    asked = PLATFORM.rules.requests(sheets, options, 42)
    catalogue = SnapshotCatalogue(place)
    assert PLATFORM.scenes.sample_has_items
    for year, name in ((2010, "two_A2"), (2021, "one_A2"), (2022, "one_A1"), (2024, "two_A3")):
        picks = pick_scenes(PLATFORM, year, requests_of(asked, year), catalogue, options)
        assert picks.ledger[["location", "outcome", "item_id"]].to_numpy().tolist() == [[name, "picked", name]]


def test_two_surveys_of_one_year_are_told_apart(tmp_path: Path) -> None:
    names = ["tauranga_BD37", "winter_BD37"]
    sheets, place = sample(tmp_path, [sheet(name, "2022-03-01T00:00:00Z") for name in names])
    asked = requests_of(PLATFORM.rules.requests(sheets, PLATFORM.rules.options(), 42), 2022)
    ledger = pick_scenes(PLATFORM, 2022, asked, SnapshotCatalogue(place), PLATFORM.rules.options()).ledger
    assert ledger["item_id"].tolist() == ledger["location"].tolist() == names
    assert ledger["rejected"].tolist() == ['{"another sheet": 1}'] * 2


def test_refuse_and_rank() -> None:
    one = sheet("one_A1", "2022-03-01T00:00:00Z")
    assert PLATFORM.rules.refuse(one, request("one_A1"), PLATFORM.rules.options()) is None
    assert PLATFORM.rules.refuse(one, request("two_A1"), PLATFORM.rules.options()) == "another sheet"
    assert PLATFORM.rules.rank(one, request("one_A1")) == ("one_A1",)


# --- pixels and files -------------------------------------------------------------------------------


def test_nodata_is_what_the_mask_of_the_derived_image_says() -> None:
    mask = np.array([[0, 255], [255, 1]], np.uint8)
    cloud, nodata = PLATFORM.quality.judge({"visual": mask})
    assert PLATFORM.quality.reads == "mask"
    assert cloud.dtype == nodata.dtype == np.bool_
    assert not cloud.any()
    assert nodata.tolist() == [[True, False], [False, False]]


def test_how_images_are_made_anew() -> None:
    derivation = PLATFORM.files.derivation
    assert derivation is not None
    assert derivation.gsd is not None
    assert derivation.gsd(PLATFORM.rules.options()) == 0.3
    assert derivation.gsd(PLATFORM.rules.options(gsd=1)) == 1.0
    assert (derivation.crs, derivation.resampling, derivation.bands) == (None, "bilinear", 3)
    assert derivation.masked
    assert dict(derivation.fill) == {}


@pytest.mark.parametrize(
    ("href", "unsigned"),
    [
        ("s3://nz-imagery/taranaki/taranaki_2022_0.05m/rgb/2193/BH28.tiff", True),
        ("https://nz-imagery.s3.ap-southeast-2.amazonaws.com/taranaki/BH28.tiff", True),
        ("s3://nz-imagery-copies/BH28.tiff", False),
        ("s3://bucket/imagery/linz/a/visual.tif", False),
        ("/data/nz-imagery/BH28.tiff", False),
    ],
)
def test_only_the_public_bucket_is_read_without_credentials(href: str, unsigned: bool) -> None:
    access = PLATFORM.access_to(href)
    assert (access.unsigned, access.requester_pays, access.signer) == (unsigned, False, None)


def test_a_sheet_of_the_example_is_asked_for_in_the_year_it_began(real_data: Path, tmp_path: Path) -> None:
    import json

    found = json.loads((real_data / "stac" / "linz" / "example_items" / "BC40_2000_2421.json").read_text())
    sheets, place = sample(tmp_path, [found])
    asked = requests_of(PLATFORM.rules.requests(sheets, PLATFORM.rules.options(), 42), 2021)
    assert pd.isna(sheets["datetime"]).all()
    assert [one.id for one in asked] == ["BC40_2000_2421"]
    picks = pick_scenes(PLATFORM, 2021, asked, SnapshotCatalogue(place), PLATFORM.rules.options())
    assert [one["id"] for one in picks.items] == ["BC40_2000_2421"]
    assert picks.items[0]["assets"]["visual"]["href"] == str(tmp_path / "BC40_2000_2421.tiff")
