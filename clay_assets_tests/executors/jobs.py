"""Jobs for tests of pools, in a module that other processes import quickly."""

from __future__ import annotations

import os
import threading
import time

from clay_assets.executors.turns import in_turn


class OddError(Exception):
    """An error that can be pickled, but not unpickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def place(seconds: float) -> tuple[int, int]:
    """The process and the thread of a job that takes long enough for others to start elsewhere."""
    time.sleep(seconds)
    return os.getpid(), threading.get_ident()


def odd(seconds: float) -> None:
    """Fail with an error that cannot be sent to another process."""
    time.sleep(seconds)
    raise OddError(1, 2)


def lock(seconds: float) -> object:
    """A result that cannot be sent to another process."""
    time.sleep(seconds)
    return threading.Lock()


def wrong(number: int) -> int:
    """Fail with an ordinary error."""
    time.sleep(0.1)
    raise ValueError(f"number {number}")


def leave(seconds: float) -> None:
    """End the thread, as `sys.exit` does."""
    time.sleep(seconds)
    raise SystemExit(3)


_computing, _counting = 0, threading.Lock()


def together(seconds: float) -> tuple[int, int]:
    """The process of a job, and how many of its threads computed at once when this one began."""
    global _computing  # noqa: PLW0603
    with in_turn():
        with _counting:
            _computing += 1
            most = _computing
        time.sleep(seconds)
        with _counting:
            _computing -= 1
    return os.getpid(), most
