"""Jobs of tests of pools, in a module that another process imports quickly."""

from __future__ import annotations

import os
import threading
import time


class OddError(Exception):
    """An error that can be pickled, and not read again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def place(seconds: float) -> tuple[int, int]:
    """The process and the thread of a job, which takes long enough for others to begin elsewhere."""
    time.sleep(seconds)
    return os.getpid(), threading.get_ident()


def odd(seconds: float) -> None:
    """Fail with an error that this process can raise, and another cannot hand on."""
    time.sleep(seconds)
    raise OddError(1, 2)


def lock(seconds: float) -> object:
    """A result that this process can return, and another cannot hand on."""
    time.sleep(seconds)
    return threading.Lock()


def wrong(number: int) -> int:
    """Fail in an ordinary way."""
    time.sleep(0.1)
    raise ValueError(f"number {number}")


def leave(seconds: float) -> None:
    """End the thread, as `sys.exit` does."""
    time.sleep(seconds)
    raise SystemExit(3)
