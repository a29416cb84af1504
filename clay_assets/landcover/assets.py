"""Stage 1 in Dagster: `mgrs_grid` and `worldcover_stats`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.landcover import checks
from clay_assets.landcover.columns import MGRS_GRID, WORLDCOVER_STATS
from clay_assets.orchestration.gates import stop_if_broken
from clay_assets.orchestration.metadata import picture
from clay_assets.orchestration.stage import WORLDCOVER, stage_asset
from clay_assets.progress import ProgressReporter

if TYPE_CHECKING:
    import geopandas as gpd

    from clay_assets.orchestration.resources import ClayResource

asset = partial(stage_asset, group="landcover", number=1)


@asset(version="1", columns=MGRS_GRID, io_manager_key="geo_tables")
def mgrs_grid(clay: ClayResource) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """The Sentinel-2 tiling grid: one row per MGRS tile.

    `name` and the tile's polygon in EPSG:4326, cut at the antimeridian where the tile crosses it, as GeoParquet in
    `landcover/mgrs_grid.parquet`. Read from ESA's KML, or from the vector file set with `CLAY_MGRS_GRID`.
    """
    from clay_assets.landcover.grid import read_grid
    from clay_assets.pictures.maps import tile_map
    from clay_assets.sources.downloads import local_copy

    source = clay.settings.mgrs_grid
    with local_copy(source, keep_in=clay.store(), folder="landcover/source") as path:
        grid = read_grid(path)
    return dg.MaterializeResult(
        value=grid, metadata={"source": source, "map": picture(tile_map(grid, f"{len(grid):,} MGRS tiles"))}
    )


@asset(
    version="1",
    kinds={"gdal"},
    columns=WORLDCOVER_STATS,
    pool=WORLDCOVER,
    io_manager_key="geo_tables",
    metadata={"flatgeobuf": True},
)
def worldcover_stats(
    context: dg.AssetExecutionContext, clay: ClayResource, mgrs_grid: gpd.GeoDataFrame
) -> dg.MaterializeResult[gpd.GeoDataFrame]:
    """Land cover of every MGRS tile: one row per tile with the share of each ESA WorldCover class.

    Shares (0 to 1) are of the tile's valid area, measured on the 80 m overview and weighted by true area; `count` is
    the number of classes present, `valid_share` the part of the tile that WorldCover covers, `diversity` the Shannon
    diversity of the shares. Tiles without valid pixels and tiles with water only have no row. GeoParquet in
    `landcover/worldcover_stats.parquet`, with a FlatGeobuf copy.
    """
    from clay_assets.landcover.pictures import land_cover_map
    from clay_assets.landcover.rules import shares_sum_to_one
    from clay_assets.landcover.worldcover import class_shares

    source = clay.settings.worldcover
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "WorldCover files") as progress:
        stats = class_shares(mgrs_grid, source, executor=executor, in_flight=in_flight, progress=progress)
    stop_if_broken("worldcover_stats", shares_sum_to_one(stats))
    return dg.MaterializeResult(
        value=stats, metadata={"source": source, **stats.attrs, "map": picture(land_cover_map(stats))}
    )


ASSETS = [mgrs_grid, worldcover_stats]
CHECKS = checks.CHECKS
RESOURCES: dict[str, object] = {}
