"""Candidates of one schema: their columns, and conversion to items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache, cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.catalogues.base import read_candidates
from clay_assets.catalogues.snapshot_types import EPOCH, footprints, parsed, value_of
from clay_assets.footprints import as_meant, geojson_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.properties import PropertyType
from clay_assets.stac import ASSUMED_VERSION, ITEM_TYPE, Item
from clay_assets.storage.stac_geoparquet import listed, objects
from clay_assets.storage.untyped import UNTYPED, patched

MOMENT, UNCHANGED = "moment", "unchanged"  # columns in addition to the snapshot's
PROPERTY, ASSET = "property ", "asset "  # prefixes of column names
EXACT = 2**53  # larger integers are not exact as floats
PLAIN_ID = 230  # bytes; ids up to this length are not too long when percent-encoded


class Later(Mapping[str, Any]):
    """A member of an item that is created when a rule uses it, together with those of neighbouring items."""

    __slots__ = ("_made", "_row")

    def __init__(self, made: Callable[[], Sequence[Mapping[str, Any]]], row: int) -> None:
        self._made, self._row = made, row

    def __getitem__(self, name: str) -> Any:
        return self._made()[self._row][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made()[self._row])

    def __len__(self) -> int:
        return len(self._made()[self._row])


def brief(item: Item) -> Item:
    """A candidate without its `Later` members, which would keep the whole table in memory."""
    return {name: value for name, value in item.items() if not isinstance(value, Later)}


class Part:
    """Candidates of one schema."""

    def __init__(self, platform: AnyPlatform, table: pa.Table) -> None:
        self.platform, self.table = platform, table
        self.names = set(table.schema.names)
        self._plain_assets = "assets" not in self.names

    def column(self, name: str) -> pa.Array:
        column = self.table[name]
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def read(self, rows: NDArray[Any]) -> Iterator[tuple[str, Item | str, bool]]:
        """For some rows, the id (its `repr`), the candidate, and whether it is known to be sound."""
        if self._plain[rows].all():
            yield from self._read_plain(rows)
            return
        part = Part(self.platform, self.table.take(pa.array(rows)))
        untyped = part.column(UNTYPED).to_pylist() if UNTYPED in self.names else [None] * len(rows)
        documents, plain = list(part._documents(untyped)), self._plain[rows].tolist()
        others = [document for document, is_plain in zip(documents, plain, strict=True) if not is_plain]
        read = iter(read_candidates(self.platform, others))  # together, as one by one takes many times as long
        for document, is_plain, sound in zip(documents, plain, self._sound[rows].tolist(), strict=True):
            name = document["id"]
            if is_plain:
                document["type"], document["stac_version"] = ITEM_TYPE, ASSUMED_VERSION
                document["stac_extensions"], document["links"] = [], []
                yield repr(name), document, sound
            else:
                yield repr(name), next(read), sound

    def _read_plain(self, rows: NDArray[Any]) -> Iterator[tuple[str, Item, bool]]:
        """The same for plain rows, with assets and footprints made on demand, as few rules use them."""
        chosen = pa.array(rows)
        of_items = [name for name in self.table.schema.names if name in ("id", MOMENT) or name.startswith(PROPERTY)]
        part = Part(self.platform, self.table.select(of_items).take(chosen))

        @cache
        def assets() -> Sequence[Mapping[str, Any]]:
            of_assets = [name for name in self.table.schema.names if name.startswith(ASSET)]
            kept = self.table.select(["id", *of_assets]).take(chosen)
            return list(Part(self.platform, kept)._assets([None] * len(rows)))

        @cache
        def geometries() -> Sequence[Mapping[str, Any]]:
            kept = self.table.select(["geometry", UNCHANGED]).take(chosen)
            return list(geojson_of(Part(self.platform, kept).shapes))  # type: ignore[arg-type]  # none is None

        collection = self.platform.scenes.collection
        columns = (
            listed(part.column("id")),
            part._objects(PROPERTY),
            part.column(MOMENT).to_numpy().tolist(),
            self._sound[rows].tolist(),
        )
        for row, (name, properties, moment, sound) in enumerate(zip(*columns, strict=True)):
            properties["datetime"] = EPOCH + timedelta(milliseconds=moment)
            item = {
                "id": name,
                "properties": properties,
                "assets": Later(assets, row),
                "collection": collection,
                "geometry": Later(geometries, row),
                "type": ITEM_TYPE,
                "stac_version": ASSUMED_VERSION,
                "stac_extensions": [],
                "links": [],
            }
            yield repr(name), item, sound

    @cached_property
    def _plain(self) -> NDArray[np.bool_]:
        """Which rows are items as read, whatever their properties, so that nothing needs checking."""
        ids = self.column("id")
        if not (self._plain_assets and pa.types.is_string(ids.type)):
            return np.zeros(len(ids), np.bool_)
        length = pc.fill_null(pc.binary_length(ids), 0).to_numpy()
        ascii_only = pc.fill_null(pc.string_is_ascii(ids), False).to_numpy(zero_copy_only=False)
        plain = self._unchanged & ascii_only & (length > 0) & (length <= PLAIN_ID)
        if UNTYPED in self.names:
            plain &= ~self.column(UNTYPED).is_valid().to_numpy(zero_copy_only=False)
        return np.asarray(plain, np.bool_)

    @cached_property
    def _sound(self) -> NDArray[np.bool_]:
        """Which rows are known to satisfy all declarations and to have all assets."""
        return np.asarray(~self.values["odd"] & (self.values["lacking"] == 0), np.bool_)

    def _documents(self, untyped: Sequence[str | None]) -> Iterator[Item]:
        collection = self.platform.scenes.collection
        columns = (
            listed(self.column("id")),
            self._objects(PROPERTY),
            self._assets(untyped),
            geojson_of(self.shapes),
            self.column(MOMENT).to_numpy().tolist(),
            untyped,
        )
        for name, properties, assets, footprint, moment, text in zip(*columns, strict=True):
            document = {"id": name, "properties": properties, "assets": assets}
            if text is not None:
                patched(document, text)
            # From the columns by which the item was found.
            document["collection"], document["geometry"] = collection, footprint
            document["properties"]["datetime"] = EPOCH + timedelta(milliseconds=moment)
            yield document

    def _objects(self, prefix: str) -> Iterable[dict[str, Any]]:
        """The columns with a prefix as one object per row, without nulls."""
        names = [name for name in self.table.schema.names if name.startswith(prefix)]
        if not names:
            return ({} for _ in range(self.table.num_rows))
        return objects([name.removeprefix(prefix) for name in names], [_values(self.column(name)) for name in names])

    def _assets(self, untyped: Sequence[str | None]) -> Iterable[Any]:
        """Assets of each row by our names, or by the catalogue's names for items yet to be patched."""
        if not self._plain_assets:
            return (parsed("assets", text) for text in self.column("assets").to_pylist())
        names = self.platform.asset_names
        columns = [[{"href": href} if href else None for href in self._hrefs(name)] for name in names]
        assets = objects(names, columns)
        if any(text is not None for text in untyped):
            given = ({key: {"href": href} for key, href in row.items()} for row in self._objects(ASSET))
            return [read if text is None else raw for read, raw, text in zip(assets, given, untyped, strict=True)]
        return assets

    def _hrefs(self, name: str) -> list[str | None]:
        """Hrefs of an asset under any of its names; if several have one, the last."""
        found: list[str | None] = []
        for other in names_of(self.platform, name):
            if ASSET + other in self.names:
                hrefs = listed(self.column(ASSET + other))
                found = [href or known for href, known in zip(hrefs, found, strict=True)] if found else hrefs
        return found or [None] * self.table.num_rows

    @cached_property
    def shapes(self) -> NDArray[Any]:
        """Normalised footprints, (rows,)."""
        shapes: NDArray[Any] = np.array(shapely.force_2d(footprints(self.column("geometry"))), dtype=object)
        changed = np.flatnonzero(~self._unchanged)
        if changed.size:
            shapes[changed] = as_meant(shapes[changed])
        return shapes

    @property
    def _unchanged(self) -> NDArray[np.bool_]:
        return np.asarray(self.column(UNCHANGED).to_numpy(zero_copy_only=False), np.bool_)

    @cached_property
    def values(self) -> dict[str, NDArray[Any]]:
        """Row by row: `id`, `moment`, whether it is `odd`, missing assets (`lacking`, bits), declared properties."""
        rows = self.table.num_rows
        ids, odd = self.column("id"), ~self._unchanged
        found: dict[str, NDArray[Any]] = {"moment": self.column(MOMENT).to_numpy()}
        if pa.types.is_string(ids.type):
            length = pc.fill_null(pc.binary_length(ids), 0).to_numpy()
            odd |= (length == 0) | (length > PLAIN_ID)
            found["id"] = pc.fill_null(ids, "").to_numpy(zero_copy_only=False)
        else:
            odd[:] = True
            found["id"] = np.array(list(map(repr, ids.to_pylist())), dtype=object)
        if UNTYPED in self.names:
            odd |= self.column(UNTYPED).is_valid().to_numpy(zero_copy_only=False)
        odd |= not self._plain_assets
        for declared in self.platform.rules.properties:
            given = np.zeros(rows, np.bool_)
            for name in declared.names:
                column = self.column(PROPERTY + name) if PROPERTY + name in self.names else pa.nulls(rows)
                found[name], wrong, there = _typed(column, declared.type)
                odd |= wrong
                given |= there
            if declared.required:
                odd |= ~given
        lacking = np.zeros(rows, np.int64)
        for bit, name in enumerate(self.platform.asset_names):
            if name not in self.platform.assets.optional:
                lacking |= ~self._has(name) * np.int64(1 << bit)
        return {**found, "odd": odd, "lacking": lacking}

    def _has(self, asset: str) -> NDArray[np.bool_]:
        found = np.zeros(self.table.num_rows, np.bool_)
        for name in names_of(self.platform, asset):
            if ASSET + name in self.names:
                length = pc.fill_null(pc.binary_length(self.column(ASSET + name)), 0)
                found |= length.to_numpy(zero_copy_only=False) > 0
        return found


