"""The partitions: platform, and platform × year. Never a tile or a scene; those are rows and files.

Dimension names sort, so a key reads `sentinel-2-l2a|2020`.
"""

from __future__ import annotations

import dagster as dg
from dagster import AssetPartitionStatus

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import FIRST_YEAR

platforms = dg.StaticPartitionsDefinition(sorted(PLATFORMS))
years = dg.TimeWindowPartitionsDefinition(start=str(FIRST_YEAR), cron_schedule="0 0 1 1 *", fmt="%Y", end_offset=1)
cells = dg.MultiPartitionsDefinition({"platform": platforms, "year": years})

# In the order of the chain.
CELL_ASSETS = ("scene_picks", "scene_imagery", "chip_index")
PARTITIONED: dict[str, dg.PartitionsDefinition[str]] = {
    "scene_requests": platforms,
    **dict.fromkeys(CELL_ASSETS, cells),
}
PARTITION_TAG = "dagster/partition"


def status_of(instance: dg.DagsterInstance, asset: str) -> dict[str, AssetPartitionStatus | None]:
    """Partition key → how its latest run left it, None where there was none."""
    definition = PARTITIONED[asset]
    found = instance.get_status_by_partition(dg.AssetKey(asset), definition.get_partition_keys(), definition)
    return dict(found or {})


def key_of_cell(platform: str, year: int) -> str:
    """Partition key of a cell."""
    return f"{platform}|{year}"


def cell_of(context: dg.AssetExecutionContext) -> tuple[str, int]:
    """Platform and year of the partition that is being materialised."""
    # A run launched with the one tag `dagster/partition` has a plain string for its key.
    platform, _, year = str(context.partition_key).partition("|")
    return platform, int(year)
