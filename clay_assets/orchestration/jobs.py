"""The jobs: one for each group of assets, and one for all.

The assets of a job share their partitions, so `scene_requests` (per platform) and `merged_index` (of everything) have
jobs of their own beside the rest of their groups.
"""

from typing import Any

import dagster as dg

from clay_assets.orchestration.everything import run_steps, steps
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS

landcover = dg.define_asset_job(
    "landcover",
    dg.AssetSelection.groups("landcover"),
    description="Tiling grid and land cover of every tile.",
)
sampling = dg.define_asset_job(
    "sampling", dg.AssetSelection.groups("sampling"), description="Which places are sampled."
)
requests = dg.define_asset_job(
    "requests", dg.AssetSelection.assets("scene_requests"), description="The searches of one platform."
)
scenes = dg.define_asset_job(
    "scenes",
    dg.AssetSelection.groups("scenes") - dg.AssetSelection.assets("scene_requests"),
    description="Scenes of one platform and year: searched, picked, and copied where the recipe says so.",
)
chips = dg.define_asset_job(
    "chips",
    dg.AssetSelection.groups("chips") - dg.AssetSelection.assets("merged_index"),
    description="Chip index of one platform and year.",
)
cell = dg.define_asset_job(
    "cell",
    dg.AssetSelection.assets("scene_picks", "scene_imagery", "chip_index"),
    description="One platform and year in one run, from the search to the chip index.",
)
merge = dg.define_asset_job(
    "merge", dg.AssetSelection.assets("merged_index"), description="All chip indexes as one dataset."
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


ALL: list[Any] = [landcover, sampling, requests, scenes, chips, cell, merge, everything]
