"""Start-up cost of the definitions and the command line in fresh processes, compared with `import dagster`.

Run as `python benchmarks/start_up.py [STORAGE CHIPID]`; with a storage, such as the demo's, `clay-assets show` is
measured too. Each round starts every process once, so that other load on the machine affects all alike. The figures are
CPU seconds, the least of all rounds; modules are compiled beforehand, as in an installation.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import Row, table, took

ROUNDS = 4
FLOOR = "import dagster"


def rows(_: Path | None = None, storage: str | None = None, chipid: str | None = None) -> Iterator[Row]:
    """A row for each command."""
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
    for name, (seconds, peak) in best.items():
        note = f"{seconds - floor:+.2f} s beside {FLOOR}" + (" (goal <= 0.5 s)" if name == "definitions" else "")
        yield Row(f"start: {name}", "starts", took(seconds, peak=peak * 1e6), floor=(FLOOR, took(floor)), note=note)


def _spent(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU seconds of a process, and its peak memory in MB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


if __name__ == "__main__":
    print(table(list(rows(None, *sys.argv[1:3]))))
