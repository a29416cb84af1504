"""Settings of the interpreter that work of many threads or objects changes for its time."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

QUICK = 0.0005  # seconds that a thread computes before another is let in


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
