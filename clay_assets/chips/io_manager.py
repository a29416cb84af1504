"""The IO manager of chip indexes. A fan-in never loads frames, it hands over lazy cells."""

from typing import TYPE_CHECKING, cast

import dagster as dg
from upath import UPath

from clay_assets.orchestration.failures import clay_errors_as_failures
from clay_assets.orchestration.io_managers import StoreIOManager, StoreIOManagerFactory
from clay_assets.orchestration.partitions import cell_of_key
from clay_assets.storage import layout

if TYPE_CHECKING:
    import pandas as pd

    from clay_assets.chips.cells import ChipCell


class ChipCells(StoreIOManager):
    """Chip indexes, whose files their asset has written scene by scene: what is stored here is the ledger.

    Loading gives a list of the cells that exist, whichever number of partitions was asked for, in the order of their
    keys. The order of a fan-in's keys is otherwise that of a hash, and a fan-in over one key a bare object.
    """

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        return UPath(layout.CHIP_LEDGERS)

    def encode(self, obj: "ChipCell") -> bytes:
        from clay_assets.storage.geoparquet import encode

        return encode(obj.ledger, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "pd.DataFrame":
        from clay_assets.storage.geoparquet import decode

        return cast("pd.DataFrame", decode(content, name))

    def dump_to_path(self, context: dg.OutputContext, obj: "ChipCell", path: UPath) -> None:
        from clay_assets.chips.index import CHIP_SCHEMA

        self.store.write(path.as_posix(), self.encode(obj))
        removed = obj.prune()
        if removed:
            context.log.info(f"{removed} index files of scenes that are no longer picked were removed")
        uri = self.store.uri(layout.chip_folder(obj.platform, obj.year))
        chips = int(obj.scenes["chips"].sum())
        context.add_output_metadata(self.metadata_of(context, CHIP_SCHEMA, chips, uri))

    def load_input(self, context: dg.InputContext) -> "list[ChipCell]":
        with clay_errors_as_failures():
            return self._cells(context)

    def _cells(self, context: dg.InputContext) -> "list[ChipCell]":
        from clay_assets.chips.cells import stored_cell

        stored = self.store.list(layout.CHIP_LEDGERS, ".parquet")
        wanted = (cell_of_key(partition) for partition in sorted(context.asset_partition_keys))
        return [
            stored_cell(self.store, platform, int(year))
            for platform, year in wanted
            if layout.chip_ledger(platform, year) in stored
        ]


class ChipCellsIOManager(StoreIOManagerFactory):
    """Makes `ChipCells`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> ChipCells:
        return ChipCells(self.clay)
