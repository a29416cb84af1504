"""Stage 5 in Dagster: `cog_headers`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.orchestration.checks import none_failed, none_failed_spec
from clay_assets.orchestration.factories import StoreIOManagerFactory
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.orchestration.metadata import picture, table
from clay_assets.orchestration.partitions import cell_of, cells
from clay_assets.orchestration.stage import IMAGERY, stage_asset
from clay_assets.platforms import platform_of
from clay_assets.progress import ProgressReporter
from clay_assets.training import checks
from clay_assets.training.columns import COG_HEADERS, HEADERS_LEDGER
from clay_assets.training.versions import HEADERS_VERSION

if TYPE_CHECKING:
    from clay_assets.orchestration.resources import ClayResource
    from clay_assets.stac import Item
    from clay_assets.training.cells import HeadersCell
    from clay_assets.training.io_manager import HeadersCells

asset = partial(stage_asset, group="training", number=5)


@asset(
    version=HEADERS_VERSION,
    kinds={"gdal"},
    columns=COG_HEADERS,
    ledger=HEADERS_LEDGER,
    partitions_def=cells,
    pool=IMAGERY,
    io_manager_key="headers_cells",
    check_specs=[none_failed_spec("cog_headers", "scenes", cells)],
)
def cog_headers(
    context: dg.AssetExecutionContext, clay: ClayResource, scene_imagery: list[Item]
) -> dg.MaterializeResult[HeadersCell]:
    """File headers of one platform and year: all that is needed to read pixels without opening the files.

    Each row describes one image of a file: its full-resolution pixels, its mask, or an overview. It gives the position
    of each block, the compression, the georeferencing, and the scale of the numbers; for Sentinel-2 also whether they
    include the offset of 1000, and on what evidence. Headers are kept while the addresses of the files, and the sizes
    and times of local files, stay the same; delete a scene's file to have them read again. Files in
    `training/cog_headers/{platform}/{year}/{item_id}.parquet`, the ledger (one row per scene) in
    `training/headers_ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.training.pictures import sizes_picture
    from clay_assets.training.reading_headers import read_headers

    key, year = cell_of(context)
    recipe = clay.recipe()
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "scenes") as progress:
        cell = read_headers(key, year, scene_imagery, clay.store(), recipe, executor, in_flight, progress)
    ledger, tolerance = cell.ledger, recipe.tolerance.failed_scenes
    stop_if_too_many_failed("scenes", cell.failures, len(ledger), tolerance, f"cog_headers {key}|{year}")
    radiometry = cell.radiometry()
    name = f"{platform_of(key).title} {year}"
    return dg.MaterializeResult(
        value=cell,
        metadata={
            "scenes": len(cell.scenes),
            "scenes_read_before": cell.kept,
            **{number: int(ledger[number].sum()) for number in ("files", "blocks", "bytes", "header_bytes")},
            "outcomes": table(outcomes(ledger)),
            "assets": table(cell.assets.to_dict("records")),
            "fallbacks": table(cell.fallbacks().to_dict("records")),
            **({"radiometry": table(radiometry.to_dict("records"))} if not radiometry.empty else {}),
            "sizes": picture(sizes_picture(cell.assets, f"{name}: size of its files")),
        },
        check_results=[none_failed("cog_headers", "scenes", cell.failures, len(ledger), tolerance)],
    )


class HeadersCellsIOManager(StoreIOManagerFactory):
    """Makes `HeadersCells`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> HeadersCells:
        from clay_assets.training.io_manager import HeadersCells

        return HeadersCells(self.clay)


ASSETS = [cog_headers]
CHECKS = checks.CHECKS
RESOURCES = {"headers_cells": HeadersCellsIOManager}
