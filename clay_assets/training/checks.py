"""The checks of `cog_headers`."""

from collections.abc import Mapping

import dagster as dg

from clay_assets.findings import Finding
from clay_assets.orchestration.checks import WARN, Check, checks_of, stored_table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.storage import layout


@checks_of(
    "cog_headers",
    [
        Check("headers_of_imagery", "Every scene with imagery was processed, and its headers match its files."),
        Check("headers_of_indexed_scenes", "Every indexed scene has headers, so that its chips can be read.", WARN),
        Check("radiometry_agrees", "Pixels, processing baseline and flags agree on the offset.", WARN),
    ],
    cells_in=layout.HEADER_LEDGERS,
)
def cog_headers(
    context: dg.AssetCheckExecutionContext, clay: ClayResource, key: str, year: str
) -> Mapping[str, Finding]:
    """Check a cell's ledgers, items and headers."""
    from clay_assets.chips.cells import stored_cell
    from clay_assets.storage.stac_geoparquet import items_of
    from clay_assets.training.audit import look_at_headers
    from clay_assets.training.cells import stored_headers

    store = clay.store()
    cell = stored_headers(store, key, int(year))
    items = items_of(stored_table(store, layout.table("scene_imagery", key, year), "scene_imagery"))
    chips = stored_cell(store, key, int(year)) if store.exists(layout.chip_ledger(key, year)) else None
    with clay.executor() as (executor, in_flight):
        return look_at_headers(cell, items, chips, executor, in_flight)


CHECKS = [cog_headers]
