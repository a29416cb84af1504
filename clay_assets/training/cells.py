"""The headers of one cell (platform and year), as its ledger lists them. How they are read is in `reading_headers`."""

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
    """The headers of the files of one cell's scenes, none of them loaded yet.

    Attributes:
        platform: platform key.
        year: partition.
        store: where the headers lie.
        ledger: one row per scene.
        kept: scenes whose headers were there already when the last run began; not part of the ledger.
        assets: by asset, what its files are like: `files`, `dtype`, `compression`, `block` (pixels), `blocks`, `bytes`
            of the files; of a cell just read, not part of the ledger.
    """

    platform: str
    year: int
    store: Store
    ledger: pd.DataFrame
    kept: int = 0
    assets: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def scenes(self) -> pd.DataFrame:
        """The ledger's rows of scenes that have headers."""
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
        """Why files are read through rasterio: `reason`, `files`, and `scenes` that have any, most files first."""
        of_scenes = self.scenes["fallbacks"].dropna().map(json.loads)
        found = pd.DataFrame(
            [(why, files) for told in of_scenes for why, files in told.items()], columns=["reason", "n"]
        )
        counted = found.groupby("reason")["n"].agg(files="sum", scenes="size").reset_index()
        return counted.sort_values(["files", "reason"], ascending=[False, True], ignore_index=True)

    def radiometry(self) -> pd.DataFrame:
        """Scenes by what decided on their offset, and how: `evidence`, `offset`, `scenes`, `contradictions`."""
        told = self.scenes.dropna(subset="offset_evidence")
        grouped = told.groupby(["offset_evidence", "radiometric_offset"])["offset_contradiction"]
        counted = grouped.agg(scenes="size", contradictions="count").reset_index()
        return counted.rename(columns={"offset_evidence": "evidence", "radiometric_offset": "offset"})

    def prune(self) -> int:
        """Remove files of scenes that the cell no longer has, after the ledger is written; returns how many."""
        stored = self.store.list(layout.headers_folder(self.platform, self.year), ".parquet")
        stale = sorted(set(stored) - set(self.keys))
        self.store.delete(stale)
        return len(stale)


def stored_headers(store: Store, platform: str, year: int) -> HeadersCell:
    """The headers of a cell as its stored ledger tells them.

    Raises:
        FileNotFoundError: they were not read yet.
        InputError: the ledger cannot be read; names it.
    """
    key = layout.headers_ledger(platform, year)
    content = read_ledger(store, key, "cog_headers")
    return HeadersCell(platform, year, store, decode(content, store.uri(key)))
