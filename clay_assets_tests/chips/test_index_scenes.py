"""A cell's scenes: indexed once, resumed after a kill, bad ones skipped, the same on every executor."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clay_assets.chips.cells import FAILED, INDEXED, ChipCell
from clay_assets.chips.index import open_index
from clay_assets.chips.indexing import fingerprint_of, index_scenes
from clay_assets.chips.merge import merge
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError, StorageError
from clay_assets.executors import open_executor, run_bounded
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode, stamp_of
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import L2, S2, made_plan, write_items, write_land_cover
from clay_assets_tests.servers.dask_cluster import DaskCluster

REPOSITORY = Path(__file__).parents[2]
SECONDS = 60
SCENES = 8


@pytest.fixture(scope="module")
def items(planet: Planet) -> list[dict[str, Any]]:
    """Sentinel-2 scenes of two places."""
    return [item for item in planet.items(S2) if "UVU" in item["id"] or "KYG" in item["id"] if "scl" in item["assets"]][
        :SCENES
    ]


def failed_share(cell: ChipCell) -> float:
    return (cell.ledger["outcome"] == FAILED).sum() / max(len(cell.ledger), 1)


@pytest.fixture
def run(store: LocalStore, recipe: Recipe, threads: Executor) -> Callable[..., Any]:
    """Index a cell of 2018 into the test's store."""

    def index(
        items: list[dict[str, Any]],
        recipe: Any = recipe,
        executor: Any = threads,
        store: Any = store,
        platform: Any = S2,
    ) -> ChipCell:
        return index_scenes(platform, 2018, items, store, recipe, executor, 4)

    return index


def files(store: LocalStore) -> dict[str, tuple[bytes, int]]:
    """Key → (bytes, modification time) of every file in the store."""
    paths = {key: store.root / key for key in store.list("")}
    return {key: (path.read_bytes(), path.stat().st_mtime_ns) for key, path in paths.items()}


def contents(store: LocalStore) -> dict[str, bytes]:
    return {key: content for key, (content, _) in files(store).items()}


def with_options(recipe: Recipe, platform: Any = S2, **options: Any) -> Recipe:
    changed = recipe.options(platform).model_copy(update=options)
    return recipe.model_copy(update={"platforms": {**recipe.platforms, platform: changed}})


def without_file(item: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    bad = deepcopy(item)
    bad["id"] += "_BAD"
    bad["assets"]["scl"]["href"] = str(tmp_path / "absent.tif")
    return bad


# --- what is written ---------------------------------------------------------------------------------------------


def test_one_file_per_scene_and_one_ledger_row(
    planet: Planet, store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]], recipe: Recipe
) -> None:
    cell = run(items)
    assert cell.kept == 0
    assert list(cell.ledger["item_id"]) == sorted(item["id"] for item in items)
    assert set(cell.ledger["outcome"]) == {INDEXED}
    assert sorted(store.list("")) == [layout.chips(S2, 2018, name) for name in cell.ledger["item_id"]] == cell.keys
    for row in cell.ledger.itertuples():
        truth = planet.chip_truth(row.item_id)
        kept = int((truth["nodata_percentage"] <= 0.5).sum())
        assert (row.chips, row.chips_in_grid, row.chips_above_nodata_limit) == (kept, len(truth), len(truth) - kept)
        file = pq.ParquetFile(store.root / layout.chips(S2, 2018, row.item_id))
        assert file.metadata.num_rows == kept
        stamp = stamp_of(file.schema_arrow)
        assert stamp["recipe_hash"] == recipe.hash
        assert stamp["recipe"] == recipe.document
        assert stamp["fingerprint"] == row.fingerprint
        assert stamp["chips_above_nodata_limit"] == str(len(truth) - kept)
    assert cell.dataset().count_rows() == cell.ledger["chips"].sum()
    assert open_index(store.root / "chips/chip_index").count_rows() == cell.ledger["chips"].sum()


def test_a_cell_with_nothing_to_do_is_an_empty_ledger(store: LocalStore, run: Callable[..., Any]) -> None:
    cell = run([])
    assert cell.ledger.empty
    assert failed_share(cell) == 0
    assert cell.dataset().count_rows() == 0
    assert not store.list("")


