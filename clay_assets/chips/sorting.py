"""A stream of chips in the order of a Hilbert curve, as one GeoParquet file.

The sort is DuckDB's, which spills to disk, so memory does not grow with the number of chips. Row groups are small
enough that a query by bounding box reads few of them. Which chips belong in which file is for `merge` to say.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import duckdb
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clay_assets.chips.index import BBOX, DICTIONARIES, GEOMETRY_TYPES, MERGED_SCHEMA
from clay_assets.errors import StorageError
from clay_assets.storage.geoparquet import COMPRESSION, geo_metadata

ROW_GROUP_ROWS = 16_384  # about 1 MB compressed: few bytes for a small query, few requests for a large one
HILBERT_LEVEL = 16  # bits per axis: cells of 0.005° of longitude, smaller than a chip of any platform but NAIP
WORLD = (-180.0, -90.0, 180.0, 90.0)
SORT_MEMORY = "1GB"
SORT_THREADS = 2

# What DuckDB carries through the sort; times travel as numbers, so that no time zone is involved.
_CARRIED = {"datetime": pa.int64()}
SORTED_SCHEMA = pa.schema(
    [
        *(pa.field(field.name, _CARRIED.get(field.name, field.type)) for field in MERGED_SCHEMA),
        pa.field("hilbert", pa.uint32()),
    ]
)


def hilbert_keys(bbox: pa.StructArray) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Distance along a Hilbert curve over the world of each bounding box's centre, uint32."""
    west, south, east, north = (pc.struct_field(bbox, side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax"))
    # A chip split at the antimeridian spans the world; its place on the curve is the antimeridian.
    x = np.where(east - west > WORLD[2], WORLD[2], (west + east) / 2)
    points = gpd.GeoSeries(gpd.points_from_xy(x, (south + north) / 2))
    keys = points.hilbert_distance(total_bounds=WORLD, level=HILBERT_LEVEL)
    return cast("np.ndarray[Any, np.dtype[np.uint32]]", keys.to_numpy().astype(np.uint32))


def with_hilbert_keys(table: pa.Table, year: int) -> pa.Table:
    """A scene's chips as `write_sorted` takes them: with the year of their partition and their places on the curve.

    Args:
        table: the chip index, and after its columns those that the merged index has besides.
        year: of the partition.
    """
    table = table.replace_schema_metadata(None)
    position = table.schema.get_field_index("datetime")
    table = table.set_column(position, "datetime", table["datetime"].cast(pa.int64()))
    table = table.add_column(position, "year", pa.repeat(pa.scalar(year, pa.int16()), table.num_rows))
    keys = hilbert_keys(table["bbox"].combine_chunks())
    return table.append_column("hilbert", pa.array(keys)).cast(SORTED_SCHEMA)


def write_sorted(batches: Iterator[pa.RecordBatch], path: Path, spill: Path, metadata: Mapping[bytes, bytes]) -> int:
    """Sort a stream of chips along the Hilbert curve and write it as one GeoParquet file.

    Args:
        batches: of `SORTED_SCHEMA`, in any order.
        path: file to write.
        spill: folder for what does not fit the memory of the sort.
        metadata: key-value metadata of the file, beside `geo`.

    Returns:
        The number of rows.

    Raises:
        StorageError: the sort failed, most likely for want of room in `spill`.
        Exception: whatever the batches raised.
    """
    extent = _Extent()
    rows = 0
    source = _Remembering(batches)
    with source.own_errors(spill), duckdb.connect(config=_duckdb_config(spill)) as connection:
        connection.register("chips", pa.RecordBatchReader.from_batches(SORTED_SCHEMA, source))
        ordered = connection.sql("SELECT * EXCLUDE hilbert FROM chips ORDER BY hilbert, chipid")
        options = {"compression": COMPRESSION, "use_dictionary": DICTIONARIES, "write_page_index": True}
        with pq.ParquetWriter(path, MERGED_SCHEMA, store_schema=False, **options) as writer:
            for table in _row_groups(ordered.to_arrow_reader(ROW_GROUP_ROWS)):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
                extent.add(table)
                rows += table.num_rows
            entries = {b"geo": extent.metadata(), **metadata}
            # Where a file has an Arrow schema, Arrow readers take metadata from it alone; the extent is known only now.
            arrow = base64.b64encode(MERGED_SCHEMA.with_metadata(entries).serialize().to_pybytes())
            writer.add_key_value_metadata({**entries, b"ARROW:schema": arrow})
    return rows


class _Remembering:
    """Batches whose error is remembered: on its way through DuckDB it would lose its class and gain a stack trace."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self.batches = batches
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.batches
        except BaseException as error:
            self.error = error
            raise

    @contextmanager
    def own_errors(self, spill: Path) -> Iterator[None]:
        """Raise what the batches raised in place of what was made of it."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            if self.error is not None:
                raise self.error from None
            raise StorageError(f"chips cannot be sorted in {spill}: {error}. Check that there is room.") from error


class _Extent:
    """Geometry types and bounds of tables that pass by."""

    def __init__(self) -> None:
        self.types: set[int] = set()
        self.bounds: list[float] | None = None

    def add(self, table: pa.Table) -> None:
        # In WKB a geometry's type follows the byte-order mark; its low byte comes first, and 3 and 6 need no other.
        self.types |= {kind[0] for kind in pc.binary_slice(table["geometry"], 1, 2).unique().to_pylist()}
        west, south, east, north = (pc.struct_field(table["bbox"], side.name) for side in BBOX)
        here = [pc.min(west).as_py(), pc.min(south).as_py(), pc.max(east).as_py(), pc.max(north).as_py()]
        before = self.bounds or here
        self.bounds = [*map(min, before[:2], here[:2]), *map(max, before[2:], here[2:])]

    def metadata(self) -> bytes:
        return geo_metadata([GEOMETRY_TYPES[number] for number in self.types], self.bounds)


def _row_groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The stream cut into tables of exactly one row group (the last may be shorter), in the contract's types."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in reader:
        held.append(batch)
        count += batch.num_rows
        while count >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(held)
            yield _contracted(table.slice(0, ROW_GROUP_ROWS))
            held = table.slice(ROW_GROUP_ROWS).to_batches()
            count -= ROW_GROUP_ROWS
    if count:
        yield _contracted(pa.Table.from_batches(held))


def _contracted(table: pa.Table) -> pa.Table:
    columns = [table[field.name].combine_chunks().cast(field.type) for field in MERGED_SCHEMA]
    return pa.Table.from_arrays(columns, schema=MERGED_SCHEMA)


def _duckdb_config(spill: Path) -> dict[str, str]:
    return {
        "memory_limit": SORT_MEMORY,
        "threads": str(SORT_THREADS),
        "temp_directory": str(spill),
        "preserve_insertion_order": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
