"""Interpreter settings that are changed temporarily for work with many threads or objects."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUICK = 0.0005  # seconds until a computing thread yields to another


class _Interpreter:
    """An interpreter setting that is changed while in use; thread-safe."""

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


# Let a thread that has received an answer run soon, even if another computes. By default it waits up to 5 ms after each
# socket operation, several times per request, which costs a tenth of the requests to a server with 200 ms latency.
quick_switches = _Interpreter(sys.getswitchinterval, sys.setswitchinterval, QUICK)

# Run the garbage collector less often. Tens of thousands of STAC items are a million objects without cycles, and by
# default they are scanned repeatedly, which takes as long as creating them.
rare_collections = _Interpreter(gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds), (100_000, 20, 20))
