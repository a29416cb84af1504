"""A Dask cluster as an executor that distinguishes the cluster's own faults from those of a job.

Before its first job, every worker must have the same versions and code as this process, and reach the storage;
`cluster_worker` runs there. After that, workers may leave and join; the scheduler must stay.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from functools import partial
from itertools import starmap
from typing import Any, TypeVar

from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.executors.cluster_worker import (
    SAME_ON_SCHEDULER,
    SAME_ON_WORKERS,
    Requirements,
    RunJob,
    StorageMark,
    check_worker,
    code_hash,
    comparable_version,
    installed_versions,
    version_differences,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_TIMEOUT = 20  # seconds to wait for a scheduler
SILENCE_TIMEOUT = 60  # seconds without an answer until a scheduler counts as lost; a kill is noticed at once
WORKERS_TIMEOUT = 300  # seconds to wait for the first worker, as clusters may grow on demand
WATCH_INTERVAL = 2  # seconds between two queries to the scheduler
MARK_INTERVAL = 3600  # seconds until the storage is marked again, as old temporary files are removed from it
ASKED_FOR = tuple(name for name in SAME_ON_WORKERS if name != "python")  # which Dask always reports
SHOWN = 3  # faults listed in a message
RUN_AGAIN = "run again, which continues from what is done"


class ClusterError(BrokenExecutor):
    """The cluster can no longer run jobs.

    Attributes:
        reason: the error to raise instead.
    """

    def __init__(self, reason: ClayError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def open_cluster(address: str, mark: StorageMark | None) -> Iterator[ClusterExecutor]:
    """Open a cluster whose workers have passed the checks. Arguments and errors as for `open_executor`."""
    client, name = _connected(address)
    executor = ClusterExecutor(client, name, mark)
    try:
        try:
            executor.start()
        except ClayError:
            raise
        except Exception as error:  # the client raises many kinds of errors if nobody answers
            raise executor.scheduler_lost(error) from error
        yield executor
        executor.shutdown()
    finally:
        executor.close()


def check_cluster(address: str, mark: StorageMark) -> tuple[list[ClayError], int]:
    """Check a cluster as before a run, but without waiting for workers.

    Args:
        address: address of the scheduler.
        mark: mark of the storage that workers must reach; put and removed here.

    Returns:
        An error for each shortcoming of the scheduler or of a worker, and the number of workers.

    Raises:
        InputError: Dask is not installed, no scheduler answers, or it has another version.
    """
    client, _ = _connected(address)
    with client:
        workers = len(client.nthreads())
        mark.put()
        try:
            return faults_of(client, mark)[0], workers
        finally:
            mark.remove()


def _connected(address: str) -> tuple[Any, str]:
    """Dask's client of a cluster whose scheduler has our versions, and the cluster's name in messages."""
    try:
        from distributed import Client  # an optional dependency: most users have no cluster
    except ImportError as error:
        raise InputError("CLAY_DASK_SCHEDULER is set: install clay_assets[dask] to use a cluster.") from error
    name = f"CLAY_DASK_SCHEDULER={address!r}"
    try:
        fault = _fault_of_versions("the scheduler", _versions_of_scheduler(address), SAME_ON_SCHEDULER)
        client = None if fault else Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except Exception as error:  # whatever Dask raises, depending on what answers there
        cause = str(error) or type(error).__name__
        raise InputError(
            f"{name}: no scheduler answers ({cause}). Start one (dask scheduler) and workers, or unset it to work here."
        ) from error
    if fault:
        raise InputError(f"{name}: {fault}")
    return client, name


def faults_of(client: Any, mark: StorageMark | None) -> tuple[list[ClayError], Requirements]:
    """Check whether a cluster's scheduler and present workers can run the jobs of this process.

    Args:
        client: Dask's client of the cluster.
        mark: mark of the storage, already written.

    Returns:
        An error for each that cannot, and the requirements for workers that join later.
    """
    required = Requirements(uuid.uuid4().hex, installed_versions(), code_hash(), pickle.dumps(mark))
    # Versions come first, queried by Dask itself, as our code may be missing there or incompatible.
    found: list[ClayError] = [InputError(fault) for fault in _faults_of_versions(client)]
    if found:
        return found, required
    for worker, fault in sorted(client.run(check_worker, required, on_error="return").items()):
        if isinstance(fault, ClayError):
            found.append(fault)
        elif fault is not None and not isinstance(fault, OSError):  # an OSError means that the worker has just ended
            found.append(InputError(f"worker {worker}: cannot be used ({fault!r}). Look into its log."))
    return found, required


def _faults_of_versions(client: Any) -> Iterator[str]:
    known = client.get_versions(packages=list(ASKED_FOR))
    others: list[tuple[str, Any, Sequence[str]]] = [("the scheduler", known["scheduler"], SAME_ON_SCHEDULER)]
    others += [(f"worker {address}", other, SAME_ON_WORKERS) for address, other in sorted(known["workers"].items())]
    yield from filter(None, starmap(_fault_of_versions, others))


def _fault_of_versions(who: str, known: Any, names: Sequence[str]) -> str | None:
    """How another process's versions differ from ours, as Dask reports them; None: not at all, or unknown."""
    if not known:
        return None
    there = {name: comparable_version(name, known.get("packages", {}).get(name)) for name in names}
    differences = version_differences(installed_versions(), there)
    return f"{who}: {differences}. Install the same versions there as here, and restart it." if differences else None


