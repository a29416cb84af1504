"""`deploy/dagster.yaml` on a real PostgreSQL and S3."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.config import PoolGranularity
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.dagster_run import DagsterRun, DagsterRunStatus
from dagster._serdes import serialize_value
from dagster._utils.tags import TagConcurrencyLimitsCounter

from clay_assets.definitions import defs
from clay_assets.orchestration.partitions import cells
from clay_assets.platforms import PLATFORMS
from clay_assets.settings import Settings
from clay_assets_tests.conftest import Bucket, not_run
from clay_assets_tests.deploy.conftest import DEPLOY, PASSWORD, names_asked_for, read_yaml, secrets_among
from clay_assets_tests.servers.daemon import ServerUnavailableError
from clay_assets_tests.servers.postgres import Postgres

# By a process of its own, as runs are: Dagster ends its `tail` by a signal that a process of tests may hold back.
CAPTURING = """
import signal, sys
import dagster as dg
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with dg.DagsterInstance.get() as instance, instance.compute_log_manager.capture_logs(sys.argv[1:]):
    print("printed by a step")
"""


@pytest.fixture
def instance(
    tmp_path: Path, environment: pytest.MonkeyPatch, s3_bucket: Bucket
) -> Iterator[tuple[dg.DagsterInstance, str]]:
    """The instance of `deploy/dagster.yaml`, and the address of its database."""
    environment.setenv("PGSSLMODE", "prefer")  # this server has no certificate
    try:
        postgres = Postgres()
    except ServerUnavailableError as error:
        not_run("Dagster's instance on PostgreSQL", error)
    try:
        address = postgres.create_database("dagster")
        shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
        environment.setenv("DAGSTER_HOME", str(tmp_path))
        environment.setenv("DAGSTER_POSTGRES_HOST", "127.0.0.1")
        environment.setenv("DAGSTER_POSTGRES_PORT", str(postgres.port))
        environment.setenv("DAGSTER_POSTGRES_USER", "postgres")
        environment.setenv("DAGSTER_LOGS_BUCKET", s3_bucket.name)
        # Over those of a task on AWS; taken back before the bucket's own are, or they would outlive both.
        with pytest.MonkeyPatch.context() as over:
            for name, value in s3_bucket.server.env.items():
                over.setenv(name, value)
            with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
                yield opened, address
    finally:
        postgres.stop()


def test_the_instance_keeps_its_limits_on_postgresql_and_its_logs_on_s3(
    instance: tuple[dg.DagsterInstance, str], s3_bucket: Bucket
) -> None:
    import psycopg

    opened, address = instance
    # A run is in the database, with the tags by which the queue knows its platform.
    platform, other = sorted(PLATFORMS)[:2]
    for year, status in ((2020, DagsterRunStatus.STARTED), (2021, DagsterRunStatus.STARTED)):
        opened.add_run(run_of(f"{platform}|{year}", status))
    with psycopg.connect(address) as connection:
        rows = connection.execute("SELECT value FROM run_tags WHERE key = 'dagster/partition/platform'").fetchall()
    assert rows == [(platform,), (platform,)]

    # Two runs of a platform fill its share of the queue; the third waits, another platform's does not.
    queue = opened.get_concurrency_config().run_queue_config
    assert queue is not None
    limits = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, opened.get_runs())
    assert limits.is_blocked(run_of(f"{platform}|2022"))
    assert not limits.is_blocked(run_of(f"{other}|2022"))
    assert queue.max_concurrent_runs == 8
    assert queue.max_user_code_failure_retries == 10
    pools = opened.get_concurrency_config().pool_config
    assert (pools.pool_granularity, pools.default_pool_limit) == (PoolGranularity.OP, 2)
    assert opened.event_log_storage.supports_global_concurrency_limits

    # Once more, not for ever.
    assert opened.run_retries_enabled
    assert opened.run_retries_max_retries == 1
    assert opened.run_retries_retry_on_asset_or_op_failure
    assert opened.run_monitoring_enabled
    assert opened.run_monitoring_max_resume_run_attempts == 0
    assert opened.run_monitoring_max_runtime_seconds == 2 * 24 * 3600
    assert opened.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0
    for kind in InstigatorType:
        assert all(0 < days <= 90 for days in opened.get_tick_retention_settings(kind).values())  # -1 is for ever
    assert not opened.telemetry_enabled
    assert not opened.nux_enabled

    # What a run prints is in the bucket, below the prefix, and the UI reads it there.
    logs, log = opened.compute_log_manager, [uuid.uuid4().hex, "compute_logs", "a-step"]
    subprocess.run([sys.executable, "-c", CAPTURING, *log], check=True, timeout=120)
    kept = s3_bucket.keys(f"dagster-logs/storage/{log[0]}/")
    assert [Path(key).name for key in kept] == ["a-step.err", "a-step.out"]
    assert logs.get_log_data_for_type(log, ComputeIOType.STDOUT, 0, None)[0] == b"printed by a step\n"
    logs.delete_logs(log)  # of the copy that the UI would keep, too
    assert s3_bucket.keys("dagster-logs/") == []

    # The driver of PostgreSQL is one that the package itself asks for, not one that happens to be here.
    driver = opened.event_log_storage._engine.dialect.driver  # type: ignore[attr-defined]
    assert f"{driver}-binary" in (requires("dagster-postgres") or [])
    # The password is neither shown nor handed to runs in their command: they take it from their environment.
    assert PASSWORD not in opened.info_str()
    assert "S3NTINEL" not in serialize_value(opened.get_ref())


def run_of(cell: str, status: DagsterRunStatus = DagsterRunStatus.NOT_STARTED) -> DagsterRun:
    """A run of a cell as Dagster makes one."""
    return DagsterRun("cell", status=status, tags=cells.get_tags_for_partition_key(cell))


def test_a_variable_that_is_missing_is_named(environment: pytest.MonkeyPatch) -> None:
    from dagster._core.instance.ref import InstanceRef

    environment.delenv("DAGSTER_POSTGRES_PASSWORD")
    with pytest.raises(dg.DagsterInvalidConfigError, match="DAGSTER_POSTGRES_PASSWORD"):
        _ = InstanceRef.from_dir(str(DEPLOY)).storage


def test_both_instances_differ_in_their_launcher_alone() -> None:
    machine, ecs = read_yaml(DEPLOY / "dagster.yaml"), read_yaml(DEPLOY / "ecs/dagster.yaml")
    launcher = ecs.pop("run_launcher")
    assert machine == ecs
    assert launcher["class"] == "EcsRunLauncher"


def test_the_page_names_pools_schedules_and_sensors_that_exist() -> None:
    page = (DEPLOY / "README.md").read_text()
    repository = defs.get_repository_def()
    nodes = [node for asset in repository.assets_defs_by_key.values() for node in asset.node_def.iterate_op_defs()]
    pools = {node.pool for node in nodes if node.pool}
    named = re.findall(r"dagster instance concurrency set (\w+)", page)
    assert set(named) == pools
    schedules = re.findall(r"dagster schedule start (?:-w \S+ )?(\w+)", page)
    sensors = re.findall(r"dagster sensor start (?:-w \S+ )?(\w+)", page)
    assert set(schedules) == {schedule.name for schedule in repository.schedule_defs}
    assert set(sensors) == {sensor.name for sensor in repository.sensor_defs}


def test_every_variable_of_the_instance_is_in_the_example() -> None:
    example = dict(
        line.split("=", 1) for line in (DEPLOY / "env.example").read_text().splitlines() if line and line[0] != "#"
    )
    assert names_asked_for(read_yaml(DEPLOY / "dagster.yaml")) <= set(example)
    assert secrets_among(example) == ["DAGSTER_POSTGRES_PASSWORD"]
    assert example["DAGSTER_POSTGRES_PASSWORD"] == ""
    known = {f"CLAY_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in example if name.startswith("CLAY_")} <= known
