"""The whole chain, run after run: what the demo does, and the job `all`.

A run cannot hold assets of different partitions, so there is a run for each job and partition, in the order of the
graph. In production, use the daemon's backfills instead: they run on many machines and resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.orchestration.partitions import key_of_cell
from clay_assets.platforms import platform_of

if TYPE_CHECKING:
    from clay_assets.orchestration.resources import ClayResource

LAND_COVER_SAMPLE = "mgrs_sample"  # the one sample that is drawn from the assets of `landcover`


@dataclass(frozen=True)
class Step:
    """One run: a job, of it one asset where the others do not matter, and the partition if it has any.

    Attributes:
        job: name of the job.
        partition: partition key.
        asset: the only asset of the job that is run.
        needs: the step that has to succeed before, as text.
    """

    job: str
    partition: str | None = None
    asset: str | None = None
    needs: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, [self.asset or self.job, self.partition]))


def phases(
    clay: ClayResource, platforms: Sequence[str], on_total: Callable[[int], None] = lambda total: None
) -> Iterator[list[Step]]:
    """Every run that some platforms need. Those of a phase may run side by side, as far as `needs` of each allows.

    Lazy: cells are read from the request tables after those have been materialised, so take a phase when all runs of
    the one before have ended. Requests follow all samples, also those that they do not need: Dagster would call them
    out of date where a sample is newer.

    Args:
        clay: where the request tables lie.
        platforms: platform keys.
        on_total: called with the number of all steps, once it is known.
    """
    wanted = sorted({platform_of(key).key for key in platforms})
    samples = {key: platform_of(key).scenes.sample for key in wanted}
    of_land_cover = [Step("sampling", asset=LAND_COVER_SAMPLE, needs="landcover")]
    before = [
        Step("landcover"),  # splits are drawn from it, whatever the platforms
        *(of_land_cover if LAND_COVER_SAMPLE in samples.values() else []),
        *(Step("sampling", asset=sample) for sample in sorted(set(samples.values()) - {LAND_COVER_SAMPLE})),
    ]
    yield before
    requests = [Step("requests", key, needs=samples[key]) for key in wanted]
    yield requests
    cells = [
        Step("cell", key_of_cell(key, year), needs=f"requests {key}")
        for key in wanted
        for year in clay.requested_years(key)
    ]
    on_total(len(before) + len(requests) + len(cells) + 1)
    yield cells
    yield [Step("merge", needs="landcover")]


def steps(
    clay: ClayResource, platforms: Sequence[str], on_total: Callable[[int], None] = lambda total: None
) -> Iterator[Step]:
    """The runs of `phases`, one after another: run each as it is yielded."""
    for phase in phases(clay, platforms, on_total):
        yield from phase


def run_steps(
    wanted: Iterable[Step],
    job_of: Callable[[str], dg.JobDefinition],
    instance: dg.DagsterInstance,
    log_level: str = "INFO",
) -> Iterator[tuple[Step, dg.ExecuteInProcessResult | None]]:
    """Run the steps in this process and yield each with its result.

    A step that fails does not stop the others; what would build on it is not run, and yields None.
    """
    failed: set[str] = set()
    for step in wanted:
        result = None
        if step.needs not in failed:
            result = job_of(step.job).execute_in_process(
                run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
                instance=instance,
                partition_key=step.partition,
                asset_selection=[dg.AssetKey(step.asset)] if step.asset else None,
                raise_on_error=False,
                tags={"clay/step": str(step)},
            )
        if result is None or not result.success:
            failed.add(str(step))
        yield step, result
