"""Stage 2 in Dagster: `mgrs_sample`, `naip_sample`, `linz_sample` and `modis_sample`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.orchestration.checks import agreement, agreement_spec, none_failed, none_failed_spec
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.orchestration.metadata import picture, table
from clay_assets.orchestration.stage import LINZ_CATALOG, STAC_API, stage_asset
from clay_assets.platforms import platform_of
from clay_assets.progress import ProgressReporter
from clay_assets.sampling import checks
from clay_assets.sampling.columns import MGRS_SAMPLE, MODIS_SAMPLE, NAIP_SAMPLE
from clay_assets.storage.columns import ITEMS

if TYPE_CHECKING:
    import geopandas as gpd

    from clay_assets.orchestration.resources import ClayResource
    from clay_assets.stac import Item

asset = partial(stage_asset, group="sampling", number=2)


@asset(
    version="1",
    # Loaded in the body: a published sample needs the grid only, not the land cover.
    deps=["mgrs_grid", "worldcover_stats"],
    columns=MGRS_SAMPLE,
    io_manager_key="geo_tables",
    metadata={"flatgeobuf": True},
)
def mgrs_sample(clay: ClayResource) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """The sampled MGRS tiles: one row per tile, with the rules that chose it.

    Each rule of the recipe draws tiles at random from those with the highest share of a land-cover class; the sample
    is the union of the draws, without duplicates. Sentinel-1, Sentinel-2 and Landsat are sampled at these tiles.
    GeoParquet in `sampling/mgrs_sample.parquet`, with a FlatGeobuf copy. Set `CLAY_MGRS_SAMPLE` to use a published
    sample instead.
    """
    from clay_assets.sampling.pictures import composition_bars, sample_map
    from clay_assets.sampling.tiles import sample_tiles, take_sample
    from clay_assets.sources.downloads import local_copy

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
            # Class and pool of a rule are in the recipe, and the UI's table is narrow.
            "rules": table([{k: v for k, v in rule.items() if k not in ("class", "from_highest")} for rule in rules]),
            "rules_short": ", ".join(short) or "none",
        },
    )


@asset(version="1", columns=NAIP_SAMPLE, io_manager_key="geo_tables")
def naip_sample(clay: ClayResource) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """The locations at which NAIP is sampled: one point per row, inside the contiguous United States.

    The populated places, airports, ports and parks of Natural Earth, a random point along each of its rivers and in
    each of its lakes, and random points. `layer` gives the kind of location. GeoParquet in
    `sampling/naip_sample.parquet`.
    """
    from clay_assets.sampling.natural_earth import sample_locations
    from clay_assets.sampling.pictures import places_map

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
    version="1",
    kinds={"stac"},
    columns=ITEMS,
    pool=LINZ_CATALOG,
    io_manager_key="stac_items",
    check_specs=[
        none_failed_spec("linz_sample", "sheets"),
        agreement_spec("linz_sample", "surveys_found", "The catalogue has every survey of the recipe."),
    ],
)
def linz_sample(context: dg.AssetExecutionContext, clay: ClayResource) -> dg.MaterializeResult[list[Item]]:
    """The sampled sheets of New Zealand's aerial surveys: one STAC item per sheet.

    A random half of the sheets of every RGB survey in the recipe (by default at least 10 and at most 2,000 per
    survey). STAC-GeoParquet in `sampling/linz_sample.parquet`; the scenes of `linz` are picked from it.
    """
    import pandas as pd

    from clay_assets.pictures.maps import scene_map
    from clay_assets.sampling.linz import draw_sheets

    recipe, settings = clay.recipe(), clay.settings
    with ProgressReporter(context.log, "sheets") as progress:
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
    stop_if_too_many_failed("sheets", failures, drawn.sheets, tolerance, "linz_sample")
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
    version="1",
    kinds={"stac"},
    columns=MODIS_SAMPLE,
    pool=STAC_API,
    io_manager_key="geo_tables",
    check_specs=[
        none_failed_spec("modis_sample", "tiles"),
        agreement_spec("modis_sample", "published_tiles", "The sampled tiles match the published set."),
    ],
)
def modis_sample(context: dg.AssetExecutionContext, clay: ClayResource) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """The sampled tiles of the MODIS sinusoidal grid: one row per tile without nodata.

    Every tile of the grid that lies on the Earth is tested on one band of one composite; tiles with any nodata pixel
    are dropped. GeoParquet in `sampling/modis_sample.parquet`.
    """
    from clay_assets.sampling.modis_grid import differences, sample_of, tile_states
    from clay_assets.sampling.pictures import places_map

    platform, recipe = platform_of("modis"), clay.recipe()
    options = recipe.options("modis")
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "tiles") as progress:
        tiles = tile_states(platform, lambda: clay.catalogue(platform), options, executor, in_flight, progress)
    failures = tiles.loc[tiles["error"].notna(), ["name", "error"]]
    tolerance = recipe.tolerance.failed_requests
    stop_if_too_many_failed("tiles", failures, len(tiles), tolerance, "modis_sample")
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


ASSETS = [mgrs_sample, naip_sample, linz_sample, modis_sample]
CHECKS = checks.CHECKS
RESOURCES: dict[str, object] = {}
