"""Stage 2 in Dagster: `mgrs_sample`, `naip_sample`, `linz_sample` and `modis_sample`."""

import dagster as dg

from clay_assets.orchestration.checks.gates import agreement, agreement_spec, none_failed, none_failed_spec, tolerate
from clay_assets.orchestration.metadata import picture, table
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.stage import LINZ_CATALOG, STAC_API, stage
from clay_assets.orchestration.values import Tiles
from clay_assets.platforms import platform as platform_of

asset = stage(2, "sampling")


@asset(
    "clay_assets.sampling.tiles",
    # Loaded in the body: a published sample needs the grid alone, and no land cover at all.
    deps=["mgrs_grid", "worldcover_stats"],
    io_manager_key="geo_tables",
    metadata={"flatgeobuf": True},
)
def mgrs_sample(clay: ClayResource) -> dg.MaterializeResult[Tiles]:
    from clay_assets.orchestration.pictures.bars import composition_bars
    from clay_assets.orchestration.pictures.maps import sample_map
    from clay_assets.sampling.tiles import sample_tiles, take_sample
    from clay_assets.storage.downloads import local_copy

    published = clay.settings.mgrs_sample
    stats = None if published else clay.table("worldcover_stats")
    if published:
        with local_copy(published, keep_in=clay.store(), folder="sampling/source") as path:
            sample = take_sample(path, clay.table("mgrs_grid"))
    else:
        sample = sample_tiles(stats, clay.recipe())
    rules = sample.attrs["rules"]
    short = [rule["rule"] for rule in rules if rule["drawn"] < rule["tiles"]]
    return dg.MaterializeResult(
        value=sample,
        metadata={
            "taken_from": published or "drawn by the recipe",
            "map": picture(sample_map(sample)),
            "land_cover": picture(composition_bars(sample, stats)),
            # A rule's class and pool are in the recipe; the column of values is narrow.
            "rules": table([{k: v for k, v in rule.items() if k not in ("class", "from_highest")} for rule in rules]),
            "rules_short": ", ".join(short) or "none",
        },
    )


@asset("clay_assets.sampling.natural_earth", io_manager_key="geo_tables")
def naip_sample(clay: ClayResource) -> dg.MaterializeResult[Tiles]:
    from clay_assets.orchestration.pictures.maps import places_map
    from clay_assets.sampling.natural_earth import sample_locations

    recipe = clay.recipe()
    source = clay.settings.natural_earth
    sample = sample_locations(source, recipe.options("naip").random_points, recipe.seed, keep_in=clay.store())
    return dg.MaterializeResult(
        value=sample,
        metadata={
            "taken_from": source,
            "layers": table(sample.attrs["layers"]),
            "map": picture(places_map(sample, sample["layer"], f"{len(sample):,} locations")),
        },
    )


@asset(
    "clay_assets.sampling.linz",
    kinds={"stac"},
    pool=LINZ_CATALOG,
    io_manager_key="stac_items",
    check_specs=[
        none_failed_spec("linz_sample", "sheets"),
        agreement_spec("linz_sample", "surveys_found", "The catalogue has every survey of the recipe."),
    ],
)
def linz_sample(context: dg.AssetExecutionContext, clay: ClayResource):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    import pandas as pd

    from clay_assets.orchestration.pictures.maps import scene_map
    from clay_assets.sampling.linz import draw_sheets

    recipe, settings = clay.recipe(), clay.settings
    with Progress(context.log, "sheets") as progress:
        drawn = draw_sheets(
            platform_of("linz"),
            settings.linz_catalog,
            recipe.options("linz"),
            recipe.seed,
            settings.requests_in_flight,
            progress,
        )
    failures = pd.DataFrame(drawn.failures, columns=["name", "error"])
    tolerance = recipe.tolerance.failed_requests
    tolerate("sheets", failures, drawn.sheets, tolerance, "linz_sample")
    return dg.MaterializeResult(
        value=drawn.items,
        metadata={
            "taken_from": settings.linz_catalog,
            "sheets": len(drawn.items),
            "surveys": table(drawn.collections),
            "surveys_absent": ", ".join(drawn.absent) or "none",
            "map": picture(scene_map(drawn.items, f"{len(drawn.items):,} sheets of {len(drawn.collections)} surveys")),
        },
        check_results=[
            none_failed("linz_sample", "sheets", failures, drawn.sheets, tolerance),
            agreement("linz_sample", "surveys_found", {"surveys_absent": drawn.absent}),
        ],
    )


@asset(
    "clay_assets.sampling.modis_grid",
    kinds={"stac"},
    pool=STAC_API,
    io_manager_key="geo_tables",
    check_specs=[
        none_failed_spec("modis_sample", "tiles"),
        agreement_spec("modis_sample", "published_tiles", "The sampled tiles are those of the published set."),
    ],
)
def modis_sample(context: dg.AssetExecutionContext, clay: ClayResource):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    from clay_assets.orchestration.pictures.maps import places_map
    from clay_assets.sampling.modis_grid import differences, sample_of, tile_states

    platform, recipe = platform_of("modis"), clay.recipe()
    options = recipe.options("modis")
    with clay.executor() as (executor, in_flight), Progress(context.log, "tiles") as progress:
        tiles = tile_states(platform, lambda: clay.catalogue(platform), options, executor, in_flight, progress)
    failures = tiles.loc[tiles["error"].notna(), ["name", "error"]]
    tolerance = recipe.tolerance.failed_requests
    tolerate("tiles", failures, len(tiles), tolerance, "modis_sample")
    sample = sample_of(tiles)
    added, lacking = differences(sample, options)
    return dg.MaterializeResult(
        value=sample,
        metadata={
            "tiles_from": options.tiles,
            "reference": f"{options.reference_band} of {options.reference_date}",
            "tiles_on_the_earth": len(tiles),
            "outcomes": tiles["outcome"].value_counts().to_dict(),
            "map": picture(places_map(tiles, tiles["outcome"], f"{len(sample):,} tiles of the sinusoidal grid")),
        },
        check_results=[
            none_failed("modis_sample", "tiles", failures, len(tiles), tolerance),
            agreement(
                "modis_sample", "published_tiles", {"sampled_not_published": added, "published_not_sampled": lacking}
            ),
        ],
    )
