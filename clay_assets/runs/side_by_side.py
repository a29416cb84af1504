"""The whole chain in several processes of one machine: what the demo does.

A run is a process's own from its start to its end, in Dagster's in-process executor; each process loads the definitions
once and keeps its connections to Dagster's storage. In production, use the daemon's backfills instead.
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
NOT_RUN = "not run, as what it builds on failed"
DIED = "the process that ran it ended, as for lack of memory"
# Objects made before Python looks for garbage, 700 by default: it would be a tenth of the time.
GARBAGE_FROM = 50_000


def run_side_by_side(
    phases: Iterable[list[Step]], load: Callable[[], dg.Definitions], home: Path, processes: int
) -> Iterator[tuple[Step, str | None]]:
    """Run the steps of each phase, several at a time, and yield each as it ends, with its error if it failed.

    A step that fails does not stop the others; what would build on it is not run. Where the caller stops early, such as
    at Ctrl-C, the runs that have begun are waited for, and no more are begun.

    Args:
        phases: see `whole_chain.phases`.
        load: gives each process its definitions; a function of a module, as it is sent there by its name.
        home: Dagster's, with a `dagster.yaml` that leaves the storage to its defaults.
        processes: that run at once.
    """
    with open_instance(home):
        pass  # its databases are made here: Dagster does not let two processes do so at once
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
            elif len(running) < processes:  # no more, as what a pool has queued cannot be taken back
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
    """Processes that are started here never see Ctrl-C. It reaches all that a terminal runs; the first one decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the processes ----------------------------------------------------------------------------


@dataclass
class _Opened:
    """What a process keeps from one run to the next."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    jobs: set[str] = field(default_factory=set)  # that have been run


_opened: list[_Opened] = []


def _open(load: Callable[[], dg.Definitions], home: Path) -> None:
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    gc.set_threshold(GARBAGE_FROM)
    atexit.register(gc.unfreeze)  # or extension modules complain that their objects leak
    _opened[:] = [_Opened(load(), open_instance(home))]


def _run(step: Step) -> str | None:
    """Run one step; returns its error if it failed."""
    (opened,) = _opened
    ((_, result),) = run_steps([step], opened.definitions.resolve_job_def, opened.instance, log_level="CRITICAL")
    if step.job not in opened.jobs:  # the modules that it has loaded stay to the end, and need not be looked at again
        opened.jobs.add(step.job)
        gc.collect()
        gc.freeze()
    assert result is not None
    return None if result.success else run_error(result)
