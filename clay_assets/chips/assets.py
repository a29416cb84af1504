"""Stage 4 in Dagster: `chip_index` and `merged_index`."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import dagster as dg

from clay_assets.orchestration.automation import merge_when_chips_change
from clay_assets.orchestration.checks.gates import none_failed, none_failed_spec, tolerate
from clay_assets.orchestration.failures import outcomes
from clay_assets.orchestration.metadata import picture, table, table_metadata
from clay_assets.orchestration.partitions import cell_of, cells
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.stage import IMAGERY, stage
from clay_assets.orchestration.values import Chips, Items
from clay_assets.platforms import platform as platform_of

asset = stage(4, "chips")
A_MONTH_OR_SO = timedelta(days=35)  # missing cells are asked for once a month


@asset(
    "clay_assets.chips.index",
    kinds={"gdal"},
    partitions_def=cells,
    pool=IMAGERY,
    io_manager_key="chip_cells",
    check_specs=[none_failed_spec("chip_index", "scenes")],
)
def chip_index(context: dg.AssetExecutionContext, clay: ClayResource, scene_imagery: Items):  # type: ignore[no-untyped-def]  # see orchestration.checks.gates
    from clay_assets.chips.scenes import FAILED, index_scenes
    from clay_assets.orchestration.pictures.chips import cell_map
    from clay_assets.orchestration.pictures.contact_sheet import contact_sheet

    key, year = cell_of(context)
    recipe = clay.recipe()
    with clay.executor() as (executor, in_flight), Progress(context.log, "scenes") as progress:
        cell = index_scenes(key, year, scene_imagery, clay.store(), recipe, executor, in_flight, progress)
    ledger = cell.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    tolerate("scenes", failures, len(ledger), tolerance, f"chip_index {key}|{year}")
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
    "clay_assets.chips.merge",
    kinds={"duckdb"},
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=A_MONTH_OR_SO),
    ins={"chip_index": dg.AssetIn(key="chip_index", input_manager_key="chip_cells")},
    automation_condition=merge_when_chips_change,
)
def merged_index(
    context: dg.AssetExecutionContext, clay: ClayResource, chip_index: list[Chips]
) -> dg.MaterializeResult[Any]:
    from clay_assets.chips.index import CHIP_SCHEMA
    from clay_assets.chips.merge import merge
    from clay_assets.orchestration.pictures.chips import index_map, scene_places
    from clay_assets.storage import layout

    store, recipe = clay.store(), clay.recipe()
    with clay.executor() as (executor, in_flight), Progress(context.log, "partitions") as progress:
        merged = merge(chip_index, store, recipe, executor, in_flight, progress)
    parts = [asdict(part) for part in merged.parts]
    uri = store.uri(layout.MERGED)
    return dg.MaterializeResult(
        metadata={
            "map": picture(index_map(scene_places(chip_index), parts, f"{merged.rows:,} chips")),
            **table_metadata(CHIP_SCHEMA, merged.rows, uri, recipe),
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
