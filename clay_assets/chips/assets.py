"""Stage 4 in Dagster: `chip_index`, `chip_landcover` and `merged_index`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.chips import checks
from clay_assets.chips.columns import CHIP_INDEX, CHIP_LANDCOVER, CHIP_LEDGER, LANDCOVER_LEDGER, MERGED_INDEX
from clay_assets.chips.versions import INDEX_VERSION, LANDCOVER_VERSION, MERGE_VERSION
from clay_assets.errors import InputError
from clay_assets.orchestration.checks import none_failed, none_failed_spec
from clay_assets.orchestration.factories import StoreIOManagerFactory
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.orchestration.metadata import picture, table, table_metadata
from clay_assets.orchestration.partitions import cell_of, cells
from clay_assets.orchestration.stage import IMAGERY, WORLDCOVER, stage_asset
from clay_assets.platforms import platform_of
from clay_assets.progress import ProgressReporter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clay_assets.chips.cells import ChipCell, LandCoverCell
    from clay_assets.chips.io_manager import ChipCells, LandCoverCells
    from clay_assets.orchestration.resources import ClayResource
    from clay_assets.stac import Item

asset = partial(stage_asset, group="chips", number=4)
A_MONTH_OR_SO = timedelta(days=35)  # missing cells are requested once a month

# `eager()` would never fire: most cells of the platform × year grid are never requested, so always missing.
# Land cover is made last, from the existing chips; a cell with new chips but old land cover cannot be merged yet.
_LAND_COVER = dg.AssetSelection.assets("chip_landcover")
_INPUTS = _LAND_COVER | dg.AssetSelection.assets("worldcover_stats")  # splits are drawn from `worldcover_stats`
_chips_changed = dg.AutomationCondition.any_deps_updated().allow(_INPUTS)
_never_merged = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(
    ~dg.AutomationCondition.missing()
).allow(_LAND_COVER)
merge_when_chips_change = (
    (_chips_changed | _never_merged.newly_true()).since(
        dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    )
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("chips and their land cover changed, and nothing is in progress")


@asset(
    version=INDEX_VERSION,
    kinds={"gdal"},
    columns=CHIP_INDEX,
    ledger=CHIP_LEDGER,
    partitions_def=cells,
    pool=IMAGERY,
    io_manager_key="chip_cells",
    check_specs=[none_failed_spec("chip_index", "scenes", cells)],
)
def chip_index(
    context: dg.AssetExecutionContext, clay: ClayResource, scene_imagery: list[Item]
) -> dg.MaterializeResult[ChipCell]:
    """The chips of one platform and year: one row per whole 256 × 256 chip, one GeoParquet file per scene.

    A row has the chip's id, position in the scene's grid, polygon, true pixel size, and the shares (0 to 1) of cloud
    and nodata among its pixels. Chips with more nodata than the recipe allows are skipped and counted, as are scenes
    and chips that the recipe excludes. Scenes that are already indexed are kept. Files in
    `chips/chip_index/{platform}/{year}/{item_id}.parquet`, the ledger (one row per scene) in
    `chips/ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.chips.cells import EXCLUDED, FAILED
    from clay_assets.chips.contact_sheet import contact_sheet
    from clay_assets.chips.indexing import exclusions_in, index_scenes
    from clay_assets.chips.pictures import cell_map

    key, year = cell_of(context)
    recipe, pool = clay.recipe(), clay.executor(short_jobs=len(scene_imagery))
    with pool as (executor, in_flight), ProgressReporter(context.log, "scenes") as progress:
        cell = index_scenes(key, year, scene_imagery, clay.store(), recipe, executor, in_flight, progress)
    ledger = cell.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    stop_if_too_many_failed("scenes", failures, len(ledger), tolerance, f"chip_index {key}|{year}")
    chips = int(ledger["chips"].sum())
    name = f"{platform_of(key).title} {year}"
    sheet = contact_sheet(cell, scene_imagery, recipe.seed, recipe.chip_size, f"{name}: some of its chips")
    return dg.MaterializeResult(
        value=cell,
        metadata={
            "scenes": len(cell.scenes),
            "scenes_indexed_before": cell.kept,
            "chips": chips,
            "chips_in_grid": int(ledger["chips_in_grid"].sum()),
            "above_nodata_limit": int(ledger["chips_above_nodata_limit"].sum()),
            "scenes_excluded": int((ledger["outcome"] == EXCLUDED).sum()),
            "chips_excluded": int(ledger["chips_excluded"].sum()),
            **({"exclusions": table(left_out)} if (left_out := exclusions_in(ledger)) else {}),
            "outcomes": table(outcomes(ledger)),
            "map": picture(cell_map(cell, f"{name}: {chips:,} chips of {len(cell.scenes):,} scenes")),
            "contact_sheet": picture(sheet),
        },
        check_results=[none_failed("chip_index", "scenes", failures, len(ledger), tolerance)],
    )


@asset(
    version=LANDCOVER_VERSION,
    kinds={"gdal"},
    columns=CHIP_LANDCOVER,
    ledger=LANDCOVER_LEDGER,
    partitions_def=cells,
    pool=WORLDCOVER,
    io_manager_key="land_cover_cells",
    ins={"chip_index": dg.AssetIn(key="chip_index", input_manager_key="chip_cells")},
    check_specs=[none_failed_spec("chip_landcover", "scenes", cells)],
)
def chip_landcover(
    context: dg.AssetExecutionContext, clay: ClayResource, chip_index: list[ChipCell], scene_imagery: list[Item]
) -> dg.MaterializeResult[LandCoverCell]:
    """The land cover of the chips of one platform and year: the share of each ESA WorldCover class in every chip.

    Shares (0 to 1) refer to the chip's valid land-cover area, measured within the chip's footprint and weighted by true
    area, on the coarsest overview with at least 16 × 16 pixels per chip (10 m for NAIP and LINZ). `valid_share` is the
    part of the chip that WorldCover covers; without coverage, the shares are null. Scenes that are already measured are
    kept. Files in `chips/chip_landcover/{platform}/{year}/{item_id}.parquet`, with one row per row of the chip index,
    the ledger (one row per scene) in `chips/landcover_ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.chips.cells import FAILED
    from clay_assets.chips.landcover import open_worldcover
    from clay_assets.chips.measuring import composition, measure_land_cover
    from clay_assets.chips.pictures import composition_picture
    from clay_assets.storage import layout

    key, year = cell_of(context)
    recipe, source, store = clay.recipe(), clay.settings.worldcover, clay.store()
    if not chip_index:
        raise InputError(f"{store.uri(layout.chip_ledger(key, year))}: file not found. Materialise chip_index first.")
    (cell,) = chip_index
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "scenes") as progress:
        worldcover = open_worldcover(source, needed=not cell.scenes.empty)
        found = measure_land_cover(cell, scene_imagery, worldcover, store, recipe, executor, in_flight, progress)
    ledger = found.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    stop_if_too_many_failed("scenes", failures, len(ledger), tolerance, f"chip_landcover {key}|{year}")
    name = f"{platform_of(key).title} {year}"
    return dg.MaterializeResult(
        value=found,
        metadata={
            "source": source,
            "scenes": len(found.scenes),
            "scenes_measured_before": found.kept,
            "chips": int(ledger["chips"].sum()),
            "chips_without_land_cover": int(ledger["chips_without_land_cover"].sum()),
            "outcomes": table(outcomes(ledger)),
            "composition": picture(
                composition_picture({"all chips": composition([found])}, f"{name}: land cover of its chips")
            ),
        },
        check_results=[none_failed("chip_landcover", "scenes", failures, len(ledger), tolerance)],
    )


