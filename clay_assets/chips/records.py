"""Chips as fixed-width records for the merge to sort, made from scenes whose files are read and checked.

Records are moved whole, so they are cheap to sort and to spill. They omit what follows from the scene (its item id) or
from the rest of the record (the chip's id). A quadrilateral is stored as its corners; the few other geometries, as at
the antimeridian, are stored separately. Many scenes are read together, so that checks, splits and positions on the
Hilbert curve are computed for a hundred thousand chips at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.chips.blocks import extents_of
from clay_assets.chips.grid import CORNERS
from clay_assets.chips.hilbert import keys_of
from clay_assets.chips.index import CHIP_SCHEMA, WKB_OF_RING, as_chips
from clay_assets.chips.landcover import SHARE_SCHEMA, land_cover_of
from clay_assets.chips.leaks import Painted, painted
from clay_assets.chips.rules import AGAIN, SUM_TOLERANCE, check_chips, land_cover_off, shares_sum_to_one
from clay_assets.chips.splits import SPLIT_NAMES, GroundSplits
from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.storage.geoparquet import METADATA_PREFIX
from clay_assets.storage.stores import Store

CLASSES = len(WORLDCOVER_FIELDS)
SHARES_READ = pa.schema([SHARE_SCHEMA.field(name) for name in SHARE_SCHEMA.names if name != "chipid"])
CHIP_COLUMNS = {name: number for number, name in enumerate(CHIP_SCHEMA.names)}  # in Parquet; `bbox`, of four, is last
RECORD = np.dtype(
    [
        ("hilbert", "<u4"),  # position on the curve
        ("scene", "<u4"),  # number of the scene in its cell
        ("x", "<u2"),
        ("y", "<u2"),
        ("datetime", "<i8"),  # ms since 1970
        ("date", "<i4"),  # days since 1970
        ("cloud", "<f4"),
        ("nodata", "<f4"),
        ("gsd", "<f4"),
        ("bbox", "<f8", 4),
        ("xy", "<f8", (CORNERS, 2)),  # corners of the ring
        ("odd", "<u4"),  # number, from 1, of a geometry stored separately; 0: the ring
        ("landcover", "u1", CLASSES),
        ("landcover_class", "u1"),  # 0: none
        ("split", "u1"),
    ]
)
_RING = np.array([(1, 3, 1, CORNERS, 0)], WKB_OF_RING)
# What precedes the corners, 13 bytes, as two overlapping numbers, which are compared at once.
RING_HEAD = _RING.view(
    np.dtype({"names": ["first", "last"], "formats": ["<u8"] * 2, "offsets": [0, 5], "itemsize": WKB_OF_RING.itemsize})
)[0]
FINGERPRINT = f"{METADATA_PREFIX}fingerprint".encode()
LAND_COVER_AGAIN = "Delete it and materialise chip_landcover again."
ROWS_OF_JOB, SCENES_OF_JOB = 131_072, 400

Records = NDArray[np.void]
Encoded = tuple[str, bytes]


@dataclass(frozen=True)
class SceneJob:
    """One scene: chips in the ledger, and key and fingerprint of its chip index and land cover; None: skipped."""

    item_id: str
    rows: int
    chips: tuple[str, str]
    land_cover: tuple[str, str] | None


@dataclass(frozen=True)
class ScenesJob:
    """Scenes that are read together.

    Attributes:
        first: number of the first scene in the cell.
        scenes: the scenes in the order of their chips' ids.
        mixed: whether chip ids of one scene may sort between those of another, as for scenes `A` and `A-1`.
    """

    first: int
    scenes: tuple[SceneJob, ...]
    mixed: bool


@dataclass(frozen=True)
class Source:
    """Where scenes are read from, and what affects the columns joined to their chips.

    Attributes:
        chips: storage of the chip indexes.
        land_cover: storage of their land cover.
        platform: platform key.
        ground: the splits.
        min_valid_share: see `land_cover_of`.
    """

    chips: Store
    land_cover: Store
    platform: str
    ground: GroundSplits
    min_valid_share: float


@dataclass(frozen=True)
class Run:
    """Chips of some scenes, ordered by the curve, then by id.

    Attributes:
        records: array of `RECORD`.
        odd: WKB of the geometries that records refer to by number.
        painted: what the gate paints for them.
        splits: number of chips in each split.
    """

    records: Records
    odd: list[bytes]
    painted: Painted
    splits: NDArray[np.int64]


def in_order_of_ids(scenes: Sequence[SceneJob]) -> list[SceneJob]:
    """Scenes in the order of their chips' ids, where a hyphen follows the scene's id."""
    return sorted(scenes, key=lambda scene: f"{scene.item_id}-".encode(errors="surrogatepass"))


def jobs_of(scenes: Sequence[SceneJob]) -> Iterator[ScenesJob]:
    """Group scenes, ordered by `in_order_of_ids`, into jobs of similar size; scenes whose ids mix stay together."""
    held: list[SceneJob] = []
    first, rows, mixed, stem = 0, 0, False, ""
    for number, scene in enumerate(scenes):
        follows = bool(stem) and f"{scene.item_id}-".startswith(stem)
        if held and not follows and (rows + scene.rows > ROWS_OF_JOB or len(held) >= SCENES_OF_JOB):
            yield ScenesJob(first, tuple(held), mixed)
            held, first, rows, mixed = [], number, 0, False
        if not follows:
            stem = f"{scene.item_id}-"
        held.append(scene)
        rows += scene.rows
        mixed |= follows
    if held:
        yield ScenesJob(first, tuple(held), mixed)


# ---- reading ----


class _Places(NamedTuple):
    """Columns and rows of a scene's chips, which many scenes of a platform share.

    Attributes:
        x, y: columns and rows.
        suffixes: `-x-y` for each chip.
        order: order of the chips by id.
        repeated: whether two chips have the same column and row.
    """

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    suffixes: pa.StringArray
    order: NDArray[np.int64]
    repeated: bool


class _LandCover(NamedTuple):
    """Land cover of chips: class shares, NaN without land cover (classes, n), and the valid share (n,)."""

    shares: NDArray[np.float32]
    covered: NDArray[np.float32]


def read_scenes(source: Source, job: ScenesJob) -> Run:
    """Read, check and sort the chips of some scenes, with their land cover and splits.

    Raises:
        InputError: a file is unreadable or does not match its ledger, or its chips or land cover are invalid.
    """
    ends = np.cumsum([scene.rows for scene in job.scenes])
    rows = int(ends[-1])
    records = np.zeros(rows, RECORD)
    geometry: list[pa.Array] = []
    shares: list[pa.Table] = []
    order = np.empty(rows, np.int64)
    odd: list[bytes] = []
    ids: list[pa.Array] = []
    known = _Known.nothing()
    for number, (scene, end) in enumerate(zip(job.scenes, ends.tolist(), strict=True)):
        here = slice(end - scene.rows, end)
        records["scene"][here] = job.first + number
        chipids, found, file = _read_chips(source, scene, records[here], geometry, known)
        order[here] = here.start + found.order
        if job.mixed:
            ids.append(chipids)
        shares.append(_read_land_cover(source, scene, chipids, file, known))
    _fill_geometry(pa.concat_arrays(geometry), records, odd)
    land_cover = _land_cover(shares)

    def stop(bad: NDArray[np.bool_], fact: str) -> None:
        if bad.any():
            scene = job.scenes[int(np.searchsorted(ends, int(np.flatnonzero(bad)[0]), side="right"))]
            check_exactly(source, scene)
            raise InputError(f"{source.chips.uri(scene.chips[0])}: {fact}. {AGAIN}")

    off = ~(records["gsd"] > 0)
    for name in ("cloud", "nodata"):
        off |= ~((records[name] >= 0) & (records[name] <= 1))
    stop(off, "has values that cannot be")
    bounds, extents = _extents(records, odd, stop)
    stop(np.asarray(~np.isfinite(extents).all(axis=0)), "has chips without a place")
    stop(_shares_off(land_cover), "has land cover that cannot be")
    percent, records["landcover_class"] = land_cover_of(*land_cover, source.min_valid_share)
    for number in range(CLASSES):
        records["landcover"][:, number] = percent[number]
    records["split"] = source.ground.codes_of(*extents)
    records["hilbert"] = keys_of(bounds)
    if job.mixed:
        order = pc.sort_indices(pa.chunked_array(ids, pa.string())).to_numpy().astype(np.int64)
    to_paint = painted(bounds, records["split"], lambda wide: _polygons(records[wide], odd))
    splits = np.bincount(records["split"], minlength=len(SPLIT_NAMES))
    return Run(records.take(order.take(order_of(records["hilbert"].take(order)))), odd, to_paint, splits)


def order_of(keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The order of rows by position on the curve; rows at the same position keep theirs."""
    ranked = keys.astype(np.uint64) << np.uint64(32) | np.arange(len(keys), dtype=np.uint64)
    ranked.sort()  # numbers sort several times faster than their indices
    return np.asarray((ranked & np.uint64(0xFFFFFFFF)).astype(np.int64))


