"""A lazy selection of the chips of a merged index.

Only the manifest is read at first. On demand, the footers of files that may hold selected chips are read, then the row
groups that their statistics do not rule out. Chips keep the order of the files and their rows, so chip 0 is the same in
every process. Memory holds a few numbers per row group, however many chips there are, and the most recently used rows
up to a limit. Files that changed after the selection was made are detected.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import ArrayLike, NDArray

from clay_assets.chips.manifest import Part, read_manifest
from clay_assets.chips.releases import check_kept, read_release
from clay_assets.errors import IndexChangedError, InputError
from clay_assets.platforms import platform_of
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import stamp_of
from clay_assets.storage.stores import Store, open_store
from clay_assets.training.boxes import Box, bounds_touch, checked_box, may_touch, touches
from clay_assets.training.places import places_of

LARGE = {"chipid", "geometry", "bbox", "landcover"}  # columns that are not cached
SPLITS = ("train", "validate", "test", "buffer")
THREADS = 8  # that read row groups; they mostly wait for the storage
KEPT_BYTES = 64 << 20  # of the most recently used row groups
ORDERS_KEPT = 512  # row groups whose order by scene is cached, oldest dropped first
# Columns needed to locate a chip's pixels.
COLUMNS = ("platform", "year", "item_id", "chip_index_x", "chip_index_y", "datetime", "gsd")


@dataclass(frozen=True, eq=False)
class RowGroups:
    """The row groups that hold selected chips, in order.

    Attributes:
        part: index of the file in `Chips.parts`; int32, (groups,).
        number: number of the row group in its file; int32, (groups,).
        chips: number of selected chips in the row group, at least 1; int32, (groups,).
    """

    part: NDArray[np.int32]
    number: NDArray[np.int32]
    chips: NDArray[np.int32]

    def of_parts(self, parts: Sequence[int]) -> RowGroups:
        """The row groups of some files, as if there were no others."""
        kept = np.isin(self.part, parts)
        place = np.searchsorted(np.asarray(parts), self.part[kept]).astype(np.int32)
        return RowGroups(place, self.number[kept], self.chips[kept])


@dataclass
class _Opened:
    """Opened files by their index in `Chips.parts`, with their size and modification time when they were opened."""

    files: dict[int, tuple[ds.ParquetFileFragment, tuple[int, int | None]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Kept:
    """Columns of the most recently used row groups, by group and column names, up to `KEPT_BYTES`."""

    tables: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = field(default_factory=OrderedDict)
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[int, tuple[str, ...]]) -> pa.Table | None:
        with self.lock:
            if key in self.tables:
                self.tables.move_to_end(key)
            return self.tables.get(key)

    def keep(self, key: tuple[int, tuple[str, ...]], table: pa.Table) -> None:
        with self.lock:
            if key not in self.tables:
                self.tables[key] = table
                self.bytes += table.nbytes
            while self.bytes > KEPT_BYTES:
                self.bytes -= self.tables.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class Chips:
    """A selection of chips of a merged index, in the order of its files. Made by `open_chips`; small and picklable.

    Attributes:
        store: the storage root.
        parts: files that may hold selected chips, as the manifest lists them.
        splits: splits to select; None: all.
        where: a filter on the rows; None: all rows.
        bbox: west, south, east, north in degrees that chips must touch; west > east across ±180; None: anywhere.
        folder: folder of the files; a release has its own.

    Examples:
        >>> from clay_assets.training import Chips, open_chips
        >>> chips = open_chips("demo/storage", "sentinel-2-l2a")
        >>> isinstance(chips, Chips)
        True
        >>> chips.rows([0, 1], ["item_id", "chip_index_x", "chip_index_y"]).shape
        (2, 3)
    """

    store: Store
    parts: tuple[Part, ...]
    splits: tuple[str, ...] | None = None
    where: pc.Expression | None = None
    bbox: Box | None = None
    folder: str = layout.MERGED

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # without what was read

    def __len__(self) -> int:
        """Number of chips."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def __repr__(self) -> str:
        platforms = ", ".join(sorted({part.platform for part in self.parts})) or "no platform"
        return f"Chips({self.store.uri()}, {platforms}, of {sum(part.rows for part in self.parts):,} chips)"

    @property
    def hash(self) -> str:
        """Hash of the selected files' contents and the filters: equal hashes mean the same chips in the same order."""
        selected = str(self.splits), str(self.where), str(self.bbox)
        contents = "\n".join([*(part.content for part in self.parts), *selected])
        return hashlib.blake2b(contents.encode(), digest_size=16).hexdigest()

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All selected chips, in order.

        Args:
            columns: names of columns of the merged index; None: all.

        Raises:
            InputError: a column does not exist.
        """
        self.check_columns(columns)
        with ThreadPoolExecutor(THREADS) as pool:
            tables = pool.map(lambda group: self._selected(group, columns), range(self.group_count))
            return pa.concat_tables([self._schema(columns).empty_table(), *tables])

    def holding(self, points: NDArray[Any], columns: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Chips that contain the given points; only row groups whose bounding box contains a point are read.

        Args:
            points: shapely points in EPSG:4326; (n,).
            columns: columns to read.

        Yields:
            For each row group, the indices of point and chip, (2, matches), and the rows of the matches.
        """
        import shapely  # here, as most selections need no geometry

        self.check_columns(columns)
        names = [*dict.fromkeys([*columns, "geometry"])]
        lon, lat = shapely.get_x(points), shapely.get_y(points)
        for group, end in enumerate(self.ends.tolist()):
            if not _in_bounds(self._fragment(group), lon, lat).any():
                continue
            rows = self._selected(group, names)
            polygons = shapely.from_wkb(rows["geometry"].to_numpy())
            point, row = shapely.STRtree(polygons).query(points, predicate="intersects")
            if len(point):
                yield np.stack([point, end - rows.num_rows + row]), rows.select(list(columns)).take(pa.array(row))

    def rows(self, indices: ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
        """Chips by their indices in the selection, in the order requested; each row group is read once.

        Args:
            indices: from 0; negative ones count from the end; (n,).
            columns: as in `table`.

        Raises:
            IndexError: an index is out of range.
        """
        self.check_columns(columns)
        wanted = places_of(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        ends = np.searchsorted(wanted[order], self.ends)
        begins = np.concatenate([[0], ends[:-1]])
        touched = np.flatnonzero(ends > begins).tolist()

        def some(number: int) -> pa.Table:
            inside = wanted[order[begins[number] : ends[number]]] - self._before[number]
            return self._of_group(number, columns).take(pa.array(inside))

        with ThreadPoolExecutor(THREADS) as pool:
            tables = pool.map(some, touched) if len(touched) > 1 else map(some, touched)
            joined = pa.concat_tables([self._schema(columns).empty_table(), *_as_text(tables, self._schema(columns))])
        back = np.empty(len(wanted), np.int64)
        back[order] = np.arange(len(wanted))
        return joined.take(pa.array(back))

    def in_scenes(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Indices of chips from their positions in scene order: within each row group, scene by scene.

        A scene's chips in a row group follow a Morton curve (the bits of column and row, interleaved), so that
        consecutive chips share few blocks, whatever the block size.

        Args:
            positions: positions in scene order, from 0; (n,).
        """
        wanted = places_of(positions, len(self))
        group = np.searchsorted(self.ends, wanted, side="right")
        touched = np.unique(group).tolist()
        with ThreadPoolExecutor(THREADS) as pool:
            orders = dict(zip(touched, pool.map(self._order_in, touched), strict=True))
        found = np.empty(len(wanted), np.int64)
        for number, order in orders.items():
            here = group == number
            found[here] = self._before[number] + order[wanted[here] - self._before[number]]
        return found

    def _order_in(self, number: int) -> NDArray[np.int64]:
        """Rows of a row group, scene by scene and block by block."""
        kept = self._orders.get(number)
        if kept is None:
            rows = self._of_group(number, COLUMNS)
            x, y = (rows[name].to_numpy().astype(np.uint32) for name in ("chip_index_x", "chip_index_y"))
            scene = rows["item_id"].combine_chunks().indices.to_numpy()
            kept = self._orders[number] = np.lexsort((_spread(x) | _spread(y) << 1, scene)).astype(np.uint32)
            while len(self._orders) > ORDERS_KEPT:
                with suppress(KeyError, StopIteration):  # another thread removed it
                    del self._orders[next(iter(self._orders))]
        return kept.astype(np.int64)

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.uint32]]:
        return {}

    def _of_group(self, number: int, columns: Sequence[str] | None) -> pa.Table:
        """The selected rows of a row group; narrow reads are cached, with text as dictionaries."""
        if columns is None or {*columns} & LARGE:
            return self._selected(number, columns)
        key = number, tuple(columns)
        table = self._kept.get(key)
        if table is None:
            table = self._selected(number, columns)
            for place, (name, kind) in enumerate(zip(table.schema.names, table.schema.types, strict=True)):
                if pa.types.is_string(kind):
                    table = table.set_column(place, name, table[name].combine_chunks().dictionary_encode())
            self._kept.keep(key, table)
        return table

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept()

    def of_platform(self, platform: str) -> Chips:
        """The selected chips of one platform.

        Raises:
            InputError: the platform is unknown.
        """
        key = platform_of(platform).key
        places = [place for place, part in enumerate(self.parts) if part.platform == key]
        chips = replace(self, parts=tuple(self.parts[place] for place in places))
        if "groups" in self.__dict__:
            chips.know(self.groups.of_parts(places))
        return chips

    def find(self, item_id: str, x: int, y: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a scene's chip in column `x` and row `y`: none, one, or one for each platform that has it."""
        if not self.parts:
            return self._schema(columns).empty_table()
        this = (pc.field("item_id") == item_id) & (pc.field("chip_index_x") == x) & (pc.field("chip_index_y") == y)
        return replace(self, where=this if self.where is None else self.where & this).table(columns)

    @property
    def group_count(self) -> int:
        """Row groups that hold selected chips."""
        return len(self.groups.chips)

    def group_column(self, group: int, name: str) -> pa.ChunkedArray:
        """A column of the selected chips of one row group, in order."""
        return self._selected(group, [name])[name]

    @cached_property
    def _columns(self) -> pa.Schema:
        return self._file(0).physical_schema.remove_metadata() if self.parts else pa.schema([])

    @cached_property
    def _filter(self) -> pc.Expression | None:
        near = None if self.bbox is None else may_touch(self.bbox)
        of_splits = None if self.splits is None else pc.field("split").isin(self.splits)
        all_of = [one for one in (of_splits, near, self.where) if one is not None]
        return reduce(and_, all_of) if all_of else None

    @cached_property
    def groups(self) -> RowGroups:
        """The row groups that hold selected chips; counted now unless already known or stated in the manifest."""
        if self.is_told:
            return self._told()
        with ThreadPoolExecutor(THREADS) as pool:
            places = [place for place, part in enumerate(self.parts) if self._may_hold(part)]
            files = zip(places, pool.map(self._file, places), strict=True)
            found = [(place, group) for place, file in files for group in file.split_by_row_group(self._filter)]
            chips = pool.map(self._counted, [group for _, group in found])
            table = [
                (place, group.row_groups[0].id, count)
                for (place, group), count in zip(found, chips, strict=True)
                if count
            ]
        return RowGroups(*np.array(table, np.int32).reshape(-1, 3).T)

    def _may_hold(self, part: Part) -> bool:
        """Whether a part may hold chips in the box; a part without bounds in the manifest is opened."""
        return self.bbox is None or not part.bbox or bounds_touch(part.bbox, self.bbox)

    @property
    def is_told(self) -> bool:
        """Whether the manifest states how many chips each row group has."""
        return self.where is None and self.bbox is None and all(map(_tells, self.parts))

    def _told(self) -> RowGroups:
        names = self.splits or SPLITS
        told = [np.array([part.row_groups[name] for name in names], np.int32) for part in self.parts]
        of_parts: list[NDArray[np.int32]] = [counts.sum(axis=0, dtype=np.int32) for counts in told]
        part = np.repeat(np.arange(len(of_parts), dtype=np.int32), [len(chips) for chips in of_parts])
        number = np.concatenate([np.empty(0, np.int32), *(np.arange(len(chips)) for chips in of_parts)])
        chips = np.concatenate([np.empty(0, np.int32), *of_parts])
        some = chips > 0
        return RowGroups(part[some], number[some].astype(np.int32), chips[some])

    def know(self, groups: RowGroups) -> None:
        """Use row groups counted earlier for the same hash instead of counting again."""
        self.__dict__["groups"] = groups

    def _counted(self, fragment: ds.ParquetFileFragment) -> int:
        if self.bbox is not None:
            return int(self._filtered(fragment, ["chip_index_x"]).num_rows)
        if self._filter is None:  # without a filter, `count_rows` counts the whole file
            return int(fragment.row_groups[0].num_rows)
        return int(fragment.count_rows(filter=self._filter))

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Cumulative number of selected chips at the end of each row group; (groups,)."""
        return np.cumsum(self.groups.chips, dtype=np.int64)

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        return self.ends - self.groups.chips

    def _fragment(self, group: int) -> ds.ParquetFileFragment:
        """One of the row groups; its file is opened on first use.

        Raises:
            IndexChangedError: the file is not the one that the selection was made from.
        """
        return self._file(int(self.groups.part[group])).subset(row_group_ids=[int(self.groups.number[group])])

    def _file(self, place: int) -> ds.ParquetFileFragment:
        part, files = self.parts[place], self.store.filesystem()
        key = f"{self.folder}/{part.path}"
        info = files.get_file_info(key)
        now = info.size, info.mtime_ns
        with self._opened.lock:
            known = self._opened.files.get(place)
        if known is None and now[0] == part.bytes:
            fragment = ds.ParquetFileFormat().make_fragment(key, files)
            try:
                fragment.ensure_complete_metadata()
                stamp = stamp_of(pa.schema([], fragment.metadata.metadata))
            except (pa.ArrowInvalid, OSError) as error:
                raise InputError(
                    f"{self.store.uri(key)}: cannot be read ({error}). Materialise merged_index."
                ) from error
            if fragment.metadata.num_rows == part.rows and stamp.get("inputs", part.inputs) == part.inputs:
                known = fragment, now
                with self._opened.lock:
                    self._opened.files[place] = known
        if known is None or known[1] != now:
            raise IndexChangedError(
                f"{self.store.uri(key)}: changed since the chips were selected. Call open_chips again; earlier "
                "states are of other chips."
            )
        return known[0]

    @cached_property
    def _opened(self) -> _Opened:
        return _Opened()

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        schema = self._columns
        return schema if columns is None else pa.schema([schema.field(name) for name in columns])

    def check_columns(self, columns: Sequence[str] | None) -> None:
        """Raise an error for columns missing from the merged index, and for a selection without files.

        Raises:
            InputError: names the columns.
        """
        if not self.parts:
            raise InputError(f"{self.store.uri()}: no chip is selected. Select another platform, year or place.")
        unknown = sorted(set(columns or ()) - set(self._columns.names))
        if unknown:
            known = ", ".join(self._columns.names)
            raise InputError(f"{', '.join(unknown)}: no such column of the merged index. There are {known}.")

    def _selected(self, group: int, columns: Sequence[str] | None) -> pa.Table:
        """The selected rows of a row group, in order."""
        return self._filtered(self._fragment(group), columns)

    def _filtered(self, fragment: ds.ParquetFileFragment, columns: Sequence[str] | None) -> pa.Table:
        names = list(self._columns.names if columns is None else columns)
        if self.bbox is None:
            return fragment.to_table(columns=names, filter=self._filter).replace_schema_metadata(None)
        table = fragment.to_table(columns=[*{*names, "bbox", "geometry"}], filter=self._filter)
        return table.filter(pa.array(touches(table, self.bbox))).select(names).replace_schema_metadata(None)


def _spread(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The low 16 bits of the numbers, with a zero before each bit."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        numbers = (numbers | numbers << np.uint32(shift)) & np.uint32(mask)
    return numbers


def _as_text(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The tables with a schema's types, without dictionaries."""
    for table in tables:
        yield table.cast(schema) if table.schema != schema else table


def _in_bounds(
    fragment: ds.ParquetFileFragment, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points lie in the bounding box of a row group, by its statistics; all points if it has none."""
    inside = np.ones(len(lon), np.bool_)
    metadata = fragment.metadata.row_group(fragment.row_groups[0].id)
    for number in range(metadata.num_columns):
        column = metadata.column(number)
        side, statistics = column.path_in_schema.removeprefix("bbox."), column.statistics
        if column.path_in_schema == side or statistics is None or not statistics.has_min_max:
            continue
        value = lon if side.startswith("x") else lat
        inside &= value >= statistics.min if side.endswith("min") else value <= statistics.max
    return inside


def open_chips(
    storage: str | Path | Store,
    platform: str | Iterable[str] | None = None,
    *,
    bbox: Box | None = None,
    years: int | Iterable[int] | None = None,
    split: str | Iterable[str] | None = None,
    where: pc.Expression | None = None,
    release: str | None = None,
) -> Chips:
    """Select chips of the merged index under a storage root; only its manifest is read for now.

    Args:
        storage: the storage root: a folder or `s3://bucket/prefix`, as in `CLAY_STORAGE`, or an open store.
        platform: platform key or keys; None: all.
        bbox: west, south, east, north in degrees; chips that touch it are selected. West > east lies across ±180.
        years: years of acquisition; None: all.
        split: one or more of `train`, `validate`, `test`, `buffer`; None: all.
        where: a pyarrow expression over the columns of the merged index, such as
            `pc.field("cloud_cover_percentage") < 0.1`.
        release: name of a release to select from; None: the current merged index.

    Raises:
        InputError: the merged index is missing, a platform, split or release is unknown, the box is invalid, or a
            needed part of the release is gone.

    Examples:
        >>> import pyarrow.compute as pc
        >>> from clay_assets import open_chips
        >>> clear = pc.field("nodata_percentage") == 0
        >>> chips = open_chips("demo/storage", "sentinel-2-l2a", years=[2020, 2021], split="train", where=clear)
        >>> chips.table(["chipid", "geometry"]).num_rows == len(chips)
        True
    """
    store = storage if isinstance(storage, Store) else open_store(str(storage))
    released = None if release is None else read_release(store, release)
    parts = read_manifest(store) if released is None else released.parts
    if not parts:
        raise InputError(f"{store.uri(layout.MANIFEST)}: merged index not found. Materialise merged_index.")
    if platform is not None:
        keys = {platform_of(key).key for key in _several(platform)}
        parts = [part for part in parts if part.platform in keys]
    if years is not None:
        wanted = {int(year) for year in _several(years)}
        parts = [part for part in parts if part.year in wanted]
    names = None
    if split is not None:
        names = tuple(sorted({*_several(split)}))
        unknown = sorted({*names} - {*SPLITS})
        if unknown:
            raise InputError(f"split {', '.join(unknown)}: no such split. There are {', '.join(SPLITS)}.")
    box = None if bbox is None else checked_box(bbox)
    if released is not None:
        check_kept(store, released, parts)
    folder = layout.MERGED if released is None else layout.RELEASES
    return Chips(store, tuple(parts), names, where, box, folder)


def _tells(part: Part) -> bool:
    """Whether the manifest states the row group and split of every chip of a part."""
    return {*part.row_groups} == {*SPLITS} and sum(map(sum, part.row_groups.values())) == part.rows


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, (str, int)) else list(value)
