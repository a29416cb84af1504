"""The merged index: its content, when it is rewritten, what it rejects, and the accuracy of its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.chips import records, sorting
from clay_assets.chips.cells import ChipCell, LandCoverCell
from clay_assets.chips.hilbert import HILBERT_LEVEL, WORLD, hilbert_distance, keys_of
from clay_assets.chips.index import MERGED_SCHEMA, open_index
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.manifest import read_manifest
from clay_assets.chips.merge import merge
from clay_assets.chips.splits import SPLIT_NAMES
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError, StorageError
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.recipes.loader import ChipLandcover
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, stamp_of
from clay_assets.storage.stores import LocalStore, open_store
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
from clay_assets_tests.chips.merge_cells import make_cells, standing_cells

REPOSITORY = Path(__file__).parents[2]
SECONDS = 100
PLAN = made_plan()
OTHER = "0" * 32  # fingerprint of other inputs than the synthetic scenes'


@pytest.fixture
def join(store: LocalStore, recipe: Recipe, threads: Executor) -> Callable[..., Any]:
    """Merge cells into the test's store."""

    def run(
        cells: list[ChipCell],
        store: LocalStore = store,
        recipe: Recipe = recipe,
        executor: Executor = threads,
        in_flight: int = 4,
        land_cover: Any = None,
        plan: Any = PLAN,
    ) -> Any:
        found = [write_land_cover(cell) for cell in cells] if land_cover is None else land_cover
        return merge(cells, found, plan, store, recipe, executor, in_flight)

    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> list[ChipCell]:
    """Three small cells of two platforms, of which `cells` are copies. Read-only."""
    store = LocalStore(tmp_path_factory.mktemp("cells"))
    return [
        write_cell(store, recipe, S2, 2020, ["S2A_B", "S2A_A", "S2A_C"]),
        write_cell(store, recipe, L2, 2020, ["LC08_A"]),
        write_cell(store, recipe, S2, 2019, ["S2A_D", "S2A_E"]),
    ]


@pytest.fixture
def cells(store: LocalStore, written: list[ChipCell]) -> list[ChipCell]:
    """Three small cells of two platforms."""
    return copied(written, store)


@pytest.fixture(scope="module")
def written_large(tmp_path_factory: pytest.TempPathFactory) -> list[ChipCell]:
    """Cells that take a while to merge. Read-only."""
    return make_cells(LocalStore(tmp_path_factory.mktemp("large_cells")))


@pytest.fixture
def large_cells(store: LocalStore, written_large: list[ChipCell]) -> list[ChipCell]:
    """Three cells of some ten thousand chips each, with land cover."""
    return copied(written_large, store)


def state(store: LocalStore) -> dict[str, tuple[bytes, int]]:
    """Key → (bytes, modification time) of every file of the merged index."""
    keys = [*store.list(layout.MERGED), *filter(store.exists, [layout.MANIFEST])]
    return {key: (store.read(key), (store.root / key).stat().st_mtime_ns) for key in keys}


def part(store: LocalStore, platform: str, year: int) -> Path:
    return store.root / layout.merged_part(platform, year)


def manifest(store: LocalStore) -> dict[str, Any]:
    return json.loads(store.read(layout.MANIFEST))


def rewrite(
    store: LocalStore,
    cell: ChipCell,
    item_id: str,
    change: Callable[[pa.Table], pa.Table],
    fingerprint: Any = FINGERPRINT,
) -> None:
    """Rewrite a scene's index with changes."""
    key = layout.chips(cell.platform, cell.year, item_id)
    table = pq.read_table(store.root / key)
    store.write(key, encode_arrow(change(table), {"fingerprint": fingerprint}))


def made_anew(store: LocalStore, cell: ChipCell) -> ChipCell:
    """The cell as if all of its scenes had been indexed from other inputs."""
    for item_id in cell.scenes["item_id"]:
        rewrite(store, cell, item_id, lambda table: table, OTHER)
    return ChipCell(cell.platform, cell.year, store, cell.ledger.assign(fingerprint=OTHER))


