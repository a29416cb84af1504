"""The code location `clay_assets`: what `stages` and `runs` list, with the resources of one deployment.

Loading it reads no setting, file or network address. https://docs.dagster.io/api/dagster/definitions
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from clay_assets.errors import InputError
from clay_assets.orchestration.factories import GeoTablesIOManager, StacItemsIOManager
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.source_code import linked_to_repository
from clay_assets.runs import automation, failed_partitions, jobs
from clay_assets.settings import check_keywords
from clay_assets.stages import ASSETS, CHECKS, RESOURCES


def build_definitions(resources: Mapping[str, Any] | None = None, **overrides: Any) -> dg.Definitions:
    """The whole code location.

    Args:
        resources: Dagster resources that replace ours, by key: `clay`, an IO manager such as `geo_tables`, or `s3`, a
            `dagster_aws` `S3Resource` with which the storage is reached.
        overrides: settings by their names in `Settings`, over those of the environment, such as `storage`.

    Raises:
        InputError: a setting is unknown, whether given here or to the resource `clay`, or is given beside that.
    """
    replaced = dict(resources or {})
    if "clay" in replaced and overrides:
        raise InputError(f"{', '.join(overrides)}: given beside a resource clay. Give the settings to the resource.")
    clay = replaced.get("clay") or ClayResource(overrides=overrides, s3=replaced.get("s3"))
    check_keywords({**getattr(clay, "overrides", {}), **overrides})
    io_managers = {"geo_tables": GeoTablesIOManager, "stac_items": StacItemsIOManager, **RESOURCES}
    return dg.Definitions(
        assets=linked_to_repository(ASSETS),
        asset_checks=[*CHECKS, *failed_partitions.CHECKS],
        jobs=jobs.ALL,
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        # The assets of a run follow one another, and each has its own pool of workers: a process per step would
        # only add its start. Runs are processes of their own all the same.
        executor=dg.in_process_executor,
        resources={"clay": clay, **{key: made(clay=clay) for key, made in io_managers.items()}, **replaced},
    )


defs = build_definitions()