@asset(
    version=MERGE_VERSION,
    job="merge",
    kinds={"parquet"},
    columns=MERGED_INDEX,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=A_MONTH_OR_SO),
    deps=["worldcover_stats"],
    ins={
        "chip_index": dg.AssetIn(key="chip_index", input_manager_key="chip_cells"),
        "chip_landcover": dg.AssetIn(key="chip_landcover", input_manager_key="land_cover_cells"),
    },
    automation_condition=merge_when_chips_change,
)
def merged_index(
    context: dg.AssetExecutionContext,
    clay: ClayResource,
    chip_index: list[ChipCell],
    chip_landcover: list[LandCoverCell],
) -> dg.MaterializeResult[None]:
    """All chips of all platforms and years: one row per chip, with its land cover and split, in spatial order.

    One GeoParquet file per platform and year below `chips/merged_index/`, sorted along a Hilbert curve so that
    bounding-box queries read little, and a manifest of the parts. Only parts whose chip index, land cover or splits
    changed are rewritten. A platform and year without up-to-date land cover keeps its old part. Splits are
    drawn from `worldcover_stats` and the recipe; the run fails if chips of different splits are closer than the recipe
    allows.
    """
    from clay_assets.chips.index import MERGED_SCHEMA
    from clay_assets.chips.merge import merge
    from clay_assets.chips.pictures import composition_picture, index_map, scene_places
    from clay_assets.chips.split_map import split_map
    from clay_assets.chips.splits import stored_plan
    from clay_assets.storage import layout

    store, recipe = clay.store(), clay.recipe()
    plan = stored_plan(store, recipe, clay.table("worldcover_stats"))
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "partitions") as progress:
        merged = merge(chip_index, chip_landcover, plan, store, recipe, executor, in_flight, progress)
    parts = [asdict(part) for part in merged.parts]
    uri = store.uri(layout.MERGED)
    return dg.MaterializeResult(
        metadata={
            "map": picture(index_map(scene_places(chip_index), parts, f"{merged.rows:,} chips")),
            "composition": picture(
                composition_picture(
                    _compositions(clay, chip_landcover), "Land cover of the world, the sample and the chips"
                )
            ),
            "splits": picture(split_map(plan, "Splits of the ground")),
            "chips_by_split": table([{"platform": key, **counts} for key, counts in sorted(merged.splits.items())]),
            **table_metadata(MERGED_SCHEMA, merged.rows, uri, recipe, MERGED_INDEX.meanings),
            "partitions": len(parts),
            "partitions_written_now": merged.written,
            "without_land_cover": ", ".join(merged.without_land_cover) or "none",
            "of_another_recipe": ", ".join(
                f"{cell.platform}|{cell.year}" for cell in chip_index if cell.recipe_hash != recipe.hash
            )
            or "none",
            "manifest": dg.MetadataValue.path(store.uri(layout.MANIFEST)),
            "parts": table([{k: part[k] for k in ("platform", "year", "rows", "scenes", "bytes")} for part in parts]),
        }
    )


