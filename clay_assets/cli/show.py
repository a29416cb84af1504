"""`clay-assets show`: one chip of the merged index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from clay_assets.chips.manifest import Part, read_manifest
from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.errors import InputError
from clay_assets.storage import layout
from clay_assets.storage.stores import Store


@click.command("show", help=SUBCOMMANDS["show"])
@click.argument("chipid")
def command(chipid: str) -> None:
    """Print every platform's chip of that id, as JSON."""
    store = configured_store()
    parts = read_manifest(store)
    if not parts:
        raise InputError(f"{store.uri(layout.MERGED)}: no merged index here. Materialise merged_index first.")
    chips = list(_chips(store, parts, chipid))
    if not chips:
        raise InputError(
            f"{chipid}: no chip with this id in {store.uri(layout.MERGED)}. Check the id, {{item_id}}-{{x}}-{{y}}."
        )
    for chip in chips:
        click.echo(json.dumps(chip, indent=2, default=str, ensure_ascii=False))


def _chips(store: Store, parts: list[Part], chipid: str) -> Iterator[dict[str, Any]]:
    # The statistics of item_id prune the row groups: each scene lies in few of them.
    item_id = chipid.rsplit("-", 2)[0]
    wanted = (pc.field("item_id") == item_id) & (pc.field("chipid") == chipid)
    for part in parts:
        table = pq.read_table(
            f"{layout.MERGED}/{part.path}", filesystem=store.filesystem(), filters=wanted, partitioning=None
        )
        for row in table.to_pylist():
            row.pop("bbox")
            yield {**row, "geometry": shapely.from_wkb(row["geometry"]).wkt, "part": part.path}
