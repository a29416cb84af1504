"""The whole chain on the demo's planet, with a progress bar and a short summary."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from tqdm import tqdm

from clay_assets.chips.manifest import read_manifest
from clay_assets.definitions import defs
from clay_assets.demo.planet import GENERATOR
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.runs.side_by_side import run_side_by_side
from clay_assets.runs.whole_chain import phases
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stores import Store

COUNTED = ("mgrs_grid", "worldcover_stats", "mgrs_sample", "naip_sample", "linz_sample", "modis_sample")
MOST_REASONS = 8
MOST_PROCESSES = 4  # each needs half a gigabyte for the libraries
BUILT = "built.json"  # record of the last demo, below its folder


def run_chain(home: Path) -> list[str]:
    """Materialise every asset and partition of the recipe; returns the steps that did not succeed.

    Args:
        home: Dagster's home folder.
    """
    unbuilt = []
    processes = max(1, min(MOST_PROCESSES, os.cpu_count() or 1))
    with tqdm(unit=" runs", mininterval=0.5, disable=None) as bar:
        wanted = phases(_clay(), list(PLATFORMS), lambda total: setattr(bar, "total", total))
        for step, error in run_side_by_side(wanted, _definitions, home, processes):
            bar.set_description_str(str(step))
            bar.update()
            if bar.disable:  # not a terminal
                print(step, flush=True)
            if error is not None:
                unbuilt.append(str(step))
                bar.write(f"{step}: {error}")
    return unbuilt


def _definitions() -> dg.Definitions:
    return defs


def is_built(folder: Path, seed: int) -> bool:
    """Whether the last demo in this folder is up to date and its merged index complete."""
    store = _clay().store()
    try:
        if json.loads((folder / BUILT).read_text(encoding="utf-8")) != _state(store, seed):
            return False
        parts = read_manifest(store)
    except (OSError, ValueError):
        return False
    return all(store.size(f"{layout.MERGED}/{part.path}") == part.bytes for part in parts)


def mark_built(folder: Path, seed: int) -> None:
    """Record what was built."""
    (folder / BUILT).write_text(json.dumps(_state(_clay().store(), seed), indent=2) + "\n", encoding="utf-8")


def _state(store: Store, seed: int) -> dict[str, Any]:
    manifest = hashlib.blake2b(store.read(layout.MANIFEST), digest_size=16).hexdigest()
    recipe = _clay().recipe().stamp()
    return {
        "planet": [GENERATOR, seed],
        "recipe": recipe["recipe_hash"],
        "code": recipe["software_version"],
        "storage": store.uri(),
        "manifest": manifest,
    }


def summary(seconds: float) -> str:
    """A summary of what was built, read from the files."""
    store = _clay().store()
    rows = {name: _rows(store, layout.table(name)) for name in COUNTED}
    requests, chips = _tables(store, "scenes/ledger"), _tables(store, "chips/ledger")
    headers = _tables(store, layout.HEADER_LEDGERS)
    platforms = pd.DataFrame(
        {
            "requests": requests.groupby("platform").size(),
            "scenes": requests.groupby("platform")["item_id"].nunique(),
            "chips": chips[chips["outcome"] == "indexed"].groupby("platform")["chips"].sum(),
        }
    ).fillna(0)
    failed = sum((ledger["outcome"] == "failed").sum() for ledger in (requests, chips, headers))
    reasons: Counter[str] = Counter()
    for text in requests.loc[requests["outcome"] == "none", "reason"]:
        reasons.update(part.split(" × ")[-1] for part in text.split("; "))
    manifest = json.loads(store.read(layout.MANIFEST))
    places = f"{rows['naip_sample']:,} points, {rows['linz_sample']:,} sheets, {rows['modis_sample']:,} SIN tiles"
    lines = [
        "",
        f"tiles considered   {rows['mgrs_grid']:>8,}   with land cover {rows['worldcover_stats']:,}",
        f"sampled            {rows['mgrs_sample']:>8,}   MGRS tiles, {places}",
        "",
        f"{'':<19}{'requests':>8}   {'scenes':>8}   {'chips':>8}",
        *(
            f"{row.Index:<19}{row.requests:>8,.0f}   {row.scenes:>8,.0f}   {row.chips:>8,.0f}"
            for row in platforms.itertuples()
        ),
        f"{'all':<19}{len(requests):>8,}   {platforms['scenes'].sum():>8,.0f}   {platforms['chips'].sum():>8,.0f}",
        "",
        f"without a scene    {(requests['outcome'] == 'none').sum():>8,}   failed {failed:,}",
        *(f"                   {'':>8}   {count:,} × {reason}" for reason, count in reasons.most_common(MOST_REASONS)),
        f"skipped            {chips['chips_above_nodata_limit'].sum():>8,}   chips, too much nodata",
        f"headers            {headers['files'].sum():>8,}   files, {headers['blocks'].sum():,} blocks",
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
    """The tables of all cells, with the platform taken from the folder."""
    tables: list[pd.DataFrame] = [
        decode(store.read(key), key).assign(platform=key.split("/")[-2]) for key in store.list(folder, ".parquet")
    ]
    return pd.concat(tables, ignore_index=True)
