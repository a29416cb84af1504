"""Runs and materialisations put into the history of a Dagster instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.events import AssetMaterializationPlannedData


def cell(platform: str, year: int) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"platform": platform, "year": str(year)})


def made(instance: dg.DagsterInstance, asset: str, partition: str, **metadata: Any) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, metadata=metadata))


def run_of(
    instance: dg.DagsterInstance,
    partition: str,
    assets: list[str],
    status: dg.DagsterRunStatus,
    **tags: str,
) -> str:
    """A run in the history that was to materialise some assets of a partition."""
    from dagster._core.test_utils import create_run_for_test

    platform, _, year = partition.partition("|")
    tags = {name.replace("__", "/"): value for name, value in tags.items()}
    if year:
        tags |= {"dagster/partition/platform": platform, "dagster/partition/year": year}
    run = create_run_for_test(
        instance,
        job_name="cell" if year else "requests",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": partition, **tags},
    )
    for asset in assets:
        key = cell(platform, int(year)) if year else partition
        planned = dg.AssetMaterialization(asset, partition=key)
        instance.report_dagster_event(
            dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
                job_name=run.job_name,
                event_specific_data=_planned(planned),
            ),
            run.run_id,
        )
    if status is dg.DagsterRunStatus.FAILURE:
        instance.report_run_failed(run, "made to fail")
    elif status is dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)
    return run.run_id


def _planned(materialization: dg.AssetMaterialization) -> AssetMaterializationPlannedData:
    from dagster._core.events import AssetMaterializationPlannedData

    return AssetMaterializationPlannedData(materialization.asset_key, partition=materialization.partition)
