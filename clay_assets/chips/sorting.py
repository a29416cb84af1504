"""Sort chips along a Hilbert curve into one GeoParquet file.

Chips arrive in sorted runs, which are cut at the same positions of the curve; the pieces between two cuts are sorted in
memory and written. Runs beyond a memory limit are spilled to disk, so memory does not grow with the number of chips.
Row groups are small enough that a bounding-box query reads few of them. `merge` decides which chips go into which file,
`records` what a record holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.chips.grid import CORNERS
from clay_assets.chips.index import (
    BBOX,
    DICTIONARIES,
    GEOMETRY_TYPES,
    LANDCOVER,
    MERGED_SCHEMA,
    WKB_OF_RING,
)
from clay_assets.chips.records import RECORD, Records, Run, order_of
from clay_assets.chips.splits import SPLIT_NAMES
from clay_assets.errors import StorageError
from clay_assets.storage.geoparquet import COMPRESSION, geo_metadata
from clay_assets.storage.stores import Store

# A query of a small box reads one or two row groups, and the footer, which grows with the number of row groups.
ROW_GROUP_ROWS = 12_288
SORT_MEMORY = 600 << 20  # bytes of one file's records; beyond that they are spilled
SORTED_ROWS = 8 * ROW_GROUP_ROWS  # rows sorted at a time
# Footers are most of what a query reads. Statistics are only of columns whose range within a row group rules out any:
# neighbours on the ground have chips of all times, shares, and columns and rows of a scene.
WITH_STATISTICS = ("platform", "item_id", "year", "bbox", "split")
_TEXT = pa.dictionary(pa.int32(), pa.string())
# The types passed to pyarrow: text with few values is already a dictionary. The file has `MERGED_SCHEMA`.
WRITTEN_SCHEMA = pa.schema(
    [field.with_type(_TEXT) if field.name in ("platform", "item_id", "split") else field for field in MERGED_SCHEMA]
)
_WITH_STATISTICS = [
    f"{field.name}.{member.name}" if member is not None else field.name
    for field in MERGED_SCHEMA
    for member in (field.type if pa.types.is_struct(field.type) else [None])
    if field.name in WITH_STATISTICS
]


class Runs:
    """The runs of one file. Runs beyond `SORT_MEMORY` are in a temporary folder until the context exits."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="clay-sort-")
        self.odd: list[bytes] = []
        self._runs: dict[int, tuple[NDArray[np.uint32], Records | Path]] = {}
        self._bytes = 0

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.clear()
        self._folder.cleanup()

    @contextmanager
    def emptied_on_error(self) -> Iterator[None]:
        """Delete the runs if the block fails."""
        try:
            yield
        except BaseException:
            self.__exit__()
            raise

    def add(self, number: int, run: Run) -> None:
        """Add a run.

        Args:
            number: number of the run, in the order of chip ids.
            run: its chips.

        Raises:
            StorageError: no space left to spill it.
        """
        records = run.records
        if run.odd:
            records["odd"][records["odd"] > 0] += len(self.odd)
            self.odd += run.odd
        keys = records["hilbert"].copy()
        if self._bytes + records.nbytes <= SORT_MEMORY:
            self._bytes += records.nbytes
            self._runs[number] = keys, records
            return
        path = Path(self._folder.name) / str(number)
        try:
            with path.open("wb") as file:
                file.write(records.view(np.uint8).data)
        except OSError as error:
            raise StorageError(
                f"chips cannot be sorted in {path.parent}: {error}. Make room there, or name another folder in TMPDIR."
            ) from error
        self._runs[number] = keys, path

    def in_order(self) -> Iterator[Records]:
        """All records, ordered by the curve, then by id, one row group at a time; the last may be shorter."""
        left = np.empty(0, RECORD)
        for number, cuts in enumerate(pieces := self._cuts()):
            parts = [self._slice(run, *cut) for run, cut in cuts.items() if cut[0] < cut[1]]
            found = np.concatenate([left, *parts]) if len(parts) != 1 or len(left) else parts[0]
            if len(parts) > 1:  # what is left comes before the cut
                found = found.take(order_of(found["hilbert"]))
            last = number == len(pieces) - 1
            end = len(found) if last else len(found) - len(found) % ROW_GROUP_ROWS
            for start in range(0, end, ROW_GROUP_ROWS):
                yield found[start : min(start + ROW_GROUP_ROWS, end)]
            left = found[end:].copy()

    def _cuts(self) -> list[dict[int, tuple[int, int]]]:
        """Pieces of about `SORTED_ROWS` rows: for each, the first and last rows of every run, in order."""
        keys = np.sort(np.concatenate([np.empty(0, np.uint32), *(own for own, _ in self._runs.values())]))
        places = np.unique(keys[SORTED_ROWS::SORTED_ROWS])
        ends = {run: [0, *np.searchsorted(own, places).tolist(), len(own)] for run, (own, _) in self._runs.items()}
        return [
            {run: (own[piece], own[piece + 1]) for run, own in sorted(ends.items())} for piece in range(len(places) + 1)
        ]

    def _slice(self, run: int, first: int, last: int) -> Records:
        _, held = self._runs[run]
        if isinstance(held, Path):
            return np.fromfile(held, RECORD, last - first, offset=first * RECORD.itemsize)
        return held[first:last]