def check_exactly(source: Source, scene: SceneJob) -> None:
    """Check one scene's chips and land cover against all rules, and report what is wrong.

    Raises:
        InputError: see `read_scenes`.
    """
    name = source.chips.uri(scene.chips[0])
    table = as_chips(_file(source.chips, *scene.chips, "chip_index").read())
    check_chips(table, source.platform, scene.item_id, name)
    if table.num_rows != scene.rows:
        raise InputError(
            f"{name}: holds {table.num_rows} chips, its ledger says {scene.rows}. "
            "Materialise chip_index of this partition again."
        )
    if scene.land_cover is None:
        return
    name = source.land_cover.uri(scene.land_cover[0])
    shares = _file(source.land_cover, *scene.land_cover, "chip_landcover").read()
    if not shares.schema.equals(SHARE_SCHEMA):
        raise InputError(f"{name}: its columns are not those of land cover. {LAND_COVER_AGAIN}")
    if not shares["chipid"].equals(table["chipid"]):
        raise InputError(f"{name}: its chips are not those of the chip index. {LAND_COVER_AGAIN}")
    shares_sum_to_one(shares).raise_if_violated(name, LAND_COVER_AGAIN)


class _File(NamedTuple):
    """A scene's file.

    Attributes:
        store, key, asset: where it is, and the asset that makes it.
        content: its bytes.
        parquet: its reader.
        group: metadata of its row group; None unless it has exactly one.
    """

    store: Store
    key: str
    asset: str
    content: bytes
    parquet: pq.ParquetFile
    group: pq.RowGroupMetaData | None

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all columns, or some."""
        try:
            return self.parquet.read(columns, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(self.store, self.key, self.asset, error) from error

    def is_constant(self, name: str, value: Any) -> bool:
        """Whether a column holds nothing but a value (text or whole number), as far as its statistics tell."""
        found = self.group.column(CHIP_COLUMNS[name]).statistics if self.group is not None else None
        if found is None or not found.has_min_max or not found.has_null_count or found.null_count:
            return False
        return bool(found.min_raw == value and found.max_raw == value)  # a float could still hide NaN

    def smallest(self, name: str) -> Any:
        """The least value of a column as Parquet stores it, according to its statistics; None if it has none."""
        found = self.group.column(CHIP_COLUMNS[name]).statistics if self.group is not None else None
        return None if found is None or not found.has_min_max else found.min_raw

    def encoded(self, first: int, last: int) -> Encoded | None:
        """Codec and bytes of neighbouring columns of the file: if they are equal, so are the values of equal types."""
        if self.group is None:
            return None
        start, end = self.group.column(first), self.group.column(last)
        return start.compression, self.content[_start(start) : _start(end) + end.total_compressed_size]


def _start(column: pq.ColumnChunkMetaData) -> int:
    return int(column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset)


def _file(store: Store, key: str, fingerprint: str, asset: str) -> _File:
    """A file, checked against its ledger."""
    try:
        content = store.read(key)
        parquet = pq.ParquetFile(pa.BufferReader(content))
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise _unreadable(store, key, asset, error) from error
    metadata = parquet.metadata
    if (metadata.metadata or {}).get(FINGERPRINT) != fingerprint.encode():
        raise InputError(f"{store.uri(key)}: changed after its ledger was written. Materialise {asset} again.")
    group = metadata.row_group(0) if metadata.num_row_groups == 1 else None
    return _File(store, key, asset, content, parquet, group)


def _unreadable(store: Store, key: str, asset: str, error: Exception) -> InputError:
    return InputError(f"{store.uri(key)}: cannot be read ({error}). Materialise {asset} again.")


@cache
def _stored_schema(of_chips: bool) -> pq.ParquetSchema:
    """What Parquet stores of the schema of chip indexes, or of their land cover."""
    sink = pa.BufferOutputStream()
    pq.write_table((CHIP_SCHEMA if of_chips else SHARE_SCHEMA).empty_table(), sink)
    return pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema


class _Repeats:
    """Columns that several scenes share, such as those of scenes at one place, which are decoded once.

    Columns are neighbours in the file, and are recognised by their encoded bytes.
    """

    def __init__(self, names: Sequence[str], first: int) -> None:
        self.names = list(names)
        self._first, self._last = first, first + len(names) - 1
        self._known: dict[Encoded, Any] = {}

    def find(self, file: _File) -> tuple[Encoded | None, Any]:
        """The columns' bytes, and what was added for them, or None."""
        encoded = file.encoded(self._first, self._last)
        return encoded, None if encoded is None else self._known.get(encoded)

    def add(self, encoded: Encoded | None, found: Any) -> None:
        """Keep what was made of the columns."""
        if encoded is not None:
            self._known[encoded] = found


