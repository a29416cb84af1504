"""A Dask cluster: the same results as a local pool, whichever process ends; and errors for an unfit cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import box

import clay_assets
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.landcover import open_worldcover
from clay_assets.chips.measuring import measure_land_cover
from clay_assets.chips.merge import merge
from clay_assets.errors import ClayError, InputError, SourceError, StorageError
from clay_assets.executors import cluster as cluster_module
from clay_assets.executors import open_executor, run_bounded
from clay_assets.landcover.worldcover import class_shares
from clay_assets.recipes import load_recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stores import LocalStore, Store, StoreMark
from clay_assets.training.reading_headers import read_headers
from clay_assets_tests.chips.factories import S2, made_plan
from clay_assets_tests.conftest import REPOSITORY, Bucket
from clay_assets_tests.landcover.rasters import write_cell
from clay_assets_tests.servers.daemon import Daemon
from clay_assets_tests.servers.dask_cluster import DaskCluster, other_versions
from clay_assets_tests.training.scenes_with_overviews import make_scene

pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

SCENES, YEAR, RECIPE = 16, 2020, load_recipe("clay_v1")
WORLDCOVER_CELL = "N00E009"
LastWord = Callable[[str, int], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Item]]:
    """A folder of WorldCover, and scenes on it that share their files."""
    folder = tmp_path_factory.mktemp("world")
    codes = np.random.default_rng(0).choice(list(WORLDCOVER_CLASSES), (60, 60)).astype(np.uint8)
    write_cell(folder, WORLDCOVER_CELL, codes)
    made = [make_scene(folder, number) for number in range(2)]
    return folder, [{**made[n % 2], "id": f"{made[n % 2]['id']}_{n:02d}"} for n in range(SCENES)]


@pytest.fixture(scope="module")
def reference(world: tuple[Path, list[Item]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that the chain writes with a local pool."""
    store = LocalStore(tmp_path_factory.mktemp("reference"))
    run_chain(world, store, None)
    return contents(store)


@pytest.fixture(scope="module")
def started() -> Iterator[DaskCluster]:
    """The cluster of all tests; take it by `cluster_of` or `cluster`."""
    cluster = DaskCluster(0, allowed_failures=1)
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster_of(started: DaskCluster) -> Callable[[int], DaskCluster]:
    """Returns the cluster with this number of workers, whatever an earlier test did to it."""

    def restored(workers: int) -> DaskCluster:
        started.restore(workers)
        return started

    return restored


@pytest.fixture
def cluster(cluster_of: Callable[[int], DaskCluster]) -> DaskCluster:
    """The cluster with one worker."""
    return cluster_of(1)


def run_chain(
    world: tuple[Path, list[Item]], store: Store, scheduler: str | None, said: LastWord = lambda stage, done: None
) -> None:
    """Land cover of tiles, and indexing, land cover, headers and merge of a cell, each in a separate executor."""
    folder, items = world

    @contextmanager
    def stage(name: str) -> Iterator[tuple[Any, ...]]:
        with open_executor(2, scheduler, mark=StoreMark(store)) as (executor, in_flight):
            yield executor, in_flight, lambda done, total: said(name, done)

    tiles = gpd.GeoDataFrame({"name": ["A", "B"]}, geometry=[box(9, 0, 10, 1), box(9.5, 0.5, 11, 2)], crs="EPSG:4326")
    with stage("worldcover_stats") as (executor, in_flight, progress):
        shares = class_shares(tiles, folder, executor=executor, in_flight=in_flight, progress=progress)
        store.write(layout.table("worldcover_stats"), encode(shares, RECIPE.stamp()))
    with stage("chip_index") as how:
        cell = index_scenes(S2, YEAR, items, store, RECIPE, *how)
        store.write(layout.chip_ledger(S2, YEAR), encode(cell.ledger, RECIPE.stamp()))
    with stage("chip_landcover") as how:
        covered = measure_land_cover(cell, items, open_worldcover(str(folder)), store, RECIPE, *how)
        store.write(layout.landcover_ledger(S2, YEAR), encode(covered.ledger, RECIPE.stamp()))
    with stage("cog_headers") as how:
        headers = read_headers(S2, YEAR, items, store, RECIPE, *how)
        store.write(layout.headers_ledger(S2, YEAR), encode(headers.ledger, RECIPE.stamp()))
    for ledger in (cell.ledger, covered.ledger, headers.ledger):
        assert ledger["error"].isna().all(), ledger["error"].dropna().iloc[0]
    with stage("merged_index") as (executor, in_flight, progress):
        merged = merge([cell], [covered], made_plan(), store, RECIPE, executor, in_flight, progress)
    assert merged.rows == cell.ledger["chips"].sum() > 0


