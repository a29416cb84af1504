"""Splits in the merged index: every chip has one, independent of what is merged, and leaks are never published."""

from __future__ import annotations

import json
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from numpy.typing import NDArray

from clay_assets.chips.cells import ChipCell, LandCoverCell
from clay_assets.chips.index import CHIP_SCHEMA
from clay_assets.chips.leaks import Leaks, rows_to_paint
from clay_assets.chips.merge import Merged, merge
from clay_assets.chips.split_audit import APART, SHARES, look_at_splits
from clay_assets.chips.splits import BUFFER, SPLITS, GroundSplits, SplitPlan
from clay_assets.errors import InputError
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import (
    FINGERPRINT,
    L1,
    L2,
    S2,
    chip_table,
    copied,
    ledger_of,
    made_plan,
    write_cell,
    write_land_cover,
)

PLAN = made_plan()
SCENES = 10  # of each cell, scattered over the world


@dataclass(frozen=True)
class Careless(GroundSplits):
    """Splits chips one by one, ignoring their neighbours."""

    def codes_of(
        self, west: NDArray[np.float64], south: NDArray[Any], east: NDArray[Any], north: NDArray[Any]
    ) -> NDArray[np.uint8]:
        return np.resize(np.arange(len(SPLITS), dtype=np.uint8), len(west))


CARELESS = replace(PLAN, ground=Careless(**vars(PLAN.ground)), fingerprint="careless")


