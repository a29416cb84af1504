"""Progress of long work: occasional lines in the event log with rate and expected end, and a bar in a terminal. Never
one line per scene.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

FIRST_LINE = 20.0  # seconds; the interval doubles with each line,
LONGEST_PAUSE = 320.0  # up to this: about a dozen lines per hour
FORESEEABLE = 1e9  # seconds; dates beyond the calendar cannot be formatted

OnProgress = Callable[[int, int], None]  # called with (done, total)


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class Log(Protocol):
    """Where lines go, such as `context.log`."""

    def info(self, message: str, /) -> None:
        """Log a line."""


class ProgressReporter:
    """Reports progress when called with (done, total); a context manager that closes the bar.

    Args:
        log: the run's log.
        unit: name of the counted things, in the plural.
        clock: returns seconds from an arbitrary start.
    """

    def __init__(self, log: Log, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._unit, self._clock = log, unit, clock
        self._begun = self._logged = clock()
        self._pause = FIRST_LINE
        self._done = self._done_at_line = 0
        self._bar = tqdm(unit=f" {unit}", leave=False, disable=not sys.stderr.isatty())

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._done_at_line:  # it took long enough to report
            spent = tqdm.format_interval(self._clock() - self._begun)
            self._log.info(f"{'finished' if error is None else 'stopped'} after {self._done:,} {self._unit} in {spent}")

    def __call__(self, done: int, total: int) -> None:
        self._bar.total, self._done = total, done
        self._bar.update(done - self._bar.n)
        now = self._clock()
        if now - self._logged < self._pause:
            return
        # Rate since the last line, not since the start: scenes kept from an earlier run are skipped instantly.
        rate = (done - self._done_at_line) / (now - self._logged)
        self._logged, self._done_at_line = now, done
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        said = [f"{done:,} of {total:,} {self._unit}" + (f" ({done / total:.0%})" if total else "")]
        if rate > 0:
            said.append(f"{rate:,.1f} a second" if rate >= 1 else f"{60 * rate:,.1f} a minute")
            left = (total - done) / rate
            said.append(f"done in about {tqdm.format_interval(left)}")
            if left < FORESEEABLE:
                said.append(f"at {datetime.now(UTC) + timedelta(seconds=left):%Y-%m-%d %H:%M} UTC")
        with tqdm.external_write_mode(sys.stderr):  # the bar is cleared before the line is written
            self._log.info(", ".join(said))
