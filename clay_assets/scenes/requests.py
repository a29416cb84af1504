"""The request table of a platform: one row per search to make. The table is built by
`clay_assets.platforms.request_table`; the platform decides on its requests.

If only the catalogue knows the years, as for aerial imagery that is flown every few years, each location is searched
once, here. The items found become the location's requests, and are kept for the picks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import geopandas as gpd
import pandas as pd

from clay_assets.catalogues.base import Answer, Catalogue
from clay_assets.catalogues.candidate_rows import brief
from clay_assets.catalogues.eligibility import RuleError, best_item, eligible_items, full_items, resolved_requests
from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.request_table import request_table, requests_in
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.stac import Item, item_datetime


@dataclass(frozen=True)
class Resolved:
    """Requests derived from the contents of a catalogue.

    Attributes:
        requests: request table, each row within one year.
        items: full items that the requests found, ordered by id.
        failures: `location` and `error` of the searches that failed, or have no requests because of a bug in a rule.
        candidates: number of items that the catalogue offered, counted per successful search.
        rejected: reason → number of candidates refused for it.
    """

    requests: gpd.GeoDataFrame
    items: list[Item]
    failures: pd.DataFrame
    candidates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def make_requests(platform: AnyPlatform, sample: gpd.GeoDataFrame, recipe: Recipe) -> gpd.GeoDataFrame:
    """All searches of a platform, over all years.

    Args:
        platform: the platform.
        sample: the platform's sample, EPSG:4326.
        recipe: the recipe with years, quarters, limits and seed.

    Raises:
        InputError: two requests have the same id.
    """
    table = platform.rules.requests(sample, recipe.options(platform.key), recipe.seed)
    repeated = table["request_id"][table["request_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"{platform.key}: request {repeated.iloc[0]} is repeated. Keep each location of {platform.scenes.sample} "
            "once."
        )
    return cast(gpd.GeoDataFrame, table)


def requests_of(table: gpd.GeoDataFrame, year: int) -> list[Request]:
    """The requests of one year partition, ordered by id."""
    return requests_in(table[table["year"] == year].sort_values("request_id"))


def resolve_requests(
    platform: AnyPlatform,
    searches: gpd.GeoDataFrame,
    catalogue: Catalogue,
    recipe: Recipe,
    progress: OnProgress = no_progress,
) -> Resolved:
    """Search every location once, and let the platform derive its requests from the items found.

    Args:
        platform: a platform with `resolve`.
        searches: its request table, one row per location.
        catalogue: the catalogue to search.
        recipe: the recipe with the platform's options and the seed.
        progress: called with (locations searched, locations in total).

    Raises:
        SourceError: the catalogue as a whole does not answer.
    """
    requests: list[Request] = []
    chosen: dict[str, Item] = {}
    wanted_at: dict[str, list[str]] = {}
    failures, candidates = [], 0
    rejected: Counter[str] = Counter()
    excluded = recipe.excluded_scenes(platform.key)
    for done, answer in enumerate(catalogue.search(platform, requests_in(searches)), start=1):
        found, error = _requests_found(platform, answer, recipe, excluded, rejected)
        if error is not None:
            failures.append({"location": answer.request.location, "error": error})
        else:
            candidates += len(answer.candidates) + answer.invalid.total()
        for request, best in found:
            requests.append(request)
            if best is not None:
                chosen[best["id"]] = brief(best)
                wanted_at.setdefault(best["id"], []).append(request.location)
        progress(done, len(searches))
    items, invalid = full_items(platform, catalogue, chosen)
    failures += [{"location": place, "error": error} for name, error in invalid.items() for place in wanted_at[name]]
    failed = pd.DataFrame(failures, columns=["location", "error"]).sort_values("location", ignore_index=True)
    return Resolved(request_table(platform.key, requests), items, failed, candidates, rejected)


def _requests_found(
    platform: AnyPlatform, answer: Answer, recipe: Recipe, excluded: Mapping[str, str], rejected: Counter[str]
) -> tuple[list[tuple[Request, Item | None]], str | None]:
    """The requests derived from one answer, each with its best item, or why there are none. Refused candidates are
    counted in `rejected`.
    """
    if answer.error is not None:
        return [], answer.error
    options = recipe.options(platform.key)
    try:
        eligible, refused = eligible_items(platform, answer, options, excluded)
        rejected.update(refused)
        found = []
        for request in resolved_requests(platform, answer.request, eligible, options, recipe.seed):
            within = [item for item in eligible if request.start <= item_datetime(item) < request.end]
            best, unranked = best_item(platform, within, request)
            rejected.update(unranked)
            found.append((request, best))
    except RuleError as error:
        return [], str(error)
    return found, None