def replace(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """A change that puts a value into the first row of a column."""

    def change(table: pa.Table) -> pa.Table:
        place, kind = table.schema.get_field_index(name), table.schema.field(name).type
        column = [value, *table[name].to_pylist()[1:]]
        return table.set_column(place, table.schema.field(name), pa.array(column, kind))

    return change


# --- content ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_holds_every_chip_of_every_cell_once(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    merged = join(cells)
    assert merged.rows == 6 * 64
    assert merged.written == 3
    expected = pa.concat_tables([cell.dataset().to_table() for cell in cells]).sort_by("chipid")
    year = pc.year(expected["datetime"]).cast(pa.int16())
    expected = expected.add_column(MERGED_SCHEMA.get_field_index("year"), "year", year)
    for dataset in (open_index(store.root / layout.MERGED), ds.dataset(store.root / layout.MERGED, format="parquet")):
        table = dataset.to_table()
        assert table.schema.equals(MERGED_SCHEMA)
        found = table.sort_by("chipid").drop_columns(["landcover", "landcover_class", "split"])
        assert found.to_pylist() == expected.to_pylist()


def test_chips_of_the_planet_by_platform_and_year(
    planet: Planet, store: LocalStore, recipe: Recipe, threads: Executor, join: Callable[..., Any]
) -> None:
    cells, expected = [], {}
    for platform, quality in ((S2, "scl"), (L1, "qa_pixel"), (L2, "qa_pixel")):
        for year in (2019, 2022):
            items = [
                item
                for item in planet.items(platform)
                if item["properties"]["datetime"].startswith(str(year)) and quality in item["assets"]
            ][:12]
            cells.append(index_scenes(platform, year, items, store, recipe, threads, 4))
            limit = 0.5 if platform == S2 else 0
            expected[platform, year] = sum(
                int((planet.chip_truth(item["id"])["nodata_percentage"] <= limit).sum()) for item in items
            )
    merged = join(cells)
    assert {(part.platform, part.year): part.rows for part in merged.parts} == expected
    location = store.root / layout.MERGED
    for (platform, year), rows in expected.items():
        assert open_index(location, platform, year).count_rows() == rows
    assert open_index(location, year=2022).count_rows() == sum(n for (_, year), n in expected.items() if year == 2022)
    assert open_index(location, L1).count_rows() == expected[L1, 2019] + expected[L1, 2022]
    assert open_index(location, L1, 2020).count_rows() == 0


@pytest.mark.slow
def test_rows_lie_along_the_hilbert_curve(store: LocalStore, recipe: Recipe, join: Callable[..., Any]) -> None:
    cell = write_cell(store, recipe, S2, 2020, [f"S2A_{n:02d}" for n in range(30)], 20, 20)
    join([cell])
    table = pq.read_table(part(store, S2, 2020), partitioning=None)
    keys = keys_of(np.stack(table["bbox"].combine_chunks().flatten(), axis=1))
    assert (np.diff(keys.astype(np.int64)) >= 0).all()
    ties = np.flatnonzero(np.diff(keys.astype(np.int64)) == 0)
    ids = table["chipid"].to_pylist()
    assert all(ids[n] < ids[n + 1] for n in ties)


def test_hilbert_keys_are_neighbours_on_the_curve() -> None:
    """One cell per step along a curve through a grid of cells: each cell touches the previous one."""
    side = 16
    y, x = (axis.ravel() for axis in np.indices((side, side)))
    cell = np.array([360 / 2**HILBERT_LEVEL, 180 / 2**HILBERT_LEVEL])
    corners = np.column_stack([-180 + x * cell[0], -90 + y * cell[1]])
    order = np.argsort(keys_of(np.concatenate([corners, corners + cell], axis=1)))
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    assert (steps == 1).all()


def test_hilbert_distances_are_those_of_geopandas() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-180, 180, 50_000), rng.uniform(-90, 90, 50_000)
    edges = np.array([-180.0, -90, -1e-300, 0.0, 1e-9, 90, 179.999999999, 180])
    x, y = np.concatenate([x, np.repeat(edges, 8)]), np.concatenate([y, np.tile(edges / 2, 8)])
    expected = gpd.GeoSeries(gpd.points_from_xy(x, y)).hilbert_distance(total_bounds=WORLD, level=HILBERT_LEVEL)
    assert (hilbert_distance(x, y) == expected.to_numpy()).all()


def test_chips_of_the_antimeridian_lie_at_it() -> None:
    def key(west: float, east: float) -> int:
        return int(keys_of(np.array([[west, -17.0, east, -16.98]]))[0])

    assert abs(key(-180, 180) - key(179.98, 180)) < abs(key(0, 0.02) - key(179.98, 180)) / 1000


