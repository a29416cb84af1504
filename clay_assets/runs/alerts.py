"""Alerts: a sensor that sends a message to a webhook or by e-mail when a partition stays failed.

Each partition is reported once, after its automatic retry has also failed, and again only if it fails after recovering.
A message that cannot be sent is logged and retried at a later tick.
"""

import json
import time
from collections.abc import Iterable, Mapping

import dagster as dg
from dagster import AssetPartitionStatus
from dagster._core.scheduler.instigation import InstigatorType

from clay_assets.orchestration.partitions import status_of
from clay_assets.orchestration.resources import ClayResource
from clay_assets.runs.automation import RETRY_SENSOR, Failed, failed_partitions
from clay_assets.runs.failed_partitions import last_failure
from clay_assets.runs.messages import Channel, Message, NotSentError, channels_of
from clay_assets.stages import PARTITIONED

INTERVAL = 300  # seconds
MOST = 20  # messages per tick; webhooks take about one a second
TICK_SECONDS = 30  # after that, messages wait for the next tick; Dagster ends a tick after a minute
UNSET = "Neither CLAY_ALERT_WEBHOOK nor CLAY_ALERT_EMAIL is set."


@dg.sensor(
    minimum_interval_seconds=INTERVAL,
    description=(
        "Sends a message to CLAY_ALERT_WEBHOOK or CLAY_ALERT_EMAIL when a partition is left failed: once, after its "
        "automatic retry has failed too."
    ),
)
def alert_on_failed_partitions(context: dg.SensorEvaluationContext, clay: ClayResource) -> dg.SensorResult:
    """Send one message for each partition that stays failed."""
    settings = clay.settings
    channels = {channel.name: channel for channel in channels_of(settings)}
    if not channels:
        return dg.SensorResult(skip_reason=UNSET)
    # Partition → the channels still to be notified.
    known: dict[str, list[str]] = json.loads(context.cursor or "{}")
    open_ = _failed_or_in_progress(context.instance)
    known = {partition: names for partition, names in known.items() if partition in open_}
    left = _left_failed(context.instance)
    for failed in left:
        known.setdefault(failed.partition, list(channels))
    sent, problems = _send(
        channels,
        known,
        {
            failed.partition: _message(context.instance, failed, settings.dagster_url)
            for failed in _first(left, known, channels)
        },
    )
    for problem in problems:
        context.log.warning(f"{problem} The message is sent again at the next tick.")
    return dg.SensorResult(
        cursor=json.dumps(known), skip_reason=" ".join([f"{sent} sent, {len(left)} left failed.", *problems])
    )


SENSORS = [alert_on_failed_partitions]


def _failed_or_in_progress(instance: dg.DagsterInstance) -> set[str]:
    """Partitions that have not recovered."""
    unfinished = (AssetPartitionStatus.FAILED, AssetPartitionStatus.IN_PROGRESS)
    return {
        partition
        for asset, partitions in PARTITIONED.items()
        for partition, status in status_of(instance, asset, partitions).items()
        if status in unfinished
    }


def _left_failed(instance: dg.DagsterInstance) -> list[Failed]:
    """Failed partitions that will not be retried."""
    retrying = any(
        state.is_running and state.name == RETRY_SENSOR
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    )
    return [
        failed
        for failed in failed_partitions(instance)
        if not (failed.in_progress or failed.dagster_will_retry or (retrying and failed.can_be_retried))
    ]


def _first(left: Iterable[Failed], known: Mapping[str, list[str]], channels: Mapping[str, Channel]) -> list[Failed]:
    """The partitions to report in this tick, each with the assets of all its jobs."""
    by_partition: dict[str, Failed] = {}
    for failed in left:
        if any(name in channels for name in known[failed.partition]):
            before = by_partition.get(failed.partition)
            by_partition[failed.partition] = before.with_assets(failed.assets) if before else failed
    return list(by_partition.values())[:MOST]


def _message(instance: dg.DagsterInstance, failed: Failed, url: str | None) -> Message:
    failure = last_failure(instance, failed.partition)
    lines = [failure.error, f"Not materialised: {', '.join(failed.assets)}."]
    if url and failure.run_id:
        lines.append(f"{url.rstrip('/')}/runs/{failure.run_id}")
    elif failure.run_id:
        lines.append(f"Run {failure.run_id}.")
    return Message(f"{failed.partition} failed at {failure.step or failed.assets[0]}", tuple(lines))


def _send(
    channels: Mapping[str, Channel], known: dict[str, list[str]], messages: Mapping[str, Message]
) -> tuple[int, list[str]]:
    """Send messages, and remove the channels that took them from `known`; returns the number sent, and the failures.

    A channel that fails once is skipped for the rest of the tick.
    """
    end = time.monotonic() + TICK_SECONDS
    sent = 0
    problems: dict[str, str] = {}
    for partition, message in messages.items():
        for name in [name for name in known[partition] if name in channels and name not in problems]:
            if time.monotonic() > end:
                return sent, list(problems.values())
            try:
                channels[name].send(message)
            except NotSentError as error:
                problems[name] = f"{name}: {error}"
            else:
                known[partition].remove(name)
                sent += 1
    return sent, list(problems.values())
