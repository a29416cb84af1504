"""The chip indexes of one cell (platform and year) and the land cover of its chips, as listed in their ledgers.

They are made in `indexing` and `landcover`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode, stamp_of
from clay_assets.storage.stores import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

INDEXED, FAILED = "indexed", "failed"  # outcomes
EXCLUDED = "excluded"  # scene excluded by the recipe after it was picked
MEASURED = "measured"  # a scene's land cover; the other outcome is FAILED


@dataclass(frozen=True)
class ChipCell:
    """The chip indexes of one cell (platform and year), read lazily.

    Attributes:
        platform: platform key.
        year: year of the partition.
        store: storage of the files.
        ledger: one row per scene.
        recipe_hash: hash of the recipe that made it, from its stored ledger; empty for a cell just made.
        kept: scenes that were already indexed when the last run started; not part of the ledger, so that a run without
            changes writes the same bytes.
    """

    platform: str
    year: int
    store: Store
    ledger: pd.DataFrame
    kept: int = 0
    recipe_hash: str = ""

    @cached_property
    def scenes(self) -> pd.DataFrame:
        """The ledger's rows of scenes that have an index."""
        return self.ledger[self.ledger["outcome"] == INDEXED]

    @property
    def keys(self) -> list[str]:
        """The index files, sorted by item id; scenes without chips also have a file."""
        return [layout.chips(self.platform, self.year, item_id) for item_id in self.scenes["item_id"]]

    def dataset(self) -> ds.Dataset:
        """All chips of the cell, read lazily."""
        from clay_assets.chips.index import dataset_of

        return dataset_of(self.store, self.keys)

    def prune(self) -> int:
        """Remove index files of scenes that are no longer in the cell, and return their number.

        Call it after the ledger is written, so that a run killed in between leaves extra files, but never lacks any.
        """
        stored = self.store.list(layout.chip_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


@dataclass(frozen=True)
class LandCoverCell:
    """The land cover of one cell's chips, read lazily.

    Attributes:
        platform: platform key.
        year: year of the partition.
        store: storage of the files.
        ledger: one row per indexed scene.
        kept: scenes that already had land cover when the last run started; not part of the ledger.
    """

    platform: str
    year: int
    store: Store
    ledger: pd.DataFrame
    kept: int = 0

    @property
    def scenes(self) -> pd.DataFrame:
        """The ledger's rows of scenes that have land cover."""
        return self.ledger[self.ledger["outcome"] == MEASURED]

    @property
    def keys(self) -> list[str]:
        """The files, sorted by item id."""
        return [layout.landcover(self.platform, self.year, item_id) for item_id in self.scenes["item_id"]]

    def lacking(self, cell: ChipCell) -> list[str]:
        """Sorted scenes of a cell whose current chips were never measured.

        A failed scene counts as measured: its chips have no land cover, and the ledger has the reason.
        """
        of_chips = dict(zip(self.ledger["item_id"], self.ledger["chips_fingerprint"], strict=True))
        scenes = cell.scenes
        return sorted(
            item_id
            for item_id, fingerprint in zip(scenes["item_id"], scenes["fingerprint"], strict=True)
            if of_chips.get(item_id) != fingerprint
        )

    def prune(self) -> int:
        """Remove files of scenes that are no longer in the cell, after the ledger is written; returns their number."""
        stored = self.store.list(layout.landcover_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


def stored_cell(store: Store, platform: str, year: int) -> ChipCell:
    """Load a cell from its stored ledger.

    Raises:
        FileNotFoundError: not materialised yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.chip_ledger(platform, year)
    content = read_ledger(store, key, "chip_index")
    ledger = decode(content, store.uri(key))
    made_by = stamp_of(pq.read_schema(io.BytesIO(content))).get("recipe_hash", "")
    return ChipCell(platform, year, store, ledger, recipe_hash=made_by)


def cells_with_chips(store: Store) -> list[tuple[str, int]]:
    """Sorted platforms and years of all indexed cells, without reading ledgers."""
    return _cells_in(store, layout.CHIP_LEDGERS)


def stored_cells(store: Store) -> list[ChipCell]:
    """All stored cells, sorted by the names of their ledgers."""
    return [stored_cell(store, *cell) for cell in cells_with_chips(store)]


def stored_land_cover(store: Store, platform: str, year: int) -> LandCoverCell:
    """Load the land cover of a cell from its stored ledger.

    Raises:
        FileNotFoundError: not materialised yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.landcover_ledger(platform, year)
    content = read_ledger(store, key, "chip_landcover")
    return LandCoverCell(platform, year, store, decode(content, store.uri(key)))


def stored_land_covers(store: Store) -> list[LandCoverCell]:
    """The land cover of all cells that have any, sorted by the names of their ledgers."""
    return [stored_land_cover(store, *cell) for cell in _cells_in(store, layout.LANDCOVER_LEDGERS)]


def read_ledger(store: Store, key: str, asset: str) -> bytes:
    """Decode the bytes of a ledger.

    Raises:
        FileNotFoundError: there is none; names the asset that makes it.
    """
    try:
        return store.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{store.uri(key)}: file not found. Materialise {asset}.") from error


def _cells_in(store: Store, folder: str) -> list[tuple[str, int]]:
    named = (PurePosixPath(key) for key in store.list(folder, ".parquet"))
    return [(path.parent.name, int(path.stem)) for path in named]
