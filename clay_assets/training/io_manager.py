"""The IO manager of headers. Header files are written scene by scene; this stores the ledger."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clay_assets.chips.io_manager import Cells
from clay_assets.storage import layout

if TYPE_CHECKING:
    import pyarrow as pa

    from clay_assets.storage.stores import Store
    from clay_assets.training.cells import HeadersCell


class HeadersCells(Cells):
    """IO manager of file headers."""

    ledgers = layout.HEADER_LEDGERS

    def schema(self) -> "pa.Schema":
        from clay_assets.training.scene_files import schema

        return schema()

    def folder(self, platform: str, year: int) -> str:
        return layout.headers_folder(platform, year)

    def stored(self) -> "Callable[[Store, str, int], HeadersCell]":
        from clay_assets.training.cells import stored_headers

        return stored_headers

    def rows(self, obj: Any) -> int:
        return int(obj.scenes["images"].sum())