def contents(store: LocalStore) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list("")}


def told(scheduler: str, store: Store | None = None) -> ClayError:
    """The error for an unfit cluster."""
    mark = None if store is None else StoreMark(store)
    with pytest.raises(ClayError) as caught, open_executor(1, scheduler, mark=mark):
        pass
    assert f"CLAY_DASK_SCHEDULER='{scheduler}'" in str(caught.value)
    return caught.value


@pytest.fixture
def another(started: DaskCluster) -> Iterator[Callable[..., Daemon]]:
    """Adds a worker with peculiarities for one test."""
    added = []

    def add(*arguments: Any, **named: Any) -> Daemon:
        added.append(started.add_worker(*arguments, **named))
        started.wait_for(len(started.workers))
        return added[-1]

    yield add
    for worker in added:
        worker.stop()


def re_worker(text: str) -> bool:
    """Whether a text names a worker and its host."""
    return f" on host {os.uname().nodename}: " in text and "worker tcp://127.0.0.1:" in text


# --- what is done ----------------------------------------------------------------------------------------------------
# Tests that kill few processes come first, and those that end the scheduler last: each costs what was killed before it.


def profilers(cluster: DaskCluster) -> set[bool]:
    """Whether Dask's profiler runs in the workers."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        running = client.run(lambda dask_worker: dask_worker.periodic_callbacks["profile"].is_running())
    return set(running.values())


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the profiler is stopped on Python 3.11 alone")
def test_the_profiler_that_may_hang_a_worker_is_stopped(cluster_of: Callable[[int], DaskCluster]) -> None:
    cluster_of(0)
    cluster = cluster_of(1)  # a worker that no run has seen
    assert profilers(cluster) == {True}
    with open_executor(1, cluster.address) as (executor, in_flight):
        assert profilers(cluster) == {False}
        cluster.add_worker()
        cluster.wait_for(2)
        cluster.kill(cluster.workers[0])
        list(run_bounded(executor, abs, range(4), in_flight))
        cluster.wait_for(1)
        assert profilers(cluster) == {False}


def test_workers_that_are_killed_change_no_byte(
    cluster_of: Callable[[int], DaskCluster],
    world: tuple[Path, list[Item]],
    reference: dict[str, bytes],
    tmp_path: Path,
) -> None:
    store, cluster = LocalStore(tmp_path / "store"), cluster_of(3)

    def kill_one(stage: str, done: int) -> None:
        if stage in ("chip_index", "cog_headers") and done == 2:
            cluster.kill(cluster.workers.pop())

    run_chain(world, store, cluster.address, kill_one)
    assert len(cluster.workers) == 1
    assert contents(store) == reference


def end_the_worker(number: int) -> int:
    return number if number else os._exit(1)  # as when out of memory


def test_a_job_that_ends_each_of_its_workers_fails_alone(cluster_of: Callable[[int], DaskCluster]) -> None:
    cluster = cluster_of(3)
    with open_executor(1, cluster.address) as (executor, in_flight):
        ended = dict(run_bounded(executor, end_the_worker, range(4), in_flight))
        assert [future.exception() or future.result() for _, future in sorted(ended.items())][1:] == [1, 2, 3]
        assert isinstance(ended[0].exception(), SourceError)
        assert "2 workers of the cluster ended while they worked on it" in str(ended[0].exception())


class OfALibraryError(Exception):
    """Cannot be pickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.lock = threading.Lock()


