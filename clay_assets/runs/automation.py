"""Schedules and sensors.

All are stopped by default. Turn them on in the UI under *Automation* or with `dagster schedule start` and `dagster
sensor start`. The automation condition of `merged_index` is set on the asset.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster import AssetPartitionStatus

from clay_assets.orchestration.partitions import PARTITION_TAG, cells, key_of_cell, status_of
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe
from clay_assets.runs import jobs
from clay_assets.stages import PARTITIONED, assets_by_job, cell_assets

RETRY_OF = "clay/retry_of"  # tag: id of the failed run
# Dagster's own tags of retried runs (`run_retries` in dagster.yaml).
RETRY_NUMBER, WILL_RETRY, MAX_RETRIES = (f"dagster/{name}" for name in ("retry_number", "will_retry", "max_retries"))
RETRY_SENSOR = "retry_failed_cells"
LAST_OF_CELL = "chip_landcover"  # the merge waits for it
RETRY_INTERVAL = 600  # seconds; temporary faults may be over by then
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
    """Request cells missing from the recipe's years, including the current year."""
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
    # Run keys differ from month to month, so cells that are still missing are requested again.
    yield from _asked(context, recipe, sorted(wanted, key=lambda cell: (-cell[0], cell[1])), f"{day:%Y-%m-%d}")


@dg.schedule(
    cron_schedule="0 4 15 1 *",
    job=jobs.cell,
    description=(
        "In January, when the last scenes of the past year have been published: requests that year again for each "
        "platform whose years in the recipe include it, even if it is already materialised."
    ),
)
def new_year(context: dg.ScheduleEvaluationContext, clay: ClayResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the past year again now that it is complete."""
    over = context.scheduled_execution_time.year - 1
    recipe = clay.recipe()
    ranges = {key: recipe.options(key).years for key in sorted(PLATFORMS)}
    wanted = [(over, key) for key, (first, last) in ranges.items() if first <= over <= last]
    if not wanted:
        yield dg.SkipReason(
            f"The recipe {recipe.name} does not include {over}: its last year is "
            f"{max(last for _, last in ranges.values())}. Extend `years` in your own recipe, set CLAY_RECIPE to "
            "it, and re-materialise scene_requests."
        )
        return
    yield from _asked(context, recipe, wanted, "complete")


@dataclass(frozen=True)
class Failed:
    """A partition with assets whose latest run failed, of one job.

    Attributes:
        partition: its key.
        job: the job that makes the assets again.
        assets: those that failed, or were not reached, in the order of the chain.
        latest: the latest run of the partition, whatever it was to make; None if Dagster no longer knows any.
    """

    partition: str
    job: str
    assets: tuple[str, ...]
    latest: dg.DagsterRun | None

    @property
    def in_progress(self) -> bool:
        """Whether a run of the partition has not ended."""
        return self.latest is not None and not self.latest.is_finished

    @property
    def dagster_will_retry(self) -> bool:
        """Whether Dagster itself is about to run it again (`run_retries` in dagster.yaml)."""
        return self.latest is not None and self.latest.tags.get(WILL_RETRY) == "true"

    @property
    def can_be_retried(self) -> bool:
        """Whether its failure is the first: no retry, by us or by Dagster, has been made or is about to be."""
        return (
            self.latest is not None
            and self.latest.status is dg.DagsterRunStatus.FAILURE
            and not (RETRY_OF in self.latest.tags or RETRY_NUMBER in self.latest.tags or self.dagster_will_retry)
        )

    def with_assets(self, assets: Iterable[str]) -> "Failed":
        """The same partition with further assets."""
        return replace(self, assets=(*self.assets, *assets))


def failed_partitions(instance: dg.DagsterInstance) -> list[Failed]:
    """The partitions whose latest run failed, per job that makes them again."""
    failed: dict[tuple[str, str], list[str]] = {}
    for asset, partitions in PARTITIONED.items():
        for partition, status in status_of(instance, asset, partitions).items():
            if status is AssetPartitionStatus.FAILED:
                failed.setdefault((partition, _JOB_OF[asset]), []).append(asset)
    latest = {
        partition: next(iter(instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: partition}), limit=1)), None)
        for partition in {partition for partition, _ in failed}
    }
    return [Failed(key, job, tuple(assets), latest[key]) for (key, job), assets in sorted(failed.items())]


@dg.sensor(
    name=RETRY_SENSOR,
    jobs=[jobs.cell, *(jobs.BY_NAME[name] for name in _OTHER_JOBS)],
    minimum_interval_seconds=RETRY_INTERVAL,
    description=(
        "Runs the failed assets of a partition once more. A partition whose latest run was such a retry, or one that "
        "Dagster's run_retries made, is left for a person to look at."
    ),
)
def retry_failed_cells(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request each failed partition once."""
    found = failed_partitions(context.instance)
    left = [failed.partition for failed in found if not failed.can_be_retried]
    for failed in found:
        if failed.can_be_retried and failed.latest is not None:
            yield dg.RunRequest(
                run_key=f"retry of {failed.latest.run_id}",
                job_name=failed.job,
                partition_key=failed.partition,
                asset_selection=[dg.AssetKey(asset) for asset in failed.assets],
                tags={RETRY_OF: failed.latest.run_id, MAX_RETRIES: "0"},
            )
    if len(left) == len(found):
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
    """A run for each cell whose platform has requests made with this recipe; the others would pick the wrong scenes."""
    ready = {key for key in PLATFORMS if _requests_are_of(context.instance, key, recipe)}
    unready = sorted({key for _, key in wanted} - ready)
    first_do = (
        f"Materialise scene_requests of {', '.join(unready)}: none were made with the current recipe {recipe.name}."
    )
    if unready:
        context.log.warning(first_do)
    asked = [(year, key) for year, key in wanted if key in ready]
    for year, key in asked:
        cell = key_of_cell(key, year)
        yield dg.RunRequest(run_key=f"{cell} {when}", partition_key=cell)
    if not asked:
        yield dg.SkipReason(first_do if unready else f"No cell of the recipe {recipe.name} is missing.")


def _requests_are_of(instance: dg.DagsterInstance, platform: str, recipe: Recipe) -> bool:
    """Whether the requests of a platform were made with a recipe, or with one that only differs in exclusions that do
    not affect them.
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
    """The choices in a recipe's document that affect a platform's requests: all except exclusions, of which only scenes
    count, and only if the platform searches before it makes requests.
    """
    choices: dict[str, Any] = dict(json.loads(document) if isinstance(document, str) else document)
    excluded = choices.pop("exclude", [])
    searched = PLATFORMS[platform].rules.resolve is not None
    return choices, [one["scene"] for one in excluded if searched and one["platform"] == platform and one["scene"]]
