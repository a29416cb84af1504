"""How checks of stored tables are declared, run and reported.

A check reads what was published, so it can be run again at any time, and fails where a file was damaged or replaced.
In the run of a partition it looks at that cell; run by itself, as *Execute* in the UI and the job `recheck` do, it
looks at every cell that is stored. It has no partitions of its own: those of checks are a preview in Dagster 1.13,
whose UI, jobs and backfills cannot run them by themselves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.errors import InputError
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.validity import SHOWN, Finding, finding, together

if TYPE_CHECKING:
    import pyarrow as pa

    from clay_assets.storage.stores import Store

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True)
class Check:
    """One check of an asset.

    Attributes:
        name: of the check.
        rule: what has to hold, as a sentence.
        severity: what it is when it does not.
    """

    name: str
    rule: str
    severity: dg.AssetCheckSeverity = ERROR


# (context, clay, *cell) → findings by the names of the checks; a cell is platform and year.
Look = Callable[..., Mapping[str, Finding]]


def checks_of(
    asset: str, checks: Sequence[Check], cells_in: str | None = None
) -> Callable[[Look], dg.AssetChecksDefinition]:
    """Declare a function that looks at an asset's stored tables as the asset's checks; each file is read once for all.

    Args:
        asset: its key.
        checks: what the function finds.
        cells_in: folder that has a table for each cell, if the asset has cells.
    """
    severities = {check.name: check.severity for check in checks}

    def declare(look: Look) -> dg.AssetChecksDefinition:
        @dg.multi_asset_check(
            name=f"{look.__name__}_checks",
            specs=[dg.AssetCheckSpec(check.name, asset=asset, description=check.rule) for check in checks],
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
    """A finding as the result of a check: its numbers, what breaks the rule, and its rows if it has any."""
    metadata: dict[str, Any] = {**found.numbers, "violated": found.violated}
    if not found.holds:
        metadata["violations"] = violations_table(found)
    if found.rows:
        metadata["rows"] = table(found.rows)
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=found.holds,
        severity=severity,
        description=found.told or None,
        metadata=metadata,
    )


def violations_table(found: Finding) -> dg.MarkdownMetadataValue:
    """What breaks a rule, as a small table."""
    rows = [*found.violations, *([f"… and {found.untold:,} more"] if found.untold else [])]
    return table([{"violation": row} for row in rows], most=SHOWN + 1)


def stored_table(store: "Store", key: str, made_by: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """Some columns of a stored table.

    Args:
        store: where it lies.
        key: of its file.
        made_by: the asset that makes it, for the message.
        columns: their names; None: all.

    Raises:
        FileNotFoundError: it is not there.
        InputError: it is no Parquet, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = store.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{store.uri(key)} does not exist: materialise {made_by}") from error
    try:
        return pq.read_table(pa.BufferReader(content), columns=list(columns) if columns else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{store.uri(key)} cannot be read ({error}): materialise {made_by} again") from error


def _found(
    asset: str,
    look: Look,
    context: dg.AssetCheckExecutionContext,
    clay: ClayResource,
    names: list[str],
    cells_in: str | None,
) -> Mapping[str, Finding]:
    """What is found in the asset's one table, in the cell of the run, or in all cells that are stored."""
    if cells_in is None:
        try:
            return _looked(look, context, clay, names)
        except FileNotFoundError as error:
            never_made = context.instance.get_latest_materialization_event(dg.AssetKey(asset)) is None
            return {name: finding([] if never_made else [str(error)], not_there=str(error)) for name in names}
    if context.has_partition_key:
        cell = str(context.partition_key)
        findings = _looked(look, context, clay, names, *cell.split("|"))
        return {name: replace(one, numbers={"cell": cell, **one.numbers}) for name, one in findings.items()}
    found: dict[str, dict[str, Finding]] = {name: {} for name in names}
    for key in clay.store().list(cells_in, ".parquet"):
        platform, year = key.removesuffix(".parquet").split("/")[-2:]
        for name, one in _looked(look, context, clay, names, platform, year).items():
            found[name][f"{platform}|{year}"] = one
    wholes = {name: together(cells) for name, cells in found.items()}
    return {
        name: replace(whole, numbers={"cells": len(found[name]), **whole.numbers}) for name, whole in wholes.items()
    }


def _looked(
    look: Look, context: dg.AssetCheckExecutionContext, clay: ClayResource, names: list[str], *cell: str
) -> Mapping[str, Finding]:
    """What is found; a table that cannot be read breaks every rule, and so does one of a cell that is not there."""
    try:
        return look(context, clay, *cell)
    except FileNotFoundError as error:
        if not cell:
            raise
        return {name: finding([str(error)]) for name in names}
    except InputError as error:
        return {name: finding([str(error)]) for name in names}
