"""IO managers: write assets' values to storage and read them back, locally and on S3.

All subclass `UPathIOManager` for its handling of partitions; bytes are written by `clay_assets.storage`, so every write
is atomic and stamped with the recipe.
"""

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import UPathIOManager
from upath import UPath

from clay_assets.errors import InputError
from clay_assets.orchestration.failures import clay_errors_as_failures
from clay_assets.orchestration.metadata import meanings_in, table_metadata
from clay_assets.orchestration.resources import ClayResource
from clay_assets.storage import layout

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    import pyarrow as pa

    from clay_assets.recipes import Recipe
    from clay_assets.stac import Item
    from clay_assets.storage.stores import Store


class StoreIOManager(UPathIOManager):
    """Paths follow the storage contract; bytes are read and written by a store."""

    extension = ".parquet"

    def __init__(self, clay: ClayResource) -> None:
        super().__init__(base_path=UPath("."))
        self.clay = clay

    # Opened on first use, so that an invalid setting shows as an error of the step.
    @cached_property
    def store(self) -> "Store":
        """The storage of the files."""
        return self.clay.store()

    @cached_property
    def recipe(self) -> "Recipe":
        """The recipe that files are stamped with."""
        return self.clay.recipe()

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        return UPath(layout.folder_of(context.asset_key.path[-1]))

    def path_exists(self, path: UPath) -> bool:
        return self.store.exists(path.as_posix())

    def make_directory(self, path: UPath) -> None:
        """Do nothing: a store creates its own folders."""

    def _handle_transition_to_partitioned_asset(self, context: dg.OutputContext, path: UPath) -> None:
        """Do nothing: there is no older layout to migrate, and paths are not on the local file system."""

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        key = path.as_posix()
        content = self.encode(obj)
        self.store.write(key, content)
        if (context.definition_metadata or {}).get("flatgeobuf"):
            from clay_assets.storage.geoparquet import flatgeobuf

            self.store.write(path.with_suffix(".fgb").as_posix(), flatgeobuf(obj))
        schema, rows = _described(content)
        context.add_output_metadata(self.metadata_of(context, schema, rows, self.store.uri(key)))

    def metadata_of(self, context: dg.OutputContext, schema: "pa.Schema", rows: int, uri: str) -> dict[str, Any]:
        """Metadata that Dagster shows for a written table."""
        meanings = meanings_in(context.definition_metadata)
        return table_metadata(schema, rows, uri, self.recipe, meanings, partition=context.has_asset_partitions)

    def load_input(self, context: dg.InputContext) -> Any:
        with clay_errors_as_failures():
            return super().load_input(context)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        with clay_errors_as_failures():
            super().handle_output(context, obj)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        key = path.as_posix()
        try:
            content = self.store.read(key)
        except FileNotFoundError as error:
            raise InputError(
                f"{self.store.uri(key)}: file not found. Materialise {context.asset_key.to_user_string()} first."
            ) from error
        return self.decode(content, self.store.uri(key))

    def get_metadata(self, context: dg.OutputContext, obj: Any) -> dict[str, Any]:
        # UPathIOManager adds the path below the root, but users need the full address.
        path = next(iter(self._get_paths_for_partitions(context).values())) if context.has_asset_partitions else None
        return {"path": dg.MetadataValue.path(self.store.uri((path or self._get_path(context)).as_posix()))}

    @abstractmethod
    def encode(self, obj: Any) -> bytes:
        """Encode a value as the bytes of its file."""

    @abstractmethod
    def decode(self, content: bytes, name: str) -> Any:
        """The inverse of `encode`; `name` is for messages."""


class GeoTables(StoreIOManager):
    """Frames as GeoParquet, or Parquet without geometry."""

    def encode(self, obj: "gpd.GeoDataFrame | pd.DataFrame") -> bytes:
        from clay_assets.storage.geoparquet import encode

        return encode(obj, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "gpd.GeoDataFrame | pd.DataFrame":
        from clay_assets.storage.geoparquet import decode

        return decode(content, name)


class StacItems(StoreIOManager):
    """Lists of STAC items as STAC-GeoParquet."""

    def encode(self, obj: "list[Item]") -> bytes:
        from clay_assets.storage.stac_geoparquet import encode_items

        return encode_items(obj, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "list[Item]":
        from clay_assets.storage.stac_geoparquet import decode_items

        return decode_items(content, name)


def _described(content: bytes) -> "tuple[pa.Schema, int]":
    import io

    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    return file.schema_arrow, file.metadata.num_rows
