"""A selection in which every class is equally frequent, without a list of its chips.

Memory holds one number per row group and class. The draw of each class and the order of the selection are random
permutations, computed index by index.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from clay_assets.draws import Permutation
from clay_assets.errors import InputError
from clay_assets.training.places import places_of
from clay_assets.training.selection import THREADS, Chips

GROUPS_KEPT = 64  # row groups whose classes are cached, least recently used dropped first


@dataclass(frozen=True, eq=False)
class Balanced:
    """A class-balanced selection. Made by `balanced`; a `Chipper` reads it like any other.

    Attributes:
        chips: the selection that it is drawn from.
        by: column that holds the class.
        seed: the draw's seed.
        classes: values of the column, ascending; chips without a value are left out.
        counts: number of chips of each class in `chips`.
        taken: number of chips of each class in this selection.
        weights: each class's weight that makes the loss match the class frequencies of `chips`; 1 on average over this
            selection.

    Examples:
        >>> from clay_assets.training import Balanced, Chipper, balanced, open_chips
        >>> even = balanced(open_chips("demo/storage", "sentinel-2-l2a"), per_class=1)
        >>> isinstance(even, Balanced) and len(even) == len(even.classes)
        True
        >>> Chipper(even)[0].pixels.shape
        (10, 256, 256)
    """

    chips: Chips
    by: str
    seed: int
    classes: tuple[Any, ...]
    counts: NDArray[np.int64]
    taken: NDArray[np.int64]
    weights: NDArray[np.float64]
    ends: NDArray[np.int64] = field(
        repr=False
    )  # cumulative chips of each class at the end of each row group; (groups, classes)
    recent: OrderedDict[int, NDArray[np.int16]] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recent": OrderedDict()}

    def __len__(self) -> int:
        """Number of chips."""
        return int(self.taken.sum())

    @property
    def store(self) -> Any:
        """The storage root."""
        return self.chips.store

    @property
    def parts(self) -> Any:
        """Files that may hold selected chips."""
        return self.chips.parts

    @property
    def hash(self) -> str:
        """Equal hashes mean the same chips in the same order."""
        basis = f"{self.chips.hash} {self.by} {self.seed} {self.taken.tolist()}"
        return hashlib.blake2b(basis.encode(), digest_size=16).hexdigest()

    def class_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Indices in `classes` of some chips of this selection; (n,)."""
        place = Permutation(len(self), self.seed, ("order",))(places_of(indices, len(self)))
        return np.searchsorted(np.cumsum(self.taken), place, side="right")

    def places(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Indices in `chips` of some chips of this selection; (n,)."""
        place = Permutation(len(self), self.seed, ("order",))(places_of(indices, len(self)))
        ends = np.cumsum(self.taken)
        of_class = np.searchsorted(ends, place, side="right")
        found = np.empty(len(place), np.int64)
        before = np.concatenate([[0], self.chips.ends])
        for number in np.unique(of_class).tolist():
            mine = np.flatnonzero(of_class == number)
            order = Permutation(int(self.counts[number]), self.seed, ("class", str(self.classes[number])))
            drawn = order(place[mine] - (ends[number] - self.taken[number]))
            group = np.searchsorted(self.ends[:, number], drawn, side="right")
            for one in np.unique(group).tolist():
                here = group == one
                within = drawn[here] - (self.ends[one - 1, number] if one else 0)
                rows = np.flatnonzero(self._classes_in(one) == number)
                found[mine[here]] = before[one] + rows[within]
        return found

    def rows(self, indices: ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
        """Chips by their indices in this selection, in the order requested."""
        return self.chips.rows(self.places(indices), columns)

    def find(self, item_id: str, x: int, y: int, columns: Sequence[str] | None = None) -> pa.Table:
        """As for `Chips`; also finds chips of `chips` that were not drawn."""
        return self.chips.find(item_id, x, y, columns)

    def _classes_in(self, group: int) -> NDArray[np.int16]:
        if group not in self.recent:
            self.recent[group] = _places_in(self.chips.group_column(group, self.by), self.classes)
            while len(self.recent) > GROUPS_KEPT:
                self.recent.popitem(last=False)
        else:
            self.recent.move_to_end(group)
        return self.recent[group]


def balanced(chips: Chips, by: str = "landcover_class", *, per_class: int | None = None, seed: int = 0) -> Balanced:
    """Draw a selection in which every class is equally frequent; the column `by` is read once.

    Args:
        chips: the selection to draw from.
        by: column of the merged index that holds the class; chips without a value are left out.
        per_class: chips of each class, or all of a class that has fewer; None: as many as the rarest class has.
        seed: the draw's seed; the same seed and selection give the same draw.

    Raises:
        InputError: the column does not exist or has no values, or `per_class` is below 1.

    Examples:
        >>> from clay_assets.training import balanced, open_chips
        >>> even = balanced(open_chips("demo/storage", "sentinel-2-l2a"), by="landcover_class", seed=1)
        >>> len(set(even.taken.tolist()))  # as many chips of each class
        1
    """
    if per_class is not None and per_class < 1:
        raise InputError(f"per_class {per_class}: too few. Ask for at least one chip of each class.")
    chips.check_columns([by])

    def counted(group: int) -> dict[Any, int]:
        values = pc.value_counts(chips.group_column(group, by).drop_null())
        return {row["values"]: row["counts"] for row in values.to_pylist()}

    with ThreadPoolExecutor(THREADS) as pool:
        groups = list(pool.map(counted, range(chips.group_count)))
    classes = tuple(sorted({value for group in groups for value in group}))
    if not classes:
        raise InputError(f"{by}: no chip of the selection has a value. Balance by another column.")
    table = np.array([[group.get(value, 0) for value in classes] for group in groups], np.int64)
    counts = table.sum(axis=0)
    taken = np.minimum(counts, counts.min() if per_class is None else per_class)
    weights = counts / taken * taken.sum() / counts.sum()
    return Balanced(chips, by, seed, classes, counts, taken, weights, np.cumsum(table, axis=0))


def _places_in(values: pa.ChunkedArray, classes: Sequence[Any]) -> NDArray[np.int16]:
    """Indices of values in the classes; -1 for missing values."""
    found = pc.index_in(values, pa.array(classes, values.type)).fill_null(-1)
    places: NDArray[np.int16] = found.to_numpy().astype(np.int16)
    return places
