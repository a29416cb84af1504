"""Run ours, a peer and the floor in turn, each in separate processes, and tabulate the results.

A stage's script has functions that prepare and return the work to be timed. A peer that needs another Python is a
separate program that prints its figures as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".oracle"  # where `make bench-setup` and the tests install the peers' Pythons
REPEATS = 3
Prepare = Callable[[dict[str, Any]], Callable[[], object]]


@dataclass(frozen=True)
class Figures:
    """The cost of a run: seconds, CPU seconds and peak MiB, for a number of items (chips, requests, tiles)."""

    seconds: float
    cpu: float
    peak_mib: float = 0.0
    count: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def each(self) -> float:
        """Seconds per item."""
        return self.seconds / self.count

    @property
    def cpu_each(self) -> float:
        """CPU seconds per item."""
        return self.cpu / self.count


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        stage: name of the stage.
        unit: what is counted, such as "chips".
        ours: our figures.
        peer, floor: name and figures of each comparison.
        of_peer: goal: our speed as a multiple of the peer's.
        of_floor: goal: our time as a multiple of the floor's.
        note: what was measured.
    """

    stage: str
    unit: str
    ours: Figures
    peer: tuple[str, Figures] | None = None
    floor: tuple[str, Figures] | None = None
    of_peer: float | None = None
    of_floor: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        return (
            self.stage,
            _figure(self.ours, self.unit),
            f"{self.peer[0]} {_figure(self.peer[1], self.unit)}" if self.peer else "–",
            f"{self.floor[0]} {_figure(self.floor[1], self.unit)}" if self.floor else "–",
            self._ratio(self.peer, ">=", self.of_peer),
            self._ratio(self.floor, "<=", self.of_floor),
            f"{self.ours.peak_mib:.0f} MiB" if self.ours.peak_mib else "–",
            self.note,
        )

    def _ratio(self, other: tuple[str, Figures] | None, sign: str, goal: float | None) -> str:
        if other is None:
            return "–"
        ours, theirs = self.ours, other[1]
        wall, cpu = theirs.each / ours.each, theirs.cpu_each / max(ours.cpu_each, 1e-9)
        if sign == "<=":
            wall, cpu = 1 / wall, 1 / max(cpu, 1e-9)
        wanted = [f"goal {sign} {goal:g}"] if goal is not None else []
        by_cpu = [] if ours.cpu == ours.seconds or not theirs.cpu else [f"CPU {cpu:.2f}"]
        more = ", ".join([*by_cpu, *wanted])
        return f"{wall:.2f} ({more})" if more else f"{wall:.2f}"


# Code for another process: peak memory in bytes, excluding what it inherited from its parent.
PEAK = """
def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
"""
HEAD = ("stage", "ours", "peer", "floor", "times the peer's speed", "times the floor's time", "peak", "of")


def _figure(figures: Figures, unit: str) -> str:
    if figures.count == 1:
        return f"{figures.seconds:.3g} s"
    rate = figures.count / figures.seconds
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.1f} {unit}/s"


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows in JSON's types."""
    return [asdict(row) for row in rows]


def took(seconds: float, *, cpu: float | None = None, peak: float | None = None, count: int = 1) -> Figures:
    """Figures of a script that measures itself; `seconds` are CPU seconds unless `cpu` is given; `peak` is in bytes."""
    return Figures(seconds, seconds if cpu is None else cpu, (peak or 0) / 2**20, count)


def output(script: str, *arguments: str, python: str = sys.executable) -> Any:
    """The JSON that a script prints, run in a separate process; with another Python, without our variables."""
    command = [python, *(() if python == sys.executable else ("-I",)), "-c", script, *arguments]
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout)


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def child(
    prepare: Prepare,
    plan: Mapping[str, Any],
    *,
    times: int = 1,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Callable[[], Figures]:
    """Run what a function prepares in a fresh process; returns the best of several times.

    Args:
        prepare: a function of a script in this folder; given the plan, it returns the function to time, which may
            return the number of items, and a dictionary of additional results.
        plan: a value that JSON can represent.
        times: number of repetitions in the process.
        env: variables in addition to those of this process, except for its AWS ones.
        python: the Python of an environment with the function's additional imports.
    """
    command = [python, __file__, prepare.__module__, prepare.__name__, str(times)]
    if prepare.__module__ == "__main__":
        command[2] = Path(sys.argv[0]).stem
    return program(command, json.dumps(dict(plan)), env=env)


def program(command: list[str], plan: str, *, env: Mapping[str, str] | None = None) -> Callable[[], Figures]:
    """Run a program that reads the plan from standard input and prints figures as JSON on its last line."""

    def run() -> Figures:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        environment = {**clean, "PYTHONPATH": paths, **(env or {})}
        done = subprocess.run(command, input=plan, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return Figures(**json.loads(done.stdout.splitlines()[-1]))

    return run


def peer(name: str) -> str | None:
    """The Python of a peer; None if `make bench-setup` did not install it."""
    python = next(PEERS.glob(f"{name}-*/bin/python"), None)
    return None if python is None else str(python)


def alternate(runs: Mapping[str, Callable[[], Figures] | None], repeats: int = REPEATS) -> dict[str, Figures]:
    """The least seconds and CPU seconds of several alternating runs; None runs are left out."""
    found: dict[str, Figures] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            if run is None:
                continue
            new, old = run(), found.get(name)
            if old is not None:
                seconds, cpu = min(old.seconds, new.seconds), min(old.cpu, new.cpu)
                new = Figures(seconds, cpu, max(old.peak_mib, new.peak_mib), new.count, new.more)
            found[name] = new
    return found


def row(
    stage: str,
    unit: str,
    figures: Mapping[str, Figures],
    *,
    ours: str = "ours",
    peer: str | None = None,
    floor: str | None = None,
    of_peer: float | None = None,
    of_floor: float | None = None,
    note: str = "",
) -> Row:
    """A row from the result of `alternate`, without a comparison if the peer was left out."""
    their = (peer, figures[peer]) if peer in figures and peer is not None else None
    least = (floor, figures[floor]) if floor in figures and floor is not None else None
    return Row(stage, unit, figures[ours], their, least, of_peer, of_floor, note)


def _serve(module: str, name: str, times: int) -> None:
    work = getattr(importlib.import_module(module), name)(json.load(sys.stdin))
    best: Figures | None = None
    for _ in range(times):
        start, cpu = time.perf_counter(), _cpu()
        said = work()
        seconds, cpu = time.perf_counter() - start, _cpu() - cpu
        count, more = said if isinstance(said, tuple) else (said if isinstance(said, int) else 1, {})
        if best is None or seconds < best.seconds:
            best = Figures(seconds, cpu, 0.0, count, more)
    assert best is not None
    print(json.dumps({**asdict(best), "peak_mib": _peak()}), flush=True)
    os._exit(0)  # library threads that still read ahead would make the process exit with an error


def _peak() -> float:
    """Peak memory of this process in MiB, without its parent's, which `ru_maxrss` includes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _cpu() -> float:
    """CPU seconds of this process and of its finished children."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
