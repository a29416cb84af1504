"""The checks of `chip_index` and `merged_index`."""

from collections.abc import Mapping

import dagster as dg

from clay_assets.findings import Finding, make_finding
from clay_assets.orchestration.checks import WARN, Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import platform_of
from clay_assets.storage import layout

SECONDS_PER_HOUR = 3600


@checks_of(
    "chip_index",
    [
        Check("chip_ids_unique", "Chip ids are those of their scenes, and none occurs twice in the cell."),
        Check("shares_in_range", "Cloud and nodata shares lie in 0 to 1."),
        Check("geometry_in_scene", "Geometries are valid, and lie where their chips do in the grid of their scene."),
        Check("rows_of_ledger", "Every indexed scene has its file, with as many chips as the ledger says."),
    ],
    cells_in=layout.CHIP_LEDGERS,
)
def chip_index(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Look at a cell's ledger, items and index files."""
    from clay_assets.chips.audit import look_at_cell
    from clay_assets.chips.cells import stored_cell
    from clay_assets.storage.stac_geoparquet import items_of

    store = clay.store()
    cell = stored_cell(store, key, int(year))
    items = items_of(stored_table(store, layout.table("scene_imagery", key, year), "scene_imagery"))
    with clay.executor() as (executor, in_flight):
        return look_at_cell(cell, items, platform_of(key), clay.recipe().chip_size, executor, in_flight)


@checks_of(
    "merged_index",
    [
        Check("rows_of_chip_indexes", "Every part has the rows of its chip index, and is the file of the manifest."),
        Check("chip_ids_unique", "No chip id of a platform occurs twice."),
    ],
)
def merged_index(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Look at the manifest, at the files' footers, and at what tells their chips apart."""
    from clay_assets.chips.audit import merged_ids_unique, rows_of_chip_indexes
    from clay_assets.chips.cells import stored_cells

    store = clay.store()
    now = stored_cells(store)
    return {
        "rows_of_chip_indexes": rows_of_chip_indexes(store, now),
        "chip_ids_unique": merged_ids_unique(store),
    }


# Apart from the others, since it reads ledgers only and is worth running every day.
@checks_of("merged_index", [Check("up_to_date", "No chip index has changed since it was merged.", WARN)], daily=True)
def merged_index_age(context: dg.AssetCheckExecutionContext, clay: ClayResource) -> Mapping[str, Finding]:
    """Look at the ledgers and the manifest, and when both were made, as far as this Dagster instance knows."""
    from clay_assets.chips.audit import stale_cells
    from clay_assets.chips.cells import stored_cells

    store, instance = clay.store(), context.instance
    now = stored_cells(store)
    merged_at = _made(instance, "merged_index")
    made = {cell: _made(instance, "chip_index", cell) for cell in stale_cells(store, now)}
    ages = {cell: round((at - merged_at) / SECONDS_PER_HOUR, 1) for cell, at in made.items() if at and merged_at}
    said = [
        f"{cell}: its chip index is not in the merged index as it is now"
        + (f", made {ages[cell]:g} h after it" if cell in ages else "")
        for cell in made
    ]
    rows = [{"cell": cell, "hours_after_the_merged_index": ages.get(cell, "unknown")} for cell in made]
    return {"up_to_date": make_finding(said, rows, cells_indexed=len(now), cells_behind=len(made))}


def _made(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> float | None:
    """When an asset or a partition of it was last materialised, seconds since 1970."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].timestamp if records else None


CHECKS = [chip_index, merged_index, merged_index_age]
