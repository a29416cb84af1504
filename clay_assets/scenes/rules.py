"""Rules that a cell's ledger, picks and imagery must satisfy. Scenes are picked in `picks`, by the platform's rules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import shapely
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.eligibility import RuleError, eligible_items
from clay_assets.errors import InputError
from clay_assets.findings import Finding, make_finding, names
from clay_assets.footprints import footprint_of
from clay_assets.platforms.base import AnyPlatform, Options, Request
from clay_assets.recipes.exclusions import NOTHING
from clay_assets.scenes.imagery import FAILED
from clay_assets.scenes.picks import FAILED as UNANSWERED
from clay_assets.scenes.picks import PICKED
from clay_assets.scenes.requests import Resolved
from clay_assets.stac import FOOTPRINT_ROUNDING, Item, item_datetime

REASONS_SHOWN = 3


def requests_in_ledger_once(requests: Sequence[str], ledger: pd.DataFrame) -> Finding:
    """The ledger has exactly one row per request, and no others.

    Args:
        requests: ids of the requests of the cell.
        ledger: the cell's ledger with `request_id`, one row per request.

    Returns:
        `requests`, `ledger_rows`, and the number of ids that are `missing`, repeated (`twice`), or not requests of the
        cell (`unasked`).
    """
    asked = set(requests)
    listed = ledger["request_id"].astype(str)
    missing, unasked = names(asked - set(listed)), names(set(listed) - asked)
    twice = names(listed[listed.duplicated()])
    return make_finding(
        [f"request {name} is not in the ledger" for name in missing]
        + [f"request {name} is in the ledger more than once" for name in twice]
        + [f"request {name} is in the ledger but not in the requests" for name in unasked],
        requests=len(requests),
        ledger_rows=len(ledger),
        missing=len(missing),
        twice=len(twice),
        unasked=len(unasked),
    )


def items_of_ledger(ledger: pd.DataFrame, items: Sequence[Item]) -> Finding:
    """The items are the scenes of the ledger, each once; a request has a scene if and only if its outcome is `picked`.

    Args:
        ledger: `request_id`, `outcome` and `item_id` of the cell.
        items: the cell's picked items.

    Returns:
        `picked` requests, their `scenes`, `items`, and the number of scenes without an item (`missing`), of repeated
        items (`twice`), and of items that were not picked (`unnamed`).
    """
    picked = ledger["outcome"] == PICKED
    named, ids = set(ledger["item_id"].dropna()), pd.Series([item["id"] for item in items], dtype="string")
    missing, unnamed, twice = names(named - set(ids)), names(set(ids) - named), names(ids[ids.duplicated()])
    unsaid = names(ledger.loc[picked != ledger["item_id"].notna(), "request_id"])
    return make_finding(
        [f"scene {name} was picked but is not among the items" for name in missing]
        + [f"scene {name} is among the items more than once" for name in twice]
        + [f"scene {name} is among the items but was picked for no request" for name in unnamed]
        + [f"request {name} is picked without a scene, or has one without being picked" for name in unsaid],
        picked=int(picked.sum()),
        scenes=len(named),
        items=len(items),
        missing=len(missing),
        twice=len(twice),
        unnamed=len(unnamed),
    )


def some_candidate_passes(platform: AnyPlatform, year: int, ledger: pd.DataFrame) -> Finding:
    """If the catalogue has candidates, a scene is picked: if all are refused, the catalogue has probably changed.

    Args:
        platform: the cell's platform.
        year: the cell's year.
        ledger: `outcome`, `reason`, `candidates` and `rejected` of the cell.

    Returns:
        `candidates`, the number of requests `picked`, and, if it is 0, why the candidates were refused.
    """
    candidates, picked = int(ledger["candidates"].sum()), int((ledger["outcome"] == PICKED).sum())
    refused: Counter[str] = Counter()
    columns = (ledger[name] for name in ("outcome", "reason", "candidates", "rejected"))
    for outcome, reason, offered, rejected in zip(*columns, strict=True):
        counts = Counter[str](json.loads(rejected))
        refused.update(counts)
        if outcome == UNANSWERED:  # a rule raised, or the picked item was invalid
            refused[str(reason)] += int(offered) - counts.total()
    where = f"{platform.key} {year}: none of {candidates:,} candidates of {len(ledger):,} requests is eligible"
    return _some_pass(where, +refused, candidates=candidates, picked=picked)


def some_search_finds(platform: AnyPlatform, resolved: Resolved) -> Finding:
    """As `some_candidate_passes`, for the searches before the requests: later ledgers only see the items found.

    Returns:
        `candidates`, the number of scenes `picked`, and, if it is 0, why the candidates were refused.
    """
    candidates = resolved.candidates
    where = f"{platform.key}: none of {candidates:,} candidates of its searches is eligible"
    return _some_pass(where, resolved.rejected, candidates=candidates, picked=len(resolved.items))


def picks_as_requested(
    platform: AnyPlatform,
    year: int,
    requests: Sequence[Request],
    ledger: pd.DataFrame,
    items: Sequence[Item],
    options: Options,
    excluded: Mapping[str, str] = NOTHING,
) -> Finding:
    """Every pick matches the period, year and place of its request, and the platform's limits.

    Limits, such as cloud cover, are those by which the platform refuses an item.

    Args:
        platform: the cell's platform.
        year: the cell's year.
        requests: the cell's requests.
        ledger: `request_id`, `item_id` and `cloud_cover`; rows with an unknown request or item are skipped, since
            `requests_in_ledger_once` and `items_of_ledger` report them.
        items: the picked items.
        options: the recipe's options for the platform.
        excluded: item id → why it is excluded.

    Returns:
        `picks`, and the number of them that are `refused` (outside the period or a limit), `of_another_year`, or
        `elsewhere`; `highest_cloud_cover` in percent, if known.
    """
    by_id, asked = {item["id"]: item for item in items}, {request.id: request for request in requests}
    pairs = [
        (asked[request], by_id[scene])
        for request, scene in zip(ledger["request_id"], ledger["item_id"], strict=True)
        if request in asked and scene in by_id
    ]
    refused, other_year = [], []
    for request, item in pairs:
        reasons = _refusals(platform, request, item, options, excluded)
        refused += [f"request {request.id}: scene {item['id']} is refused: {reason}" for reason in reasons]
        if _year_of(item) != year:
            other_year.append(f"request {request.id}: scene {item['id']} is of {_year_of(item)} instead of {year}")
    footprints = {item["id"]: footprint_of(item.get("geometry")) for item in items}
    elsewhere = [
        f"request {request.id}: scene {item['id']} does not intersect {request.location}"
        for request, item in pairs
        if _apart(request.geometry, footprints[item["id"]])
    ]
    numbers: dict[str, Any] = {
        "picks": len(pairs),
        "refused": len(refused),
        "of_another_year": len(other_year),
        "elsewhere": len(elsewhere),
    }
    clouds = ledger["cloud_cover"].dropna()
    if len(clouds):
        numbers["highest_cloud_cover"] = float(clouds.max())
    return make_finding(refused + other_year + elsewhere, **numbers)


def imagery_of_picks(picks: Sequence[str], imagery: Sequence[str], ledger: pd.DataFrame) -> Finding:
    """The scenes with imagery are the picked scenes, except those set aside; the ledger has every pick once.

    Args:
        picks: ids of the picked items.
        imagery: ids of the items with hrefs to read.
        ledger: `item_id` and `outcome` of the cell's imagery.

    Returns:
        `picks`, `scenes` with imagery, and the number of scenes that are `set_aside`, `missing`, or `unpicked`.
    """
    aside = set(ledger.loc[ledger["outcome"] == FAILED, "item_id"])
    wanted, there = set(picks) - aside, set(imagery)
    missing, unpicked = names(wanted - there), names(there - wanted)
    unlisted = names(set(picks) ^ set(ledger["item_id"]))
    twice = names(ledger["item_id"][ledger["item_id"].duplicated()])
    return make_finding(
        [f"scene {name} was picked but has no imagery" for name in missing]
        + [f"scene {name} has imagery but was set aside or not picked" for name in unpicked]
        + [f"scene {name} is in only one of picks and imagery ledger" for name in unlisted]
        + [f"scene {name} is in the imagery ledger more than once" for name in twice],
        picks=len(picks),
        scenes=len(imagery),
        set_aside=len(aside),
        missing=len(missing),
        unpicked=len(unpicked),
    )


def _some_pass(said: str, refused: Counter[str], *, candidates: int, picked: int) -> Finding:
    if picked or not candidates:
        return make_finding([], candidates=candidates, picked=picked)
    ordered = sorted(refused.items(), key=lambda entry: (-entry[1], entry[0]))
    most = "; ".join(f"{count:,} × {reason}" for reason, count in ordered[:REASONS_SHOWN])
    more = f"; and {len(ordered) - REASONS_SHOWN} other reasons" if len(ordered) > REASONS_SHOWN else ""
    rows = [{"reason": reason, "candidates refused": count} for reason, count in ordered]
    reasons = f" ({most}{more})" if most else ""  # empty if all picked items were invalid
    return make_finding([f"{said}{reasons}"], rows, candidates=candidates, picked=picked)


def _refusals(
    platform: AnyPlatform, request: Request, item: Item, options: Options, excluded: Mapping[str, str]
) -> list[str]:
    """Why a platform refuses an item; if a rule raises, its error is the reason."""
    try:
        return list(eligible_items(platform, Answer(request, [item]), options, excluded)[1])
    except RuleError as error:
        return [str(error)]


def _year_of(item: Item) -> int | None:
    try:
        return item_datetime(item).year
    except InputError:
        return None


def _apart(place: BaseGeometry, footprint: BaseGeometry | None) -> bool:
    """Whether a footprint does not intersect a place, both EPSG:4326; True if the footprint is unknown."""
    try:
        return not shapely.dwithin(place, footprint, FOOTPRINT_ROUNDING)
    except ShapelyError:
        return True
