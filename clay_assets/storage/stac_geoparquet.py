"""STAC items as STAC-GeoParquet, written and read through the `stac-geoparquet` library.

Specification: https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import stac_geoparquet.arrow as sga

from clay_assets.errors import InputError
from clay_assets.stac import Item
from clay_assets.storage.geoparquet import COMPRESSION, encode_arrow

# What every STAC-GeoParquet table has, for the tables without items.
EMPTY_SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])),
        ("links", pa.list_(pa.struct([("href", pa.string()), ("rel", pa.string()), ("type", pa.string())]))),
        ("assets", pa.struct([])),
        ("collection", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
    ]
)


def encode_items(items: Sequence[Item], metadata: Mapping[str, str]) -> bytes:
    """Items, in the order given, as the bytes of a STAC-GeoParquet file; no items give an empty, valid table.

    Raises:
        InputError: items disagree about the type of a field, so that one table cannot hold them.
    """
    try:
        reader = sga.parse_stac_items_to_arrow(items) if items else EMPTY_SCHEMA.empty_table().to_reader()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{len(items)} items do not fit into one table: {error}.") from error
    with tempfile.TemporaryDirectory(prefix="clay-") as folder:  # the library writes to paths only
        path = Path(folder) / "items.parquet"
        sga.to_parquet(reader, path, compression=COMPRESSION)
        return encode_arrow(pq.read_table(path), metadata)


def decode_items(content: bytes, name: str) -> list[Item]:
    """The items in the bytes of a STAC-GeoParquet file.

    Raises:
        InputError: it is no STAC-GeoParquet; `name` tells which file.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: is not a readable Parquet file ({error}). Materialise it again.") from error
    return items_of(table)


def items_of(table: pa.Table) -> list[Item]:
    """The items in a STAC-GeoParquet table, without the nulls that stand for fields an item does not have."""
    if table.num_rows == 0:
        return []
    items = []
    for item in sga.stac_table_to_items(table):
        clean = _without_nulls(item)
        clean.setdefault("links", [])
        clean.setdefault("assets", {})
        clean["properties"].setdefault("datetime", None)  # the one field that STAC wants even when it is null
        clean["properties"] = dict(sorted(clean["properties"].items()))  # the library's order follows the hash seed
        items.append(clean)
    return items


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value
