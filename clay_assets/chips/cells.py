"""The chip indexes of one cell (platform and year) and the land cover of its chips, as their ledgers list them.

How they are made is in `indexing` and in `landcover`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
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
EXCLUDED = "excluded"  # by the recipe, of a scene that was picked before it was
MEASURED = "measured"  # of a scene's land cover; it may have failed, too


@dataclass(frozen=True)
class ChipCell:
    """The chip indexes of one cell (platform and year), none of them read yet.

    Attributes:
        platform: platform key.
        year: partition.
        store: where the files lie.
        ledger: one row per scene.
        recipe_hash: of the recipe that made it, as its stored ledger says; empty for a cell just made.
        kept: scenes that were already indexed when the last run began; not part of the ledger, so that a run
            without news writes the same bytes.
    """

    platform: str
    year: int
    store: Store
    ledger: pd.DataFrame
    kept: int = 0
    recipe_hash: str = ""

    @property
    def scenes(self) -> pd.DataFrame:
        """The ledger's rows of scenes that have an index."""
        return self.ledger[self.ledger["outcome"] == INDEXED]

    @property
    def keys(self) -> list[str]:
        """The index files, in the order of item ids; scenes without a chip have a file too."""
        return [layout.chips(self.platform, self.year, item_id) for item_id in self.scenes["item_id"]]

    def dataset(self) -> ds.Dataset:
        """All chips of the cell, lazily."""
        from clay_assets.chips.index import dataset_of

        return dataset_of(self.store, self.keys)

    def prune(self) -> int:
        """Remove index files of scenes that the cell no longer has, and return how many there were.

        To be done after the ledger is written, so that a run killed in between leaves files too many, never too
        few.
        """
        stored = self.store.list(layout.chip_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


@dataclass(frozen=True)
class LandCoverCell:
    """The land cover of one cell's chips, none of it read yet.

    Attributes:
        platform: platform key.
        year: partition.
        store: where the files lie.
        ledger: one row per indexed scene.
        kept: scenes whose land cover was there already when the last run began; not part of the ledger.
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
        """The files, in the order of item ids."""
        return [layout.landcover(self.platform, self.year, item_id) for item_id in self.scenes["item_id"]]

    def lacking(self, cell: ChipCell) -> list[str]:
        """Indexed scenes of a cell whose chips, as they are now, were never looked at; in order.

        A scene that was set aside was looked at: its chips have no land cover, and the ledger says why.
        """
        of_chips = dict(zip(self.ledger["item_id"], self.ledger["chips_fingerprint"], strict=True))
        scenes = cell.scenes
        return sorted(
            item_id
            for item_id, fingerprint in zip(scenes["item_id"], scenes["fingerprint"], strict=True)
            if of_chips.get(item_id) != fingerprint
        )

    def prune(self) -> int:
        """Remove files of scenes that the cell no longer has, after the ledger is written; returns how many."""
        stored = self.store.list(layout.landcover_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


def stored_cell(store: Store, platform: str, year: int) -> ChipCell:
    """A cell as its stored ledger tells it.

    Raises:
        FileNotFoundError: it was not made yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.chip_ledger(platform, year)
    content = read_ledger(store, key, "chip_index")
    ledger = decode(content, store.uri(key))
    made_by = stamp_of(pq.read_schema(io.BytesIO(content))).get("recipe_hash", "")
    return ChipCell(platform, year, store, ledger, recipe_hash=made_by)


def cells_with_chips(store: Store) -> list[tuple[str, int]]:
    """Platform and year of every cell that was indexed, in order; no ledger is read."""
    return _cells_in(store, layout.CHIP_LEDGERS)


def stored_cells(store: Store) -> list[ChipCell]:
    """All cells that were made, in the order of their ledgers' names."""
    return [stored_cell(store, *cell) for cell in cells_with_chips(store)]


def stored_land_cover(store: Store, platform: str, year: int) -> LandCoverCell:
    """The land cover of a cell as its stored ledger tells it.

    Raises:
        FileNotFoundError: it was not made yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.landcover_ledger(platform, year)
    content = read_ledger(store, key, "chip_landcover")
    return LandCoverCell(platform, year, store, decode(content, store.uri(key)))


def stored_land_covers(store: Store) -> list[LandCoverCell]:
    """The land cover of all cells that have any, in the order of their ledgers' names."""
    return [stored_land_cover(store, *cell) for cell in _cells_in(store, layout.LANDCOVER_LEDGERS)]


def read_ledger(store: Store, key: str, asset: str) -> bytes:
    """The bytes of a ledger.

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
