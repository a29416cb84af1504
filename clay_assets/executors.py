"""Where work fans out to: a local pool, or a Dask cluster, both as `concurrent.futures.Executor`.

A local pool is of threads, which start at once and die with their process. They are enough where jobs wait, or where
one call of GDAL, numpy or pyarrow, which release the interpreter lock, takes most of the time. Of many short calls,
as where a scene is indexed block by block, threads take turns; then they are spread over a process for each core, if
there are enough jobs to be worth the start of processes. What a job does belongs to the stages.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, NamedTuple, Protocol, TypeVar

from clay_assets.errors import ClayError, InputError, SourceError, StorageError

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_WORKER = 2  # jobs per worker: one that runs, one that waits
PROCESSES_FROM = 100  # short jobs, which take as long as processes take to start and to import what they need
DASK_TIMEOUT = 20  # seconds to wait for a scheduler that was named
DASK_SILENCE = 60  # seconds without an answer after which a scheduler is lost; one that is killed is noticed at once
DASK_LOOK = 2  # seconds from one look at the scheduler to the next
QUICK = 0.0005  # seconds that a thread computes before another is let in
WORKERS_TIMEOUT = 300  # seconds to wait for a first worker, as where a cluster grows on demand
MARKED_FOR = 3600  # seconds until the storage is marked again, as what is old and temporary is removed from it
SHOWN = 3  # workers that a message lists
# What must be the same on workers: what carries jobs to them, and what the bytes of a file depend on.
SAME_ON_SCHEDULER = ("python", "clay_assets", "distributed", "dask", "cloudpickle")
SAME_ON_WORKERS = (*SAME_ON_SCHEDULER, "numpy", "pandas", "pyarrow", "geopandas", "shapely", "pyproj", "rasterio")


class Mark(Protocol):
    """A mark in the storage, by which a worker tells that it reaches that storage."""

    def put(self) -> None:
        """Mark the storage."""

    def check(self) -> None:
        """Raise a StorageError where the mark cannot be read, or nothing can be written beside it."""

    def remove(self) -> None:
        """Take it away."""


@contextmanager
def open_executor(
    workers: int, dask_scheduler: str | None = None, *, short_jobs: int = 0, mark: Mark | None = None
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
    with _open_cluster(dask_scheduler, mark) as cluster:
        yield cluster, JOBS_PER_WORKER * max(workers, cluster.threads)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SpreadExecutor(ThreadPoolExecutor):
    """Threads that are spread over this process and others: as many jobs at once as there are threads.

    Some threads of this process work here, at once. Each of the others hands its jobs to a thread of another process
    and waits, so that queue, futures and cancelling are those of a pool of threads. A job fails with a `BrokenExecutor`
    if its process has ended.

    Args:
        workers: threads, in all.
        processes: with this one.
    """

    def __init__(self, workers: int, processes: int) -> None:
        super().__init__(workers, "clay", self._take_place)
        self._place, self._places = threading.local(), SimpleQueue[Connection | None]()
        self._pipes, self._others = list[Connection](), []
        context = get_context("spawn")  # never a fork of this process, whose other threads may hold locks
        for _ in range(0, workers, processes):
            self._places.put(None)
        for number in range(1, processes):
            pipes = [context.Pipe() for _ in range(number, workers, processes)]
            other = context.Process(target=_work, args=([theirs for _, theirs in pipes],), name="clay", daemon=True)
            other.start()
            self._others.append(other)
            for ours, theirs in pipes:
                theirs.close()
                self._pipes.append(ours)
                self._places.put(ours)

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **named: Any) -> Future[Result]:
        """As of any executor; function, arguments and result are pickled."""
        return super().submit(self._here_or_there, function, arguments, named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes too, once all jobs are done."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        for pipe in self._pipes if wait else ():
            pipe.close()
        for other in self._others if wait else ():
            other.join()

    def _take_place(self) -> None:
        self._place.pipe = self._places.get()

    def _here_or_there(self, function: Callable[..., Result], arguments: Any, named: Any) -> Result:
        pipe: Connection | None = self._place.pipe
        if pipe is None:
            return function(*arguments, **named)
        try:
            pipe.send((function, arguments, named))
            done, said = pipe.recv()
        except (EOFError, OSError) as error:
            raise BrokenExecutor("a process of the pool has ended") from error
        if done:
            result: Result = said
            return result
        raise said


def _work(pipes: list[Connection]) -> None:
    """What another process of a `SpreadExecutor` does: the jobs of each pipe in a thread, until a pipe is closed."""
    for pipe in pipes[1:]:
        threading.Thread(target=_answer, args=(pipe,), daemon=True).start()
    _answer(pipes[0])


def _answer(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        while True:
            function, arguments, named = pipe.recv()
            try:
                said = True, function(*arguments, **named)
            except BaseException as error:  # else the other end would wait for ever
                error.add_note(format_exc())  # as it is pickled without its traceback
                said = False, error
            try:
                pipe.send(said)
            except OSError:
                raise
            except Exception as error:  # whatever pickling makes of a result
                pipe.send((False, TypeError(f"{type(said[1]).__name__} cannot be pickled ({error})")))
    os._exit(0)  # the other process has closed its end, or has ended, so that nobody waits for what still runs here


class _ClusterError(BrokenExecutor):
    """No job can be done by the cluster any more."""

    def __init__(self, reason: ClayError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Terms(NamedTuple):
    """What every worker is held to before its first job of a run.

    Attributes:
        token: of the run.
        versions: see `_versions_here`.
        code: see `_code_here`.
        mark: pickled; of the storage.
    """

    token: str
    versions: Mapping[str, str]
    code: str
    mark: bytes


@contextmanager
def _open_cluster(address: str, mark: Mark | None) -> Iterator[_ClusterExecutor]:
    try:
        from distributed import Client  # an extra: most users have no cluster
    except ImportError as error:
        raise InputError("CLAY_DASK_SCHEDULER is set: install clay_assets[dask] to use a cluster.") from error
    name = f"CLAY_DASK_SCHEDULER={address!r}"
    try:
        client = Client(address, timeout=DASK_TIMEOUT, set_as_default=False)
    except Exception as error:  # whatever Dask makes of what answers there
        raise InputError(
            f"{name}: no scheduler answers ({error}). Start one (dask scheduler) and workers, or unset it to work here."
        ) from error
    executor = _ClusterExecutor(client, name, mark)
    try:
        try:
            executor.begin()
        except ClayError:
            raise
        except Exception as error:  # the client has many ways to say that nobody answers
            raise executor.gone(error) from error
        yield executor
        executor.shutdown()
    finally:
        executor.end()


class _ClusterExecutor(Executor):
    """Jobs on a Dask cluster, as of any executor, apart from what is the cluster's own fault.

    A job is sent as bytes, and its outcome comes back as a value, so an error that Dask itself tells is never one of
    the job: then every future fails with a `_ClusterError`. So it does when the scheduler is lost, which is asked every
    few seconds, as a connection that was lost at a bad moment, or a host that hangs, does not tell.
    """

    def __init__(self, client: Any, name: str, mark: Mark | None) -> None:
        self._client, self._name, self._mark = client, name, mark
        self._pool = client.get_executor(pure=False)
        self._waiting, self._lost, self._lock = set[Future[Any]](), list[ClayError](), threading.Lock()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="clay-cluster", daemon=True)
        self.threads = 0

    def begin(self) -> None:
        """Wait for a worker, and look at all of them."""
        self._scheduler = self._ask("identity")["id"]
        if not self._ask("ncores"):
            logger.warning("%s has no workers yet; waiting for the first, at most %d s", self._name, WORKERS_TIMEOUT)
            try:
                self._client.submit(abs, -1, pure=False).result(WORKERS_TIMEOUT)  # as a cluster may grow for jobs only
            except Exception as error:
                raise SourceError(f"{self._name}: has no workers. Start some: dask worker ADDRESS.") from error
        if self._mark is not None:
            self._mark.put()
        versions, mark = _versions_here(), pickle.dumps(self._mark)
        token = hashlib.blake2b(repr((os.urandom(16), versions)).encode(), digest_size=16).hexdigest()
        self._terms = _Terms(token, versions, _code_here(), mark)
        self._compare_versions()
        found = self._client.run(_look, self._terms, on_error="return")
        kinds, told = list[type[ClayError]](), list[str]()
        for worker, fault in sorted(found.items()):
            if isinstance(fault, ClayError):
                kinds.append(type(fault))
                told.append(str(fault))
            elif fault is not None and not isinstance(fault, OSError):  # which is of one that just ended
                told.append(f"worker {worker} cannot be used ({fault!r}).")
        if told:
            raise (kinds or [InputError])[0](f"{self._name}: {_some(told)}")
        self.threads = sum(self._ask("ncores").values())
        self._watcher.start()

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **named: Any) -> Future[Result]:
        """As of any executor; function, arguments and result are pickled."""
        import cloudpickle  # as Dask does, so that functions of a script or a notebook may be sent

        job = cloudpickle.dumps((function, arguments, named))
        future: Future[Result] = Future()
        with self._lock:
            if self._lost:
                future.set_exception(_ClusterError(self._lost[0]))
                return future
            self._waiting.add(future)
        try:
            remote = self._pool.submit(_work_on, job, self._terms)
        except Exception as error:  # the client has many ways to say that it is closed
            self._lose(self.gone(error))
            return future
        future.add_done_callback(partial(self._cancel, remote))
        remote.add_done_callback(partial(self._take, future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the jobs; the cluster goes on."""
        for future in list(self._waiting) if cancel_futures else ():
            future.cancel()
        while wait and (waiting := list(self._waiting)):
            wait_for(waiting)

    def end(self) -> None:
        """Let go of the cluster."""
        self._ended.set()
        if self._mark is not None:
            with suppress(OSError):
                self._mark.remove()
        quiet = logging.getLogger("distributed.client")
        level = quiet.level
        if self._lost:  # which is told once, in our words
            quiet.setLevel(logging.CRITICAL)
        try:
            self._client.close(timeout=DASK_TIMEOUT)
        except Exception as error:
            logger.debug("%s: closing: %r", self._name, error)
        finally:
            quiet.setLevel(level)

    def _ask(self, what: str) -> Any:
        return self._client.sync(getattr(self._client.scheduler, what), callback_timeout=DASK_SILENCE)

    def _compare_versions(self) -> None:
        """Before anything of ours runs there, so that code that is missing there is called by its name."""
        found = self._client.get_versions(packages=[name for name in SAME_ON_WORKERS if name != "python"])
        others: list[tuple[str, Any, tuple[str, ...]]] = [("the scheduler", found["scheduler"], SAME_ON_SCHEDULER)]
        others += [(f"worker {name}", other, SAME_ON_WORKERS) for name, other in sorted(found["workers"].items())]
        ours, told = self._terms.versions, []
        for who, other, names in others:
            theirs = {name: _comparable(name, (other or {}).get("packages", {}).get(name)) for name in names}
            if differ := _differing(ours, theirs):
                told.append(f"{who} has {differ}. Install the same versions there as here, and start it again.")
        if told:
            raise InputError(f"{self._name}: {_some(told)}")

    def _take(self, future: Future[Any], remote: Future[Any]) -> None:
        """Take over what became of a job; called in the client's own thread."""
        from distributed.scheduler import KilledWorker

        if remote.cancelled():
            if not future.cancelled():
                broken = self._client.status != "running"
                self._lose(self.gone("the connection broke off" if broken else "its jobs were cancelled"))
            self._settle(future, None, None)
            return
        error = remote.exception()
        if isinstance(error, KilledWorker):
            said = f"{error.allowed_failures + 1} workers of the cluster ended while they worked on it, at last "
            said += f"{error.last_worker.address}. Look into their logs, and give them more memory or fewer threads."
            self._settle(future, None, SourceError(said))
        elif error is not None:
            said = f"a worker cannot run a job ({type(error).__name__}: {error})"
            self._lose(SourceError(f"{self._name}: {said}. Check that all have the versions of this process."))
        else:
            done, outcome = remote.result()
            if done is None:
                self._lose(type(outcome)(f"{self._name}: {outcome}"))
            else:
                self._settle(future, outcome if done else None, None if done else outcome)

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
            self._settle(future, None, _ClusterError(self._lost[0]))

    def gone(self, why: object) -> SourceError:
        """The error of a scheduler that is lost."""
        return SourceError(
            f"{self._name}: the scheduler was lost ({why}). Start it and its workers, or unset "
            "the variable to work here; then run again, which goes on from what is done."
        )

    def _cancel(self, remote: Future[Any], future: Future[Any]) -> None:
        if future.cancelled() and not self._lost:
            with self._lock:
                self._waiting.discard(future)
            remote.cancel()

    def _watch(self) -> None:
        """Look at the scheduler until the end."""
        with_workers = marked = time.monotonic()
        while not self._lost and not self._ended.wait(DASK_LOOK):
            try:
                scheduler, threads = self._ask("identity")["id"], self._ask("ncores")
            except Exception as error:  # the client has many ways to say that nobody answers
                if not self._ended.is_set():
                    self._lose(self.gone(str(error) or type(error).__name__))
                return
            now = time.monotonic()
            with_workers = now if threads else with_workers
            if scheduler != self._scheduler:
                self._lose(self.gone("another one answers at its address"))
            elif now - with_workers > WORKERS_TIMEOUT:
                self._lose(
                    SourceError(
                        f"{self._name}: has had no workers for {WORKERS_TIMEOUT} s. Start some (dask worker ADDRESS) "
                        "and run again, which goes on from what is done."
                    )
                )
            if self._mark is not None and now - marked > MARKED_FOR:
                marked = now
                with suppress(OSError):
                    self._mark.put()


