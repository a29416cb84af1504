"""The whole chain in several processes on one machine, for the demo.

Each run executes in a single process with Dagster's in-process executor; a process loads the definitions once and keeps
its connections to Dagster's storage. In production, use the daemon's backfills instead.
"""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from clay_assets.orchestration.failures import run_error
from clay_assets.runs.kept_connections import open_instance
from clay_assets.runs.whole_chain import Step, run_steps

QUIET = ("dagster", "dagster.builtin")  # loggers
NOT_RUN = "not run, because a step it depends on failed"
DIED = "its process died, possibly out of memory"
# Allocations before Python collects garbage; with the default of 700 that took a tenth of the time.
GARBAGE_FROM = 50_000


def run_side_by_side(
    phases: Iterable[list[Step]], load: Callable[[], dg.Definitions], home: Path, processes: int
) -> Iterator[tuple[Step, str | None]]:
    """Run the steps of each phase, several at a time, and yield each when it ends, with its error if it failed.

    A failed step does not stop the others, but steps that depend on it are not run. If the caller stops early, such as
    on Ctrl-C, running steps are completed and no others are started.

    Args:
        phases: see `whole_chain.phases`.
        load: loads the definitions in each process; a module-level function, as it is pickled by name.
        home: Dagster's home folder, whose `dagster.yaml` leaves the storage at its defaults.
        processes: number of processes.
    """
    with open_instance(home):
        pass  # creates the databases here, as two processes cannot do so at the same time
    failed: set[str] = set()
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _open, (load, home))
    try:
        for phase in phases:
            for step, error in _run_phase(pool, phase, failed, processes):
                if error is not None:
                    failed.add(str(step))
                yield step, error
    finally:
        pool.shutdown(cancel_futures=True)


def _run_phase(
    pool: ProcessPoolExecutor, phase: list[Step], failed: set[str], processes: int
) -> Iterator[tuple[Step, str | None]]:
    waiting, running = list(phase), dict[Future[str | None], Step]()
    while waiting or running:
        unfinished = {str(step) for step in (*waiting, *running.values())}
        for step in [step for step in waiting if step.needs not in unfinished]:
            if step.needs in failed:
                waiting.remove(step)
                yield step, NOT_RUN
            elif len(running) < processes:  # no more, as queued jobs cannot be withdrawn from a pool
                waiting.remove(step)
                try:
                    with _without_ctrl_c():
                        running[pool.submit(_run, step)] = step
                except BrokenProcessPool:
                    yield step, DIED
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            step = running.pop(future)
            try:
                yield step, future.result()
            except BrokenProcessPool:
                yield step, DIED


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Worker processes ignore Ctrl-C: the terminal sends it to all of them, and the parent handles it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker processes ----------------------------------------------------------------------------


@dataclass
class _Opened:
    """State that a process keeps from one run to the next."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    jobs: set[str] = field(default_factory=set)  # jobs that have been run


_opened: list[_Opened] = []


def _open(load: Callable[[], dg.Definitions], home: Path) -> None:
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    gc.set_threshold(GARBAGE_FROM)
    atexit.register(gc.unfreeze)  # otherwise extension modules report leaked objects
    _opened[:] = [_Opened(load(), open_instance(home))]


def _run(step: Step) -> str | None:
    """Run one step and return its error if it failed."""
    (opened,) = _opened
    ((_, result),) = run_steps([step], opened.definitions.resolve_job_def, opened.instance, log_level="CRITICAL")
    if step.job not in opened.jobs:  # loaded modules stay until the end, so the garbage collector can skip them
        opened.jobs.add(step.job)
        gc.collect()
        gc.freeze()
    assert result is not None
    return None if result.success else run_error(result)