def test_progress_counts_every_scene(
    store: LocalStore, recipe: Recipe, threads: Executor, items: list[dict[str, Any]]
) -> None:
    seen = []
    index_scenes(S2, 2018, items, store, recipe, threads, 4, lambda done, total: seen.append((done, total)))
    assert seen == [(n, len(items)) for n in range(1, len(items) + 1)]


# --- re-running ----------------------------------------------------------------------------------------------


def test_a_second_run_keeps_everything(store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]]) -> None:
    first = run(items)
    before = files(store)
    second = run(list(reversed(items)))
    assert second.kept == len(items)
    assert files(store) == before
    assert encode(second.ledger, {}) == encode(first.ledger, {})


@pytest.mark.parametrize("change", ["max_chip_nodata", "chip_size", "item"])
def test_a_change_that_matters_indexes_again(
    store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]], recipe: Recipe, change: str
) -> None:
    first = run(items)
    changed = {
        "max_chip_nodata": with_options(recipe, max_chip_nodata=0.0),
        "chip_size": recipe.model_copy(update={"chip_size": 128}),
        "item": recipe,
    }[change]
    again = deepcopy(items)
    if change == "item":
        again[0]["properties"]["datetime"] = "2018-02-03T04:05:06Z"
    second = run(again, changed)
    assert second.kept == (len(items) - 1 if change == "item" else 0)
    assert second.ledger["fingerprint"].ne(first.ledger["fingerprint"]).sum() == len(items) - second.kept
    chips = {"max_chip_nodata": "fewer", "chip_size": "more", "item": "same"}[change]
    difference = int(second.ledger["chips"].sum() - first.ledger["chips"].sum())
    assert {"fewer": difference < 0, "more": difference > 0, "same": difference == 0}[chips]


@pytest.mark.parametrize("change", [{"seed": 7}, {"description": "another"}])
def test_a_change_that_does_not_matter_keeps_everything(
    run: Callable[..., Any], items: list[dict[str, Any]], recipe: Recipe, change: dict[str, int] | dict[str, str]
) -> None:
    run(items)
    assert run(items, recipe.model_copy(update=change)).kept == len(items)


@pytest.mark.parametrize("debris", [b"", b"PAR1 half a file", None])
def test_a_file_that_is_not_whole_is_not_trusted(
    store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]], debris: bytes | None
) -> None:
    cell = run(items)
    whole = contents(store)
    path = store.root / cell.keys[0]
    path.write_bytes(whole[cell.keys[0]][:-20] if debris is None else debris)
    again = run(items)
    assert again.kept == len(items) - 1
    assert contents(store) == whole


def test_a_bad_scene_is_set_aside_and_the_rest_done(
    store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]], tmp_path: Path, planet: Planet
) -> None:
    bare = next(item for item in planet.items(S2) if "scl" not in item["assets"])
    cell = run([*items, without_file(items[0], tmp_path), bare])
    ledger = cell.ledger.set_index("item_id")
    failed = ledger[ledger["outcome"] == FAILED]
    assert set(failed.index) == {items[0]["id"] + "_BAD", bare["id"]}
    assert "absent.tif: file not found" in failed.loc[items[0]["id"] + "_BAD", "error"]
    assert "asset scl not found" in failed.loc[bare["id"], "error"]
    assert failed_share(cell) == pytest.approx(2 / (SCENES + 2))
    assert len(cell.keys) == len(items) == len(store.list(""))
    assert ledger["error"].isna().sum() == len(items)


def test_a_scene_that_was_mended_is_tried_again(
    run: Callable[..., Any], items: list[dict[str, Any]], tmp_path: Path
) -> None:
    bad = without_file(items[0], tmp_path)
    assert failed_share(run([bad])) == 1
    (tmp_path / "absent.tif").write_bytes(Path(items[0]["assets"]["scl"]["href"]).read_bytes())
    assert failed_share(run([bad])) == 0


def test_prune_removes_what_is_no_longer_picked(
    store: LocalStore, run: Callable[..., Any], items: list[dict[str, Any]]
) -> None:
    run(items)
    cell = run(items[:-3])
    other = layout.chips(S2, 2019, items[-2]["id"])
    store.write(other, b"of another year")
    assert len(store.list(layout.chip_folder(S2, 2018))) == SCENES
    assert cell.prune() == 3
    assert sorted(store.list("")) == sorted([*cell.keys, other])
    assert cell.prune() == 0


