"""Blocks are drawn only from land cover and the recipe, and chips of different splits are never too close."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from clay_assets.chips.blocks import NO_LAND_COVER, BlockGrid, Blocks
from clay_assets.chips.leaks import Leaks
from clay_assets.chips.split_audit import SplitCounts, shares_of_splits
from clay_assets.chips.splits import BUFFER, SPLITS, GroundSplits, SplitPlan, split_fingerprint, stored_plan
from clay_assets.errors import InputError
from clay_assets.findings import Finding
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.recipes.loader import Splits
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.made_world import CLASSES, land_cover, made_chips, nearest_km

ONLY_TRAIN = {"train": 100, "validate": 0, "test": 0}
CONUS, NEW_ZEALAND = load_recipe().splits.regions


def recipe_with(**splits: Any) -> Recipe:
    """clay_v1 with other splits."""
    recipe = load_recipe()
    return recipe.model_copy(update={"splits": Splits.model_validate({**recipe.splits.model_dump(), **splits})})


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Only use the first few draws: using all takes a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clay_assets.chips.splits.DRAWS", 2)
        yield


@pytest.fixture(scope="module")
def stats() -> gpd.GeoDataFrame:
    return land_cover()


@pytest.fixture(scope="module")
def plan(stats: gpd.GeoDataFrame) -> SplitPlan:
    return SplitPlan.of(load_recipe(), stats)


@pytest.fixture(scope="module")
def many_borders(plan: SplitPlan) -> GroundSplits:
    """Every block has a random split, independent of its neighbours."""
    codes = np.random.default_rng(3).integers(0, len(SPLITS), len(plan.blocks)).astype(np.uint8)
    return replace(plan.ground, codes=codes[plan.block])


@pytest.mark.slow
def test_no_chips_of_different_splits_are_nearer_than_the_distance(many_borders: GroundSplits) -> None:
    distance = 25
    ground = replace(many_borders, distance_km=distance)
    polygons, platforms, places = made_chips(150)
    assert (shapely.get_num_geometries(polygons) > 1).sum() > 1  # across ±180
    assert shapely.bounds(polygons)[:, 3].max() > 83
    splits = ground.split_of(polygons)
    for platform in {*platforms}:
        assert {*splits[platforms == platform]} == {*SPLITS, BUFFER}, platform
    together = {
        name: np.concatenate([places[chip] for chip in np.flatnonzero(splits == name)]) for name in (*SPLITS, BUFFER)
    }
    for one, other in combinations(SPLITS, 2):
        assert nearest_km(together[one], together[other]) >= distance
    # The test is sensitive: chips in the buffer are closer.
    assert nearest_km(together["train"], together[BUFFER]) < 1
    gate = Leaks(distance)
    gate.add(polygons, splits)
    assert gate.finding().ok, gate.finding().summary


def chips_at_borders(grid: BlockGrid, distance: float, points: int = 6) -> NDArray[Any]:
    """Small chips on both sides of every block border, as close to it as possible without being buffer."""
    rng = np.random.default_rng(1)
    west, south, east, north = (np.tile(side, points) for side in grid.bounds().T)
    around = (west < -150) | (east > 150) | ((west > -10) & (east < 40))
    here = around | (np.maximum(np.abs(south), np.abs(north)) > 80)
    west, south, east, north = west[here], south[here], east[here], north[here]
    along = rng.random(len(west))
    x, y = west + along * (east - west), south + along * (north - south)

    def beside(latitude: NDArray[Any]) -> NDArray[Any]:
        cell = np.maximum(np.cos(np.radians(30)) / np.cos(np.radians(np.abs(latitude).clip(0, 89))), 1.2)  # km
        away = distance / 2 + rng.uniform(0, 2, len(latitude)) * cell
        return np.asarray(rng.choice([-1, 1], len(latitude)) * away / 111)

    across = np.concatenate([x, west + beside(y) / np.cos(np.radians(y.clip(-89, 89)))])
    up = np.concatenate([south + beside(south), y]).clip(-89.99, 89.98)
    across = ((across + 180) % 360 - 180).clip(-180, 179.998)
    return np.asarray(shapely.box(across, up, across + 0.002, up + 0.002))


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0, 60])
def test_the_gate_has_no_false_alarm_at_any_distance_and_latitude(
    many_borders: GroundSplits, distance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = replace(many_borders, distance_km=distance)
    polygons, _, _ = made_chips(30, seed=0)
    near = chips_at_borders(ground.grid, distance)

    def finding() -> Finding:
        gate = Leaks(distance)
        for chips in (polygons, near):
            gate.add(chips, ground.split_of(chips))
        return gate.finding()

    splits = ground.split_of(near)
    assert {*splits} == {*SPLITS, BUFFER}
    assert finding().ok, finding().summary
    # The test is sensitive: there is a leak if chips are not grown by the gate's cells.
    monkeypatch.setattr("clay_assets.chips.splits.CELLS_OF_GATE", 0)
    assert not finding().ok


@pytest.mark.slow
def test_a_chip_has_the_split_of_the_blocks_it_lies_in(plan: SplitPlan) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-179, 179, 3000), rng.uniform(-84, 84, 3000)
    splits = plan.ground.split_of(shapely.box(x, y, x + 0.02, y + 0.02))
    here = np.array(SPLITS)[plan.ground.codes[plan.ground.grid.cells_at(x, y)]]
    inside = splits != BUFFER
    assert inside.mean() > 0.9
    assert (splits == here)[inside].all()


@pytest.mark.slow
def test_a_split_depends_on_no_other_chip_and_no_order(plan: SplitPlan, stats: gpd.GeoDataFrame) -> None:
    polygons, _, _ = made_chips(60)
    splits = plan.ground.split_of(polygons)
    order = np.random.default_rng(3).permutation(len(polygons))
    assert (plan.ground.split_of(polygons[order]) == splits[order]).all()
    assert [plan.ground.split_of(polygons[n : n + 1])[0] for n in range(0, len(polygons), 7)] == splits[::7].tolist()
    again = SplitPlan.of(load_recipe(), stats.sample(frac=1, random_state=4))
    assert again.fingerprint == plan.fingerprint == split_fingerprint(load_recipe(), stats)
    assert again.blocks == plan.blocks
    sent = pickle.dumps(plan.ground)  # to workers, with every scene
    assert len(sent) < 30_000
    assert (pickle.loads(sent).split_of(polygons) == splits).all()


@pytest.mark.slow
def test_a_plan_is_drawn_once(stats: gpd.GeoDataFrame, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clay_assets.chips.splits.DRAWS", 1)  # for each of the six plans
    plan = SplitPlan.of(load_recipe(), stats)
    first = stored_plan(store, load_recipe(), stats)
    content = store.read(layout.SPLITS)
    again = stored_plan(store, load_recipe(), stats.sample(frac=1, random_state=4))
    for found in (first, again):
        assert (found.ground.codes == plan.ground.codes).all()
        assert (found.block == plan.block).all()
        assert (found.blocks, found.fingerprint) == (plan.blocks, plan.fingerprint)
        assert found.ground.distance_km == plan.ground.distance_km
        assert (found.ground.grid.columns == plan.ground.grid.columns).all()
    for damaged in (b"", content[:-50]):
        store.write(layout.SPLITS, damaged)
        assert (stored_plan(store, load_recipe(), stats).ground.codes == plan.ground.codes).all()
        assert store.read(layout.SPLITS) == content
    other = load_recipe().model_copy(update={"seed": 43})
    assert stored_plan(store, other, stats).fingerprint == split_fingerprint(other, stats) != plan.fingerprint
    assert store.read(layout.SPLITS) != content


@pytest.mark.slow
def test_what_decides_is_in_the_fingerprint_and_nothing_else(stats: gpd.GeoDataFrame) -> None:
    recipe = load_recipe()
    fewer = recipe.tile_rules[0].model_copy(update={"tiles": 1})
    modis = recipe.options("modis")
    modis = modis.model_copy(update={"published_tiles": modis.published_tiles[1:]})
    listing_fewer = recipe.model_copy(update={"platforms": {**recipe.platforms, "modis": modis}})
    covered = stats.assign(valid_share=stats["valid_share"] * 0.9)
    other = {
        "seed": split_fingerprint(recipe.model_copy(update={"seed": 43}), stats),
        "distance": split_fingerprint(recipe_with(distance_km=6), stats),
        "shares": split_fingerprint(recipe_with(shares={"train": 80, "validate": 10, "test": 10}), stats),
        "block": split_fingerprint(recipe_with(block_km=1000, regions=()), stats),
        "tile rules": split_fingerprint(
            recipe.model_copy(update={"tile_rules": (fewer, *recipe.tile_rules[1:])}), stats
        ),
        "land cover": split_fingerprint(recipe, covered),
        "tiles": split_fingerprint(recipe, stats.iloc[1:]),
        "listed tiles": split_fingerprint(listing_fewer, stats),
    }
    known = split_fingerprint(recipe, stats)
    assert len({*other.values(), known}) == len(other) + 1
    naip = recipe.options("naip").model_copy(update={"imagery": "copy"})
    platforms = {**recipe.platforms, "naip": naip}
    without = recipe.model_copy(update={"platforms": platforms, "description": "another", "published": {}})
    assert split_fingerprint(without, stats) == known


def test_shares_of_land_and_land_cover_are_those_of_the_whole(plan: SplitPlan, stats: gpd.GeoDataFrame) -> None:
    land = Counter[str]()
    for block in plan.blocks:
        if block["stratum"] != NO_LAND_COVER:
            land[block["split"]] += block["land_km2"]
    for name, share in load_recipe().splits.shares.items():
        assert 100 * land[name] / land.total() == pytest.approx(share, abs=2)
    x, y = (stats.geometry.bounds[side].to_numpy() + 1 for side in ("minx", "miny"))
    weight = stats["valid_share"].to_numpy() * np.cos(np.radians(y))
    here = np.array(SPLITS)[plan.ground.codes[plan.ground.grid.cells_at(x, y)]]
    shares = stats[CLASSES].to_numpy()
    whole = np.average(shares, axis=0, weights=weight)
    for name in SPLITS:
        own = np.average(shares[here == name], axis=0, weights=weight[here == name])
        assert np.abs(own - whole).max() < 0.03, name


def test_every_region_has_blocks_of_each_split(plan: SplitPlan) -> None:
    for name in (CONUS.name, NEW_ZEALAND.name):
        splits = {block["split"] for block in plan.blocks if block["stratum"] == name and block["land_km2"]}
        assert splits == {*SPLITS}, name
    for region in (CONUS, NEW_ZEALAND):
        west, south, east, north = shapely.Polygon(region.outline).bounds
        x, y = np.meshgrid(np.arange(west, east, 0.25), np.arange(south, north, 0.25))
        inside = shapely.contains_xy(shapely.Polygon(region.outline), x, y)
        places = shapely.box(x[inside], y[inside], x[inside] + 0.002, y[inside] + 0.002)
        assert {*plan.ground.split_of(places)} == {*SPLITS, BUFFER}


@pytest.mark.slow
def test_a_world_of_few_tiles_has_regions_without_land_cover() -> None:
    few = land_cover()
    few = few[few.geometry.bounds["minx"].between(0, 60)].reset_index(drop=True)
    plan = SplitPlan.of(load_recipe(), few)
    conus = [block for block in plan.blocks if block["stratum"] == CONUS.name]
    assert {block["split"] for block in conus} == {*SPLITS}
    assert sum(block["land_km2"] for block in conus) == pytest.approx(8.1e6, rel=0.15)  # of the 48 states


def test_blocks_are_of_one_size_everywhere_and_poles_are_whole() -> None:
    grid = BlockGrid.of(Splits(block_km=500))
    west, south, east, north = grid.bounds().T
    areas = grid.areas()
    assert areas.sum() == pytest.approx(510_065_600, rel=1e-4)
    inner = (south > -84) & (north < 84)
    assert np.abs(areas[inner] / 500**2 - 1).max() < 0.1
    width = np.radians(east - west) * 6371 * np.cos(np.radians((south + north) / 2))
    assert np.abs(width[inner] / 500 - 1).max() < 0.1
    assert ((east - west)[(south == -90) | (north == 90)] == 360).all()


def test_chips_at_the_poles_and_around_the_world(plan: SplitPlan) -> None:
    cap = shapely.box(-180, 89, 180, 90)
    ring = shapely.MultiPolygon([shapely.box(-180, 60, 0, 60.1), shapely.box(0, 60, 180, 60.1)])
    at_pole = np.array(SPLITS)[plan.ground.codes[-1]]
    assert plan.ground.split_of(np.array([cap, ring])).tolist() == [at_pole, BUFFER]
    assert plan.ground.split_of(np.array([], dtype=object)).tolist() == []


def test_a_chip_in_two_parts_at_180_is_small(plan: SplitPlan) -> None:
    y = np.arange(-60, 70, 0.25)
    both = shapely.multipolygons(
        np.stack([shapely.box(179.99, y, 180, y + 0.01), shapely.box(-180, y, -179.99, y + 0.01)], axis=1)
    )
    east = shapely.box(-179.999, y, -179.99, y + 0.01)
    splits, beside = plan.ground.split_of(both), plan.ground.split_of(east)
    same = (splits != BUFFER) & (beside != BUFFER)
    assert same.mean() > 0.5
    assert (splits == beside)[same].all()


@pytest.mark.slow
def test_bad_input_is_refused(plan: SplitPlan, stats: gpd.GeoDataFrame) -> None:
    with pytest.raises(InputError, match=r"1 of 2 chips have no geometry\. Re-materialise"):
        plan.ground.split_of(np.array([None, shapely.box(0, 0, 1, 1)]))
    island = {"name": "island", "block_km": 400, "outline": [[0, 0], [1, 0], [1, 1]]}
    with pytest.raises(InputError, match="region island: 0 blocks with land, but one of each split is needed"):
        SplitPlan.of(recipe_with(regions=[island]), stats)
    with pytest.raises(InputError, match=r"no block with land left for .*test, of \d\. Make block_km"):
        SplitPlan.of(recipe_with(regions=[]), stats.iloc[:1])


def test_a_split_without_chips_is_a_violation() -> None:
    cover = np.zeros((4, len(CLASSES)))
    cover[:3, 0], cover[1, 1] = 50, 50  # trees everywhere; half of the validation chips is shrubland
    counts = {
        "naip": SplitCounts(np.array([90, 5, 5, 1]), cover),
        "modis": SplitCounts(np.array([50, 0, 0, 50]), np.zeros_like(cover)),
        "linz": SplitCounts(np.zeros(4, int), np.zeros_like(cover)),
    }
    finding = shares_of_splits(counts, load_recipe().splits)
    assert finding.violations == (
        "modis: none of 100 chips is validate",
        "modis: none of 100 chips is test",
    )
    assert finding.rows[1] == {
        "platform": "naip",
        "chips": 101,
        "train_percent": 90.0,
        "validate_percent": 5.0,
        "test_percent": 5.0,
        "buffer_percent": 0.99,
        "class": "Tree cover",
        "points": 25.0,
    }
    assert finding.numbers == {"train_chips": 140, "validate_chips": 5, "test_chips": 5, "buffer_chips": 51}
    assert shares_of_splits({"linz": counts["linz"]}, load_recipe().splits).ok
    assert shares_of_splits({"modis": counts["modis"]}, recipe_with(shares=ONLY_TRAIN).splits).ok


@pytest.mark.slow
def test_the_inner_part_of_blocks_is_where_the_widest_chips_fit(stats: gpd.GeoDataFrame) -> None:
    recipe = recipe_with(regions=[])
    grid = BlockGrid.of(recipe.splits)
    blocks = Blocks.of(recipe, grid, stats)
    every, sampled, inner = (population.sum(axis=1) for population in blocks.classes)
    assert (sampled <= every + 1e-6).all()
    assert (inner <= every + 1e-6).all()
    # 670 km of a block of 800 km are inside in each direction; and the listed sinusoidal tiles have no coast.
    assert 0.2 < inner.sum() / every.sum() < (670 / 800) ** 2 + 0.03
    modis = recipe.options("modis").model_copy(update={"published_tiles": ((8, 18),)})  # 0° to 10° N, 0° to 10° E
    one = recipe.model_copy(update={"platforms": {**recipe.platforms, "modis": modis}})
    inner = Blocks.of(one, grid, stats).classes[2].sum(axis=1)
    west, south, east, north = grid.bounds()[inner > 0].T
    assert (inner > 0).any()
    assert ((west < 11) & (east > 0) & (south < 10) & (north > 0)).all()
    none = recipe.model_copy(
        update={"platforms": {**recipe.platforms, "modis": modis.model_copy(update={"published_tiles": ((0, 17),)})}}
    )
    assert len(Blocks.of(none, grid, stats[stats.geometry.bounds["maxy"] < 60]).classes) == 2  # no tiles listed
