"""Picks a scene for each request, and records why in the ledger.

The decision does not depend on the kind of catalogue. The ledger has one row per request; its columns are described in
`scenes/columns.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.choice import Choice, excluded_reason
from clay_assets.catalogues.eligibility import choices, full_items
from clay_assets.executors.interpreter import rare_collections
from clay_assets.platforms.base import AnyPlatform, Options, Request
from clay_assets.platforms.quarters import number
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes.exclusions import NOTHING
from clay_assets.stac import Item

_JSON = json.JSONEncoder(ensure_ascii=False)
PICKED, NONE, FAILED = "picked", "none", "failed"
NOTHING_FOUND = "no item in the catalogue"


@dataclass(frozen=True)
class Picks:
    """Scenes of one cell (platform and year) and the ledger of its requests.

    Attributes:
        items: the picked STAC items, each once, ordered by id.
        ledger: one row per request, ordered by request id.
    """

    items: list[Item]
    ledger: pd.DataFrame


def pick_scenes(
    platform: AnyPlatform,
    year: int,
    requests: Sequence[Request],
    catalogue: Catalogue,
    options: Options,
    progress: OnProgress = no_progress,
    excluded: Mapping[str, str] = NOTHING,
) -> Picks:
    """Search for every request and pick the best eligible item for each.

    A request that fails, or whose scene is invalid, is recorded in the ledger; the other requests are not affected.

    Args:
        platform: the platform, whose rules decide.
        year: partition of the requests.
        requests: the searches to make.
        catalogue: the catalogue to search.
        options: the recipe's options for the platform.
        progress: called with (requests answered, requests in total).
        excluded: item id → why it is excluded; the next best item is picked instead.

    Raises:
        SourceError: the catalogue as a whole does not answer.
    """
    if not requests:
        return Picks([], _ledger(platform, year, requests, {}))
    rows: dict[str, dict[str, Any]] = {}
    chosen: dict[str, Item] = {}
    with rare_collections():
        for done, choice in enumerate(choices(platform, catalogue, requests, options, excluded), start=1):
            rows[choice.request.id] = _row(choice)
            if choice.item is not None:
                chosen[choice.item["id"]] = choice.item
            progress(done, len(requests))
        items, invalid = full_items(platform, catalogue, chosen)
        for row in rows.values() if invalid else ():
            if row["item_id"] in invalid:
                row.update(outcome=FAILED, reason=invalid[row["item_id"]], item_id=None, cloud_cover=None)
        return Picks(items, _ledger(platform, year, requests, rows))


def rejections(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """For each reason, the number of candidates refused and of requests left without a scene, most first.

    A request whose candidates were refused for several reasons counts for each.
    """
    refused: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for text, outcome, reason in zip(ledger["rejected"], ledger["outcome"], ledger["reason"], strict=True):
        counts = json.loads(text)
        refused.update(counts)
        if outcome != PICKED:
            without.update(list(counts) or [reason])
    rows = [
        {"reason": reason, "candidates refused": refused[reason], "requests without a scene": without[reason]}
        for reason in {*refused, *without}
    ]
    return sorted(rows, key=lambda row: (-row["requests without a scene"], -row["candidates refused"], row["reason"]))


def excluded_candidates(ledger: pd.DataFrame, excluded: Mapping[str, str]) -> int:
    """Number of candidates refused because the recipe excludes them by id; the ledger has the details."""
    reasons = {excluded_reason(name, why) for name, why in excluded.items()}
    return sum(count for text in ledger["rejected"] for why, count in json.loads(text).items() if why in reasons)


def _row(choice: Choice) -> dict[str, Any]:
    outcome = FAILED if choice.error is not None else NONE if choice.item is None else PICKED
    return {
        "outcome": outcome,
        "reason": choice.error or (_summary(choice.rejected) if choice.item is None else None),
        "candidates": choice.candidates,
        "rejected": _JSON.encode(dict(sorted(choice.rejected.items()))) if choice.rejected else "{}",
        "item_id": choice.item["id"] if choice.item else None,
        "cloud_cover": number(choice.item, "eo:cloud_cover") if choice.item else None,
    }


def _summary(rejected: Mapping[str, int]) -> str:
    if not rejected:
        return NOTHING_FOUND
    ordered = sorted(rejected.items(), key=lambda entry: (-entry[1], entry[0]))
    return "; ".join(f"{count} × {reason}" for reason, count in ordered)


def _ledger(
    platform: AnyPlatform, year: int, requests: Sequence[Request], rows: Mapping[str, dict[str, Any]]
) -> pd.DataFrame:
    ordered = sorted(requests, key=lambda request: request.id)
    of_requests = [rows[request.id] for request in ordered]
    columns: dict[str, Any] = {
        "request_id": [request.id for request in ordered],
        "platform": platform.key,
        "location": [request.location for request in ordered],
        "year": year,
        "period": [request.period for request in ordered],
    }
    told = {name: [row[name] for row in of_requests] for name in LEDGER_TYPES if name not in columns}
    return pd.DataFrame({**columns, **told}, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)


LEDGER_TYPES = {
    "request_id": "string",
    "platform": "string",
    "location": "string",
    "year": "int16",
    "period": "string",
    "outcome": "string",
    "reason": "string",
    "candidates": "int32",
    "rejected": "string",
    "item_id": "string",
    "cloud_cover": "float64",
}
