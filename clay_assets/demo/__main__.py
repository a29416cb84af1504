"""`python -m clay_assets.demo`: make the miniature planet and run the whole, unmodified pipeline on it.

Everything is written below one folder (`./demo`); set `CLAY_STORAGE` to write the results elsewhere.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

DAGSTER_YAML = """\
telemetry: {enabled: false}
nux: {enabled: false}
python_logs: {managed_python_loggers: [clay_assets], python_log_level: INFO}
"""
HOME = "dagster_home"  # below the demo's folder
INTERRUPTED = 130  # exit status of an interrupted shell command


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clay_assets.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="folder of the demo (default: ./demo)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the planet (default: 0)")
    parser.add_argument("--again", action="store_true", help="re-run every step, even if the demo is already built")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    begun = time.monotonic()
    environment = _prepare(folder, arguments.seed)
    for name in ("CLAY_RECIPE", "CLAY_MGRS_SAMPLE", "CLAY_DASK_SCHEDULER"):
        os.environ.pop(name, None)  # the user's own settings, which the demo must not depend on
    os.environ.update(environment)  # before the pipeline is imported, as in a shell
    from clay_assets.demo.run import is_built, mark_built, run_chain, summary

    unbuilt: list[str] = []
    if is_built(folder, arguments.seed) and not arguments.again:
        print("Already built, nothing to do (`python -m clay_assets.demo --again` re-runs every step).")
    else:
        try:
            unbuilt = run_chain(folder / HOME)
        except KeyboardInterrupt:
            print("\nInterrupted. Completed work is kept; `make demo` resumes from there.", file=sys.stderr)
            return INTERRUPTED
    print(summary(time.monotonic() - begun))
    if not unbuilt:
        mark_built(folder, arguments.seed)
    if unbuilt:
        print(f"\n{len(unbuilt)} runs did not succeed: {', '.join(unbuilt)}", file=sys.stderr)
    return 1 if unbuilt else 0


def _prepare(folder: Path, seed: int) -> dict[str, str]:
    """Make the planet and the Dagster home, and write the environment file that `make dev` also uses."""
    from clay_assets.demo.planet import make_planet

    print(f"The miniature planet, in {folder / 'planet'}", flush=True)
    planet = make_planet(folder / "planet", seed, processes=1 if (os.cpu_count() or 1) > 1 else 0)
    home = folder / HOME
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    environment = {
        **planet.environment(),
        "CLAY_STORAGE": os.environ.get("CLAY_STORAGE") or str(folder / "storage"),
        "DAGSTER_HOME": str(home),
    }
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items()))
    (folder / "demo.env").write_text(lines, encoding="utf-8")
    return environment


if __name__ == "__main__":
    sys.exit(main())