def _versions_of_scheduler(address: str) -> Any:
    """The versions that a scheduler reports.

    The client is only created afterwards: one of another version may be incompatible, and one that cannot connect
    blocks its process when deleted.
    """
    import asyncio

    from distributed.core import rpc
    from distributed.security import Security

    tls = Security().get_connection_args("client")

    async def ask() -> Any:
        async with rpc(address, timeout=CONNECT_TIMEOUT, connection_args=tls) as scheduler:
            return await asyncio.wait_for(scheduler.versions(packages=list(ASKED_FOR)), SILENCE_TIMEOUT)

    with ThreadPoolExecutor(1) as thread:  # as this thread may already run an event loop, as in a notebook
        return thread.submit(lambda: asyncio.run(ask())).result()


class ClusterExecutor(Executor):
    """Runs jobs on a Dask cluster like any executor, except for the cluster's own faults.

    A job is sent as bytes and its outcome returned as a value, so an error raised by Dask itself is never the job's:
    every future then fails with a `ClusterError`. The same happens if the scheduler is lost. It is polled every few
    seconds, as a broken connection or a hanging host may go unnoticed otherwise.

    Args:
        client: Dask's client of the cluster.
        name: name of the cluster in messages.
        mark: mark of the storage that workers must reach.

    Attributes:
        threads: total threads of all workers at the start.
    """

    def __init__(self, client: Any, name: str, mark: StorageMark | None) -> None:
        self._client, self._name, self._mark = client, name, mark
        self._pool = client.get_executor(pure=False)
        self._waiting, self._lost, self._lock = set[Future[Any]](), list[ClayError](), threading.Lock()
        self._closed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="clay-cluster", daemon=True)
        self.threads = 0

    def start(self) -> None:
        """Wait for a worker, and check all present ones.

        Raises:
            ClayError: names what is unfit, and what to do.
        """
        self._scheduler = self._ask("identity")["id"]
        if not self._ask("ncores"):
            logger.warning("%s has no workers yet; waiting for the first, at most %d s", self._name, WORKERS_TIMEOUT)
            try:
                self._client.submit(abs, -1, pure=False).result(WORKERS_TIMEOUT)  # some clusters only grow for jobs
            except Exception as error:
                raise SourceError(f"{self._name}: no workers. Start some: dask worker ADDRESS.") from error
        if self._mark is not None:
            self._mark.put()
        faults, self._required = faults_of(self._client, self._mark)
        if faults:
            more = f" And {len(faults) - SHOWN} more." if len(faults) > SHOWN else ""
            raise type(faults[0])(f"{self._name}: {' '.join(map(str, faults[:SHOWN]))}{more}")
        self.threads = sum(self._ask("ncores").values())
        self._watcher.start()

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **named: Any) -> Future[Result]:
        """As for any executor; function, arguments and result are pickled."""
        import cloudpickle  # as in Dask, so that functions of a script or notebook can be sent

        job = cloudpickle.dumps((function, arguments, named))
        future: Future[Result] = Future()
        with self._lock:
            if self._lost:
                future.set_exception(ClusterError(self._lost[0]))
                return future
            self._waiting.add(future)
        try:
            remote = self._pool.submit(RunJob(getattr(function, "__name__", "job"), self._required), job)
        except Exception as error:  # a closed client raises many kinds of errors
            self._lose(self.scheduler_lost(error))
            return future
        future.add_done_callback(partial(self._cancel, remote))
        remote.add_done_callback(partial(self._receive, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the jobs; the cluster keeps running."""
        for future in list(self._waiting) if cancel_futures else ():
            future.cancel()
        while wait and (waiting := list(self._waiting)):
            wait_for(waiting)

    def close(self) -> None:
        """Disconnect from the cluster."""
        self._closed.set()
        if self._mark is not None:
            with suppress(OSError):
                self._mark.remove()
        quiet = logging.getLogger("distributed.client")
        level = quiet.level
        if self._lost:  # our own error reports it once
            quiet.setLevel(logging.CRITICAL)
        try:
            self._client.close(timeout=CONNECT_TIMEOUT)
        except Exception as error:
            logger.debug("%s: closing: %r", self._name, error)
        finally:
            quiet.setLevel(level)

    def scheduler_lost(self, cause: object) -> SourceError:
        """The error for a lost scheduler."""
        return SourceError(
            f"{self._name}: the scheduler was lost ({cause}). Start it and its workers, or unset "
            f"the variable to work here; then {RUN_AGAIN}."
        )

    def _ask(self, what: str) -> Any:
        return self._client.sync(getattr(self._client.scheduler, what), callback_timeout=SILENCE_TIMEOUT)

    def _receive(self, future: Future[Any], remote: Future[Any]) -> None:
        """Receive the outcome of a job; called in the client's own thread."""
        from distributed.scheduler import KilledWorker

        if remote.cancelled():
            if not future.cancelled():
                broken = self._client.status != "running"
                self._lose(self.scheduler_lost("the connection broke off" if broken else "its jobs were cancelled"))
            return
        error = remote.exception()
        if isinstance(error, KilledWorker):
            fact = f"{error.allowed_failures + 1} workers of the cluster ended while they worked on it, at last "
            fact += f"{error.last_worker.address}. Look into their logs, and give them more memory or fewer threads."
            self._settle(future, None, SourceError(fact))
        elif error is not None:
            fact = f"a worker cannot run a job ({type(error).__name__}: {error})"
            self._lose(SourceError(f"{self._name}: {fact}. Check that all have the versions of this process."))
        else:
            succeeded, outcome = remote.result()
            if succeeded is None:
                self._lose(type(outcome)(f"{self._name}: {outcome}"))
            else:
                self._settle(future, outcome if succeeded else None, None if succeeded else outcome)

    def _settle(self, future: Future[Any], result: Any, error: BaseException | None) -> None:
        with self._lock:
            if future not in self._waiting:
                return
            self._waiting.remove(future)
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _lose(self, reason: ClayError) -> None:
        with self._lock:
            self._lost.append(reason)
            waiting = list(self._waiting)
        for future in waiting:
            self._settle(future, None, ClusterError(self._lost[0]))

    def _cancel(self, remote: Future[Any], future: Future[Any]) -> None:
        if future.cancelled() and not self._lost:
            with self._lock:
                self._waiting.discard(future)
            remote.cancel()

    def _watch(self) -> None:
        """Poll the scheduler until shutdown."""
        last_worker = last_mark = time.monotonic()
        while not self._lost and not self._closed.wait(WATCH_INTERVAL):
            try:
                scheduler, threads = self._ask("identity")["id"], self._ask("ncores")
            except Exception as error:  # the client raises many kinds of errors if nobody answers
                if not self._closed.is_set():
                    self._lose(self.scheduler_lost(str(error) or type(error).__name__))
                return
            now = time.monotonic()
            last_worker = now if threads else last_worker
            if scheduler != self._scheduler:
                self._lose(self.scheduler_lost("another one answers at its address"))
            elif now - last_worker > WORKERS_TIMEOUT:
                fact = f"no workers for {WORKERS_TIMEOUT} s"
                self._lose(SourceError(f"{self._name}: {fact}. Start some (dask worker ADDRESS) and {RUN_AGAIN}."))
            if self._mark is not None and now - last_mark > MARK_INTERVAL:
                last_mark = now
                with suppress(OSError):
                    self._mark.put()
