"""The rules of a platform once more, over whole columns of candidates. Numpy is imported in them.

A snapshot offers hundreds of thousands of candidates. Where a platform declares `ColumnRules`, they are judged as
columns; `refuse` and `rank` are then called only where columns do not tell: where an item is odd, such as one whose
cloud cover is text. Both must say the same of every item, which a test holds for every platform that declares them.
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
    """Candidates as columns: one row for each pair of an item and a request that it may answer.

    Attributes:
        ids: ids of the items, text.
        times: acquisition, milliseconds since 1970 UTC, int64.
        properties: declared property → its values: float64 of numbers, NaN where there is none; text without blanks
            around it, empty where there is none; tuples of lists.
        footprint: () → shapely footprints; a function, as most rules need none.
        asked: the requests.
        numbers_of_requests: row → which of them it may answer.
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
        """The first of these properties that an item has, NaN where it has none; as `quarters.number`."""
        import numpy as np

        found = np.full(len(self), np.nan)
        for name in reversed(names):
            if name in self.properties:
                values = self.properties[name]
                found = np.where(np.isnan(values), found, values)
        return found

    def texts(self, *names: str) -> Column:
        """The first of these properties that is a text, empty where none is; as `properties.label_of`."""
        import numpy as np

        found = np.full(len(self), "", dtype=object)
        for name in reversed(names):
            if name in self.properties:
                values = self.properties[name]
                found = np.where(values == "", found, values)
        return found

    def lists(self, name: str) -> Column:
        """A property that is a list, as tuples; empty where there is none."""
        import numpy as np

        found = np.empty(len(self), dtype=object)
        found[:] = self.properties[name].tolist() if name in self.properties else [()] * len(self)
        return found

    def of_request(self, function: Callable[[Request], Any]) -> Column:
        """What a function says of each row's request."""
        import numpy as np

        said = np.empty(len(self.asked), dtype=object)
        for number in np.unique(self.numbers_of_requests).tolist():
            said[number] = function(self.asked[number])
        return said[self.numbers_of_requests]

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """Some of the candidates."""
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
        """Footprints of the items, as they are meant."""
        return self.footprint()


def unknown(numbers: Column) -> Column:
    """Where numbers are NaN, as an item does not tell them."""
    import numpy as np

    return np.isnan(numbers)


def each(function: Callable[..., Any], *columns: Column) -> Column:
    """What a function says of each row of some columns; asked once for each distinct combination."""
    import numpy as np

    rows = (
        columns[0].tolist() if len(columns) == 1 else list(zip(*(column.tolist() for column in columns), strict=True))
    )
    said = {row: function(row) if len(columns) == 1 else function(*row) for row in set(rows)}
    found = np.empty(len(rows), dtype=object)
    found[:] = [said[row] for row in rows]
    return found


def otherwise(column: Column, lacking: Any, function: Callable[[Any], Any], others: Column) -> Column:
    """A column where it has something, else what a function says of another column.

    Args:
        column: of objects.
        lacking: the value that stands for nothing.
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
    """`refuse` and `rank` over columns. What they say of an item is what `Rules` of the platform say of it.

    The rules may look at ids, times, footprints, requests, and properties declared (see `Property`) as numbers,
    text or lists of text; of assets, only at which there are.

    Attributes:
        refuse: (candidates, options) → reasons and the candidates that they apply to, in the order in which `refuse`
            looks at them. The reason None leaves the request to `refuse` and `rank`.
        rank: candidates → sort keys of those that are eligible, the most telling first; the last, the id, is left out.
        of: the `refuse`, the `rank` and, where there is one, the `tell` of the processings that they stand for. Where a
            platform has others, it is judged item by item.
    """

    refuse: Callable[[Candidates, OptionsT], list[Refusal]]
    rank: Callable[[Candidates], list[Column]]
    of: tuple[Callable[..., Any], ...]
