"""What a request may take of the candidates that a catalogue offers. The platform's rules decide, whichever end
answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shapely.errors import ShapelyError

from clay_assets.catalogues.search import Answer, Catalogue, prepared
from clay_assets.errors import InputError
from clay_assets.platforms.base import Item, Options, Platform, Request
from clay_assets.storage.stac_geoparquet import canonical, item_datetime


def admit(platform: Platform, answer: Answer, options: Options) -> tuple[list[Item], Counter[str]]:
    """The candidates that a request may take, as they are ranked, and how many were refused for each reason."""
    admitted: list[Item] = []
    rejected: Counter[str] = Counter()
    for candidate in answer.candidates:
        try:
            item = prepared(platform, candidate)
            refusal = _refusal(platform, item, answer.request, options)
        except (InputError, ShapelyError, KeyError, TypeError, ValueError, AttributeError) as error:
            refusal = f"not a valid item ({type(error).__name__})"
        if refusal is None:
            admitted.append(item)
        else:
            rejected[refusal] += 1
    return admitted, rejected


def _refusal(platform: Platform, item: Item, request: Request, options: Options) -> str | None:
    if not request.start <= item_datetime(item) < request.end:
        return "outside the period"
    refusal = platform.refuse(item, request, options)
    missing = platform.missing(item, platform.assets)
    if refusal is None and missing:
        return f"without asset {', '.join(missing)}"
    return refusal


def whole_items(
    platform: Platform, catalogue: Catalogue, chosen: Mapping[str, Item]
) -> tuple[list[Item], dict[str, str]]:
    """The chosen candidates with all that is said of them, ordered by id; and of those that prove invalid, why."""
    whole: dict[str, Item] = {}
    invalid = {}
    for item in catalogue.complete(platform, [chosen[name] for name in sorted(chosen)]):
        try:
            whole[item["id"]] = canonical(platform.renamed(item))
        except InputError as error:
            invalid[item["id"]] = str(error)
    return [whole[name] for name in sorted(whole)], invalid
