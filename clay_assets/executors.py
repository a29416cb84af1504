"""Where work fans out to: a local pool, or a Dask cluster, both as `concurrent.futures.Executor`.

A local pool is of threads, which start at once and die with their process. They are enough where jobs wait, or where
one call of GDAL, numpy or pyarrow, which release the interpreter lock, takes most of the time. Of many short calls,
as where a scene is indexed block by block, threads take turns; then a pool is of processes, if there are enough jobs
to be worth their start. What a job does belongs to the stages.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from clay_assets.errors import ClayError, InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_WORKER = 2  # jobs per worker: one that runs, one that waits
PROCESSES_FROM = 100  # short jobs, which take as long as processes take to start and to import what they need
DASK_TIMEOUT = 20  # seconds to wait for a scheduler that was named


@contextmanager
def open_executor(
    workers: int, dask_scheduler: str | None = None, *, short_jobs: int = 0
) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many jobs to have in flight so that its workers never wait.

    Args:
        workers: jobs at once, of the local pool.
        dask_scheduler: address such as `tcp://host:8786`; then the threads of the cluster's workers count.
        short_jobs: how many jobs there are whose time goes to many short calls; from `PROCESSES_FROM` on, the workers
            of a local pool are processes. Then a script that opens it has to begin under `if __name__ == "__main__":`.

    Raises:
        InputError: no scheduler answers at that address, or `distributed` is not installed.
    """
    if not dask_scheduler and workers > 1 and short_jobs >= PROCESSES_FROM:
        # Never by a fork of this process, whose other threads may hold locks.
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent) as processes:
            yield processes, JOBS_PER_WORKER * workers
        return
    if not dask_scheduler:
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="clay") as pool:
            yield pool, JOBS_PER_WORKER * workers
        return
    try:
        from distributed import Client  # an extra: most users have no cluster
    except ImportError as error:
        raise InputError("CLAY_DASK_SCHEDULER is set: install clay_assets[dask] to use a cluster.") from error
    try:
        client = Client(dask_scheduler, timeout=DASK_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"CLAY_DASK_SCHEDULER={dask_scheduler!r}: no scheduler answers ({error}).") from error
    with client, client.get_executor(pure=False) as executor:
        yield executor, JOBS_PER_WORKER * max(workers, sum(client.nthreads().values()))


def _end_with_parent() -> None:
    """End this worker as soon as the process that started it has ended, however it did: its queue would not tell."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="clay-parent", daemon=True).start()


def run_bounded(
    executor: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], in_flight: int
) -> Iterator[tuple[Job, Future[Result]]]:
    """Run a function over jobs, with at most `in_flight` of them submitted, and yield each as it ends.

    Memory is bounded by `in_flight`, not by the number of jobs. When the caller stops early (an error), what
    has not started is cancelled.
    """
    guarded = _PicklableErrors(function)
    waiting: dict[Future[Any], Job] = {}
    source = iter(jobs)
    exhausted = False
    try:
        while waiting or not exhausted:
            while not exhausted and len(waiting) < in_flight:
                try:
                    job = next(source)
                except StopIteration:
                    exhausted = True
                else:
                    waiting[executor.submit(guarded, job)] = job
            if waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future
    finally:
        for future in waiting:
            future.cancel()


def failure_text(error: BaseException, what: str, logger: logging.Logger) -> str:
    """The text of a failed job, for a ledger. An error that is not ours is logged with its traceback.

    Args:
        error: what the job raised.
        what: the job's subject, such as a scene's id.
        logger: the caller's.
    """
    if not isinstance(error, ClayError):
        logger.error("%s: unexpected %s", what, type(error).__name__, exc_info=error)
    return str(error) or type(error).__name__


class _PicklableErrors:
    """A function whose `ClayError`s carry no cause.

    An error that crosses a process is pickled, where Dask is imported with all its causes, and GDAL's exceptions
    do not survive that: the pool would break instead of naming the bad file.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, job: Any) -> Any:
        try:
            return self.function(job)
        except ClayError as error:
            said = type(error)(str(error))
        raise said
