"""The version of clay_assets that files are stamped with.

An installed package knows its version. A checkout moves on after it was installed, so its version comes from git, once
per process: `0.2.1.dev7+g1a2b3c4` is seven commits after 0.2.0.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

UNKNOWN = "0+unknown"  # a source tree that is not installed


@cache  # git is slow, and the version does not change while a process runs
def software_version() -> str:
    """The version: from git in a checkout, else as installed."""
    root = Path(__file__).parents[1]
    project = root / "pyproject.toml"
    if (root / ".git").exists() and project.exists():
        try:
            from setuptools_scm import get_version  # the library is only installed with a checkout's extras

            options = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["setuptools_scm"]
            return str(get_version(str(root), **options))
        except (ImportError, LookupError, OSError, ValueError):  # not installed, or git fails
            pass
    try:
        return version("clay_assets")
    except PackageNotFoundError:
        return UNKNOWN
