"""The code location `clay_assets`: every asset, job and resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from clay_assets.chips import assets as chips
from clay_assets.landcover import assets as landcover
from clay_assets.orchestration import automation, jobs
from clay_assets.orchestration.checks import chips as chip_checks
from clay_assets.orchestration.checks import landcover as landcover_checks
from clay_assets.orchestration.checks import partitions as partition_checks
from clay_assets.orchestration.checks import sampling as sampling_checks
from clay_assets.orchestration.checks import scenes as scene_checks
from clay_assets.orchestration.io_managers import ChipCellsIOManager, GeoTablesIOManager, StacItemsIOManager
from clay_assets.orchestration.resources import ClayResource
from clay_assets.sampling import assets as sampling
from clay_assets.scenes import assets as scenes

CHECKS = [landcover_checks, sampling_checks, scene_checks, chip_checks]


def build_definitions(resources: Mapping[str, Any] | None = None, **overrides: Any) -> dg.Definitions:
    """The whole code location.

    Args:
        resources: Dagster resources that replace ours, by key (`clay`, `geo_tables`, `stac_items`, `chip_cells`).
        overrides: settings by their names in `Settings`, over those of the environment, such as `storage`.
    """
    replaced = dict(resources or {})
    clay = replaced.get("clay", ClayResource(overrides=overrides))
    return dg.Definitions(
        assets=dg.load_assets_from_modules([landcover, sampling, scenes, chips]),
        asset_checks=[*dg.load_asset_checks_from_modules(CHECKS), *partition_checks.CHECKS],
        jobs=jobs.ALL,
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        # The assets of a run follow one another, and each has its own pool of workers: a process per step would
        # only add its start. Runs are processes of their own all the same.
        executor=dg.in_process_executor,
        resources={
            "clay": clay,
            "geo_tables": GeoTablesIOManager(clay=clay),
            "stac_items": StacItemsIOManager(clay=clay),
            "chip_cells": ChipCellsIOManager(clay=clay),
            **replaced,
        },
    )


defs = build_definitions()
