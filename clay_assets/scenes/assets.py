"""Stage 3 in Dagster: `scene_requests`, `scene_picks` and `scene_imagery`."""

import dagster as dg

from clay_assets.orchestration.checks import none_failed, none_failed_spec, tolerate
from clay_assets.orchestration.metadata import described_by, picture, table
from clay_assets.orchestration.partitions import cell_of, cells, platforms
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.values import Items, Requests
from clay_assets.platforms import platform as platform_of

GROUP = "scenes"


@dg.asset(
    group_name=GROUP,
    partitions_def=platforms,
    deps=["mgrs_sample"],  # of all samples; a platform loads its own, so it runs where no other was made
    kinds={"python", "geoparquet"},
    tags={"stage": "3"},
    code_version="1",
    io_manager_key="geo_tables",
    description=described_by("clay_assets.platforms.quarters"),
)
def scene_requests(context: dg.AssetExecutionContext, clay: ClayResource) -> dg.MaterializeResult[Requests]:
    from clay_assets.orchestration.pictures import requests_by_period
    from clay_assets.scenes.requests import make_requests

    platform = platform_of(context.partition_key)
    requests = make_requests(platform, clay.table(platform.sample), clay.recipe())
    title = f"{platform.title}: {len(requests):,} requests"
    return dg.MaterializeResult(
        value=requests,
        metadata={
            "locations": requests["location"].nunique(),
            "years": ", ".join(map(str, sorted(requests["year"].unique()))) or "none",
            "picture": picture(requests_by_period(requests, title)),
        },
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=cells,
    kinds={"python", "stac", "geoparquet"},
    tags={"stage": "3"},
    code_version="1",
    io_manager_key="stac_items",
    check_specs=[none_failed_spec("scene_picks", "requests")],
    description=described_by("clay_assets.scenes.picks"),
)
def scene_picks(context: dg.AssetExecutionContext, clay: ClayResource, scene_requests: Requests):  # type: ignore[no-untyped-def]  # see orchestration.checks
    from clay_assets.orchestration.pictures import picks_by_period, rejections
    from clay_assets.scenes.picks import FAILED, pick_scenes
    from clay_assets.scenes.requests import requests_of
    from clay_assets.storage import layout

    key, year = cell_of(context)
    platform, recipe = platform_of(key), clay.recipe()
    requests = requests_of(scene_requests, year)
    with Progress(context, "requests") as progress:
        picks = pick_scenes(platform, year, requests, clay.catalogue(platform), recipe.options(key), progress)
    ledger = picks.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["request_id", "reason"]]
    tolerance = recipe.tolerance.failed_requests
    tolerate("requests", failures, len(requests), tolerance, f"scene_picks {key}|{year}")
    clay.write_table(layout.request_ledger(key, year), ledger)
    outcomes = ledger["outcome"].value_counts().to_dict()
    return dg.MaterializeResult(
        value=picks.items,
        metadata={
            "requests": len(requests),
            "outcomes": outcomes,
            "scenes": len(picks.items),
            "nothing_to_do": not requests,
            "ledger": dg.MetadataValue.path(clay.store().uri(layout.request_ledger(key, year))),
            "reasons": table(rejections(ledger)),
            "picture": picture(picks_by_period(ledger, f"{platform.title} {year}: {len(picks.items):,} scenes")),
        },
        check_results=[none_failed("scene_picks", "requests", failures, len(requests), tolerance)],
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=cells,
    kinds={"python", "stac", "geoparquet"},
    tags={"stage": "3"},
    code_version="1",
    io_manager_key="stac_items",
    check_specs=[none_failed_spec("scene_imagery", "copies")],
    description=described_by("clay_assets.scenes.imagery"),
)
def scene_imagery(context: dg.AssetExecutionContext, clay: ClayResource, scene_picks: Items):  # type: ignore[no-untyped-def]  # see orchestration.checks
    from clay_assets.orchestration.pictures import scene_map
    from clay_assets.scenes.imagery import FAILED, readable_items
    from clay_assets.storage import layout

    key, year = cell_of(context)
    recipe = clay.recipe()
    options = recipe.options(key)
    with clay.executor() as (executor, in_flight), Progress(context, "scenes") as progress:
        imagery = readable_items(platform_of(key), scene_picks, options, clay.store(), executor, in_flight, progress)
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
            "files_copied_now": imagery.copied_now,
            "bytes_in_our_storage": int(ledger["bytes"].sum()),
            "map": picture(scene_map(imagery.items, f"{key} {year}: {len(imagery.items):,} scenes, {options.imagery}")),
            "ledger": dg.MetadataValue.path(clay.store().uri(layout.imagery_ledger(key, year))),
        },
        check_results=[none_failed("scene_imagery", "copies", failures, len(ledger), tolerance)],
    )
