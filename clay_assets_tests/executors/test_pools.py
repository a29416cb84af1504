"""Pools spread over processes: when they are used, that they behave like threads, and end with their parent."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from clay_assets.chips.indexing import index_scenes
from clay_assets.errors import SourceError
from clay_assets.executors import PROCESSES_FROM, open_executor, run_bounded
from clay_assets.executors.interpreter import quick_switches, rare_collections
from clay_assets.executors.spread import SpreadExecutor
from clay_assets.executors.turns import in_turn
from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import S2, scl_pixels, sentinel_2
from clay_assets_tests.executors.jobs import leave, lock, odd, place, together, wrong

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120


@pytest.mark.parametrize(
    ("meanwhile", "read"), [(quick_switches, sys.getswitchinterval), (rare_collections, gc.get_threshold)]
)
def test_settings_of_the_interpreter_are_given_back_by_the_last(meanwhile: Any, read: Any) -> None:
    usual = read()
    first, second = ExitStack(), ExitStack()
    for user in (first, second):
        user.enter_context(meanwhile())
        assert read() != usual
    first.close()
    assert read() != usual
    second.close()
    assert read() == usual
    with pytest.raises(KeyError), meanwhile():
        raise KeyError
    assert read() == usual


def items_in(folder: Path) -> list[dict[str, object]]:
    return [
        sentinel_2(folder / str(number), scl_pixels(300, number), f"S2A_32NMF_2020010{number}_0_L2A")
        for number in range(1, 6)
    ]


@pytest.mark.parametrize(("workers", "jobs"), [(1, PROCESSES_FROM), (2, PROCESSES_FROM - 1), (2, 0)])
def test_few_jobs_or_one_worker_start_no_process(workers: int, jobs: int) -> None:
    with open_executor(workers, short_jobs=jobs) as (executor, in_flight):
        assert not isinstance(executor, SpreadExecutor)
        assert in_flight == 2 * workers


def others_of(executor: Executor, jobs: int = 8) -> set[int]:
    """The processes of a pool other than this one."""
    return {process for process, _ in executor.map(place, [0.2] * jobs)} - {os.getpid()}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "processes"), [(2, 2), (5, 3)])
def test_as_many_jobs_at_once_as_workers_spread_over_the_processes(workers: int, processes: int) -> None:
    with SpreadExecutor(workers, processes) as executor:
        places = set(executor.map(place, [0.5] * (4 * workers)))
    assert len(places) == workers
    found = [process for process, _ in places]
    assert sorted(map(found.count, set(found))) == sorted(len(range(n, workers, processes)) for n in range(processes))
    assert found.count(os.getpid()) == -(-workers // processes)


def test_threads_of_a_process_compute_one_at_a_time_and_all_processes_at_once() -> None:
    with SpreadExecutor(6, 2) as executor:
        others_of(executor)
        found = list(executor.map(together, [0.02] * 24))
    assert len({process for process, _ in found}) == 2
    assert {most for _, most in found} == {1}


def test_threads_that_joined_no_turn_do_not_wait_for_each_other() -> None:
    both = threading.Barrier(2)

    def meet(_: int) -> None:
        with in_turn():
            both.wait(SECONDS)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(meet, range(2)))


@pytest.mark.slow
def test_processes_write_what_threads_write(tmp_path: Path) -> None:
    recipe, items = load_recipe("clay_v1"), items_in(tmp_path / "scenes")
    contents = []
    for name, processes in (("threads", 1), ("processes", 3)):
        store = LocalStore(tmp_path / name)
        with SpreadExecutor(3, processes) as executor:
            cell = index_scenes(S2, 2020, items, store, recipe, executor, 6)
            contents.append(({key: store.read(key) for key in store.list("chips")}, cell.ledger.to_dict()))
    assert contents[0] == contents[1]


def test_where_a_process_was_killed_nothing_is_taken_for_a_fault_of_its_scene(tmp_path: Path) -> None:
    recipe, items = load_recipe("clay_v1"), items_in(tmp_path / "scenes")
    with SpreadExecutor(2, 2) as executor:
        (other,) = others_of(executor)
        os.kill(other, signal.SIGKILL)
        with pytest.raises(SourceError, match=r"a worker process ended.*Run again"):
            index_scenes(S2, 2020, items * 4, LocalStore(tmp_path / "store"), recipe, executor, 4)


def test_a_process_that_ends_amid_a_job_breaks_that_job() -> None:
    with SpreadExecutor(2, 2) as executor:
        (other,) = others_of(executor)
        jobs = [executor.submit(place, 5) for _ in range(2)]  # one here, one there
        while not all(job.running() for job in jobs):
            time.sleep(0.01)
        os.kill(other, signal.SIGKILL)
        errors = [job.exception(SECONDS) for job in jobs]
    assert sorted(isinstance(error, BrokenExecutor) for error in errors) == [False, True]


def test_errors_of_another_process_come_with_their_traceback_and_end_nothing() -> None:
    with SpreadExecutor(2, 2) as executor:
        others_of(executor)
        futures = [executor.submit(function, 0.1) for function in (odd, lock) for _ in range(6)]
        errors = [future.exception(SECONDS) for future in futures]
        assert all(errors[:6])
        assert {type(error) for error in errors[6:]} == {type(None), TypeError}
        futures = [executor.submit(leave, 0.1) for _ in range(6)]
        assert {type(future.exception(SECONDS)) for future in futures} == {SystemExit}
        futures = [executor.submit(wrong, number) for number in range(6)]
        errors = [future.exception(SECONDS) for future in futures]
        assert [str(error) for error in errors] == [f"number {number}" for number in range(6)]
        assert any("in wrong" in "".join(getattr(error, "__notes__", [])) for error in errors)
        assert list(executor.map(abs, [-1, -2, -3, -4])) == [1, 2, 3, 4]


def test_what_has_not_begun_is_cancelled_when_the_caller_stops() -> None:
    with SpreadExecutor(2, 2) as executor:
        others_of(executor)
        taken = itertools.count()
        for _ in run_bounded(executor, place, (0.1 for _ in taken), 4):
            break
    assert next(taken) <= 8


HOLD = """
import time
from clay_assets.executors import PROCESSES_FROM, open_executor
if __name__ == "__main__":
    with open_executor(4, short_jobs=PROCESSES_FROM) as (executor, _):
        list(executor.map(time.sleep, [0.1] * 16))
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
    parent.communicate(timeout=SECONDS)  # the output closes when the last process that holds it ends
