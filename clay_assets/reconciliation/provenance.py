"""Why a chip is in the training set: its sampled location, search, scene, files and split.

A chip is found by the name of its scene's index file, without scanning the merged index.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rasterio.windows import Window

from clay_assets.chips.cells import cells_with_chips
from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.sources.cog.reader import ranges_of
from clay_assets.storage import layout
from clay_assets.storage.stores import Store
from clay_assets.training.scene_files import SceneFiles, stored_scene_files

CHIP_SIZE = 256  # pixels, side length
THREADS = 16  # for reading files; they mostly wait for the storage
NOT_SHOWN = ("geometry", "bbox", "links", "assets", "stac_extensions", "type", "stac_version")


@dataclass(frozen=True)
class FileUse:
    """The parts of one file that a chip needs.

    Attributes:
        asset: key of the item's asset.
        href: address of the file.
        format: description of how pixels are stored.
        ranges: offset and length in bytes of each block; empty if the file is read through GDAL.
    """

    asset: str
    href: str
    format: str
    ranges: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Provenance:
    """Everything the storage records about one chip.

    Attributes:
        platform: platform key.
        year: year of the partition.
        chip: the chip's row in the index of its scene.
        merged: the chip's land cover, split and file in the merged index; empty before it is merged.
        requests: searches that returned its scene, each with its row of `scene_requests` and of the ledger.
        sample: rows of the sample for the locations of these searches.
        imagery: the scene's row of the imagery ledger.
        files: the parts of each file that the chip needs; empty without headers.
        notes: what is unknown, and what to do.
    """

    platform: str
    year: int
    chip: Mapping[str, Any]
    merged: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    sample: Sequence[Mapping[str, Any]]
    imagery: Mapping[str, Any]
    files: Sequence[FileUse]
    notes: Sequence[str] = field(default_factory=list)


def provenance(store: Store, chipid: str, platform: str | None = None) -> Provenance:
    """Collect everything the storage records about a chip.

    Args:
        store: the storage root.
        chipid: `{item_id}-{x}-{y}`.
        platform: platform key, required if several platforms have a chip with this id.

    Raises:
        InputError: chip not found, or found for several platforms.
    """
    item_id, x, y = _parts_of(chipid)
    key, year, chip = _found(store, chipid, item_id, x, y, platform)
    notes: list[str] = []
    requests = _requests(store, key, year, item_id)
    if not requests:
        notes.append(f"no request in the ledger of {key}|{year} names this scene: the picks have changed")
    sample = _sample(store, key, [str(request["location"]) for request in requests])
    merged = _merged(store, key, year, chip)
    if not merged:
        notes.append("the chip is not in the merged index. Materialise merged_index")
    imagery = _rows(store, layout.imagery_ledger(key, year), pc.field("item_id") == item_id)
    files: list[FileUse] = []
    try:
        files = file_uses(stored_scene_files(store, key, year, item_id), key, x, y)
    except InputError as error:
        notes.append(str(error))
    return Provenance(key, year, chip, merged, requests, sample, imagery[0] if imagery else {}, files, notes)


def file_uses(files: SceneFiles, platform: str, x: int, y: int) -> list[FileUse]:
    """The parts of each file that the chip in column `x` and row `y` of a scene needs."""
    finest = files.headers[platform_of(platform).assets.grid]
    uses = []
    for asset, header in files.headers.items():
        side = CHIP_SIZE * header.width // finest.width
        ranges = ranges_of(header, Window(x * side, y * side, side, side)) if side else []
        how = (
            header.fallback
            or f"{header.count} × {header.dtype} in blocks of {header.block_height} × {header.block_width}"
        )
        if header.fallback:
            how = f"read through GDAL: {how}"
        uses.append(FileUse(asset, files.hrefs[asset], how, ranges))
    return uses


def _parts_of(chipid: str) -> tuple[str, int, int]:
    item_id, _, place = chipid.rpartition("-")
    item_id, _, column = item_id.rpartition("-")
    if not item_id or not (column.isdecimal() and place.isdecimal()):
        raise InputError(
            f"{chipid}: not a chip id. Give {{item_id}}-{{x}}-{{y}}, such as S2A_32NLG_20200101_0_L2A-3-7."
        )
    return item_id, int(column), int(place)


def _found(
    store: Store, chipid: str, item_id: str, x: int, y: int, platform: str | None
) -> tuple[str, int, dict[str, Any]]:
    """Platform, year and row of a chip, read from its scene's index file."""
    cells = cells_with_chips(store)
    if platform is not None:
        wanted = platform_of(platform).key
        cells = [cell for cell in cells if cell[0] == wanted]
    if not cells:
        raise InputError(f"{store.uri()}: chip index not found. Materialise chip_index.")

    def look(cell: tuple[str, int]) -> tuple[str, int, dict[str, Any]] | None:
        this = (pc.field("chip_index_x") == x) & (pc.field("chip_index_y") == y)
        rows = _rows(store, layout.chips(*cell, item_id), this)
        return (*cell, rows[0]) if rows else None

    with ThreadPoolExecutor(THREADS) as pool:
        found = [one for one in pool.map(look, cells) if one is not None]
    if not found:
        of_which = f" of {platform}" if platform else ""
        raise InputError(
            f"{chipid}: chip{of_which} not found in {store.uri(layout.folder_of('chip_index'))}. Check the id, "
            "{item_id}-{x}-{y}; chips with too much nodata are not indexed."
        )
    keys = sorted({key for key, _, _ in found})
    if len(keys) > 1:
        raise InputError(f"{chipid}: found for platforms {' and '.join(keys)}. Choose one with --platform.")
    return found[0]


