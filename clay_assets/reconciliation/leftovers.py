"""Files in our storage that no pick needs any more: imagery, chip indexes, land cover and headers.

A scene is needed as long as a cell's picks, imagery or any of its ledgers names it, or the merged index or one of its
releases contains its chips. An imagery file of a needed scene is needed as long as `scene_imagery` or `cog_headers`
lists its address. In case of doubt files are kept: in cells without picks, for scenes whose imagery is not settled, and
files that the pipeline did not write.

Only these four kinds of files are considered; parts of the merged index, releases, tables and ledgers never are.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from clay_assets.errors import InputError
from clay_assets.scenes.imagery import FAILED
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import items_of
from clay_assets.storage.stores import Entry, Store

IMAGERY = "imagery"
SUFFIX = ".parquet"
# Kind → folder of its files, by platform and year.
OF_CELLS = {
    "chip index": layout.folder_of("chip_index"),
    "land cover": layout.folder_of("chip_landcover"),
    "headers": layout.folder_of("cog_headers"),
}
REQUEST_LEDGERS, IMAGERY_LEDGERS = "scenes/ledger", "scenes/imagery_ledger"
PICKS, SETTLED = layout.folder_of("scene_picks"), layout.folder_of("scene_imagery")
# Table of a cell that lists scenes → its column of scene ids.
NAMING = {
    PICKS: "id",
    SETTLED: "id",
    REQUEST_LEDGERS: "item_id",
    IMAGERY_LEDGERS: "item_id",
    layout.CHIP_LEDGERS: "item_id",
    layout.LANDCOVER_LEDGERS: "item_id",
    layout.HEADER_LEDGERS: "item_id",
}


@dataclass(frozen=True)
class Leftover:
    """One file that is no longer needed.

    Attributes:
        kind: `imagery`, `chip index`, `land cover` or `headers`.
        platform: platform key.
        item_id: id of the scene.
        key: key of the file in the storage.
        bytes: size of the file.
    """

    kind: str
    platform: str
    item_id: str
    key: str
    bytes: int


@dataclass(frozen=True)
class Leftovers:
    """The files of a storage that are no longer needed.

    Attributes:
        files: files that are no longer needed, sorted by key.
        looked_at: number of files of these kinds.
        young: number of unneeded files that are too recent to be removed.
        notes: what was skipped, and why.
    """

    files: tuple[Leftover, ...] = ()
    looked_at: int = 0
    young: int = 0
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Total size of these files."""
        return sum(file.bytes for file in self.files)


def find_leftovers(store: Store, older_than: float, now: float) -> Leftovers:
    """Find files that are no longer needed, without changing anything.

    Files are listed before the tables are read, so that files of scenes picked in the meantime are not reported.

    Args:
        store: the pipeline's storage.
        older_than: minimum age in seconds; younger files are skipped, as a run in progress may need them.
        now: current time in seconds since 1970.

    Raises:
        InputError: a table, a ledger or a part of the merged index cannot be read, so needed files are unknown; names
            it.
        StorageError: the store cannot be read.
    """
    found = list(_files(store))
    needed = _Needed(store)
    if not needed.picked:
        note = f"{store.uri(PICKS)}: no scenes picked yet, so unneeded files cannot be identified"
        return Leftovers(looked_at=len(found), notes=(note,))
    notes: dict[str, int] = {}
    left, young = [], 0
    for kind, platform, year, item_id, key, entry in found:
        cell = platform if year is None else f"{platform}|{year}"
        if not needed.knows(platform, year):
            notes[cell] = notes.get(cell, 0) + 1
        elif needed.has(platform, year, item_id) and (kind != IMAGERY or needed.has_file(platform, item_id, key)):
            continue
        elif now - entry.modified < older_than:
            young += 1
        else:
            left.append(Leftover(kind, platform, item_id, key, entry.size))
    told = (f"{cell}: scene_picks is missing, so its {count:,} files are kept" for cell, count in notes.items())
    return Leftovers(tuple(left), len(found), young, tuple(told))


def remove(store: Store, leftovers: Leftovers) -> None:
    """Remove the given files.

    Raises:
        StorageError: a file cannot be removed; those before it have been removed.
    """
    store.delete([file.key for file in leftovers.files])


