"""Tables as GeoParquet 1.1 (or plain Parquet without geometry), with the recipe in their metadata.

Frames are written by geopandas. Chip tables, which are built and streamed as Arrow tables, get the same `geo` metadata
from `geo_metadata`. Specification: https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.errors import InputError

if TYPE_CHECKING:  # imported in functions: many readers of our files do not need frames
    import geopandas as gpd
    import pandas as pd

COMPRESSION = "zstd"
METADATA_PREFIX = "clay:"


@cache
def _crs84() -> dict[str, Any]:
    import pyproj

    document: dict[str, Any] = pyproj.CRS.from_user_input("EPSG:4326").to_json_dict()
    return document


def geo_metadata(geometry_types: Sequence[str], bounds: Sequence[float] | None) -> bytes:
    """The `geo` metadata of a table with a WKB column `geometry` and a covering column `bbox`.

    Args:
        geometry_types: GeoParquet names of the geometry types in the table, such as `Polygon`.
        bounds: xmin, ymin, xmax, ymax in degrees, EPSG:4326; None for an empty table.
    """
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(geometry_types),
        "crs": _crs84(),
        "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if bounds is not None:
        column["bbox"] = [float(value) for value in bounds]
    document = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return json.dumps(document, sort_keys=True).encode()


def stamped(metadata: Mapping[str, str]) -> dict[bytes, bytes]:
    """Our own entries as Parquet key-value metadata: `clay:recipe`, `clay:recipe_hash`, …"""
    return {f"{METADATA_PREFIX}{name}".encode(): value.encode() for name, value in metadata.items()}


def stamp_of(schema: pa.Schema) -> dict[str, str]:
    """The inverse of `stamped`: our entries of a schema's metadata, without the prefix."""
    return {
        name.decode().removeprefix(METADATA_PREFIX): value.decode()
        for name, value in (schema.metadata or {}).items()
        if name.decode().startswith(METADATA_PREFIX)
    }


def encode(frame: gpd.GeoDataFrame | pd.DataFrame, metadata: Mapping[str, str]) -> bytes:
    """A frame as the bytes of a (Geo)Parquet file; deterministic."""
    import geopandas as gpd

    buffer = io.BytesIO()
    if isinstance(frame, gpd.GeoDataFrame):
        frame.to_parquet(buffer, index=False, schema_version="1.1.0", write_covering_bbox=True)
    else:
        frame.to_parquet(buffer, index=False)
    return encode_arrow(pq.read_table(io.BytesIO(buffer.getvalue())), metadata)


def encode_arrow(table: pa.Table, metadata: Mapping[str, str], **options: Any) -> bytes:
    """An Arrow table (with its `geo` metadata, if any) as the bytes of a Parquet file.

    Args:
        table: the table to write.
        metadata: entries for `stamped`.
        options: options of `pyarrow.parquet.write_table`.
    """
    kept = {name: value for name, value in (table.schema.metadata or {}).items() if name != b"pandas"}
    sink = io.BytesIO()
    told = {**kept, **stamped(metadata)}
    table = table.replace_schema_metadata(told)
    with pq.ParquetWriter(sink, table.schema, **{"compression": COMPRESSION, **options}) as writer:
        writer.write_table(table)
        if not options.get("store_schema", True):  # pyarrow then leaves out the schema's metadata too
            writer.add_key_value_metadata(told)
    return sink.getvalue()


def decode(content: bytes, name: str, columns: Sequence[str] | None = None) -> gpd.GeoDataFrame | pd.DataFrame:
    """The frame in a (Geo)Parquet file's bytes; a GeoDataFrame if the file has geometry, and all columns are read.

    Raises:
        InputError: not a Parquet file, or without these columns; names the file by `name`.
    """
    try:
        with pq.ParquetFile(io.BytesIO(content)) as file:  # `read_table` is slow to start
            if lacking := set(columns or ()) - set(file.schema_arrow.names):
                raise pa.ArrowInvalid(f"column {', '.join(sorted(lacking))} is missing")
            if columns is not None or b"geo" not in (file.schema_arrow.metadata or {}):
                return file.read(columns).to_pandas()
        import geopandas as gpd

        frame = gpd.read_parquet(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: not a readable Parquet file ({error}). Materialise it again.") from error
    return frame.drop(columns="bbox", errors="ignore")


def flatgeobuf(frame: gpd.GeoDataFrame) -> bytes:
    """A frame as the bytes of a FlatGeobuf file; list columns become text, since the format has no lists."""
    import numpy as np

    flat = frame.copy()
    for column in flat.columns.difference([flat.geometry.name]):
        if any(isinstance(value, (list, tuple, np.ndarray)) for value in flat[column]):
            flat[column] = flat[column].map(", ".join)
    with tempfile.TemporaryDirectory(prefix="clay-") as folder:
        path = Path(folder) / "table.fgb"
        flat.to_file(path, driver="FlatGeobuf", engine="pyogrio")
        return path.read_bytes()
