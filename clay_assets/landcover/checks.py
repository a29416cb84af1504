"""The check of `worldcover_stats`."""

from collections.abc import Mapping

import dagster as dg

from clay_assets.findings import Finding
from clay_assets.orchestration.checks import Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.storage import layout


@checks_of(
    "worldcover_stats",
    [Check("class_shares_sum_to_1", "The class shares of every tile are between 0 and 1 and sum to 1.")],
)
def worldcover_stats(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Check the shares."""
    from clay_assets.landcover.rules import CLASS_COLUMNS, shares_sum_to_one

    key = layout.table("worldcover_stats")
    stats = stored_table(clay.store(), key, "worldcover_stats", ["name", *CLASS_COLUMNS])
    return {"class_shares_sum_to_1": shares_sum_to_one(stats.to_pandas())}


CHECKS = [worldcover_stats]
