"""Column types of STAC-GeoParquet snapshots: which are supported, and how values are converted to those of items.

Writers differ: times are timestamps of any unit, with or without a zone, or text; text comes as views or dictionaries;
geometry is WKB or WKT. All of these are supported. Columns of other types are rejected before the search.

Specification: https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.stac import Item
from clay_assets.storage.stac_geoparquet import items_of
from clay_assets.storage.untyped import MOMENT
from clay_assets.storage.untyped import TIMES as TIMESTAMPS

TIMES = ("datetime", "start_datetime")  # columns of acquisition times; the first that is not null counts
SIDES = ("xmin", "ymin", "xmax", "ymax")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME = np.iinfo(np.int64).min
OBJECTS = {"assets": dict, "links": list, "stac_extensions": list, "bbox": list}  # members that may be JSON text
REMEDY = "Write the snapshot with stac-geoparquet or rustac."


def plain(kind: pa.DataType) -> pa.DataType:
    """The equivalent type without views, dictionaries and extensions."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def has_views(kind: pa.DataType) -> bool:
    """Whether a type is or contains a view."""
    if pa.types.is_nested(kind):
        return any(has_views(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def check_columns(schema: pa.Schema, where: str) -> None:
    """Raise an error for a file that cannot be searched, before the search.

    Args:
        schema: the file's schema with plain types.
        where: name of the file for messages.

    Raises:
        InputError: a column is missing, or of an unsupported type; names column and type.
    """
    names = set(schema.names)
    missing = [name for name in ("id", "geometry", "assets") if name not in names]
    if not names & set(TIMES):
        missing.append("datetime")
    if missing:
        raise InputError(f"{where} is not STAC-GeoParquet (no column {', '.join(missing)}). {REMEDY}")
    readable: dict[str, Callable[[pa.DataType], bool]] = {
        "geometry": lambda kind: pa.types.is_binary(kind) or pa.types.is_string(kind),
        "assets": lambda kind: pa.types.is_struct(kind) or pa.types.is_string(kind),
        **dict.fromkeys(TIMES, is_time),
    }
    for name, fits in readable.items():
        if name in names and not fits(schema.field(name).type):
            remedy = "Write geometry as WKB." if name == "geometry" else REMEDY
            raise InputError(f"{where}: column {name} is of type {_brief(schema.field(name).type)}. {remedy}")
    if schema.metadata and not _is_lonlat(json.loads(schema.metadata.get(b"geo", b"{}"))):
        raise InputError(f"{where}: column geometry is not in EPSG:4326. Reproject it, as STAC requires.")


def is_time(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold times: timestamps, dates, text, or nothing."""
    types = pa.types
    return bool(types.is_timestamp(kind) or types.is_date(kind) or types.is_string(kind) or types.is_null(kind))


def has_box(schema: pa.Schema) -> bool:
    """Whether there is a bounding box that can be compared; its fields may be of any float type."""
    if "bbox" not in schema.names or not pa.types.is_struct(schema.field("bbox").type):
        return False
    kinds = {field.name: field.type for field in schema.field("bbox").type}
    return all(name in kinds and pa.types.is_floating(kinds[name]) for name in SIDES)


def moments(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Acquisition times, milliseconds since 1970 UTC, (rows,); `NO_TIME` if missing."""
    found = np.full(batch.num_rows, NO_TIME)
    for name in reversed(TIMES):
        if name in batch.schema.names:
            given = _milliseconds(batch[name])
            found = np.where(given == NO_TIME, found, given)
    return found


def footprints(column: pa.Array) -> NDArray[Any]:
    """Geometries of a column of WKB or WKT, (rows,); None where they cannot be read."""
    values = column.to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        return np.asarray(shapely.from_wkt(values, on_invalid="ignore"))
    return np.asarray(shapely.from_wkb(values, on_invalid="fix"))


def value_of(value: Any) -> Any:
    """A value in JSON's types: decimals become numbers, times become text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: value_of(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [value_of(entry) for entry in value]
    return value


def parsed(member: str, value: Any) -> Any:
    """A member of an item, such as its assets, parsed if it is JSON text."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return read if isinstance(read, OBJECTS[member]) else value


def whole_items(table: pa.Table) -> list[Item]:
    """Full items of a table with plain types, in its order."""
    shapes = footprints(table["geometry"].combine_chunks())
    table = table.drop_columns([name for name in table.schema.names if name.startswith("__")])  # pandas' index
    table = _set(table, "geometry", pa.array(shapely.to_wkb(shapes), pa.binary()))
    if not has_box(table.schema):
        table = _set(table, "bbox", _boxes(shapes))
    table = with_utc_times(table)
    kinds = {field.name: field.type for field in table.schema}
    texts = [name for name in OBJECTS if name in kinds and pa.types.is_string(kinds[name])]
    aside = {name: table[name].to_pylist() for name in texts}
    items = items_of(table.drop_columns(texts))
    for number, item in enumerate(items):
        item["properties"] = {name: value_of(value) for name, value in item["properties"].items()}
        item |= {name: parsed(name, values[number]) for name, values in aside.items() if values[number] is not None}
    return items


def with_utc_times(table: pa.Table) -> pa.Table:
    """A table whose columns of STAC times, unless they are text, are converted to microseconds UTC."""
    for name in TIMESTAMPS:
        kind = table.schema.field(name).type if name in table.schema.names else pa.null()
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            table = _set(table, name, _utc(table[name]))
    return table


def _milliseconds(column: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_string(column.type):
        return np.array([_of_text(value) for value in column.to_pylist()], np.int64)
    if pa.types.is_null(column.type):
        return np.full(len(column), NO_TIME)
    whole = _utc(column).cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
    return np.asarray(whole.fill_null(NO_TIME).to_numpy(zero_copy_only=False), np.int64)


def _utc(column: pa.Array) -> pa.Array:
    """Times without a zone are taken as UTC, as in items."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if column.type.tz is None:
        column = pc.assume_timezone(column, "UTC")
    return column.cast(MOMENT, safe=False)


def _of_text(value: str | None) -> int:
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return int(NO_TIME)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round((moment - EPOCH).total_seconds() * 1000)


def _boxes(shapes: NDArray[Any]) -> pa.Array:
    return pa.StructArray.from_arrays([pa.array(side) for side in shapely.bounds(shapes).T], SIDES)


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    position = table.schema.get_field_index(name)
    return table.append_column(name, values) if position < 0 else table.set_column(position, name, values)


def _is_lonlat(geo: dict[str, Any]) -> bool:
    crs = geo.get("columns", {}).get("geometry", {}).get("crs")  # the default is OGC:CRS84
    return crs is None or pyproj.CRS.from_user_input(crs).to_authority(min_confidence=20) in (
        ("OGC", "CRS84"),
        ("EPSG", "4326"),
    )


def _brief(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:60]}…"
