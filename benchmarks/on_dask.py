"""Run the chain of a small planet on a local pool and on a Dask cluster of this machine: same bytes despite kills.

    python benchmarks/on_dask.py [--planet FOLDER] [--platform KEY]... [--workers 3]

Starts a scheduler and workers as processes, and runs the chain of the platforms four times: on a local pool; on the
cluster, killing a worker (SIGKILL) while scenes are indexed; on the cluster again, killing the scheduler instead; and
once more, to resume. Prints the workers' jobs and the messages, and compares every file of the storage with those of
the local pool.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import RECIPE, make_planet
from clay_assets.orchestration.failures import run_error
from clay_assets.orchestration.resources import ClayResource
from clay_assets.runs.kept_connections import open_instance
from clay_assets.runs.whole_chain import run_steps, steps
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the servers of the tests
from clay_assets_tests.servers.dask_cluster import DaskCluster

PLATFORMS = ("sentinel-2-l2a",)
YEARS = ("years = [2021, 2023]", "years = [2020, 2021]")  # replaced in the demo's recipe, for a shorter run


@contextmanager
def cluster_of(workers: int) -> Iterator[DaskCluster]:
    """A cluster that is closed at the end of the block."""
    cluster = DaskCluster(workers)
    try:
        yield cluster
    finally:
        cluster.stop()


def jobs_done(cluster: DaskCluster) -> dict[str, int]:
    """Function → number of its jobs that workers ran, by the scheduler's count."""
    from distributed import Client

    def count(dask_scheduler: Any) -> dict[str, int]:
        return {name: prefix.state_counts["memory"] for name, prefix in dask_scheduler.task_prefixes.items()}

    with Client(cluster.address, set_as_default=False) as client:
        counted: dict[str, int] = client.run_on_scheduler(count)
    return counted


def run_chain(settings: dict[str, str], platforms: list[str], home: Path) -> str | None:
    """Run the chain of some platforms; returns the first error, if any."""
    definitions = build_definitions(**settings)
    clay = (definitions.resources or {})["clay"]
    assert isinstance(clay, ClayResource)
    started = time.perf_counter()
    instance = open_instance(home)
    try:
        for step, result in run_steps(steps(clay, platforms), definitions.resolve_job_def, instance, "CRITICAL"):
            if result is not None and not result.success:
                return f"{step}: {run_error(result)}"
    finally:
        instance.dispose()
        print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    return None


@contextmanager
def once_indexing(store: LocalStore, act: Callable[[], object]) -> Iterator[None]:
    """Call a function as soon as the first scenes of a run inside the block are indexed."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            if store.list(layout.folder_of("chip_index")):
                act()
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    yield
    ended.set()
    watcher.join()


def compare(store: LocalStore, expected: dict[str, bytes]) -> bool:
    """Print whether the storage holds the expected bytes."""
    found = {key: store.read(key) for key in store.list("")}
    differ = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    print(f"  {len(found):,} files, {sum(map(len, found.values())):,} bytes: ", end="")
    print("those of the local pool" if not differ else f"{len(differ)} differ, such as {differ[:3]}", flush=True)
    return not differ


def main() -> None:
    """Run it, and exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--planet", type=Path, help="folder of the planet, made if it is not there")
    parser.add_argument("--platform", dest="platforms", action="append", help=f"default: {', '.join(PLATFORMS)}")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    platforms = options.platforms or list(PLATFORMS)
    logging.getLogger("clay_assets").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="clay-on-dask-") as name:
        folder = Path(name)
        planet = make_planet(options.planet or folder / "planet")
        home, storage = folder / "home", folder / "clay"  # items of copies contain its path, so all runs use the same
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
        text = RECIPE.read_text(encoding="utf-8")
        (folder / "recipe.toml").write_text(text.replace(*YEARS), encoding="utf-8")
        settings = {name.removeprefix("CLAY_").lower(): value for name, value in planet.environment().items()}
        settings |= {"recipe": str(folder / "recipe.toml"), "storage": str(storage), "workers": "2"}
        store = LocalStore(storage)
        right = []

        print("on a local pool", flush=True)
        error = run_chain(settings, platforms, home)
        if error is not None:
            sys.exit(error)
        expected = {key: store.read(key) for key in store.list("")}
        print(f"  {len(expected):,} files")

        with cluster_of(options.workers) as cluster:
            print(f"on {options.workers} workers, one of which is killed while scenes are indexed", flush=True)
            shutil.rmtree(storage)
            on_cluster = {**settings, "dask_scheduler": cluster.address}
            victim = cluster.workers.pop()
            with once_indexing(store, lambda: cluster.kill(victim)):
                error = run_chain(on_cluster, platforms, home)
            print(f"  the run {'succeeded' if error is None else error}; jobs that workers did:")
            for function, jobs in jobs_done(cluster).items():
                print(f"    {function} {jobs:,}")
            right.append(error is None and compare(store, expected))

            print("and the scheduler is killed while scenes are indexed", flush=True)
            shutil.rmtree(storage)
            with once_indexing(store, lambda: cluster.kill(cluster.scheduler)):
                error = run_chain(on_cluster, platforms, home)
            print(f"  {error or 'the run ended before that'}")
        indexed = len(store.list(layout.folder_of("chip_index")))
        print(f"a second run, on a local pool, goes on from {indexed} indexed scenes", flush=True)
        error = run_chain(settings, platforms, home)
        right.append(error is None and compare(store, expected))
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