def totals(files: Iterable[Leftover]) -> list[dict[str, str | int]]:
    """Sorted totals per platform and kind: `platform`, `kind`, `scenes`, `files` and `bytes`."""
    grouped: dict[tuple[str, str], list[Leftover]] = {}
    for file in files:
        grouped.setdefault((file.platform, file.kind), []).append(file)
    return [
        {
            "platform": platform,
            "kind": kind,
            "scenes": len({file.item_id for file in of_kind}),
            "files": len(of_kind),
            "bytes": sum(file.bytes for file in of_kind),
        }
        for (platform, kind), of_kind in sorted(grouped.items())
    ]


def _files(store: Store) -> Iterator[tuple[str, str, str | None, str, str, Entry]]:
    """Kind, platform, year, item id, key and entry of every file of these kinds; foreign files are skipped."""
    for kind, folder in OF_CELLS.items():
        for key, entry in store.entries(folder, SUFFIX).items():
            platform, year, *name = key.removeprefix(f"{folder}/").split("/")
            item_id = layout.name_of_file("/".join(name).removesuffix(SUFFIX))
            if name and year.isdigit() and layout.chips(platform, year, item_id).endswith(f"/{'/'.join(name)}"):
                yield kind, platform, year, item_id, key, entry
    for key, entry in store.entries(IMAGERY).items():
        _, platform, *parts = key.split("/")
        # A long id is split into nested folders, all but the last ending in a marker.
        end = next((n for n, part in enumerate(parts, start=1) if not part.endswith(layout.MORE)), len(parts))
        if parts[end:]:
            yield IMAGERY, platform, None, layout.name_of_file("/".join(parts[:end])), key, entry


@dataclass
class _Needed:
    """The scenes and files that a storage's tables list; tables of cells and the merged index are read on first use."""

    store: Store
    picked: frozenset[tuple[str, str]] = field(init=False)
    _tables: Mapping[str, frozenset[tuple[str, str]]] = field(init=False)
    _cells_of: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    _ids: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    _merged: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    _hrefs: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = {folder: frozenset(_cells_in(self.store, folder)) for folder in NAMING}
        self.picked = self._tables[PICKS] | self._tables[REQUEST_LEDGERS]

    def knows(self, platform: str, year: str | None) -> bool:
        """Whether scenes were picked in a cell or, without a year, in any cell of the platform."""
        return any(platform == one and year in (None, other) for one, other in self.picked)

    def has(self, platform: str, year: str | None, item_id: str) -> bool:
        """Whether a scene is needed in a cell or, without a year, in any cell of the platform."""
        cells = self._cells(platform) if year is None else [(platform, year)]
        return any(item_id in self._named(cell) for cell in cells) or any(
            item_id in self._in_merged_index(cell) for cell in cells
        )

    def has_file(self, platform: str, item_id: str, key: str) -> bool:
        """Whether an imagery file is needed by a needed scene."""
        if platform not in self._hrefs:
            self._hrefs[platform] = self._addresses(platform)
        known = self._hrefs[platform].get(item_id)
        if known is None or _is_one_of(key, known):
            return True
        try:
            return _is_one_of(key, self._in_headers(platform, item_id))
        except InputError:
            return True  # a damaged header file does not affect other scenes

    def _cells(self, platform: str) -> list[tuple[str, str]]:
        if platform not in self._cells_of:
            cells = {cell for named in self._tables.values() for cell in named if cell[0] == platform}
            released = {cell for cell in self._released if cell[0] == platform}
            self._cells_of[platform] = sorted(cells | released | set(_parts_in(self.store, platform)))
        return self._cells_of[platform]

    def _named(self, cell: tuple[str, str]) -> frozenset[str]:
        if cell not in self._ids:
            tables = [folder for folder, cells in self._tables.items() if cell in cells]
            columns = (_column(self.store, f"{folder}/{'/'.join(cell)}{SUFFIX}", NAMING[folder]) for folder in tables)
            self._ids[cell] = frozenset().union(*columns)
        return self._ids[cell]

    def _in_merged_index(self, cell: tuple[str, str]) -> frozenset[str]:
        if cell not in self._merged:
            keys = self.store.list(f"{layout.MERGED}/{'/'.join(cell)}", SUFFIX)
            ids = [_ids_of_part(self.store, key)[1] for key in keys]
            self._merged[cell] = self._released.get(cell, frozenset()).union(*ids)
        return self._merged[cell]

    @cached_property
    def _released(self) -> dict[tuple[str, str], frozenset[str]]:
        """Cell → scenes of the parts that releases keep; each part stores its cell."""
        found: dict[tuple[str, str], frozenset[str]] = {}
        for key in self.store.list(layout.RELEASES, SUFFIX):
            cell, ids = _ids_of_part(self.store, key)
            found[cell] = found.get(cell, frozenset()) | ids
        return found

    def _addresses(self, platform: str) -> dict[str, set[str]]:
        """Scene → keys of its files in our storage, if its imagery is settled in every cell that picked it."""
        settled: dict[str, set[str]] = {}
        unsettled: set[str] = set()
        for one, year in self.picked:
            if one != platform:
                continue
            there: set[str] = set()
            if (platform, year) in self._tables[SETTLED]:
                for item in items_of(_read(self.store, layout.table("scene_imagery", platform, year))):
                    there.add(item["id"])
                    hrefs = (str(asset.get("href")) for asset in item["assets"].values())
                    settled.setdefault(item["id"], set()).update(_keys_in(hrefs, platform))
            for folder in (PICKS, REQUEST_LEDGERS):
                if (platform, year) in self._tables[folder]:
                    unsettled |= _column(self.store, f"{folder}/{platform}/{year}{SUFFIX}", NAMING[folder]) - there
        for cell in self._cells(platform):
            if cell in self._tables[IMAGERY_LEDGERS]:
                ledger = _read(self.store, layout.imagery_ledger(*cell), ["item_id", "outcome"]).to_pylist()
                unsettled |= {row["item_id"] for row in ledger if row["outcome"] == FAILED}
        return {item_id: keys for item_id, keys in settled.items() if item_id not in unsettled}

    def _in_headers(self, platform: str, item_id: str) -> set[str]:
        found: set[str] = set()
        for _, year in self._cells(platform):
            key = layout.headers(platform, year, item_id)
            if self.store.exists(key):
                found |= _keys_in(_column(self.store, key, "href"), platform)
        return found


