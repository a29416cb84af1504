"""Damaged, missing and replaced chip indexes are found, both in a cell's files and in the merged index."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.chips.audit import (
    composition_of_sample,
    land_cover_of_cells,
    look_at_cell,
    look_at_land_cover,
    merged_ids_unique,
    rows_of_chip_indexes,
    stale_cells,
)
from clay_assets.chips.cells import ChipCell, LandCoverCell, stored_cell, stored_cells
from clay_assets.chips.index import LANDCOVER_FIELDS, MERGED_SCHEMA, SPLIT_FIELD
from clay_assets.chips.merge import merge, merge_cells
from clay_assets.platforms import platform_of
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import (
    FINGERPRINT,
    L1,
    L2,
    S2,
    chip_table,
    made_plan,
    write_cell,
    write_land_cover,
)
from clay_assets_tests.chips.test_merge import part, rewrite

SCENES = ["S2A_A", "S2A_B", "S2A_C"]


@pytest.fixture
def cell(store: LocalStore, recipe: Recipe) -> ChipCell:
    return write_cell(store, recipe, S2, 2020, SCENES)


@pytest.fixture
def cells(store: LocalStore, recipe: Recipe, cell: ChipCell, threads: Executor) -> list[ChipCell]:
    """Three cells of two platforms, merged, their ledgers stored."""
    made = [cell, write_cell(store, recipe, S2, 2021, ["S2A_D"]), write_cell(store, recipe, L2, 2020, ["LC08_A"])]
    for one in made:
        store.write(layout.chip_ledger(one.platform, one.year), encode(one.ledger, recipe.stamp()))
    land_covers = [write_land_cover(one) for one in made]
    for cover in land_covers:
        store.write(layout.landcover_ledger(cover.platform, cover.year), encode(cover.ledger, recipe.stamp()))
    merge(made, land_covers, made_plan(), store, recipe, threads, 4)
    return made


@pytest.fixture
def joined(recipe: Recipe) -> Callable[..., Any]:
    """Cells with the land cover that was written for them."""

    def of(cells: list[ChipCell]) -> Any:
        return merge_cells(cells, [write_land_cover(cell) for cell in cells], recipe, made_plan().fingerprint)

    return of


@pytest.fixture
def look(threads: Executor) -> Callable[..., Any]:
    def at(cell: ChipCell, items: tuple[Any, ...] = ()) -> Any:
        return look_at_cell(cell, items, platform_of(S2), 256, threads, 4)

    return at


def test_a_cell_as_it_was_made_holds(store: LocalStore, cell: ChipCell, look: Callable[..., Any]) -> None:
    store.write(layout.chips(S2, 2020, "S2A_LEFT_BY_A_KILLED_RUN"), b"half")
    found = look(cell)
    assert all(one.ok for one in found.values()), found
    assert found["chip_ids_unique"].numbers == {"chips": 192, "foreign_ids": 0, "repeated": 0}
    assert found["geometry_in_scene"].numbers["scenes_without_grid"] == 3
    assert found["rows_of_ledger"].numbers == {
        "scenes": 3,
        "chips": 192,
        "chips_of_ledger": 192,
        "files_missing": 0,
        "files_of_another_run": 0,
        "files_not_in_ledger": 1,
    }
    nothing = look(ChipCell(S2, 2012, store, cell.ledger.head(0)))
    assert all(one.ok for one in nothing.values())
    assert nothing["rows_of_ledger"].numbers["scenes"] == 0


def test_files_that_are_lost_damaged_or_replaced_are_named(
    store: LocalStore, cell: ChipCell, look: Callable[..., Any]
) -> None:
    paths = {name: store.root / layout.chips(S2, 2020, name) for name in SCENES}
    paths["S2A_A"].unlink()
    rewrite(store, cell, "S2A_B", lambda table: table.slice(0, 60), fingerprint="0" * 32)
    paths["S2A_C"].write_bytes(paths["S2A_C"].read_bytes()[:-500])
    found = look(cell)["rows_of_ledger"]
    assert found.numbers["files_missing"] == 2
    assert found.numbers["files_of_another_run"] == 1
    assert (found.numbers["chips"], found.numbers["chips_of_ledger"]) == (60, 192)
    missing, rows, run, damaged = found.violations
    assert missing == f"S2A_A: {paths['S2A_A']}: file not found"
    assert rows == "S2A_B: the file has 60 chips, the ledger 64"
    assert run == "S2A_B: the file is not the one listed in the ledger"
    assert damaged.startswith(f"S2A_C: {paths['S2A_C']}: cannot be read")


def test_chips_that_cannot_be_are_named_with_their_scene(
    store: LocalStore, cell: ChipCell, look: Callable[..., Any]
) -> None:
    def damaged(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index("geometry")
        bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]).wkb
        geometry = pa.array([bow, *table["geometry"].to_pylist()[1:]], pa.binary())
        shares = pa.array([2.0, *table["nodata_percentage"].to_pylist()[1:]], pa.float32())
        table = table.set_column(position, table.schema.field(position), geometry)
        position = table.schema.get_field_index("nodata_percentage")
        table = table.set_column(position, table.schema.field(position), shares)
        return pa.concat_tables([table.slice(0, 63), table.slice(5, 1)])

    rewrite(store, cell, "S2A_B", damaged)
    found = look(cell)
    assert found["chip_ids_unique"].violations == ("S2A_B: a chip id occurs twice: S2A_B-5-0",)
    assert found["shares_in_range"].violations == (
        "S2A_B: nodata_percentage has values outside 0 to 1: 1 chips, first S2A_B-0-0 with 2",
    )
    assert found["shares_in_range"].numbers["highest_share"] == 2
    assert found["geometry_in_scene"].violations == ("S2A_B: geometry is not a valid polygon: S2A_B-0-0",)
    assert found["rows_of_ledger"].ok


def test_chips_are_held_against_the_grid_of_their_item(
    store: LocalStore, cell: ChipCell, look: Callable[..., Any]
) -> None:
    item = {
        "id": "S2A_B",
        "geometry": shapely.geometry.mapping(shapely.box(-180, -90, 180, 90)),
        "properties": {"proj:code": "EPSG:32632"},
        "assets": {"red": {"proj:shape": [2048, 2048], "proj:transform": [10, 0, 500000, 0, -10, 100020]}},
    }
    found = look(cell, [item])["geometry_in_scene"]
    assert found.numbers["misplaced"] == 64  # the synthetic scene is elsewhere
    assert found.numbers["scenes_without_grid"] == 2


def test_a_scene_that_is_in_the_ledger_twice_is_named(
    store: LocalStore, cell: ChipCell, look: Callable[..., Any]
) -> None:
    ledger = cell.ledger.iloc[[0, 1, 2, 2]]
    assert look(ChipCell(S2, 2020, store, ledger))["rows_of_ledger"].violations[0] == (
        "scene S2A_C is in the ledger more than once"
    )


@pytest.mark.slow
def test_stored_cells_are_those_of_the_ledgers(store: LocalStore, recipe: Recipe, cells: list[ChipCell]) -> None:
    assert [(one.platform, one.year) for one in stored_cells(store)] == [(L2, 2020), (S2, 2020), (S2, 2021)]
    one = stored_cell(store, S2, 2020)
    assert list(one.scenes["item_id"]) == SCENES
    assert one.recipe_hash == recipe.hash


@pytest.mark.slow
def test_a_merged_index_as_it_was_made_holds(
    store: LocalStore, cells: list[ChipCell], joined: Callable[..., Any]
) -> None:
    rows = rows_of_chip_indexes(store, joined(cells))
    assert rows.ok
    assert rows.numbers == {
        "chips": 320,
        "chips_of_manifest": 320,
        "chips_of_cells": 320,
        "partitions": 3,
        "partitions_behind": 0,
        "files_not_in_manifest": 0,
    }
    ids = merged_ids_unique(store)
    assert ids.ok
    assert ids.numbers == {"chips": 320, "scenes": 5, "repeated": 0, "foreign_ids": 0, "scenes_in_two_parts": 0}
    assert stale_cells(store, joined(cells)) == []
    assert land_cover_of_cells(joined(cells)).ok


def test_without_a_merged_index_there_is_nothing_wrong(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "empty")
    assert rows_of_chip_indexes(store, []).ok
    assert merged_ids_unique(store).ok
    assert stale_cells(store, []) == []


def rewritten(store: LocalStore, platform: str, year: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace a part by a modified version with the same metadata."""
    path = part(store, platform, year)
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.slow
def test_a_part_that_lost_rows_or_is_lost_is_named(
    store: LocalStore, cells: list[ChipCell], joined: Callable[..., Any]
) -> None:
    rewritten(store, S2, 2020, lambda table: table.slice(0, 190))
    part(store, L2, 2020).unlink()
    part(store, L1, 2019).parent.mkdir(parents=True)
    part(store, L1, 2019).write_bytes(b"nobody's")
    found = rows_of_chip_indexes(store, joined(cells))
    lost, other, fewer, extra = found.violations
    assert lost.startswith(f"{L2}|2020: {part(store, L2, 2020)}: cannot be read")
    assert other.startswith(f"{S2}|2020: the file has 190 chips in ")
    assert fewer == f"{S2}|2020: 190 chips, but 192 in its chip index"
    assert extra == f"{part(store, L1, 2019)} is not in the manifest"
    assert found.numbers["chips"] == 190 + 64
    assert found.numbers["files_not_in_manifest"] == 1