class _Known(NamedTuple):
    """Columns that scenes of a job share."""

    places: _Repeats
    sizes: _Repeats
    geometry: _Repeats
    shares: _Repeats

    @classmethod
    def nothing(cls) -> _Known:
        return cls(
            _Repeats(["chip_index_x", "chip_index_y"], CHIP_COLUMNS["chip_index_x"]),
            _Repeats(["nodata_percentage", "gsd"], CHIP_COLUMNS["nodata_percentage"]),
            _Repeats(["geometry"], CHIP_COLUMNS["geometry"]),
            _Repeats(SHARES_READ.names, 1),
        )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


def _read_chips(
    source: Source, scene: SceneJob, records: Records, geometry: list[pa.Array], known: _Known
) -> tuple[pa.Array, _Places, _File]:
    """Fill a scene's records from its chip index, in file order, and append its geometry.

    The bounding boxes in the file are not read: those of the geometries are computed.

    Returns:
        Its chip ids, their columns and rows, and the file.
    """
    file = _file(source.chips, *scene.chips, "chip_index")

    def stop(fact: str) -> NoReturn:
        check_exactly(source, scene)
        raise InputError(f"{source.chips.uri(scene.chips[0])}: {fact}. {AGAIN}")

    if not file.parquet.schema.equals(_stored_schema(True)) or file.parquet.metadata.num_rows != scene.rows:
        stop("is not a chip index")
    repeated = [(one, *one.find(file)) for one in (known.places, known.sizes, known.geometry)]
    wanted = [
        "chipid",
        "cloud_cover_percentage",
        *(name for one, _, had in repeated if had is None for name in one.names),
    ]
    constants = {"platform": source.platform.encode(), "item_id": scene.item_id.encode()}
    constants |= {name: file.smallest(name) for name in ("datetime", "date")}
    varying = [name for name, value in constants.items() if not file.is_constant(name, value)]
    table = file.read([*wanted, *varying])
    columns = {name: _whole(column) for name, column in zip(table.schema.names, table.columns, strict=True)}
    if any(column.null_count for column in columns.values()):
        stop("has null values")
    for name in varying:
        values = _decoded(columns[name])
        if name in ("platform", "item_id"):
            if pc.unique(values).to_pylist() not in ([], [constants[name].decode()]):
                stop(f"has chips of another {name}")
        else:
            constants[name] = values.cast(pa.int64() if name == "datetime" else pa.int32()).to_numpy()
    (_, of_places, places), (_, of_sizes, sizes), (_, of_geometry, wkb) = repeated
    if places is None:
        places = _places(columns["chip_index_x"].to_numpy(), columns["chip_index_y"].to_numpy())
        known.places.add(of_places, places)
    if sizes is None:
        sizes = columns["nodata_percentage"].to_numpy(), columns["gsd"].to_numpy()
        known.sizes.add(of_sizes, sizes)
    if wkb is None:
        wkb = columns["geometry"]
        known.geometry.add(of_geometry, wkb)
    geometry.append(wkb)
    chipids = columns["chipid"]
    if places.repeated or not chipids.equals(
        pc.binary_join_element_wise(pa.scalar(scene.item_id), places.suffixes, "")
    ):
        stop("has chip ids that are not of its scene")
    records["x"], records["y"] = places.x, places.y
    records["datetime"], records["date"] = constants["datetime"], constants["date"]
    records["cloud"] = columns["cloud_cover_percentage"].to_numpy()
    records["nodata"], records["gsd"] = sizes
    return chipids, places, file