def fail_with(kind: type[Exception]) -> None:
    raise kind("said", "so") if kind is OfALibraryError else kind("said so")


def test_an_error_of_a_job_is_that_of_the_job_alone(cluster: DaskCluster) -> None:
    kinds = (InputError, KeyError, OfALibraryError, MemoryError, StorageError)
    with open_executor(1, cluster.address) as (executor, in_flight):
        found = {job: future.exception() for job, future in run_bounded(executor, fail_with, kinds, in_flight)}
    assert {kind: type(error) for kind, error in found.items()} == {
        **{kind: kind for kind in kinds},
        OfALibraryError: SourceError,
    }
    assert str(found[InputError]) == "said so"
    assert str(found[OfALibraryError]) == "OfALibraryError: said so"
    error = found[KeyError]
    assert error is not None
    assert "fail_with" in "".join(error.__notes__)  # names where it was raised
    assert str(found[StorageError]).startswith("worker tcp://127.0.0.1:")


def test_functions_of_a_script_are_sent(cluster: DaskCluster, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from clay_assets.executors import open_executor\n"
        "def twice(number): return 2 * number\n"
        "with open_executor(1, sys.argv[1]) as (executor, _): print(executor.submit(twice, 21).result())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script), cluster.address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "42\n", done.stderr


# --- what is noticed before ------------------------------------------------------------------------------------------


def other_code(folder: Path) -> dict[str, str]:
    """Environment of a worker with a different checkout of the same version."""
    shutil.copytree(Path(clay_assets.__file__).parent, folder / "clay_assets")
    (folder / "clay_assets" / "errors.py").open("a").write("# changed\n")
    return {"PYTHONPATH": str(folder)}


def test_a_worker_with_other_versions_is_named(
    cluster: DaskCluster, another: Callable[..., Daemon], tmp_path: Path
) -> None:
    names = "clay_assets", "distributed", "pyarrow"
    another(other_versions(tmp_path, *names))
    error = told(cluster.address)
    assert isinstance(error, InputError)
    for name in names:
        assert f" {name} 0.0.7 (here: " in str(error)
    assert "Install the same versions there" in str(error)
    assert str(error).count("worker tcp://") == 1


def test_a_worker_with_other_code_of_the_same_version_is_named_also_if_it_comes_later(
    cluster: DaskCluster, another: Callable[..., Daemon], tmp_path: Path
) -> None:
    with open_executor(1, cluster.address) as (executor, _):
        another(other_code(tmp_path))
        # Looked at before its first job.
        with pytest.raises(ClayError, match=": other code of clay_assets") as caught:
            for _ in run_bounded(executor, time.sleep, [0.2] * 40, 4):
                pass
        later = caught.value
    for error in (later, told(cluster.address)):
        assert isinstance(error, InputError)
        assert re_worker(str(error))
        assert ": other code of clay_assets" in str(error)


def elsewhere(tmp_path: Path, mounted: Path) -> tuple[str, ...]:
    """Start of the command for a worker that sees an empty folder instead of the given one."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid():
        pytest.skip("NOT RUN: a worker with other mounts: needs root and unshare")
    (tmp_path / "empty").mkdir()
    mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return unshare, "--mount", "sh", "-c", mount, str(tmp_path / "empty"), str(mounted)


def test_a_worker_without_the_folder_is_named(
    cluster: DaskCluster, another: Callable[..., Daemon], world: tuple[Path, list[Item]], tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "storage")
    store.root.mkdir()
    another(command=elsewhere(tmp_path, store.root))
    error = told(cluster.address, store)
    assert isinstance(error, StorageError)
    assert re_worker(str(error))
    assert f"{store.root}: not the storage of the run on this worker. Give every worker access to CLAY_STORAGE" in str(
        error
    )
    assert not list((tmp_path / "empty").iterdir())
    assert not store.list("")


def test_a_worker_that_cannot_write_is_named(
    cluster: DaskCluster, another: Callable[..., Daemon], tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "storage")
    store.root.mkdir()
    command = elsewhere(tmp_path, store.root)
    read_only = (*command[:4], 'mount --bind -o ro "$1" "$1" && shift && exec "$@"', *command[5:])
    another(command=read_only)
    error = told(cluster.address, store)
    assert isinstance(error, StorageError)
    assert re_worker(str(error))
    assert f"cannot write {store.root}" in str(error)


def test_a_worker_without_credentials_is_named(
    cluster_of: Callable[[int], DaskCluster], another: Callable[..., Daemon], s3_bucket: Bucket
) -> None:
    from clay_assets.storage.stores import open_store

    keys = {name: value for name, value in s3_bucket.server.env.items() if "KEY" not in name}
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    store = open_store(f"{s3_bucket.url}/clay")
    cluster = cluster_of(0)
    another({**s3_bucket.server.env, **nowhere})
    with open_executor(1, cluster.address, mark=StoreMark(store)) as (executor, _):
        assert executor.submit(abs, -1).result() == 1
    another({**keys, **nowhere, "AWS_SHARED_CREDENTIALS_FILE": os.devnull})
    error = told(cluster.address, store)
    assert isinstance(error, StorageError)
    assert re_worker(str(error))
    assert f"cannot read {s3_bucket.url}/clay/" in str(error)
    assert "credentials" in str(error)
    assert s3_bucket.keys() == []


# --- what ends a run -------------------------------------------------------------------------------------------------


def lost(scheduler: str, in_the_middle: Callable[[], object]) -> str:
    """The error that ends an endless run during which something happens."""
    with pytest.raises(SourceError, match=f"CLAY_DASK_SCHEDULER='{scheduler}'") as caught:
        run_without_end(scheduler, in_the_middle)
    return str(caught.value)


def run_without_end(scheduler: str, in_the_middle: Callable[[], object]) -> None:
    with open_executor(1, scheduler) as (executor, in_flight):
        for number, _ in enumerate(run_bounded(executor, time.sleep, repeat(0.3), in_flight)):
            if number == 0:
                in_the_middle()


def test_a_scheduler_that_hangs_ends_the_run(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "SILENCE_TIMEOUT", 4)
    try:
        said = lost(cluster.address, lambda: os.kill(cluster.scheduler.pid, signal.SIGSTOP))
        assert "the scheduler was lost" in said
    finally:
        os.kill(cluster.scheduler.pid, signal.SIGCONT)


def test_a_cluster_without_workers_is_told(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "WORKERS_TIMEOUT", 4)
    said = lost(cluster.address, lambda: cluster.kill(cluster.workers[0]))
    assert ": no workers for 4 s. Start some" in said
    assert ": no workers. Start some" in str(told(cluster.address))


def test_where_the_scheduler_is_lost_a_second_run_goes_on(
    cluster: DaskCluster, world: tuple[Path, list[Item]], reference: dict[str, bytes], tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")

    def kill(stage: str, done: int) -> None:
        if (stage, done) == ("chip_index", 3):
            cluster.kill(cluster.scheduler)

    with pytest.raises(SourceError, match=rf"CLAY_DASK_SCHEDULER='{cluster.address}'.*lost.*run again"):
        run_chain(world, store, cluster.address, kill)
    assert 3 <= len(store.list(layout.folder_of("chip_index"))) < SCENES
    assert not store.list(layout.CHIP_LEDGERS)  # nothing is blamed on a scene
    run_chain(world, store, None)
    assert contents(store) == reference


def test_where_another_scheduler_answers_the_run_ends(cluster: DaskCluster) -> None:
    def replace() -> None:
        cluster.kill(cluster.scheduler)
        cluster.start_scheduler()

    assert "the scheduler was lost" in lost(cluster.address, replace)


def test_a_scheduler_with_another_version_is_named(tmp_path: Path) -> None:
    cluster = DaskCluster(0, environment=other_versions(tmp_path, "distributed"))
    try:
        assert ": the scheduler: distributed 0.0.7 (here: " in str(told(cluster.address))
    finally:
        cluster.stop()
