"""What it costs to start: the definitions and the command line, in fresh processes beside `import dagster`.

Run as `python benchmarks/start_up.py [STORAGE CHIPID]`; with a storage, such as the demo's, `clay-assets show` is
measured too. Each round starts every process once, so that what else the machine does falls on all alike. CPU seconds,
the least of all rounds; the modules are compiled beforehand, as in an installation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 7
FLOOR = "import dagster"


@dataclass(frozen=True)
class Row:
    """One command.

    Attributes:
        stage: what is started.
        seconds: CPU of its process.
        floor: CPU of `import dagster`.
        peak: memory, MB.
    """

    stage: str
    seconds: float
    floor: float
    peak: float

    @property
    def above(self) -> float:
        """Seconds above the floor; below it, negative."""
        return self.seconds - self.floor


def rows(storage: str | None = None, chipid: str | None = None) -> list[Row]:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder, "chip.png"))
        command = [sys.executable, "-m", "clay_assets.cli"]
        commands = {
            FLOOR: [sys.executable, "-c", FLOOR],
            "definitions": [sys.executable, "-c", "import clay_assets.definitions"],
            "clay-assets --help": [*command, "--help"],
        }
        if storage and chipid:
            commands["clay-assets show"] = [*command, "show", chipid, "--picture", picture]
        environment = {**os.environ, **({"CLAY_STORAGE": storage} if storage else {})}
        environment |= {"PYTHONPYCACHEPREFIX": str(Path(folder, "compiled")), "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        best = {name: (float("inf"), 0.0) for name in commands}
        for number in range(ROUNDS + 1):
            for name, command in commands.items():
                spent = _spent(command, environment)
                if number:  # the first round compiles
                    best[name] = min(best[name], spent)
    floor = best.pop(FLOOR)[0]
    return [Row(name, seconds, floor, peak) for name, (seconds, peak) in best.items()]


def _spent(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU seconds of a process, and its peak memory in MB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


if __name__ == "__main__":
    print(f"{'':<20} {'CPU, s':>7} {'above':>7} {'ratio':>6} {'MB':>5}   beside {FLOOR}")
    for row in rows(*sys.argv[1:3]):
        print(f"{row.stage:<20} {row.seconds:7.2f} {row.above:7.2f} {row.seconds / row.floor:6.2f} {row.peak:5.0f}")