def _fill_geometry(wkb: pa.BinaryArray, records: Records, odd: list[bytes]) -> None:
    _, offsets, data = wkb.buffers()
    if not len(wkb):
        return
    starts = np.frombuffer(offsets, np.int32)[wkb.offset : wkb.offset + len(wkb) + 1]
    size = WKB_OF_RING.itemsize
    content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    simple = np.diff(starts) == size
    if simple.all():
        rings = content[starts[0] : starts[-1]].reshape(-1, size)
    else:
        rings = np.zeros((len(wkb), size), np.uint8)
        rings[simple] = content[starts[:-1][simple, None] + np.arange(size)]
    told = rings.reshape(-1).view(WKB_OF_RING)
    xy = told["xy"]
    head = rings.reshape(-1).view(RING_HEAD.dtype)
    for name in RING_HEAD.dtype.names or ():
        simple &= head[name] == RING_HEAD[name]
    for axis in (0, 1):
        simple &= xy[:, 0, axis] == xy[:, -1, axis]
    records["xy"] = xy
    for row in np.flatnonzero(~simple).tolist():  # few, at the antimeridian and the poles
        odd.append(wkb[row].as_py())
        records["odd"][row] = len(odd)


def _places(x: NDArray[np.uint16], y: NDArray[np.uint16]) -> _Places:
    text = [pa.array(axis).cast(pa.string()) for axis in (x, y)]
    suffixes = pc.binary_join_element_wise("", *text, "-")
    rank = _ranks()
    keys = rank[x].astype(np.uint32) << 16 | rank[y]
    order = np.argsort(keys, kind="stable")
    return _Places(x, y, suffixes, order, bool((np.diff(keys[order]) == 0).any()))