def names_of(platform: AnyPlatform, asset: str) -> tuple[str, ...]:
    """All names that catalogues give an asset, ours first."""
    return asset, *(alias for alias, meant in platform.assets.aliases.items() if meant == asset)


def _typed(column: pa.Array, kind: PropertyType) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Values of a declared property in the form of `Candidates`; which have the wrong type; and which are present."""
    types, rows = pa.types, len(column)
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if kind in (float, int):
        if not (types.is_integer(column.type) or types.is_floating(column.type)):
            return np.full(rows, np.nan), there, there
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        wrong = there & ~np.isfinite(numbers)
        if kind is int:
            wrong |= there & ((numbers != np.trunc(numbers)) | (np.abs(numbers) > EXACT))
        return np.where(there & ~wrong, numbers, np.nan), wrong, there
    if kind is str and types.is_string(column.type):
        codes = column.dictionary_encode()
        texts = np.array(["", *(text.strip() for text in codes.dictionary.to_pylist())], dtype=object)
        values = texts[pc.fill_null(codes.indices, -1).to_numpy() + 1]
        return values, np.zeros(rows, np.bool_), values != ""
    values = np.empty(rows, dtype=object)
    if kind == list[str] and types.is_list(column.type) and types.is_string(column.type.value_type):
        values[:] = [tuple(entry or ()) for entry in column.to_pylist()]
        wrong = np.array([None in entry for entry in values], np.bool_)
        return values, wrong, np.array([bool(entry) for entry in values], np.bool_)
    values[:] = [() if kind == list[str] else ""] * rows
    return values, there, there


def _values(column: pa.Array) -> list[Any]:
    """Values of a column in the form used in items."""
    types, kind = pa.types, column.type
    same = types.is_string(kind) or types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)
    return listed(column) if same else list(map(value_of, column.to_pylist()))
