"""Check that a Dask cluster can run jobs: the same check as at the start of a run, without waiting for workers."""

from __future__ import annotations

from collections.abc import Iterator

from clay_assets.executors.cluster import check_cluster
from clay_assets.runs.doctor.lines import Line, failure
from clay_assets.storage.stores import StoreMark, open_store


def check_dask(address: str, storage: str) -> Iterator[Line]:
    """A line per shortcoming of the cluster, and its number of workers."""
    faults, workers = check_cluster(address, StoreMark(open_store(storage)))
    for fault in faults:
        yield failure("Dask", fault)
    if not workers:
        yield Line("failed", "Dask", f"{address}: no workers connected", "Start some: dask worker ADDRESS.")
    elif not faults:
        yield Line("ok", "Dask", f"{address}: {workers} workers connected")
