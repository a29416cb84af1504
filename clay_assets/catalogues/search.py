"""A catalogue: one interface with two ends, a STAC API or a STAC-GeoParquet snapshot.

Both ends answer requests with candidates. What is taken of them is decided in `picks`, by the same code for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from clay_assets.platforms.base import Item, Platform, Request
from clay_assets.storage.stac_geoparquet import item_datetime

Progress = Callable[[int, int], None]  # requests answered, requests in all


@dataclass(frozen=True)
class Answer:
    """What a catalogue said to one request.

    Attributes:
        request: the request.
        candidates: items that intersect the request in space and time and match its filters.
        error: why there is no answer, None if there is one.
    """

    request: Request
    candidates: list[Item] = field(default_factory=list)
    error: str | None = None


class Catalogue(Protocol):
    """Where scenes are looked up."""

    def search(self, platform: Platform, requests: Sequence[Request]) -> Iterator[Answer]:
        """One answer per request, in any order. Candidates may lack what is not needed to choose."""
        ...

    def complete(self, platform: Platform, items: Sequence[Item]) -> list[Item]:
        """The chosen candidates as whole items, in any order."""
        ...


def prepared(platform: Platform, item: Item) -> Item:
    """A candidate as `picks` looks at it: the platform's assets by their names here, `datetime` as ISO 8601 UTC."""
    moment = item_datetime(item).isoformat(timespec="milliseconds")
    renamed = platform.renamed(item)
    return {**renamed, "properties": {**item["properties"], "datetime": moment}}
