"""Schedules and sensors.

All are stopped until they are turned on, in the UI under *Automation* or with `dagster schedule start` and
`dagster sensor start`. The condition under which `merged_index` is refreshed stands on the asset.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster import AssetPartitionStatus

from clay_assets.orchestration.partitions import PARTITION_TAG, cells, key_of_cell, status_of
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe
from clay_assets.runs import jobs
from clay_assets.stages import PARTITIONED, assets_by_job, cell_assets

RETRY_OF = "clay/retry_of"  # tag: the run that failed
# Dagster's own tags, of runs that it tried again (`run_retries` in dagster.yaml).
RETRY_NUMBER, WILL_RETRY, MAX_RETRIES = (f"dagster/{name}" for name in ("retry_number", "will_retry", "max_retries"))
LAST_OF_CELL = "chip_landcover"  # what the merge waits for
RETRY_INTERVAL = 600  # seconds; what made a run fail may have passed by then
MERGE_INTERVAL = 300  # seconds

# Partitioned asset → the job that re-runs it.
_JOB_OF = {
    asset.key.to_user_string(): jobs.cell.name if asset.key.to_user_string() in cell_assets() else name
    for name, assets in assets_by_job().items()
    for asset in assets
    if asset.partitions_def is not None
}
_OTHER_JOBS = sorted(set(_JOB_OF.values()) - {jobs.cell.name})

refresh_merged_index = dg.AutomationConditionSensorDefinition(
    "refresh_merged_index",
    target=dg.AssetSelection.assets("merged_index"),
    minimum_interval_seconds=MERGE_INTERVAL,
    description="Materialises merged_index when chips and their land cover have changed, once no cell is in progress.",
)


@dg.schedule(
    cron_schedule="0 3 1 * *",
    job=jobs.cell,
    description=(
        "Every month: requests each platform and year of the recipe that lacks chips or their land cover, newest year "
        "first."
    ),
)
def fill_missing_cells(
    context: dg.ScheduleEvaluationContext, clay: ClayResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request what is missing of the recipe's years, the current one included."""
    day = context.scheduled_execution_time
    recipe = clay.recipe()
    instance = context.instance
    status = status_of(instance, LAST_OF_CELL, cells) | dict.fromkeys(
        instance.get_materialized_partitions(dg.AssetKey(LAST_OF_CELL)), AssetPartitionStatus.MATERIALIZED
    )
    waiting = (AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.IN_PROGRESS)
    wanted = [
        (year, key)
        for key in PLATFORMS
        for year in range(recipe.options(key).years[0], min(recipe.options(key).years[1], day.year) + 1)
        if status.get(key_of_cell(key, year)) not in waiting
    ]
    # Run keys differ from month to month: what is missing then is asked for again.
    yield from _asked(context, recipe, sorted(wanted, key=lambda cell: (-cell[0], cell[1])), f"{day:%Y-%m-%d}")


