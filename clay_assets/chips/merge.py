"""Merge all chip indexes into one dataset: a file per platform and year, in spatial order, and a manifest.

A part is made from a cell's chip indexes, the land cover of its chips and the plan of the splits. Rows follow a Hilbert
curve, so a bounding-box query reads few row groups. Many scenes are read and checked together (`records`), and sorted
within a memory limit (`sorting`), so memory does not grow with the cell; a part is written while the next cell is read.
Parts are replaced atomically, and only when their inputs change; the manifest is written last.

Before a part is published, its chips are compared with those of all other parts: the merge stops if any two of
different splits are closer than the recipe allows (`clay_assets.chips.leaks`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.chips.cells import MEASURED, ChipCell, LandCoverCell
from clay_assets.chips.leaks import Leaks, Painted, painted_rows, rows_to_paint
from clay_assets.chips.manifest import (
    MANIFEST_VERSION,
    Part,
    manifest_of,
    manifest_version,
    read_history,
    read_manifest,
)
from clay_assets.chips.painted import PaintedPart, footer_of, joined, store_painted, stored_painted
from clay_assets.chips.records import SceneJob, Source, in_order_of_ids, jobs_of, read_scenes
from clay_assets.chips.sorting import Runs, bounds_of, splits_of_row_groups, write_sorted
from clay_assets.chips.splits import SPLIT_NAMES, GroundSplits, SplitPlan
from clay_assets.chips.versions import MERGE_VERSION
from clay_assets.errors import InputError, StorageError
from clay_assets.executors import run_bounded
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import stamp_of, stamped
from clay_assets.storage.stores import Store

logger = logging.getLogger(__name__)

SHOWN = 10  # cells that a message lists


@dataclass(frozen=True)
class MergeCell:
    """The inputs of a part.

    Attributes:
        chips: the chip indexes of a platform and year.
        land_cover: land cover of these chips; None: not measured yet.
        parameters: other settings that affect the columns joined to a chip, serialisable as JSON.
    """

    chips: ChipCell
    land_cover: LandCoverCell | None
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The partition's key, such as `naip|2021`."""
        return f"{self.chips.platform}|{self.chips.year}"

    @cached_property
    def rows(self) -> int:
        """Number of chips according to the ledger."""
        return int(self.chips.scenes["chips"].sum())

    @cached_property
    def is_current(self) -> bool:
        """Whether the land cover is that of the current chips."""
        return self.land_cover is not None and not self.land_cover.lacking(self.chips)

    @cached_property
    def inputs(self) -> str:
        """Hash of all that affects a part's content: scenes, chips, land cover, their fingerprints, the parameters."""
        scenes = self.chips.scenes[["item_id", "fingerprint", "chips"]].sort_values("item_id")
        land_cover: list[Any] | None = None
        if self.land_cover is not None:
            of_scenes = self.land_cover.ledger.sort_values("item_id")
            of_scenes = of_scenes[of_scenes["item_id"].isin(scenes["item_id"])]
            land_cover = of_scenes[["item_id", "fingerprint", "chips_fingerprint"]].to_numpy().tolist()
        basis = [MERGE_VERSION, scenes.to_numpy().tolist(), land_cover, dict(self.parameters)]
        return hashlib.blake2b(json.dumps(basis, sort_keys=True).encode(), digest_size=16).hexdigest()


def merge_cells(
    cells: Sequence[ChipCell], land_covers: Sequence[LandCoverCell], recipe: Recipe, splits: str | None
) -> list[MergeCell]:
    """Each cell with its land cover, in the order of platforms and years.

    Args:
        cells: chip indexes.
        land_covers: land cover of their chips.
        recipe: defines which chips have land cover.
        splits: fingerprint of the splits; None if nothing is stored from which they could be drawn.
    """
    known = {(one.platform, one.year): one for one in land_covers}
    parameters = {"min_valid_share": recipe.chip_landcover.min_valid_share, "splits": splits}
    ordered = sorted(cells, key=lambda cell: (cell.platform, cell.year))
    return [MergeCell(cell, known.get((cell.platform, cell.year)), parameters) for cell in ordered]


@dataclass(frozen=True)
class Merged:
    """The state of the merged index, and what the merge did.

    Attributes:
        parts: parts of the index.
        written: number of parts written.
        without_land_cover: cells, such as `naip|2021`, whose chips have no current land cover; their old part, if any,
            is kept.
        splits: platform → split → number of chips.
    """

    parts: list[Part]
    written: int
    without_land_cover: list[str]
    splits: Mapping[str, Mapping[str, int]]

    @property
    def rows(self) -> int:
        """Number of chips."""
        return sum(part.rows for part in self.parts)


