"""Land cover of a cell's scenes: measured once, resumed after a kill, bad ones skipped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clay_assets.chips.cells import FAILED, MEASURED, ChipCell, LandCoverCell, stored_land_covers
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.landcover import (
    open_worldcover,
)
from clay_assets.chips.measuring import measure_land_cover
from clay_assets.chips.merge import merge
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import S2, made_plan, without_proj, write_items
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.servers.files import FileServer

FIELDS = list(WORLDCOVER_FIELDS.values())
SECONDS = 60


@pytest.fixture
def cell_of(store: LocalStore, recipe: Recipe, threads: Executor) -> Callable[..., Any]:
    """Index some of the planet's Sentinel-2 scenes."""

    def make(items: list[dict[str, Any]]) -> ChipCell:
        return index_scenes(S2, 2021, items, store, recipe, threads, 4)

    return make


@pytest.fixture
def items(planet: Planet) -> list[dict[str, Any]]:
    return [item for item in planet.items(S2) if item["properties"]["datetime"].startswith("2021")][:4]


@pytest.fixture
def measure(store: LocalStore, recipe: Recipe, threads: Executor) -> Callable[..., Any]:
    def run(cell: ChipCell, items: list[dict[str, Any]], folder: Path | str) -> LandCoverCell:
        return measure_land_cover(cell, items, open_worldcover(str(folder)), store, recipe, threads, 4)

    return run


def test_a_second_run_keeps_every_scene_and_says_the_same(
    planet: Planet,
    store: LocalStore,
    items: list[dict[str, Any]],
    cell_of: Callable[..., Any],
    measure: Callable[..., Any],
) -> None:
    cell = cell_of(items)
    first = measure(cell, items, planet.worldcover)
    before = {key: (store.root / key).stat().st_mtime_ns for key in first.keys}
    again = measure(cell, items, planet.worldcover)
    assert (first.kept, again.kept) == (0, 4)
    pd.testing.assert_frame_equal(first.ledger, again.ledger)
    assert {key: (store.root / key).stat().st_mtime_ns for key in again.keys} == before
    assert not again.lacking(cell)
    (store.root / first.keys[1]).write_bytes(b"half")
    assert measure(cell, items, planet.worldcover).kept == 3


def test_chips_that_were_indexed_again_are_measured_again(
    planet: Planet, items: list[dict[str, Any]], cell_of: Callable[..., Any], measure: Callable[..., Any]
) -> None:
    first = measure(cell_of(items), items, planet.worldcover)
    changed = [{**items[0], "properties": {**items[0]["properties"], "note": "processed again"}}, *items[1:]]
    cell = cell_of(changed)
    assert first.lacking(cell) == [items[0]["id"]]
    again = measure(cell, changed, planet.worldcover)
    assert again.kept == 3
    assert not again.lacking(cell)


def test_scenes_are_measured_again_once_a_missing_file_is_there(
    planet: Planet,
    items: list[dict[str, Any]],
    cell_of: Callable[..., Any],
    measure: Callable[..., Any],
    tmp_path: Path,
) -> None:
    some = tmp_path / "some"
    some.mkdir()
    shutil.copy(min(planet.worldcover.glob("*N51E012*")), some)
    cell = cell_of(items)
    first = measure(cell, items, some)
    assert first.ledger["chips_without_land_cover"].sum() > 0
    assert set(first.ledger["outcome"]) == {MEASURED}
    whole = measure(cell, items, planet.worldcover)
    assert whole.ledger["chips_without_land_cover"].sum() == 0
    assert 0 < whole.kept < 4  # those without missing files