@dg.schedule(
    cron_schedule="0 4 15 1 *",
    job=jobs.cell,
    description=(
        "In January, when the last scenes of the old year have been published: requests that year of each platform "
        "whose years in the recipe include it, even if it was materialised before it was over."
    ),
)
def new_year(context: dg.ScheduleEvaluationContext, clay: ClayResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the past year again, now that it is complete."""
    over = context.scheduled_execution_time.year - 1
    recipe = clay.recipe()
    ranges = {key: recipe.options(key).years for key in sorted(PLATFORMS)}
    wanted = [(over, key) for key, (first, last) in ranges.items() if first <= over <= last]
    if not wanted:
        yield dg.SkipReason(
            f"The recipe {recipe.name} draws nothing from {over}: its last year is "
            f"{max(last for _, last in ranges.values())}. Raise `years` in a recipe of your own, name it in "
            "CLAY_RECIPE, and materialise scene_requests again."
        )
        return
    yield from _asked(context, recipe, wanted, "complete")


@dg.sensor(
    jobs=[jobs.cell, *(jobs.BY_NAME[name] for name in _OTHER_JOBS)],
    minimum_interval_seconds=RETRY_INTERVAL,
    description=(
        "Runs the failed assets of a partition once more. A partition whose latest run was such a retry, or one that "
        "Dagster's run_retries made, is left for a person to look at."
    ),
)
def retry_failed_cells(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Failed partitions, each once."""
    failed: dict[tuple[str, str], list[str]] = {}
    for asset, partitions in PARTITIONED.items():
        for partition, status in status_of(context.instance, asset, partitions).items():
            if status is AssetPartitionStatus.FAILED:
                failed.setdefault((partition, _JOB_OF[asset]), []).append(asset)
    left = []
    for (partition, job), assets in sorted(failed.items()):
        latest = next(iter(context.instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: partition}), limit=1)), None)
        if latest is None or latest.status is not dg.DagsterRunStatus.FAILURE or _was_retried(latest.tags):
            left.append(partition)
            continue
        yield dg.RunRequest(
            run_key=f"retry of {latest.run_id}",
            job_name=job,
            partition_key=partition,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            tags={RETRY_OF: latest.run_id, MAX_RETRIES: "0"},
        )
    if len(left) == len(failed):
        why = f"retried already, cancelled, or about to be retried: {', '.join(left)}" if left else "nothing failed"
        yield dg.SkipReason(why)


daily_checks = dg.ScheduleDefinition(
    name="daily_checks",
    cron_schedule="0 6 * * *",
    job=jobs.daily_checks,
    description="Every day: checks that no partition is left failed, and that the merged index is up to date.",
)

SCHEDULES = [fill_missing_cells, new_year, daily_checks]
SENSORS = [refresh_merged_index, retry_failed_cells]


def _asked(
    context: dg.ScheduleEvaluationContext, recipe: Recipe, wanted: list[tuple[int, str]], when: str
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """A run for each cell whose platform has requests by this recipe; others would run, and find the wrong scenes."""
    ready = {key for key in PLATFORMS if _requests_are_of(context.instance, key, recipe)}
    unready = sorted({key for _, key in wanted} - ready)
    first_do = (
        f"Materialise scene_requests of {', '.join(unready)}: there are none by the recipe {recipe.name} as it is now."
    )
    if unready:
        context.log.warning(first_do)
    asked = [(year, key) for year, key in wanted if key in ready]
    for year, key in asked:
        cell = key_of_cell(key, year)
        yield dg.RunRequest(run_key=f"{cell} {when}", partition_key=cell)
    if not asked:
        yield dg.SkipReason(first_do if unready else f"Nothing is missing of the recipe {recipe.name}.")


def _requests_are_of(instance: dg.DagsterInstance, platform: str, recipe: Recipe) -> bool:
    """Whether the searches of a platform were made by a recipe, or by one that differs in exclusions alone that none of
    them depends on.
    """
    asked = dg.AssetRecordsFilter(dg.AssetKey("scene_requests"), asset_partitions=[platform])
    for record in instance.fetch_materializations(asked, limit=1).records:
        made = record.asset_materialization
        if made is not None and "recipe_hash" in made.metadata:
            document = made.metadata.get("recipe_document")
            return made.metadata["recipe_hash"].value == recipe.hash or (
                document is not None and _asked_by(document.value, platform) == _asked_by(recipe.document, platform)
            )
    return False


def _asked_by(document: Any, platform: str) -> object:
    """What the searches of a platform depend on in a recipe's document: all but exclusions of what is not searched for
    before there are requests.
    """
    choices: dict[str, Any] = dict(json.loads(document) if isinstance(document, str) else document)
    excluded = choices.pop("exclude", [])
    searched = PLATFORMS[platform].rules.resolve is not None
    return choices, [one["scene"] for one in excluded if searched and one["platform"] == platform and one["scene"]]


def _was_retried(tags: Mapping[str, str]) -> bool:
    return RETRY_OF in tags or RETRY_NUMBER in tags or tags.get(WILL_RETRY) == "true"
