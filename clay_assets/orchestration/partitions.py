"""The partitions: platform, and platform × year. Tiles and scenes are rows and files, not partitions.

Dagster sorts dimension names, so a key reads `sentinel-2-l2a|2020`.
"""

from __future__ import annotations

import dagster as dg
from dagster import AssetPartitionStatus

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import FIRST_YEAR

platforms = dg.StaticPartitionsDefinition(sorted(PLATFORMS))
years = dg.TimeWindowPartitionsDefinition(start=str(FIRST_YEAR), cron_schedule="0 0 1 1 *", fmt="%Y", end_offset=1)
cells = dg.MultiPartitionsDefinition({"platform": platforms, "year": years})

PARTITION_TAG = "dagster/partition"


def status_of(
    instance: dg.DagsterInstance, asset: str, partitions: dg.PartitionsDefinition[str]
) -> dict[str, AssetPartitionStatus | None]:
    """Partition key → status of its latest run, None if it has none."""
    found = instance.get_status_by_partition(dg.AssetKey(asset), partitions.get_partition_keys(), partitions)
    return dict(found or {})


def key_of_cell(platform: str, year: int) -> str:
    """Partition key of a cell."""
    return f"{platform}|{year}"


def cell_of_key(key: str) -> tuple[str, str]:
    """Platform and year in a cell's partition key."""
    platform, _, year = key.partition("|")
    return platform, year


def cell_of(context: dg.AssetExecutionContext) -> tuple[str, int]:
    """Platform and year of the partition that is being materialised."""
    # A run launched with only the tag `dagster/partition` has a plain string as its key.
    platform, year = cell_of_key(str(context.partition_key))
    return platform, int(year)
