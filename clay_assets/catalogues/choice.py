"""The choice among a catalogue's candidates for a request, and the reasons shared by all platforms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from clay_assets.platforms.base import Request
from clay_assets.stac import Item

OLDER = "older processing of the same acquisition"


def excluded_reason(item_id: str, why: str) -> str:
    """The reason for an item that the recipe excludes by id."""
    return f"{item_id} is excluded: {why}"


@dataclass(frozen=True)
class Choice:
    """The outcome for a request.

    Attributes:
        request: the request.
        candidates: number of items that the catalogue offered.
        item: the chosen item, with the fields needed for the choice; None if there is none.
        rejected: reason → number of candidates refused for it.
        error: why no choice could be made, or None.
    """

    request: Request
    candidates: int
    item: Item | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    error: str | None = None
