"""The whole chain on the demo's planet, with a bar, and what came out of it in a few lines."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from tqdm import tqdm

from clay_assets.chips.merge import read_manifest
from clay_assets.definitions import defs
from clay_assets.demo.planet import GENERATOR
from clay_assets.orchestration.everything import run_steps, steps, why_it_failed
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stores import Store

BUILT = "built.json"  # what the last demo built, below its folder


def run_chain() -> list[str]:
    """Materialise every asset and partition of the recipe; returns the steps that did not succeed."""
    clay = _clay()
    unbuilt = []
    with (
        dg.DagsterInstance.get() as instance,
        _interrupts() as interrupted,
        tqdm(unit=" runs", mininterval=0.5, disable=None) as bar,
    ):
        wanted = steps(clay, list(PLATFORMS), lambda total: setattr(bar, "total", total))
        for step, result in run_steps(wanted, defs.resolve_job_def, instance, log_level="CRITICAL"):
            bar.set_description_str(str(step))
            bar.update()
            if bar.disable:  # not a terminal
                print(step, flush=True)
            if interrupted():
                raise KeyboardInterrupt
            if result is None or not result.success:
                unbuilt.append(str(step))
                bar.write(f"{step}: {why_it_failed(result) if result else 'not run, as what it builds on failed'}")
    return unbuilt


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed. Dagster holds it back during a run, and forgets it."""
    ours, pythons = socket.socketpair()
    with ours, pythons:
        for end in (ours, pythons):
            end.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno())  # Python writes each signal's number there

        def interrupted() -> bool:
            try:
                return signal.SIGINT in ours.recv(64)
            except BlockingIOError:
                return False

        try:
            yield interrupted
        finally:
            signal.set_wakeup_fd(before)


def is_built(folder: Path, seed: int) -> bool:
    """Whether the last demo in this folder is what a new one would be, with all of its merged index there."""
    store = _clay().store()
    try:
        if json.loads((folder / BUILT).read_text(encoding="utf-8")) != _state(store, seed):
            return False
        parts = read_manifest(store)
    except (OSError, ValueError):
        return False
    return all(store.size(f"{layout.MERGED}/{part.path}") == part.bytes for part in parts)


def mark_built(folder: Path, seed: int) -> None:
    """Note what was built."""
    (folder / BUILT).write_text(json.dumps(_state(_clay().store(), seed), indent=2) + "\n", encoding="utf-8")


def _state(store: Store, seed: int) -> dict[str, Any]:
    manifest = hashlib.blake2b(store.read(layout.MANIFEST), digest_size=16).hexdigest()
    recipe = _clay().recipe().stamp()
    return {
        "planet": [GENERATOR, seed],
        "recipe": recipe["recipe_hash"],
        "code": recipe["code_version"],
        "storage": store.uri(),
        "manifest": manifest,
    }


def summary(seconds: float) -> str:
    """What was built, read from the files."""
    clay = _clay()
    store = clay.store()
    grid, stats, sample = (
        _rows(store, layout.table(name)) for name in ("mgrs_grid", "worldcover_stats", "mgrs_sample")
    )
    ledger = _tables(store, "scenes/ledger")
    chips = _tables(store, "chips/ledger")
    kept, left_out = chips["chips"].sum(), chips["chips_above_nodata_limit"].sum()
    outcomes = ledger["outcome"].value_counts()
    picked = outcomes.get("picked", 0)
    reasons: Counter[str] = Counter()
    for text in ledger.loc[ledger["outcome"] == "none", "reason"]:
        reasons.update(part.split(" × ")[-1] for part in text.split("; "))
    manifest = json.loads(store.read(layout.MANIFEST))
    lines = [
        "",
        f"tiles considered   {grid:>8,}   with land cover {stats:,}, sampled {sample:,}",
        f"requests made      {len(ledger):>8,}   for {ledger['platform'].nunique()} platforms",
        f"scenes picked      {ledger['item_id'].nunique():>8,}   for {picked:,} requests (neighbours may share one)",
        f"not picked         {outcomes.get('none', 0):>8,}   failed {outcomes.get('failed', 0):,}",
        *(f"                   {'':>8}   {count:,} × {reason}" for reason, count in reasons.most_common(6)),
        f"chips indexed      {kept:>8,}   left out for nodata {left_out:,}",
        f"merged rows        {manifest['rows']:>8,}   in {len(manifest['partitions'])} partitions",
        "",
        f"results            {store.uri()}",
        f"merged index       {store.uri(layout.MERGED)}",
        f"time               {seconds:.0f} s",
        "",
        "Open the Dagster UI on the result:   make dev",
    ]
    return "\n".join(lines)


def _clay() -> ClayResource:
    clay = defs.resources["clay"] if defs.resources else None
    assert isinstance(clay, ClayResource)
    return clay


def _rows(store: Store, key: str) -> int:
    return len(decode(store.read(key), key))


def _tables(store: Store, folder: str) -> pd.DataFrame:
    tables: list[pd.DataFrame] = [decode(store.read(key), key) for key in store.list(folder, ".parquet")]
    return pd.concat(tables, ignore_index=True)
