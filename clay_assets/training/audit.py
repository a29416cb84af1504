"""What the checks of `cog_headers` compare: ledger, stored headers, the scenes' items and their chips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from clay_assets.chips.cells import ChipCell
from clay_assets.errors import InputError
from clay_assets.executors import run_bounded
from clay_assets.findings import Finding, make_finding
from clay_assets.platforms import platform_of
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import Store
from clay_assets.training.cells import HeadersCell
from clay_assets.training.reading_headers import fingerprint_of
from clay_assets.training.scene_files import decode_scene_files

CURRENT, INDEXED_SCENES, RADIOMETRY = "headers_of_imagery", "headers_of_indexed_scenes", "radiometry_agrees"
AGAIN = "materialise cog_headers again"


@dataclass(frozen=True)
class _Look:
    """A scene whose stored headers are checked."""

    item_id: str
    platform: str
    key: str
    fingerprint: str
    item: Item | None
    store: Store


def look_at_headers(
    cell: HeadersCell, items: Sequence[Item], chips: ChipCell | None, executor: Executor, in_flight: int
) -> dict[str, Finding]:
    """Check the headers of a cell, reading each file once.

    Args:
        cell: the headers of the cell, as listed in its ledger.
        items: the scenes of the cell's imagery.
        chips: their chip indexes; None: not made yet.
        executor: reads files in parallel.
        in_flight: files read concurrently.

    Returns:
        Findings by name. `headers_of_imagery`: `scenes`, `scenes_not_looked_at`, `files_missing` (or unreadable),
        `files_of_another_run`, `scenes_changed` since, `files_not_in_ledger`. `headers_of_indexed_scenes`:
        `indexed_scenes` of the imagery. `radiometry_agrees`: `scenes_decided` and a row for each contradiction.
    """
    return {
        CURRENT: _current(cell, items, executor, in_flight),
        INDEXED_SCENES: indexed_without_headers(cell, items, chips),
        RADIOMETRY: contradictions(cell),
    }


def indexed_without_headers(cell: HeadersCell, items: Sequence[Item], chips: ChipCell | None) -> Finding:
    """Indexed scenes of the imagery without headers, whose chips cannot be read for training."""
    there = {item["id"] for item in items}  # an older index may hold scenes since removed
    indexed = sorted(there & set(chips.scenes["item_id"])) if chips is not None else []
    have = set(cell.scenes["item_id"])
    errors = dict(zip(cell.failures["item_id"], cell.failures["error"], strict=True))
    said = [f"{name}: {errors.get(name, f'was not processed; {AGAIN}')}" for name in indexed if name not in have]
    return make_finding(said, indexed_scenes=len(indexed))


def contradictions(cell: HeadersCell) -> Finding:
    """Scenes where pixels, baseline and flags indicate different offsets."""
    told = cell.scenes.dropna(subset="offset_evidence")
    doubtful = told.dropna(subset="offset_contradiction")
    names = ["item_id", "radiometric_offset", "offset_evidence", "processing_baseline", "flagged_offset"]
    names.append("offset_contradiction")
    rows = doubtful[names].astype(object)
    records = [dict(zip(names, values, strict=True)) for values in rows.where(rows.notna(), None).to_numpy().tolist()]
    said = [f"{row['item_id']}: {row['offset_contradiction']}" for row in records]
    return make_finding(said, records, scenes_decided=len(told))


def _current(cell: HeadersCell, items: Sequence[Item], executor: Executor, in_flight: int) -> Finding:
    known = {item["id"]: item for item in items}
    lacking = sorted(set(known) - set(cell.ledger["item_id"]))
    fingerprints = cell.scenes["fingerprint"]
    looks = (
        _Look(item_id, cell.platform, key, fingerprint, known.get(item_id), cell.store)
        for item_id, key, fingerprint in zip(cell.scenes["item_id"], cell.keys, fingerprints, strict=True)
    )
    counts = Counter[str]()
    found = []
    for look, future in run_bounded(executor, _wrong_with, looks, in_flight):
        told = future.result()
        if told is not None:
            kind, text = told
            counts[kind] += 1
            found.append((look.item_id, text))
    beside = set(cell.store.list(layout.headers_folder(cell.platform, cell.year), ".parquet")) - set(cell.keys)
    said = [f"{name}: is in scene_imagery, but was not processed; {AGAIN}" for name in lacking]
    said += [text for _, text in sorted(found)]
    return make_finding(
        said,
        scenes=len(cell.scenes),
        scenes_not_looked_at=len(lacking),
        files_missing=counts["files_missing"],
        files_of_another_run=counts["files_of_another_run"],
        scenes_changed=counts["scenes_changed"],
        files_not_in_ledger=len(beside),
    )


def _wrong_with(look: _Look) -> tuple[str, str] | None:
    """What is wrong with a scene's stored headers: (name of the count, text)."""
    name = look.store.uri(look.key)
    try:
        _, stamp = decode_scene_files(look.store.read(look.key), look.platform)
    except (FileNotFoundError, ValueError) as error:
        return "files_missing", f"{name}: cannot be read ({error}); {AGAIN}"
    if stamp.get("fingerprint") != look.fingerprint:
        return "files_of_another_run", f"{name}: is of another run than the ledger; {AGAIN}"
    source = platform_of(look.platform).with_access(look.store.access)
    try:
        now = None if look.item is None else fingerprint_of(source, source.read_item(look.item))
    except InputError:
        now = None
    if now != look.fingerprint:
        return "scenes_changed", f"{look.item_id}: its files or its item changed since headers were read; {AGAIN}"
    return None
