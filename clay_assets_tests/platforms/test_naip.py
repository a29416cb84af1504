"""NAIP: one search per location, its requests, and where images are read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from clay_assets.catalogues.base import Answer, answer_of, read_candidates
from clay_assets.catalogues.eligibility import eligible_items
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import year_bounds
from clay_assets.stac import item_datetime
from clay_assets_tests.platforms.factories import hashed, item, lowest, mistake, recipe_with, requests, same, table
from clay_assets_tests.scenes.items import NAIP, real_items

PLATFORM = PLATFORMS[NAIP]
OPTIONS = PLATFORM.rules.options()
POINT = shapely.Point(-85.906, 30.969)
AZURE = "https://naipeuwest.blob.core.windows.net/naip/v002/"


def image(item_id: str, when: str, **changes: Any) -> dict[str, Any]:
    """An item with the fields that the rules use."""
    made = item(item_id, NAIP, when, changes.get("assets", ["image"]), shapely.box(-86, 30, -85, 31))
    return PLATFORM.read_item(made)


def search(location: str = "city-1") -> Request:
    start, end = datetime(2010, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
    return Request(location, location, "all", start, end, POINT)


def places(count: int) -> gpd.GeoDataFrame:
    points = [shapely.Point(-120 + n / 10, 40) for n in range(count)]
    return gpd.GeoDataFrame({"name": [f"place-{n:04}" for n in range(count)]}, geometry=points, crs="EPSG:4326")


def resolved(items: Sequence[dict[str, Any]], location: str = "city-1", seed: int = 42) -> list[tuple[str, int]]:
    """Period and year of the requests of a search."""
    assert PLATFORM.rules.resolve is not None
    found = PLATFORM.rules.resolve(search(location), items, OPTIONS, seed)
    assert [(one.start, one.end) for one in found] == [year_bounds(one.start.year) for one in found]
    assert [one.id for one in found] == [f"{location}-{one.period}" for one in found]
    assert {(one.location, one.geometry, one.filters) for one in found} == {(location, POINT, ())}
    return [(one.period, one.start.year) for one in found]


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ('source = "aws"', "naip, source: .*'planetary-computer', 'naip-analytic' or 'naip-visualization'"),
        ('sources = "naip-analytic"', "naip, sources: no such field; check the spelling"),
        ("random_points = -1", "naip, random_points: .*greater than or equal to 0"),
        ("random_points = 0.5", "naip, random_points: .*valid integer"),
        ("random_points = true", "naip, random_points: .*valid integer"),
        ("years = [2009, 2023]", r"naip: years \[2009, 2023\]: outside the partitions 2010 to"),
        ("years = [2010, 2099]", r"naip: years \[2010, 2099\]: outside the partitions 2010 to"),
        ("years = [2023, 2010]", r"naip: years \[2023, 2010\]: the first is after the last"),
        ("years = 2020", "naip, years: .*valid tuple"),
        ("max_chip_nodata = 50", "naip, max_chip_nodata: .*less than or equal to 1"),
        ('imagery = "derived"', "naip, imagery: .*'reference' or 'copy'"),
        ("quarters = [1]", "naip, quarters: no such field"),
    ],
)
def test_a_mistake_in_the_recipe_names_its_field(tmp_path: Path, section: str, named: str) -> None:
    assert re.search(named, mistake(tmp_path, NAIP, section))


def test_no_random_points_may_be_wanted(tmp_path: Path) -> None:
    assert recipe_with(tmp_path, NAIP, "random_points = 0").options(NAIP).random_points == 0


# --- one search per location, and its requests ------------------------------------------------------


def test_one_search_per_location_over_all_years(tmp_path: Path) -> None:
    sample = places(30)
    asked = requests(NAIP, sample)
    assert [one.id for one in asked] == [one.location for one in asked] == sorted(sample["name"])
    assert {(one.start, one.end) for one in asked} == {
        (datetime(2010, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))
    }
    assert {(one.period, one.draw, one.filters) for one in asked} == {("all", 0, ())}
    assert [one.geometry for one in asked] == list(sample.geometry)
    same(table(NAIP, sample), table(NAIP, sample.sample(frac=1, random_state=2)))
    narrow = requests(NAIP, sample, recipe_with(tmp_path, NAIP, "years = [2015, 2016]"))
    assert {(one.start.year, one.end) for one in narrow} == {(2015, datetime(2017, 1, 1, tzinfo=UTC))}


def test_no_item_leaves_a_request_for_the_latest_to_tell_of() -> None:
    assert resolved([]) == [("latest", 2023)]


def test_of_a_single_year_there_is_no_older_one() -> None:
    assert resolved([image("a", "2019-10-01T16:00:00Z")]) == [("latest", 2019)]
    assert resolved([image("a", "2019-10-01T16:00:00Z"), image("b", "2019-06-01T16:00:00Z")]) == [("latest", 2019)]


def test_of_two_years_the_other_is_the_older_one() -> None:
    items = [image("new", "2021-06-01T00:00:00Z"), image("old", "2011-12-31T23:59:59Z")]
    assert resolved(items) == resolved(items[::-1]) == [("latest", 2021), ("older", 2011)]


def test_the_older_year_is_drawn_by_the_location_s_name() -> None:
    years = [2011, 2013, 2015, 2017, 2019, 2021]
    items = [image(f"i{year}", f"{year}-07-01T00:00:00Z") for year in (2023, *years)]
    drawn = Counter[int]()
    for number in range(600):
        location = f"place-{number:04}"
        latest, older = resolved(items[number % 7 :] + items[: number % 7], location)  # in any order
        assert latest == ("latest", 2023)
        assert older == ("older", lowest(years, 42, NAIP, location))
        drawn[older[1]] += 1
    assert sorted(drawn) == years
    assert min(drawn.values()) >= 65  # 600 / 6 = 100, standard deviation 9
    assert max(drawn.values()) <= 135
    assert PLATFORM.rules.resolve is not None
    found = PLATFORM.rules.resolve(search("place-0000"), items, OPTIONS, 42)
    assert [one.draw for one in found] == [0, hashed(42, NAIP, "place-0000", found[1].start.year)]


def test_one_more_year_changes_few_draws_and_another_seed_many() -> None:
    years = [2011, 2013, 2015, 2017, 2019]
    items = [image(f"i{year}", f"{year}-07-01T00:00:00Z") for year in (*years, 2021)]
    more = [*items, image("i2023", "2023-07-01T00:00:00Z")]
    names = [f"place-{number:04}" for number in range(300)]
    before, after, other = (
        [resolved(known, name, seed)[1][1] for name in names] for known, seed in ((items, 42), (more, 42), (items, 43))
    )
    # One more year is one more candidate (2021): locations that do not draw it keep their draw.
    assert all(year in (was, 2021) for was, year in zip(before, after, strict=True))
    assert 25 <= sum(year == 2021 for year in after) <= 80  # 300 / 6 = 50
    assert sum(was != year for was, year in zip(before, other, strict=True)) > 180  # 300 × 4 / 5 = 240


def test_several_quads_of_a_year_are_one_year() -> None:
    items = [image(f"q{n}", f"2022-11-{10 + n}T16:00:00Z") for n in range(4)] + [image("o", "2018-01-01T00:00:00Z")]
    assert resolved(items) == [("latest", 2022), ("older", 2018)]


def test_years_outside_the_recipe_do_not_count() -> None:
    candidates = [
        item(name, NAIP, f"{name}-07-01T00:00:00Z", ["image"]) for name in ("2009", "2010", "2016", "2023", "2024")
    ]
    edge = item("edge", NAIP, "2023-12-31T23:59:59.999Z", ["image"])
    admitted, rejected = eligible_items(PLATFORM, Answer(search(), [*candidates, edge]), OPTIONS)
    assert [one["id"] for one in admitted] == ["2010", "2016", "2023", "edge"]
    assert rejected == {"outside the period": 2}
    assert {year for _, year in resolved(admitted)} <= {2010, 2016, 2023}


def test_an_item_without_its_image_does_not_count() -> None:
    candidates = [
        item("whole", NAIP, "2018-07-01T00:00:00Z", ["image", "thumbnail"]),
        item("bare", NAIP, "2022-07-01T00:00:00Z", ["thumbnail"]),
        {**item("timeless", NAIP, "2021-07-01T00:00:00Z", ["image"]), "properties": {"datetime": None}},
        {**item("no properties", NAIP, "2021-07-01T00:00:00Z", ["image"]), "properties": None},
    ]
    answer = answer_of(search(), read_candidates(PLATFORM, candidates))
    admitted, rejected = eligible_items(PLATFORM, answer, OPTIONS)
    assert [one["id"] for one in admitted] == ["whole"]
    assert rejected == {
        "without asset image": 1,
        "neither datetime nor start_datetime is given": 1,
        "invalid item (properties is not an object)": 1,
    }
    assert resolved(admitted) == [("latest", 2018)]


def test_rank_is_latest_first_then_id() -> None:
    ordered = [
        image("z", "2022-11-26T16:00:00Z"),
        image("a", "2022-11-10T16:00:00Z"),
        image("b", "2022-11-10T16:00:00+00:00"),
        image("c", "2022-11-10T00:00:00Z"),
    ]
    backwards = ordered[::-1]
    assert sorted(backwards, key=lambda one: PLATFORM.rules.rank(one, search())) == ordered
    assert [PLATFORM.rules.refuse(one, search(), OPTIONS) for one in ordered] == [None] * 4


# --- pixels and files -------------------------------------------------------------------------------


def test_nodata_is_what_the_mask_says() -> None:
    mask = np.array([[0, 255, 255], [255, 0, 1]], np.uint8)
    cloud, nodata = PLATFORM.quality.judge({"image": mask})
    assert PLATFORM.quality.reads == "mask"
    assert cloud.dtype == nodata.dtype == np.bool_
    assert not cloud.any()
    assert nodata.tolist() == [[True, False, False], [False, True, False]]


# File names in both buckets: al/2017 is from awslabs/open-data-docs (analytic) and from the README of
# kylebarron/naip-cogeo-mosaic (visualization), wa/2023 in that of the bucket naip-geoparquet-index.
@pytest.mark.parametrize(
    ("azure", "analytic", "visualization"),
    [
        (
            "al/2017/al_100cm_2017/30085/m_3008501_ne_16_1_20171018.tif",
            "al/2017/100cm/rgbir_cog/30085/m_3008501_ne_16_1_20171018.tif",
            "al/2017/100cm/rgb/30085/m_3008501_ne_16_1_20171018.tif",
        ),
        (
            "al/2011/al_100cm_2011/30085/m_3008501_ne_16_1_20110815.tif",
            "al/2011/100cm/rgbir_cog/30085/m_3008501_ne_16_1_20110815.tif",
            "al/2011/100cm/rgb/30085/m_3008501_ne_16_1_20110815.tif",
        ),
        (
            "al/2019/al_60cm_2019/30085/m_3008501_ne_16_060_20191109.tif",
            "al/2019/60cm/rgbir_cog/30085/m_3008501_ne_16_060_20191109.tif",
            "al/2019/60cm/rgb/30085/m_3008501_ne_16_060_20191109.tif",
        ),
        (
            "wa/2023/wa_060cm_2023/45116/m_4511601_ne_11_060_20230622_20230911.tif",
            "wa/2023/60cm/rgbir_cog/45116/m_4511601_ne_11_060_20230622_20230911.tif",
            "wa/2023/60cm/rgb/45116/m_4511601_ne_11_060_20230622_20230911.tif",
        ),
        (
            "al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif",
            "al/2021/30cm/rgbir_cog/30085/m_3008501_ne_16_030_20211103.tif",
            "al/2021/30cm/rgb/30085/m_3008501_ne_16_030_20211103.tif",
        ),
        (
            "pr/2022/pr_030cm_2022/18065/41/m_1806541_se_20_030_20221119_20230329.tif",
            "pr/2022/30cm/rgbir_cog/18065/41/m_1806541_se_20_030_20221119_20230329.tif",
            "pr/2022/30cm/rgb/18065/41/m_1806541_se_20_030_20221119_20230329.tif",
        ),
    ],
)
def test_the_recipe_may_read_a_bucket_on_aws(azure: str, analytic: str, visualization: str) -> None:
    asset = {"href": AZURE + azure}
    sources = ("planetary-computer", "naip-analytic", "naip-visualization")
    read = {source: PLATFORM.href(asset, PLATFORM.rules.options(source=source)) for source in sources}
    assert read == {
        "planetary-computer": AZURE + azure,
        "naip-analytic": f"s3://naip-analytic/{analytic}",
        "naip-visualization": f"s3://naip-visualization/{visualization}",
    }
    assert PLATFORM.href({"href": read["naip-analytic"]}) == read["naip-analytic"]  # settled hrefs are kept


@pytest.mark.parametrize(
    "href",
    [
        "s3://bucket/imagery/naip/a/image.tif",
        "/data/naip/v002/al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif",
        "https://example.com/naip/v002/al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif",
        f"{AZURE}al/2021/al_fgdc_2021/30085/m_3008501_ne_16_030_20211103.txt",
        f"{AZURE}index/naip.idx",
    ],
)
def test_other_hrefs_stay_as_they_are(href: str) -> None:
    for source in ("planetary-computer", "naip-analytic", "naip-visualization"):
        assert PLATFORM.href({"href": href}, PLATFORM.rules.options(source=source)) == href


def test_an_item_is_settled_with_the_href_that_the_recipe_wants() -> None:
    one = item("a", NAIP, "2021-01-01T00:00:00Z", ["image"])
    one["assets"]["image"] = {
        "href": f"{AZURE}al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif",
        "type": "image/tiff",
        "alternate": {"s3": {"href": "s3://elsewhere/a.tif"}},
    }
    settled = PLATFORM.settled(one, PLATFORM.rules.options(source="naip-analytic"))
    assert settled["assets"]["image"] == {
        "href": "s3://naip-analytic/al/2021/30cm/rgbir_cog/30085/m_3008501_ne_16_030_20211103.tif",
        "type": "image/tiff",
    }
    copied = PLATFORM.settled(one, PLATFORM.rules.options(source="naip-analytic"), {"image": "s3://bucket/a.tif"})
    assert copied["assets"]["image"]["href"] == "s3://bucket/a.tif"


@pytest.mark.parametrize(
    ("href", "signed", "pays"),
    [
        (f"{AZURE}al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif", True, False),
        ("https://modiseuwest.blob.core.windows.net/modis/a.tif", False, False),
        ("s3://naip-analytic/al/2021/30cm/rgbir_cog/30085/a.tif", False, True),
        ("s3://naip-visualization/al/2021/30cm/rgb/30085/a.tif", False, True),
        ("s3://bucket/naip-analytic/a.tif", False, False),
        ("s3://naip-analytic-copies/a.tif", False, False),
        ("s3://bucket/imagery/naip/a/image.tif", False, False),
        ("/data/a.tif", False, False),
    ],
)
def test_who_signs_and_who_pays(href: str, signed: bool, pays: bool) -> None:
    access = PLATFORM.access_to(href)
    assert (access.signer is not None, access.requester_pays, access.unsigned) == (signed, pays, False)


# --- real items -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data: Path) -> list[dict[str, Any]]:
    return real_items(real_data, NAIP)


@pytest.mark.slow
def test_every_real_item_can_be_taken_in_its_year(real: list[dict[str, Any]]) -> None:
    answer = answer_of(search(), read_candidates(PLATFORM, real))
    admitted, rejected = eligible_items(PLATFORM, answer, OPTIONS)
    assert (len(real), len(admitted), rejected) == (716, 716, {})
    assert {one["id"]: item_datetime(one).year for one in admitted} == {
        one["id"]: int(one["properties"]["naip:year"]) for one in real
    }
    assert {name for one in admitted for name in one["assets"]} == {"image"}


def test_every_real_href_has_a_place_on_aws(real: list[dict[str, Any]]) -> None:
    options = PLATFORM.rules.options(source="naip-analytic")
    sizes = Counter[str]()
    for one in real:
        said, href = one["properties"], one["assets"]["image"]["href"]
        bucket, state, year, size, folder, *blocks, name = PLATFORM.href({"href": href}, options)[5:].split("/")
        assert (bucket, state, year, folder) == ("naip-analytic", said["naip:state"], said["naip:year"], "rgbir_cog")
        assert size == f"{round(said['gsd'] * 100)}cm"
        assert name == href.split("/")[-1]
        assert name.split("_")[1].startswith("".join(blocks))
        assert len(blocks) == (2 if state == "pr" else 1)
        assert PLATFORM.access_to(href).signer
        sizes[size] += 1
    assert sizes == {"60cm": 489, "30cm": 156, "100cm": 71}


def test_real_images_are_about_as_large_as_they_are_said_to_be(real: list[dict[str, Any]]) -> None:
    shapes = np.array([one["properties"]["proj:shape"] for one in real if round(one["properties"]["gsd"], 3) == 0.6])
    assert np.median(shapes, axis=0) == pytest.approx([PLATFORM.typical.height, PLATFORM.typical.width], rel=0.03)


# Centres of real images, with the years of the recorded items there (counted with shapely, item by item).
PLACES = {
    "m_3008501_ne": ((-85.905986, 30.969000), [2011, 2013, 2015, 2017, 2019, 2021, 2023]),
    "m_4307307_ne": ((-73.156229, 43.968750), [2011, 2012, 2014, 2016, 2018, 2021, 2023]),
    "m_4407307_ne": ((-73.156233, 44.968756), [2014, 2016, 2018]),
    "m_4107701_nw": ((-77.968776, 41.968746), [2022]),
    "m_2608003_ne": ((-80.656258, 26.968745), [2019]),
    "m_4811608_ne": ((-116.031259, 48.968761), [2023]),  # two images of the border of Idaho and Montana
    "m_4108053_se": ((-80.406235, 41.156251), [2015]),
}


@pytest.mark.parametrize("place", PLACES)
def test_latest_and_older_years_of_real_places(real: list[dict[str, Any]], place: str) -> None:
    where, years = PLACES[place]
    here = [one for one in real if shapely.geometry.shape(one["geometry"]).contains(shapely.Point(where))]
    assert sorted({int(one["properties"]["naip:year"]) for one in here}) == years
    expected = [("latest", years[-1])]
    if years[:-1]:
        expected.append(("older", lowest(years[:-1], 42, NAIP, place)))
    assert resolved([PLATFORM.read_item(one) for one in here], place) == expected
