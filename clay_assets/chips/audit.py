"""Checks of stored chip indexes: a cell's files against its ledger and items, and the merged index against its manifest
and the cells.

Files are read one by one, and from the merged index only the columns that identify chips, so memory is bounded by eight
bytes per row of a part. The rules for one scene's chips are in `rules`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.chips.cells import ChipCell, LandCoverCell
from clay_assets.chips.index import declared_grid, grid_of_file
from clay_assets.chips.landcover import SHARE_SCHEMA
from clay_assets.chips.manifest import Part, read_manifest
from clay_assets.chips.measuring import composition, composition_of_tiles
from clay_assets.chips.merge import MergeCell
from clay_assets.chips.rules import CHECKED, geometry_in_scene, ids_unique, shares_in_range, shares_sum_to_one
from clay_assets.errors import InputError, StorageError
from clay_assets.executors import run_bounded
from clay_assets.findings import Finding, combined, make_finding, names
from clay_assets.footprints import footprint_of
from clay_assets.grids import Grid
from clay_assets.platforms.base import AnyPlatform
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import stamp_of
from clay_assets.storage.stores import Store

IDS, SHARES, GEOMETRY, ROWS = "chip_ids_unique", "shares_in_range", "geometry_in_scene", "rows_of_ledger"
LANDCOVER_SHARES, LANDCOVER_ROWS = "shares_sum_to_100_percent", "rows_of_chip_index"
BATCH_ROWS = 262_144
UNREADABLE = (pa.ArrowInvalid, KeyError, OSError)  # damaged, without a column, missing


@dataclass(frozen=True)
class _SceneFile:
    """One index file, and what it should contain."""

    key: str
    item_id: str
    chips: int
    fingerprint: str
    grid: Grid | None
    footprint: Any


def look_at_cell(
    cell: ChipCell, items: Sequence[Item], platform: AnyPlatform, chip_size: int, executor: Executor, in_flight: int
) -> dict[str, Finding]:
    """Check every index file of a cell, reading each once.

    Args:
        cell: the cell according to its ledger.
        items: items of its imagery, which define the grids of the chips.
        platform: the cell's platform.
        chip_size: side length of a chip in pixels.
        executor: reads files in parallel.
        in_flight: files read at once.

    Returns:
        Findings by name: `chip_ids_unique`, `shares_in_range`, `geometry_in_scene` (see `rules`), and
        `rows_of_ledger`: `scenes`, `chips` in the files, `chips_of_ledger`, `files_missing` (or unreadable),
        `files_of_another_run`, and `files_not_in_ledger`, such as left by a killed run.
    """
    known = {item["id"]: item for item in items}
    files = [_scene_file(cell, row, known.get(row["item_id"]), platform) for row in cell.scenes.to_dict("records")]
    seen: dict[str, dict[str, Finding]] = {name: {} for name in (IDS, SHARES, GEOMETRY, ROWS)}
    look = partial(_look_at_scene, cell.store, chip_size)
    for file, future in run_bounded(executor, look, files, in_flight):
        for name, found in future.result().items():
            seen[name][file.item_id] = found
    nothing = {"": make_finding([], chips=0)}
    merged = {name: combined(dict(sorted(found.items())) or nothing) for name, found in seen.items()}
    ids = cell.scenes["item_id"]
    twice = names(ids[ids.duplicated()])
    extra = set(cell.store.list(layout.chip_folder(cell.platform, cell.year), ".parquet")) - set(cell.keys)
    rows = merged[ROWS]
    merged[ROWS] = make_finding(
        [f"scene {name} is in the ledger more than once" for name in twice] + list(rows.violations),
        violation_count=rows.violation_count + len(twice),
        omitted=rows.omitted,
        **{**_NO_ROWS, **rows.numbers, "files_not_in_ledger": len(extra)},
    )
    return merged


_NO_ROWS: dict[str, Any] = {
    "scenes": 0,
    "chips": 0,
    "chips_of_ledger": 0,
    "files_missing": 0,
    "files_of_another_run": 0,
}


def _scene_file(cell: ChipCell, row: Mapping[Any, Any], item: Item | None, platform: AnyPlatform) -> _SceneFile:
    item_id = str(row["item_id"])
    footprint = footprint_of(item.get("geometry")) if item else None
    grid = declared_grid(platform, item) if item else None
    key = layout.chips(cell.platform, cell.year, item_id)
    return _SceneFile(key, item_id, int(row["chips"]), str(row["fingerprint"]), grid, footprint)


def _look_at_scene(store: Store, chip_size: int, file: _SceneFile) -> dict[str, Finding]:
    numbers = {**_NO_ROWS, "scenes": 1, "chips_of_ledger": file.chips}
    said: list[str] = []
    try:
        table = pq.read_table(pa.BufferReader(store.read(file.key)), columns=CHECKED)
    except StorageError:
        raise
    except UNREADABLE as error:
        gone = isinstance(error, FileNotFoundError)
        said.append(f"{store.uri(file.key)}: {'file not found' if gone else f'cannot be read ({error})'}")
        return {ROWS: make_finding(said, **{**numbers, "files_missing": 1})}
    if table.num_rows != file.chips:
        said.append(f"the file has {table.num_rows:,} chips, the ledger {file.chips:,}")
    other = stamp_of(table.schema).get("fingerprint") != file.fingerprint
    if other:
        said.append("the file is not the one listed in the ledger")
    return {
        ROWS: make_finding(said, **{**numbers, "chips": table.num_rows, "files_of_another_run": int(other)}),
        IDS: ids_unique(table, file.item_id),
        SHARES: shares_in_range(table),
        GEOMETRY: geometry_in_scene(table, grid_of_file(table) or file.grid, file.footprint, chip_size),
    }


def rows_of_chip_indexes(store: Store, cells: Sequence[MergeCell]) -> Finding:
    """Check that each part has the rows of its chip index, and is the file listed in the manifest.

    Parts whose chip index has changed since they were merged are only compared with the manifest; `stale_cells` lists
    them.

    Returns:
        `chips` in the files, `chips_of_manifest`, `chips_of_cells` for the parts compared with them, `partitions`,
        `partitions_behind`, and `files_not_in_manifest`.
    """
    parts = read_manifest(store)
    now = {(cell.chips.platform, cell.chips.year): cell for cell in cells}
    said, chips, expected, stale = [], 0, 0, 0
    for part in parts:
        key = f"{layout.MERGED}/{part.path}"
        name = f"{part.platform}|{part.year}"
        try:
            with pq.ParquetFile(key, filesystem=store.filesystem()) as footer:
                rows, made_from = footer.metadata.num_rows, stamp_of(footer.schema_arrow).get("inputs")
        except UNREADABLE as error:
            said.append(f"{name}: {store.uri(key)}: cannot be read ({error})")
            continue
        chips += rows
        size = store.size(key) or 0
        if (rows, size, made_from) != (part.rows, part.bytes, part.inputs):
            said.append(
                f"{name}: the file has {rows:,} chips in {size:,} bytes, the manifest {part.rows:,} in {part.bytes:,}"
            )
        cell = now.get((part.platform, part.year))
        if cell is None or cell.inputs != part.inputs:
            stale += 1
            continue
        expected += cell.rows
        if rows != cell.rows:
            said.append(f"{name}: {rows:,} chips, but {cell.rows:,} in its chip index")
    total = _manifest_rows(store)
    if total != sum(part.rows for part in parts):
        said.append(f"{total:,} chips in the manifest, {sum(part.rows for part in parts):,} in its partitions")
    extra = set(store.list(layout.MERGED)) - {f"{layout.MERGED}/{part.path}" for part in parts}
    said += [f"{store.uri(key)} is not in the manifest" for key in sorted(extra)]
    return make_finding(
        said,
        chips=chips,
        chips_of_manifest=total,
        chips_of_cells=expected,
        partitions=len(parts),
        partitions_behind=stale,
        files_not_in_manifest=len(extra),
    )


def merged_ids_unique(store: Store) -> Finding:
    """Check that no chip id of a platform occurs twice in the merged index.

    A chip id contains its scene's id, so ids are unique if no scene is in two parts and no id repeats within a part.

    Returns:
        `chips`, `scenes`, `repeated` chips, `foreign_ids` that do not match their row's scene and position, and
        `scenes_in_two_parts`.
    """
    home: dict[tuple[str, str], int] = {}
    numbers: dict[str, Any] = {"chips": 0, "scenes": 0, "repeated": 0, "foreign_ids": 0, "scenes_in_two_parts": 0}
    said: list[str] = []
    for part in read_manifest(store):
        name = f"{part.platform}|{part.year}"
        try:
            places, scenes, foreign = _places(store, part)
        except UNREADABLE as error:
            said.append(f"{name}: {store.uri(f'{layout.MERGED}/{part.path}')}: cannot be read ({error})")
            continue
        shared = [scene for scene in scenes if home.setdefault((part.platform, scene), part.year) != part.year]
        said += [f"{name}: scene {scene} is also in {home[part.platform, scene]}" for scene in shared]
        places.sort()
        twice = np.flatnonzero(places[1:] == places[:-1])
        if len(twice):
            said.append(f"{name}: {len(twice):,} chip ids repeat, first {_chipid(scenes, int(places[twice[0]]))}")
        if foreign:
            said.append(f"{name}: {foreign:,} chip ids do not match their scene and position")
        found = (len(places), len(scenes), len(twice), foreign, len(shared))
        for key, value in zip(numbers, found, strict=True):
            numbers[key] += value
    return make_finding(said, **numbers)


def stale_cells(store: Store, cells: Sequence[MergeCell]) -> list[str]:
    """The sorted cells, such as `naip|2021`, whose chips have changed since they were merged."""
    merged = {f"{part.platform}|{part.year}": part.inputs for part in read_manifest(store)}
    now = {cell.name: cell.inputs for cell in cells if cell.rows}
    return sorted(name for name in merged.keys() | now.keys() if merged.get(name) != now.get(name))


def land_cover_of_cells(cells: Sequence[MergeCell]) -> Finding:
    """Check that every cell has up-to-date land cover of its chips; without it, the cell is not re-merged.

    Returns:
        `cells_with_chips`, `cells_without_land_cover`, and a row for each of these.
    """
    with_chips = [cell for cell in cells if cell.rows]
    rows = []
    for cell in with_chips:
        if not cell.is_current:
            lacking = len(cell.chips.scenes if cell.land_cover is None else cell.land_cover.lacking(cell.chips))
            rows.append({"cell": cell.name, "scenes": len(cell.chips.scenes), "without_land_cover": lacking})
    said = [
        f"{row['cell']}: no up-to-date land cover for {row['without_land_cover']:,} of {row['scenes']:,} scenes, so "
        "the cell is not re-merged; materialise chip_landcover"
        for row in rows
    ]
    return make_finding(said, rows, cells_with_chips=len(with_chips), cells_without_land_cover=len(rows))


def composition_of_sample(cells: Sequence[LandCoverCell], sample: pd.DataFrame, most: float) -> Finding:
    """Check that chips of platforms sampled by land cover have roughly the land cover of the sampled tiles.

    Args:
        cells: land cover of these platforms' chips.
        sample: the tiles, with their class shares.
        most: tolerated difference of a class's share.

    Returns:
        `tiles`, `highest_difference`, and a row for each platform: `class` with the largest difference, its percent of
        the `chips` and of the `sample`.
    """
    of_sample = composition_of_tiles(sample)
    classes, rows, said = list(WORLDCOVER_CLASSES.values()), [], []
    highest = 0.0
    for key in sorted({cell.platform for cell in cells}):
        shares = composition([cell for cell in cells if cell.platform == key])
        if not shares.sum() or not of_sample.sum():
            continue
        off = shares / shares.sum() - of_sample
        worst = int(np.abs(off).argmax())
        highest = max(highest, float(abs(off[worst])))
        of_chips = float(100 * (of_sample[worst] + off[worst]))
        rows.append(
            {"platform": key, "class": classes[worst], "chips": of_chips, "sample": float(100 * of_sample[worst])}
        )
        if abs(off[worst]) > most:
            said.append(
                f"{key}: {classes[worst]} covers {of_chips:.1f} % of its chips and {100 * of_sample[worst]:.1f} % "
                "of the sampled tiles"
            )
    return make_finding(said, rows, tiles=len(sample), highest_difference=highest)


def look_at_land_cover(
    land_cover: LandCoverCell, cell: ChipCell, executor: Executor, in_flight: int
) -> dict[str, Finding]:
    """Check every land-cover file of a cell, reading each once.

    Args:
        land_cover: the land cover according to its ledger.
        cell: the chip indexes.
        executor: reads files in parallel.
        in_flight: files read at once.

    Returns:
        Findings by name: `shares_sum_to_100_percent` (see `rules.shares_sum_to_one`), and `rows_of_chip_index`:
        `scenes`, `chips`, `chips_of_chip_index`, `scenes_without_land_cover` that failed,
        `scenes_not_looked_at`, `files_missing` (or unreadable), `files_of_another_run`, `files_not_in_ledger`.
    """
    lacking = land_cover.lacking(cell)
    expected = dict(zip(cell.scenes["item_id"], cell.scenes["chips"].astype(int), strict=True))
    jobs = [
        (key, row["item_id"], int(row["chips"]), expected.get(row["item_id"]), row["fingerprint"])
        for key, row in zip(land_cover.keys, land_cover.scenes.to_dict("records"), strict=True)
    ]
    seen: dict[str, dict[str, Finding]] = {LANDCOVER_SHARES: {}, LANDCOVER_ROWS: {}}
    for job, future in run_bounded(executor, partial(_look_at_shares, land_cover.store), jobs, in_flight):
        for name, found in future.result().items():
            seen[name][job[1]] = found
    nothing = {"": make_finding([], chips=0)}
    merged = {name: combined(dict(sorted(found.items())) or nothing) for name, found in seen.items()}
    rows = merged[LANDCOVER_ROWS]
    stored = set(land_cover.store.list(layout.landcover_folder(cell.platform, cell.year), ".parquet"))
    said = [f"no up-to-date land cover for scene {name}" for name in lacking]
    merged[LANDCOVER_ROWS] = make_finding(
        said + list(rows.violations),
        violation_count=rows.violation_count + len(said),
        omitted=rows.omitted,
        **{
            **_NO_SHARES,
            **rows.numbers,
            "chips_of_chip_index": sum(expected.values()),
            "scenes_without_land_cover": len(land_cover.ledger) - len(land_cover.scenes),
            "scenes_not_looked_at": len(lacking),
            "files_not_in_ledger": len(stored - set(land_cover.keys)),
        },
    )
    return merged


_NO_SHARES: dict[str, Any] = {"scenes": 0, "chips": 0, "files_missing": 0, "files_of_another_run": 0}


def _look_at_shares(store: Store, job: tuple[str, str, int, int | None, str]) -> dict[str, Finding]:
    key, _, chips, of_index, fingerprint = job
    numbers = {**_NO_SHARES, "scenes": 1}
    try:
        table = pq.read_table(pa.BufferReader(store.read(key)))
        if not table.schema.equals(SHARE_SCHEMA):
            raise KeyError("not the columns of land cover")
    except StorageError:
        raise
    except UNREADABLE as error:
        gone = isinstance(error, FileNotFoundError)
        said = f"{store.uri(key)}: {'file not found' if gone else f'cannot be read ({error})'}"
        return {LANDCOVER_ROWS: make_finding([said], **{**numbers, "files_missing": 1})}
    said_of_rows = []
    if table.num_rows != chips:
        said_of_rows.append(f"the file has {table.num_rows:,} chips, the ledger {chips:,}")
    elif of_index is not None and chips != of_index:
        said_of_rows.append(f"the file has {chips:,} chips, its chip index {of_index:,}")
    other = stamp_of(table.schema).get("fingerprint") != fingerprint
    if other:
        said_of_rows.append("the file is not the one listed in the ledger")
    return {
        LANDCOVER_ROWS: make_finding(
            said_of_rows, **{**numbers, "chips": table.num_rows, "files_of_another_run": int(other)}
        ),
        LANDCOVER_SHARES: shares_sum_to_one(table),
    }


def _manifest_rows(store: Store) -> int:
    try:
        return int(json.loads(store.read(layout.MANIFEST))["rows"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.uri(layout.MANIFEST)}: number of rows missing ({error!r}). Delete it and materialise merged_index."
        ) from error


def _places(store: Store, part: Part) -> tuple[NDArray[np.uint64], list[str], int]:
    """Scene, column and row of each chip of a part, packed in one number; scenes by number; count of foreign ids."""
    codes: dict[str, int] = {}
    chunks, foreign = [np.empty(0, np.uint64)], 0
    for batch in _batches(store, part, ["chipid", "item_id", "chip_index_x", "chip_index_y"]):
        items = batch["item_id"].dictionary_encode()
        code = np.array([codes.setdefault(str(item), len(codes)) for item in items.dictionary], np.uint64)
        x, y = batch["chip_index_x"], batch["chip_index_y"]
        ids = pc.binary_join_element_wise(items.cast(pa.string()), x.cast(pa.string()), y.cast(pa.string()), "-")
        foreign += int(pc.sum(pc.not_equal(batch["chipid"], ids).fill_null(True)).as_py() or 0)
        scene = code[items.indices.to_numpy()] if len(code) else code
        chunks.append(scene << np.uint64(32) | x.to_numpy().astype(np.uint64) << np.uint64(16) | y.to_numpy())
    return np.concatenate(chunks), list(codes), foreign


def _batches(store: Store, part: Part, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(f"{layout.MERGED}/{part.path}", filesystem=store.filesystem(), pre_buffer=True) as file:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)


def _chipid(scenes: Sequence[str], place: int) -> str:
    return f"{scenes[place >> 32]}-{place >> 16 & 0xFFFF}-{place & 0xFFFF}"