def _requests(store: Store, platform: str, year: int, item_id: str) -> list[dict[str, Any]]:
    outcomes = _rows(store, layout.request_ledger(platform, year), pc.field("item_id") == item_id)
    names = [row["request_id"] for row in outcomes]
    known = {
        row["request_id"]: row
        for row in _rows(store, layout.table("scene_requests", platform), pc.field("request_id").isin(names))
    }
    return [{**known.get(row["request_id"], {}), **row} for row in outcomes]


def _sample(store: Store, platform: str, locations: Sequence[str]) -> list[dict[str, Any]]:
    source = platform_of(platform).scenes
    name = "id" if source.sample_has_items else "name"
    return _rows(store, layout.table(source.sample), pc.field(name).isin(list(locations)))


def _merged(store: Store, platform: str, year: int, chip: Mapping[str, Any]) -> dict[str, Any]:
    """Land cover and split; filtering by bounding box limits which row groups are read."""
    key, box = layout.merged_part(platform, year), chip["bbox"]
    this = (pc.field("chipid") == chip["chipid"]) & (pc.field("item_id") == chip["item_id"])
    for side, value in box.items():
        this &= pc.field("bbox", side) == value
    try:
        columns = ["landcover", "landcover_class", "split"]
        table = pq.read_table(key, filesystem=store.filesystem(), filters=this, columns=columns, partitioning=None)
    except (FileNotFoundError, OSError, pa.ArrowInvalid):
        return {}
    return {**table.to_pylist()[0], "part": key} if table.num_rows else {}


def _rows(store: Store, key: str, which: pc.Expression) -> list[dict[str, Any]]:
    """Rows of a table without columns that are not shown; none if the table is missing."""
    try:
        table = pq.read_table(io.BytesIO(store.read(key)), filters=which)
    except (FileNotFoundError, pa.ArrowInvalid):
        return []
    shown = [
        name
        for name in table.column_names
        if name not in NOT_SHOWN or (name == "bbox" and "chipid" in table.column_names)
    ]
    rows: list[dict[str, Any]] = table.select(shown).to_pylist()
    return rows