@cache
def _ranks() -> NDArray[np.uint16]:
    """Rank of each number below 65,536 when sorted as text; the hyphen that follows sorts before digits."""
    ranks = np.empty(1 << 16, np.uint16)
    ranks[np.argsort(np.arange(1 << 16).astype("S5"))] = np.arange(1 << 16)
    return ranks


def _read_land_cover(source: Source, scene: SceneJob, chipids: pa.Array, chips: _File, known: _Known) -> pa.Table:
    """A scene's land cover without ids, in file order; null if there is none."""
    if scene.land_cover is None:
        nothing = [pa.nulls(len(chipids), pa.float32())] * CLASSES
        return pa.Table.from_arrays([*nothing, pa.repeat(pa.scalar(0, pa.float32()), len(chipids))], schema=SHARES_READ)
    file = _file(source.land_cover, *scene.land_cover, "chip_landcover")
    sound = file.parquet.schema.equals(_stored_schema(False)) and file.parquet.metadata.num_rows == scene.rows
    if sound:
        encoded, shares = known.shares.find(file)
        # The ids are a copy of those in the chip index, down to the byte, unless another version wrote one of them.
        same = (ids := file.encoded(0, 0)) is not None and ids == chips.encoded(0, 0)
        wanted = [*([] if same else ["chipid"]), *(known.shares.names if shares is None else [])]
        table = file.read(wanted)
        sound = same or _decoded(_whole(table["chipid"])).equals(chipids)
    if not sound:
        check_exactly(source, scene)
        raise InputError(f"{source.land_cover.uri(file.key)}: is not land cover of these chips. {LAND_COVER_AGAIN}")
    if shares is None:
        shares = table.select(SHARES_READ.names)
        known.shares.add(encoded, shares)
    return shares