def merge(
    cells: Sequence[ChipCell],
    land_covers: Sequence[LandCoverCell],
    plan: SplitPlan,
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> Merged:
    """Bring the merged index up to date with its cells.

    Args:
        cells: chip indexes, one per platform and year; cells without chips get no part.
        land_covers: land cover of their chips. A cell whose chips have no current land cover keeps its old part.
        plan: plan of the splits.
        store: storage of the merged index.
        recipe: defines which chips have land cover; recorded in the files and the manifest.
        executor: reads index files in parallel.
        in_flight: files read concurrently.
        progress: called with (cells done, cells in all).

    Raises:
        InputError: a chip index (columns, shares, chip ids) or its land cover is invalid, or a scene occurs in two
            years; that cell is not published. Or no cell has land cover, or the index has no land cover but only some
            cells do, so that parts would differ in their columns; nothing is changed. Or chips of different splits are
            too close; their cell is not published.
        StorageError: the store is not writable.
    """
    _check_scenes_occur_once(cells)
    turn = _Turn(store)
    known = {(part.platform, part.year): part for part in read_manifest(store)}
    ordered = merge_cells(cells, land_covers, recipe, plan.fingerprint)
    without = [cell.name for cell in ordered if cell.rows and not cell.is_current]
    _check_land_cover(store, without, ordered)
    gate = _Gate(store, recipe, plan.ground.distance_km, without)
    # Add kept parts first, so that nothing too close to their chips is published.
    parts, to_write, done = [], [], 0
    for cell in ordered:
        part = _kept_part(cell, turn, known.get((cell.chips.platform, cell.chips.year)), without, recipe)
        if part is not None:
            gate.add_part(part)
            key = f"{layout.MERGED}/{part.path}"
            if not part.row_groups:  # merged by an older version
                part = replace(part, row_groups=splits_of_row_groups(store, key))
            if not part.bbox:
                part = replace(part, bbox=bounds_of(store, key))
            parts.append(part)
        elif cell.rows and cell.name not in without:
            to_write.append(cell)
            continue
        done += 1
        progress(done, len(ordered))
    gate.check("the parts that are kept")
    for part in _written(to_write, plan.ground, turn, recipe, _Pool(executor, in_flight), gate):
        parts.append(part)
        done += 1
        progress(done, len(ordered))
    parts.sort(key=lambda part: (part.platform, part.year))
    written = len(to_write)
    logger.info("%d of %d parts were up to date and are kept", len(parts) - written, len(parts))
    if without:
        logger.warning("their chips have no current land cover, so these keep their old parts: %s", ", ".join(without))
    manifest = manifest_of(parts, recipe, read_history(store))
    turn.end(manifest)
    # Remove files last, so that a killed run leaves too many rather than too few: parts of removed cells, and all that
    # versions before 0.2 wrote, whose folders and manifest had other names.
    kept = {f"{layout.MERGED}/{part.path}" for part in parts}
    kept |= {layout.painted(part.platform, part.year) for part in parts}
    store.delete(sorted(turn.found.keys() - kept))
    return Merged(parts, written, without, gate.splits)


def _check_land_cover(store: Store, without: Sequence[str], cells: Sequence[MergeCell]) -> None:
    """Raise an error if merging would leave an index without land cover, or parts with different columns."""
    if not without:
        return
    listed = ", ".join(without[:SHOWN]) + (f" and {len(without) - SHOWN} more" if len(without) > SHOWN else "")
    remedy = f"Materialise chip_landcover of these partitions first, then merged_index: {listed}."
    if manifest_version(store) < MANIFEST_VERSION and any(store.list(layout.MERGED)):
        raise InputError(
            f"{store.uri(layout.MERGED)}: was merged without land cover and splits, and {len(without)} of its cells "
            f"have no land cover yet; it is left unchanged. {remedy}"
        )
    if len(without) == sum(1 for cell in cells if cell.rows) and not any(store.list(layout.MERGED)):
        raise InputError(f"{store.uri(layout.MERGED)}: no chip has land cover yet. {remedy}")


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


class _Pool(NamedTuple):
    """Reads files in parallel, up to `in_flight` at once."""

    executor: Executor
    in_flight: int


class _Turn:
    """Detects concurrent merges: a merge's turn ends when another writes the manifest.

    Attributes:
        store: storage of the merged index.
        found: files present at the start; files that another merge adds are not removed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.found = {**store.entries(layout.MERGED), **store.entries(layout.PAINTED)}
        self._version = store.version(layout.MANIFEST)

    def check(self, part: Part) -> None:
        """Stop before publishing a part if another merge has finished, unless it published the same."""
        if self.store.version(layout.MANIFEST) != self._version and part not in read_manifest(self.store):
            raise self._over()

    def is_untouched(self, part: Part) -> bool:
        """Whether a part's file is still the one that was merged, judging by its footer and modification times."""
        key, painted_key = f"{layout.MERGED}/{part.path}", layout.painted(part.platform, part.year)
        file, beside = self.found.get(key), self.found.get(painted_key)
        if file is None or beside is None or file.modified > beside.modified:  # parts are painted after publication
            return False
        painted = stored_painted(self.store, part)
        return painted is not None and painted.footer == footer_of(self.store, key)

    def end(self, manifest: bytes) -> None:
        """Publish the manifest if it changed."""
        if self.store.version(layout.MANIFEST) is not None and self.store.read(layout.MANIFEST) == manifest:
            return
        if not self.store.write_over(layout.MANIFEST, manifest, self._version):
            raise self._over()

    def _over(self) -> StorageError:
        return StorageError(
            f"{self.store.uri(layout.MANIFEST)}: another merge wrote it meanwhile. Materialise merged_index again, "
            "one at a time."
        )


class _Gate:
    """Counts the chips of each split, and stops the merge if two of different splits are too close."""

    def __init__(self, store: Store, recipe: Recipe, distance_km: float, without_land_cover: Sequence[str]) -> None:
        self.store, self.recipe = store, recipe
        self.leaks = Leaks(distance_km)
        self.without_land_cover = without_land_cover
        self.splits: dict[str, Counter[str]] = {}

    def add_part(self, part: Part) -> None:
        """Add a stored part; it is only read if what was painted for it is not stored."""
        painted = stored_painted(self.store, part)
        if painted is None or painted.footer != footer_of(self.store, f"{layout.MERGED}/{part.path}"):
            painted = self._read(part)
            store_painted(self.store, part, painted, self.recipe)
        self.add(part.platform, painted)

    def _read(self, part: Part) -> PaintedPart:
        key = f"{layout.MERGED}/{part.path}"
        counts: Counter[str] = Counter()
        found: list[Painted] = []
        try:
            with pq.ParquetFile(key, filesystem=self.store.filesystem(), pre_buffer=True) as file:
                for rows in rows_to_paint(file):
                    counts.update(
                        {str(one["values"]): one["counts"] for one in rows["split"].value_counts().to_pylist()}
                    )
                    found.append(painted_rows(rows))
        except (pa.ArrowInvalid, KeyError, FileNotFoundError, InputError) as error:
            raise InputError(
                f"{self.store.uri(key)}: cannot be used ({error}). Delete it and materialise merged_index."
            ) from error
        return PaintedPart(joined(found), counts, footer_of(self.store, key))

    def add(self, platform: str, painted: PaintedPart) -> None:
        """Add all chips of a platform and year."""
        self.splits.setdefault(platform, Counter(dict.fromkeys(SPLIT_NAMES, 0))).update(painted.splits)
        self.leaks.paint(painted.boxes)

    def check(self, where: str) -> None:
        """Stop if chips added since the last check are too close to chips of another split."""
        remedy = "Delete chips/manifest.json and chips/merged_index, and materialise merged_index."
        if self.without_land_cover:
            listed = ", ".join(self.without_land_cover[:SHOWN])
            remedy = (
                f"Parts without current land cover ({listed}) are kept with the splits that they were merged with: "
                "materialise their chip_landcover, then merged_index."
            )
        self.leaks.finding(fresh=True).raise_if_violated(f"{self.store.uri(layout.MERGED)}, {where}", remedy)


def _kept_part(
    cell: MergeCell, turn: _Turn, known: Part | None, without_land_cover: Sequence[str], recipe: Recipe
) -> Part | None:
    """The part to keep unchanged: it is current, or cannot be rebuilt yet."""
    if not cell.rows:
        return None
    if cell.name not in without_land_cover:
        return _standing_part(cell, turn, known, recipe)
    if known is not None and turn.store.size(f"{layout.MERGED}/{known.path}") == known.bytes:
        return known
    return None


def _standing_part(cell: MergeCell, turn: _Turn, known: Part | None, recipe: Recipe) -> Part | None:
    """The existing part, if it was made from the cell's current inputs."""
    store, key = turn.store, layout.merged_part(cell.chips.platform, cell.chips.year)
    size, inputs = store.size(key), cell.inputs
    if size is None:
        return None
    if known is not None and (known.inputs, known.bytes) == (inputs, size):
        if turn.is_untouched(known):
            return known
        if store.digest(key).blake2b != known.content:
            logger.warning("%s: is not the file that was merged; it is written again", store.uri(key))
            return None
        if (painted := stored_painted(store, known)) is not None:
            store_painted(store, known, painted, recipe)  # rewritten, to be newer than the part
        return known
    try:  # it may come from a run killed before it wrote the manifest
        stamp = stamp_of(pq.read_schema(key, filesystem=store.filesystem()))
    except (pa.ArrowInvalid, OSError):
        return None
    if stamp.get("inputs") != inputs:
        return None
    content = store.read(key)
    return _part(cell, len(content), hashlib.blake2b(content, digest_size=16).hexdigest())


def _written(
    cells: Sequence[MergeCell], ground: GroundSplits, turn: _Turn, recipe: Recipe, pool: _Pool, gate: _Gate
) -> Iterator[Part]:
    """Write parts, and yield each when published; one is written while the chips of the next are read."""
    with ThreadPoolExecutor(1, "clay-write") as writer:
        before: list[Future[Part]] = []
        for cell in cells:
            scenes, runs = _scenes_of(cell), Runs()
            with runs.emptied_on_error():
                painted = _read_cell(cell, scenes, runs, ground, pool, gate)
                yield from (part.result() for part in before)
            before = [writer.submit(_write_part, cell, scenes, runs, painted, turn, recipe)]
        yield from (part.result() for part in before)


def _read_cell(
    cell: MergeCell, scenes: Sequence[SceneJob], runs: Runs, ground: GroundSplits, pool: _Pool, gate: _Gate
) -> PaintedPart:
    """Read, check and paint all chips of a cell, and return what was painted."""
    assert cell.land_cover is not None  # cells without land cover are not merged
    chips, minimum = cell.chips, float(cell.parameters["min_valid_share"])
    source = Source(chips.store, cell.land_cover.store, chips.platform, ground, minimum)
    found: list[Painted] = []
    counts = np.zeros(len(SPLIT_NAMES), np.int64)
    for job, future in run_bounded(pool.executor, partial(read_scenes, source), jobs_of(scenes), pool.in_flight):
        run = future.result()
        found.append(run.painted)
        counts += run.splits
        runs.add(job.first, run)
    painted = PaintedPart(joined(found), dict(zip(SPLIT_NAMES, counts.tolist(), strict=True)), "")
    gate.add(chips.platform, painted)
    gate.check(cell.name)
    return painted


def _scenes_of(cell: MergeCell) -> list[SceneJob]:
    chips, land_cover = cell.chips, cell.land_cover
    assert land_cover is not None
    measured = land_cover.ledger[land_cover.ledger["outcome"] == MEASURED]
    found = dict(zip(measured["item_id"], zip(land_cover.keys, measured["fingerprint"], strict=True), strict=True))
    of_chips = zip(chips.keys, chips.scenes["fingerprint"], strict=True)
    return in_order_of_ids(
        [
            SceneJob(item_id, int(rows), index, found.get(item_id))
            for item_id, rows, index in zip(chips.scenes["item_id"], chips.scenes["chips"], of_chips, strict=True)
        ]
    )


def _write_part(
    cell: MergeCell, scenes: Sequence[SceneJob], runs: Runs, painted: PaintedPart, turn: _Turn, recipe: Recipe
) -> Part:
    chips, store = cell.chips, turn.store
    key = layout.merged_part(chips.platform, chips.year)
    item_ids = [scene.item_id for scene in scenes]
    with runs, store.writing(key) as path:
        stamp = stamped({**recipe.stamp(), "inputs": cell.inputs})
        row_groups, bounds = write_sorted(runs, chips.platform, chips.year, item_ids, path, stamp)
        with path.open("rb") as file:
            content = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
        part = replace(_part(cell, path.stat().st_size, content), row_groups=row_groups, bbox=bounds)
        turn.check(part)
    store_painted(store, part, replace(painted, footer=footer_of(store, key)), recipe)
    return part


def _part(cell: MergeCell, size: int, content: str) -> Part:
    chips = cell.chips
    path = layout.merged_part(chips.platform, chips.year).removeprefix(f"{layout.MERGED}/")
    return Part(chips.platform, chips.year, path, cell.rows, len(chips.scenes), size, cell.inputs, content)
