"""Measure the land cover of a cell's scenes: each once, resumable, skipping bad scenes.

A scene's file contains a fingerprint of its inputs; later runs keep the file as long as it is unchanged. A scene whose
land cover cannot be read is skipped and its error recorded. The measurement is in `landcover`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rasterio.crs import CRS

from clay_assets.chips.cells import FAILED, MEASURED, ChipCell, LandCoverCell
from clay_assets.chips.index import declared_grid, grid_of_file, scene_crs
from clay_assets.chips.landcover import AGAIN, CODES, SHARE_FILE, SHARE_SCHEMA, WorldCover, chip_land_cover
from clay_assets.chips.versions import LANDCOVER_VERSION
from clay_assets.errors import InputError, StorageError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.grids import Grid
from clay_assets.landcover.worldcover_files import EDITION
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, stamp_of
from clay_assets.storage.stores import Store
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

logger = logging.getLogger(__name__)

LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "chips": "int32",
    "chips_without_land_cover": "int32",
    "worldcover_files": "int32",
    **dict.fromkeys(WORLDCOVER_FIELDS.values(), "float32"),
    "chips_fingerprint": "string",
    "fingerprint": "string",
    "error": "string",
}
_FLOATS = NDArray[np.float64]


@dataclass(frozen=True)
class LandCoverJob:
    """What a worker needs for one scene; small enough to be sent to another machine."""

    item_id: str
    item: Item | None
    platform: str
    chips: str
    chips_fingerprint: str
    key: str
    store: Store
    chip_size: int
    worldcover: WorldCover
    stamp: Mapping[str, str]


def measure_land_cover(
    cell: ChipCell,
    items: Sequence[Item],
    worldcover: WorldCover,
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> LandCoverCell:
    """Measure the land cover of all indexed scenes of a cell that have none yet.

    Args:
        cell: the chip indexes.
        items: items of its imagery, which define the CRS of the chips.
        worldcover: location of land cover.
        store: storage of the files.
        recipe: the recipe; its chip size is used, and files are stamped with it.
        executor: runs scenes in parallel; workers write the files.
        in_flight: number of scenes submitted at once.
        progress: called with (scenes done, all scenes).

    Returns:
        The cell's land cover, its ledger ordered by item id.

    Raises:
        InputError: a web server has none of the required files.
        StorageError: the store cannot be written, so other scenes are not tried.
    """
    stamp, known = recipe.stamp(), {item["id"]: item for item in items}
    scenes = cell.scenes
    jobs = (
        LandCoverJob(
            item_id,
            known.get(item_id),
            cell.platform,
            chips,
            fingerprint,
            layout.landcover(cell.platform, cell.year, item_id),
            store,
            recipe.chip_size,
            worldcover,
            stamp,
        )
        for item_id, fingerprint, chips in zip(scenes["item_id"], scenes["fingerprint"], cell.keys, strict=True)
    )
    rows, kept, absent = [], 0, 0
    for done, (job, future) in enumerate(run_bounded(executor, measure_one, jobs, in_flight), start=1):
        try:
            row, without, was_there = future.result()
        except StorageError:
            raise
        except Exception as error:  # whatever a library raises for a bad file must not affect other scenes
            text = failure_text(error, job.item_id, logger)
            rows.append(_row(job, FAILED, error=text))
        else:
            rows.append(row)
            kept += was_there
            absent += without
        progress(done, len(scenes))
    if worldcover.cells is None and absent and not any(row["worldcover_files"] for row in rows):
        raise InputError(
            f"WorldCover {worldcover.location}: none of the required files found for the chips of {cell.platform} "
            f"{cell.year}. Check CLAY_WORLDCOVER."
        )
    if kept:
        logger.info("%s %d: land cover of %d of %d scenes is kept", cell.platform, cell.year, kept, len(scenes))
    ledger = pd.DataFrame(rows, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    return LandCoverCell(cell.platform, cell.year, store, ledger.sort_values("item_id", ignore_index=True), kept)


def measure_one(job: LandCoverJob) -> tuple[dict[str, Any], int, bool]:
    """Measure one scene and write its file.

    Returns:
        Its ledger row, the number of 3° cells under it without a file, and whether its file already existed.
    """
    fingerprint = fingerprint_of(job.chips_fingerprint, job.chip_size)
    kept = _kept(job, fingerprint)
    if kept is not None:
        return (*kept, True)
    chips = _read_chips(job)
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt:
            # If item and files differ, chips follow the grid of the files, which is then stored in their index.
            grid = grid_of_file(chips) or _declared(job)
            crs = None if not chips.num_rows else grid.crs if grid else _crs(job)
            table = chip_land_cover(chips, crs, job.chip_size, job.worldcover, declared=grid)
    stamp = {
        **job.stamp,
        **stamp_of(table.schema),
        "chips_fingerprint": job.chips_fingerprint,
        "fingerprint": fingerprint,
    }
    job.store.write(job.key, encode_arrow(table.replace_schema_metadata(None), stamp, **SHARE_FILE))
    row, without = _row_of(job, table, stamp)
    return row, without, False


def fingerprint_of(chips_fingerprint: str, chip_size: int) -> str:
    """32 hexadecimal digits that change with a scene's land cover, except for changes of WorldCover's files."""
    basis = json.dumps([LANDCOVER_VERSION, EDITION, chips_fingerprint, chip_size])
    return hashlib.blake2b(basis.encode(), digest_size=16).hexdigest()


def composition(cells: Sequence[LandCoverCell]) -> _FLOATS:
    """Share of each class in the area of some cells' chips, from their ledgers; shape (11,).

    The rest to 1 has no land cover.
    """
    fields = list(WORLDCOVER_FIELDS.values())
    sums, chips = np.zeros(len(fields)), 0
    for cell in cells:
        scenes = cell.scenes
        sums += scenes["chips"].to_numpy(np.float64) @ scenes[fields].to_numpy(np.float64)
        chips += int(scenes["chips"].sum())
    return sums / max(1, chips)


def composition_of_tiles(tiles: pd.DataFrame) -> _FLOATS:
    """Share of each class in the valid area of some MGRS tiles, which have equal size; shape (11,)."""
    shares = tiles[list(WORLDCOVER_CLASSES.values())].fillna(0).to_numpy(np.float64)
    weights = tiles["valid_share"].fillna(1).to_numpy(np.float64)
    whole: _FLOATS = weights @ shares / weights.sum() if weights.sum() else np.zeros(shares.shape[1])
    return whole


def _read_chips(job: LandCoverJob) -> pa.Table:
    columns = ["chipid", "chip_index_x", "chip_index_y", "gsd", "geometry"]
    name = job.store.uri(job.chips)
    try:
        table = pq.read_table(pa.BufferReader(job.store.read(job.chips)), columns=columns)
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: cannot be read ({error}). {AGAIN}") from error
    if stamp_of(table.schema).get("fingerprint") != job.chips_fingerprint:
        raise InputError(f"{name}: changed after its ledger was written. {AGAIN}")
    return table


def _normalised(job: LandCoverJob) -> tuple[AnyPlatform, Item]:
    if job.item is None:
        raise InputError(f"{job.item_id}: indexed, but missing from scene_imagery. {AGAIN}")
    source = platform_of(job.platform).with_access(job.store.access)
    return source, source.read_item(job.item)


def _crs(job: LandCoverJob) -> CRS:
    source, item = _normalised(job)
    return scene_crs(source, item)


def _declared(job: LandCoverJob) -> Grid | None:
    if job.item is None:
        return None
    source, item = _normalised(job)
    try:
        return declared_grid(source, item)
    except InputError:
        return None


def _kept(job: LandCoverJob, fingerprint: str) -> tuple[dict[str, Any], int] | None:
    """The ledger row of existing land cover, if this job would write the same."""
    try:
        table = pq.read_table(io.BytesIO(job.store.read(job.key)))
    except (FileNotFoundError, OSError, ValueError):
        return None
    stamp = stamp_of(table.schema)
    if stamp.get("fingerprint") != fingerprint or not table.schema.equals(SHARE_SCHEMA):
        return None
    absent = stamp.get("worldcover_absent", "").split()
    if absent and job.worldcover.present(absent):
        return None  # files that were missing then exist now
    return _row_of(job, table, stamp)


def _row_of(job: LandCoverJob, table: pa.Table, stamp: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    covered = table["valid_share"].to_numpy()
    shares = np.stack([table[name].to_numpy() for name in WORLDCOVER_FIELDS.values()], axis=1)
    of_area = np.nan_to_num(shares) * covered[:, None]
    row = _row(
        job,
        MEASURED,
        chips=table.num_rows,
        chips_without_land_cover=int((covered == 0).sum()),
        worldcover_files=len(stamp["worldcover"].split()),
        fingerprint=stamp["fingerprint"],
        **dict(zip(WORLDCOVER_FIELDS.values(), of_area.mean(axis=0) if len(of_area) else CODES * 0.0, strict=True)),
    )
    return row, len(stamp["worldcover_absent"].split())


def _row(job: LandCoverJob, outcome: str, **values: Any) -> dict[str, Any]:
    nothing = {name: 0 if kind.startswith(("int", "float")) else "" for name, kind in LEDGER_TYPES.items()}
    known = {"item_id": job.item_id, "outcome": outcome, "chips_fingerprint": job.chips_fingerprint}
    return {**nothing, "error": None, **known, **values}
