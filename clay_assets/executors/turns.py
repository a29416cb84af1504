"""Lets the threads of a process compute one at a time, while others wait for hosts.

Threads that compute at once contend for the GIL: of jobs of many short calls, four threads need half again as much CPU
time as one, and are no faster. An executor gives its threads a common turn; other threads have none, and do not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_OF_THREAD = threading.local()


class Turn:
    """Held by one thread of a process at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def join(self) -> None:
        """Make the calling thread compute in this turn from now on."""
        _OF_THREAD.lock = self._lock


@contextmanager
def in_turn() -> Iterator[None]:
    """Compute when it is the turn of this thread; not for code that waits, which would make the others wait too."""
    lock = getattr(_OF_THREAD, "lock", None)
    if lock is None:
        yield
        return
    with lock:
        yield
