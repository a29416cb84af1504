"""A STAC-GeoParquet snapshot as a catalogue: a file, a folder or a prefix below `s3://`.

Thousands of requests are answered in one pass: Parquet filters on collection, time and bounding box, then exact
geometry and the requests' property filters on the remaining rows. Needs no server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from clay_assets.catalogues.base import Answer
from clay_assets.catalogues.candidate_rows import ASSET, MOMENT, PROPERTY, UNCHANGED
from clay_assets.catalogues.candidates import CandidateTable, Collection
from clay_assets.catalogues.places import Places
from clay_assets.catalogues.snapshot_types import (
    SIDES,
    TIMES,
    check_columns,
    has_box,
    has_views,
    plain,
    whole_items,
)
from clay_assets.catalogues.stored_items import stored_items, wanted_fields
from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.grids import HALF_TURN
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.sources.downloads import names_in
from clay_assets.sources.static_stac import with_absolute_hrefs
from clay_assets.stac import Item, has_absolute_hrefs
from clay_assets.storage.untyped import UNTYPED
from clay_assets.transport.access import Access
from clay_assets.transport.locations import S3, is_s3, join, local_path, split_s3

Result = TypeVar("Result")

AT_ONCE = 2  # batches compared with the requests concurrently
# Arrow's own read-ahead would hold gigabytes of a large snapshot if rows are consumed more slowly than read.
READ_AHEAD = {"batch_size": 2**14, "batch_readahead": 4, "fragment_readahead": 1}
ROWS_AT_ONCE = 2**18  # rows of row groups read together
SUFFIXES = (".parquet", ".geoparquet")
HIDDEN = (".", "_")  # prefixes of files and folders that tools leave behind
BOX_ROUNDING = 1e-4  # degrees; boxes may have single precision
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
POLAR = 45.0  # latitude beyond which a box may belong to a ring around the pole


class SnapshotCatalogue:
    """A STAC-GeoParquet snapshot.

    Args:
        location: a Parquet file, a folder of them, or `s3://bucket/key-or-prefix`.
        access: how the snapshot is accessed.

    Raises:
        InputError: snapshot not found, or not STAC-GeoParquet.
    """

    def __init__(self, location: str, access: Access | None = None) -> None:
        self.location = location
        # A file without rows may lack the other files' columns.
        datasets = _open_files(location, access or Access())
        self.files = [_SnapshotFile(dataset, place) for place, dataset in datasets if dataset.count_rows()]
        for file in self.files:
            check_columns(file.schema, f"{location}: {file.dataset.files[0]}")

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers after one pass over the snapshot. Candidates have the fields needed for the choice."""
        for table in self._tables(platform, requests, hrefs=True):
            yield from table.answers()

    def tables(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[CandidateTable]:
        """Candidates as tables, each for some of the requests, after one pass over the snapshot."""
        return self._tables(platform, requests, hrefs=False)

    def _tables(self, platform: AnyPlatform, requests: Sequence[Request], *, hrefs: bool) -> Iterator[CandidateTable]:
        if not requests:
            return
        places = Places(requests)
        with Collection(platform, requests) as collection:
            for file in self.files:
                batches = file.scan(platform, places, hrefs=hrefs)
                for batch, (found, rows, numbers, unchanged) in _in_order(places.pairs, batches):
                    collection.add(batch, {MOMENT: found, UNCHANGED: unchanged}, (rows, numbers))
            yield from collection.groups()

    def doubts(self, platform: AnyPlatform, requests: Sequence[Request], found: int) -> list[str]:
        """A missing collection, or a missing column that the requests filter by."""
        if not requests:
            return []
        if not self.files:
            return [f"{self.location}: holds no item. Write the items of the catalogue into it."]
        wanted = platform.scenes.collection
        there = {name for file in self.files for name in file.collections(wanted)}
        if wanted is not None and wanted not in there:
            listed = ", ".join(sorted(map(str, there - {None}))) or "none"
            return [f"{self.location}: holds no item of collection {wanted}, but of {listed}. Check the address."]
        names = {name for request in requests for alternative in request.filters for name in alternative}
        return [
            f"{self.location}: no column {name}, which searches of {platform.key} filter by; only ids contain it. "
            "Write the snapshot with all properties."
            for name in sorted(names)
            if not any(name in file.names for file in self.files)
        ]

    def any_item(self, platform: AnyPlatform) -> Item | None:
        """The first item of the platform's collection."""
        for file in self.files:
            item = file.first(platform)
            if item is not None:
                return _as_found(item, file.place)
        return None

    def stored(self, platform: AnyPlatform, ids: Sequence[str]) -> list[Item]:
        """Those of the chosen items that can be made from columns in stored form."""
        whole: dict[str, Item] = {}
        left = set(ids)
        for file in self.files:
            there, items = file.stored(platform, sorted(left)) if left else (left, [])
            whole |= {item["id"]: item for item in items}
            left -= there
        return list(whole.values())

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The chosen candidates with all their fields in the snapshot."""
        if not items:
            return []
        ids = [item["id"] for item in items]
        whole: dict[str, Item] = {}
        for file in self.files:
            for item in file.items(platform, ids):
                whole.setdefault(item["id"], _as_found(item, file.place))  # the first of two with the same id
        return list(whole.values())


class _SnapshotFile:
    """One file of a snapshot. Each has its own schema: files may differ in properties and assets."""

    def __init__(self, dataset: ds.Dataset, place: str) -> None:
        self.dataset, self.place = dataset, place
        self.schema = pa.schema(
            [field.with_type(plain(field.type)) for field in dataset.schema], dataset.schema.metadata
        )
        self.names = set(self.schema.names)
        self.has_views = any(has_views(field.type) for field in dataset.schema)
        self._complete: set[str] | None = None

    def scan(self, platform: AnyPlatform, places: Places, *, hrefs: bool) -> Iterator[pa.RecordBatch]:
        """The items of a collection that requests may use, judging by its columns.

        Args:
            platform: the items' platform.
            places: the requests.
            hrefs: read the hrefs of assets, not only whether they exist.
        """
        condition = self._of(platform) & self._between(places.first, places.last) & self._near(places.bounds)
        for batch in self._batches(condition, self._columns(platform, hrefs)):
            if batch.num_rows:
                yield batch

    def first(self, platform: AnyPlatform) -> Item | None:
        """The first full item, reading little else."""
        found = next((batch for batch in self._batches(self._of(platform)) if batch.num_rows), None)
        return whole_items(pa.Table.from_batches([found.slice(0, 1).cast(self.schema)]))[0] if found else None

    def items(self, platform: AnyPlatform, ids: Sequence[str]) -> list[Item]:
        """Full items by their ids."""
        batches = self._batches(self._field("id").isin(ids) & self._of(platform))
        found = [batch.cast(self.schema) for batch in batches if batch.num_rows]
        return whole_items(pa.Table.from_batches(found)) if found else []

    def stored(self, platform: AnyPlatform, ids: Sequence[str]) -> tuple[set[str], list[Item]]:
        """Which of some items are in the file, and those that can be made from columns in stored form."""
        wanted = self._field("id").isin(ids) & self._of(platform)
        fields = wanted_fields(self.schema, platform)
        if fields is None:
            here = self._batches(wanted, {"id": self._field("id")})
            return {name for batch in here for name in batch["id"].to_pylist()}, []
        columns = {
            field.name: pc.field("assets", field.name.removeprefix(ASSET))
            if field.name.startswith(ASSET)
            else pc.field(field.name)
            for field in fields
        }
        found = [batch for batch in self._batches(wanted, columns) if batch.num_rows]
        if not found:
            return set(), []
        table = pa.Table.from_batches(found).cast(pa.schema(fields))
        names = table["id"].to_pylist()
        first = {name: row for row, name in reversed(list(enumerate(names)))}  # keeps the first of two with the same id
        if len(first) < len(names):
            table = table.take(pa.array(sorted(first.values())))
        return set(first), stored_items(table, platform)

    def collections(self, wanted: str | None) -> set[str | None]:
        """The collections of its items; `wanted` if it has no such column."""
        if "collection" not in self.names:
            return {wanted}
        columns = {"collection": self._field("collection")}
        return {name for batch in self._batches(pc.scalar(True), columns) for name in batch[0].unique().to_pylist()}

    def _batches(
        self, condition: pc.Expression, columns: Mapping[str, pc.Expression] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns, by default all, of the rows that satisfy a condition."""
        wanted = None if columns is None else dict(columns)
        try:
            if not self.has_views:
                for part in self._parts():
                    scanner = part.scanner(self.dataset.schema, columns=wanted, filter=condition, **READ_AHEAD)
                    yield from scanner.to_batches()
                return
            for batch in self.dataset.to_batches():  # Arrow cannot filter views
                table = pa.Table.from_batches([batch]).cast(self.schema)
                yield from ds.dataset(table).scanner(columns=wanted, filter=condition).to_batches()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"{self.dataset.files[0]}: the snapshot could not be read ({error}). "
                "Run again; if it persists, the file is damaged."
            ) from error

    def _parts(self) -> Iterator[ds.Fragment]:
        """The file in parts of some row groups; given all at once, Arrow reads a gigabyte ahead."""
        for fragment in self.dataset.get_fragments():
            sizes = [group.num_rows for group in fragment.row_groups]
            numbers = (np.cumsum([0, *sizes[:-1]]) // ROWS_AT_ONCE).tolist()
            for number in dict.fromkeys(numbers):
                yield fragment.subset(row_group_ids=[n for n, one in enumerate(numbers) if one == number])

    def _field(self, name: str) -> pc.Expression:
        """A column, cast to a plain type so that it can be compared."""
        field = pc.field(name)
        kind = self.schema.field(name).type
        return field if self.has_views or kind == self.dataset.schema.field(name).type else field.cast(kind)

    def _of(self, platform: AnyPlatform) -> pc.Expression:
        if platform.scenes.collection is not None and "collection" in self.names:
            return self._field("collection") == platform.scenes.collection
        return pc.scalar(True)

    def _columns(self, platform: AnyPlatform, hrefs: bool) -> dict[str, pc.Expression]:
        columns = {name: self._field(name) for name in ("id", "geometry", *TIMES) if name in self.names}
        for name in platform.rules.property_names:
            if name in self.names:
                columns[PROPERTY + name] = self._field(name)
        if UNTYPED in self.names:
            columns[UNTYPED] = self._field(UNTYPED)
        assets = self.schema.field("assets").type
        if pa.types.is_string(assets):
            return {**columns, "assets": self._field("assets")}
        for name in (*platform.asset_names, *platform.assets.aliases):
            if _has_href(assets, name):
                href = pc.field("assets", name, "href").cast(pa.string())
                there = pc.scalar("x") if self._all_have(name) else pc.utf8_slice_codeunits(href, 0, 1)
                columns[ASSET + name] = href if hrefs else there
        return columns

    def _all_have(self, asset: str) -> bool:
        """Whether, by the file's statistics, every item has the href of an asset, which then need not be read."""
        if self._complete is None:
            self._complete = _complete_columns(self.dataset)
        return f"assets.{asset}.href" in self._complete and "." not in asset

    def _between(self, first: int, last: int) -> pc.Expression:
        """A pre-filter for a period, as far as the columns' types can be compared; `moments` decides."""
        within, before = pc.scalar(False), pc.scalar(True)  # before: all previous columns are null
        for name in (name for name in TIMES if name in self.names):
            kind = self.schema.field(name).type
            if pa.types.is_null(kind):
                continue
            if not pa.types.is_timestamp(kind):
                return pc.scalar(True)
            since, until = (pa.scalar(_timestamp(moment, kind), kind) for moment in (first, last))
            within |= before & (pc.field(name) >= since) & (pc.field(name) <= until)
            before &= pc.field(name).is_null()
        return within

    def _near(self, bounds: NDArray[np.float64]) -> pc.Expression:
        """Whether a box may touch some bounds. Boxes of footprints across ±180 say little."""
        if not has_box(self.schema):
            return pc.scalar(True)
        west, south, east, north = map(float, bounds + np.array([-1, -1, 1, 1]) * BOX_ROUNDING)
        xmin, ymin, xmax, ymax = (pc.field("bbox", side) for side in SIDES)
        beside, above = (xmin > east) | (xmax < west), (ymin > north) | (ymax < south)
        around = (xmin > xmax) | (xmax - xmin > HALF_TURN) | (xmin < -HALF_TURN) | (xmax > HALF_TURN)
        polar = around & ((ymax > POLAR) | (ymin < -POLAR))
        return xmin.is_null() | polar | (~above & (around | ~beside))


def _complete_columns(dataset: ds.Dataset) -> set[str]:
    """Paths of the text columns without nulls and empty text, by the statistics of all row groups."""
    found: set[str] | None = None
    for fragment in dataset.get_fragments():
        told = fragment.metadata
        for group in map(told.row_group, range(told.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            here = {column.path_in_schema for column in columns if _is_complete(column)}
            found = here if found is None else found & here
    return found or set()


def _is_complete(column: pq.ColumnChunkMetaData) -> bool:
    if column.physical_type != "BYTE_ARRAY" or not column.is_stats_set:
        return False
    told = column.statistics
    known = told.has_null_count and told.has_min_max
    return bool(known and told.null_count == 0 and told.num_values == column.num_values and told.min)


def _has_href(assets: pa.StructType, name: str) -> bool:
    at = assets.get_field_index(name)
    if at < 0 or not pa.types.is_struct(assets.field(at).type):
        return False
    asset = assets.field(at).type
    return bool(asset.get_field_index("href") >= 0 and pa.types.is_string(asset.field("href").type))


def _as_found(item: Item, place: str) -> Item:
    """An item with absolute hrefs, resolved by its self link, or else by the address of its file."""
    return item if has_absolute_hrefs(item) else with_absolute_hrefs(with_absolute_hrefs(item), place)


def _in_order(
    function: Callable[[pa.RecordBatch], Result], batches: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch, Result]]:
    """Each batch and a function's result for it, in order; a few batches in parallel, as GEOS releases the GIL."""
    waiting: deque[tuple[pa.RecordBatch, Future[Result]]] = deque()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="snapshot") as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(function, batch)))
            if len(waiting) > AT_ONCE:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _is_of_snapshot(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.lower().endswith(SUFFIXES) and not any(part.startswith(HIDDEN) for part in parts)


def _timestamp(moment: int, kind: pa.TimestampType) -> int:
    """Milliseconds since 1970 in the unit of a column, rounded down."""
    return moment * PER_SECOND[kind.unit] // 1000


def _open_files(location: str, access: Access) -> list[tuple[str, ds.Dataset]]:
    """Address and dataset of each file of a snapshot."""
    single = location.lower().endswith(SUFFIXES)
    if is_s3(location):
        bucket, key = split_s3(location)
        filesystem, root = access.s3().filesystem(bucket), f"{bucket}/"
    else:
        path = local_path(location)
        single = single or path.is_file()
        filesystem, root, key = fs.LocalFileSystem(), "", str(path)
    try:
        names = [key] if single else list(filter(_is_of_snapshot, names_in(location, access, recursive=True)))
        if not names:
            raise InputError(f"{location}: no .parquet file here. Give a STAC-GeoParquet file, or a folder of them.")
        paths = [root + key] if single else [f"{root}{join(key, name) if key else name}" for name in names]
        scheme = S3 if is_s3(location) else ""
        return [(scheme + path, ds.dataset(path, filesystem=filesystem, format="parquet")) for path in paths]
    except FileNotFoundError as error:
        raise InputError(f"{location}: file not found. Check the address of the snapshot.") from error
    except ClayError:
        raise
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{location}: cannot be read as STAC-GeoParquet ({error}). Check the address.") from error
