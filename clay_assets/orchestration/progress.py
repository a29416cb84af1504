"""How far a long asset is: a line in the event log now and then, and a bar in a terminal. Never a line per scene."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import dagster as dg
from tqdm import tqdm

LOG_EVERY = 20.0  # seconds


class Progress:
    """Callable with (done, total); used as a context manager so that the bar is closed.

    Args:
        context: whose log is written to.
        unit: what is counted, in the plural.
    """

    def __init__(self, context: dg.AssetExecutionContext, unit: str) -> None:
        self._log = context.log
        self._unit = unit
        self._begun = self._logged = time.monotonic()
        self._bar = tqdm(unit=f" {unit}", leave=False, disable=not sys.stderr.isatty())

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        now = time.monotonic()
        if now - self._logged < LOG_EVERY:
            return
        self._logged = now
        rate = done / (now - self._begun)
        left = (total - done) / rate
        self._log.info(f"{done:,} of {total:,} {self._unit}, {rate:,.1f} a second, about {left:,.0f} s left")
