"""Checks before a long run: settings, storage, sources, permissions and versions.

Checks run in parallel. Nothing is changed except for a small object that is written below `CLAY_STORAGE` and deleted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.runs.doctor.cluster import check_dask
from clay_assets.runs.doctor.lines import Check, Line, failure, side_by_side, without_secrets
from clay_assets.runs.doctor.machine import check_dagster, check_space, check_temporary_space, check_versions
from clay_assets.runs.doctor.sources import checks_of_sources
from clay_assets.runs.doctor.storage import check_storage, without_new_folders
from clay_assets.settings import Settings, read_settings
from clay_assets.transport.locations import is_s3, local_path

TIMEOUT = 60.0  # seconds per check


def examine(platforms: Sequence[str] = (), timeout: float = TIMEOUT) -> list[Line]:
    """Check everything that a run needs.

    Args:
        platforms: keys of the platforms whose sources are checked; empty: all of the recipe.
        timeout: seconds per check.

    Raises:
        InputError: a platform is unknown.
    """
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown:
        raise InputError(f"{', '.join(unknown)}: unknown platform. Choose from {', '.join(sorted(PLATFORMS))}.")
    before, settings, recipe = _configuration()
    checks: dict[str, Check] = {
        "versions": lambda: check_versions(settings),
        "Dagster": check_dagster,
        "temporary files": check_temporary_space,
    }
    if settings is not None:
        checks |= _of_settings(settings)
    if settings is not None and recipe is not None:
        wanted = [PLATFORMS[key] for key in sorted(platforms or PLATFORMS)]
        checks |= checks_of_sources(settings, recipe, wanted)
    _import_first(settings)
    with without_new_folders(settings.storage) if settings is not None else nullcontext():
        found = side_by_side(checks, timeout)
    return [without_secrets(line) for line in (*before, *found)]


def _configuration() -> tuple[list[Line], Settings | None, Recipe | None]:
    lines: list[Line] = []
    try:
        settings = read_settings()
    except InputError as error:
        return [failure("settings", InputError(line)) for line in str(error).splitlines()], None, None
    given = sorted(name for name, value in os.environ.items() if name.upper().startswith("CLAY_") and value)
    lines.append(Line("ok", "settings", f"{', '.join(given) or 'none'} set, defaults for the others"))
    try:
        recipe = load_recipe(settings.recipe)
    except InputError as error:
        return [*lines, Line("failed", "recipe", " ".join(str(error).split()).rstrip("."))], settings, None
    excluded = f", {len(recipe.exclude)} exclusions" if recipe.exclude else ""
    return [*lines, Line("ok", "recipe", f"{recipe.name} ({recipe.hash}){excluded}")], settings, recipe


def _of_settings(settings: Settings) -> dict[str, Check]:
    checks: dict[str, Check] = {"storage": lambda: check_storage(settings)}
    if not is_s3(settings.storage):
        checks["free space in the storage"] = lambda: check_space(
            "free space in the storage", local_path(settings.storage)
        )
    if settings.dask_scheduler:
        address = settings.dask_scheduler
        checks["Dask"] = lambda: check_dask(address, settings.storage)
    return checks


def _import_first(settings: Settings | None) -> None:
    """Import what checks need before the timeout starts: it takes seconds, and threads would block each other."""
    import boto3.session  # noqa: F401
    import packaging.requirements  # noqa: F401

    import clay_assets.catalogues.opening
    import clay_assets.landcover.worldcover_files
    import clay_assets.sampling.natural_earth_files
    import clay_assets.sources.static_stac  # noqa: F401

    if os.environ.get("DAGSTER_HOME"):
        import dagster  # noqa: F401
    if settings is not None and settings.dask_scheduler:
        with suppress(ImportError):
            import distributed  # noqa: F401