@pytest.mark.slow
def test_a_part_that_was_replaced_is_named(
    store: LocalStore, cells: list[ChipCell], joined: Callable[..., Any]
) -> None:
    path = part(store, S2, 2021)
    size = path.stat().st_size
    pq.write_table(pq.read_table(path), path, compression="none")
    (said,) = rows_of_chip_indexes(store, joined(cells)).violations
    assert said == (f"{S2}|2021: the file has 64 chips in {path.stat().st_size:,} bytes, the manifest 64 in {size:,}")


@pytest.mark.slow
def test_a_manifest_that_does_not_add_up_is_named(
    store: LocalStore, cells: list[ChipCell], joined: Callable[..., Any]
) -> None:
    document = json.loads(store.read(layout.MANIFEST))
    store.write(layout.MANIFEST, json.dumps({**document, "rows": 321}).encode())
    assert rows_of_chip_indexes(store, joined(cells)).violations == (
        "321 chips in the manifest, 320 in its partitions",
    )


@pytest.mark.slow
def test_chip_ids_that_repeat_in_the_merged_index_are_named(
    store: LocalStore, recipe: Recipe, cells: list[ChipCell]
) -> None:
    rewritten(store, S2, 2020, lambda table: pa.concat_tables([table, table.slice(17, 2)]))
    rewritten(store, L2, 2020, lambda table: table.set_column(0, "chipid", pa.array(["LC08_B-0-0"] * 64)))
    shared = chip_table(S2, "S2A_A", 2021, 0, 0, 2, 2)
    position = MERGED_SCHEMA.get_field_index("year")
    shared = shared.add_column(position, "year", pa.repeat(pa.scalar(2021, pa.int16()), shared.num_rows))
    for field in (*LANDCOVER_FIELDS, SPLIT_FIELD):
        shared = shared.append_column(field, pa.nulls(shared.num_rows, field.type))
    rewritten(store, S2, 2021, lambda table: pa.concat_tables([table, shared.cast(table.schema)]))
    repeated = {row.as_py() for row in pq.read_table(part(store, S2, 2020))["chipid"].slice(17, 2)}
    found = merged_ids_unique(store)
    assert found.numbers == {"chips": 326, "scenes": 6, "repeated": 2, "foreign_ids": 64, "scenes_in_two_parts": 1}
    foreign, twice, two = found.violations
    assert foreign == f"{L2}|2020: 64 chip ids do not match their scene and position"
    assert twice.startswith(f"{S2}|2020: 2 chip ids repeat, first ")
    assert twice.rpartition(" ")[2] in repeated
    assert two == f"{S2}|2021: scene S2A_A is also in 2020"


