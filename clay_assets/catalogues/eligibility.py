"""Which candidates are eligible for a request. The platform's rules decide, whichever catalogue answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shapely.errors import ShapelyError

from clay_assets.catalogues.base import Answer, Catalogue
from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Options, Request
from clay_assets.stac import Item, as_stac_1_1, item_datetime


def eligible_items(platform: AnyPlatform, answer: Answer, options: Options) -> tuple[list[Item], Counter[str]]:
    """The candidates that a request may take, and how many were refused for each reason."""
    eligible: list[Item] = []
    rejected = Counter(answer.invalid)
    for item in answer.candidates:
        try:
            refusal = _refusal(platform, item, answer.request, options)
        except (InputError, ShapelyError, KeyError, TypeError, ValueError, AttributeError) as error:
            refusal = f"invalid item ({type(error).__name__}: {error})"
        if refusal is None:
            eligible.append(item)
        else:
            rejected[refusal] += 1
    return eligible, rejected


def full_items(
    platform: AnyPlatform, catalogue: Catalogue, chosen: Mapping[str, Item]
) -> tuple[list[Item], dict[str, str]]:
    """The chosen candidates as whole items of STAC 1.1, ordered by id; and id → reason of those that prove invalid."""
    whole: dict[str, Item] = {}
    invalid = {}
    for item in catalogue.complete(platform, [chosen[name] for name in sorted(chosen)]):
        try:
            whole[item["id"]] = as_stac_1_1(item)
        except InputError as error:
            invalid[item["id"]] = str(error)
    return [whole[name] for name in sorted(whole)], invalid


def _refusal(platform: AnyPlatform, item: Item, request: Request, options: Options) -> str | None:
    if not request.start <= item_datetime(item) < request.end:
        return "outside the period"
    refusal = platform.rules.refuse(item, request, options)
    missing = platform.missing(item, platform.asset_names)
    if refusal is None and missing:
        return f"without asset {', '.join(missing)}"
    return refusal