@pytest.mark.slow
def test_manifest_tells_what_is_there(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], recipe: Recipe
) -> None:
    merged = join(cells)
    document = manifest(store)
    assert document["rows"] == merged.rows
    assert document["recipe_hash"] == recipe.hash
    assert [(entry["platform"], entry["year"]) for entry in document["partitions"]] == [
        (L2, 2020),
        (S2, 2019),
        (S2, 2020),
    ]
    listed = {f"{layout.MERGED}/{entry['path']}" for entry in document["partitions"]}
    assert listed == set(store.list(layout.MERGED))
    for entry in document["partitions"]:
        content = store.read(f"{layout.MERGED}/{entry['path']}")
        assert entry["content"] == hashlib.blake2b(content, digest_size=16).hexdigest()
        assert entry["bytes"] == len(content)
        file = pq.ParquetFile(pa.BufferReader(content))
        assert entry["rows"] == file.metadata.num_rows
        assert entry["scenes"] == len(set(file.read()["item_id"].to_pylist()))
        assert stamp_of(file.schema_arrow)["inputs"] == entry["inputs"]
        assert stamp_of(file.schema_arrow)["recipe_hash"] == recipe.hash


# --- when it is rewritten ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_merge_writes_nothing(cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]) -> None:
    first = join(cells)
    before = state(store)
    again = join(list(reversed(cells)))
    assert again.written == 0
    assert again.parts == first.parts
    assert state(store) == before


@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 7])
def test_the_same_cells_give_the_same_bytes_elsewhere(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], tmp_path: Path, in_flight: int
) -> None:
    join(cells)
    other = LocalStore(tmp_path / "other")
    with ThreadPoolExecutor(in_flight) as pool:
        join(cells, store=other, executor=pool, in_flight=in_flight)
    assert {key: content for key, (content, _) in state(other).items()} == {
        key: content for key, (content, _) in state(store).items()
    }


