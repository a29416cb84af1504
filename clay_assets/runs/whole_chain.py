"""The whole chain, one run after another, for the demo and the job `all`.

A run cannot contain assets with different partitions, so there is one run per job and partition, in the order of the
graph. In production, use the daemon's backfills instead: they run on many machines and can be resumed.
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

LAND_COVER_SAMPLE = "mgrs_sample"  # the only sample drawn from the assets of `landcover`


@dataclass(frozen=True)
class Step:
    """One run: a job, optionally limited to one asset, and the partition if it has any.

    Attributes:
        job: name of the job.
        partition: partition key.
        asset: the asset to run; None: all assets of the job.
        needs: the step that must succeed first, as text.
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
    """Every run that the given platforms need. Steps of a phase can run in parallel, subject to `needs`.

    Lazy: cells are read from the request tables after those have been materialised, so take a phase only when all runs
    of the previous one have ended. Requests run after all samples, even those they do not need: Dagster would mark them
    as stale if a sample were newer.

    Args:
        clay: resource with the storage of the request tables.
        platforms: platform keys.
        on_total: called with the total number of steps once it is known.
    """
    wanted = sorted({platform_of(key).key for key in platforms})
    samples = {key: platform_of(key).scenes.sample for key in wanted}
    of_land_cover = [Step("sampling", asset=LAND_COVER_SAMPLE, needs="landcover")]
    before = [
        Step("landcover"),  # splits are drawn from it for any platform
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
    """The runs of `phases`, one after another; run each when it is yielded."""
    for phase in phases(clay, platforms, on_total):
        yield from phase


def run_steps(
    wanted: Iterable[Step],
    job_of: Callable[[str], dg.JobDefinition],
    instance: dg.DagsterInstance,
    log_level: str = "INFO",
) -> Iterator[tuple[Step, dg.ExecuteInProcessResult | None]]:
    """Run the steps in this process and yield each with its result.

    A failed step does not stop the others; steps that depend on it are not run and yield None.
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
