"""The rule that `worldcover_stats` must satisfy. The shares are computed in `worldcover`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clay_assets.findings import Finding, make_finding
from clay_assets.landcover.worldcover import CLASSES

CLASS_COLUMNS = list(CLASSES.values())
SUM_TOLERANCE = 1e-9  # eleven float64 quotients and their sum are exact to 1e-15


def shares_sum_to_one(stats: pd.DataFrame) -> Finding:
    """The class shares of every tile are between 0 and 1 and sum to 1.

    Tiles without valid pixels have no row.

    Args:
        stats: `name` and the class shares, one row per tile.

    Returns:
        `tiles`, `tiles_off`, `highest_deviation` from 1, and `worst_tile`.
    """
    shares = stats[CLASS_COLUMNS].to_numpy(dtype=np.float64)
    sums = shares.sum(axis=1)
    deviation = np.nan_to_num(np.abs(sums - 1), nan=np.inf)
    within = np.all((shares >= 0) & (shares <= 1 + SUM_TOLERANCE), axis=1)
    off = (deviation > SUM_TOLERANCE) | ~within
    order = np.argsort(-deviation, kind="stable")
    tiles = stats["name"].to_numpy()
    said = [
        f"{tiles[row]}: shares sum to {sums[row]:.6g}" + ("" if within[row] else ", and not all are between 0 and 1")
        for row in order
        if off[row]
    ]
    return make_finding(
        said,
        tiles=len(stats),
        tiles_off=int(off.sum()),
        highest_deviation=float(deviation[order[0]]) if len(stats) else 0.0,
        worst_tile=str(tiles[order[0]]) if len(stats) else "none",
    )
