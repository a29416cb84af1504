"""Where work fans out to: a local pool, or a Dask cluster, both as `concurrent.futures.Executor`.

A local pool is of threads, which start at once and die with their process. They are enough where jobs wait, or where
one call of GDAL, numpy or pyarrow, which release the interpreter lock, takes most of the time. Of many short calls,
as where a scene is indexed block by block, threads take turns; then they are spread over a process for each core, if
there are enough jobs to be worth the start of processes. What a job does belongs to the stages.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, TypeVar

from clay_assets.errors import ClayError, InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

JOBS_PER_WORKER = 2  # jobs per worker: one that runs, one that waits
PROCESSES_FROM = 100  # short jobs, which take as long as processes take to start and to import what they need
DASK_TIMEOUT = 20  # seconds to wait for a scheduler that was named
QUICK = 0.0005  # seconds that a thread computes before another is let in


@contextmanager
def open_executor(
    workers: int, dask_scheduler: str | None = None, *, short_jobs: int = 0
) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many jobs to have in flight so that its workers never wait.

    Args:
        workers: jobs at once, of the local pool.
        dask_scheduler: address such as `tcp://host:8786`; then the threads of the cluster's workers count.
        short_jobs: how many jobs there are whose time goes to many short calls; from `PROCESSES_FROM` on, a local pool
            has a process for each core. Then a script that opens it has to begin under `if __name__ == "__main__":`.

    Raises:
        InputError: no scheduler answers at that address, or `distributed` is not installed.
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
