"""The code location `clay_assets`: every asset, job and resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from clay_assets.chips import assets as chips
from clay_assets.landcover import assets as landcover
from clay_assets.orchestration import jobs
from clay_assets.orchestration.io_managers import ChipCellsIOManager, GeoTablesIOManager, StacItemsIOManager
from clay_assets.orchestration.resources import ClayResource
from clay_assets.sampling import assets as sampling
from clay_assets.scenes import assets as scenes


def build_definitions(resources: Mapping[str, Any] | None = None, **overrides: Any) -> dg.Definitions:
    """The whole code location.

    Args:
        resources: Dagster resources that replace ours, by key (`clay`, `s3`, `geo_tables`, `stac_items`,
            `chip_cells`).
        overrides: settings by their names in `Settings`, over those of the environment, such as `storage`.
    """
    replaced = dict(resources or {})
    s3 = replaced.get("s3", S3Resource())
    clay = replaced.get("clay", ClayResource(overrides=overrides, s3=s3))
    return dg.Definitions(
        assets=dg.load_assets_from_modules([landcover, sampling, scenes, chips]),
        asset_checks=dg.load_asset_checks_from_modules([chips]),
        jobs=jobs.ALL,
        # The assets of a run follow one another, and each has its own pool of workers: a process per step would
        # only add its start. Runs are processes of their own all the same.
        executor=dg.in_process_executor,
        resources={
            "s3": s3,
            "clay": clay,
            "geo_tables": GeoTablesIOManager(clay=clay),
            "stac_items": StacItemsIOManager(clay=clay),
            "chip_cells": ChipCellsIOManager(clay=clay),
            **replaced,
        },
    )


defs = build_definitions()
