"""All chip indexes as one dataset: a file per platform and year, in spatial order, and a manifest of its state.

Rows are ordered along a Hilbert curve, so a query by bounding box reads few row groups. A cell's rows are streamed
through DuckDB's sort, which spills to disk, so memory does not grow with the cell. A part is replaced whole, and
only when its inputs changed; the manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips.cells import ChipCell
from clay_assets.chips.index import as_chips
from clay_assets.chips.rules import check_chips
from clay_assets.chips.sorting import with_hilbert_keys, write_sorted
from clay_assets.chips.versions import MERGE_VERSION
from clay_assets.errors import InputError
from clay_assets.executors import run_bounded
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import stamp_of, stamped
from clay_assets.storage.stores import Store

logger = logging.getLogger(__name__)

MANIFEST_VERSION = 2


@dataclass(frozen=True)
class Part:
    """One partition of the merged index, as the manifest tells it.

    Attributes:
        platform: platform key.
        year: partition.
        path: below the folder of the merged index.
        rows: chips.
        scenes: scenes that they come from.
        bytes: size of the file.
        inputs: hash of what it was made from.
        content: hash of the file (BLAKE2b, 16 bytes).
    """

    platform: str
    year: int
    path: str
    rows: int
    scenes: int
    bytes: int
    inputs: str
    content: str


@dataclass(frozen=True)
class Merged:
    """The state of the merged index, and how many parts this call wrote."""

    parts: list[Part]
    written: int

    @property
    def rows(self) -> int:
        """All chips."""
        return sum(part.rows for part in self.parts)


def merge(
    cells: Sequence[ChipCell],
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> Merged:
    """Bring the merged index up to the state of its cells.

    Args:
        cells: chip indexes, one per platform and year; those without chips have no part.
        store: where the merged index goes.
        recipe: written into the files and the manifest.
        executor: reads index files in parallel.
        in_flight: files read at once.
        progress: called with (cells done, cells in all).

    Raises:
        InputError: a chip index is invalid (columns, shares, chip ids), or a scene occurs in two years; nothing of
            that cell is published.
        StorageError: the store cannot be written.
    """
    _check_scenes_occur_once(cells)
    known = {(part.platform, part.year): part for part in read_manifest(store)}
    parts, written = [], 0
    ordered = sorted(cells, key=lambda cell: (cell.platform, cell.year))
    for done, cell in enumerate(ordered, start=1):
        if int(cell.scenes["chips"].sum()):
            part = _standing_part(cell, store, known.get((cell.platform, cell.year)))
            if part is None:
                part = _write_part(cell, store, recipe, executor, in_flight)
                written += 1
            parts.append(part)
        progress(done, len(ordered))
    logger.info("%d of %d parts were up to date and are kept", len(parts) - written, len(parts))
    manifest = _manifest(parts, recipe)
    if not store.exists(layout.MANIFEST) or store.read(layout.MANIFEST) != manifest:
        store.write(layout.MANIFEST, manifest)
    # Last, so that a killed run leaves files too many, never too few: parts of cells that are gone, and whatever a
    # version before 0.2 wrote, whose folders and manifest had other names.
    stale = set(store.list(layout.MERGED)) - {f"{layout.MERGED}/{part.path}" for part in parts}
    store.delete(sorted(stale))
    return Merged(parts, written)


def read_manifest(store: Store) -> list[Part]:
    """The parts that the manifest lists; none if there is no merged index yet.

    Raises:
        InputError: the manifest cannot be understood.
    """
    try:
        document = json.loads(store.read(layout.MANIFEST))
        return [Part(**entry) for entry in document["partitions"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{store.uri(layout.MANIFEST)}: cannot be understood ({error!r}). Delete it and materialise merged_index."
        ) from error


def inputs_of(cell: ChipCell) -> str:
    """Hash of all that decides a part's content: its scenes, their fingerprints and their chips."""
    scenes = cell.scenes[["item_id", "fingerprint", "chips"]].sort_values("item_id")
    text = json.dumps([MERGE_VERSION, scenes.to_numpy().tolist()])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check_scenes_occur_once(cells: Sequence[ChipCell]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for cell in cells:
        for item_id in cell.scenes["item_id"]:
            other = seen.get((cell.platform, item_id))
            if other is not None:
                places = f"twice in {other}" if other == cell.year else f"in {other} and in {cell.year}"
                raise InputError(
                    f"{cell.platform}: scene {item_id} is {places}, so its chip ids would repeat. "
                    "Materialise scene_picks and chip_index of these years again."
                )
            seen[cell.platform, item_id] = cell.year


def _standing_part(cell: ChipCell, store: Store, known: Part | None) -> Part | None:
    """The part that is there already, if it was made from what the cell is now."""
    key = layout.merged_part(cell.platform, cell.year)
    size, inputs = store.size(key), inputs_of(cell)
    if size is None:
        return None
    if known is not None and (known.inputs, known.bytes) == (inputs, size):
        return known
    try:  # a run that was killed before the manifest may have made it
        stamp = stamp_of(pq.read_schema(key, filesystem=store.filesystem()))
    except (pa.ArrowInvalid, OSError):
        return None
    if stamp.get("inputs") != inputs:
        return None
    content = store.read(key)
    return _part(cell, len(content), hashlib.blake2b(content, digest_size=16).hexdigest())


def _write_part(cell: ChipCell, store: Store, recipe: Recipe, executor: Executor, in_flight: int) -> Part:
    with store.writing(layout.merged_part(cell.platform, cell.year)) as path:
        with tempfile.TemporaryDirectory(prefix="clay-sort-") as spill:
            stamp = stamped({**recipe.stamp(), "inputs": inputs_of(cell)})
            rows = write_sorted(_batches(cell, executor, in_flight), path, Path(spill), stamp)
        expected = int(cell.scenes["chips"].sum())
        if rows != expected:
            raise InputError(
                f"{cell.platform} {cell.year}: index files hold {rows} chips, their ledger {expected}. "
                "Materialise chip_index of this partition again."
            )
        with path.open("rb") as file:
            content = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
        return _part(cell, path.stat().st_size, content)


def _batches(cell: ChipCell, executor: Executor, in_flight: int) -> Iterator[pa.RecordBatch]:
    read = partial(_read_scene, cell.store, cell.platform, cell.year)
    jobs = zip(cell.scenes["item_id"], cell.scenes["fingerprint"], cell.keys, strict=True)
    for _, future in run_bounded(executor, read, jobs, in_flight):
        yield from future.result().to_batches()


def _read_scene(store: Store, platform: str, year: int, job: tuple[str, str, str]) -> pa.Table:
    item_id, fingerprint, key = job
    try:
        table = as_chips(pq.read_table(pa.BufferReader(store.read(key))))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InputError(f"{store.uri(key)}: cannot be read ({error}). Materialise chip_index again.") from error
    if stamp_of(table.schema).get("fingerprint") != fingerprint:
        raise InputError(f"{store.uri(key)}: changed after its ledger was written. Materialise chip_index again.")
    check_chips(table, platform, item_id, store.uri(key))
    return with_hilbert_keys(table, year)


def _part(cell: ChipCell, size: int, content: str) -> Part:
    path = layout.merged_part(cell.platform, cell.year).removeprefix(f"{layout.MERGED}/")
    rows, scenes = int(cell.scenes["chips"].sum()), len(cell.scenes)
    return Part(cell.platform, cell.year, path, rows, scenes, size, inputs_of(cell), content)


def _manifest(parts: Sequence[Part], recipe: Recipe) -> bytes:
    document = {
        "version": MANIFEST_VERSION,
        "rows": sum(part.rows for part in parts),
        "partitions": [asdict(part) for part in parts],
        **recipe.stamp(),
    }
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