class Index:
    """Cells of chips in a store, and how they are merged."""

    def __init__(self, store: LocalStore, cells: list[ChipCell], recipe: Recipe, threads: Executor) -> None:
        self.store, self.recipe, self.threads, self.cells = store, recipe, threads, cells

    def merge(
        self,
        plan: SplitPlan = PLAN,
        cells: list[ChipCell] | None = None,
        land_covers: list[LandCoverCell] | None = None,
        executor: Executor | None = None,
    ) -> Merged:
        cells = cells or self.cells
        covers = [write_land_cover(cell) for cell in cells] if land_covers is None else land_covers
        return merge(cells, covers, plan, self.store, self.recipe, executor or self.threads, 4)

    def files(self) -> dict[str, bytes]:
        return {key: self.store.read(key) for key in [*self.store.list(layout.MERGED), layout.MANIFEST]}

    def rows(self, platform: str, year: int) -> pa.Table:
        return pq.read_table(self.store.root / layout.merged_part(platform, year), partitioning=None)

    def replace_splits(self, platform: str, year: int, splits: NDArray[Any]) -> None:
        """Put other splits into a part, bypassing the merge."""
        path = self.store.root / layout.merged_part(platform, year)
        table = pq.ParquetFile(path).read()
        column = table.schema.get_field_index("split")
        pq.write_table(table.set_column(column, "split", pa.array(splits.tolist(), pa.string())), path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> list[ChipCell]:
    """Cells of two platforms and two years. Read-only."""
    store = LocalStore(tmp_path_factory.mktemp("cells"))
    return [
        write_cell(store, recipe, S2, 2020, [f"S2A_{n:02d}" for n in range(SCENES)]),
        write_cell(store, recipe, L2, 2020, [f"LC08_{n:02d}" for n in range(SCENES)]),
        write_cell(store, recipe, S2, 2019, [f"S2B_{n:02d}" for n in range(SCENES)]),
    ]


@pytest.fixture
def index(written: list[ChipCell], store: LocalStore, recipe: Recipe, threads: Executor) -> Index:
    return Index(store, copied(written, store), recipe, threads)


def scene_at(store: LocalStore, recipe: Recipe, platform: str, year: int, item_id: str, *place: float) -> ChipCell:
    """A cell of one scene of 8 × 8 chips."""
    west, south = place
    table = chip_table(platform, item_id, year, west, south, 8, 8)
    stamp = {**recipe.stamp(), "fingerprint": FINGERPRINT}
    store.write(layout.chips(platform, year, item_id), encode_arrow(table, stamp))
    return ChipCell(platform, year, store, ledger_of({item_id: table.num_rows}))


@pytest.mark.slow
def test_every_chip_has_the_split_of_its_place(index: Index) -> None:
    merged = index.merge()
    counts: dict[str, dict[str, int]] = {}
    for cell in index.cells:
        rows = index.rows(cell.platform, cell.year)
        splits = np.array(rows["split"].to_pylist())
        assert (splits == PLAN.ground.split_of(shapely.from_wkb(rows["geometry"].to_pylist()))).all()
        own = counts.setdefault(cell.platform, {})
        for name in (*SPLITS, BUFFER):
            own[name] = own.get(name, 0) + int((splits == name).sum())
    assert merged.splits == counts
    assert all(counts[S2].values())
    found = look_at_splits(index.store, index.recipe.splits)
    assert found[APART].ok, found[APART].summary
    assert found[APART].numbers["painted_km2"] > 10_000
    assert [row["chips"] for row in found[SHARES].rows] == [SCENES * 64, 2 * SCENES * 64]
    assert found[SHARES].numbers["buffer_chips"] == sum(own[BUFFER] for own in counts.values())


@pytest.mark.slow
def test_a_cell_more_changes_no_part_and_another_plan_changes_all(index: Index) -> None:
    index.merge(cells=index.cells[:2])
    before = index.files()
    assert index.merge().written == 1
    assert {key: content for key, content in index.files().items() if key in before and key != layout.MANIFEST} == {
        key: content for key, content in before.items() if key != layout.MANIFEST
    }
    assert index.merge().written == 0
    assert index.merge(made_plan(1, "another")).written == 3
    rows = index.rows(S2, 2019)
    assert rows["split"].to_pylist() != PLAN.ground.split_of(shapely.from_wkb(rows["geometry"].to_pylist())).tolist()


@pytest.mark.slow
def test_splits_are_the_same_in_worker_processes(index: Index) -> None:
    index.merge()
    before = index.files()
    for key in before:
        index.store.delete([key])
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        index.merge(executor=pool)
    assert index.files() == before


@pytest.mark.slow
def test_a_leak_within_a_cell_is_never_published(index: Index) -> None:
    with pytest.raises(InputError, match=r"merged_index, landsat.*\|2020: a .* chip at .* is closer than 5 km"):
        index.merge(CARELESS)
    assert not list(index.store.list(layout.MERGED))
    assert not index.store.exists(layout.MANIFEST)
    index.merge()
    before = index.files()
    with pytest.raises(InputError, match=r"closer than 5 km to a .* chip.*Delete chips/manifest\.json"):
        index.merge(CARELESS)
    assert index.files() == before


@pytest.mark.slow
def test_a_leak_across_platforms_and_years_is_never_published(index: Index) -> None:
    store, recipe = index.store, index.recipe
    places = np.random.default_rng(0).uniform((-170, -60), (170, 60), (40, 2))
    is_train = PLAN.ground.split_of(shapely.box(*places.T, *(places + 0.2).T)) == "train"
    here = places[is_train][0]
    one = scene_at(store, recipe, S2, 2020, "S2A_HERE", *here)
    other = scene_at(store, recipe, L1, 2019, "LC08_HERE", *here)
    assert index.merge(cells=[one]).splits[S2]["train"] == 64
    before = index.files()
    all_test = replace(PLAN, ground=replace(PLAN.ground, codes=np.full_like(PLAN.ground.codes, SPLITS.index("test"))))
    with pytest.raises(InputError, match=rf"{L1}\|2019: .*a test chip at .* is closer than 5 km to a train chip"):
        index.merge(all_test, cells=[one, other])
    assert index.files() == before


@pytest.mark.slow
def test_a_part_that_is_kept_with_older_splits_stops_the_merge_where_it_leaks(index: Index) -> None:
    index.merge()
    before = index.files()
    covers = [write_land_cover(cell) for cell in index.cells]
    shifted = made_plan(1, "another")
    changed = ChipCell(S2, 2020, index.store, index.cells[0].ledger.assign(fingerprint="0" * 32))
    overlapping = scene_at(index.store, index.recipe, L1, 2020, "LC08_THERE", *_place_of(index.rows(S2, 2020), shifted))
    with pytest.raises(InputError, match=rf"without current land cover \({S2}\|2020\) are kept.*materialise their"):
        index.merge(
            shifted,
            [changed, *index.cells[1:], overlapping],
            [*covers[1:], write_land_cover(overlapping)],
        )
    assert index.files()[layout.MANIFEST] == before[layout.MANIFEST]
    assert not index.store.exists(layout.merged_part(L1, 2020))


def _place_of(rows: pa.Table, plan: SplitPlan) -> tuple[float, float]:
    """A position where another plan has a different split than a row."""
    geometry = shapely.from_wkb(rows["geometry"].to_pylist())
    old, new = np.array(rows["split"].to_pylist()), plan.ground.split_of(geometry)
    chip = np.flatnonzero((old != new) & (old != BUFFER) & (new != BUFFER))[0]
    west, south, *_ = shapely.bounds(geometry[chip])
    return float(west), float(south)


@pytest.mark.slow
def test_parts_that_were_changed_later_are_found(index: Index) -> None:
    index.merge()
    splits = np.array(index.rows(S2, 2019)["split"].to_pylist())
    index.replace_splits(S2, 2019, np.resize(np.array(SPLITS), len(splits)))
    found = look_at_splits(index.store, index.recipe.splits)[APART]
    assert not found.ok
    assert "is closer than 5 km to a" in found.summary
    for other, said in (("dev", r"'dev': unknown split"), (None, "'None': unknown split")):
        index.replace_splits(S2, 2019, np.full(len(splits), other, object))
        assert said in look_at_splits(index.store, index.recipe.splits)[APART].summary
    path = index.store.root / layout.merged_part(S2, 2019)
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["split"]), path)
    assert 'cannot be used (\'Field "split"' in look_at_splits(index.store, index.recipe.splits)[APART].summary
    path.unlink()
    found = look_at_splits(index.store, index.recipe.splits)[APART]
    assert f"{S2}|2019: " in found.summary
    assert "cannot be used" in found.summary


