"""Pools of processes: when they are opened, that they do what threads do, and that they end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from clay_assets.chips.indexing import index_scenes
from clay_assets.errors import SourceError
from clay_assets.executors import PROCESSES_FROM, open_executor
from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import S2, scl_pixels, sentinel_2

REPOSITORY = Path(__file__).parents[1]
SECONDS = 120


def items_in(folder: Path) -> list[dict[str, object]]:
    return [
        sentinel_2(folder / str(number), scl_pixels(300, number), f"S2A_32NMF_2020010{number}_0_L2A")
        for number in range(1, 6)
    ]


@pytest.mark.parametrize(("workers", "jobs"), [(1, PROCESSES_FROM), (2, PROCESSES_FROM - 1), (2, 0)])
def test_few_jobs_or_one_worker_start_no_process(workers: int, jobs: int) -> None:
    with open_executor(workers, short_jobs=jobs) as (executor, in_flight):
        assert isinstance(executor, ThreadPoolExecutor)
        assert in_flight == 2 * workers


@pytest.mark.slow
def test_processes_write_what_threads_write(tmp_path: Path) -> None:
    recipe, items = load_recipe("clay_v1"), items_in(tmp_path / "scenes")
    contents = []
    for name, jobs in (("threads", 0), ("processes", PROCESSES_FROM)):
        store = LocalStore(tmp_path / name)
        with open_executor(2, short_jobs=jobs) as (executor, in_flight):
            assert isinstance(executor, ProcessPoolExecutor) is (jobs > 0)
            cell = index_scenes(S2, 2020, items, store, recipe, executor, in_flight)
            contents.append(({key: store.read(key) for key in store.list("chips")}, cell.ledger.to_dict()))
            if jobs:  # and where a worker was killed, nothing is taken for a fault of its scene
                executor.submit(os._exit, 1).exception(SECONDS)
                with pytest.raises(SourceError, match=r"a worker process ended.*Run again"):
                    index_scenes(S2, 2020, items, store, recipe, executor, in_flight)
    assert contents[0] == contents[1]


HOLD = """
import time
from clay_assets.executors import PROCESSES_FROM, open_executor
if __name__ == "__main__":
    with open_executor(2, short_jobs=PROCESSES_FROM) as (executor, _):
        executor.submit(abs, -1).result()
        print("ready", flush=True)
        time.sleep(600)
"""


def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "hold.py"
    script.write_text(HOLD)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.communicate(timeout=SECONDS)  # its output ends when the last process that has it ends
