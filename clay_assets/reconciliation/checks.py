"""The check `reconciled` of the merged index: the accounts of all platforms."""

import dagster as dg

from clay_assets.orchestration.checks import DAILY_TAG, WARN
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.resources import ClayResource


@dg.asset_check(
    asset="merged_index",
    description=(
        "Every planned request was answered, its scene indexed and merged, and counts are close to the published ones. "
        "The table lists published, planned and present counts per platform; `clay-assets reconcile` prints it."
    ),
    metadata={DAILY_TAG: True},
)
def reconciled(clay: ClayResource) -> dg.AssetCheckResult:
    """Compare stored counts with planned and published ones."""
    from clay_assets.reconciliation.accounts import disagreements, reconcile, records

    recipe = clay.recipe()
    accounts = reconcile(clay.store(), recipe)
    differing = disagreements(accounts, recipe.tolerance.published)
    return dg.AssetCheckResult(
        passed=not differing,
        severity=WARN,
        metadata={
            "accounts": table(records(accounts)),
            "differing": table([{"what": what} for what in differing]),
            "planned": "upper bounds: one scene of typical size per request, uncompressed",
        },
    )


ASSETS: list[dg.AssetsDefinition] = []
CHECKS = [reconciled]
RESOURCES: dict[str, object] = {}
