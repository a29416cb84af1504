"""One chip, given its row of an index, merged or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from numpy.typing import ArrayLike

from clay_assets.storage.stores import Store
from clay_assets.training.chip import Chip
from clay_assets.training.chipper import Chipper
from clay_assets.training.places import places_of
from clay_assets.training.selection import COLUMNS


@dataclass(frozen=True)
class _OneChip:
    """A selection of one chip whose row is known; see `read_chip`."""

    store: Store
    row: Mapping[str, Any]

    def __len__(self) -> int:
        return 1

    def rows(self, indices: ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
        row = {name: self.row[name] for name in columns or COLUMNS}
        return pa.Table.from_pylist([row] * len(places_of(indices, 1)))

    def find(self, item_id: str, x: int, y: int, columns: Sequence[str] | None = None) -> pa.Table:
        this = (item_id, x, y) == tuple(self.row[name] for name in ("item_id", "chip_index_x", "chip_index_y"))
        return self.rows([0] if this else [], columns)


def read_chip(store: Store, row: Mapping[str, Any]) -> Chip:
    """Read a chip given its row of an index, merged or not, from the stored headers.

    Args:
        store: the storage.
        row: a row with at least `COLUMNS`.

    Raises:
        InputError, SourceError: as for `Chipper.batch`.
    """
    chipper = Chipper.__new__(Chipper)
    chipper._begin(_OneChip(store, row), None, None, "harmonised", 1, 16, 256 << 20, True)
    return chipper[0]
