"""Where work fans out to: a local pool, or a Dask cluster, both as `concurrent.futures.Executor`.

A local pool is of threads, which start at once and die with their process. They are enough where jobs wait, or where
one call of GDAL, numpy or pyarrow, which release the interpreter lock, takes most of the time. Of many short calls,
as where a scene is indexed block by block, threads take turns; then they are spread over a process for each core, if
there are enough jobs to be worth the start of processes. What a job does belongs to the stages.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from clay_assets.errors import ClayError
from clay_assets.executors.cluster import ClusterError, open_cluster
from clay_assets.executors.cluster_worker import StorageMark
from clay_assets.executors.spread import SpreadExecutor

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_WORKER = 2  # jobs per worker: one that runs, one that waits
PROCESSES_FROM = 100  # short jobs, which take as long as processes take to start and to import what they need


@contextmanager
def open_executor(
    workers: int, dask_scheduler: str | None = None, *, short_jobs: int = 0, mark: StorageMark | None = None
) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many jobs to have in flight so that its workers never wait.

    Args:
        workers: jobs at once, of the local pool.
        dask_scheduler: address such as `tcp://host:8786`; then the threads of the cluster's workers count.
        short_jobs: how many jobs there are whose time goes to many short calls; from `PROCESSES_FROM` on, a local pool
            has a process for each core. Then a script that opens it has to begin under `if __name__ == "__main__":`.
        mark: of the storage that the jobs work on, which every worker of a cluster has to reach.

    Raises:
        InputError: no scheduler answers at that address, a version there differs from ours, or `distributed` is not
            installed.
        StorageError: a worker of the cluster does not reach the storage.
        SourceError: the cluster has no workers.
    """
    processes = min(workers, cores()) if short_jobs >= PROCESSES_FROM else 1
    if not dask_scheduler and processes > 1:
        with SpreadExecutor(workers, processes) as spread:
            yield spread, JOBS_PER_WORKER * workers
        return
    if not dask_scheduler:
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="clay") as pool:
            yield pool, JOBS_PER_WORKER * workers
        return
    with open_cluster(dask_scheduler, mark) as cluster:
        yield cluster, JOBS_PER_WORKER * max(workers, cluster.threads)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_bounded(
    executor: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], in_flight: int
) -> Iterator[tuple[Job, Future[Result]]]:
    """Run a function over jobs, with at most `in_flight` of them submitted, and yield each as it ends.

    Memory is bounded by `in_flight`, not by the number of jobs. When the caller stops early (an error), what
    has not started is cancelled.

    Raises:
        ClayError: the cluster is lost, or not fit for this work; no fault of the job that met it.
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
                done, _ = wait_for(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    job = waiting.pop(future)
                    if isinstance(error := future.exception(), ClusterError):
                        raise error.reason
                    yield job, future
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


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function, or of that which a `partial` calls."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


class _PicklableErrors:
    """A function whose `ClayError`s carry no cause.

    An error that crosses a process is pickled, where Dask is imported with all its causes, and GDAL's exceptions
    do not survive that: the pool would break instead of naming the bad file.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.__name__ = function_name(function)

    def __call__(self, job: Any) -> Any:
        try:
            return self.function(job)
        except ClayError as error:
            said = type(error)(str(error))
        raise said
