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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.chips.blocks import extents_of
from clay_assets.chips.grid import CORNERS
from clay_assets.chips.hilbert import keys_of
from clay_assets.chips.index import BBOX, CHIP_SCHEMA, WKB_OF_RING, as_chips
from clay_assets.chips.landcover import SHARE_SCHEMA, land_cover_of
from clay_assets.chips.leaks import Painted, painted
from clay_assets.chips.rules import AGAIN, SHARES, SUM_TOLERANCE, check_chips, land_cover_off, shares_sum_to_one
from clay_assets.chips.splits import SPLIT_NAMES, GroundSplits
from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.storage.geoparquet import METADATA_PREFIX
from clay_assets.storage.stores import Store

CLASSES = len(WORLDCOVER_FIELDS)
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
# Text that is equal in all rows, or distinct in all, reads fastest as dictionaries.
AS_DICTIONARIES = ("chipid", "platform", "item_id", "geometry")
READ_SCHEMA, READ_SHARES = (
    pa.schema(
        field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in AS_DICTIONARIES else field
        for field in schema
    )
    for schema in (CHIP_SCHEMA, SHARE_SCHEMA)
)
_RING = np.array([(1, 3, 1, CORNERS, 0)], WKB_OF_RING)
RING_HEAD = np.frombuffer(_RING.tobytes(), np.uint8)[: WKB_OF_RING.itemsize - _RING["xy"].nbytes]
FINGERPRINT = f"{METADATA_PREFIX}fingerprint".encode()
LAND_COVER_AGAIN = "Delete it and materialise chip_landcover again."
ROWS_OF_JOB, SCENES_OF_JOB = 131_072, 400