@pytest.mark.slow
def test_the_manifest_has_the_bounds_and_the_chips_of_each_split_in_each_row_group(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    merged = join(cells)
    for one in merged.parts:
        with pq.ParquetFile(part(store, one.platform, one.year)) as file:
            for group in range(file.num_row_groups):
                found = Counter(file.read_row_group(group, columns=["split"])["split"].to_pylist())
                assert {name: counts[group] for name, counts in one.row_groups.items()} == {
                    name: found[name] for name in SPLIT_NAMES
                }
            polygons = shapely.from_wkb(file.read(columns=["geometry"])["geometry"].to_numpy())
            assert list(one.bbox) == shapely.total_bounds(polygons).tolist()
    assert sum(sum(counts) for one in merged.parts for counts in one.row_groups.values()) == merged.rows
    # One that an older version wrote learns it with the next merge, which writes no part.
    before = store.read(layout.MANIFEST)
    document = json.loads(before)
    for one in document["partitions"]:
        del one["row_groups"], one["bbox"]
    store.write(layout.MANIFEST, json.dumps(document).encode())
    assert join(cells).written == 0
    assert store.read(layout.MANIFEST) == before


@pytest.mark.slow
def test_only_the_part_of_a_changed_scene_is_rewritten(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    first = join(cells)
    before = state(store)
    rewrite(store, cells[0], "S2A_B", replace("cloud_cover_percentage", 0.125), OTHER)
    ledger = cells[0].ledger.copy()
    ledger.loc[ledger["item_id"] == "S2A_B", "fingerprint"] = OTHER
    again = join([ChipCell(S2, 2020, store, ledger), *cells[1:]])
    assert again.written == 1
    after = state(store)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {layout.merged_part(S2, 2020), layout.MANIFEST}
    assert [part.content for part in again.parts][:2] == [part.content for part in first.parts][:2]
    table = pq.read_table(part(store, S2, 2020), partitioning=None)
    assert table.filter(pc.field("chipid") == "S2A_B-0-0")["cloud_cover_percentage"].to_pylist() == [0.125]


@pytest.mark.slow
def test_a_cell_that_was_emptied_has_no_part(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    join(cells)
    again = join([ChipCell(S2, 2020, store, ledger_of({})), *cells[1:]])
    assert again.written == 0
    assert not part(store, S2, 2020).exists()
    assert [(entry["platform"], entry["year"]) for entry in manifest(store)["partitions"]] == [(L2, 2020), (S2, 2019)]
    assert join(cells[1:]).rows == 3 * 64


def test_no_cells_at_all_are_an_empty_manifest(store: LocalStore, join: Callable[..., Any]) -> None:
    assert join([]).rows == 0
    assert manifest(store)["partitions"] == []
    assert read_manifest(store) == []


def test_scenes_without_a_chip_do_no_harm(cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]) -> None:
    empty = chip_table(S2, "S2A_EMPTY", 2020, 0, 0, 1, 1).slice(0, 0)
    store.write(layout.chips(S2, 2020, "S2A_EMPTY"), encode_arrow(empty, {"fingerprint": FINGERPRINT}))
    counts = dict(zip(cells[0].ledger["item_id"], cells[0].ledger["chips"], strict=True))
    merged = join([ChipCell(S2, 2020, store, ledger_of({**counts, "S2A_EMPTY": 0}))])
    assert (merged.rows, merged.parts[0].scenes) == (3 * 64, 4)


@pytest.mark.slow
def test_a_part_that_was_lost_or_cut_is_written_again(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    first = join(cells)
    part(store, S2, 2019).unlink()
    cut = part(store, L2, 2020)
    cut.write_bytes(cut.read_bytes()[:-100])
    assert join(cells).written == 2
    assert read_manifest(store) == first.parts
    for one in first.parts:
        content = store.read(f"{layout.MERGED}/{one.path}")
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == one.content


@pytest.mark.slow
@pytest.mark.parametrize("other", ["another index", "its own rows in another order", "nothing but zeros"])
def test_a_part_that_was_replaced_by_a_file_of_its_size_is_written_again(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], other: str
) -> None:
    first = join(cells)
    path = part(store, S2, 2019)
    content = path.read_bytes()
    if other == "nothing but zeros":
        path.write_bytes(bytes(len(content)))
    else:
        table = pq.ParquetFile(path).read()
        order = np.arange(len(table))[::-1] if other.startswith("its own") else np.zeros(len(table), int)
        smaller = table.take(order).replace_schema_metadata(None)
        pq.write_table(smaller, path, compression="zstd", store_schema=False, write_statistics=False)
        assert path.stat().st_size < len(content)
        with path.open("rb+") as file:  # same size: bytes between the data and the footer
            written = file.read()
            footer = int.from_bytes(written[-8:-4], "little") + 8
            file.seek(len(written) - footer)
            file.write(bytes(len(content) - len(written)) + written[-footer:])
        assert pq.read_metadata(path).num_rows == len(table)
    assert path.stat().st_size == len(content)
    again = join(cells)
    assert (again.written, again.parts) == (1, first.parts)
    assert path.read_bytes() == content


def edit(path: Path) -> None:
    """Change a byte of a part's pages; its footer stays intact."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_a_part_that_was_edited_behind_its_footer_is_written_again(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    first = join(cells)
    path = part(store, S2, 2019)
    content = path.read_bytes()
    edit(path)
    again = join(cells)
    assert (again.written, again.parts) == (1, first.parts)
    assert path.read_bytes() == content


def test_a_part_that_was_only_touched_is_kept_and_read_once(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    join(cells)
    before = {key: store.read(key) for key in store.list("")}
    touched, painted = layout.merged_part(S2, 2019), layout.painted(S2, 2019)
    os.utime(store.root / touched)
    assert join(cells).written == 0
    times = store.entries("chips")
    assert times[painted].modified >= times[touched].modified  # so that the next merge does not read the part
    assert join(cells).written == 0
    assert store.entries("chips")[painted] == times[painted]
    assert {key: store.read(key) for key in store.list("")} == before


def test_a_cell_of_one_chip(store: LocalStore, recipe: Recipe, join: Callable[..., Any]) -> None:
    cell = write_cell(store, recipe, S2, 2020, ["S2A_ONE"], 1, 1)
    assert join([cell]).rows == 1
    file = pq.ParquetFile(part(store, S2, 2020))
    assert (file.metadata.num_rows, file.num_row_groups) == (1, 1)
    assert file.read()["chipid"].to_pylist() == ["S2A_ONE-0-0"]


def test_ids_of_scenes_that_begin_alike_are_in_order(
    store: LocalStore, recipe: Recipe, join: Callable[..., Any]
) -> None:
    """A chip of scene `A-1` can be between two of scene `A`, as ids are text."""
    names = ["A", "A-1", "A-1-2", "A.", "A0", "B"]
    cell = write_cell(store, recipe, S2, 2020, names, 12, 12, (10.0, 10.0))
    join([cell])
    table = pq.ParquetFile(part(store, S2, 2020)).read()
    keys = keys_of(np.stack(table["bbox"].combine_chunks().flatten(), axis=1))
    found = list(zip(keys.tolist(), table["chipid"].to_pylist(), strict=True))
    assert found == sorted(found)
    assert len({*found}) == len(names) * 144


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0, 1 << 40])
def test_spilled_or_not_and_cut_anywhere_the_rows_are_the_same(
    store: LocalStore,
    recipe: Recipe,
    join: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory: Any,
) -> None:
    names = [f"S2A_{n:02d}" for n in range(30)]
    cell = write_cell(store, recipe, S2, 2020, names, 9, 9, (10.0, 10.0))
    join([cell], store=LocalStore(tmp_path / "whole"))
    monkeypatch.setattr(sorting, "SORT_MEMORY", memory)
    monkeypatch.setattr(sorting, "SORTED_ROWS", 100)
    monkeypatch.setattr(records, "ROWS_OF_JOB", 200)
    join([cell])
    assert part(store, S2, 2020).read_bytes() == part(LocalStore(tmp_path / "whole"), S2, 2020).read_bytes()


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
@pytest.mark.parametrize("changed", [None, 2018, 2020])
def test_two_merges_at_once(
    request: pytest.FixtureRequest,
    store: LocalStore,
    recipe: Recipe,
    threads: Executor,
    tmp_path: Path,
    kind: str,
    changed: int | None,
) -> None:
    """Another merge runs while one is in progress: with the same cells it is harmless, otherwise the first stops."""
    target = (
        LocalStore(tmp_path / "merged") if kind == "folder" else open_store(request.getfixturevalue("s3_bucket").url)
    )
    later = LocalStore(tmp_path / "later")

    def cells_in(place: LocalStore) -> list[ChipCell]:
        return [write_cell(place, recipe, S2, year, [f"S2A_{year}"]) for year in (2018, 2019, 2020)]

    ours = cells_in(store)
    theirs = [made_anew(later, cell) if cell.year == changed else cell for cell in cells_in(later)]
    covers = {id(cells): [write_land_cover(cell) for cell in cells] for cells in (ours, theirs)}

    def run(cells: list[ChipCell], progress: Callable[..., Any] = lambda done, of: None) -> Any:
        return merge(cells, covers[id(cells)], PLAN, target, recipe, threads, 4, progress)

    def meanwhile(done: int, of: int) -> None:
        if done == 1:
            run(theirs)

    if changed is None:
        run(ours, meanwhile)
    else:
        with pytest.raises(StorageError, match=r"manifest\.json: another merge wrote it meanwhile.*one at a time"):
            run(ours, meanwhile)
    parts = read_manifest(target)
    assert len(parts) == 3
    for one in parts:
        content = target.read(f"{layout.MERGED}/{one.path}")
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == one.content
    again = run(theirs)
    assert (again.written, again.parts) == (0, parts)


# --- no space
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("what", "said"), [("spill", "chips cannot be sorted in"), ("part", "cannot write")])
def test_a_full_disk_is_told_and_leaves_nothing(
    large_cells: list[ChipCell], store: LocalStore, tmp_path: Path, join: Callable[..., Any], what: str, said: str
) -> None:
    cells = large_cells
    join(cells[1:])
    before = state(store)
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "clay_assets_tests.chips.merge_cells", f"full {what}", str(store.root)]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert f"StorageError: {said}" in done.stderr
    assert "oom" in done.stderr.splitlines()[-1]  # make room, or: check that there is room
    assert state(store) == before
    assert not list((tmp_path / "tmp").iterdir())
    assert not [path for path in (store.root / ".tmp").iterdir() if path.name != "lock"]
    assert join(cells).written == 1


def test_a_manifest_that_cannot_be_understood_is_an_error_that_names_it(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    for content in (b"{", b"[]", b'{"partitions": [{"platform": 1}]}'):
        store.write(layout.MANIFEST, content)
        with pytest.raises(InputError, match=r"manifest\.json: cannot be understood.*Delete it"):
            join(cells)


# --- what it rejects before anything is published -------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="as earlier versions wrote them"),
        pytest.param({"row_group_size": 10}, id="several row groups"),
        pytest.param({"write_statistics": False, "use_dictionary": False, "compression": "none"}, id="bare"),
    ],
)
def test_a_part_does_not_depend_on_how_its_files_are_encoded(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], options: dict[str, Any]
) -> None:
    land_cover = [write_land_cover(cell) for cell in cells]
    join(cells, land_cover=land_cover)
    before = {key: content for key, (content, _) in state(store).items()}
    for key in [*(key for cell in cells for key in cell.keys), *(key for cell in land_cover for key in cell.keys)]:
        pq.write_table(pq.read_table(store.root / key, partitioning=None), store.root / key, **options)
    store.delete(list(before))
    join(cells, land_cover=land_cover)
    assert {key: content for key, (content, _) in state(store).items()} == before


def renamed(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.rename_columns([name if old == "chipid" else old for old in table.schema.names])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replace("cloud_cover_percentage", 1.5), "cloud_cover_percentage has values outside 0 to 1"),
        (replace("nodata_percentage", -0.01), "nodata_percentage has values outside 0 to 1"),
        (replace("nodata_percentage", float("nan")), "nodata_percentage has values outside 0 to 1"),
        (replace("gsd", 0.0), "gsd values must be above 0"),
        (replace("nodata_percentage", None), "null values found"),
        (replace("geometry", None), "null values found"),
        (replace("chipid", "S2A_OTHER-0-0"), "chip ids do not match scene S2A_B"),
        (replace("chip_index_x", 5), "chip ids do not match scene S2A_B"),
        (replace("platform", L1), f"platform is not {S2}"),
        (replace("item_id", "S2A_OTHER"), "item_id is not S2A_B"),
        (renamed("chip_id"), "not the columns of a chip index"),
        (lambda table: table.drop_columns(["bbox"]), "not the columns of a chip index"),
        (
            lambda table: table.set_column(5, "chip_index_x", table["chip_index_x"].cast(pa.int64())),
            "not the columns of a chip index",
        ),
        (lambda table: pa.concat_tables([table.slice(0, 63), table.slice(0, 1)]), "a chip id occurs twice"),
        (lambda table: table.slice(0, 60), "holds 60 chips, its ledger says 64"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "a chip id occurs twice"),
    ],
)
def test_an_invalid_index_is_refused_and_the_old_part_stays(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], change: Any, said: str
) -> None:
    join(cells)
    before = state(store)
    changed = made_anew(store, cells[0])
    rewrite(store, cells[0], "S2A_B", change, OTHER)
    with pytest.raises(InputError, match=said) as caught:
        join([changed, *cells[1:]])
    assert "aterialise chip_index" in str(caught.value)
    assert "S2A_B.parquet" in str(caught.value) or "sentinel-2-l2a 2020" in str(caught.value)
    assert state(store) == before


@pytest.mark.slow
def test_an_index_file_that_is_gone_or_garbage_is_refused(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    join(cells)
    before = state(store)
    changed = made_anew(store, cells[0])
    path = store.root / cells[0].keys[1]
    for content in (b"garbage", path.read_bytes()[:-30], None):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(InputError, match=r"S2A_B\.parquet: cannot be read.*Materialise chip_index"):
            join([changed, *cells[1:]])
        assert state(store) == before


@pytest.mark.slow
def test_files_of_a_run_that_wrote_no_ledger_are_not_merged(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    join(cells)
    before = state(store)
    rewrite(store, cells[0], "S2A_B", lambda table: table, OTHER)  # a run started over, and was killed
    ledger = cells[0].ledger.copy()
    ledger.loc[ledger["item_id"] == "S2A_A", "fingerprint"] = OTHER  # the part has to be rebuilt for another reason
    rewrite(store, cells[0], "S2A_A", lambda table: table, OTHER)
    with pytest.raises(InputError, match=r"S2A_B\.parquet: changed after its ledger was written"):
        join([ChipCell(S2, 2020, store, ledger), *cells[1:]])
    assert part(store, S2, 2020).read_bytes() == before[layout.merged_part(S2, 2020)][0]


@pytest.mark.slow
def test_a_scene_in_two_years_or_twice_in_one_is_refused(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], recipe: Recipe
) -> None:
    join(cells)
    before = state(store)
    again = write_cell(store, recipe, S2, 2021, ["S2A_A"])
    with pytest.raises(InputError, match=r"scene S2A_A is in 2020 and in 2021.*chip ids would repeat"):
        join([*cells, again])
    twice = cells[1].ledger.loc[[0, 0]].reset_index(drop=True).assign(fingerprint=OTHER)
    with pytest.raises(InputError, match="scene LC08_A is twice in 2020"):
        join([cells[0], ChipCell(L2, 2020, store, twice), cells[2]])
    assert state(store) == before


def test_both_landsat_levels_may_have_a_scene_of_one_name(
    store: LocalStore, join: Callable[..., Any], recipe: Recipe
) -> None:
    cells = [write_cell(store, recipe, platform, 2020, ["LC08_A"]) for platform in (L1, L2)]
    assert join(cells).rows == 128


def test_storage_that_cannot_be_written_is_told(
    cells: list[ChipCell], tmp_path: Path, join: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/merged.*CLAY_STORAGE"):
        join(cells, store=LocalStore(tmp_path / "file" / "merged"))


# --- killed, and large ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "an older state"])
def test_killed_between_a_part_and_the_manifest_then_resumed(
    large_cells: list[ChipCell], store: LocalStore, tmp_path: Path, join: Callable[..., Any], before: str
) -> None:
    cells = large_cells
    reference = LocalStore(tmp_path / "reference")
    if before == "an older state":  # which the manifest's history tells
        join(cells[2:], store=reference)
        join(cells[2:])
    expected = join(cells, store=reference)
    old = state(store)
    process = subprocess.Popen(
        [sys.executable, "-m", "clay_assets_tests.chips.merge_cells", "kill", str(store.root)], cwd=REPOSITORY
    )
    end = time.monotonic() + SECONDS
    while not part(store, S2, 2018).exists() and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.wait(SECONDS)
    assert part(store, S2, 2018).exists()
    assert store.exists(layout.MANIFEST) == (before != "nothing")
    assert all(state(store)[key] == old[key] for key in old)  # the manifest still has the older state
    finished = sum(part(store, S2, year).exists() for year in (2018, 2019, 2020))
    kept = part(store, S2, 2018).stat().st_mtime_ns

    resumed = join(standing_cells(store))
    assert resumed.written == 3 - finished
    assert part(store, S2, 2018).stat().st_mtime_ns == kept
    assert resumed.parts == expected.parts
    assert {key: content for key, (content, _) in state(store).items()} == {
        key: content for key, (content, _) in state(reference).items()
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cell(tmp_path: Path) -> None:
    """Five times the rows, 240 MB more, take no more than the 128 MB allowed for this sort."""

    def measure(rows: Any) -> int:
        command = [sys.executable, "-m", "clay_assets_tests.chips.merge_cells", "measure", str(tmp_path / rows), rows]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=True)
        shutil.rmtree(tmp_path / rows)
        merged, peak = map(int, done.stdout.split())
        assert merged == int(rows)
        return peak

    small, large = measure("200000"), measure("1000000")
    assert large < small + 150e6


# --- land cover -------------------------------------------------------------------------------------------------------


def shares_of(store: LocalStore, cell: ChipCell, item_id: str) -> pd.DataFrame:
    return pq.read_table(store.root / layout.landcover(cell.platform, cell.year, item_id)).to_pandas()


@pytest.mark.slow
def test_land_cover_is_joined_to_its_chips(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], recipe: Recipe
) -> None:
    join(cells)
    table = pq.read_table(part(store, S2, 2020), partitioning=None).to_pandas().set_index("chipid")
    for item_id in ("S2A_A", "S2A_B", "S2A_C"):
        shares = shares_of(store, cells[0], item_id).set_index("chipid")
        found = table.loc[shares.index]
        kept = shares["valid_share"] >= recipe.chip_landcover.min_valid_share
        assert 0 < kept.sum() < len(kept)
        assert found["landcover"].isna().tolist() == found["landcover_class"].isna().tolist() == (~kept).tolist()
        percent = np.array([list(row.values()) for row in found["landcover"][kept]])
        assert (percent.sum(axis=1) == 100).all()
        truth = shares.loc[kept].drop(columns="valid_share").to_numpy(float)
        assert np.abs(percent - 100 * truth).max() < 1
        assert list(found["landcover"][kept].iloc[0]) == list(WORLDCOVER_FIELDS.values())
        codes = np.array(list(WORLDCOVER_CLASSES))
        assert (found["landcover_class"][kept].to_numpy(int) == codes[truth.argmax(axis=1)]).all()


@pytest.mark.slow
def test_land_cover_that_changed_or_another_least_share_rewrites_its_part_alone(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], recipe: Recipe
) -> None:
    join(cells)
    land_cover = [write_land_cover(cell) for cell in cells]
    assert join(cells, land_cover=land_cover).written == 0
    ledger = land_cover[0].ledger.copy()
    ledger.loc[1, ["outcome", "fingerprint", "error"]] = ["failed", "", "S2A_B: a file is damaged"]
    changed = LandCoverCell(S2, 2020, store, ledger)
    again = join(cells, land_cover=[changed, *land_cover[1:]])
    assert (again.written, again.without_land_cover) == (1, [])
    table = pq.read_table(part(store, S2, 2020), partitioning=None)
    assert table.filter(pc.field("item_id") == "S2A_B")["landcover"].null_count == 64  # failed, see the ledger
    assert table.filter(pc.field("item_id") == "S2A_A")["landcover"].null_count < 64
    stricter = recipe.model_copy(update={"chip_landcover": ChipLandcover(min_valid_share=0.4)})
    assert join(cells, land_cover=land_cover, recipe=stricter).written == 3
    assert pq.read_table(part(store, S2, 2020), partitioning=None)["landcover"].null_count == 3 * 12


@pytest.mark.slow
def test_a_cell_without_current_land_cover_keeps_its_old_part(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    first = join(cells)
    before = state(store)
    changed = made_anew(store, cells[0])
    land_cover = [write_land_cover(cell) for cell in cells]  # outdated for the first of them
    again = join([changed, *cells[1:]], land_cover=land_cover)
    assert (again.written, again.without_land_cover) == (0, [f"{S2}|2020"])
    assert again.parts == first.parts
    assert state(store) == before
    # The same without any, and for a cell that never had any, which has no part.
    assert join([changed, *cells[1:]], land_cover=land_cover[1:]).parts == first.parts
    new = write_cell(store, load_recipe(), L1, 2020, ["LC08_NEW"])
    again = join([*cells, new], land_cover=land_cover)
    assert (again.parts, again.without_land_cover) == (first.parts, [f"{L1}|2020"])
    assert not part(store, L1, 2020).exists()
    assert join([changed, *cells[1:], new]).rows == first.rows + 64  # once they have


def test_without_any_land_cover_there_is_nothing_to_merge(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=r"no chip has land cover yet\. Materialise chip_landcover of these .*\|2020"):
        join(cells, land_cover=[])
    assert state(store) == {}


@pytest.mark.slow
def test_a_merged_index_without_land_cover_stays_until_every_cell_has_some(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    join(cells)
    document = manifest(store)
    store.write(layout.MANIFEST, json.dumps({**document, "version": 2}).encode())
    before = state(store)
    land_cover = [write_land_cover(cell) for cell in cells]
    with pytest.raises(InputError, match=rf"without land cover and splits, and 1 of its cells.*first.*{S2}\|2020"):
        join(cells, land_cover=land_cover[1:])
    assert state(store) == before
    assert join(cells, land_cover=land_cover).rows == 320 + 64
    assert manifest(store)["version"] > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.slice(0, 60), "its chips are not those of the chip index"),
        (lambda table: table.take([1, 0, *range(2, 64)]), "its chips are not those of the chip index"),
        (replace("tree_cover", 0.999), "land-cover shares do not sum to 100 %"),
        (replace("tree_cover", None), "land-cover shares do not sum to 100 %"),
        (replace("tree_cover", float("nan")), "land-cover shares do not sum to 100 %"),
        (replace("valid_share", 1.5), "contradict valid_share"),
        (replace("valid_share", 0.0), "contradict valid_share"),
        (replace("valid_share", None), "contradict valid_share"),
        (lambda table: table.drop_columns(["mangroves"]), "columns are not those of land cover"),
    ],
)
def test_invalid_land_cover_is_refused_and_the_old_part_stays(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any], change: Any, said: str
) -> None:
    join(cells)
    before = state(store)
    land_cover = [write_land_cover(cell) for cell in cells]
    key = layout.landcover(S2, 2020, "S2A_B")
    store.write(key, encode_arrow(change(pq.read_table(store.root / key)), {"fingerprint": OTHER}))
    ledger = land_cover[0].ledger.copy()
    ledger.loc[ledger["item_id"] == "S2A_B", "fingerprint"] = OTHER
    with pytest.raises(InputError, match=said) as caught:
        join(cells, land_cover=[LandCoverCell(S2, 2020, store, ledger), *land_cover[1:]])
    assert "S2A_B.parquet" in str(caught.value)
    assert "materialise chip_landcover again" in str(caught.value)
    assert state(store) == before


@pytest.mark.slow
def test_land_cover_that_is_gone_or_of_a_run_without_ledger_is_not_merged(
    cells: list[ChipCell], store: LocalStore, join: Callable[..., Any]
) -> None:
    land_cover = [write_land_cover(cell) for cell in cells]
    path = store.root / layout.landcover(S2, 2020, "S2A_B")
    content = path.read_bytes()
    store.write(layout.landcover(S2, 2020, "S2A_B"), encode_arrow(pq.read_table(path), {"fingerprint": OTHER}))
    with pytest.raises(InputError, match=r"S2A_B\.parquet: changed after its ledger.*chip_landcover again"):
        join(cells, land_cover=land_cover)
    path.unlink()
    with pytest.raises(InputError, match=r"S2A_B\.parquet: cannot be read.*Materialise chip_landcover again"):
        join(cells, land_cover=land_cover)
    path.write_bytes(content)
    assert join(cells, land_cover=land_cover).rows == 320 + 64
