"""Audit the splits of the stored merged index: their distance, shares and land cover.

Each part is read once, and only the required columns, so memory is bounded by a few row groups and the grid that
`leaks` paints on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clay_assets.chips.leaks import KNOWN, Leaks, rows_to_paint
from clay_assets.chips.manifest import read_manifest
from clay_assets.chips.splits import BUFFER, SPLITS
from clay_assets.errors import InputError
from clay_assets.findings import Finding, make_finding
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.recipes.loader import Splits
from clay_assets.storage import layout
from clay_assets.storage.stores import Store

APART, SHARES = "splits_apart", "shares_of_splits"
CLASSES = list(WORLDCOVER_CLASSES.values())


@dataclass(frozen=True)
class SplitCounts:
    """The chips of one platform by split, in the order of `SPLITS`, followed by the buffer.

    Attributes:
        chips: number of chips; (4,).
        land_cover: summed percent of each class over chips with land cover; (4, 11).
    """

    chips: NDArray[np.int64]
    land_cover: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pa.Table) -> SplitCounts:
        """Count rows with `split` and `landcover`."""
        split = pc.index_in(rows["split"], pa.array(KNOWN)).combine_chunks().fill_null(len(KNOWN)).to_numpy()
        cover = rows["landcover"].combine_chunks()
        has = cover.is_valid().to_numpy(zero_copy_only=False)
        found = [
            np.bincount(
                split[has],
                pc.struct_field(cover, name).fill_null(0).to_numpy(zero_copy_only=False)[has],
                minlength=len(KNOWN) + 1,
            )
            for name in WORLDCOVER_FIELDS.values()
        ]
        chips = np.bincount(split, minlength=len(KNOWN) + 1)
        return cls(chips[: len(KNOWN)], np.stack(found, axis=1).astype(float)[: len(KNOWN)])

    def __add__(self, other: SplitCounts) -> SplitCounts:
        return SplitCounts(self.chips + other.chips, self.land_cover + other.land_cover)


def look_at_splits(store: Store, splits: Splits) -> dict[str, Finding]:
    """Check every part of the merged index.

    Args:
        store: the index's storage.
        splits: the recipe's splits.

    Returns:
        Findings by name: `splits_apart` (see `Leaks.finding`), and `shares_of_splits` (see `shares_of_splits`).
    """
    gate, counts, said = Leaks(splits.distance_km), dict[str, SplitCounts](), list[str]()
    for part in read_manifest(store):
        key = f"{layout.MERGED}/{part.path}"
        try:
            with pq.ParquetFile(key, filesystem=store.filesystem(), pre_buffer=True) as file:
                for rows in rows_to_paint(file, ["landcover"]):
                    found = SplitCounts.of(rows)
                    counts[part.platform] = counts[part.platform] + found if part.platform in counts else found
                    gate.add_rows(rows)
        except (pa.ArrowInvalid, KeyError, FileNotFoundError, InputError) as error:
            said.append(f"{part.platform}|{part.year}: {store.uri(key)}: cannot be used ({error})")
    apart = gate.finding()
    return {
        APART: make_finding(
            [*said, *apart.violations],
            violation_count=len(said) + apart.violation_count,
            omitted=apart.omitted,
            **apart.numbers,
        ),
        SHARES: shares_of_splits(counts, splits),
    }


def shares_of_splits(counts: Mapping[str, SplitCounts], splits: Splits) -> Finding:
    """Check that every platform has chips of each split of the recipe.

    Args:
        counts: counts by platform; platforms without chips are skipped.
        splits: the recipe's splits.

    Returns:
        `{split}_chips` of all platforms, and a record per platform: `chips`, the percent of each split among chips that
        have one, `buffer_percent` of all, and the `class` whose share differs most between a split and the whole, with
        the difference in `points`. One violation for each split without chips of a platform.
    """
    said, rows = [], []
    wanted = [name for name in SPLITS if splits.shares[name]]
    for platform, found in sorted(counts.items()):
        chips, of_split = int(found.chips.sum()), dict(zip(KNOWN, found.chips.tolist(), strict=True))
        if not chips:
            continue
        kept = max(1, chips - of_split[BUFFER])
        said += [f"{platform}: none of {chips:,} chips is {name}" for name in wanted if not of_split[name]]
        rows.append(
            {
                "platform": platform,
                "chips": chips,
                **{f"{name}_percent": round(100 * of_split[name] / kept, 2) for name in SPLITS},
                "buffer_percent": round(100 * of_split[BUFFER] / chips, 2),
                **_farthest_class(found.land_cover),
            }
        )
    totals = {f"{name}_chips": int(sum(one.chips[n] for one in counts.values())) for n, name in enumerate(KNOWN)}
    return make_finding(said, rows, **totals)


def _farthest_class(land_cover: NDArray[np.float64]) -> dict[str, Any]:
    """The class whose share in a split differs most from its share in the whole, and the difference in points."""
    whole, sums = land_cover.sum(axis=0), land_cover.sum(axis=1, keepdims=True)
    present = (sums[:, 0] > 0) & (np.arange(len(KNOWN)) < len(SPLITS))
    if not present.any():
        return {"class": "none", "points": 0.0}
    points = 100 * np.abs(land_cover[present] / sums[present] - whole / whole.sum())
    _, worst = np.unravel_index(int(points.argmax()), points.shape)
    return {"class": CLASSES[worst], "points": round(float(points.max()), 2)}
