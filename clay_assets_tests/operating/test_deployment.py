"""Backfills, limits, retries and secrets of a deployment whose parts are all real."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import psycopg

from clay_assets.chips.index import open_index
from clay_assets.demo.planet import Planet
from clay_assets.runs.automation import RETRY_OF
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets_tests.chain import Chain, said
from clay_assets_tests.operating.conftest import PASSWORD, PLATFORMS, YEARS, Deployment
from clay_assets_tests.servers.dagster import DagsterServers

KILLED = f"{PLATFORMS[1]}|{YEARS[0]}"
CELLS = [*(f"{PLATFORMS[0]}|{year}" for year in YEARS), KILLED]
ASSETS = ["scene_picks", "scene_imagery", "chip_index", "chip_landcover", "cog_headers"]
LAUNCH_BACKFILL = """
mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } assetBackfillData { assetBackfillStatuses {
      ... on AssetPartitionsStatusCounts { numPartitionsMaterialized numPartitionsFailed } } } }
  }
}"""
FAILURES = """
query ($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events { ... on ExecutionStepFailureEvent {
    stepKey error { message } failureMetadata { description }
  } } } }
}"""


def runs_of(chain: Chain, **tags: str) -> list[dg.RunRecord]:
    """Runs that have these tags (`/` written `__`), oldest first."""
    wanted = {name.replace("__", "/"): value for name, value in tags.items()}
    return list(reversed(chain.instance.get_run_records(dg.RunsFilter(tags=wanted))))


def written(deployment: Deployment, folder: str) -> dict[str, object]:
    """Keys below a folder of the bucket, and when they were written."""
    pages = deployment.bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=deployment.bucket.name, Prefix=folder
    )
    return {row["Key"]: row["LastModified"] for page in pages for row in page.get("Contents", [])}


def pid_of(chain: Chain, run_id: str) -> int:
    """The process that works on a run, as it has said itself."""
    said_so = (re.search(r"in process \(pid: (\d+)\)", event.user_message) for event in chain.instance.all_logs(run_id))
    return next(int(found[1]) for found in said_so if found)


def dagster(servers: DagsterServers, *arguments: str) -> None:
    """Run `dagster …` in a shell beside the deployment; it has to succeed."""
    result = subprocess.run(
        [Path(sys.executable).with_name("dagster"), *arguments, *servers.location],
        env=servers.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, said(result)


def overlap(spans: Iterable[tuple[float, float]]) -> bool:
    """Whether two of the spans (start, end) have a moment in common."""
    return any(next_start < end for (_, end), (next_start, _) in pairwise(sorted(spans)))


def test_a_backfill_with_a_killed_run_loses_nothing_and_doubles_nothing(deployment: Deployment, planet: Planet) -> None:
    chain, servers = deployment.chain, deployment.servers
    answer = servers.graphql(
        LAUNCH_BACKFILL,
        backfill={"partitionNames": CELLS, "assetSelection": [{"path": [asset]} for asset in ASSETS]},
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    backfill = answer["backfillId"]

    # Kill the process of one of its runs, once some of its scenes are indexed.
    platform, year = KILLED.split("|")
    folder = f"clay/{layout.chip_folder(platform, int(year))}"
    first = servers.wait_for("run to kill", lambda: runs_of(chain, dagster__partition=KILLED))[0].dagster_run
    servers.wait_for("indexed scene", lambda: deployment.bucket.keys(folder), every=0.02)
    os.kill(pid_of(chain, first.run_id), signal.SIGKILL)
    indexed = written(deployment, folder)

    def ended() -> dict[str, object] | None:
        found = servers.graphql(BACKFILL, id=backfill)["partitionBackfillOrError"]
        return found if found["status"].startswith(("COMPLETED", "FAILED", "CANCEL")) else None

    outcome = servers.wait_for("end of the backfill", ended, seconds=280)
    assert outcome["status"] == "COMPLETED_SUCCESS", outcome
    runs = runs_of(chain, dagster__backfill=backfill)
    statuses = [(str(run.dagster_run.tags["dagster/partition"]), run.dagster_run.status.value) for run in runs]
    assert sorted(statuses) == sorted([*((cell, "SUCCESS") for cell in CELLS), (KILLED, "FAILURE")])
    (retry,) = runs_of(chain, dagster__retry_number="1")
    assert retry.dagster_run.parent_run_id == first.run_id
    store = chain.clay.store()
    # It went on from the scenes that were done.
    whole = written(deployment, folder)
    assert 0 < len(indexed) < len(whole), "killed too late to mean anything"
    assert {key: whole[key] for key in indexed} == indexed
    kept = chain.metadata("chip_index", KILLED)["scenes_indexed_before"]
    assert kept in (len(indexed), len(indexed) + 1)  # what the server had received of one more came in afterwards

    # Every chip of every picked scene, once.
    assert chain.run("merge").success
    merged = open_index(store.uri(layout.MERGED)).to_table().to_pandas().set_index("chipid")
    expected = []
    for cell in CELLS:
        platform, year = cell.split("|")
        key = layout.table("scene_picks", platform, int(year))
        limit = chain.clay.recipe().options(platform).max_chip_nodata
        for item in decode_items(store.read(key), key):
            drawn = planet.chip_truth(item["id"])
            chips = drawn[drawn["nodata_percentage"] <= limit]
            names = [f"{item['id']}-{x}-{y}" for x, y in zip(chips.chip_index_x, chips.chip_index_y, strict=True)]
            expected.append(chips.assign(chipid=names).set_index("chipid"))
    truth = pd.concat(expected)
    assert merged.index.is_unique
    assert set(merged.index) == set(truth.index)
    assert len(merged) > 100
    np.testing.assert_array_equal(
        merged.loc[truth.index, "cloud_cover_percentage"], truth["cloud_cover_percentage"].astype(np.float32)
    )

    # The limits held: one run of a platform at once (tag), one search at once of all runs (pool).
    for platform in PLATFORMS:
        mine = [run for run in runs if run.dagster_run.tags["dagster/partition/platform"] == platform]
        assert not overlap((run.start_time or 0, run.end_time or 0) for run in mine)
    spans = []
    for run in runs:
        events = chain.instance.all_logs(
            run.dagster_run.run_id, of_type={dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS}
        )
        times = [event.timestamp for event in events if event.step_key == "scene_picks"]
        spans += [(times[0], times[1])] if len(times) == 2 else []
    assert len(spans) >= len(CELLS)
    assert not overlap(spans)


def test_a_backfill_from_a_shell_and_its_failed_partition_retried_once(deployment: Deployment) -> None:
    chain, servers = deployment.chain, deployment.servers
    nothing_to_do, failing = f"{PLATFORMS[0]}|2012", "naip|2021"  # the searches of naip were never made
    dagster(
        servers, "job", "backfill", "-j", "cell", "--partitions", f"{nothing_to_do},{failing}", "--noprompt",
        "--tags", json.dumps({"dagster/max_retries": "0"}),  # so that it is the sensor that retries
    )  # fmt: skip

    def ended(partition: str) -> list[dg.RunRecord] | None:
        runs = runs_of(chain, dagster__partition=partition)
        return runs if runs and all(run.dagster_run.is_finished for run in runs) else None

    (good,) = servers.wait_for("end of a run", lambda: ended(nothing_to_do))
    (bad,) = servers.wait_for("end of a run", lambda: ended(failing))
    assert good.dagster_run.status is dg.DagsterRunStatus.SUCCESS
    assert bad.dagster_run.tags["dagster/backfill"] == good.dagster_run.tags["dagster/backfill"]

    # What the UI shows of it first: what is missing, and what to do.
    events = servers.graphql(FAILURES, id=bad.dagster_run.run_id)["logsForRun"]["events"]
    (failure,) = [event for event in events if event]
    assert failure["stepKey"] == "scene_picks"
    message = "scenes/scene_requests/naip.parquet: file not found. Materialise scene_requests first."
    assert failure["failureMetadata"]["description"].endswith(message)
    assert failure["error"]["message"].split("\n")[0].endswith(message)

    dagster(servers, "sensor", "start", "retry_failed_cells")

    def retried() -> list[dg.RunRecord] | None:
        runs = runs_of(chain, **{RETRY_OF.replace("/", "__"): bad.dagster_run.run_id})
        return runs if runs and runs[0].dagster_run.is_finished else None

    (retry,) = servers.wait_for("retry by the sensor", retried)
    assert retry.dagster_run.tags["dagster/partition"] == failing
    assert retry.dagster_run.status is dg.DagsterRunStatus.FAILURE
    repository = chain.defs.get_repository_def()
    context = dg.build_sensor_context(instance=chain.instance, repository_def=repository)
    again = repository.get_sensor_def("retry_failed_cells").evaluate_tick(context)
    assert again.run_requests == []
    assert failing in (again.skip_message or "")


def test_logs_are_in_the_bucket_and_secrets_nowhere(deployment: Deployment) -> None:
    secrets = (deployment.bucket.server.secret_key, PASSWORD)
    assert all(secret in deployment.servers.environment.values() for secret in secrets)
    deadline = time.monotonic() + 60
    while not (logs := deployment.bucket.keys("logs/")) and time.monotonic() < deadline:
        time.sleep(1)
    assert any(key.endswith(".err") for key in logs)
    client = deployment.bucket.client
    told = [client.get_object(Bucket=deployment.bucket.name, Key=key)["Body"].read().decode() for key in logs]
    with psycopg.connect(deployment.database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            told += [row[0] for row in connection.execute(f'SELECT t::text FROM "{table}" t')]
    assert any(KILLED in text for text in told)
    for secret in secrets:
        assert not [text for text in told if secret in text]
