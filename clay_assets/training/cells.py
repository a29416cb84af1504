"""The headers of one cell (platform and year), as listed in its ledger. They are read in `reading_headers`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pandas as pd

from clay_assets.chips.cells import FAILED, read_ledger
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stores import Store

READ = "read"  # outcome; the other is FAILED


@dataclass(frozen=True)
class HeadersCell:
    """The file headers of one cell's scenes, loaded lazily.

    Attributes:
        platform: platform key.
        year: partition.
        store: store that holds the headers.
        ledger: one row per scene.
        kept: scenes whose headers existed before the last run; not part of the ledger.
        assets: a summary of the files of each asset: `files`, `dtype`, `compression`, `block` (pixels), `blocks`,
            `bytes`; only for a cell just read, not part of the ledger.
    """

    platform: str
    year: int
    store: Store
    ledger: pd.DataFrame
    kept: int = 0
    assets: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def scenes(self) -> pd.DataFrame:
        """The ledger's rows for scenes that have headers."""
        return self.ledger[self.ledger["outcome"] == READ]

    @property
    def failures(self) -> pd.DataFrame:
        """The scenes that were set aside, and why."""
        return self.ledger.loc[self.ledger["outcome"] == FAILED, ["item_id", "error"]]

    @property
    def keys(self) -> list[str]:
        """The files with headers, in the order of item ids."""
        return [layout.headers(self.platform, self.year, item_id) for item_id in self.scenes["item_id"]]

    def fallbacks(self) -> pd.DataFrame:
        """Why files are read through rasterio: `reason`, `files`, and `scenes` with such files, most files first."""
        of_scenes = self.scenes["fallbacks"].dropna().map(json.loads)
        found = pd.DataFrame(
            [(why, files) for told in of_scenes for why, files in told.items()], columns=["reason", "n"]
        )
        counted = found.groupby("reason")["n"].agg(files="sum", scenes="size").reset_index()
        return counted.sort_values(["files", "reason"], ascending=[False, True], ignore_index=True)

    def radiometry(self) -> pd.DataFrame:
        """Scenes by the evidence for their offset: `evidence`, `offset`, `scenes`, `contradictions`."""
        told = self.scenes.dropna(subset="offset_evidence")
        grouped = told.groupby(["offset_evidence", "radiometric_offset"])["offset_contradiction"]
        counted = grouped.agg(scenes="size", contradictions="count").reset_index()
        return counted.rename(columns={"offset_evidence": "evidence", "radiometric_offset": "offset"})

    def prune(self) -> int:
        """Remove files of scenes no longer in the cell, after the ledger is written; returns how many."""
        stored = self.store.list(layout.headers_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


def stored_headers(store: Store, platform: str, year: int) -> HeadersCell:
    """The headers of a cell, from its stored ledger.

    Raises:
        FileNotFoundError: the headers have not been read yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.headers_ledger(platform, year)
    content = read_ledger(store, key, "cog_headers")
    return HeadersCell(platform, year, store, decode(content, store.uri(key)))
