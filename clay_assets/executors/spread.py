"""A thread pool spread over processes, for jobs of many short calls, whose threads would contend for the GIL."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from traceback import format_exc
from typing import Any, TypeVar

from clay_assets.executors.interpreter import QUICK, quick_switches
from clay_assets.executors.turns import Turn

Result = TypeVar("Result")


class SpreadExecutor(ThreadPoolExecutor):
    """A pool of threads in this process and others; each thread runs one job at a time.

    Some threads of this process run jobs themselves. Each of the others passes its jobs to a thread of another process
    and waits, so that queue, futures and cancellation work as in a thread pool. A job fails with a `BrokenExecutor` if
    its process has ended. The threads of a process take turns to compute (see `turns`).

    Args:
        workers: total number of threads.
        processes: number of processes, including this one.
    """

    def __init__(self, workers: int, processes: int) -> None:
        super().__init__(workers, "clay", self._take_place)
        self._place, self._places = threading.local(), SimpleQueue[Connection | None]()
        self._turn, self._meanwhile = Turn(), ExitStack()
        # Otherwise a process waits for its next job until the threads of this one let each other run.
        self._meanwhile.enter_context(quick_switches())
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
        """As for any executor; function, arguments and result are pickled."""
        return super().submit(self._here_or_there, function, arguments, named)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Also end the processes, once all jobs are done."""
        super().shutdown(wait, cancel_futures=cancel_futures)
        self._meanwhile.close()
        for pipe in self._pipes if wait else ():
            pipe.close()
        for other in self._others if wait else ():
            other.join()

    def _take_place(self) -> None:
        self._place.pipe = self._places.get()
        self._turn.join()

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
    """The work of a `SpreadExecutor`'s other processes: run each pipe's jobs in a thread, until a pipe closes."""
    sys.setswitchinterval(QUICK)
    turn = Turn()
    for pipe in pipes[1:]:
        threading.Thread(target=_answer, args=(pipe, turn), daemon=True).start()
    _answer(pipes[0], turn)


def _answer(pipe: Connection, turn: Turn) -> None:
    turn.join()
    with suppress(EOFError, OSError):
        while True:
            function, arguments, named = pipe.recv()
            try:
                said = True, function(*arguments, **named)
            except BaseException as error:  # otherwise the other end would wait forever
                error.add_note(format_exc())  # as pickling drops the traceback
                said = False, error
            try:
                pipe.send(said)
            except OSError:
                raise
            except Exception as error:  # whatever pickling a result raises
                pipe.send((False, TypeError(f"{type(said[1]).__name__} cannot be pickled ({error})")))
    os._exit(0)  # the other process has closed its end or ended, so nobody waits for jobs still running here
