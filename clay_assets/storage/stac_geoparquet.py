"""STAC items as STAC-GeoParquet, written and read through the `stac-geoparquet` library.

Specification: https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
import shapely.geometry
import stac_geoparquet.arrow as sga
from shapely.errors import ShapelyError

from clay_assets.errors import InputError
from clay_assets.footprints import geojson_of
from clay_assets.stac import MEMBERS, Item
from clay_assets.storage.geoparquet import COMPRESSION, encode_arrow
from clay_assets.storage.untyped import GEOMETRY, TIMES, UNFIT, UNTYPED, lists, patched, split_items

_MEMBERS = frozenset(MEMBERS)
HALF = 16  # bits of half-precision floats
SIDES = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")  # of a bounding box, in GeoJSON's order

# Columns of every STAC-GeoParquet table, for tables without items.
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
    """Items, in the given order, as the bytes of a STAC-GeoParquet file; without items, an empty but valid table.

    A field whose type differs between items, or that Parquet cannot store, is kept as JSON in the column
    `clay:untyped`.

    Raises:
        InputError: an item whose id is not text, or without properties or geometry.
    """
    typed, texts = split_items(items)
    try:
        reader = sga.parse_stac_items_to_arrow(typed) if typed else EMPTY_SCHEMA.empty_table().to_reader()
        with tempfile.TemporaryDirectory(prefix="clay-") as folder:  # the library writes to paths only
            path = Path(folder) / "items.parquet"
            sga.to_parquet(reader, path, compression=COMPRESSION)
            table = pq.read_table(path)
    except (ShapelyError, *UNFIT, AttributeError, LookupError) as error:
        raise InputError(f"{len(items)} items cannot be stored in one table: {error}.") from error
    if any(texts):
        table = table.append_column(UNTYPED, pa.array(texts, pa.string()))
    return encode_arrow(table, metadata)


def decode_items(content: bytes, name: str) -> list[Item]:
    """The items in the bytes of a STAC-GeoParquet file.

    Raises:
        InputError: not a STAC-GeoParquet file; names the file by `name`.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file ({error}). Materialise it again.") from error
    return items_of(table)


def items_of(table: pa.Table) -> list[Item]:
    """The items in a STAC-GeoParquet table, without nulls for fields that an item does not have.

    stac-geoparquet's own reader requires a bounding box in every item, and `proj:geometry` in all or none; external
    tables do not always comply.
    """
    table = with_times_as_text(table)
    columns = [values_of(column.combine_chunks()) for column in table.columns]
    if "geometry" in table.column_names:
        place = table.column_names.index("geometry")
        kind = table.schema.field(place).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            shapes = shapely.from_wkb(np.array(columns[place], dtype=object), on_invalid="ignore")
            columns[place] = list(geojson_of(shapes, list))
    names = table.column_names
    if not names:
        return [_item({}) for _ in range(len(table))]
    return [_item(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def values_of(column: pa.Array) -> list[Any]:
    """Values of a column; null members of objects are omitted, at all levels."""
    kind = column.type
    if pa.types.is_struct(kind) and kind.num_fields:
        names = [field.name for field in kind]
        # Not `field`, which has values where the struct itself is null.
        found = objects(names, [values_of(values) for values in column.flatten()])
        if not column.null_count:
            return found
        return [one if valid else None for one, valid in zip(found, column.is_valid().to_pylist(), strict=True)]
    if pa.types.is_list(kind) and pa.types.is_nested(kind.value_type):
        entries = values_of(column.flatten())
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        ends = np.cumsum(lengths)
        lists = [entries[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
        if not column.null_count:
            return lists
        return [found if valid else None for found, valid in zip(lists, column.is_valid().to_pylist(), strict=True)]
    return [_without_nulls(value) for value in column.to_pylist()] if pa.types.is_nested(kind) else listed(column)


def listed(column: pa.Array) -> list[Any]:
    """As `to_pylist`, but faster for types that numpy supports."""
    kind = column.type
    number = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and kind.bit_width > HALF)
    if pa.types.is_string(kind) or (number and not column.null_count):
        return list(column.to_numpy(zero_copy_only=False).tolist())
    return list(column.to_pylist())


def objects(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns as one object per row, without nulls."""
    rows = zip(*columns, strict=True)
    if not any(None in column for column in columns):
        return [dict(zip(names, row)) for row in rows]  # noqa: B905 — as many as there are names
    return [{name: value for name, value in zip(names, row) if value is not None} for row in rows]  # noqa: B905


def with_times_as_text(table: pa.Table) -> pa.Table:
    """A table whose columns of STAC times are text, as items have them."""
    for number, name in enumerate(table.column_names):
        kind = table.schema.field(number).type
        if name in TIMES and pa.types.is_timestamp(kind):
            moments = table.column(number).cast(pa.timestamp(kind.unit, kind.tz and "UTC"))
            table = table.set_column(number, name, pc.strftime(moments, "%Y-%m-%dT%H:%M:%SZ"))
    return table


def _item(row: dict[str, Any]) -> Item:
    text = row.pop(UNTYPED, None)
    item = {name: value for name, value in row.items() if name in _MEMBERS and value is not None}
    properties = {name: value for name, value in row.items() if name not in _MEMBERS and value is not None}
    item = {"links": [], "assets": {}, **item, "properties": properties}
    if isinstance(item.get("bbox"), dict):
        item["bbox"] = [item["bbox"][side] for side in SIDES if side in item["bbox"]]
    for holder in (properties, *item["assets"].values()):
        if isinstance(holder.get(GEOMETRY), bytes):
            holder[GEOMETRY] = _geometry(holder[GEOMETRY])
    properties.setdefault("datetime", None)  # the only field that STAC requires even if it is null
    patched(item, text)
    item["properties"] = dict(sorted(item["properties"].items()))
    return item


def _geometry(wkb: bytes) -> dict[str, Any] | None:
    shape = shapely.from_wkb(wkb, on_invalid="ignore")
    return None if shape is None else lists(shapely.geometry.mapping(shape))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value
