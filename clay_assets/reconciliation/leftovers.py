"""Files in our storage that no pick needs any more: imagery of our own, chip indexes, land cover and headers.

A scene is needed as long as a cell's picks, imagery or any of its ledgers names it, or the merged index or a release
of it has its chips. Of a scene that is needed, a file of imagery is needed as long as `scene_imagery` or `cog_headers`
has its address. What is not known for sure is needed: cells without picks, scenes whose imagery is not settled, files
of others.

Only these four kinds of files are looked at. Parts of the merged index, releases, tables and ledgers never are.
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
# Table of a cell that names scenes → its column.
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
    """One file that nothing needs.

    Attributes:
        kind: `imagery`, `chip index`, `land cover` or `headers`.
        platform: platform key.
        item_id: of the scene.
        key: of the file.
        bytes: of the file.
    """

    kind: str
    platform: str
    item_id: str
    key: str
    bytes: int


@dataclass(frozen=True)
class Leftovers:
    """What a look at a storage found.

    Attributes:
        files: that nothing needs, in the order of their keys.
        looked_at: how many files there are of these kinds.
        young: files that nothing needs, but that are too young to be sure of it.
        notes: what was left alone, and why.
    """

    files: tuple[Leftover, ...] = ()
    looked_at: int = 0
    young: int = 0
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files that nothing needs."""
        return sum(file.bytes for file in self.files)


def find_leftovers(store: Store, older_than: float, now: float) -> Leftovers:
    """Look for files that nothing needs. Nothing is changed.

    Files are listed before it is read what is needed, so that what is picked meanwhile is not found.

    Args:
        store: where the pipeline writes.
        older_than: seconds; younger files are left alone, as a run that is under way may need them.
        now: seconds since 1970.

    Raises:
        InputError: a table, a ledger or a part of the merged index cannot be read, so that it is not known what is
            needed; names it.
        StorageError: the store cannot be read.
    """
    found = list(_files(store))
    needed = _Needed(store)
    if not needed.picked:
        note = f"{store.uri(PICKS)}: no scene was picked here yet, so nothing is known to be left over"
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
    told = (f"{cell}: has no scene_picks, so its files are left alone ({count:,})" for cell, count in notes.items())
    return Leftovers(tuple(left), len(found), young, tuple(told))


def remove(store: Store, leftovers: Leftovers) -> None:
    """Remove the files that were found.

    Raises:
        StorageError: one cannot be removed; those before it are gone.
    """
    store.delete([file.key for file in leftovers.files])


def totals(files: Iterable[Leftover]) -> list[dict[str, str | int]]:
    """Per platform and kind: `platform`, `kind`, `scenes`, `files` and `bytes`, in order."""
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
    """Kind, platform, year, item id, key and entry of every file of these kinds; files of others are left out."""
    for kind, folder in OF_CELLS.items():
        for key, entry in store.entries(folder, SUFFIX).items():
            platform, year, *name = key.removeprefix(f"{folder}/").split("/")
            item_id = layout.name_of_file("/".join(name).removesuffix(SUFFIX))
            if name and year.isdigit() and layout.chips(platform, year, item_id).endswith(f"/{'/'.join(name)}"):
                yield kind, platform, year, item_id, key, entry
    for key, entry in store.entries(IMAGERY).items():
        _, platform, *parts = key.split("/")
        # A long id is cut into folders, each but the last with a mark at its end.
        end = next((n for n, part in enumerate(parts, start=1) if not part.endswith(layout.MORE)), len(parts))
        if parts[end:]:
            yield IMAGERY, platform, None, layout.name_of_file("/".join(parts[:end])), key, entry


@dataclass
class _Needed:
    """What the tables of a storage name; those of a cell, and the merged index, are read when they are asked for."""

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
        """Whether the scenes of a cell, or of any of a platform, were picked."""
        return any(platform == one and year in (None, other) for one, other in self.picked)

    def has(self, platform: str, year: str | None, item_id: str) -> bool:
        """Whether a scene is needed in a cell, or in any of a platform."""
        cells = self._cells(platform) if year is None else [(platform, year)]
        return any(item_id in self._named(cell) for cell in cells) or any(
            item_id in self._in_merged_index(cell) for cell in cells
        )

    def has_file(self, platform: str, item_id: str, key: str) -> bool:
        """Whether a file of imagery is needed by a scene that is."""
        if platform not in self._hrefs:
            self._hrefs[platform] = self._addresses(platform)
        known = self._hrefs[platform].get(item_id)
        if known is None or _is_one_of(key, known):
            return True
        try:
            return _is_one_of(key, self._in_headers(platform, item_id))
        except InputError:
            return True  # one damaged file of headers says nothing of the other scenes

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
        """Cell → scenes of the parts that releases keep; each tells its cell itself."""
        found: dict[tuple[str, str], frozenset[str]] = {}
        for key in self.store.list(layout.RELEASES, SUFFIX):
            cell, ids = _ids_of_part(self.store, key)
            found[cell] = found.get(cell, frozenset()) | ids
        return found

    def _addresses(self, platform: str) -> dict[str, set[str]]:
        """Scene → keys of its files in our storage; of scenes whose imagery is settled wherever they are picked."""
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
    """Keys of the addresses that lie in a storage, this one or where it lay before it was moved."""
    below = f"/{IMAGERY}/{platform}/"
    return {f"{below[1:]}{href.rpartition(below)[2]}" for href in hrefs if href.rpartition(below)[2] and below in href}


def _is_one_of(key: str, needed: Iterable[str]) -> bool:
    """Whether a file is needed, or lies beside one that is and belongs to it, such as a mask or a world file."""
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
        f"{store.uri(key)}: cannot be read ({error}), so it is not known what is needed. Nothing was removed; "
        "materialise it again first."
    )
