"""Schedules, sensors and the condition of the merged index, evaluated at given times and with given run histories."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from clay_assets.definitions import build_definitions
from clay_assets.orchestration.metadata import recipe_metadata
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.recipes.exclusions import Exclusion
from clay_assets.runs import automation
from clay_assets_tests.runs.history import cell, made, run_of

RECIPE = load_recipe("clay_v1")
FIRST_OF_DECEMBER = datetime(2026, 12, 1, 3, tzinfo=UTC)


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_definitions(storage=str(tmp_path / "clay"))


def requests_of(instance: dg.DagsterInstance, *platforms: str, recipe_hash: str = RECIPE.hash) -> None:
    for platform in platforms:
        made(instance, "scene_requests", platform, recipe_hash=recipe_hash)


def tick(
    schedule: dg.ScheduleDefinition, defs: dg.Definitions, instance: dg.DagsterInstance, when: datetime
) -> tuple[list[dg.RunRequest], str | None]:
    """Run requests of one evaluation, or the reason for skipping it."""
    assert defs.resources is not None
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=when,
        resources={"clay": defs.resources["clay"]},
        repository_def=defs.get_repository_def(),
    ) as context:
        outcome = schedule.evaluate_tick(context)
    return list(outcome.run_requests or []), outcome.skip_message


def test_everything_is_stopped_until_it_is_turned_on(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "fill_missing_cells",
        "new_year",
        "daily_checks",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "alert_on_failed_partitions",
        "refresh_merged_index",
        "retry_failed_cells",
    }
    for schedule in repository.schedule_defs:
        assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED, schedule.name
        assert len(schedule.description or "") > 50
    for sensor in repository.sensor_defs:
        assert sensor.default_status is dg.DefaultSensorStatus.STOPPED, sensor.name
        assert len(sensor.description or "") > 50


@pytest.mark.slow
def test_what_is_missing_is_asked_for_newest_year_first(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    requests_of(instance, "modis", "naip")
    made(instance, "chip_landcover", cell("modis", 2022))
    run_of(instance, "modis|2021", ["chip_landcover"], dg.DagsterRunStatus.STARTED)
    run_of(instance, "naip|2022", ["chip_landcover"], dg.DagsterRunStatus.FAILURE)  # failed, so it is missing
    asked, why = tick(automation.fill_missing_cells, defs, instance, FIRST_OF_DECEMBER)
    assert why is None
    modis = set(range(2018, 2024)) - {2021, 2022}  # one in progress, one materialised
    naip = set(range(2010, 2024))
    expected = sorted(
        [(year, "modis") for year in modis] + [(year, "naip") for year in naip], key=lambda c: (-c[0], c[1])
    )
    assert [request.partition_key for request in asked] == [f"{key}|{year}" for year, key in expected]
    keys = [request.run_key for request in asked]
    assert len(set(keys)) == len(keys)
    next_month, _ = tick(automation.fill_missing_cells, defs, instance, datetime(2027, 1, 1, 3, tzinfo=UTC))
    assert not {request.run_key for request in next_month} & set(keys)  # otherwise Dagster would not run them again
    earlier, _ = tick(automation.fill_missing_cells, defs, instance, datetime(2012, 1, 1, 3, tzinfo=UTC))
    assert {request.partition_key for request in earlier} == {"naip|2010", "naip|2011", "naip|2012"}


@pytest.mark.slow
def test_only_platforms_whose_requests_are_of_this_recipe_are_asked(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    asked, why = tick(automation.fill_missing_cells, defs, instance, FIRST_OF_DECEMBER)
    assert asked == []
    assert "Materialise scene_requests of landsat-c2l1, landsat-c2l2-sr, linz, modis, naip" in (why or "")
    requests_of(instance, "modis")
    requests_of(instance, "naip", recipe_hash="of another recipe")
    asked, _ = tick(automation.fill_missing_cells, defs, instance, FIRST_OF_DECEMBER)
    assert {request.partition_key.partition("|")[0] for request in asked if request.partition_key} == {"modis"}
    for year in range(2018, 2024):
        made(instance, "chip_landcover", cell("modis", year))
    requests_of(instance, *sorted(set(PLATFORMS) - {"modis"}), recipe_hash="of another recipe")
    asked, why = tick(automation.fill_missing_cells, defs, instance, FIRST_OF_DECEMBER)
    assert asked == []
    assert "modis" not in (why or "")


@pytest.mark.slow
def test_the_year_that_is_over_is_asked_for_again(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    requests_of(instance, *PLATFORMS)
    made(instance, "chip_landcover", cell("modis", 2023))  # made before the year was over
    asked, _ = tick(automation.new_year, defs, instance, datetime(2024, 1, 15, 4, tzinfo=UTC))
    assert [request.partition_key for request in asked] == [f"{key}|2023" for key in sorted(PLATFORMS)]
    asked, _ = tick(automation.new_year, defs, instance, datetime(2025, 1, 15, 4, tzinfo=UTC))
    assert [request.partition_key for request in asked] == ["linz|2024"]  # its range ends a year later
    asked, why = tick(automation.new_year, defs, instance, datetime(2027, 1, 15, 4, tzinfo=UTC))
    assert asked == []
    assert "does not include 2026: its last year is 2024. Extend `years`" in (why or "")


@pytest.mark.slow
def test_a_failed_partition_is_retried_once(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    def evaluate() -> tuple[dict[str, dg.RunRequest], str | None]:
        context = dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
        outcome = automation.retry_failed_cells.evaluate_tick(context)
        return {str(request.partition_key): request for request in outcome.run_requests or []}, outcome.skip_message

    assert evaluate() == ({}, "nothing failed")
    failure = dg.DagsterRunStatus.FAILURE
    first = run_of(instance, "naip|2021", ["scene_imagery", "chip_index"], failure)
    run_of(instance, "naip", ["scene_requests"], failure)
    run_of(instance, "linz|2021", ["chip_index"], failure, dagster__will_retry="true")
    run_of(instance, "linz|2022", ["chip_index"], failure, dagster__retry_number="1")
    run_of(instance, "linz|2023", ["chip_index"], dg.DagsterRunStatus.CANCELED)
    run_of(instance, "modis|2021", ["chip_index"], dg.DagsterRunStatus.STARTED)
    requested, _ = evaluate()
    assert set(requested) == {"naip", "naip|2021"}
    assert requested["naip"].job_name == "requests"
    request = requested["naip|2021"]
    assert request.job_name == "cell"
    assert request.asset_selection == [dg.AssetKey("scene_imagery"), dg.AssetKey("chip_index")]
    assert request.run_key == f"retry of {first}"
    assert request.tags["dagster/max_retries"] == "0"  # otherwise run_retries would add a second retry
    for partition, assets in (("naip|2021", ["chip_index"]), ("naip", ["scene_requests"])):
        run_of(instance, partition, assets, failure, **{automation.RETRY_OF.replace("/", "__"): first})
    requested, why = evaluate()
    assert requested == {}
    assert "naip|2021" in (why or "")
    run_of(instance, "naip|2021", ["chip_index"], failure)  # re-run by hand
    assert set(evaluate()[0]) == {"naip|2021"}


@pytest.mark.slow
def test_merged_index_follows_the_chip_indexes_when_nothing_is_in_progress(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    asset = dg.AssetKey("merged_index")
    selection = dg.AssetSelection.assets(asset)

    def evaluator() -> Callable[[], int]:
        cursor = None

        def evaluate() -> int:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(defs, instance, selection, cursor=cursor)
            cursor = result.cursor
            return result.get_num_requested(asset)

        return evaluate

    requested = evaluator()
    assert requested() == 0  # nothing has happened yet
    made(instance, "chip_index", cell("modis", 2022))
    assert requested() == 0  # without land cover they cannot be merged
    made(instance, "chip_landcover", cell("modis", 2022))
    assert evaluator()() == 1  # just turned on: chips exist that were never merged
    assert requested() == 1  # although all other cells are missing
    assert requested() == 0
    assert requested() == 0  # also if that failed: not repeatedly
    instance.report_runless_asset_event(dg.AssetMaterialization("merged_index"))
    assert requested() == 0
    assert evaluator()() == 0  # just turned on: nothing to do
    run = run_of(instance, "modis|2021", ["chip_landcover"], dg.DagsterRunStatus.STARTED)
    made(instance, "chip_landcover", cell("naip", 2021))
    assert requested() == 0  # a cell is in progress
    stored = instance.get_run_by_id(run)
    assert stored is not None
    instance.report_run_failed(stored, "made to fail")
    assert requested() == 1  # the change is not lost


@pytest.mark.slow
def test_a_partition_left_failed_is_told_with_its_error(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    made(instance, "chip_index", cell("modis", 2022))
    job = defs.resolve_job_def("daily_checks")

    def checked() -> dg.AssetCheckEvaluation:
        result = job.execute_in_process(instance=instance)
        assert result.success
        (found,) = (
            e for e in result.get_asset_check_evaluations() if str(e.asset_check_key.asset_key.path[-1]) == "chip_index"
        )
        return found

    found = checked()
    assert found.passed
    assert (found.metadata["failed"].value, found.metadata["materialized"].value) == (0, 1)
    failed = defs.resolve_job_def("cell").execute_in_process(
        instance=instance, partition_key="modis|2021", raise_on_error=False
    )
    run_of(instance, "naip|2021", ["chip_index"], dg.DagsterRunStatus.FAILURE)
    found = checked()
    assert not found.passed
    assert found.metadata["failed"].value == 2
    rows = str(found.metadata["partitions_failed"].value)
    assert f"| modis\\|2021 | {failed.run_id.partition('-')[0]} |" in rows
    assert "scene_requests/modis.parquet: file not found. Materialise scene_requests first" in rows
    assert "naip\\|2021" in rows
    assert "killed, or never started" in rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "kind", "ready"),
    [("naip", "scene", False), ("naip", "chip", True), ("sentinel-2-l2a", "scene", True), ("linz", "scene", True)],
)
def test_requests_are_asked_for_again_only_where_an_exclusion_changes_them(
    instance: dg.DagsterInstance, platform: str, kind: str, ready: bool
) -> None:
    made(instance, "scene_requests", platform, **recipe_metadata(RECIPE))
    excluded = Exclusion(platform=platform, reason="a seam", **{kind: "a-1-2"})
    changed = RECIPE.model_copy(update={"exclude": (excluded,)})
    assert automation._requests_are_of(instance, platform, RECIPE)
    assert automation._requests_are_of(instance, platform, changed) == ready
    others = [key for key in PLATFORMS if key != platform]
    made(instance, "scene_requests", others[0], **recipe_metadata(RECIPE))
    assert automation._requests_are_of(instance, others[0], changed)
    assert not automation._requests_are_of(instance, platform, RECIPE.model_copy(update={"seed": 9}))
