"""IO managers: how assets' values get to storage and back, locally and on S3 alike.

All of them subclass `UPathIOManager` for its handling of partitions; the bytes go through `clay_assets.storage`, so
every write is atomic and stamped with the recipe. A fan-in never loads frames, it hands over lazy cells.
"""

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster import UPathIOManager
from upath import UPath

from clay_assets.errors import InputError
from clay_assets.orchestration.failures import what_failed
from clay_assets.orchestration.metadata import table_metadata
from clay_assets.orchestration.resources import ClayResource
from clay_assets.storage import layout

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

    from clay_assets.chips.scenes import ChipCell
    from clay_assets.platforms.base import Item
    from clay_assets.recipes import Recipe
    from clay_assets.storage.stores import Store


class _ClayIOManager(UPathIOManager):
    """Paths by the storage contract, bytes through a store."""

    extension = ".parquet"

    def __init__(self, clay: ClayResource) -> None:
        super().__init__(base_path=UPath("."))
        self.clay = clay

    # Opened when first used, so that a wrong setting is an error of the step, where people look.
    @cached_property
    def store(self) -> "Store":
        """Where the files lie."""
        return self.clay.store()

    @cached_property
    def recipe(self) -> "Recipe":
        """What the files are stamped with."""
        return self.clay.recipe()

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        return UPath(layout.folder_of(context.asset_key.path[-1]))

    def path_exists(self, path: UPath) -> bool:
        return self.store.exists(path.as_posix())

    def make_directory(self, path: UPath) -> None:
        """Nothing: a store makes its folders itself."""

    def _handle_transition_to_partitioned_asset(self, context: dg.OutputContext, path: UPath) -> None:
        """Nothing: there is no older layout to move away from, and paths are not of the local file system."""

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        key = path.as_posix()
        content = self.encode(obj)
        self.store.write(key, content)
        if (context.definition_metadata or {}).get("flatgeobuf"):
            from clay_assets.storage.geoparquet import flatgeobuf

            self.store.write(path.with_suffix(".fgb").as_posix(), flatgeobuf(obj))
        schema, rows = _described(content)
        context.add_output_metadata(table_metadata(schema, rows, self.store.uri(key), self.recipe))

    def load_input(self, context: dg.InputContext) -> Any:
        with what_failed():
            return super().load_input(context)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        with what_failed():
            super().handle_output(context, obj)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        key = path.as_posix()
        try:
            content = self.store.read(key)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.store.uri(key)} does not exist: materialise {context.asset_key.to_user_string()} first."
            ) from error
        return self.decode(content, self.store.uri(key))

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, Any]:
        # UPathIOManager adds the path below the root; what a person needs is the whole address.
        path = next(iter(self._get_paths_for_partitions(context).values())) if context.has_asset_partitions else None
        return {"path": dg.MetadataValue.path(self.store.uri((path or self._get_path(context)).as_posix()))}

    @abstractmethod
    def encode(self, obj: Any) -> bytes:
        """A value as the bytes of its file."""

    @abstractmethod
    def decode(self, content: bytes, name: str) -> Any:
        """The inverse of `encode`; `name` is for messages."""


class GeoTables(_ClayIOManager):
    """Frames as GeoParquet, or Parquet without geometry."""

    def encode(self, obj: "gpd.GeoDataFrame | pd.DataFrame") -> bytes:
        from clay_assets.storage.geoparquet import encode

        return encode(obj, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "gpd.GeoDataFrame | pd.DataFrame":
        from clay_assets.storage.geoparquet import decode

        return decode(content, name)


class StacItems(_ClayIOManager):
    """Lists of STAC items as STAC-GeoParquet."""

    def encode(self, obj: "list[Item]") -> bytes:
        from clay_assets.storage.stac_geoparquet import encode_items

        return encode_items(obj, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "list[Item]":
        from clay_assets.storage.stac_geoparquet import decode_items

        return decode_items(content, name)


class ChipCells(_ClayIOManager):
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
        context.add_output_metadata(table_metadata(CHIP_SCHEMA, chips, uri, self.recipe))

    def load_input(self, context: dg.InputContext) -> "list[ChipCell]":
        with what_failed():
            return self._cells(context)

    def _cells(self, context: dg.InputContext) -> "list[ChipCell]":
        from clay_assets.chips.scenes import stored_cell

        stored = self.store.list(layout.CHIP_LEDGERS, ".parquet")
        wanted = (partition.split("|") for partition in sorted(context.asset_partition_keys))
        return [
            stored_cell(self.store, platform, int(year))
            for platform, year in wanted
            if layout.chip_ledger(platform, year) in stored
        ]


def _described(content: bytes) -> "tuple[pa.Schema, int]":
    import io

    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    return file.schema_arrow, file.metadata.num_rows


class _Factory(dg.ConfigurableIOManagerFactory):  # type: ignore[type-arg]
    clay: dg.ResourceDependency[ClayResource]


class GeoTablesIOManager(_Factory):
    """Makes `GeoTables`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> GeoTables:
        return GeoTables(self.clay)


class StacItemsIOManager(_Factory):
    """Makes `StacItems`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> StacItems:
        return StacItems(self.clay)


class ChipCellsIOManager(_Factory):
    """Makes `ChipCells`."""

    def create_io_manager(self, context: dg.InitResourceContext) -> ChipCells:
        return ChipCells(self.clay)
