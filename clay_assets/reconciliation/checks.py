"""The check `reconciled`: the accounts of all platforms, on the merged index."""

import dagster as dg

from clay_assets.orchestration.checks import DAILY_TAG, WARN
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.resources import ClayResource


@dg.asset_check(
    asset="merged_index",
    description=(
        "Everything planned was answered, indexed and merged, and the counts lie near those of the published set. "
        "The table has the published, planned and present counts of each platform; `clay-assets reconcile` prints it."
    ),
    metadata={DAILY_TAG: True},
)
def reconciled(clay: ClayResource) -> dg.AssetCheckResult:
    """Compare what is stored with what was planned and what was published."""
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
            "planned": "upper bounds: one scene of typical size per request, nothing compressed",
        },
    )


ASSETS: list[dg.AssetsDefinition] = []
CHECKS = [reconciled]
RESOURCES: dict[str, object] = {}
