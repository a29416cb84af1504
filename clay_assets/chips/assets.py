"""Stage 4 in Dagster: `chip_index` and `merged_index`."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from clay_assets.orchestration.checks import none_failed, none_failed_spec, tolerate
from clay_assets.orchestration.metadata import described_by, picture, table, table_metadata
from clay_assets.orchestration.partitions import cell_of, cells
from clay_assets.orchestration.progress import Progress
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.values import Chips, Items

GROUP = "chips"


@dg.asset(
    group_name=GROUP,
    partitions_def=cells,
    kinds={"python", "gdal", "geoparquet"},
    tags={"stage": "4"},
    code_version="1",
    io_manager_key="chip_cells",
    check_specs=[none_failed_spec("chip_index", "scenes")],
    description=described_by("clay_assets.chips.index"),
)
def chip_index(context: dg.AssetExecutionContext, clay: ClayResource, scene_imagery: Items):  # type: ignore[no-untyped-def]  # see orchestration.checks
    from clay_assets.chips.scenes import FAILED, index_scenes
    from clay_assets.orchestration.pictures import cell_map

    key, year = cell_of(context)
    recipe = clay.recipe()
    with clay.executor() as (executor, in_flight), Progress(context, "scenes") as progress:
        cell = index_scenes(key, year, scene_imagery, clay.store(), recipe, executor, in_flight, progress)
    ledger = cell.ledger
    failures = ledger.loc[ledger["outcome"] == FAILED, ["item_id", "error"]]
    tolerance = recipe.tolerance.failed_scenes
    tolerate("scenes", failures, len(ledger), tolerance, f"chip_index {key}|{year}")
    chips = int(ledger["chips"].sum())
    return dg.MaterializeResult(
        value=cell,
        metadata={
            "scenes": len(cell.scenes),
            "scenes_indexed_before": cell.kept,
            "chips": chips,
            "chips_in_grid": int(ledger["chips_in_grid"].sum()),
            "chips_above_nodata_limit": int(ledger["chips_above_nodata_limit"].sum()),
            "map": picture(cell_map(cell, f"{key} {year}: {chips:,} chips of {len(cell.scenes):,} scenes")),
        },
        check_results=[none_failed("chip_index", "scenes", failures, len(ledger), tolerance)],
    )


@dg.asset(
    group_name=GROUP,
    kinds={"python", "duckdb", "geoparquet"},
    tags={"stage": "4"},
    code_version="1",
    ins={"chip_index": dg.AssetIn(key="chip_index", input_manager_key="chip_cells")},
    description=described_by("clay_assets.chips.merge"),
)
def merged_index(
    context: dg.AssetExecutionContext, clay: ClayResource, chip_index: list[Chips]
) -> dg.MaterializeResult[Any]:
    from clay_assets.chips.index import CHIP_SCHEMA
    from clay_assets.chips.merge import merge
    from clay_assets.orchestration.pictures import rows_by_platform
    from clay_assets.storage import layout

    store, recipe = clay.store(), clay.recipe()
    with clay.executor() as (executor, in_flight), Progress(context, "partitions") as progress:
        merged = merge(chip_index, store, recipe, executor, in_flight, progress)
    parts = [asdict(part) for part in merged.parts]
    uri = store.uri(layout.MERGED)
    return dg.MaterializeResult(
        metadata={
            **table_metadata(CHIP_SCHEMA, merged.rows, uri, recipe),
            "partitions": len(parts),
            "partitions_written_now": merged.written,
            "partitions_of_another_recipe": ", ".join(
                f"{cell.platform}|{cell.year}" for cell in chip_index if cell.recipe_hash != recipe.hash
            )
            or "none",
            "manifest": dg.MetadataValue.path(store.uri(layout.MANIFEST)),
            "parts": table([{k: part[k] for k in ("platform", "year", "rows", "scenes", "bytes")} for part in parts]),
            "picture": picture(rows_by_platform(parts, f"{merged.rows:,} chips")),
        }
    )


@dg.asset_check(asset="merged_index", description=described_by("clay_assets.reconciliation"))
def reconciled(clay: ClayResource) -> dg.AssetCheckResult:
    from clay_assets.reconciliation import disagreements, reconcile, records

    recipe = clay.recipe()
    accounts = reconcile(clay.store(), recipe)
    differing = disagreements(accounts, recipe.tolerance.published)
    return dg.AssetCheckResult(
        passed=not differing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "accounts": table(records(accounts)),
            "differing": table([{"what": what} for what in differing]),
            "planned": "scenes, chips and bytes at most: a scene of usual size per request, nothing compressed",
        },
    )
