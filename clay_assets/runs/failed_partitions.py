"""The check that no partition is left failed. The schedule `daily_checks` runs it; it can also be run in the UI.

It covers all partitions, so it is not partitioned itself. The other checks are: their partitions, a preview feature of
Dagster 1.13, show which cell breaks a rule.
"""

from dataclasses import dataclass

import dagster as dg
from dagster import AssetPartitionStatus

from clay_assets.orchestration.failures import step_error
from clay_assets.orchestration.metadata import table
from clay_assets.orchestration.partitions import PARTITION_TAG, status_of
from clay_assets.stages import PARTITIONED

NO_PARTITION_FAILED = "no_partition_failed"
SHOWN = 20  # failed partitions for which the error is shown


def _check_of(asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=NO_PARTITION_FAILED,
        description="No partition's latest run failed; lists those that did, and why.",
    )
    def no_partition_failed(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        status = status_of(context.instance, asset, PARTITIONED[asset])
        by_status = {wanted: [key for key, found in status.items() if found is wanted] for wanted in _STATUSES}
        failed = by_status[AssetPartitionStatus.FAILED]
        return dg.AssetCheckResult(
            passed=not failed,
            metadata={
                "failed": len(failed),
                "materialized": len(by_status[AssetPartitionStatus.MATERIALIZED]),
                "in_progress": len(by_status[AssetPartitionStatus.IN_PROGRESS]),
                "partitions_failed": table(
                    [_record(context.instance, partition) for partition in failed[:SHOWN]], most=SHOWN
                ),
                "what_to_do": "fix the cause and re-run the partition; completed work is kept",
            },
        )

    return no_partition_failed


_STATUSES = tuple(AssetPartitionStatus)
CHECKS = [_check_of(asset) for asset in PARTITIONED]


@dataclass(frozen=True)
class Failure:
    """A run that failed: its id, when it ended, the step that failed first, and that step's error in one line."""

    run_id: str
    when: str
    step: str
    error: str


def last_failure(instance: dg.DagsterInstance, partition: str) -> Failure:
    """The latest failed run of a partition; with an empty id if Dagster no longer knows it."""
    runs = instance.get_run_records(
        dg.RunsFilter(tags={PARTITION_TAG: partition}, statuses=[dg.DagsterRunStatus.FAILURE]), limit=1
    )
    if not runs:
        return Failure("", "", "", "its run has been deleted")
    run = runs[0]
    run_id, when = run.dagster_run.run_id, f"{run.update_timestamp:%Y-%m-%d %H:%M}"
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    failures = [event.dagster_event for event in events if event.dagster_event is not None]
    if not failures:
        return Failure(run_id, when, "", "the run ended without an error message: killed, or never started")
    return Failure(run_id, when, failures[0].step_key or "", step_error(failures[0]))


def _record(instance: dg.DagsterInstance, partition: str) -> dict[str, str]:
    """A failed partition as a row: time, run, and the first error of that run."""
    failure = last_failure(instance, partition)
    run = failure.run_id.partition("-")[0]
    return {"partition": partition, "run": run, "when": failure.when, "error": failure.error}
