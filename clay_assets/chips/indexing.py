"""Indexing the scenes of one cell (platform and year) in parallel: one file per scene, resumable.

A scene's file contains a fingerprint of its inputs; later runs keep the file as long as the fingerprint is unchanged. A
scene that cannot be indexed is skipped and its error recorded. The ledger has one row per scene; its columns are
described in `chips/columns.py`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_assets.chips.cells import EXCLUDED, FAILED, INDEXED, ChipCell
from clay_assets.chips.index import CHIP_FILE, EXCLUDED_COUNT, counts_of, index_scene
from clay_assets.chips.rules import check_chips, geometry_valid
from clay_assets.chips.versions import INDEX_VERSION, LIKE_FORMER
from clay_assets.errors import SourceError, StorageError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.executors.turns import in_turn
from clay_assets.platforms import platform_of
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.recipes.exclusions import NOTHING, chips_of_scene
from clay_assets.sources.rasters import side_cars
from clay_assets.stac import Item, parse_item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, stamp_of
from clay_assets.storage.stores import Store
from clay_assets.transport.locations import is_file_url
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

logger = logging.getLogger(__name__)

CHECK_THE_ITEM = "Check the item's proj: fields and its files."
LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "chips": "int32",
    "chips_in_grid": "int32",
    "chips_above_nodata_limit": "int32",
    "fingerprint": "string",
    "error": "string",
    "chips_excluded": "int32",
    "exclusions": "string",
}


@dataclass(frozen=True)
class SceneJob:
    """What a worker needs to index one scene; small enough to be sent to another machine.

    Attributes:
        item: the scene.
        platform: platform key.
        key: key of its index file.
        store: storage of the index file.
        recipe: the recipe; its chip size and the platform's fields are used.
        stamp: the recipe's stamp.
        excluded: chip id → reason of the chips that the recipe excludes.
    """

    item: Item
    platform: str
    key: str
    store: Store
    recipe: Recipe
    stamp: Mapping[str, str]
    excluded: Mapping[str, str] = field(default_factory=dict)


def index_scenes(
    platform: str,
    year: int,
    items: Sequence[Item],
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> ChipCell:
    """Index all scenes of a cell that are not indexed yet.

    Excluded scenes are only rows of the ledger. Excluded chips change the fingerprint of their scene, so that only this
    scene is indexed again.

    Args:
        platform: platform key.
        year: partition.
        items: scenes with readable hrefs.
        store: storage of the index files.
        recipe: the recipe; its chip size and the platform's fields are used.
        executor: runs scenes in parallel; workers write the files.
        in_flight: number of scenes submitted at once.
        progress: called with (scenes done, all scenes).

    Returns:
        The cell, its ledger ordered by item id.

    Raises:
        StorageError: the store cannot be written, so other scenes are not tried.
        SourceError: a worker process was killed, which breaks the pool.
    """
    stamp = recipe.stamp()  # created here, so that all workers write the same
    scenes, chips = recipe.excluded_scenes(platform), recipe.excluded_chips(platform)
    wanted = [item for item in items if item["id"] not in scenes]
    jobs = (
        SceneJob(
            item,
            platform,
            layout.chips(platform, year, item["id"]),
            store,
            recipe,
            stamp,
            chips.get(item["id"], {}),
        )
        for item in wanted
    )
    rows, kept = [], 0
    for name in sorted({item["id"] for item in items} & set(scenes)):
        rows.append(_row(name, EXCLUDED, excluded={name: scenes[name]}))
        logger.info("%s %d: %s is excluded: %s", platform, year, name, scenes[name])
    try:
        for done, (job, future) in enumerate(run_bounded(executor, index_one, jobs, in_flight), start=1 + len(rows)):
            try:
                row, was_there = future.result()
            except (StorageError, BrokenExecutor):
                raise
            except Exception as error:  # whatever a library raises for a bad scene must not affect the others
                text = failure_text(error, job.item["id"], logger)
                rows.append(_row(job.item["id"], FAILED, error=text, excluded=job.excluded))
            else:
                rows.append(row)
                kept += was_there
            progress(done, len(items))
    except BrokenExecutor as error:
        raise SourceError(
            f"{platform} {year}: a worker process ended before its scene was indexed ({error}). Run again to "
            "resume; if it persists, lower CLAY_WORKERS to save memory."
        ) from error
    if kept:
        logger.info("%s %d: %d of %d scenes were indexed before and are kept", platform, year, kept, len(items))
    ledger = pd.DataFrame(rows, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    return ChipCell(platform, year, store, ledger.sort_values("item_id", ignore_index=True), kept)


def index_one(job: SceneJob) -> tuple[dict[str, Any], bool]:
    """Index one scene and write its file; returns its ledger row, and whether the file already existed."""
    fingerprint = fingerprint_of(job.item, job.platform, job.recipe, job.store)
    kept = _row_of_file(job, fingerprint)
    if kept is not None:
        return kept, True
    item = parse_item(job.item)
    options, access = job.recipe.options(job.platform), (job.store.access,)
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt:
            table = index_scene(
                item,
                job.platform,
                options=options,
                chip_size=job.recipe.chip_size,
                access=access,
                excluded=job.excluded,
            )
    with in_turn():
        check_chips(table, job.platform, item.id, item.id, CHECK_THE_ITEM)
        geometry_valid(table).raise_if_violated(item.id, CHECK_THE_ITEM)
        in_grid, above, count = counts_of(table)
        stamp = {**job.stamp, **stamp_of(table.schema), "fingerprint": fingerprint}
        content = encode_arrow(table, stamp, **CHIP_FILE)
    job.store.write(job.key, content)
    left_out = int(stamp.get(EXCLUDED_COUNT, 0))
    return _row(item.id, INDEXED, count, in_grid, above, fingerprint, left_out=left_out, excluded=job.excluded), False


def fingerprint_of(item: Item, platform: str, recipe: Recipe, store: Store, version: str | None = None) -> str:
    """32 hexadecimal digits that change whenever the index of a scene would change.

    Files in our storage are identified by their keys, so that the storage can be moved.

    Args:
        item: the scene.
        platform: platform key.
        recipe: the recipe; its relevant fields are used.
        store: our storage.
        version: version of the platform; None: the current one.
    """
    basis = {
        "version": INDEX_VERSION,
        "platform_version": version or platform_of(platform).version,
        "item": _below(store.uri(), {name: item[name] for name in ("id", "properties", "assets")}),
        "chip_size": recipe.chip_size,
        "max_chip_nodata": recipe.options(platform).max_chip_nodata,
    }
    # Only ids: reasons do not affect chips.
    excluded = chips_of_scene(recipe.exclude, platform, item["id"])
    told = {"beside": _beside(item, platform), "excluded": excluded}
    given = {name: value for name, value in told.items() if value}
    return _hash(json.dumps({**basis, **given}, sort_keys=True, default=str))


def former_fingerprint_of(
    item: Item, platform: str, recipe: Recipe, store: Store, version: str | None = None
) -> str | None:
    """The fingerprint that version 0.1 would have given the same index; None if the index would have differed.

    Such files are kept: only column types have changed since, and they are cast when merged.
    """
    if (INDEX_VERSION, version or platform_of(platform).version) != LIKE_FORMER or _beside(item, platform):
        return None
    if chips_of_scene(recipe.exclude, platform, item["id"]):
        return None
    basis = {
        "version": "2",
        "item": {name: item[name] for name in ("id", "properties", "assets")},
        "chip_size": recipe.chip_size,
        "max_chip_nodata": recipe.options(platform).max_chip_nodata,
    }
    return _hash(json.dumps(basis, sort_keys=True, default=str).replace(f'"{store.uri()}/', '"'))


def exclusions_in(ledger: pd.DataFrame) -> list[dict[str, str]]:
    """The exclusions in a ledger: `excluded`, the id of a scene or a chip, and its `reason`."""
    told = ledger["exclusions"].dropna().map(json.loads)
    return [{"excluded": name, "reason": why} for entries in told for name, why in entries.items()]


def _beside(item: Item, platform: str) -> dict[str, int]:
    """Name and size of sidecar files of local quality files, such as masks."""
    assets = (item["assets"].get(name) or {} for name in platform_of(platform).quality.assets)
    hrefs = [str(asset.get("href") or "") for asset in assets]
    beside = [path for href in hrefs if href and ("://" not in href or is_file_url(href)) for path in side_cars(href)]
    return {path.name: path.stat().st_size for path in beside if path.suffix != ".ovr"}


def _below(root: str, value: Any) -> Any:
    """Make addresses in our storage relative to it in a JSON value."""
    if isinstance(value, dict):
        return {name: _below(root, entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_below(root, entry) for entry in value]
    return value.removeprefix(f"{root}/") if isinstance(value, str) else value


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _row_of_file(job: SceneJob, fingerprint: str) -> dict[str, Any] | None:
    """The ledger row of an existing index, if this job would write the same."""
    try:
        parquet = pq.ParquetFile(io.BytesIO(job.store.read(job.key)))
    except (FileNotFoundError, OSError, ValueError):
        return None
    stamp: Mapping[str, str] = stamp_of(parquet.schema_arrow)
    found = stamp.get("fingerprint")
    if found is None or (found != fingerprint and found not in _still_right(job, parquet)):
        return None
    in_grid, above = int(stamp["chips_in_grid"]), int(stamp["chips_above_nodata_limit"])
    left_out = int(stamp.get(EXCLUDED_COUNT, 0))
    rows = parquet.metadata.num_rows
    return _row(job.item["id"], INDEXED, rows, in_grid, above, found, left_out=left_out, excluded=job.excluded)


def _still_right(job: SceneJob, parquet: pq.ParquetFile) -> set[str | None]:
    """The fingerprints of former versions that would have given a scene the same index."""
    basis = job.item, job.platform, job.recipe, job.store
    right = {former_fingerprint_of(*basis)}
    before = platform_of(job.platform).same_without_nodata
    if before is not None and _without_nodata(parquet):
        right |= {fingerprint_of(*basis, before), former_fingerprint_of(*basis, before)}
    return right


def _without_nodata(parquet: pq.ParquetFile) -> bool:
    if stamp_of(parquet.schema_arrow).get("chips_above_nodata_limit") != "0":
        return False
    shares = parquet.read(columns=["nodata_percentage"])["nodata_percentage"]
    return not pc.any(pc.greater(shares, 0)).as_py()


def _row(
    item_id: str,
    outcome: str,
    chips: int = 0,
    chips_in_grid: int = 0,
    above: int = 0,
    fingerprint: str = "",
    error: str | None = None,
    *,
    left_out: int = 0,
    excluded: Mapping[str, str] = NOTHING,
) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "outcome": outcome,
        "chips": chips,
        "chips_in_grid": chips_in_grid,
        "chips_above_nodata_limit": above,
        "fingerprint": fingerprint,
        "error": error,
        "chips_excluded": left_out,
        "exclusions": json.dumps(dict(sorted(excluded.items())), ensure_ascii=False) if excluded else None,
    }
