"""The list of stages, from which definitions, jobs, the recheck, automation and partition checks are derived.

A stage is a folder whose `assets.py` exposes three names: `ASSETS`, `CHECKS` (of stored tables) and `RESOURCES` (key →
IO manager factory that takes `clay`). Checks that belong to no stage, such as `reconciled`, are listed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import dagster as dg

from clay_assets.orchestration.checks import DAILY_TAG
from clay_assets.orchestration.partitions import cells
from clay_assets.orchestration.stage import JOB_TAG

STAGES = (
    "clay_assets.landcover.assets",
    "clay_assets.sampling.assets",
    "clay_assets.scenes.assets",
    "clay_assets.chips.assets",
    "clay_assets.training.assets",
    "clay_assets.reconciliation.checks",
)
_MODULES = [import_module(stage) for stage in STAGES]

MERGED = "merged_index"  # its downstream assets are not part of a cell

ASSETS: Sequence[dg.AssetsDefinition] = [asset for stage in _MODULES for asset in stage.ASSETS]
CHECKS: Sequence[dg.AssetChecksDefinition] = [check for stage in _MODULES for check in stage.CHECKS]
RESOURCES: dict[str, Any] = {key: factory for stage in _MODULES for key, factory in stage.RESOURCES.items()}

# Partitioned asset → its partitions, in the order of the chain.
PARTITIONED: dict[str, dg.PartitionsDefinition[str]] = {
    asset.key.to_user_string(): asset.partitions_def for asset in ASSETS if asset.partitions_def is not None
}


def assets_by_job() -> dict[str, list[dg.AssetsDefinition]]:
    """Job → its assets, in the order of the chain.

    Raises:
        ValueError: assets of one job have different partitions, which one run cannot contain.
    """
    jobs: dict[str, list[dg.AssetsDefinition]] = {}
    for asset in ASSETS:
        jobs.setdefault(asset.tags_by_key[asset.key][JOB_TAG], []).append(asset)
    for name, assets in jobs.items():
        if len({asset.partitions_def for asset in assets}) > 1:
            listed = ", ".join(asset.key.to_user_string() for asset in assets)
            raise ValueError(f"job {name}: {listed} have different partitions. Give some of them their own `job`.")
    return jobs


def cell_assets() -> list[str]:
    """The assets of one platform and year in the order of the chain, up to the merge."""
    after_merge = {MERGED}
    for asset in ASSETS:
        if {key.to_user_string() for key in asset.dependency_keys} & after_merge:
            after_merge.add(asset.key.to_user_string())
    return [name for name, partitions in PARTITIONED.items() if partitions == cells and name not in after_merge]


def daily_check_keys() -> list[dg.AssetCheckKey]:
    """The checks that run every day."""
    specs = [spec for check in CHECKS for spec in check.check_specs]
    return [spec.key for spec in specs if (spec.metadata or {}).get(DAILY_TAG)]
