"""The checks of `scene_picks` and `scene_imagery`."""

from collections.abc import Mapping

import dagster as dg

from clay_assets.findings import Finding
from clay_assets.orchestration.checks import WARN, Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import platform_of
from clay_assets.storage import layout

# For the picks of a cell, and for the searches that a platform makes before it has requests.
SOME_PASS = Check("some_candidate_passes", "If the catalogue has candidates, at least one of them is eligible.")

OF_PLATFORM = Check(
    "catalogue_of_platform", "The catalogue has the platform's collection, with the properties used in the search."
)


@checks_of(
    "scene_picks",
    [
        Check("requests_in_ledger_once", "The ledger has exactly one row per request, and no others."),
        Check("items_of_ledger", "The items are the scenes of the ledger, each once."),
        Check(
            "picks_as_requested",
            "Every pick matches the period, year and place of its request, and the platform's limits.",
        ),
        SOME_PASS,
    ],
    cells_in=layout.folder_of("scene_picks"),
)
def scene_picks(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Check a cell's requests, ledger and items."""
    from clay_assets.scenes.requests import requests_of
    from clay_assets.scenes.rules import (
        items_of_ledger,
        picks_as_requested,
        requests_in_ledger_once,
        some_candidate_passes,
    )
    from clay_assets.storage.stac_geoparquet import items_of

    store, platform = clay.store(), platform_of(key)
    requests = requests_of(clay.table("scene_requests", key), int(year))
    columns = ["request_id", "outcome", "reason", "candidates", "rejected", "item_id", "cloud_cover"]
    ledger = stored_table(store, layout.request_ledger(key, year), "scene_picks", columns).to_pandas()
    items = items_of(stored_table(store, layout.table("scene_picks", key, year), "scene_picks"))
    recipe = clay.recipe()
    options, excluded = recipe.options(key), recipe.excluded_scenes(key)
    return {
        "requests_in_ledger_once": requests_in_ledger_once([request.id for request in requests], ledger),
        "items_of_ledger": items_of_ledger(ledger, items),
        "picks_as_requested": picks_as_requested(platform, int(year), requests, ledger, items, options, excluded),
        "some_candidate_passes": some_candidate_passes(platform, int(year), ledger),
    }


@checks_of(
    "scene_imagery",
    [Check("imagery_of_picks", "The scenes with imagery are the picked scenes, except those set aside.", WARN)],
    cells_in=layout.folder_of("scene_imagery"),
)
def scene_imagery(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Check a cell's picks, its items with imagery, and the imagery ledger."""
    from clay_assets.scenes.rules import imagery_of_picks

    store = clay.store()
    picks, imagery = (
        stored_table(store, layout.table(asset, key, year), asset, ["id"])["id"].to_pylist()
        for asset in ("scene_picks", "scene_imagery")
    )
    ledger = stored_table(store, layout.imagery_ledger(key, year), "scene_imagery", ["item_id", "outcome"])
    return {"imagery_of_picks": imagery_of_picks(picks, imagery, ledger.to_pandas())}


CHECKS = [scene_picks, scene_imagery]