def _keys_in(hrefs: Iterable[str], platform: str) -> set[str]:
    """Keys of the addresses that point into this storage, also at a former location."""
    below = f"/{IMAGERY}/{platform}/"
    return {f"{below[1:]}{href.rpartition(below)[2]}" for href in hrefs if href.rpartition(below)[2] and below in href}


def _is_one_of(key: str, needed: Iterable[str]) -> bool:
    """Whether a file is needed, or is a sidecar of one that is, such as a mask or a world file."""
    return any(key == one or key.startswith(f"{PurePosixPath(one).with_suffix('')}.") for one in needed)


def _cells_in(store: Store, folder: str) -> Iterator[tuple[str, str]]:
    for key in store.list(folder, SUFFIX):
        path = PurePosixPath(key)
        if path.parent.parent == PurePosixPath(folder):
            yield path.parent.name, path.stem


def _parts_in(store: Store, platform: str) -> Iterator[tuple[str, str]]:
    for key in store.list(f"{layout.MERGED}/{platform}", SUFFIX):
        yield platform, key.removeprefix(f"{layout.MERGED}/{platform}/").split("/")[0]


def _column(store: Store, key: str, name: str) -> set[str]:
    return {value for value in _read(store, key, [name])[name].to_pylist() if value is not None}


def _read(store: Store, key: str, columns: list[str] | None = None) -> pa.Table:
    try:
        table = pq.read_table(io.BytesIO(store.read(key)), columns=columns)
        if columns and not set(columns) <= set(table.schema.names):
            raise KeyError(f"no column {', '.join(set(columns) - set(table.schema.names))}")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _unknown(store, key, error) from error
    return table


def _ids_of_part(store: Store, key: str) -> tuple[tuple[str, str], set[str]]:
    """Platform and year of a part of the merged index, and the scenes of its chips."""
    found: set[str] = set()
    cell = ("", "")
    try:
        with pq.ParquetFile(key, filesystem=store.filesystem(), read_dictionary=["item_id"], pre_buffer=True) as file:
            for batch in file.iter_batches(columns=["platform", "year", "item_id"]):
                if batch.num_rows:
                    cell = str(batch["platform"][0].as_py()), str(batch["year"][0].as_py())
                    found.update(batch["item_id"].unique().to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _unknown(store, key, error) from error
    return cell, found


def _unknown(store: Store, key: str, error: Exception) -> InputError:
    return InputError(
        f"{store.uri(key)}: cannot be read ({error}), so needed files are unknown. Nothing was removed; "
        "materialise it again first."
    )
