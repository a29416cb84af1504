"""The rules of a platform over whole columns of candidates. Numpy is imported in functions.

A snapshot offers hundreds of thousands of candidates. If a platform declares `ColumnRules`, they are evaluated on
columns; `refuse` and `rank` are then called only for odd items, such as one whose cloud cover is text. Both must give
the same result for every item; a test checks this for every platform that declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clay_assets.platforms.base import Request

OptionsT = TypeVar("OptionsT")
Column: TypeAlias = "NDArray[Any]"
Refusal: TypeAlias = "tuple[NDArray[np.bool_], str | None]"


@dataclass(frozen=True)
class Candidates:
    """Candidates as columns: one row per pair of an item and a request that it may match.

    Attributes:
        ids: ids of the items, text.
        times: acquisition, milliseconds since 1970 UTC, int64.
        properties: declared property → its values: numbers as float64, NaN if missing; stripped text, empty if
            missing; lists as tuples.
        footprint: () → shapely footprints; a function, since most rules do not need them.
        asked: the requests.
        numbers_of_requests: row → index of its request.
    """

    ids: Column
    times: NDArray[np.int64]
    properties: Mapping[str, Column]
    footprint: Callable[[], Column]
    asked: Sequence[Request]
    numbers_of_requests: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def numbers(self, *names: str) -> NDArray[np.float64]:
        """The first of these properties that an item has, else NaN; like `quarters.number`."""
        import numpy as np

        found = np.full(len(self), np.nan)
        for name in reversed(names):
            if name in self.properties:
                values = self.properties[name]
                found = np.where(np.isnan(values), found, values)
        return found

    def texts(self, *names: str) -> Column:
        """The first of these properties that is text, else empty; like `properties.label_of`."""
        import numpy as np

        found = np.full(len(self), "", dtype=object)
        for name in reversed(names):
            if name in self.properties:
                values = self.properties[name]
                found = np.where(values == "", found, values)
        return found

    def lists(self, name: str) -> Column:
        """A list property as tuples; empty if missing."""
        import numpy as np

        found = np.empty(len(self), dtype=object)
        found[:] = self.properties[name].tolist() if name in self.properties else [()] * len(self)
        return found

    def of_request(self, function: Callable[[Request], Any]) -> Column:
        """Apply a function to the request of each row."""
        import numpy as np

        said = np.empty(len(self.asked), dtype=object)
        for number in np.unique(self.numbers_of_requests).tolist():
            said[number] = function(self.asked[number])
        return said[self.numbers_of_requests]

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """A subset of the candidates."""
        return Candidates(
            self.ids[rows],
            self.times[rows],
            {name: values[rows] for name, values in self.properties.items()},
            lambda: self.footprints[rows],
            self.asked,
            self.numbers_of_requests[rows],
        )

    @cached_property
    def footprints(self) -> Column:
        """Repaired footprints of the items."""
        return self.footprint()


def unknown(numbers: Column) -> Column:
    """Mask of missing numbers (NaN)."""
    import numpy as np

    return np.isnan(numbers)


def each(function: Callable[..., Any], *columns: Column) -> Column:
    """Apply a function to each row of some columns; called once per distinct combination."""
    import numpy as np

    rows = (
        columns[0].tolist() if len(columns) == 1 else list(zip(*(column.tolist() for column in columns), strict=True))
    )
    said = {row: function(row) if len(columns) == 1 else function(*row) for row in set(rows)}
    found = np.empty(len(rows), dtype=object)
    found[:] = [said[row] for row in rows]
    return found


def otherwise(column: Column, lacking: Any, function: Callable[[Any], Any], others: Column) -> Column:
    """Fill the missing values of a column from another column.

    Args:
        column: column of objects.
        lacking: the value that marks a missing one.
        function: value of the other column → value.
        others: the other column.
    """
    import numpy as np

    rows = np.flatnonzero(column == lacking)
    if rows.size:
        column = column.copy()
        column[rows] = each(function, others[rows])
    return column


@dataclass(frozen=True)
class ColumnRules(Generic[OptionsT]):
    """`refuse` and `rank` over columns, with the same results as the platform's `Rules`.

    The rules may use ids, times, footprints, requests, and properties declared (see `Property`) as numbers, text or
    lists of text; of assets, only their presence.

    Attributes:
        refuse: (candidates, options) → masks of candidates with their reasons, in the order in which `refuse` tests
            them. The reason None leaves the request to `refuse` and `rank`.
        rank: candidates → sort keys of the eligible ones, most significant first, without the last one, the id.
        of: the `refuse`, `rank` and, if any, `tell` of the processings that they replace. A platform with different
            ones is evaluated item by item.
    """

    refuse: Callable[[Candidates, OptionsT], list[Refusal]]
    rank: Callable[[Candidates], list[Column]]
    of: tuple[Callable[..., Any], ...]