def write_sorted(
    runs: Runs, platform: str, year: int, item_ids: Sequence[str], path: Path, metadata: Mapping[bytes, bytes]
) -> tuple[dict[str, list[int]], list[float]]:
    """Write runs as one GeoParquet file, sorted along the Hilbert curve.

    Args:
        runs: runs of a platform and year.
        platform: platform key.
        year: partition.
        item_ids: item ids of the scenes, by their number in the records.
        path: path of the file to write.
        metadata: key-value metadata of the file, besides `geo`.

    Returns:
        Split → number of its chips in each row group; and west, south, east and north of all, degrees.

    Raises:
        StorageError: the file cannot be written, most likely because the disk is full.
    """
    extent, counts = _Extent(runs.odd), []
    names = pa.array(item_ids, pa.string())
    # Row groups have one page per column, so a page index would only repeat the footer. The Arrow schema is implied by
    # Parquet's types, and would store the metadata a second time.
    options = {"compression": COMPRESSION, "use_dictionary": DICTIONARIES, "write_statistics": _WITH_STATISTICS}
    try:
        with pq.ParquetWriter(path, WRITTEN_SCHEMA, store_schema=False, **options) as writer:
            for records in runs.in_order():
                writer.write_table(_table(records, platform, year, names, runs.odd), row_group_size=ROW_GROUP_ROWS)
                extent.add(records)
                counts.append(np.bincount(records["split"], minlength=len(SPLIT_NAMES)))
            writer.add_key_value_metadata({b"geo": extent.metadata(), **metadata})  # the extent is only known now
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"cannot write {path}: {error}. Check that there is room.") from error
    return dict(zip(SPLIT_NAMES, np.transpose(counts).tolist(), strict=True)), extent.bounds or []


def splits_of_row_groups(store: Store, key: str) -> dict[str, list[int]]:
    """Split → number of its chips in each row group of an existing file."""
    with pq.ParquetFile(key, filesystem=store.filesystem()) as file:
        columns = [file.read_row_group(group, columns=["split"])["split"] for group in range(file.num_row_groups)]
    return {name: [pc.sum(pc.equal(one, name)).as_py() or 0 for one in columns] for name in SPLIT_NAMES}


def bounds_of(store: Store, key: str) -> list[float]:
    """West, south, east and north of an existing file, degrees; empty if it does not state them."""
    metadata = pq.read_metadata(key, filesystem=store.filesystem()).metadata or {}
    column = json.loads(metadata.get(b"geo", b"{}")).get("columns", {}).get("geometry", {})
    return [float(side) for side in column.get("bbox", ())]