_fit = set[str]()  # runs that this process, a worker, is fit for
_looking = threading.Lock()


async def _look(terms: _Terms, dask_worker: Any) -> ClayError | None:
    # In a thread, as a storage may take long to answer; the worker stays alive meanwhile.
    return await asyncio.to_thread(_fault, terms, dask_worker.address)


def _work_on(job: bytes, terms: _Terms) -> tuple[bool | None, Any]:
    """What a worker does: whether the job was done, and its result or error; None: the worker is not fit for jobs."""
    from distributed import get_worker

    address = get_worker().address
    fault = _fault(terms, address)
    if fault is not None:
        return None, fault
    try:
        function, arguments, named = pickle.loads(job)
        return True, function(*arguments, **named)
    except StorageError as error:
        return False, StorageError(f"{_worker(address)}: {error}")
    except BaseException as error:  # also one that would end the worker
        error.add_note(format_exc())  # as it is pickled without its traceback
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # of a library, with something in it that cannot be sent
            return False, SourceError(f"{type(error).__name__}: {error}")
        return False, error


def _fault(terms: _Terms, address: str) -> ClayError | None:
    """Why this worker cannot do the jobs of a run."""
    this = _worker(address)
    with _looking:
        if terms.token in _fit:
            return None
        if differ := _differing(terms.versions, _versions_here()):
            return InputError(f"{this} has {differ}. Install the same versions there, and start it again.")
        if terms.code != _code_here():
            return InputError(
                f"{this} has other code of clay_assets, of the same version. Install the same there, and start "
                "it again."
            )
        mark: Mark | None = pickle.loads(terms.mark)
        try:
            if mark is not None:
                mark.check()
        except StorageError as error:
            return StorageError(f"{this}: {error}")
        _fit.add(terms.token)
        return None


