"""Ground-truth tables: cloud and nodata of every chip of every item that has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class ChipCounts:
    """Cloudy and nodata pixels of each whole chip, and the number of pixels per chip."""

    cloud: NDArray[np.int64]
    nodata: NDArray[np.int64]
    pixels: int

    @classmethod
    def of_mask(cls, nodata: NDArray[np.bool_], chip: int) -> ChipCounts:
        """Nodata from a mask (height, width), without clouds, for chips of `chip` pixels."""
        down, across = nodata.shape[0] // chip, nodata.shape[1] // chip
        whole = nodata[: down * chip, : across * chip].reshape(down, chip, across, chip)
        counts = whole.sum(axis=(1, 3), dtype=np.int64)
        return cls(np.zeros_like(counts), counts, chip * chip)


Made = tuple[dict[str, Any], ChipCounts | None]


def chip_table(truth: list[tuple[str, ChipCounts]]) -> pd.DataFrame:
    """One row per whole chip of every item, row by row of its grid."""
    columns = [np.indices(one.cloud.shape)[::-1].reshape(2, -1) for _, one in truth]
    x, y = np.concatenate(columns, axis=1)
    sizes = [one.cloud.size for _, one in truth]
    return pd.DataFrame(
        {
            "item_id": np.repeat([name for name, _ in truth], sizes),
            "chip_index_x": x,
            "chip_index_y": y,
            "cloud_cover_percentage": np.concatenate([one.cloud.ravel() / one.pixels for _, one in truth]),
            "nodata_percentage": np.concatenate([one.nodata.ravel() / one.pixels for _, one in truth]),
        }
    )


@lru_cache(maxsize=2)
def _chips_of(path: Path, changed: int) -> dict[str, pd.DataFrame]:
    table = pd.read_parquet(path)
    return {
        str(name): rows.drop(columns="item_id").reset_index(drop=True)
        for name, rows in table.groupby("item_id", sort=False)
    }


def read_chips(path: Path) -> dict[str, pd.DataFrame]:
    """Item id → its rows of a table made by `chip_table`; cached until the file changes."""
    return _chips_of(path, path.stat().st_mtime_ns)
