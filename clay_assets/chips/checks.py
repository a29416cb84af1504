"""The checks of `chip_index`, `chip_landcover` and `merged_index`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from clay_assets.findings import Finding, make_finding
from clay_assets.orchestration.checks import WARN, Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import platform_of
from clay_assets.storage import layout

if TYPE_CHECKING:
    from clay_assets.chips.merge import MergeCell

SECONDS_PER_HOUR = 3600
MGRS_SAMPLE = "mgrs_sample"  # drawn by land cover
WORLDCOVER_STATS = "worldcover_stats"  # splits are drawn from it


@checks_of(
    "chip_index",
    [
        Check("chip_ids_unique", "Chip ids match their scenes, and none occurs twice in the cell."),
        Check("shares_in_range", "Cloud and nodata shares are between 0 and 1."),
        Check("geometry_in_scene", "Geometries are valid, and match the position of the chips in their scene's grid."),
        Check("rows_of_ledger", "Every indexed scene has its file, with the number of chips given in the ledger."),
    ],
    cells_in=layout.CHIP_LEDGERS,
)
def chip_index(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Check a cell's ledger, items and index files."""
    from clay_assets.chips.audit import look_at_cell
    from clay_assets.chips.cells import stored_cell
    from clay_assets.storage.stac_geoparquet import items_of

    store = clay.store()
    cell = stored_cell(store, key, int(year))
    items = items_of(stored_table(store, layout.table("scene_imagery", key, year), "scene_imagery"))
    with clay.executor() as (executor, in_flight):
        return look_at_cell(cell, items, platform_of(key), clay.recipe().chip_size, executor, in_flight)


@checks_of(
    "chip_landcover",
    [
        Check("shares_sum_to_100_percent", "Land-cover shares of every chip are between 0 and 1 and sum to 1."),
        Check("rows_of_chip_index", "Every indexed scene has up-to-date land cover of all of its chips."),
    ],
    cells_in=layout.LANDCOVER_LEDGERS,
)
def chip_landcover(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Check a cell's ledgers and land-cover files."""
    from clay_assets.chips.audit import look_at_land_cover
    from clay_assets.chips.cells import stored_cell, stored_land_cover

    store = clay.store()
    land_cover, cell = stored_land_cover(store, key, int(year)), stored_cell(store, key, int(year))
    with clay.executor() as (executor, in_flight):
        return look_at_land_cover(land_cover, cell, executor, in_flight)


@checks_of(
    "merged_index",
    [
        Check("rows_of_chip_indexes", "Every part has the rows of its chip index, and is the file in the manifest."),
        Check("chip_ids_unique", "No chip id of a platform occurs twice."),
        Check("splits_apart", "Chips of different splits are at least the recipe's distance apart."),
        Check("shares_of_splits", "Every platform has chips of each split.", WARN),
    ],
)
def merged_index(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Check the manifest, file footers, chip ids and splits."""
    from clay_assets.chips.audit import merged_ids_unique, rows_of_chip_indexes
    from clay_assets.chips.split_audit import look_at_splits

    store = clay.store()
    return {
        "rows_of_chip_indexes": rows_of_chip_indexes(store, _cells(clay)),
        "chip_ids_unique": merged_ids_unique(store),
        **look_at_splits(store, clay.recipe().splits),
    }


# Separate from the others, as these only read ledgers and are worth running every day.
@checks_of(
    "merged_index",
    [
        Check("up_to_date", "No chip index, land cover or split has changed since it was merged.", WARN),
        Check("land_cover_of_cells", "Every cell has up-to-date land cover of its chips."),
        Check(
            "composition_of_sample",
            "Chips of platforms sampled by land cover have roughly the land cover of the sampled tiles.",
            WARN,
        ),
    ],
    daily=True,
)
def merged_index_age(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Check the ledgers and the manifest, and when both were materialised, as far as this Dagster instance knows."""
    from clay_assets.chips.audit import land_cover_of_cells, stale_cells

    store, instance = clay.store(), context.instance
    now = _cells(clay)
    merged_at = _made(instance, "merged_index")
    made = {cell: _latest(instance, cell) for cell in stale_cells(store, now)}
    ages = {cell: round((at - merged_at) / SECONDS_PER_HOUR, 1) for cell, at in made.items() if at and merged_at}
    said = [
        f"{cell}: its chips, their land cover or their splits have changed since they were merged"
        + (f", {ages[cell]:g} h later" if cell in ages else "")
        for cell in made
    ]
    rows = [{"cell": cell, "hours_after_the_merged_index": ages.get(cell, "unknown")} for cell in made]
    return {
        "up_to_date": make_finding(said, rows, cells_indexed=len(now), cells_behind=len(made)),
        "land_cover_of_cells": land_cover_of_cells(now),
        "composition_of_sample": _composition_of_sample(clay, now),
    }


def _cells(clay: ClayResource) -> "list[MergeCell]":
    from clay_assets.chips.cells import stored_cells, stored_land_covers
    from clay_assets.chips.merge import merge_cells
    from clay_assets.chips.splits import split_fingerprint

    store, recipe = clay.store(), clay.recipe()
    drawn_from = clay.table(WORLDCOVER_STATS) if store.exists(layout.table(WORLDCOVER_STATS)) else None
    splits = None if drawn_from is None else split_fingerprint(recipe, drawn_from)
    return merge_cells(stored_cells(store), stored_land_covers(store), recipe, splits)


def _composition_of_sample(clay: ClayResource, now: "list[MergeCell]") -> Finding:
    from clay_assets.chips.audit import composition_of_sample

    by_land_cover = [
        cell.land_cover
        for cell in now
        if cell.land_cover is not None and platform_of(cell.chips.platform).scenes.sample == MGRS_SAMPLE
    ]
    if not by_land_cover or not clay.store().exists(layout.table(MGRS_SAMPLE)):
        return make_finding([], tiles=0)
    return composition_of_sample(by_land_cover, clay.table(MGRS_SAMPLE), clay.recipe().chip_landcover.max_difference)


def _latest(instance: dg.DagsterInstance, cell: str) -> float | None:
    """When a cell's chips or their land cover were last materialised."""
    found = [at for asset in ("chip_index", "chip_landcover") if (at := _made(instance, asset, cell)) is not None]
    return max(found, default=None)


def _made(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> float | None:
    """When an asset or a partition of it was last materialised, seconds since 1970."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].timestamp if records else None


CHECKS = [chip_index, chip_landcover, merged_index, merged_index_age]
