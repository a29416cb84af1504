"""The check of `mgrs_sample`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.findings import Finding
from clay_assets.orchestration.checks import WARN, Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.storage import layout

if TYPE_CHECKING:
    import pandas as pd


@checks_of(
    "mgrs_sample",
    [
        Check(
            "rules_have_their_count",
            "Every rule of the recipe drew as many tiles as it asks for, or all candidates if there are fewer.",
            WARN,
        )
    ],
)
def mgrs_sample(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Check the sample against the land cover that it was drawn from."""
    from clay_assets.sampling.rules import rules_have_their_count
    from clay_assets.sampling.tiles import CLASS_COLUMNS

    store = clay.store()

    def land_cover() -> "pd.DataFrame":
        key = layout.table("worldcover_stats")
        stats: pd.DataFrame = stored_table(
            store, key, "worldcover_stats", ["name", "count", *CLASS_COLUMNS]
        ).to_pandas()
        return stats

    sample = stored_table(store, layout.table("mgrs_sample"), "mgrs_sample", ["name", "rules"]).to_pandas()
    return {"rules_have_their_count": rules_have_their_count(sample, clay.recipe(), land_cover)}


CHECKS = [mgrs_sample]