@pytest.mark.slow
def test_a_damaged_part_is_rewritten_or_named(index: Index) -> None:
    """It is rewritten from its chips; a part without current land cover cannot be, and stops the merge."""
    index.merge()
    path = index.store.root / layout.merged_part(S2, 2019)
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    index.store.delete([layout.painted(S2, 2019)])  # of a storage written by an older version
    covers = [write_land_cover(cell) for cell in index.cells[:2]]
    with pytest.raises(InputError, match=r"part-0\.parquet: cannot be used .* Delete it and materialise merged_index"):
        index.merge(land_covers=covers)
    assert index.merge().written == 1
    assert path.read_bytes() == content


@pytest.mark.slow
def test_chips_across_180_are_where_they_are(store: LocalStore, recipe: Recipe, threads: Executor) -> None:
    index = Index(store, [], recipe, threads)
    table = chip_table(S2, "S2A_EDGE", 2020, 179.9, 10.0, 8, 8)
    west, south, east, north = shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist())).T
    across = east > 180
    polygons = shapely.box(west, south, east, north)
    polygons[across] = shapely.multipolygons(
        np.stack(
            [
                shapely.box(west, south, np.minimum(east, 180), north),
                shapely.box(-180, south, np.maximum(east - 360, -180 + 1e-9), north),
            ],
            axis=1,
        )
    )[across]
    inside = west < 180
    table = table.filter(pa.array(inside))
    polygons, across = polygons[inside], across[inside]
    assert across.any()
    bounds = shapely.bounds(polygons)
    assert (bounds[across, 2] == 180).all()
    bbox = pa.StructArray.from_arrays(
        [pa.array(side) for side in bounds.T], fields=list(CHIP_SCHEMA.field("bbox").type)
    )
    table = table.set_column(table.schema.get_field_index("bbox"), CHIP_SCHEMA.field("bbox"), bbox)
    wkb = pa.array(shapely.to_wkb(polygons), pa.binary())
    table = table.set_column(table.schema.get_field_index("geometry"), CHIP_SCHEMA.field("geometry"), wkb)
    store.write(layout.chips(S2, 2020, "S2A_EDGE"), encode_arrow(table, {"fingerprint": FINGERPRINT}))
    cell = ChipCell(S2, 2020, store, ledger_of({"S2A_EDGE": table.num_rows}))
    index.merge(cells=[cell])
    with pq.ParquetFile(store.root / layout.merged_part(S2, 2020)) as file:
        (rows,) = rows_to_paint(file)
    assert "geometry" in rows.column_names
    gate = Leaks(5)
    gate.add_rows(rows)
    gate.add(np.array([shapely.box(0, 10, 0.1, 10.1)]), np.array(["test"]))  # on the other side of the world
    assert gate.finding().ok
    assert gate.finding().numbers["painted_km2"] < 1000
    manifest = json.loads(store.read(layout.MANIFEST))
    assert manifest["rows"] == table.num_rows
