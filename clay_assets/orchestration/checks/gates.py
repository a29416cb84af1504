"""Gates, and the checks that an asset returns itself. A gate stands in the asset's body, before anything is published.

The checks of here speak of what only the run knows, such as what failed and was set aside; they come back with the
materialisation. An asset that returns both a value and checks has no return annotation: Dagster 1.13 reads
`MaterializeResult` there as "no value", and skips the IO manager. Checks of what is stored are beside this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.orchestration.checks.reports import violations_table
from clay_assets.orchestration.metadata import table
from clay_assets.validity import Finding

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 20  # failures shown in full


def none_failed_spec(asset: str, what: str) -> dg.AssetCheckSpec:
    """The check that nothing of a cell was set aside."""
    return dg.AssetCheckSpec(f"no_failed_{what}", asset=asset, description=f"No {what} of the partition failed.")


def none_failed(asset: str, what: str, failures: pd.DataFrame, of: int, tolerance: float) -> dg.AssetCheckResult:
    """What was set aside, as a warning: within the recipe's tolerance the run goes on."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"no_failed_{what}",
        passed=failures.empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failed": len(failures), "of": of, "tolerance": tolerance, "failures": _failures(failures)},
    )


def agreement_spec(asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A check that something agrees with what was published or asked for."""
    return dg.AssetCheckSpec(name, asset=asset, description=description)


def agreement(asset: str, name: str, differences: Mapping[str, Sequence[str]]) -> dg.AssetCheckResult:
    """What differs, as a warning: nothing is wrong with it, but somebody should know."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not any(differences.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={what: ", ".join(names) or "none" for what, names in differences.items()},
    )


def tolerate(what: str, failures: pd.DataFrame, of: int, tolerance: float, where: str) -> None:
    """Stop before publishing, where more failed than the recipe tolerates.

    A single failure is always within a tolerance above 0: one bad scene never fails a year, however small.

    Raises:
        dagster.Failure: names the place, the share and the first failures.
    """
    allowed = max(1, math.floor(tolerance * of)) if tolerance else 0
    if len(failures) <= allowed:
        return
    share = len(failures) / of
    name, *_, error = failures.iloc[0]
    metadata: dict[str, Any] = {"failed": len(failures), "share": share, "tolerance": tolerance}
    raise dg.Failure(
        f"{where}: {len(failures)} {what} failed, {share:.1%}, more than the recipe's tolerance of {tolerance:.1%}. "
        f"First: {name}: {error} Nothing was published; see to the cause and run the partition again.",
        metadata={**metadata, "failures": _failures(failures)},
    )


def demand(where: str, *findings: Finding) -> None:
    """Stop before publishing, where a rule is broken.

    Raises:
        dagster.Failure: names the place and the first violations; its metadata has the numbers.
    """
    broken = [one for one in findings if not one.holds]
    if not broken:
        return
    first = broken[0]
    raise dg.Failure(
        f"{where}: {first.told}. Nothing was published; see to the cause and run it again.",
        metadata={**first.numbers, "violations": violations_table(first)},
    )


def _failures(failures: pd.DataFrame) -> dg.MarkdownMetadataValue:
    return table(failures.to_dict("records"), most=SHOWN)
