"""The whole chain, one run after the other: what the demo does, and the job `all`.

No single run can hold assets of different partitions, so this makes a run for each job and partition, in the order of
the graph. For years of work on many machines, a backfill by the daemon is the better way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from clay_assets.recipes import Recipe


@dataclass(frozen=True)
class Step:
    """One run: a job, and the partition of it if it has any."""

    job: str
    partition: str | None = None

    def __str__(self) -> str:
        return f"{self.job} {self.partition}" if self.partition else self.job


def steps(recipe: Recipe, platforms: Sequence[str]) -> list[Step]:
    """Every run that a recipe asks for, in order: each platform over the years that it draws from."""
    drawn = [
        f"{platform}|{year}"
        for platform in sorted(platforms)
        for year in range(recipe.options(platform).years[0], recipe.options(platform).years[1] + 1)
    ]
    return [
        Step("landcover"),
        Step("sampling"),
        *(Step("requests", platform) for platform in sorted(platforms)),
        *(Step("cell", cell) for cell in drawn),
        Step("merge"),
    ]


def run_steps(
    wanted: Sequence[Step],
    job_of: Callable[[str], dg.JobDefinition],
    instance: dg.DagsterInstance,
    log_level: str = "INFO",
) -> Iterator[tuple[Step, dg.ExecuteInProcessResult | None]]:
    """Run the steps in this process and yield each with its result.

    A partition that fails does not stop the others; what would build on it is not run, and yields None.
    """
    failed: set[str | None] = set()
    for step in wanted:
        platform = (step.partition or "").partition("|")[0]
        if None in failed or failed & {step.partition, platform}:
            yield step, None
            continue
        result = job_of(step.job).execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
            instance=instance,
            partition_key=step.partition,
            raise_on_error=False,
            tags={"clay/step": str(step)},
        )
        if not result.success:
            failed.add(step.partition)
        yield step, result


def why_it_failed(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run says first, in one line."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            error = data.error
            while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
                error = error.cause  # Dagster's own wrappings; what is below our errors says less than they do
            text = data.user_failure_data.description if data.user_failure_data else None
            said = text or (error.message if error else "") or "no message"
            return f"{event.step_key}: {' '.join(said.split())}"
    return "no step failed; see the run's log"