def _land_cover(some: Sequence[pa.Table]) -> _LandCover:
    """The land cover of all scenes."""
    *shares, covered = (column.to_numpy() for column in pa.concat_tables(some).columns)
    return _LandCover(np.stack(shares), covered)


def _shares_off(found: _LandCover) -> NDArray[np.bool_]:
    """Chips whose land cover might violate `shares_sum_to_one`."""
    shares, covered = found.shares, found.covered
    sums = shares.sum(axis=0, dtype=np.float64)
    sound = (np.abs(sums - 1) <= SUM_TOLERANCE / 2) & (covered > 0) & (covered <= 1)
    sound &= (shares.min(axis=0) >= 0) & (shares.max(axis=0) <= 1)
    rest = np.flatnonzero(~sound)
    if rest.size:
        nothing = np.isnan(shares[:, rest]).all(axis=0) & (covered[rest] == 0)
        table = pa.table(
            [pa.nulls(rest.size, pa.string()), *(pa.array(one) for one in shares[:, rest]), pa.array(covered[rest])],
            schema=SHARE_SCHEMA,
        )
        sound[rest] = nothing | ~land_cover_off(table)
    return np.asarray(~sound)


def _polygons(records: Records, odd: Sequence[bytes]) -> NDArray[Any]:
    """Polygons of records: the separately stored geometry if any, else the ring."""
    polygons = np.empty(len(records), object)
    aside = records["odd"] > 0
    wkb = [odd[number - 1] for number in records["odd"][aside]]
    polygons[aside] = shapely.from_wkb(wkb, on_invalid="ignore")  # invalid ones become None, which has no bounds
    polygons[~aside] = shapely.polygons(records["xy"][~aside])
    return polygons


def _extents(
    records: Records, odd: Sequence[bytes], stop: Callable[[NDArray[np.bool_], str], None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounding boxes, (n, 4), and west, south, east and north of the geometries, (4, n); see `extents_of`."""
    sides = [np.ascontiguousarray(records["xy"][:, corner, axis]) for axis in (0, 1) for corner in range(CORNERS - 1)]
    x, y = sides[: CORNERS - 1], sides[CORNERS - 1 :]
    found = np.stack([_reduced(kind, axis) for kind in (np.minimum, np.maximum) for axis in (x, y)])
    bounds = np.ascontiguousarray(found.T)
    aside = records["odd"] > 0
    # A ring that spans more than half the world surrounds a pole or crosses the antimeridian.
    rare = np.flatnonzero(aside | (found[2] - found[0] > HALF_TURN))
    if rare.size:
        polygons = _polygons(records[rare], odd)
        own = shapely.bounds(polygons).reshape(-1, 4)
        nothing = np.zeros(len(records), bool)
        nothing[rare] = np.isnan(own).any(axis=1)
        stop(nothing, "has chips without a geometry")
        bounds[rare] = own
        found[:, rare] = np.stack(extents_of(polygons))
    records["bbox"] = bounds
    return bounds, found


def _reduced(kind: np.ufunc, values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    first, second, third, fourth = values
    return np.asarray(kind(kind(first, second), kind(third, fourth)))
