"""Distributions with platforms, as installed: a folder to put on PYTHONPATH."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from clay_assets.platforms.gathering import GROUP
from clay_assets_tests.conftest import REPOSITORY


def distribution(folder: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, str]) -> Path:
    """Write a distribution into a folder.

    Args:
        folder: the folder on PYTHONPATH; may hold several distributions.
        name: name of the distribution.
        modules: module name → source text.
        entry_points: name → value, in the group of platforms.
    """
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{GROUP}]", *(f"{entry} = {value}" for entry, value in entry_points.items()), ""]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return folder


def python(code: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a separate process, with a folder on its path; additional environment as keywords."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def example_platform() -> tuple[str, str]:
    """The example platform in docs/add_a_platform.md: its path in the repository, and its text."""
    page = (REPOSITORY / "docs" / "add_a_platform.md").read_text(encoding="utf-8")
    found = re.search(
        r"save this as `(clay_assets/platforms/\w+\.py)`.*?^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found.group(1), found.group(2)


def example_entry_point() -> tuple[str, str]:
    """The example entry point: its name, and the module."""
    page = (REPOSITORY / "docs" / "add_a_platform.md").read_text(encoding="utf-8")
    found = re.search(rf'^\[project\.entry-points\."{re.escape(GROUP)}"\]\n(\w+) = "([\w.]+)"', page, re.MULTILINE)
    assert found is not None
    return found.group(1), found.group(2)