def _compositions(clay: ClayResource, land_covers: list[LandCoverCell]) -> dict[str, NDArray[np.float64]]:
    """Land cover of the world and the sample, if stored, and of each platform's chips."""
    from clay_assets.chips.measuring import composition, composition_of_tiles

    rows = {}
    for name, asset in (("all MGRS tiles", "worldcover_stats"), ("sampled tiles", "mgrs_sample")):
        with suppress(InputError):  # not stored, such as for a platform with its own sample
            rows[name] = composition_of_tiles(clay.table(asset))
    for key in sorted({cell.platform for cell in land_covers}):
        of_platform = [cell for cell in land_covers if cell.platform == key]
        rows[platform_of(key).title] = composition(of_platform)
    return rows


class ChipCellsIOManager(StoreIOManagerFactory):
    """Creates `ChipCells`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> ChipCells:
        from clay_assets.chips.io_manager import ChipCells

        return ChipCells(self.clay)


class LandCoverCellsIOManager(StoreIOManagerFactory):
    """Creates `LandCoverCells`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> LandCoverCells:
        from clay_assets.chips.io_manager import LandCoverCells

        return LandCoverCells(self.clay)


ASSETS = [chip_index, chip_landcover, merged_index]
CHECKS = checks.CHECKS
RESOURCES = {"chip_cells": ChipCellsIOManager, "land_cover_cells": LandCoverCellsIOManager}
