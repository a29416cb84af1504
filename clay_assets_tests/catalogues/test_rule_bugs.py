"""A bug in a platform's rule fails the run: beyond the recipe's tolerance it stops, and publishes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely

from clay_assets.demo import grid
from clay_assets.demo.planet import Planet
from clay_assets.orchestration.failures import run_error
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.requests import make_requests
from clay_assets.storage import layout
from clay_assets_tests.chain import Chain, recipe_with

S2, NAIP, MODIS = "sentinel-2-l2a", "naip", "modis"


def with_typo(rule: Callable[..., Any], item: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that looks for a misspelt property first."""

    def misspelt(*arguments: Any) -> Any:
        _ = item(*arguments)["propertys"]
        return rule(*arguments)

    return misspelt


@pytest.fixture
def break_rule(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Insert a typo into one rule of a platform."""

    def plant(key: str, name: str) -> None:
        rules = PLATFORMS[key].rules
        item = (lambda request, items, *_: items[0]) if name == "resolve" else (lambda item, *_: item)
        changes: dict[str, Any] = {name: with_typo(getattr(rules, name), item)}
        broken = replace(rules, **changes)
        monkeypatch.setitem(PLATFORMS, key, replace(PLATFORMS[key], rules=broken))

    return plant


def tiles_as_sample() -> gpd.GeoDataFrame:
    tiles = grid.tiles()
    return gpd.GeoDataFrame(
        {"name": [tile.name for tile in tiles]}, geometry=[tile.polygon for tile in tiles], crs="EPSG:4326"
    )


def naip_places(planet: Planet) -> gpd.GeoDataFrame:
    """A location in each of a few images, all from years that the recipe searches."""
    items = [item for item in planet.items(NAIP) if item["properties"]["datetime"] >= "2021"][:3]
    assert len(items) > 1
    points = [shapely.geometry.shape(item["geometry"]).representative_point() for item in items]
    return gpd.GeoDataFrame({"name": [f"place-{n}" for n in range(len(points))]}, geometry=points, crs="EPSG:4326")


@pytest.mark.parametrize("rule", ["refuse", "rank"])
def test_scene_picks_stops(new_chain: Callable[..., Chain], break_rule: Callable[..., None], rule: str) -> None:
    chain = new_chain()
    chain.clay.write_table(
        layout.table("scene_requests", S2), make_requests(PLATFORMS[S2], tiles_as_sample(), chain.clay.recipe())
    )
    year = chain.clay.requested_years(S2)[0]
    assert chain.run("scenes", f"{S2}|{year}", "scene_picks").success
    store, keys = chain.clay.store(), [layout.table("scene_picks", S2, year), layout.request_ledger(S2, year)]
    before = [store.read(key) for key in keys]
    break_rule(S2, rule)
    result = chain.run("scenes", f"{S2}|{year}", "scene_picks")
    assert not result.success
    said = run_error(result)
    assert f"scene_picks {S2}|{year}: " in said
    assert "more than the recipe's tolerance" in said
    assert f"{S2}: {rule} raised KeyError('propertys') on item S2" in said
    assert [store.read(key) for key in keys] == before


@pytest.mark.parametrize("rule", ["refuse", "rank", "resolve"])
def test_scene_requests_stops(
    new_chain: Callable[..., Chain], planet: Planet, break_rule: Callable[..., None], rule: str
) -> None:
    chain, places = new_chain(), naip_places(planet)
    chain.clay.write_table(layout.table("naip_sample"), places)
    break_rule(NAIP, rule)
    result = chain.run("requests", NAIP)
    assert not result.success
    said = run_error(result)
    assert f"scene_requests naip: {len(places)} searches failed" in said
    assert f"naip: {rule} raised KeyError('propertys') on " in said
    assert not chain.clay.store().exists(layout.table("scene_requests", NAIP))


def test_modis_sample_stops(new_chain: Callable[..., Chain], break_rule: Callable[..., None], tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, ("failed_requests = 0.01", "failed_requests = 0"))
    chain = new_chain(recipe=str(recipe))
    break_rule(MODIS, "refuse")
    result = chain.run("sampling", asset="modis_sample")
    assert not result.success
    said = run_error(result)
    assert "more than the recipe's tolerance of 0.0%" in said
    assert "modis: refuse raised KeyError('propertys') on item M" in said
    assert not chain.clay.store().exists(layout.table("modis_sample"))


def test_one_that_is_tolerated_is_a_warning_that_names_it(
    new_chain: Callable[..., Chain], planet: Planet, break_rule: Callable[..., None]
) -> None:
    chain = new_chain()
    chain.clay.write_table(layout.table("naip_sample"), naip_places(planet).head(1))
    break_rule(NAIP, "refuse")
    result = chain.run("requests", NAIP)
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert check.check_name == "no_failed_searches"
    assert "naip: refuse raised KeyError('propertys')" in str(check.metadata["failures"].value)