def test_items_without_proj_fields_and_items_that_are_gone(
    planet: Planet, items: list[dict[str, Any]], cell_of: Callable[..., Any], measure: Callable[..., Any]
) -> None:
    bare = [without_proj(items[0]), *items[1:]]
    with_fields = measure(cell_of(items), items, planet.worldcover)
    cell = cell_of(bare)
    assert not set(cell.ledger["outcome"]) - {"indexed"}
    without_fields = measure(cell, bare, planet.worldcover)
    assert set(without_fields.ledger["outcome"]) == {MEASURED}
    shares = ["item_id", "chips", *FIELDS]
    pd.testing.assert_frame_equal(with_fields.ledger[shares], without_fields.ledger[shares])
    shutil.rmtree(cell.store.root / "chips" / "chip_landcover")
    gone = measure(cell, bare[1:], planet.worldcover).ledger.set_index("item_id")
    assert gone.loc[items[0]["id"], "outcome"] == FAILED
    assert "indexed, but missing from scene_imagery" in gone.loc[items[0]["id"], "error"]
    assert (gone.loc[[item["id"] for item in items[1:]], "outcome"] == MEASURED).all()


def test_one_bad_file_sets_its_scenes_aside(
    planet: Planet,
    items: list[dict[str, Any]],
    cell_of: Callable[..., Any],
    measure: Callable[..., Any],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "worldcover"
    shutil.copytree(planet.worldcover, folder)
    cell = cell_of(items)
    for path in folder.glob("*N51E012*"):
        path.write_bytes(b"none")
    found = measure(cell, items, folder)
    failed = found.ledger[found.ledger["outcome"] == FAILED]
    assert 0 < len(failed) < 4
    assert failed["error"].str.contains("N51E012_Map.tif: not a readable raster").all()
    assert not found.lacking(cell)  # they were measured, and the ledger has the reason


def test_a_web_server_without_any_file_is_told(
    planet: Planet,
    items: list[dict[str, Any]],
    cell_of: Callable[..., Any],
    measure: Callable[..., Any],
    file_server: Callable[[Path], FileServer],
    tmp_path: Path,
) -> None:
    cell = cell_of(items)
    (tmp_path / "web").mkdir()
    with pytest.raises(InputError, match=r"none of the required files found for the chips of sentinel-2-l2a 2021"):
        measure(cell, items, file_server(tmp_path / "web").url)
    found = measure(cell, items, file_server(planet.worldcover).url)
    assert set(found.ledger["outcome"]) == {MEASURED}
    assert found.ledger["chips_without_land_cover"].sum() == 0


# --- killed -----------------------------------------------------------------------------------------------------------


def test_killed_before_its_ledger_and_before_the_merge_then_resumed(
    planet: Planet,
    store: LocalStore,
    recipe: Recipe,
    threads: Executor,
    cell_of: Callable[..., Any],
    measure: Callable[..., Any],
    tmp_path: Path,
) -> None:
    items = [item for item in planet.items(S2) if item["properties"]["datetime"].startswith("2021")]
    cell = cell_of(items)
    store.write(layout.chip_ledger(S2, 2021), encode(cell.ledger, recipe.stamp()))
    path = write_items(tmp_path / "items.ndjson", items)
    folder = store.root / layout.landcover_folder(S2, 2021)
    process = subprocess.Popen(
        [sys.executable, "-m", "clay_assets_tests.chips.index_cell_process", path, S2, "2021", store.root,
         planet.worldcover],
        cwd=REPOSITORY,
    )  # fmt: skip
    end = time.monotonic() + SECONDS
    while not any(folder.glob("*.parquet")) and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.wait(SECONDS)
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 0 < len(there) < len(cell.scenes)
    with pytest.raises(InputError, match="Materialise chip_landcover"):  # files without a ledger are not merged
        merge([cell], stored_land_covers(store), made_plan(), store, recipe, threads, 4)

    resumed = measure(cell, items, planet.worldcover)
    assert resumed.kept == len(there)
    assert {name: (folder / name).stat().st_mtime_ns for name in there} == there
    store.write(layout.landcover_ledger(S2, 2021), encode(resumed.ledger, recipe.stamp()))
    (land_cover,) = stored_land_covers(store)  # killed again, between land cover and merge: nothing is measured again
    assert not land_cover.lacking(cell)
    assert measure(cell, items, planet.worldcover).kept == len(cell.scenes)
    merged = merge([cell], [land_cover], made_plan(), store, recipe, threads, 4)
    assert merged.rows == cell.ledger["chips"].sum()
    again = merge([cell], [land_cover], made_plan(), store, recipe, threads, 4)
    assert (again.written, again.parts) == (0, merged.parts)
