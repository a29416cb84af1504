"""The partitions: platform, and platform × year. Never a tile or a scene; those are rows and files.

Dimension names sort, so a key reads `sentinel-2-l2a|2020`.
"""

from __future__ import annotations

import dagster as dg

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import FIRST_YEAR

platforms = dg.StaticPartitionsDefinition(sorted(PLATFORMS))
years = dg.TimeWindowPartitionsDefinition(start=str(FIRST_YEAR), cron_schedule="0 0 1 1 *", fmt="%Y", end_offset=1)
cells = dg.MultiPartitionsDefinition({"platform": platforms, "year": years})


def key_of_cell(platform: str, year: int) -> str:
    """Partition key of a cell."""
    return f"{platform}|{year}"


def cell_of(context: dg.AssetExecutionContext) -> tuple[str, int]:
    """Platform and year of the partition that is being materialised."""
    # A run launched with the one tag `dagster/partition` has a plain string for its key.
    platform, _, year = str(context.partition_key).partition("|")
    return platform, int(year)
