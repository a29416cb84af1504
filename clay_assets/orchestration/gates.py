"""Gates stop an asset before it publishes. They are called in the asset's body, because a blocking check only stops
assets of the same run.

Checks of published tables are in `checks`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.findings import Finding
from clay_assets.orchestration.checks import failures_table, violations_table

if TYPE_CHECKING:
    import pandas as pd


def stop_if_too_many_failed(what: str, failures: pd.DataFrame, of: int, tolerance: float, where: str) -> None:
    """Stop before publishing if more failed than the recipe tolerates.

    A tolerance above 0 always allows one failure, so a single bad scene never fails a year, however small. This does
    not apply if `of` is 0, when failures happen before there is anything to try, such as listing sheets.

    Args:
        what: what was tried, in the plural.
        failures: one row per failure; the first column names it, the last is the error.
        of: number of attempts.
        tolerance: tolerated share of failures, 0 to 1.
        where: asset and partition, for the message.

    Raises:
        dagster.Failure: names the place, the share and the first failures.
    """
    tried = max(of, len(failures))
    allowed = max(1 if tolerance and of else 0, math.floor(tolerance * tried))
    if len(failures) <= allowed:
        return
    share = len(failures) / tried
    name, *_, error = failures.iloc[0]
    metadata: dict[str, Any] = {"failed": len(failures), "share": share, "tolerance": tolerance}
    raise dg.Failure(
        f"{where}: {len(failures)} {what} failed, {share:.1%}, more than the recipe's tolerance of {tolerance:.1%}. "
        f"First: {name}: {error} Nothing was published; fix the cause and re-run the partition.",
        metadata={**metadata, "failures": failures_table(failures)},
    )


def stop_if_broken(where: str, *findings: Finding) -> None:
    """Stop before publishing if a rule is broken.

    Raises:
        dagster.Failure: names the place and the first violations; its metadata has the numbers.
    """
    broken = [one for one in findings if not one.ok]
    if not broken:
        return
    first = broken[0]
    raise dg.Failure(
        f"{where}: {first.summary}. Nothing was published; fix the cause and re-run the asset.",
        metadata={**first.numbers, "violations": violations_table(first)},
    )