def _worker(address: str) -> str:
    return f"worker {address} on host {socket.gethostname()}"


@cache
def _versions_here() -> dict[str, str]:
    """Version of each of SAME_ON_WORKERS in this process."""
    return {name: _comparable(name, _installed(name)) for name in SAME_ON_WORKERS}


def _installed(name: str) -> str | None:
    try:
        return ".".join(map(str, sys.version_info)) if name == "python" else version(name)
    except PackageNotFoundError:
        return None


def _comparable(name: str, found: str | None) -> str:
    """Of Python only what pickles depend on, such as 3.12."""
    return ".".join((found or "").split(".")[:2]) if name == "python" else found or "none"


def _differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    differ = [f"{name} {theirs[name]} (here: {ours[name]})" for name in theirs if theirs[name] != ours[name]]
    return ", ".join(differ)


@cache
def _code_here() -> str:
    """Hash of the source of clay_assets, as checkouts of one version may differ."""
    folder, code = Path(__file__).parent, hashlib.blake2b(digest_size=16)
    for path in sorted(path for kind in ("py", "toml") for path in folder.rglob(f"*.{kind}")):
        code.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return code.hexdigest()


def _some(told: list[str]) -> str:
    more = f" And {len(told) - SHOWN} more workers." if len(told) > SHOWN else ""
    return " ".join(told[:SHOWN]) + more


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
                    if isinstance(error := future.exception(), _ClusterError):
                        raise error.reason
                    yield job, future
    finally:
        for future in waiting:
            future.cancel()


class _Interpreter:
    """A setting of the interpreter that is another while somebody uses it; safe between threads."""

    def __init__(self, read: Callable[[], Any], change: Callable[[Any], None], meanwhile: Any) -> None:
        self._read, self._change, self._meanwhile = read, change, meanwhile
        self._lock, self._users, self._usual = threading.Lock(), 0, None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._usual = self._read()
                self._change(self._meanwhile)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._change(self._usual)


# A thread whose answer has come is soon let in beside one that computes. By default it waits up to 5 ms each time it
# has waited for a socket, several times a request: a server behind 200 ms is then asked a tenth less often.
quick_switches = _Interpreter(sys.getswitchinterval, sys.setswitchinterval, QUICK)

# Objects are looked through for cycles less often. Tens of thousands of STAC items are a million objects without a
# cycle, and by default they are looked through again and again, which takes as long as to make them.
rare_collections = _Interpreter(gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds), (100_000, 20, 20))


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