@pytest.mark.slow
def test_cells_that_changed_since_they_were_merged_are_behind(
    store: LocalStore, recipe: Recipe, cells: list[ChipCell], joined: Callable[..., Any]
) -> None:
    """They are not faults of the merged index, which is only compared with its manifest."""
    first, second, third = cells
    changed = ChipCell(S2, 2020, store, first.ledger.assign(fingerprint="0" * 32, chips=63))
    new = write_cell(store, recipe, L1, 2019, ["LC08_B"])
    empty = ChipCell(L1, 2012, store, first.ledger.head(0))
    assert FINGERPRINT != "0" * 32
    assert stale_cells(store, joined([changed, third, new, empty])) == [f"{L1}|2019", f"{S2}|2020", f"{S2}|2021"]
    found = rows_of_chip_indexes(store, joined([changed, third, new, empty]))
    assert found.ok
    assert found.numbers["partitions_behind"] == 2
    assert found.numbers["chips_of_cells"] == 64
    assert stale_cells(store, joined([first, second, third])) == []


# --- land cover -------------------------------------------------------------------------------------------------------


def test_land_cover_as_it_was_written_holds(store: LocalStore, cell: ChipCell, threads: Executor) -> None:
    land_cover = write_land_cover(cell)
    store.write(layout.landcover(S2, 2020, "S2A_LEFT_BY_A_KILLED_RUN"), b"half")
    found = look_at_land_cover(land_cover, cell, threads, 4)
    assert all(one.ok for one in found.values()), found
    assert found["rows_of_chip_index"].numbers == {
        "scenes": 3,
        "chips": 192,
        "chips_of_chip_index": 192,
        "scenes_without_land_cover": 0,
        "scenes_not_looked_at": 0,
        "files_missing": 0,
        "files_of_another_run": 0,
        "files_not_in_ledger": 1,
    }
    assert found["shares_sum_to_100_percent"].numbers["chips_without_land_cover"] == 3 * 12
    nothing = ChipCell(S2, 2012, store, cell.ledger.head(0))
    assert all(one.ok for one in look_at_land_cover(write_land_cover(nothing), nothing, threads, 4).values())


