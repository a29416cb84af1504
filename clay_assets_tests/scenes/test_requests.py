"""Which searches are made from a sample."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Typical
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.scenes.cost import CostEstimate, estimate_cost
from clay_assets.scenes.requests import make_requests, requests_of

SENTINEL_2, LANDSAT_L1, LANDSAT_L2 = "sentinel-2-l2a", "landsat-c2l1", "landsat-c2l2-sr"
TWO_PARTS = shapely.MultiPolygon([shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.9, -16)])


def world(count: int) -> gpd.GeoDataFrame:
    names = [f"{1 + n % 60:02}C{'ABCDEFGH'[n // 60 % 8]}{'JKLM'[n // 480]}" for n in range(count)]
    boxes = [shapely.box(-180 + n % 350, 0, -179 + n % 350, 1) for n in range(count)]
    return gpd.GeoDataFrame({"name": names}, geometry=boxes, crs="EPSG:4326")


def years_by_hand(seed: int, platform: str, tile: str, count: int) -> set[int]:
    def key(year: int) -> bytes:
        return hashlib.blake2b(f"{seed}\x1f{platform}\x1f{tile}\x1f{year}".encode(), digest_size=8).digest()

    return set(sorted(range(2018, 2024), key=key)[:count])


def table(platform: str, sample: gpd.GeoDataFrame, recipe: Recipe | None = None) -> gpd.GeoDataFrame:
    return make_requests(PLATFORMS[platform], sample, recipe or load_recipe("clay_v1"))


def years(requests: gpd.GeoDataFrame) -> dict[str, set[int]]:
    return {name: set(rows["year"]) for name, rows in requests.groupby("location")}


@pytest.mark.parametrize(("platform", "count"), [(SENTINEL_2, 2), (LANDSAT_L1, 1), (LANDSAT_L2, 1)])
def test_drawn_years_times_four_quarters(platform: str, count: int) -> None:
    sample = world(50)
    requests = table(platform, sample)
    assert len(requests) == 50 * count * 4
    drawn = years(requests)
    assert drawn == {name: years_by_hand(42, platform, name, count) for name in sample["name"]}
    for (name, year), rows in requests.groupby(["location", "year"]):
        assert rows["period"].tolist() == ["Q1", "Q2", "Q3", "Q4"]
        assert rows["request_id"].tolist() == [f"{name}-{year}-Q{quarter}" for quarter in range(1, 5)]
        draw = hashlib.blake2b(f"42\x1f{platform}\x1f{name}\x1f{year}".encode(), digest_size=8).hexdigest()
        assert set(rows["draw"]) == {int(draw, 16)}
    assert set(requests["platform"]) == {platform}
    assert requests["request_id"].is_unique
    assert requests["request_id"].is_monotonic_increasing
    assert requests.crs == "EPSG:4326"


def test_quarters_are_half_open_and_meet() -> None:
    bounds = [quarter_bounds(year, quarter) for year in (2019, 2020) for quarter in range(1, 5)]
    assert bounds[0][0] == datetime(2019, 1, 1, tzinfo=UTC)
    assert bounds[-1][1] == datetime(2021, 1, 1, tzinfo=UTC)
    assert bounds[4] == (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 4, 1, tzinfo=UTC))
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))


@pytest.mark.slow
def test_the_three_platforms_draw_their_years_independently() -> None:
    sample = world(600)
    l1, l2, s2 = (years(table(platform, sample)) for platform in (LANDSAT_L1, LANDSAT_L2, SENTINEL_2))
    same = sum(l1[name] == l2[name] for name in l1)
    assert 60 <= same <= 140  # 600 / 6 = 100, standard deviation 9
    within = sum(l1[name] <= s2[name] for name in l1)
    assert 150 <= within <= 250  # 600 / 3 = 200, standard deviation 12


def test_one_more_tile_changes_nobody_s_years() -> None:
    before = table(SENTINEL_2, world(40))
    after = table(SENTINEL_2, world(41))
    kept = after[after["location"].isin(before["location"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.DataFrame(before), pd.DataFrame(kept))
    assert len(after) == len(before) + 8


def test_another_seed_draws_other_years() -> None:
    recipe = load_recipe("clay_v1")
    other = recipe.model_copy(update={"seed": 43})
    assert years(table(SENTINEL_2, world(40))) != years(table(SENTINEL_2, world(40), other))


@pytest.mark.parametrize("platform", [SENTINEL_2, LANDSAT_L2])
def test_a_shuffled_sample_gives_the_same_table(platform: str) -> None:
    sample = world(40)
    pd.testing.assert_frame_equal(
        pd.DataFrame(table(platform, sample)), pd.DataFrame(table(platform, sample.sample(frac=1, random_state=3)))
    )


def test_sentinel_2_asks_for_both_spellings_within_the_tile() -> None:
    sample = gpd.GeoDataFrame(
        {"name": ["09VWK", "32NLG"]}, geometry=[TWO_PARTS, shapely.box(6, 0, 7, 1)], crs="EPSG:4326"
    )
    requests = table(SENTINEL_2, sample)
    asked = {name: set(rows["filters"]) for name, rows in requests.groupby("location")}
    assert {name: [json.loads(text) for text in texts] for name, texts in asked.items()} == {
        "09VWK": [[{"grid:code": "MGRS-09VWK"}, {"grid:code": "MGRS-9VWK"}]],
        "32NLG": [[{"grid:code": "MGRS-32NLG"}]],
    }
    assert requests.loc[requests["location"] == "09VWK", "geometry"].geom_equals(TWO_PARTS).all()


@pytest.mark.parametrize("platform", [LANDSAT_L1, LANDSAT_L2])
def test_landsat_asks_for_a_point_inside_also_of_a_tile_in_two_parts(platform: str) -> None:
    sample = gpd.GeoDataFrame(
        {"name": ["60KYG", "32NLG"]}, geometry=[TWO_PARTS, shapely.box(6, 0, 7, 1)], crs="EPSG:4326"
    )
    requests = table(platform, sample).merge(sample, how="cross")
    own = requests[requests["location"] == requests["name"]]
    assert (own["geometry_x"].geom_type == "Point").all()
    assert own["geometry_x"].within(own["geometry_y"]).all()
    assert set(own["filters"]) == {"[]"}


def test_the_recipe_chooses_years_and_quarters() -> None:
    options = {"years": [2020, 2020], "years_per_location": 1, "quarters": [3, 1]}
    rules = [{"rule": "r", "class": "Cropland", "tiles": 1, "from_highest": 1}]
    recipe = Recipe.model_validate({"name": "x", "seed": 1, "tile_rules": rules, "platforms": {SENTINEL_2: options}})
    requests = table(SENTINEL_2, world(2), recipe)
    assert requests["year"].unique().tolist() == [2020]
    assert requests["period"].tolist() == ["Q1", "Q3", "Q1", "Q3"]


def test_an_empty_sample_gives_an_empty_table_of_the_same_shape() -> None:
    empty, some = table(SENTINEL_2, world(0)), table(SENTINEL_2, world(1))
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == some.dtypes.to_dict()
    assert requests_of(empty, 2020) == []


def test_a_location_named_twice_is_an_error() -> None:
    sample = pd.concat([world(3), world(1)])
    with pytest.raises(
        InputError, match=r"sentinel-2-l2a: request 01CAJ-\d{4}-Q1 is repeated\. Keep each location of mgrs_sample once"
    ):
        table(SENTINEL_2, sample)


def test_a_year_s_requests_as_the_search_takes_them() -> None:
    requests = table(SENTINEL_2, world(30))
    found = requests_of(requests.sample(frac=1, random_state=1), 2020)
    assert [one.id for one in found] == sorted(requests.loc[requests["year"] == 2020, "request_id"])
    one = found[0]
    assert one.id == f"{one.location}-2020-Q1"
    assert (one.start, one.end) == (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 4, 1, tzinfo=UTC))
    assert one.filters[0] == {"grid:code": f"MGRS-{one.location}"}
    assert sum(len(requests_of(requests, year)) for year in range(2018, 2024)) == len(requests)


# --- estimated cost ---------------------------------------------------------------------------------


def cost(platform: str, requests: int, chip_size: int = 256, **options: Any) -> CostEstimate:
    recipe = load_recipe("clay_v1")
    chosen = {**recipe.platforms, platform: recipe.platforms[platform].model_copy(update=options)}
    return estimate_cost(
        PLATFORMS[platform], requests, recipe.model_copy(update={"platforms": chosen, "chip_size": chip_size})
    )


def test_a_referenced_scene_costs_its_quality_band_to_read() -> None:
    # 10,980 pixels hold 42 whole chips; the scene classification is at half the resolution, one byte.
    assert cost(SENTINEL_2, 8) == CostEstimate(8, 8 * 42 * 42, 8 * 5490 * 5490, 0)


def test_a_copied_scene_costs_its_files_to_write() -> None:
    # Four bands of 10 m, six of 20 m, two bytes; and the classification.
    files = 10980 * 10980 * 4 * 2 + 5490 * 5490 * (6 * 2 + 1)
    assert cost(SENTINEL_2, 3, imagery="copy") == CostEstimate(3, 3 * 1764, 3 * 5490 * 5490, 3 * files)


def test_a_derived_scene_costs_its_files_twice() -> None:
    # 2,400² pixels; seven bands of two bytes, QC of four, state of two. Quality assets: state, QC and red.
    assert cost("modis", 16776) == CostEstimate(16776, 16776 * 81, 16776 * (8 + 20) * 2400**2, 16776 * 20 * 2400**2)


def test_the_planned_chips_of_modis_are_about_those_published() -> None:
    published = load_recipe("clay_v1").published["modis"]
    assert published.requests == 16776
    assert cost("modis", 16776).chips == pytest.approx(published.chips, rel=0.01)


def test_the_size_of_a_chip_decides_how_many_there_are() -> None:
    assert cost(SENTINEL_2, 2, 512).chips == 2 * 21 * 21
    assert cost(SENTINEL_2, 2, 4096).chips == 2 * 2 * 2
    assert Typical(512, 511, 1, 1).chips(256) == 2
    assert Typical(255, 9999, 1, 1).chips(256) == 0


@pytest.mark.parametrize("platform", sorted(PLATFORMS))
def test_no_requests_cost_nothing_and_two_cost_twice_as_much(platform: str) -> None:
    one, two = cost(platform, 1), cost(platform, 2)
    assert cost(platform, 0) == CostEstimate(0, 0, 0, 0)
    assert (two.scenes, two.chips) == (2, 2 * one.chips)
    assert (two.bytes_to_read, two.bytes_to_copy) == (2 * one.bytes_to_read, 2 * one.bytes_to_copy)
    assert one.chips > 0
    assert (one.bytes_to_copy > 0) == (PLATFORMS[platform].files.derivation is not None)


def test_only_radar_reads_all_of_a_scene_to_index_it() -> None:
    scene = PLATFORMS["sentinel-1-rtc"].typical
    assert cost("sentinel-1-rtc", 1).bytes_to_read == scene.height * scene.width * 8  # two bands of float32
    assert cost("naip", 1).bytes_to_read == 0  # most images have no mask