Records = NDArray[np.void]


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
        suffixes: `-x-y` for each chip.
        order: order of the chips by id.
        repeated: whether two chips have the same column and row.
    """

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
    land_cover = _LandCover(np.full((CLASSES, rows), np.nan, np.float32), np.zeros(rows, np.float32))
    order = np.empty(rows, np.int64)
    odd: list[bytes] = []
    ids: list[pa.Array] = []
    known: dict[bytes, _Places] = {}
    for number, (scene, end) in enumerate(zip(job.scenes, ends.tolist(), strict=True)):
        here = slice(end - scene.rows, end)
        records["scene"][here] = job.first + number
        chipids, found = _read_chips(source, scene, records[here], odd, known)
        order[here] = here.start + found.order
        if job.mixed:
            ids.append(chipids)
        _read_land_cover(source, scene, chipids, land_cover, here)

    def stop(bad: NDArray[np.bool_], fact: str) -> None:
        if bad.any():
            scene = job.scenes[int(np.searchsorted(ends, int(np.flatnonzero(bad)[0]), side="right"))]
            check_exactly(source, scene)
            raise InputError(f"{source.chips.uri(scene.chips[0])}: {fact}. {AGAIN}")

    off = ~(records["gsd"] > 0)
    for name in ("cloud", "nodata"):
        off |= ~((records[name] >= 0) & (records[name] <= 1))
    stop(off, "has values that cannot be")
    bounds = np.ascontiguousarray(records["bbox"])
    extents = _extents(records, odd, stop)
    stop(~np.isfinite(bounds).all(axis=1) | ~np.isfinite(extents).all(axis=0), "has chips without a place")
    stop(_shares_off(land_cover), "has land cover that cannot be")
    percent, records["landcover_class"] = land_cover_of(*land_cover, source.min_valid_share)
    for number in range(CLASSES):
        records["landcover"][:, number] = percent[number]
    records["split"] = source.ground.codes_of(*extents)
    records["hilbert"] = keys_of(bounds)
    if job.mixed:
        order = pc.sort_indices(pa.chunked_array(ids, pa.string())).to_numpy().astype(np.int64)
    keys = records["hilbert"][order].astype(np.uint64) << np.uint64(32) | np.arange(rows, dtype=np.uint64)
    keys.sort()
    to_paint = painted(bounds, records["split"], lambda wide: _polygons(records[wide], odd))
    splits = np.bincount(records["split"], minlength=len(SPLIT_NAMES))
    return Run(records[order[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)]], odd, to_paint, splits)


def check_exactly(source: Source, scene: SceneJob) -> None:
    """Check one scene's chips and land cover against all rules, and report what is wrong.

    Raises:
        InputError: see `read_scenes`.
    """
    name = source.chips.uri(scene.chips[0])
    table = as_chips(_file(source.chips, *scene.chips, "chip_index")[0].read(use_threads=False))
    check_chips(table, source.platform, scene.item_id, name)
    if table.num_rows != scene.rows:
        raise InputError(
            f"{name}: holds {table.num_rows} chips, its ledger says {scene.rows}. "
            "Materialise chip_index of this partition again."
        )
    if scene.land_cover is None:
        return
    name = source.land_cover.uri(scene.land_cover[0])
    shares = _file(source.land_cover, *scene.land_cover, "chip_landcover")[0].read(use_threads=False)
    if not shares.schema.equals(SHARE_SCHEMA):
        raise InputError(f"{name}: its columns are not those of land cover. {LAND_COVER_AGAIN}")
    if not shares["chipid"].equals(table["chipid"]):
        raise InputError(f"{name}: its chips are not those of the chip index. {LAND_COVER_AGAIN}")
    shares_sum_to_one(shares).raise_if_violated(name, LAND_COVER_AGAIN)


def _file(
    store: Store, key: str, fingerprint: str, asset: str, dictionaries: Sequence[str] = ()
) -> tuple[pq.ParquetFile, pa.Schema]:
    """A file, checked against its ledger, and its schema, which pyarrow rebuilds on every access."""
    try:
        content = pa.BufferReader(store.read(key))
        try:
            file = pq.ParquetFile(content, read_dictionary=[*dictionaries])
        except KeyError:  # a missing column is reported when the schema is checked
            file = pq.ParquetFile(content)
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise _unreadable(store, key, asset, error) from error
    schema = file.schema_arrow
    if (schema.metadata or {}).get(FINGERPRINT) != fingerprint.encode():
        raise InputError(f"{store.uri(key)}: changed after its ledger was written. Materialise {asset} again.")
    return file, schema


def _columns(store: Store, key: str, file: pq.ParquetFile, asset: str) -> dict[str, pa.Array]:
    try:
        table = file.read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(store, key, asset, error) from error
    return {name: _whole(column) for name, column in zip(table.schema.names, table.columns, strict=True)}


def _unreadable(store: Store, key: str, asset: str, error: Exception) -> InputError:
    return InputError(f"{store.uri(key)}: cannot be read ({error}). Materialise {asset} again.")


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not isinstance(array, pa.DictionaryArray):
        return array
    indices = array.indices
    if indices.null_count:
        return array
    places = indices.to_numpy()
    if len(places) == len(array.dictionary) and (places == np.arange(len(places))).all():
        return array.dictionary  # all values are distinct
    return array if len(array.dictionary) == 1 else array.dictionary_decode()


def _has_types(schema: pa.Schema, wanted: pa.Schema) -> bool:
    return schema.equals(wanted) or (schema.names == wanted.names and all(map(_same, schema.types, wanted.types)))


def _same(kind: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) and pa.types.is_dictionary(wanted):
        return bool(kind.value_type == wanted.value_type)
    return bool(kind == wanted)


def _only(array: pa.Array, value: str) -> bool:
    """Whether a column holds a single value."""
    if isinstance(array, pa.DictionaryArray) and len(array.dictionary) == 1:
        return bool(array.dictionary[0].as_py() == value)
    return len(array) == 0 or pc.unique(_decoded(array)).to_pylist() == [value]


def _read_chips(
    source: Source, scene: SceneJob, records: Records, odd: list[bytes], known: dict[bytes, _Places]
) -> tuple[pa.Array, _Places]:
    """Fill a scene's records from its chip index, in file order; returns its chip ids, and their columns and rows."""
    key = scene.chips[0]
    file, schema = _file(source.chips, *scene.chips, "chip_index", AS_DICTIONARIES)
    sound = _has_types(schema, READ_SCHEMA) and file.metadata.num_rows == scene.rows
    columns = _columns(source.chips, key, file, "chip_index") if sound else {}
    sound = sound and not any(column.null_count for column in columns.values())
    sound = sound and _only(columns["platform"], source.platform) and _only(columns["item_id"], scene.item_id)
    if not sound:
        check_exactly(source, scene)
        raise InputError(f"{source.chips.uri(key)}: is not a chip index. {AGAIN}")
    x, y = columns["chip_index_x"].to_numpy(), columns["chip_index_y"].to_numpy()
    pattern = x.tobytes() + y.tobytes()
    places = known.get(pattern)
    if places is None:
        places = known[pattern] = _places(x, y)
    chipids = _decoded(columns["chipid"])
    ids = pc.binary_join_element_wise(pa.scalar(scene.item_id), places.suffixes, "")
    if places.repeated or not chipids.equals(ids):
        check_exactly(source, scene)
        raise InputError(f"{source.chips.uri(key)}: has chip ids that are not of its scene. {AGAIN}")
    records["x"], records["y"] = x, y
    records["datetime"] = columns["datetime"].cast(pa.int64()).to_numpy()
    records["date"] = columns["date"].cast(pa.int32()).to_numpy()
    records["cloud"], records["nodata"] = (columns[name].to_numpy() for name in SHARES)
    records["gsd"] = columns["gsd"].to_numpy()
    for number in range(BBOX.num_fields):
        records["bbox"][:, number] = columns["bbox"].field(number).to_numpy(zero_copy_only=False)
    _fill_geometry(_decoded(columns["geometry"]), records, odd)
    return chipids, places


