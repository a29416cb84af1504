"""The code location `clay_assets`: everything that `stages` and `runs` list, with one deployment's resources.

Loading it does not read settings, files or the network. https://docs.dagster.io/api/dagster/definitions
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from clay_assets.errors import InputError
from clay_assets.orchestration.factories import GeoTablesIOManager, StacItemsIOManager
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.source_code import linked_to_repository
from clay_assets.runs import alerts, automation, failed_partitions, jobs
from clay_assets.settings import check_keywords
from clay_assets.stages import ASSETS, CHECKS, RESOURCES

__all__ = ["build_definitions", "defs"]


def build_definitions(resources: Mapping[str, Any] | None = None, **overrides: Any) -> dg.Definitions:
    """Build the whole code location.

    Args:
        resources: Dagster resources that replace the defaults, by key: `clay`, an IO manager such as `geo_tables`, or
            `s3`, a `dagster_aws` `S3Resource` used to access the storage.
        overrides: settings that override the environment, by their names in `Settings`, such as `storage`.

    Raises:
        InputError: a setting is unknown, here or in the resource `clay`, or is given together with that resource.
    """
    replaced = dict(resources or {})
    if "clay" in replaced and overrides:
        raise InputError(f"{', '.join(overrides)}: given together with a resource clay. Pass settings to the resource.")
    clay = replaced.get("clay") or ClayResource(overrides=overrides, s3=replaced.get("s3"))
    check_keywords({**getattr(clay, "overrides", {}), **overrides})
    io_managers = {"geo_tables": GeoTablesIOManager, "stac_items": StacItemsIOManager, **RESOURCES}
    return dg.Definitions(
        assets=linked_to_repository(ASSETS),
        asset_checks=[*CHECKS, *failed_partitions.CHECKS],
        jobs=jobs.ALL,
        schedules=automation.SCHEDULES,
        sensors=[*automation.SENSORS, *alerts.SENSORS],
        # The assets of a run execute in sequence, and each has its own worker pool, so a process per step would only
        # add startup time. Each run is still a separate process.
        executor=dg.in_process_executor,
        resources={"clay": clay, **{key: made(clay=clay) for key, made in io_managers.items()}, **replaced},
    )


defs = build_definitions()