def test_storage_that_cannot_be_written_ends_the_run(
    tmp_path: Path, run: Callable[..., Any], items: list[dict[str, Any]]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/store.*CLAY_STORAGE"):
        run(items, store=LocalStore(tmp_path / "file" / "store"))


# --- processes that die, race, or run elsewhere --------------------------------------------------------------------


def start(items_path: Any, store: LocalStore) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "clay_assets_tests.chips.index_cell_process",
            str(items_path),
            S2,
            "2018",
            str(store.root),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_in_the_middle_then_resumed(
    planet: Planet, store: LocalStore, tmp_path: Path, recipe: Recipe, threads: Executor
) -> None:
    items = [item for item in planet.items(S2) if "scl" in item["assets"]][:80]
    process = start(write_items(tmp_path / "items.ndjson", items), store)
    end = time.monotonic() + SECONDS
    while len(store.list("chips")) < 5 and time.monotonic() < end:
        time.sleep(0.002)
    process.kill()
    process.wait(SECONDS)
    left = contents(store)
    done = [key for key in left if not key.startswith(".tmp/")]
    assert 5 <= len(done) < len(items)
    (store.root / ".tmp" / "debris-S2A.parquet").write_bytes(b"half of a file")

    resumed = index_scenes(S2, 2018, items, store, recipe, threads, 4)
    clean = LocalStore(tmp_path / "clean")
    whole = index_scenes(S2, 2018, items, clean, recipe, threads, 4)
    assert resumed.kept == len(done)
    assert {key: store.read(key) for key in store.list("chips")} == contents(clean)
    assert encode(resumed.ledger, {}) == encode(whole.ledger, {})
    ids = resumed.dataset().to_table(columns=["chipid"])["chipid"].to_pylist()
    assert len(ids) == len(set(ids)) == whole.ledger["chips"].sum()


def test_two_runs_of_one_cell_at_once(
    items: list[dict[str, Any]], store: LocalStore, tmp_path: Path, recipe: Recipe, threads: Executor
) -> None:
    path = write_items(tmp_path / "items.ndjson", items)
    processes = [start(path, store) for _ in range(2)]
    said = [process.communicate(timeout=SECONDS)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [failed for failed, _ in said] == ["0", "0"]
    clean = LocalStore(tmp_path / "clean")
    index_scenes(S2, 2018, items, clean, recipe, threads, 4)
    assert {key: store.read(key) for key in store.list("chips")} == contents(clean)


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[str]:
    """Address of a scheduler with one worker, each a separate process."""
    pytest.importorskip("distributed")
    cluster = DaskCluster(1)
    yield cluster.address
    cluster.stop()


@pytest.fixture(scope="module", params=["threads", "processes", "dask"])
def other_executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "threads":
        with open_executor(2) as (executor, _):
            yield executor
    elif request.param == "processes":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
            yield executor
    else:
        with open_executor(2, request.getfixturevalue("dask_cluster")) as (executor, _):
            yield executor


def test_every_executor_gives_the_same_bytes(
    other_executor: Executor, items: list[dict[str, Any]], store: LocalStore, tmp_path: Path, recipe: Recipe
) -> None:
    mixed = [*items, without_file(items[0], tmp_path)]
    with ThreadPoolExecutor(1) as one:
        reference = LocalStore(tmp_path / "reference")
        expected = index_scenes(S2, 2018, mixed, reference, recipe, one, 1)
    cell = index_scenes(S2, 2018, mixed, store, recipe, other_executor, 3)
    assert contents(store) == contents(reference)
    assert encode(cell.ledger, {}) == encode(expected.ledger, {})
    assert (cell.ledger["outcome"] == FAILED).sum() == 1
    assert index_scenes(S2, 2018, mixed, store, recipe, other_executor, 3).kept == len(items)


def test_unwritable_storage_is_told_across_processes(
    other_executor: Executor, items: list[dict[str, Any]], tmp_path: Path, recipe: Recipe
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        index_scenes(S2, 2018, items, LocalStore(tmp_path / "file" / "store"), recipe, other_executor, 3)


@pytest.mark.slow
def test_an_address_that_is_none_is_an_error_that_names_it() -> None:
    pytest.importorskip("distributed")
    address = "nonsense://host:8786"
    with pytest.raises(InputError, match=rf"CLAY_DASK_SCHEDULER='{address}'.*no scheduler"), open_executor(1, address):
        pass


# --- jobs in flight --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 3])
def test_no_more_jobs_are_taken_than_may_be_in_flight(in_flight: int) -> None:
    taken, ended, running, most = 0, 0, 0, 0
    lock = threading.Lock()

    def jobs() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            assert taken - ended <= in_flight
            yield number

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return number * number

    results = {}
    with ThreadPoolExecutor(8) as pool:
        for job, future in run_bounded(pool, work, jobs(), in_flight):
            results[job] = future.result()
            ended += 1
    assert results == {number: number * number for number in range(40)}
    assert most == in_flight


def test_what_has_not_started_is_cancelled_when_the_caller_stops() -> None:
    started = []

    def work(number: int) -> None:
        started.append(number)
        time.sleep(0.02)
        if number == 0:
            raise InputError("the first one")

    with ThreadPoolExecutor(1) as pool:
        running = run_bounded(pool, work, range(100), 10)
        assert isinstance(running, Generator)
        _, future = next(running)
        with pytest.raises(InputError, match="the first one"):
            future.result()
        running.close()
    assert len(started) <= 2


def test_landsat_cells_work_too(planet: Planet, run: Callable[..., Any], store: LocalStore) -> None:
    items = [item for item in planet.items(L2) if "175083" in item["id"]][:5]
    cell = run(items, platform=L2)
    expected = sum(int((planet.chip_truth(item["id"])["nodata_percentage"] == 0).sum()) for item in items)
    assert cell.ledger["chips"].sum() == expected > 0


# --- fingerprints and names --------------------------------------------------------------------------------------


def test_a_storage_may_be_moved_whatever_its_name(
    items: list[dict[str, Any]], run: Callable[..., Any], recipe: Recipe, tmp_path: Path
) -> None:
    """Our images are identified by their keys, not by the location of the storage."""
    fingerprints = []
    for name in ("here", "there", "línea ñandú 海"):
        store = LocalStore(tmp_path / name)
        item = deepcopy(items[0])
        for asset, entry in item["assets"].items():
            key = layout.imagery(S2, item["id"], f"{asset}.tif")
            with store.writing(key) as path:
                shutil.copyfile(entry["href"], path)
            entry["href"] = store.uri(key)
        first, again = run([item], store=store), run([item], store=store)
        assert (first.kept, again.kept) == (0, 1)
        fingerprints += first.ledger["fingerprint"].tolist()
    assert len(set(fingerprints)) == 1


def test_a_platform_s_new_version_is_another_fingerprint_of_its_scenes_alone(
    items: list[dict[str, Any]], recipe: Recipe, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprints() -> dict[str, str]:
        return {platform: fingerprint_of(items[0], platform, recipe, store) for platform in (S2, L2)}

    before = fingerprints()
    monkeypatch.setitem(PLATFORMS, S2, replace(PLATFORMS[S2], version="2"))
    after = fingerprints()
    assert after[S2] != before[S2]
    assert after[L2] == before[L2]


@pytest.mark.parametrize("item_id", ["../" * 6 + "outside", "x" * 240, "a/b c+d%2F", ".hidden"])
def test_any_item_id_is_indexed_merged_and_pruned_within_the_storage(
    items: list[dict[str, Any]],
    run: Callable[..., Any],
    recipe: Recipe,
    threads: Executor,
    tmp_path: Path,
    item_id: Any,
) -> None:
    store = LocalStore(tmp_path / "a" / "b" / "clay")
    odd = {**deepcopy(items[0]), "id": item_id}
    cell = run([odd, items[1]], store=store)
    assert set(cell.ledger["outcome"]) == {INDEXED}
    assert run([odd, items[1]], store=store).kept == 2
    assert (
        merge([cell], [write_land_cover(cell)], made_plan(), store, recipe, threads, 4).rows
        == cell.ledger["chips"].sum()
    )
    assert set(open_index(store.root / layout.MERGED).to_table()["item_id"].to_pylist()) == {item_id, items[1]["id"]}
    assert run([items[1]], store=store).prune() == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and store.root not in path.parents] == []
