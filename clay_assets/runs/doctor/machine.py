"""Checks of this machine: versions of libraries, free space, and Dagster's instance."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from clay_assets.runs.doctor.lines import Line, Status, failure
from clay_assets.settings import Settings

PACKAGE = "clay_assets"
GB = 10**9
LITTLE, TOO_LITTLE = 20 * GB, GB  # bytes free; sorting the largest cell of Clay v1 spills several GB


def check_versions(settings: Settings | None) -> Iterator[Line]:
    """Compare Python and the libraries with the version bounds that the package declares."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        told = metadata.metadata(PACKAGE)
        requirements = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Line("warning", "versions", f"{PACKAGE} not installed, so version bounds are unknown", "Install it.")
        return
    python, bounds = platform.python_version(), str(told["Requires-Python"] or "")
    if python not in SpecifierSet(bounds, prereleases=True):
        yield Line("failed", "Python", f"{python}, not {bounds}", f"Install Python {bounds}.")
    extras = ("", "dask") if settings is not None and settings.dask_scheduler else ("",)
    looked_at = 0
    for one in requirements:
        if one.name == PACKAGE or (one.marker and not any(one.marker.evaluate({"extra": name}) for name in extras)):
            continue
        looked_at += 1
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            yield Line("failed", one.name, "not installed", f"Run pip install '{_plain(one)}'.")
            continue
        if not one.specifier.contains(version, prereleases=True):
            yield Line("failed", one.name, f"{version}, not {one.specifier}", f"Run pip install '{_plain(one)}'.")
    yield Line("ok", "versions", f"{PACKAGE} {told['Version']}, Python {python}, {looked_at} libraries checked")


def _plain(requirement: Any) -> str:
    return f"{requirement.name}{requirement.specifier}"


def check_temporary_space() -> Iterator[Line]:
    """Free space for the merge's sort."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        yield Line("failed", "temporary files", f"no usable folder ({error})", "Set TMPDIR to a folder with space.")
        return
    yield from check_space("temporary files", folder, "The merge sorts on disk there: set TMPDIR to a larger disk.")


def check_space(
    what: str, folder: Path, remedy: str = "Free space, or set CLAY_STORAGE to another place."
) -> list[Line]:
    """Free space of a folder, or of the nearest existing one above it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    status: Status = "failed" if free < TOO_LITTLE else "warning" if free < LITTLE else "ok"
    return [Line(status, what, f"{free / GB:,.1f} GB free in {folder}", "" if status == "ok" else remedy)]


def check_dagster() -> Iterator[Line]:
    """Open Dagster's instance, if DAGSTER_HOME is set."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        remedy = "Set DAGSTER_HOME to a folder, unless dg dev or a test provides one."
        yield Line("warning", "Dagster", "DAGSTER_HOME is not set, so run history is not kept", remedy)
        return
    folder = Path(home).expanduser()
    if not folder.is_absolute() or not folder.is_dir():
        yield Line("failed", "Dagster", f"DAGSTER_HOME={home} is not an absolute folder path", "Create the folder.")
        return
    from dagster import DagsterInstance

    try:
        with DagsterInstance.from_config(str(folder)) as instance:
            runs = instance.get_runs_count()
    except Exception as error:  # in its configuration or its database
        line = failure("Dagster", error)
        remedy = f"Check {folder / 'dagster.yaml'} and the database configured there."
        yield replace(line, fact=f"the instance cannot be opened ({line.fact})", remedy=remedy)
        return
    yield Line("ok", "Dagster", f"{runs:,} runs in {folder}")
