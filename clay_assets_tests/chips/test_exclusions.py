"""Exclusions are not in the chip index, land cover or merged index, and nothing else is rebuilt for them."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from typing import Any

import pyarrow.parquet as pq
import pytest

from clay_assets.chips.cells import EXCLUDED, INDEXED, ChipCell
from clay_assets.chips.index import MERGED_SCHEMA, counts_of, dataset_of, index_scene
from clay_assets.chips.indexing import exclusions_in, index_scenes
from clay_assets.chips.merge import merge
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe
from clay_assets.recipes.exclusions import Exclusion
from clay_assets.reconciliation.accounts import disagreements, reconcile
from clay_assets.stac import parse_item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode, stamp_of
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import S2, made_plan, scl_pixels, sentinel_2, write_land_cover

A, B = "S2A_32NMF_20200102_0_L2A", "S2B_32NMF_20200107_0_L2A"
SIDE = 768  # pixels of the quality band at half the resolution
CHIPS = 36


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two scenes of 6 × 6 chips each at the same place."""
    folder = tmp_path_factory.mktemp("scenes")
    return [sentinel_2(folder / name, scl_pixels(SIDE, seed) // 11 + 4, name) for seed, name in enumerate((A, B))]


def without(recipe: Recipe, *names: str, why: str = "a plane") -> Recipe:
    """The recipe with excluded Sentinel-2 scenes and chips."""
    kinds = ("scene" if name in (A, B) else "chip" for name in names)
    excluded = [Exclusion(platform=S2, reason=why, **{kind: name}) for kind, name in zip(kinds, names, strict=True)]
    return recipe.model_copy(update={"exclude": tuple(excluded)})


class Chain:
    """Chip index, land cover and merged index of one cell, made as by their assets."""

    def __init__(self, store: LocalStore, items: list[dict[str, Any]], threads: Executor) -> None:
        self.store, self.items, self.threads = store, items, threads

    def index(self, recipe: Recipe) -> ChipCell:
        cell = index_scenes(S2, 2020, self.items, self.store, recipe, self.threads, 2)
        self.store.write(layout.chip_ledger(S2, 2020), encode(cell.ledger, recipe.stamp()))
        cell.prune()
        return cell

    def merged_ids(self, cell: ChipCell, recipe: Recipe) -> set[str]:
        land_cover = write_land_cover(cell)
        land_cover.prune()
        merge([cell], [land_cover], made_plan(), self.store, recipe, self.threads, 2)
        keys = list(self.store.list(layout.MERGED))
        if not keys:
            return set()
        table = dataset_of(self.store, keys).to_table()
        assert table.schema.equals(MERGED_SCHEMA)
        return set(table["chipid"].to_pylist())

    def written(self) -> dict[str, int]:
        folder = self.store.root / layout.chip_folder(S2, 2020)
        return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture
def chain(store: LocalStore, items: list[dict[str, Any]], threads: Executor) -> Chain:
    return Chain(store, items, threads)


def test_an_excluded_chip_is_nowhere(chain: Chain, recipe: Recipe) -> None:
    before = chain.index(recipe)
    assert set(before.ledger["exclusions"].isna()) == {True}
    ids = chain.merged_ids(before, recipe)
    assert len(ids) == 2 * CHIPS
    written = chain.written()
    out = {f"{A}-0-0", f"{A}-5-3"}
    changed = without(recipe, *out)
    cell = chain.index(changed)
    assert cell.kept == 1  # the other scene is not read again
    assert {name for name, at in chain.written().items() if at != written[name]} == {f"{A}.parquet"}
    rows = cell.ledger.set_index("item_id")
    assert dict(rows.loc[A, ["outcome", "chips", "chips_in_grid", "chips_above_nodata_limit", "chips_excluded"]]) == {
        "outcome": INDEXED,
        "chips": CHIPS - 2,
        "chips_in_grid": CHIPS,
        "chips_above_nodata_limit": 0,
        "chips_excluded": 2,
    }
    assert json.loads(rows["exclusions"][A]) == dict.fromkeys(out, "a plane")
    assert rows["fingerprint"][B] == before.ledger.set_index("item_id")["fingerprint"][B]
    assert chain.merged_ids(cell, changed) == ids - out
    table = pq.read_table(chain.store.root / layout.landcover(S2, 2020, A))
    assert not out & set(table["chipid"].to_pylist())
    assert len(table) == CHIPS - 2


def test_an_excluded_scene_is_nowhere_though_it_was_picked(chain: Chain, recipe: Recipe) -> None:
    ids = chain.merged_ids(chain.index(recipe), recipe)
    changed = without(recipe, A, f"{A}-0-0", why="haze")
    cell = chain.index(changed)
    assert cell.kept == 1
    assert list(cell.ledger["outcome"]) == [EXCLUDED, INDEXED]
    assert exclusions_in(cell.ledger) == [{"excluded": A, "reason": "haze"}]
    assert list(cell.scenes["item_id"]) == [B]
    assert chain.merged_ids(cell, changed) == {name for name in ids if name.startswith(B)}
    assert not [key for key in chain.store.list("") if A in key]


def test_a_cell_whose_every_scene_is_excluded_has_no_part(chain: Chain, recipe: Recipe) -> None:
    chain.merged_ids(chain.index(recipe), recipe)
    changed = without(recipe, A, B)
    assert chain.merged_ids(chain.index(changed), changed) == set()


def test_what_is_no_longer_excluded_is_as_it_was(chain: Chain, recipe: Recipe) -> None:
    def contents() -> dict[str, bytes]:
        return {key: chain.store.read(key) for key in chain.store.list("chips/chip_index")}

    chain.index(recipe)
    before = contents()
    for changed in (without(recipe, f"{A}-0-0", B), recipe):
        chain.index(changed)
    after = contents()
    assert after[layout.chips(S2, 2020, A)] == before[layout.chips(S2, 2020, A)]
    assert set(after) == set(before)


def test_only_the_ids_count_not_the_reasons_nor_other_platforms(chain: Chain, recipe: Recipe) -> None:
    first = chain.index(without(recipe, f"{A}-0-0"))
    again = chain.index(without(recipe, f"{A}-0-0", why="a bird"))
    assert again.kept == 2
    assert list(again.ledger["fingerprint"]) == list(first.ledger["fingerprint"])
    assert exclusions_in(again.ledger) == [{"excluded": f"{A}-0-0", "reason": "a bird"}]
    assert list(again.ledger["chips_excluded"]) == [1, 0]  # also for a file that was kept
    other = Exclusion(platform="naip", scene=B, reason="a seam")
    both = without(recipe, f"{A}-0-0").model_copy(update={"exclude": (*without(recipe, f"{A}-0-0").exclude, other)})
    assert chain.index(both).kept == 2


def test_ids_that_name_no_chip_of_the_grid_leave_none_out(items: list[dict[str, Any]]) -> None:
    scene, options = parse_item(items[0]), PLATFORMS[S2].rules.options()
    whole = index_scene(scene, S2, options=options)
    same = index_scene(scene, S2, options=options, excluded=[f"{A}-6-0", f"{A}-0-6", f"{B}-0-0", "-1-1", "x"])
    assert same.equals(whole, check_metadata=True)
    one = index_scene(scene, S2, options=options, excluded=[f"{A}-1-5"])
    assert counts_of(one) == (CHIPS, 0, CHIPS - 1)
    assert stamp_of(one.schema)["chips_excluded"] == "1"
    assert set(whole["chipid"].to_pylist()) - set(one["chipid"].to_pylist()) == {f"{A}-1-5"}


def test_reconcile_tells_of_cells_that_were_indexed_with_other_exclusions(chain: Chain, recipe: Recipe) -> None:
    def said(recipe: Recipe) -> list[str]:
        lines = disagreements(reconcile(chain.store, recipe), 0.1)
        return [line for line in lines if "exclusions" in line]

    chain.index(recipe)
    assert said(recipe) == []
    changed = without(recipe, f"{A}-0-0", B)
    assert said(changed) == [
        "sentinel-2-l2a: indexed with exclusions that differ from the recipe's: sentinel-2-l2a|2020; "
        "re-materialise scene_picks and everything downstream"
    ]
    assert len(said(without(recipe, A))) == 1
    chain.index(changed)
    assert said(changed) == []
    assert len(said(recipe)) == 1  # no longer excluded, so it must be indexed again
