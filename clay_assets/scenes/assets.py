"""Stage 3 in Dagster: `scene_requests`, `scene_picks` and `scene_imagery`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.findings import make_finding
from clay_assets.orchestration.checks import none_failed, none_failed_spec, report, returned_spec
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.gates import stop_if_broken, stop_if_too_many_failed
from clay_assets.orchestration.metadata import picture, table
from clay_assets.orchestration.partitions import cell_of, cells, platforms
from clay_assets.orchestration.stage import IMAGERY, STAC_API, stage_asset
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.progress import ProgressReporter
from clay_assets.scenes import checks
from clay_assets.scenes.columns import IMAGERY_LEDGER, REQUEST_LEDGER, SCENE_REQUESTS
from clay_assets.storage.columns import ITEMS

if TYPE_CHECKING:
    import geopandas as gpd

    from clay_assets.orchestration.resources import ClayResource
    from clay_assets.stac import Item

asset = partial(stage_asset, group="scenes", number=3)


@asset(
    version="1",
    job="requests",
    columns=SCENE_REQUESTS,
    partitions_def=platforms,
    # A platform loads its own sample in the body, so that it runs without the samples of others.
    deps=sorted({platform.scenes.sample for platform in PLATFORMS.values()}),
    pool=STAC_API,
    io_manager_key="geo_tables",
    check_specs=[
        none_failed_spec("scene_requests", "searches", platforms),
        returned_spec("scene_requests", checks.SOME_PASS, platforms),
        returned_spec("scene_requests", checks.OF_PLATFORM, platforms),
    ],
)
def scene_requests(context: dg.AssetExecutionContext, clay: ClayResource) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """The searches of one platform, over all years: one row per search.

    A row has the area (`geometry`), the period (`start`, `end`) and the property filters of a search, its year
    partition, and the hash it was drawn by. NAIP is searched here once per location, since only the catalogue knows
    in which years it was flown. GeoParquet in `scenes/scene_requests/{platform}.parquet`.
    """
    import pandas as pd

    from clay_assets.platforms.request_table import requests_in
    from clay_assets.scenes.cost import estimate_cost
    from clay_assets.scenes.pictures import requests_by_period
    from clay_assets.scenes.requests import Resolved, make_requests, resolve_requests
    from clay_assets.scenes.rules import some_search_finds
    from clay_assets.storage import layout

    platform, recipe = platform_of(context.partition_key), clay.recipe()
    requests = make_requests(platform, clay.table(platform.scenes.sample), recipe)
    resolved, searches = Resolved(requests, [], pd.DataFrame(columns=["location", "error"])), 0
    doubts: list[str] = []
    tolerance = recipe.tolerance.failed_requests
    if platform.rules.resolve:
        searches, catalogue = len(requests), clay.catalogue(platform)
        with ProgressReporter(context.log, "locations") as progress:
            resolved = resolve_requests(platform, requests, catalogue, recipe, progress)
        doubts = catalogue.doubts(platform, requests_in(requests), resolved.candidates)
        requests = resolved.requests
        stop_if_too_many_failed("searches", resolved.failures, searches, tolerance, f"scene_requests {platform.key}")
        clay.write_items(layout.search_results(platform.key), resolved.items)
    title = f"{platform.title}: {len(requests):,} requests"
    return dg.MaterializeResult(
        value=requests,
        metadata={
            "locations": requests["location"].nunique(),
            "years": ", ".join(map(str, sorted(requests["year"].unique()))) or "none",
            "searches_made_now": searches,
            "planned_at_most": table([asdict(estimate_cost(platform, len(requests), recipe))]),
            "requests_by_period": picture(requests_by_period(requests, title)),
        },
        check_results=[
            none_failed("scene_requests", "searches", resolved.failures, searches, tolerance),
            report(
                "scene_requests",
                checks.SOME_PASS.name,
                some_search_finds(platform, resolved),
                checks.SOME_PASS.severity,
            ),
            _catalogue_of_platform(context, "scene_requests", doubts, resolved.candidates),
        ],
    )


@asset(
    version="2",
    kinds={"stac"},
    columns=ITEMS,
    ledger=REQUEST_LEDGER,
    partitions_def=cells,
    pool=STAC_API,
    io_manager_key="stac_items",
    check_specs=[
        none_failed_spec("scene_picks", "requests", cells),
        returned_spec("scene_picks", checks.OF_PLATFORM, cells),
    ],
)
def scene_picks(
    context: dg.AssetExecutionContext, clay: ClayResource, scene_requests: gpd.GeoDataFrame
) -> dg.MaterializeResult[list[Item]]:
    """The scenes chosen for one platform and year: one STAC item per scene.

    Every request takes the best eligible candidate by the platform's rules; requests may share a scene. The ledger,
    one row per request, records the scene, or why there is none. STAC-GeoParquet in
    `scenes/scene_picks/{platform}/{year}.parquet`, the ledger in `scenes/ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.scenes.picks import FAILED, excluded_candidates, pick_scenes, rejections
    from clay_assets.scenes.pictures import picks_by_period
    from clay_assets.scenes.requests import requests_of
    from clay_assets.scenes.rules import items_of_ledger, picks_as_requested, requests_in_ledger_once
    from clay_assets.storage import layout

    key, year = cell_of(context)
    platform, recipe = platform_of(key), clay.recipe()
    requests = requests_of(scene_requests, year)
    catalogue, excluded = clay.scenes_of(platform), recipe.excluded_scenes(key)
    with ProgressReporter(context.log, "requests") as progress:
        picks = pick_scenes(platform, year, requests, catalogue, recipe.options(key), progress, excluded)
    ledger = picks.ledger
    # Items found before, for the requests or the sample, were already checked against the platform.
    looked_up_before = platform.rules.resolve is not None or platform.scenes.sample_has_items
    candidates = int(ledger["candidates"].sum())
    doubts = [] if looked_up_before else catalogue.doubts(platform, requests, candidates)
    title = f"{platform.title} {year}: {len(picks.items):,} scenes"
    failures = ledger.loc[ledger["outcome"] == FAILED, ["request_id", "reason"]]
    tolerance = recipe.tolerance.failed_requests
    stop_if_too_many_failed("requests", failures, len(requests), tolerance, f"scene_picks {key}|{year}")
    stop_if_broken(
        f"scene_picks {key}|{year}",
        requests_in_ledger_once([request.id for request in requests], ledger),
        items_of_ledger(ledger, picks.items),
        picks_as_requested(platform, year, requests, ledger, picks.items, recipe.options(key), excluded),
    )
    clay.write_table(layout.request_ledger(key, year), ledger)
    return dg.MaterializeResult(
        value=picks.items,
        metadata={
            "requests": len(requests),
            "outcomes": ledger["outcome"].value_counts().to_dict(),
            "scenes": len(picks.items),
            "nothing_to_do": not requests,
            "ledger": dg.MetadataValue.path(clay.store().uri(layout.request_ledger(key, year))),
            "reasons": table(rejections(ledger)),
            **({"candidates_excluded": excluded_candidates(ledger, excluded)} if excluded else {}),
            "picks_by_period": picture(picks_by_period(ledger, title)),
        },
        check_results=[
            none_failed("scene_picks", "requests", failures, len(requests), tolerance),
            _catalogue_of_platform(context, "scene_picks", doubts, candidates),
        ],
    )


@asset(
    version="1",
    kinds={"stac"},
    columns=ITEMS,
    ledger=IMAGERY_LEDGER,
    partitions_def=cells,
    pool=IMAGERY,
    io_manager_key="stac_items",
    check_specs=[none_failed_spec("scene_imagery", "copies", cells)],
)
def scene_imagery(
    context: dg.AssetExecutionContext, clay: ClayResource, scene_picks: list[Item]
) -> dg.MaterializeResult[list[Item]]:
    """The picked scenes with the files that will be read: one STAC item per scene.

    Depending on the recipe, these are the catalogue's own files, copies in our storage, or resampled images (LINZ,
    MODIS). The ledger, one row per scene, records the outcome. STAC-GeoParquet in
    `scenes/scene_imagery/{platform}/{year}.parquet`, files in `imagery/{platform}/{item_id}/`, the ledger in
    `scenes/imagery_ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.pictures.maps import scene_map
    from clay_assets.scenes.imagery import FAILED, noted, readable_items
    from clay_assets.storage import layout

    key, year = cell_of(context)
    platform, recipe = platform_of(key), clay.recipe()
    options = recipe.options(key)
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "scenes") as progress:
        imagery = readable_items(platform, scene_picks, options, clay.store(), executor, in_flight, progress)
    ledger = imagery.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    stop_if_too_many_failed("copies", failures, len(ledger), tolerance, f"scene_imagery {key}|{year}")
    clay.write_table(layout.imagery_ledger(key, year), ledger)
    return dg.MaterializeResult(
        value=imagery.items,
        metadata={
            "policy": options.imagery,
            "scenes": len(imagery.items),
            "files_written_now": imagery.written,
            "bytes_in_our_storage": int(ledger["bytes"].sum()),
            "outcomes": table(outcomes(ledger)),
            "notes": table(noted(ledger)),
            "map": picture(scene_map(imagery.items, f"{platform.title} {year}: {len(imagery.items):,} scenes")),
            "ledger": dg.MetadataValue.path(clay.store().uri(layout.imagery_ledger(key, year))),
        },
        check_results=[none_failed("scene_imagery", "copies", failures, len(ledger), tolerance)],
    )


def _catalogue_of_platform(
    context: dg.AssetExecutionContext, asset: str, doubts: Sequence[str], candidates: int
) -> dg.AssetCheckResult:
    """Warn of a catalogue that may not be the platform's; an error if it has no candidates at all."""
    for doubt in doubts:
        context.log.warning(doubt)
    severity = dg.AssetCheckSeverity.WARN if candidates else checks.OF_PLATFORM.severity
    return report(asset, checks.OF_PLATFORM.name, make_finding(list(doubts), candidates=candidates), severity)


ASSETS = [scene_requests, scene_picks, scene_imagery]
CHECKS = checks.CHECKS
RESOURCES: dict[str, object] = {}
