"""Stage 3 in Dagster: `scene_requests`, `scene_picks` and `scene_imagery`."""

from dataclasses import asdict

import dagster as dg

from clay_assets.orchestration.checks.gates import demand, none_failed, none_failed_spec, tolerate
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.metadata import picture, table
from clay_assets.orchestration.partitions import cell_of, cells, platforms
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.stage import IMAGERY, STAC_API, stage
from clay_assets.orchestration.values import Items, Requests
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms import platform as platform_of

asset = stage(3, "scenes")


@asset(
    "clay_assets.platforms.requests",
    partitions_def=platforms,
    # A platform loads its own sample in the body, so it runs where no other was made.
    deps=sorted({platform.sample for platform in PLATFORMS.values()}),
    pool=STAC_API,
    io_manager_key="geo_tables",
    check_specs=[none_failed_spec("scene_requests", "searches")],
)
def scene_requests(context: dg.AssetExecutionContext, clay: ClayResource):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    import pandas as pd

    from clay_assets.orchestration.pictures.bars import requests_by_period
    from clay_assets.scenes.plan import plan
    from clay_assets.scenes.requests import make_requests, resolve_requests
    from clay_assets.storage import layout

    platform, recipe = platform_of(context.partition_key), clay.recipe()
    requests = make_requests(platform, clay.table(platform.sample), recipe)
    failures, searches = pd.DataFrame(columns=["location", "error"]), 0
    tolerance = recipe.tolerance.failed_requests
    if platform.resolve:
        searches = len(requests)
        with Progress(context.log, "locations") as progress:
            resolved = resolve_requests(platform, requests, clay.catalogue(platform), recipe, progress)
        requests, failures = resolved.requests, resolved.failures
        tolerate("searches", failures, searches, tolerance, f"scene_requests {platform.key}")
        clay.write_items(layout.found(platform.key), resolved.items)
    title = f"{platform.title}: {len(requests):,} requests"
    return dg.MaterializeResult(
        value=requests,
        metadata={
            "locations": requests["location"].nunique(),
            "years": ", ".join(map(str, sorted(requests["year"].unique()))) or "none",
            "searches_made_now": searches,
            "planned_at_most": table([asdict(plan(platform, len(requests), recipe))]),
            "requests_by_period": picture(requests_by_period(requests, title)),
        },
        check_results=[none_failed("scene_requests", "searches", failures, searches, tolerance)],
    )


@asset(
    "clay_assets.scenes.picks",
    kinds={"stac"},
    partitions_def=cells,
    pool=STAC_API,
    io_manager_key="stac_items",
    check_specs=[none_failed_spec("scene_picks", "requests")],
)
def scene_picks(context: dg.AssetExecutionContext, clay: ClayResource, scene_requests: Requests):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    from clay_assets.orchestration.pictures.bars import picks_by_period
    from clay_assets.scenes.picks import FAILED, pick_scenes, rejections
    from clay_assets.scenes.requests import requests_of
    from clay_assets.scenes.validity import items_of_ledger, picks_as_requested, requests_in_ledger_once
    from clay_assets.storage import layout

    key, year = cell_of(context)
    platform, recipe = platform_of(key), clay.recipe()
    requests = requests_of(scene_requests, year)
    with Progress(context.log, "requests") as progress:
        picks = pick_scenes(platform, year, requests, clay.scenes_of(platform), recipe.options(key), progress)
    ledger = picks.ledger
    title = f"{platform.title} {year}: {len(picks.items):,} scenes"
    failures = ledger.loc[ledger["outcome"] == FAILED, ["request_id", "reason"]]
    tolerance = recipe.tolerance.failed_requests
    tolerate("requests", failures, len(requests), tolerance, f"scene_picks {key}|{year}")
    demand(
        f"scene_picks {key}|{year}",
        requests_in_ledger_once([request.id for request in requests], ledger),
        items_of_ledger(ledger, picks.items),
        picks_as_requested(platform, year, requests, ledger, picks.items, recipe.options(key)),
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
            "picks_by_period": picture(picks_by_period(ledger, title)),
        },
        check_results=[none_failed("scene_picks", "requests", failures, len(requests), tolerance)],
    )


@asset(
    "clay_assets.scenes.imagery",
    kinds={"stac"},
    partitions_def=cells,
    pool=IMAGERY,
    io_manager_key="stac_items",
    check_specs=[none_failed_spec("scene_imagery", "copies")],
)
def scene_imagery(context: dg.AssetExecutionContext, clay: ClayResource, scene_picks: Items):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    from clay_assets.orchestration.pictures.maps import scene_map
    from clay_assets.scenes.imagery import FAILED, noted, readable_items
    from clay_assets.storage import layout

    key, year = cell_of(context)
    platform, recipe = platform_of(key), clay.recipe()
    options = recipe.options(key)
    with clay.executor() as (executor, in_flight), Progress(context.log, "scenes") as progress:
        imagery = readable_items(platform, scene_picks, options, clay.store(), executor, in_flight, progress)
    ledger = imagery.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    tolerate("copies", failures, len(ledger), tolerance, f"scene_imagery {key}|{year}")
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