class _Extent:
    """Accumulates geometry types and bounds of records."""

    def __init__(self, odd: Sequence[bytes]) -> None:
        self.types = {int(kind) for kind in np.unique(shapely.get_type_id(shapely.from_wkb(odd)))} if odd else set()
        self.bounds: list[float] | None = None

    def add(self, records: Records) -> None:
        if not records["odd"].all():
            self.types.add(3)
        sides = [records["bbox"][:, number] for number in range(BBOX.num_fields)]
        here = [float(side.min()) for side in sides[:2]] + [float(side.max()) for side in sides[2:]]
        before = self.bounds or here
        self.bounds = [*map(min, before[:2], here[:2]), *map(max, before[2:], here[2:])]

    def metadata(self) -> bytes:
        return geo_metadata([GEOMETRY_TYPES[number] for number in self.types], self.bounds)


def _table(records: Records, platform: str, year: int, names: pa.StringArray, odd: Sequence[bytes]) -> pa.Table:
    """Convert records to a table of `WRITTEN_SCHEMA`."""
    count = len(records)
    scenes, scene = _numbered(records["scene"], len(names))
    own = names.take(pa.array(scenes))
    x, y = (pa.array(records[axis]) for axis in "xy")
    text = [own.take(pa.array(scene)), x.cast(pa.string()), y.cast(pa.string())]
    splits, split = _numbered(records["split"], len(SPLIT_NAMES))
    known = records["landcover_class"] > 0
    cover = [pa.array(records["landcover"][:, number]) for number in range(LANDCOVER.num_fields)]
    bounds = [pa.array(records["bbox"][:, number]) for number in range(BBOX.num_fields)]
    columns: dict[str, Any] = {
        "chipid": pc.binary_join_element_wise(*text, "-"),
        "platform": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [platform]),
        "item_id": pa.DictionaryArray.from_arrays(scene, own),
        "year": pa.array(np.full(count, year, np.int16)),
        "datetime": pa.array(records["datetime"]).cast(MERGED_SCHEMA.field("datetime").type),
        "date": pa.array(records["date"]).cast(pa.date32()),
        "chip_index_x": x,
        "chip_index_y": y,
        "cloud_cover_percentage": pa.array(records["cloud"]),
        "nodata_percentage": pa.array(records["nodata"]),
        "gsd": pa.array(records["gsd"]),
        "geometry": _wkb(records, odd),
        "bbox": pa.StructArray.from_arrays(bounds, fields=list(BBOX)),
        "landcover": pa.StructArray.from_arrays(cover, fields=list(LANDCOVER), mask=pa.array(~known)),
        "landcover_class": pa.array(records["landcover_class"], mask=~known),
        "split": pa.DictionaryArray.from_arrays(split, [SPLIT_NAMES[number] for number in splits]),
    }
    return pa.Table.from_arrays([columns[name] for name in WRITTEN_SCHEMA.names], schema=WRITTEN_SCHEMA)


def _numbered(values: NDArray[Any], count: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The distinct values below a count, in order, and the number of each value among them."""
    present = np.zeros(count, bool)
    present[values] = True
    return np.flatnonzero(present), (np.cumsum(present, dtype=np.int32) - 1).astype(np.int32).take(values)


def _wkb(records: Records, odd: Sequence[bytes]) -> pa.BinaryArray:
    rings = np.empty(len(records), WKB_OF_RING)
    rings["order"], rings["type"], rings["rings"], rings["points"] = 1, 3, 1, CORNERS
    rings["xy"] = records["xy"]
    starts = np.arange(len(records) + 1, dtype=np.int32) * WKB_OF_RING.itemsize
    simple = pa.Array.from_buffers(pa.binary(), len(records), [None, pa.py_buffer(starts), pa.py_buffer(rings)])
    aside = records["odd"] > 0
    if not aside.any():
        return simple
    kept = pa.array([odd[number - 1] for number in records["odd"][aside].tolist()], pa.binary())
    return pc.replace_with_mask(simple, pa.array(aside), kept)