def test_land_cover_that_is_lost_damaged_or_of_other_chips_is_named(
    store: LocalStore, cell: ChipCell, threads: Executor
) -> None:
    land_cover = write_land_cover(cell)
    paths = {name: store.root / layout.landcover(S2, 2020, name) for name in SCENES}
    table = pq.read_table(paths["S2A_A"])
    share = pa.array([0.5, *table["tree_cover"].to_pylist()[1:]], pa.float32())
    pq.write_table(table.set_column(1, table.schema.field(1), share), paths["S2A_A"])
    pq.write_table(pq.read_table(paths["S2A_B"]).slice(0, 60), paths["S2A_B"])
    paths["S2A_C"].unlink()
    indexed_again = cell.ledger.assign(fingerprint="0" * 32)
    found = look_at_land_cover(land_cover, cell, threads, 4)
    (off,) = found["shares_sum_to_100_percent"].violations
    assert off.startswith("S2A_A: land-cover shares do not sum to 100 %")
    assert found["rows_of_chip_index"].violations == (
        "S2A_B: the file has 60 chips, the ledger 64",
        f"S2A_C: {paths['S2A_C']}: file not found",
    )
    stale = look_at_land_cover(land_cover, ChipCell(S2, 2020, store, indexed_again), threads, 4)["rows_of_chip_index"]
    assert stale.violations[:3] == tuple(f"no up-to-date land cover for scene {name}" for name in SCENES)
    assert stale.numbers["scenes_not_looked_at"] == 3


def test_cells_without_current_land_cover_are_named(store: LocalStore, recipe: Recipe, cell: ChipCell) -> None:
    land_cover = write_land_cover(cell)
    assert land_cover_of_cells(merge_cells([cell], [land_cover], recipe, None)).ok
    (said,) = land_cover_of_cells(merge_cells([cell], [], recipe, None)).violations
    assert said.startswith(f"{S2}|2020: no up-to-date land cover for 3 of 3 scenes")
    ledger = cell.ledger.copy()
    ledger.loc[1, "fingerprint"] = "0" * 32
    found = land_cover_of_cells(merge_cells([ChipCell(S2, 2020, store, ledger)], [land_cover], recipe, None))
    assert found.numbers == {"cells_with_chips": 1, "cells_without_land_cover": 1}
    assert found.rows[0]["without_land_cover"] == 1


def test_chips_whose_land_cover_differs_from_the_samples_are_told(store: LocalStore, cell: ChipCell) -> None:
    land_cover = write_land_cover(cell)
    shares = {"tree_cover": [0.4, 0.8, 0.0], "cropland": [0.4, 0.0, 0.8]}  # half and half of the covered area
    ledger = land_cover.ledger.assign(**shares, chips=[100, 100, 100])
    cells = [LandCoverCell(S2, 2020, store, ledger)]
    tiles = pd.DataFrame(0.0, index=range(2), columns=list(WORLDCOVER_CLASSES.values()))
    tiles["Tree cover"], tiles["Cropland"], tiles["valid_share"] = [1.0, 0.2], [0.0, 0.8], [0.5, 1.0]
    found = composition_of_sample(cells, tiles, 0.05)  # (0.5 + 0.2) / 1.5 of the sample's valid area is forest
    assert found.ok
    (row,) = found.rows
    assert (row["chips"], row["sample"]) == (pytest.approx(50), pytest.approx(100 * 0.7 / 1.5))
    (said,) = composition_of_sample(cells, tiles, 0.03).violations
    assert said == f"{S2}: Tree cover covers 50.0 % of its chips and 46.7 % of the sampled tiles"
    assert composition_of_sample([LandCoverCell(S2, 2020, store, ledger.head(0))], tiles, 0.03).ok
    assert composition_of_sample(cells, tiles.head(0), 0.03).ok
