"""The number of chips in each row group of a selection, counted once and stored alongside the index, by hash.

For a selection by platform, year and split the manifest has the counts; filters on other columns read these once.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.errors import StorageError
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore, Store
from clay_assets.training.selection import Chips, RowGroups

NAMES = ("part", "row_group", "chips")


def counted(chips: Chips) -> Chips:
    """The selection, with its row groups counted.

    The counts are read from `training/selections/{hash}.parquet`, or made and written there. If the storage is not
    writable, they go to the user's cache (`XDG_CACHE_HOME`); if that is not writable either, they are not kept.
    """
    if chips.is_told or "groups" in chips.__dict__:
        return chips
    key = layout.selection(chips.hash)
    places: list[Store] = [chips.store, LocalStore(_cache())]
    for store in places:
        groups = _read(store, key, chips)
        if groups is not None:
            chips.know(groups)
            return chips
    table = pa.table([chips.groups.part, chips.groups.number, chips.groups.chips], names=NAMES)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    for store in places:
        try:
            store.write(key, sink.getvalue().to_pybytes())
        except StorageError:
            continue
        break
    return chips


def _read(store: Store, key: str, chips: Chips) -> RowGroups | None:
    """The stored counts; None if none fit the selection."""
    try:
        table = pq.read_table(pa.BufferReader(store.read(key)))
        part, number, count = (table[name].to_numpy().astype(np.int32) for name in NAMES)
    except (FileNotFoundError, StorageError, pa.ArrowInvalid, KeyError):
        return None
    rows = np.array([each.rows for each in chips.parts], np.int64)
    if not len(part):
        return RowGroups(part, number, count) if not rows.sum() else None
    of_part = np.bincount(part, count, len(rows)) if part.min() >= 0 and part.max() < len(rows) else rows + 1
    fits = count.min() > 0 and (np.diff(part) >= 0).all() and (of_part <= rows).all()
    return RowGroups(part, number, count) if fits else None


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "clay_assets"
