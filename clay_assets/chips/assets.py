"""Stage 4 in Dagster: `chip_index` and `merged_index`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.chips import checks
from clay_assets.chips.columns import CHIP_INDEX, CHIP_LEDGER, MERGED_INDEX
from clay_assets.chips.io_manager import ChipCellsIOManager
from clay_assets.chips.versions import INDEX_VERSION, MERGE_VERSION
from clay_assets.orchestration.checks import none_failed, none_failed_spec
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.orchestration.metadata import picture, table, table_metadata
from clay_assets.orchestration.partitions import cell_of, cells
from clay_assets.orchestration.stage import IMAGERY, stage_asset
from clay_assets.platforms import platform_of
from clay_assets.progress import ProgressReporter

if TYPE_CHECKING:
    from clay_assets.chips.cells import ChipCell
    from clay_assets.orchestration.resources import ClayResource
    from clay_assets.stac import Item

asset = partial(stage_asset, group="chips", number=4)
A_MONTH_OR_SO = timedelta(days=35)  # missing cells are requested once a month

# `eager()` would never fire: most cells of the grid of platforms and years are never requested, so always missing.
_chips_changed = dg.AutomationCondition.any_deps_updated()
_never_merged = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(
    ~dg.AutomationCondition.missing()
)
merge_when_chips_change = (
    (_chips_changed | _never_merged.newly_true()).since(
        dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    )
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("chip indexes changed, and nothing is in progress")


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

    A row has the chip's id, place in the scene's grid, polygon, true pixel size, and the shares (0 to 1) of cloud and
    nodata among its pixels. Chips with more nodata than the recipe allows are left out and counted. Scenes that were
    indexed before are kept. Files in `chips/chip_index/{platform}/{year}/{item_id}.parquet`, the ledger (one row per
    scene) in `chips/ledger/{platform}/{year}.parquet`.
    """
    from clay_assets.chips.cells import FAILED
    from clay_assets.chips.contact_sheet import contact_sheet
    from clay_assets.chips.indexing import index_scenes
    from clay_assets.chips.pictures import cell_map

    key, year = cell_of(context)
    recipe = clay.recipe()
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "scenes") as progress:
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
            "outcomes": table(outcomes(ledger)),
            "map": picture(cell_map(cell, f"{name}: {chips:,} chips of {len(cell.scenes):,} scenes")),
            "contact_sheet": picture(sheet),
        },
        check_results=[none_failed("chip_index", "scenes", failures, len(ledger), tolerance)],
    )


@asset(
    version=MERGE_VERSION,
    job="merge",
    kinds={"duckdb"},
    columns=MERGED_INDEX,
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=A_MONTH_OR_SO),
    ins={"chip_index": dg.AssetIn(key="chip_index", input_manager_key="chip_cells")},
    automation_condition=merge_when_chips_change,
)
def merged_index(
    context: dg.AssetExecutionContext, clay: ClayResource, chip_index: list[ChipCell]
) -> dg.MaterializeResult[None]:
    """All chips of all platforms and years: one row per chip, in spatial order.

    One GeoParquet file per platform and year below `chips/merged_index/`, sorted along a Hilbert curve so that a query
    by bounding box reads little, and a manifest of the parts. Only parts whose chip index changed are rewritten.
    """
    from clay_assets.chips.index import MERGED_SCHEMA
    from clay_assets.chips.merge import merge
    from clay_assets.chips.pictures import index_map, scene_places
    from clay_assets.storage import layout

    store, recipe = clay.store(), clay.recipe()
    with clay.executor() as (executor, in_flight), ProgressReporter(context.log, "partitions") as progress:
        merged = merge(chip_index, store, recipe, executor, in_flight, progress)
    parts = [asdict(part) for part in merged.parts]
    uri = store.uri(layout.MERGED)
    return dg.MaterializeResult(
        metadata={
            "map": picture(index_map(scene_places(chip_index), parts, f"{merged.rows:,} chips")),
            **table_metadata(MERGED_SCHEMA, merged.rows, uri, recipe, MERGED_INDEX.meanings),
            "partitions": len(parts),
            "partitions_written_now": merged.written,
            "of_another_recipe": ", ".join(
                f"{cell.platform}|{cell.year}" for cell in chip_index if cell.recipe_hash != recipe.hash
            )
            or "none",
            "manifest": dg.MetadataValue.path(store.uri(layout.MANIFEST)),
            "parts": table([{k: part[k] for k in ("platform", "year", "rows", "scenes", "bytes")} for part in parts]),
        }
    )


ASSETS = [chip_index, merged_index]
CHECKS = checks.CHECKS
RESOURCES = {"chip_cells": ChipCellsIOManager}