def _decoded(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array


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
    simple &= (rings[:, : len(RING_HEAD)] == RING_HEAD).all(axis=1)
    records["xy"] = rings.reshape(-1).view(WKB_OF_RING)["xy"]
    simple &= (records["xy"][:, 0] == records["xy"][:, -1]).all(axis=1)
    for row in np.flatnonzero(~simple).tolist():  # few, at the antimeridian and the poles
        odd.append(wkb[row].as_py())
        records["odd"][row] = len(odd)


def _places(x: NDArray[np.uint16], y: NDArray[np.uint16]) -> _Places:
    text = [pa.array(axis).cast(pa.string()) for axis in (x, y)]
    suffixes = pc.binary_join_element_wise("", *text, "-")
    rank = _ranks()
    keys = rank[x].astype(np.uint32) << 16 | rank[y]
    order = np.argsort(keys, kind="stable")
    return _Places(suffixes, order, bool((np.diff(keys[order]) == 0).any()))


@cache
def _ranks() -> NDArray[np.uint16]:
    """Rank of each number below 65,536 when sorted as text; the hyphen that follows sorts before digits."""
    ranks = np.empty(1 << 16, np.uint16)
    ranks[np.argsort(np.arange(1 << 16).astype("S5"))] = np.arange(1 << 16)
    return ranks


def _read_land_cover(source: Source, scene: SceneJob, chipids: pa.Array, land_cover: _LandCover, here: slice) -> None:
    """Fill a scene's land cover, in file order."""
    if scene.land_cover is None:
        return
    key = scene.land_cover[0]
    file, schema = _file(source.land_cover, *scene.land_cover, "chip_landcover", ["chipid"])
    sound = _has_types(schema, READ_SHARES)
    columns = _columns(source.land_cover, key, file, "chip_landcover") if sound else {}
    if not sound or not _decoded(columns["chipid"]).equals(chipids):
        check_exactly(source, scene)
        raise InputError(f"{source.land_cover.uri(key)}: is not land cover of these chips. {LAND_COVER_AGAIN}")
    for number, name in enumerate(WORLDCOVER_FIELDS.values()):
        land_cover.shares[number, here] = columns[name].to_numpy(zero_copy_only=False)
    land_cover.covered[here] = columns["valid_share"].to_numpy(zero_copy_only=False)


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
) -> NDArray[np.float64]:
    """West, south, east and north of the geometries, (4, n); see `extents_of`."""
    sides = [np.ascontiguousarray(records["xy"][:, corner, axis]) for axis in (0, 1) for corner in range(CORNERS - 1)]
    x, y = sides[: CORNERS - 1], sides[CORNERS - 1 :]
    found = np.stack([_reduced(kind, axis) for kind in (np.minimum, np.maximum) for axis in (x, y)])
    aside = records["odd"] > 0
    # A ring that spans more than half the world surrounds a pole or crosses the antimeridian.
    rare = np.flatnonzero(aside | (found[2] - found[0] > HALF_TURN))
    if rare.size:
        polygons = _polygons(records[rare], odd)
        nothing = np.zeros(len(records), bool)
        nothing[rare] = np.isnan(shapely.bounds(polygons).reshape(-1, 4)).any(axis=1)
        stop(nothing, "has chips without a geometry")
        found[:, rare] = np.stack(extents_of(polygons))
    return found


def _reduced(kind: np.ufunc, values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    first, second, third, fourth = values
    return np.asarray(kind(kind(first, second), kind(third, fourth)))
