"""The jobs: one per group of assets with the same partitions, one for a cell, the checks, and the whole chain."""

from typing import Any

import dagster as dg

from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.runs.failed_partitions import CHECKS as FAILED_PARTITIONS
from clay_assets.runs.whole_chain import run_steps, steps
from clay_assets.stages import CHECKS, assets_by_job, cell_assets, daily_check_keys

# These cover all partitions, so they are not part of a single partition's run.
FAILED_PARTITION_CHECKS = dg.AssetSelection.checks(*FAILED_PARTITIONS)


def _job_of(name: str, assets: list[dg.AssetsDefinition]) -> Any:
    names = [asset.key.to_user_string() for asset in assets]
    return dg.define_asset_job(
        name,
        dg.AssetSelection.assets(*names) - FAILED_PARTITION_CHECKS,
        description=f"Materialises {', '.join(names)}.",
    )


BY_GROUP = [_job_of(name, assets) for name, assets in assets_by_job().items()]
cell = dg.define_asset_job(
    "cell",
    dg.AssetSelection.assets(*cell_assets()) - FAILED_PARTITION_CHECKS,
    description=f"One platform and year in one run: {', '.join(cell_assets())}.",
)
daily_checks = dg.define_asset_job(
    "daily_checks",
    FAILED_PARTITION_CHECKS | dg.AssetSelection.checks(*daily_check_keys()),
    description="Checks that no partition is left failed, and that the merged index is complete and up to date.",
)
recheck = dg.define_asset_job(
    "recheck",
    dg.AssetSelection.checks(*CHECKS),
    description="Reads everything in the storage and checks it again, cell by cell.",
)


class WhatToBuild(dg.Config):
    """What the job `all` builds."""

    platforms: list[str] = sorted(PLATFORMS)


@dg.op
def build_whole_chain(context: dg.OpExecutionContext, config: WhatToBuild, clay: ClayResource) -> None:
    """Run every other job for every partition of the recipe."""
    unbuilt, done = [], 0
    totals: list[int] = []
    wanted = steps(clay, config.platforms, totals.append)
    for step, result in run_steps(wanted, context.repository_def.get_job, context.instance):
        done += 1
        outcome = "skipped, as an earlier step failed" if result is None else "done" if result.success else "FAILED"
        context.log.info(f"{done}{f' of {totals[0]}' if totals else ''}: {step} {outcome}")
        if result is None or not result.success:
            unbuilt.append(str(step))
    if unbuilt:
        raise dg.Failure(f"{len(unbuilt)} of {done} runs did not succeed: {', '.join(unbuilt[:10])}")


@dg.job(name="all", description="The whole chain, for every platform and year of the recipe, run by run.")
def whole_chain() -> None:
    """Run the whole chain."""
    build_whole_chain()


ALL: list[Any] = [*BY_GROUP, cell, daily_checks, recheck, whole_chain]
BY_NAME = {job.name: job for job in ALL}
