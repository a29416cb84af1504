"""Which version of clay_assets this is, as files are stamped with it.

An installed package knows its version. A checkout is ahead of the version that it was installed with, so there git is
asked, once per process: `0.2.1.dev7+g1a2b3c4` is seven commits after 0.2.0.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

UNKNOWN = "0+unknown"  # a source tree that was never installed


@cache  # it does not change while a process runs, and asking git takes a while
def software_version() -> str:
    """The version, by git in a checkout and else as installed."""
    root = Path(__file__).parents[1]
    project = root / "pyproject.toml"
    if (root / ".git").exists() and project.exists():
        try:
            from setuptools_scm import get_version  # installed with the extras of a checkout

            options = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["setuptools_scm"]
            return str(get_version(str(root), **options))
        except (ImportError, LookupError, OSError, ValueError):  # not installed, or git does not answer
            pass
    try:
        return version("clay_assets")
    except PackageNotFoundError:
        return UNKNOWN
