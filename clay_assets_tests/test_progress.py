"""A long asset reports progress, rate and expected end; rarely, and never per scene."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta

import pytest

from clay_assets.progress import ProgressReporter


class Lines(list[str]):
    """A log."""

    def info(self, message: str, /) -> None:
        self.append(message)


class Clock:
    """A clock that advances when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(log: Lines, clock: Clock, total: int, seconds_each: float, kept: int = 0) -> None:
    """Work through scenes; the first ones take no time."""
    with ProgressReporter(log, "scenes", clock) as progress:
        for done in range(1, total + 1):
            clock.now += seconds_each * (done > kept)
            progress(done, total)


def test_how_far_how_fast_and_when_it_will_be_done(log: Lines, clock: Clock) -> None:
    before = datetime.now(UTC)
    run(log, clock, total=100, seconds_each=0.5)
    assert log[0].startswith("40 of 100 scenes (40%), 2.0 a second, done in about 00:30, at ")
    told = datetime.strptime(log[0][-20:], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert abs(told - before - timedelta(seconds=30)) < timedelta(minutes=2)
    assert log[-1] == "finished after 100 scenes in 00:50"


def test_slow_work_is_told_by_the_minute(log: Lines, clock: Clock) -> None:
    run(log, clock, total=4, seconds_each=40)
    assert log[0].startswith("1 of 4 scenes (25%), 1.5 a minute, done in about 02:00")


def test_few_lines_however_long_and_however_many(log: Lines, clock: Clock) -> None:
    run(log, clock, total=36_000, seconds_each=0.1)  # an hour
    assert 10 <= len(log) <= 20
    log.clear()
    run(log, clock, total=100_000, seconds_each=0.0001)  # ten seconds
    assert log == []


def test_scenes_kept_from_an_earlier_run_do_not_promise_too_much(log: Lines, clock: Clock) -> None:
    run(log, clock, total=2000, seconds_each=1, kept=1000)
    left = [int(m[1]) * 3600 + int(m[2]) * 60 + int(m[3]) for m in map(_about, log) if m]
    true = [2000 - int(line.split()[0].replace(",", "")) for line in log if " of " in line]
    assert left[0] < 0.1 * true[0]  # the first line includes them,
    assert left[1:] == true[1:]  # the others do not


def _about(line: str) -> re.Match[str] | None:
    found = re.search(r"about (?:(\d+):)?(\d+):(\d+),", line)
    return re.match(r"(\d+):(\d+):(\d+)", f"{found[1] or 0}:{found[2]}:{found[3]}") if found else None


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(0, 0)], "0 of 0 scenes"),
        ([(0, 10)], "0 of 10 scenes (0%)"),
        ([(3, 0)], "3 of 0 scenes, 6.0 a minute, done in about "),
        ([(1, 10), (1, 10)], "1 of 10 scenes (10%)"),
        ([(1, 10**15)], "1 of 1,000,000,000,000,000 scenes (0%), 2.0 a minute, done in about "),
    ],
)
def test_work_that_stands_still_or_has_no_total(
    log: Lines, clock: Clock, steps: list[tuple[int, int]], said: str
) -> None:
    with ProgressReporter(log, "scenes", clock) as progress:
        for done, total in steps:
            clock.now += 40 if len(steps) > 1 else 30
            progress(done, total)
    assert log[len(steps) - 1].startswith(said)


def test_an_error_is_not_told_as_an_end(log: Lines, clock: Clock) -> None:
    def breaks() -> None:
        with ProgressReporter(log, "scenes", clock) as progress:
            clock.now += 30
            progress(3, 10)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        breaks()
    assert log[-1] == "stopped after 3 scenes in 00:30"


PROGRAM = """
import logging, sys, time
from clay_assets.progress import ProgressReporter
logging.basicConfig(level="INFO", format="LINE %(message)s", stream=sys.stderr)
seconds = iter([0.0, 1.0, 30.0, 31.0, 32.0])
with ProgressReporter(logging.getLogger(), "scenes", lambda: next(seconds)) as progress:
    for done in (1, 2, 3):
        time.sleep(0.15)
        progress(done, 3)
"""


def test_a_terminal_has_a_bar_that_makes_way_for_the_lines() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # what Linux raises when the other end is closed
                break
        assert process.wait(30) == 0, shown
    os.close(ours)
    text = shown.decode()
    assert "3/3" in text
    assert " scenes/s" in text
    line = next(part for part in text.splitlines() if "LINE 2 of 3" in part)
    assert line.split("\r")[-1].startswith("LINE 2 of 3 scenes (67%)")  # on a line of its own


def test_what_is_not_a_terminal_has_no_bar(capfd: pytest.CaptureFixture[str], log: Lines, clock: Clock) -> None:
    run(log, clock, total=100, seconds_each=1)
    assert capfd.readouterr() == ("", "")
