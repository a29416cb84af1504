"""Stage 1 in Dagster: `mgrs_grid` and `worldcover_stats`."""

import dagster as dg

from clay_assets.orchestration.checks.gates import demand
from clay_assets.orchestration.metadata import picture
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.stage import WORLDCOVER, stage
from clay_assets.orchestration.values import Tiles

asset = stage(1, "landcover")


@asset("clay_assets.landcover.grid", io_manager_key="geo_tables")
def mgrs_grid(clay: ClayResource) -> dg.MaterializeResult[Tiles]:
    from clay_assets.landcover.grid import read_grid
    from clay_assets.orchestration.pictures.maps import tile_map
    from clay_assets.storage.downloads import local_copy

    source = clay.settings.mgrs_grid
    with local_copy(source, keep_in=clay.store(), folder="landcover/source") as path:
        grid = read_grid(path)
    return dg.MaterializeResult(
        value=grid, metadata={"source": source, "map": picture(tile_map(grid, f"{len(grid):,} MGRS tiles"))}
    )


@asset(
    "clay_assets.landcover.worldcover",
    kinds={"gdal"},
    pool=WORLDCOVER,
    io_manager_key="geo_tables",
    metadata={"flatgeobuf": True},
)
def worldcover_stats(
    context: dg.AssetExecutionContext, clay: ClayResource, mgrs_grid: Tiles
) -> dg.MaterializeResult[Tiles]:
    from clay_assets.landcover.validity import shares_sum_to_one
    from clay_assets.landcover.worldcover import class_shares
    from clay_assets.orchestration.pictures.maps import land_cover_map

    source = clay.settings.worldcover
    with clay.executor() as (executor, in_flight), Progress(context.log, "WorldCover files") as progress:
        stats = class_shares(mgrs_grid, source, executor=executor, in_flight=in_flight, progress=progress)
    demand("worldcover_stats", shares_sum_to_one(stats))
    return dg.MaterializeResult(
        value=stats, metadata={"source": source, **stats.attrs, "map": picture(land_cover_map(stats))}
    )
