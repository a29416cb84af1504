"""What one request gets of a catalogue's candidates, and the reasons that are the same for all platforms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from clay_assets.platforms.base import Request
from clay_assets.stac import Item

OLDER = "older processing of the same acquisition"


def excluded_reason(item_id: str, why: str) -> str:
    """Why an item is refused that the recipe excludes by its name."""
    return f"{item_id} is excluded: {why}"


@dataclass(frozen=True)
class Choice:
    """What one request gets.

    Attributes:
        request: the request.
        candidates: how many items the catalogue offered.
        item: the one that is taken, with what is needed to choose; None if there is none.
        rejected: reason → number of candidates refused for it.
        error: why nothing could be chosen, None if it could.
    """

    request: Request
    candidates: int
    item: Item | None = None
    rejected: Counter[str] = field(default_factory=Counter)
    error: str | None = None
