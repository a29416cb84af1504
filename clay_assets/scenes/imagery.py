"""Settles which files are read for each scene: the catalogue's, copies in our storage, or resampled images.

The ledger has one row per scene; its columns are described in `scenes/columns.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from clay_assets.errors import InputError, StorageError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.progress import OnProgress, no_progress
from clay_assets.scenes.copies import Copied, copy_scene
from clay_assets.scenes.derived import Derived, derive_scene
from clay_assets.stac import Item
from clay_assets.storage.stores import Store

logger = logging.getLogger(__name__)

REFERENCED, COPIED, DERIVED, FAILED = "referenced", "copied", "derived", "failed"
LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "files": "int32",
    "bytes": "int64",
    "note": "string",
    "error": "string",
}


@dataclass(frozen=True)
class Imagery:
    """Scenes of one cell with the hrefs to read.

    Attributes:
        items: the scenes, ordered by id.
        ledger: one row per requested scene, ordered by id.
        written: number of files copied or resampled by this call; not in the ledger, so that a run without changes
            writes the same bytes.
    """

    items: list[Item]
    ledger: pd.DataFrame
    written: int = 0


def readable_items(
    platform: AnyPlatform,
    items: Sequence[Item],
    options: Options,
    store: Store,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> Imagery:
    """Settle which files are read for each scene; copies or resamples them first if the recipe says so.

    Args:
        platform: the scenes' platform, which sets hrefs, access and derivation.
        items: the picked items.
        options: `imagery` decides between reference, copy and derived.
        store: our storage.
        executor: processes scenes in parallel.
        in_flight: number of scenes submitted at once.
        progress: called with (scenes done, scenes in total).

    Raises:
        InputError: the recipe asks for derived images, which the platform does not have.
        StorageError: our storage cannot be written.
    """
    if options.imagery == "reference":
        return _referenced(platform, items, options)
    if options.imagery == "derived" and platform.files.derivation is None:
        raise InputError(f'{platform.key}: imagery = "derived" is not available. Use "reference" or "copy".')
    make: Callable[[Item], Copied | Derived]
    if options.imagery == "derived":
        make, outcome = partial(derive_scene, platform, options, store), DERIVED
    else:
        make, outcome = partial(copy_scene, platform, options, store), COPIED
    done: list[Item] = []
    rows, written = [], 0
    jobs: Iterator[tuple[Item, Future[Copied | Derived]]] = run_bounded(executor, make, items, in_flight)
    for count, (item, future) in enumerate(jobs, start=1):
        try:
            made = future.result()
        except StorageError:
            raise  # our storage cannot be written: the other scenes would fail too
        except Exception as error:  # a bad source, whatever the library raises, fails its own scene only
            rows.append(_row(item["id"], FAILED, error=failure_text(error, item["id"], logger)))
        else:
            done.append(made.item)
            rows.append(_row(item["id"], outcome, made.files, made.bytes, getattr(made, "note", None)))
            written += made.written
        progress(count, len(items))
    if done and written < sum(row["files"] for row in rows):
        there = sum(row["files"] for row in rows) - written
        logger.info("%s: %d files already in storage are kept", platform.key, there)
    return Imagery(sorted(done, key=lambda item: str(item["id"])), _ledger(rows), written)


def _referenced(platform: AnyPlatform, items: Sequence[Item], options: Options) -> Imagery:
    settled, rows = [], []
    for item in items:
        try:
            settled.append(platform.settled(item, options))
        except InputError as error:
            rows.append(_row(item["id"], FAILED, error=failure_text(error, item["id"], logger)))
        else:
            rows.append(_row(item["id"], REFERENCED))
    return Imagery(settled, _ledger(rows))


def noted(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """The notes, each with its number of scenes."""
    counts = ledger["note"].value_counts().sort_index()
    return [{"note": note, "scenes": int(count)} for note, count in counts.items()]


def _row(
    item_id: str,
    outcome: str,
    files: int = 0,
    size: int = 0,
    note: str | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    return {"item_id": item_id, "outcome": outcome, "files": files, "bytes": size, "note": note, "error": error}


def _ledger(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    return frame.sort_values("item_id", ignore_index=True)
