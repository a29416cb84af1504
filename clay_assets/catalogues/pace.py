"""How many requests are sent to a server, and how fast.

No more than a limit are in flight. A server that refuses some as too many (HTTP 429) is sent as many a second as it
accepted, and from then on slowly more, until it refuses again: so the limit that it has is used, without being told.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WINDOW = 1.0  # seconds over which accepted requests are counted
GROWTH = 0.01  # by which the rate grows in each window without a refusal


class Pace:
    """The pace of one client; safe between threads.

    Args:
        in_flight: requests at once.
    """

    def __init__(self, in_flight: int) -> None:
        self._slots = threading.Semaphore(in_flight)
        self._lock = threading.Lock()
        self._accepted: deque[float] = deque()
        self._rate: float | None = None  # requests a second; None: as fast as they are answered
        self._turn = 0.0
        self._changed = 0.0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One request: entered when it may be sent, left when it was answered."""
        with self._slots:
            self.wait()
            yield

    def accepted(self) -> None:
        """Note that the server answered a request."""
        now = time.monotonic()
        with self._lock:
            self._accepted.append(now)
            self._forget(now)
            if self._rate is not None and now - self._changed >= WINDOW:
                self._rate *= 1 + GROWTH
                self._changed = now

    def refused(self) -> None:
        """Note that the server refused a request as one too many."""
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            rate = max(len(self._accepted), 1) / WINDOW
            self._rate = rate if self._rate is None else min(rate, self._rate)
            self._changed = now

    def _forget(self, now: float) -> None:
        while self._accepted and self._accepted[0] < now - WINDOW:
            self._accepted.popleft()

    def wait(self) -> None:
        """Wait until another request may be sent."""
        with self._lock:
            if self._rate is None:
                return
            now = time.monotonic()
            turn = max(now, self._turn)
            self._turn = turn + 1 / self._rate
        time.sleep(turn - now)
