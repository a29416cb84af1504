"""The jobs: one for each group of assets, one for all, the daily checks, and those of all that is stored.

The assets of a job share their partitions, so `scene_requests` (per platform) and `merged_index` (of everything) have
jobs of their own beside the rest of their groups.
"""

from typing import Any

import dagster as dg

from clay_assets.orchestration.checks import chips as chip_checks
from clay_assets.orchestration.checks import landcover as landcover_checks
from clay_assets.orchestration.checks import sampling as sampling_checks
from clay_assets.orchestration.checks import scenes as scene_checks
from clay_assets.orchestration.checks.partitions import NO_PARTITION_FAILED
from clay_assets.orchestration.everything import run_steps, steps
from clay_assets.orchestration.partitions import CELL_ASSETS, PARTITIONED
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS

# Of all partitions together: not the business of one partition's run.
NO_FAILED = dg.AssetSelection.checks(
    *(dg.AssetCheckKey(dg.AssetKey(asset), NO_PARTITION_FAILED) for asset in PARTITIONED)
)

STORED = [
    landcover_checks.worldcover_stats,
    sampling_checks.mgrs_sample,
    scene_checks.scene_picks,
    scene_checks.scene_imagery,
    chip_checks.chip_index,
    chip_checks.merged_index,
    chip_checks.merged_index_age,
]

landcover = dg.define_asset_job(
    "landcover",
    dg.AssetSelection.groups("landcover"),
    description="Tiling grid and land cover of every tile.",
)
sampling = dg.define_asset_job(
    "sampling", dg.AssetSelection.groups("sampling"), description="Which places are sampled."
)
requests = dg.define_asset_job(
    "requests", dg.AssetSelection.assets("scene_requests") - NO_FAILED, description="The searches of one platform."
)
scenes = dg.define_asset_job(
    "scenes",
    dg.AssetSelection.assets("scene_picks", "scene_imagery") - NO_FAILED,
    description="Scenes of one platform and year: searched, picked, and copied where the recipe says so.",
)
chips = dg.define_asset_job(
    "chips",
    dg.AssetSelection.assets("chip_index") - NO_FAILED,
    description="Chip index of one platform and year.",
)
cell = dg.define_asset_job(
    "cell",
    dg.AssetSelection.assets(*CELL_ASSETS) - NO_FAILED,
    description="One platform and year in one run, from the search to the chip index.",
)
merge = dg.define_asset_job(
    "merge", dg.AssetSelection.assets("merged_index"), description="All chip indexes as one dataset."
)
daily_checks = dg.define_asset_job(
    "daily_checks",
    NO_FAILED
    | dg.AssetSelection.checks(
        *(dg.AssetCheckKey(dg.AssetKey("merged_index"), name) for name in ("reconciled", "up_to_date"))
    ),
    description="Whether a partition is left failed, and whether the merged index is up to date.",
)
recheck = dg.define_asset_job(
    "recheck",
    dg.AssetSelection.checks(*STORED),
    description="Everything that is stored is read and checked again, every cell of it.",
)


class WhatToBuild(dg.Config):
    """What the job `all` builds."""

    platforms: list[str] = sorted(PLATFORMS)


@dg.op
def build_everything(context: dg.OpExecutionContext, config: WhatToBuild, clay: ClayResource) -> None:
    """Run every other job for every partition that the recipe asks for."""
    unbuilt, done = [], 0
    totals: list[int] = []
    wanted = steps(clay, config.platforms, totals.append)
    for step, result in run_steps(wanted, context.repository_def.get_job, context.instance):
        done += 1
        outcome = "skipped, as what it builds on failed" if result is None else "done" if result.success else "FAILED"
        context.log.info(f"{done}{f' of {totals[0]}' if totals else ''}: {step} {outcome}")
        if result is None or not result.success:
            unbuilt.append(str(step))
    if unbuilt:
        raise dg.Failure(f"{len(unbuilt)} of {done} runs did not succeed: {', '.join(unbuilt[:10])}")


@dg.job(name="all", description="Everything, for every platform and every year of the recipe, run by run.")
def everything() -> None:
    """The whole chain."""
    build_everything()


ALL: list[Any] = [landcover, sampling, requests, scenes, chips, cell, merge, daily_checks, recheck, everything]
