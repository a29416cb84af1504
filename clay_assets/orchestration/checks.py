"""How checks are declared, run and reported.

There are two kinds. Checks of what only the run knows, such as failures that were skipped, are returned by the asset
with its materialisation. Checks of stored tables read published files, so they can be re-run at any time and detect
damaged or replaced files.

Checks of a partitioned asset share its partitions, so the UI shows which cell fails. In the run of a partition they
check that cell. Run on their own, without a partition, they check every stored cell, and report each as its own
partition plus all of them together. *Execute all* in the UI does so, as does the job `recheck`, which has no partitions
because a job's partitions come only from its assets. Partitions of checks are a preview in Dagster 1.13: its UI cannot
execute a single partitioned check, and its backfills only run checks together with their assets.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from clay_assets.errors import InputError
from clay_assets.findings import SHOWN, Finding, combined, make_finding
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.partitions import cell_of_key, cells, key_of_cell
from clay_assets.orchestration.resources import ClayResource

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from clay_assets.storage.stores import Store

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
FAILURES_SHOWN = 20
DAILY_TAG = "clay/daily"  # tag of checks that read little and are worth running every day

AnyPartitions: TypeAlias = dg.PartitionsDefinition[Any]


@dataclass(frozen=True)
class Check:
    """One check of an asset.

    Attributes:
        name: the check's name.
        rule: the rule, as a sentence.
        severity: severity of a violation.
    """

    name: str
    rule: str
    severity: dg.AssetCheckSeverity = ERROR


# --- checks that an asset returns --------------------------------------------------------------------------------


def none_failed_spec(asset: str, what: str, partitions: AnyPartitions | None = None) -> dg.AssetCheckSpec:
    """The check that nothing failed; `partitions` are the asset's."""
    return _spec(f"no_failed_{what}", asset, f"None of the {what} failed.", partitions)


def none_failed(asset: str, what: str, failures: "pd.DataFrame", of: int, tolerance: float) -> dg.AssetCheckResult:
    """Report failures as a warning: the run continues within the recipe's tolerance."""
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=f"no_failed_{what}",
        passed=failures.empty,
        severity=WARN,
        metadata={"failed": len(failures), "of": of, "tolerance": tolerance, "failures": failures_table(failures)},
    )


def returned_spec(asset: str, check: Check, partitions: AnyPartitions | None = None) -> dg.AssetCheckSpec:
    """A check whose result the asset returns with `report`; `partitions` are the asset's."""
    return _spec(check.name, asset, check.rule, partitions)


def agreement_spec(asset: str, name: str, description: str) -> dg.AssetCheckSpec:
    """A check that counts agree with what was published or requested."""
    return _spec(name, asset, description)


def agreement(asset: str, name: str, differences: Mapping[str, Sequence[str]]) -> dg.AssetCheckResult:
    """Report differences as a warning: they may be intended, but should be visible."""
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


# (context, clay, *cell) → findings by check name; a cell is platform and year.
Look = Callable[..., Mapping[str, Finding]]


def checks_of(
    asset: str, checks: Sequence[Check], cells_in: str | None = None, *, daily: bool = False
) -> Callable[[Look], dg.AssetChecksDefinition]:
    """Declare an asset's checks from a function that reads its stored tables, so that each file is read only once.

    Args:
        asset: asset key.
        checks: the checks that the function returns findings for.
        cells_in: folder with a table for each cell, if the asset has cells.
        daily: whether the job `daily_checks` also runs them.
    """
    severities = {check.name: check.severity for check in checks}
    partitions = cells if cells_in is not None else None

    def declare(look: Look) -> dg.AssetChecksDefinition:
        @dg.multi_asset_check(
            name=f"{look.__name__}_checks",
            specs=[_spec(check.name, asset, check.rule, partitions, {DAILY_TAG: daily}) for check in checks],
            can_subset=True,
            compute_kind="python",
        )
        def evaluate(
            context: dg.AssetCheckExecutionContext, clay: ClayResource
        ) -> Iterator[dg.AssetCheckResult | dg.AssetCheckEvaluation]:
            wanted = sorted(key.name for key in context.selected_asset_check_keys)
            if cells_in is not None and not context.has_partition_key:
                severity_of = {name: severities[name] for name in wanted}
                yield from _of_every_cell(asset, look, context, clay, severity_of, cells_in)
                return
            if cells_in is None:
                findings = _of_table(asset, look, context, clay, wanted)
            else:
                findings = _looked(look, context, clay, wanted, *cell_of_key(str(context.partition_key)))
            for name in wanted:
                yield report(asset, name, findings[name], severities[name])

        return evaluate

    return declare


