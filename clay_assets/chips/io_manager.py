"""The IO managers of chip indexes and of their land cover. A fan-in passes lazy cells and never loads frames."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import dagster as dg
from upath import UPath

from clay_assets.orchestration.failures import clay_errors_as_failures
from clay_assets.orchestration.io_managers import StoreIOManager
from clay_assets.orchestration.partitions import cell_of_key
from clay_assets.storage import layout

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from clay_assets.storage.stores import Store

    class AnyCell(Protocol):
        """The files of one cell, as listed in their ledger."""

        @property
        def platform(self) -> str: ...
        @property
        def year(self) -> int: ...
        @property
        def ledger(self) -> pd.DataFrame: ...
        @property
        def scenes(self) -> pd.DataFrame: ...
        def prune(self) -> int: ...


class Cells(StoreIOManager):
    """Cells whose asset writes the files scene by scene; the IO manager only stores the ledger.

    Loading gives a list of the existing cells sorted by key, for any number of partitions. Dagster otherwise orders a
    fan-in's keys by hash, and passes a bare object for a single key.
    """

    ledgers: ClassVar[str]  # folder

    @abstractmethod
    def schema(self) -> "pa.Schema":
        """The columns of a scene's file."""

    @abstractmethod
    def folder(self, platform: str, year: int) -> str:
        """The folder of a cell's files."""

    @abstractmethod
    def stored(self) -> "Callable[[Store, str, int], AnyCell]":
        """The function that reads a cell's ledger."""

    def get_asset_relative_path(self, context: dg.InputContext | dg.OutputContext) -> UPath:
        return UPath(self.ledgers)

    def encode(self, obj: "AnyCell") -> bytes:
        from clay_assets.storage.geoparquet import encode

        return encode(obj.ledger, self.recipe.stamp())

    def decode(self, content: bytes, name: str) -> "pd.DataFrame":
        from clay_assets.storage.geoparquet import decode

        return cast("pd.DataFrame", decode(content, name))

    def dump_to_path(self, context: dg.OutputContext, obj: "AnyCell", path: UPath) -> None:
        self.store.write(path.as_posix(), self.encode(obj))
        removed = obj.prune()
        if removed:
            context.log.info(f"{removed} files of scenes that are no longer in the cell were removed")
        uri = self.store.uri(self.folder(obj.platform, obj.year))
        context.add_output_metadata(self.metadata_of(context, self.schema(), self.rows(obj), uri))

    def rows(self, obj: "AnyCell") -> int:
        """Number of rows in all files of a cell."""
        return int(obj.scenes["chips"].sum())

    def load_input(self, context: dg.InputContext) -> "list[Any]":
        with clay_errors_as_failures():
            wanted = (cell_of_key(partition) for partition in sorted(context.asset_partition_keys))
            there = self.store.list(self.ledgers, ".parquet")
            return [
                self.stored()(self.store, platform, int(year))
                for platform, year in wanted
                if f"{self.ledgers}/{platform}/{year}.parquet" in there
            ]


class ChipCells(Cells):
    """Chip indexes."""

    ledgers = layout.CHIP_LEDGERS

    def schema(self) -> "pa.Schema":
        from clay_assets.chips.index import CHIP_SCHEMA

        return CHIP_SCHEMA

    def folder(self, platform: str, year: int) -> str:
        return layout.chip_folder(platform, year)

    def stored(self) -> "Callable[[Store, str, int], AnyCell]":
        from clay_assets.chips.cells import stored_cell

        return stored_cell


class LandCoverCells(Cells):
    """Land cover of chips."""

    ledgers = layout.LANDCOVER_LEDGERS

    def schema(self) -> "pa.Schema":
        from clay_assets.chips.landcover import SHARE_SCHEMA

        return SHARE_SCHEMA

    def folder(self, platform: str, year: int) -> str:
        return layout.landcover_folder(platform, year)

    def stored(self) -> "Callable[[Store, str, int], AnyCell]":
        from clay_assets.chips.cells import stored_land_cover

        return stored_land_cover
