"""The chain of a small planet on a local pool and on a Dask cluster of this machine: the same bytes, whatever ends.

    python benchmarks/on_dask.py [--planet FOLDER] [--platform KEY]... [--workers 3]

Starts a scheduler and workers as processes, and runs the chain of the platforms four times: on a local pool; on the
cluster; on the cluster with a worker killed (SIGKILL) while scenes are indexed; and with the scheduler killed then,
after which a second run goes on. Prints what was said, and compares every file below the storage each time.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import RECIPE, make_planet
from clay_assets.orchestration.failures import run_error
from clay_assets.orchestration.resources import ClayResource
from clay_assets.runs.kept_connections import open_instance
from clay_assets.runs.whole_chain import run_steps, steps
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore

PLATFORMS = ("sentinel-2-l2a",)
STARTED = 120  # seconds within which the cluster has to be there
YEARS = ("years = [2021, 2023]", "years = [2020, 2021]")  # of the demo's recipe, for a shorter run


class Cluster:
    """A scheduler and workers of one thread each, as processes of this machine."""

    def __init__(self, folder: Path, workers: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.address, self.folder = f"tcp://127.0.0.1:{port}", folder
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", port)
        arguments = (self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        self.workers = [self._start("worker", *arguments) for _ in range(workers)]

    def wait(self) -> None:
        """Wait until all workers are there."""
        from distributed import Client

        with Client(self.address, timeout=STARTED, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=STARTED)

    def stop(self) -> None:
        """End all processes."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments, "--no-dashboard"]
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
        log = (self.folder / f"{name}.log").open("ab")
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})


@contextmanager
def cluster_of(workers: int) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="clay-dask-") as folder:
        cluster = Cluster(Path(folder), workers)
        try:
            cluster.wait()
            yield cluster
        finally:
            cluster.stop()


def run_chain(settings: dict[str, str], platforms: list[str], home: Path) -> str | None:
    """Run the chain of some platforms; the first error, if it fails."""
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
    """Do something as soon as the first scenes of a run inside the block are indexed."""
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
        home, storage = folder / "home", folder / "clay"  # items of copies hold its name, so all runs have this one
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
            print(f"on {options.workers} workers", flush=True)
            shutil.rmtree(storage)
            error = run_chain({**settings, "dask_scheduler": cluster.address}, platforms, home)
            right.append(error is None and compare(store, expected))

            print("and one of them is killed while scenes are indexed", flush=True)
            shutil.rmtree(storage)
            victim = cluster.workers.pop()
            with once_indexing(store, lambda: os.kill(victim.pid, signal.SIGKILL)):
                error = run_chain({**settings, "dask_scheduler": cluster.address}, platforms, home)
            print(f"  the worker ended with {victim.wait()}; the run {'succeeded' if error is None else error}")
            right.append(error is None and compare(store, expected))

            print("and the scheduler is killed while scenes are indexed", flush=True)
            shutil.rmtree(storage)
            with once_indexing(store, lambda: os.kill(cluster.scheduler.pid, signal.SIGKILL)):
                error = run_chain({**settings, "dask_scheduler": cluster.address}, platforms, home)
            print(f"  {error or 'the run ended before that'}")
            indexed = len(store.list(layout.folder_of("chip_index")))
            print(f"  a second run, on a local pool, goes on from {indexed} indexed scenes", flush=True)
            error = run_chain(settings, platforms, home)
            right.append(error is None and compare(store, expected))
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
