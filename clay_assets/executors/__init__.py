"""Executors for parallel work: a local pool or a Dask cluster, both as `concurrent.futures.Executor`.

A local pool uses threads, which start at once and end with their process. They suffice for jobs that wait, or spend
most of their time in long calls of GDAL, numpy or pyarrow, which release the GIL. Jobs of many short calls, such as
indexing a scene block by block, contend for the GIL; their threads are spread over one process per core, if there are
enough jobs to justify starting processes. The stages define the jobs.
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

JOBS_PER_WORKER = 2  # jobs per worker: one running, one waiting
THREADS_PER_WORKER = 2  # of a pool whose threads take turns to compute: others wait for hosts meanwhile
PROCESSES_FROM = 100  # short jobs; they take about as long as starting the processes with their imports


@contextmanager
def open_executor(
    workers: int, dask_scheduler: str | None = None, *, short_jobs: int = 0, mark: StorageMark | None = None
) -> Iterator[tuple[Executor, int]]:
    """Open an executor; also returns how many jobs to keep in flight so that its workers never wait.

    Args:
        workers: concurrent jobs of the local pool.
        dask_scheduler: address such as `tcp://host:8786`; the cluster's threads then replace `workers`.
        short_jobs: number of jobs that consist of many short calls; from `PROCESSES_FROM` on, a local pool has one
            process per core, where `workers` jobs compute and as many wait for hosts, and a script that opens it needs
            an `if __name__ == "__main__":` guard.
        mark: mark of the storage that the jobs use, which every worker of a cluster must be able to reach.

    Raises:
        InputError: no scheduler answers at that address, its versions differ from ours, or `distributed` is not
            installed.
        StorageError: a worker of the cluster cannot reach the storage.
        SourceError: the cluster has no workers.
    """
    processes = min(workers, cores()) if short_jobs >= PROCESSES_FROM else 1
    if not dask_scheduler and processes > 1:
        threads = THREADS_PER_WORKER * workers
        with SpreadExecutor(threads, processes) as spread:
            yield spread, JOBS_PER_WORKER * threads
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
    """Run a function over jobs, with at most `in_flight` of them submitted, and yield each on completion.

    Memory is bounded by `in_flight`, not by the number of jobs. If the caller stops early, as on an error, jobs that
    have not started are cancelled.

    Raises:
        ClayError: the cluster is lost or unfit for this work; not the fault of the job concerned.
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
    """The text of a failed job, for a ledger. Errors other than ClayErrors are logged with traceback.

    Args:
        error: what the job raised.
        what: the job's subject, such as a scene's id.
        logger: the caller's.
    """
    if not isinstance(error, ClayError):
        logger.error("%s: unexpected %s", what, type(error).__name__, exc_info=error)
    return str(error) or type(error).__name__


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function, or of the one that a `partial` calls."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


class _PicklableErrors:
    """Wraps a function so that its `ClayError`s have no cause.

    Errors are pickled between processes, if Dask is imported with all their causes, and GDAL's exceptions do not
    survive that: the pool would break instead of naming the bad file.
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
