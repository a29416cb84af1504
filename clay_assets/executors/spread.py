"""A pool of threads that are spread over processes, for jobs of many short calls, where threads would take turns."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, TypeVar

Result = TypeVar("Result")


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