def report(asset: str, name: str, found: Finding, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    """Report a finding as a check result: numbers, violations, and rows if it has any."""
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
    """Read columns of a stored table.

    Args:
        store: the table's storage.
        key: key of the table's file.
        made_by: the asset that writes the table, for messages.
        columns: names of the columns; None: all.

    Raises:
        FileNotFoundError: file not found.
        InputError: not a Parquet file, or a column is missing.
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
        raise InputError(f"{store.uri(key)}: cannot be read ({error}). Re-materialise {made_by}.") from error


def _spec(
    name: str,
    asset: str,
    description: str,
    partitions: AnyPartitions | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # for partitions; users need not see the warning
        return dg.AssetCheckSpec(
            name, asset=asset, description=description, partitions_def=partitions, metadata=metadata
        )


def _of_table(
    asset: str, look: Look, context: dg.AssetCheckExecutionContext, clay: ClayResource, names: list[str]
) -> Mapping[str, Finding]:
    """The findings in an unpartitioned asset's table; none if it was never materialised."""
    try:
        return _looked(look, context, clay, names)
    except FileNotFoundError as error:
        never_made = context.instance.get_latest_materialization_event(dg.AssetKey(asset)) is None
        return {name: make_finding([] if never_made else [str(error)], not_there=str(error)) for name in names}


def _of_every_cell(
    asset: str,
    look: Look,
    context: dg.AssetCheckExecutionContext,
    clay: ClayResource,
    severities: Mapping[str, dg.AssetCheckSeverity],
    folder: str,
) -> Iterator[dg.AssetCheckEvaluation]:
    """Check every stored cell in a run without partitions: one evaluation per check and cell, and one of all cells.

    These are evaluations rather than results, because Dagster takes a result's partition from its run, and rejects
    results of partitioned checks in an unpartitioned run.
    """
    made, found = {}, {}
    for key in clay.store().list(folder, ".parquet"):
        platform, year = key.removesuffix(".parquet").split("/")[-2:]
        cell = key_of_cell(platform, int(year))
        made[cell] = _latest(context.instance, asset, cell)  # before reading, as it may be re-materialised meanwhile
        found[cell] = _looked(look, context, clay, list(severities), platform, year)
    for ok in (True, False):  # the UI shows the latest evaluation of a check first
        for name, severity in severities.items():
            for cell, findings in found.items():
                if findings[name].ok is ok:
                    yield _evaluation(report(asset, name, findings[name], severity), made[cell], cell)
    for name, severity in severities.items():
        whole = combined({cell: findings[name] for cell, findings in found.items()})
        counted = replace(whole, numbers={"cells": len(found), **whole.numbers})
        yield _evaluation(report(asset, name, counted, severity))


def _evaluation(
    result: dg.AssetCheckResult,
    made: AssetCheckEvaluationTargetMaterializationData | None = None,
    cell: str | None = None,
) -> dg.AssetCheckEvaluation:
    """Convert a result to an evaluation of one partition, or of none."""
    assert result.asset_key is not None
    assert result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        metadata=result.metadata,
        target_materialization_data=made,
        severity=result.severity,
        description=result.description,
        partition=cell,
    )


def _latest(
    instance: dg.DagsterInstance, asset: str, partition: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialisation that an evaluation refers to, None if this instance has none. Without it, Dagster regards a
    materialised partition as not checked since.
    """
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    return next(
        (
            AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
            for record in records
        ),
        None,
    )


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
