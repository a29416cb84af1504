"""All stages, compared with their peers and floors, in one table; run as `make bench`, after `make bench-setup`.

    python benchmarks/run.py [--only chips,picks] [--json FILE]

Each script's `rows` yields the rows of a stage. Inputs are made in a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import PEERS, Row, as_json, table

# Name of a stage → script, in the order of the pipeline.
STAGES = {
    "start": "start_up",
    "shares": "worldcover_stats",
    "sampling": "sampling",
    "picks": "scene_picks",
    "index": "chip_index",
    "cell": "cell_from_s3",
    "merge": "merge_72m",
    "chips": "read_chips",
    "training": "training",
}


def rows(stages: list[str], folder: Path) -> Iterator[Row]:
    """The rows of some stages."""
    for stage in stages:
        started = time.perf_counter()
        (folder / stage).mkdir()
        yield from importlib.import_module(STAGES[stage]).rows(folder / stage)
        print(f"{stage}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """Print the table, and write it as JSON if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    stages = options.only.split(",")
    if unknown := set(stages) - set(STAGES):
        parser.error(f"unknown stages {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if not any(PEERS.glob("stacchip-*/complete")):
        print("stacchip is not compared with: run `make bench-setup` first", file=sys.stderr)
    found: list[Row] = []
    try:
        with TemporaryDirectory() as folder:
            found.extend(rows(stages, Path(folder)))
    except Exception:
        print(table(found))  # the stages before the one that failed
        raise
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}\n")
    print(table(found))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(as_json(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
