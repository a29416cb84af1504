"""Finds items of the same acquisition, and which of them was processed last.

Agencies reprocess their archives, and catalogues keep the older items next to the new ones. Only the newest processing
of an acquisition is a candidate: an older one must not win because its cloud mask differs. The platform declares how
to identify acquisition and processing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias

from clay_assets.platforms.properties import is_number
from clay_assets.stac import Item, item_datetime

# Catalogues give sensing times to the second, the millisecond or the microsecond, and reprocessing may shift them by a
# line of the sensor. Neighbouring scenes of one orbit are sensed many seconds apart.
SAME_MOMENT = timedelta(seconds=1)

_BASELINE = re.compile(r"N?(\d{1,2})\.?(\d{2})|(\d{1,2})(?:\.(\d))?")

Evidence: TypeAlias = tuple[int, ...] | float | None


@dataclass(frozen=True)
class Processing:
    """One processing of an acquisition.

    Attributes:
        acquisition: key shared by all processings of the acquisition, such as spacecraft and tile.
        moment: sensing time, UTC, compared to a second; None if `acquisition` includes the time.
        evidence: values that order the processings, most significant first; higher is newer. None: unknown. The
            first value that all items of the acquisition have, and that differs, decides.
    """

    acquisition: tuple[Hashable, ...]
    moment: datetime | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Processings:
    """How a platform identifies the processings of an acquisition.

    Attributes:
        tell: item → its processing; None if the acquisition is unknown. Must not raise on any item: the properties
            that it uses may have any type.
        properties: names of the item properties that it uses.
        apart: items whose times differ by more are never processings of one acquisition; None: times do not matter.
        acquisition: id → the acquisition named by the id, or None. Items with different values are never
            processings of one acquisition.
    """

    tell: Callable[[Item], Processing | None]
    properties: tuple[str, ...] = ()
    apart: timedelta | None = None
    acquisition: Callable[[str], Hashable] | None = None

    def together(self, items: Sequence[Item]) -> list[Item]:
        """The items that may be processings of the same acquisition as another one, in order."""
        if self.apart is not None:
            moments = list(map(item_datetime, items))
            near: set[int] = set()
            for first, second in pairwise(sorted(range(len(items)), key=moments.__getitem__)):
                if moments[second] - moments[first] <= self.apart:
                    near.update((first, second))
            items = [items[at] for at in sorted(near)]
        if self.acquisition is not None and items:
            told = [self.acquisition(item["id"]) for item in items]
            if None not in told:
                counts = Counter(told)
                items = [item for item, one in zip(items, told, strict=True) if counts[one] > 1]
        return list(items)


_Numbered: TypeAlias = tuple[int, Processing]


def superseded(told: Sequence[Processing | None]) -> list[bool]:
    """For each item, whether another one is a newer processing of the same acquisition.

    Items with the same evidence count as equally new.
    """
    older = [False] * len(told)
    known: dict[tuple[Hashable, ...], list[_Numbered]] = {}
    for number, one in enumerate(told):
        if one is not None:
            known.setdefault(one.acquisition, []).append((number, one))
    for of_one_name in known.values():
        for group in _at_one_moment(of_one_name):
            newest = _newest(group)
            for number, _ in group:
                older[number] = number not in newest
    return older


def version_of(value: Any) -> tuple[int, int] | None:
    """Parse a processing baseline: (5, 0) for `05.00`, `N0500`, 5 and 5.0; None if invalid."""
    if is_number(value):
        value = f"{value:.2f}"
    found = _BASELINE.fullmatch(value.strip(' "')) if isinstance(value, str) else None
    if found is None:
        return None
    major, minor = (found[1], found[2]) if found[1] else (found[3], found[4] or "0")
    return int(major), int(minor)


def time_of(value: Any) -> float | None:
    """A time as seconds since 1970, UTC if it has no zone; None if invalid."""
    try:
        moment = datetime.fromisoformat(value.strip(' "')) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            return None
        seconds = (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if is_number(seconds) else None  # pandas has NaT


def stamp_of(digits: str | None, form: str) -> float | None:
    """A time in an id, such as `20230504T032818`, as seconds since 1970, UTC; None if invalid."""
    try:
        return datetime.strptime(digits or "", form).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def catalogued(item: Item) -> tuple[float | None, float | None]:
    """When the item was created and updated in its catalogue: evidence if the product itself has none."""
    return time_of(item["properties"].get("created")), time_of(item["properties"].get("updated"))


def _at_one_moment(named: Sequence[_Numbered]) -> Iterator[list[_Numbered]]:
    """Split items with the same acquisition key by sensing time."""
    group: list[_Numbered] = []
    for number, one in sorted(named, key=lambda entry: (_moment(entry), entry[0])):
        if group and _moment((number, one)) - _moment(group[-1]) > SAME_MOMENT:
            yield group
            group = []
        group.append((number, one))
    yield group


def _moment(entry: _Numbered) -> datetime:
    return entry[1].moment or datetime.min.replace(tzinfo=UTC)


def _newest(group: Sequence[_Numbered]) -> list[int]:
    left = list(group)
    for level in range(len(group[0][1].evidence)):
        values: list[Any] = [one.evidence[level] for _, one in group]
        if None not in values:
            highest = max(one.evidence[level] for _, one in left)  # type: ignore[type-var]  # of one type, none is None
            left = [(number, one) for number, one in left if one.evidence[level] == highest]
    return [number for number, _ in left]
