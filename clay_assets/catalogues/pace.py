"""Limits the number and the rate of requests to a server.

The number of requests in flight is bounded. After a server has refused some as too many (HTTP 429), requests are sent
at the rate that it accepted, and slowly faster until it refuses again. So a server's limit need not be known.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

WINDOW = 1.0  # seconds over which requests are counted
GROWTH = 0.005  # share by which the rate grows in a window without refusals
DECREASE = 0.1  # maximum share by which it falls in a window with refusals
MARGIN = 0.02  # share of the accepted rate that is not used, since requests do not arrive evenly spaced


class Pace:
    """The pace of one client; safe between threads.

    Args:
        in_flight: maximum number of requests in flight.
    """

    def __init__(self, in_flight: int) -> None:
        self._slots = threading.Semaphore(in_flight)
        self._lock = threading.Lock()
        self._sent: deque[float] = deque()
        self._refused: deque[float] = deque()
        self._rate: float | None = None  # requests a second; None: as fast as they are answered
        self._turn = self._fell = self._grew = self._resumed = 0.0
        self._burst = 0  # requests of the first window with a refusal that were not refused

    @contextmanager
    def slot(self) -> Iterator[None]:
        """The slot of a request: entered when it may be sent, left when it was answered."""
        with self._slots:
            self.wait()
            yield

    @contextmanager
    def out_of_slot(self) -> Iterator[None]:
        """Release the slot for a while: a refused request is not in flight."""
        self._slots.release()
        try:
            yield
        finally:
            self._slots.acquire()

    def wait(self) -> None:
        """Wait until another request may be sent."""
        with self._lock:
            now = turn = time.monotonic()
            if self._rate is not None:
                if now - max(self._fell, self._grew) >= WINDOW:
                    self._rate, self._grew = self._rate * (1 + GROWTH), now
                turn = max(now, self._turn)
                self._turn = turn + 1 / self._rate
            self._sent.append(turn)
            while self._sent[0] < now - WINDOW:
                self._sent.popleft()
        time.sleep(turn - now)

    def refused(self) -> None:
        """Record that the server refused a request as too many."""
        now = time.monotonic()
        with self._lock:
            self._refused.append(now)
            while self._refused[0] < now - WINDOW:
                self._refused.popleft()
            if self._rate is not None and now - self._fell < WINDOW:
                if now < self._resumed:  # sent before the first refusal was known
                    self._burst -= 1
                    self._rate = max(self._burst, 1) * (1 - MARGIN) / WINDOW
                return  # from requests sent before the rate fell
            sent = sum(now - WINDOW <= at <= now for at in self._sent)
            accepted = max(sent - len(self._refused), 1) * (1 - MARGIN) / WINDOW
            if self._rate is None:
                # The server's limit for this window is used up: further requests in it would be refused too.
                self._turn = next((at for at in self._sent if at >= now - WINDOW), now) + WINDOW
                self._resumed, self._burst = self._turn, sent - len(self._refused)
            self._rate = accepted if self._rate is None else max(accepted, (1 - DECREASE) * self._rate)
            self._fell = now
