"""How checks are declared, run and reported.

Two kinds. An asset returns with its materialisation the checks of what only the run knows, such as what failed and
was set aside. The checks of stored tables read what was published, so they can be re-run at any time, and fail where a
file was damaged or replaced. In the run of a partition they check that cell; run by themselves, as *Execute* in the UI
and the job `recheck` do, they check every stored cell. They have no partitions of their own: those of checks are a
preview in Dagster 1.13, whose UI, jobs and backfills cannot run them by themselves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.errors import InputError
from clay_assets.findings import SHOWN, Finding, combined, make_finding
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.partitions import cell_of_key
from clay_assets.orchestration.resources import ClayResource

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from clay_assets.storage.stores import Store

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
FAILURES_SHOWN = 20
DAILY_TAG = "clay/daily"  # of checks that read little and are worth running every day

# --- checks that an asset returns --------------------------------------------------------------------------------


def none_failed_spec(asset: str, what: str) -> dg.AssetCheckSpec:
    """The check that nothing in a partition was set aside."""
    return dg.AssetCheckSpec(f"no_failed_{what}", asset=asset, description=f"No {what} of the partition failed.")


def none_failed(asset: str, what: str, failures: "pd.DataFrame", of: int, tolerance: float) -> dg.AssetCheckResult:
    """What was set aside, as a warning: within the recipe's tolerance the run goes on."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"no_failed_{what}",
        passed=failures.empty,
        severity=WARN,
        metadata={"failed": len(failures), "of": of, "tolerance": tolerance, "failures": failures_table(failures)},
    )


def agreement_spec(asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A check that something agrees with what was published or requested."""
    return dg.AssetCheckSpec(name, asset=asset, description=description)


def agreement(asset: str, name: str, differences: Mapping[str, Sequence[str]]) -> dg.AssetCheckResult:
    """The differences, as a warning: they may be intended, but somebody should know."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not any(differences.values()),
        severity=WARN,
        metadata={what: ", ".join(names) or "none" for what, names in differences.items()},
    )


def failures_table(failures: "pd.DataFrame") -> dg.MarkdownMetadataValue:
    """The first failures, as a small table."""
    return table(failures.to_dict("records"), most=FAILURES_SHOWN)


# --- checks of stored tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One check of an asset.

    Attributes:
        name: the check's name.
        rule: what must hold, as a sentence.
        severity: severity of a violation.
    """

    name: str
    rule: str
    severity: dg.AssetCheckSeverity = ERROR


# (context, clay, *cell) → findings by the names of the checks; a cell is platform and year.
Look = Callable[..., Mapping[str, Finding]]


def checks_of(
    asset: str, checks: Sequence[Check], cells_in: str | None = None, *, daily: bool = False
) -> Callable[[Look], dg.AssetChecksDefinition]:
    """Declare a function that reads an asset's stored tables as the asset's checks; each file is read once for all.

    Args:
        asset: asset key.
        checks: what the function finds.
        cells_in: folder with a table for each cell, if the asset has cells.
        daily: whether the job `daily_checks` runs them too.
    """
    severities = {check.name: check.severity for check in checks}

    def declare(look: Look) -> dg.AssetChecksDefinition:
        @dg.multi_asset_check(
            name=f"{look.__name__}_checks",
            specs=[
                dg.AssetCheckSpec(check.name, asset=asset, description=check.rule, metadata={DAILY_TAG: daily})
                for check in checks
            ],
            can_subset=True,
            compute_kind="python",
        )
        def evaluate(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Iterator[dg.AssetCheckResult]:
            findings = _found(asset, look, context, clay, list(severities), cells_in)
            for key in sorted(context.selected_asset_check_keys, key=lambda key: key.name):
                yield report(asset, key.name, findings[key.name], severities[key.name])

        return evaluate

    return declare


def report(asset: str, name: str, found: Finding, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    """A finding as the result of a check: its numbers, the violations, and its rows if it has any."""
    metadata: dict[str, Any] = {**found.numbers, "violation_count": found.violation_count}
    if not found.ok:
        metadata["violations"] = violations_table(found)
    if found.rows:
        metadata["rows"] = table(found.rows)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=found.ok,
        severity=severity,
        description=found.summary or None,
        metadata=metadata,
    )


def violations_table(found: Finding) -> dg.MarkdownMetadataValue:
    """The violations of a rule, as a small table."""
    rows = [*found.violations, *([f"… and {found.omitted:,} more"] if found.omitted else [])]
    return table([{"violation": row} for row in rows], most=SHOWN + 1)


def stored_table(store: "Store", key: str, made_by: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """Some columns of a stored table.

    Args:
        store: where it lies.
        key: key of its file.
        made_by: the asset that writes it, for the message.
        columns: their names; None: all.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is not Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = store.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{store.uri(key)}: file not found. Materialise {made_by}.") from error
    try:
        return pq.read_table(pa.BufferReader(content), columns=list(columns) if columns else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{store.uri(key)}: cannot be read ({error}). Materialise {made_by} again.") from error


def _found(
    asset: str,
    look: Look,
    context: dg.AssetCheckExecutionContext,
    clay: ClayResource,
    names: list[str],
    cells_in: str | None,
) -> Mapping[str, Finding]:
    """The findings in the asset's one table, in the cell of the run, or in all stored cells."""
    if cells_in is None:
        try:
            return _looked(look, context, clay, names)
        except FileNotFoundError as error:
            never_made = context.instance.get_latest_materialization_event(dg.AssetKey(asset)) is None
            return {name: make_finding([] if never_made else [str(error)], not_there=str(error)) for name in names}
    if context.has_partition_key:
        cell = str(context.partition_key)
        findings = _looked(look, context, clay, names, *cell_of_key(cell))
        return {name: replace(one, numbers={"cell": cell, **one.numbers}) for name, one in findings.items()}
    found: dict[str, dict[str, Finding]] = {name: {} for name in names}
    for key in clay.store().list(cells_in, ".parquet"):
        platform, year = key.removesuffix(".parquet").split("/")[-2:]
        for name, one in _looked(look, context, clay, names, platform, year).items():
            found[name][f"{platform}|{year}"] = one
    wholes = {name: combined(cells) for name, cells in found.items()}
    return {
        name: replace(whole, numbers={"cells": len(found[name]), **whole.numbers}) for name, whole in wholes.items()
    }


def _looked(
    look: Look, context: dg.AssetCheckExecutionContext, clay: ClayResource, names: list[str], *cell: str
) -> Mapping[str, Finding]:
    """The findings; an unreadable or missing table fails every check of the cell."""
    try:
        return look(context, clay, *cell)
    except FileNotFoundError as error:
        if not cell:
            raise
        return {name: make_finding([str(error)]) for name in names}
    except InputError as error:
        return {name: make_finding([str(error)]) for name in names}
