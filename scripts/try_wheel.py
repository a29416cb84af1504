"""Install the wheel into an empty environment outside the checkout, and run the demo there.

    make try-wheel        # builds dist/ first
    python scripts/try_wheel.py dist/*.whl

Dependencies are those of constraints.txt, which lies beside the wheel in the sdist.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE_ONLY = ("PYTHONPATH", "VIRTUAL_ENV", "DAGSTER_HOME")  # what would lead back to the checkout
IMPORTED = (
    "import clay_assets, clay_assets.definitions as d; print(clay_assets.__file__, len(list(d.defs.assets or ())))"
)


def main() -> int:
    """Try the wheel; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--no-demo", action="store_true", help="only install it and load its definitions")
    arguments = parser.parse_args()
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        parser.error("uv is not installed (make setup installs it)")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLAY_") and name not in HERE_ONLY}
    with tempfile.TemporaryDirectory(prefix="clay-wheel-") as folder:
        python = Path(folder, "venv/bin/python")

        def run(*command: str | Path) -> None:
            print("+", *command, flush=True)
            subprocess.run(command, cwd=folder, env=kept, check=True)

        run(uv, "venv", "--quiet", "--python", sys.executable, python.parents[1])
        constraints = ["-c", ROOT / "constraints.txt"]
        run(uv, "pip", "install", "--quiet", "--python", python, *constraints, arguments.wheel.resolve())
        run(python.with_name("clay-assets"), "--version")
        run(python, "-c", IMPORTED)
        if not arguments.no_demo:
            run(python, "-m", "clay_assets.demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
