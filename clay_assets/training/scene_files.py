"""The files of a scene as read for training: the address, header and number scale of each.

All this is stored in one table per scene, with a row for each image of each file, so that reading chips neither opens
files nor queries a catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from clay_assets.errors import ClayError, InputError
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.sources.cog import BlockReader, CogHeader, arrow_schema, read_header
from clay_assets.stac import Item
from clay_assets.storage import layout

if TYPE_CHECKING:
    import pyarrow as pa

    from clay_assets.storage.stores import Store

IN_FLIGHT = 4  # headers of one scene that are read concurrently


@dataclass(frozen=True)
class SceneFiles:
    """The files of one scene.

    Attributes:
        platform: platform key.
        item_id: id of the scene.
        hrefs: asset → address of its file.
        headers: asset → header of its file.
        measured: asset → bands, from 1, that are measurements even if the file marks one as alpha.
        radiometry: the offset to subtract from the numbers of its bands; None if the platform has none.
    """

    platform: str
    item_id: str
    hrefs: Mapping[str, str]
    headers: Mapping[str, CogHeader]
    measured: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    radiometry: RadiometricOffset | None = None

    @property
    def offset(self) -> int:
        """The offset included in every valid number of its bands."""
        return self.radiometry.offset if self.radiometry else 0


# `platforms.offsets.radiometric_offset` or the like: platform, item, headers, reader → the decision.
Decide = Callable[[AnyPlatform, Item, Mapping[str, CogHeader], BlockReader], RadiometricOffset]


def read_scene_files(platform: AnyPlatform, item: Item, decide: Decide | None = None) -> SceneFiles:
    """Read the headers of all files of a scene, a few at a time.

    Args:
        platform: the scene's platform, with the access to its files.
        item: the item, normalised (see `Platform.read_item`), with readable hrefs.
        decide: decides on the radiometry; None: no decision is made.

    Raises:
        InputError: a file is missing, forbidden or not a raster, or the item lacks a required asset.
        SourceError: a remote file is temporarily unreadable.
    """
    missing = platform.missing(item, platform.asset_names)
    if missing:
        raise InputError(f"{item['id']}: lacks the assets {', '.join(missing)}. Pick another scene.")
    hrefs = hrefs_of(platform, item)
    first = {href: name for name, href in reversed(hrefs.items())}  # several assets may share a file

    def header_of(href: str) -> CogHeader:
        with _naming(item, first[href]):
            return read_header(href, platform.access_to(href))

    with ThreadPoolExecutor(min(IN_FLIGHT, len(first))) as pool:
        of_href = dict(zip(first, pool.map(header_of, first), strict=True))
    headers = {name: of_href[href] for name, href in hrefs.items()}
    measured = {name: platform.measured(item, name) for name in hrefs}
    files = SceneFiles(platform.key, item["id"], hrefs, headers, measured)
    if decide is None or platform.radiometry is None:
        return files
    reader = BlockReader(platform.files.access)
    try:
        return replace(files, radiometry=decide(platform, item, headers, reader))
    finally:
        reader.close()


def hrefs_of(platform: AnyPlatform, item: Item) -> dict[str, str]:
    """Asset → address of its file, for those of the platform's assets that an item has.

    Raises:
        InputError: an address is relative; names item and asset.
    """
    hrefs = {}
    for name in platform.asset_names:
        if name in item["assets"]:
            with _naming(item, name):
                hrefs[name] = platform.href(item["assets"][name])
    return hrefs


@contextmanager
def _naming(item: Item, asset: str) -> Iterator[None]:
    """Add item and asset to errors, since they may not be evident from a file's address."""
    try:
        yield
    except ClayError as error:
        raise type(error)(f"{item['id']}, asset {asset}: {error}") from error


@cache
def schema() -> pa.Schema:
    """Columns of the table of a scene's files; see `training/columns.py`."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.string()) for name in ("item_id", "asset", "href")),
            ("measured_bands", pa.list_(pa.int32())),
            *arrow_schema(),
            ("radiometric_offset", pa.int32()),
            ("offset_evidence", pa.string()),
            ("processing_baseline", pa.string()),
            ("flagged_offset", pa.int32()),
            ("dark_levels", pa.map_(pa.string(), pa.float64())),
            ("projected_offset", pa.float64()),
            ("offset_contradiction", pa.string()),
        ]
    )


def to_table(files: SceneFiles) -> pa.Table:
    """One row for each image of each file: its full-resolution pixels, its mask, its overviews and their masks."""
    import pyarrow as pa

    told = files.radiometry
    shared: dict[str, Any] = {"item_id": files.item_id}
    if told is not None:
        shared |= {
            "radiometric_offset": told.offset,
            "offset_evidence": told.evidence,
            "processing_baseline": told.baseline,
            "flagged_offset": told.flagged,
            "dark_levels": list(told.lows.items()),
            "projected_offset": told.projected,
            "offset_contradiction": told.contradiction,
        }
    rows = [
        {
            **shared,
            "asset": name,
            "href": files.hrefs[name],
            "measured_bands": files.measured.get(name, ()),
            **record,
        }
        for name, header in files.headers.items()
        for record in header.to_records()
    ]
    return pa.Table.from_pylist(rows, schema=schema())


def from_table(platform: str, table: pa.Table) -> SceneFiles:
    """The files of a scene from its table, without a Python object for each of its thousands of blocks."""
    names = table.column_names
    rows = zip(*map(_values, table.itercolumns()), strict=True)
    return from_rows(platform, [dict(zip(names, row, strict=True)) for row in rows])


def from_rows(platform: str, rows: Sequence[Mapping[str, Any]]) -> SceneFiles:
    """The files of a scene from the rows of its table, in their order."""
    first = rows[0]
    told = None
    if first["offset_evidence"] is not None:
        told = RadiometricOffset(
            first["radiometric_offset"],
            first["offset_evidence"],
            first["processing_baseline"],
            first["flagged_offset"],
            dict(first["dark_levels"] or ()),
            first["projected_offset"],
            first["offset_contradiction"],
        )
    of_asset: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        of_asset.setdefault(row["asset"], []).append(row)
    return SceneFiles(
        platform,
        first["item_id"],
        {name: images[0]["href"] for name, images in of_asset.items()},
        {name: CogHeader.from_records(images) for name, images in of_asset.items()},
        {name: tuple(images[0]["measured_bands"]) for name, images in of_asset.items()},
        told,
    )


def encode_scene_files(files: SceneFiles, stamp: Mapping[str, str]) -> bytes:
    """The bytes of the file that stores a scene's headers.

    Args:
        files: the scene's files.
        stamp: metadata to store in the file.
    """
    from clay_assets.storage.geoparquet import encode_arrow

    # For a few rows, dictionaries and statistics only slow down reading.
    return encode_arrow(to_table(files), stamp, use_dictionary=False, write_statistics=False)


def decode_scene_files(content: bytes, platform: str) -> tuple[SceneFiles, dict[str, str]]:
    """The inverse of `encode_scene_files`.

    Raises:
        ValueError: the bytes are not a valid file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clay_assets.storage.geoparquet import stamp_of

    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    except OSError as error:
        raise ValueError(str(error)) from error
    if not table.num_rows or not table.schema.equals(schema()):
        raise ValueError(f"not the columns of headers, but {', '.join(table.column_names)}")
    return from_table(platform, table), stamp_of(table.schema)


def stored_scene_files(store: Store, platform: str, year: int, item_id: str) -> SceneFiles:
    """The files of a scene as stored by `cog_headers`, in one request.

    Args:
        store: the storage.
        platform: platform key.
        year: the scene's partition.
        item_id: id of the scene.

    Raises:
        InputError: the scene has no headers, or their file is damaged.
        StorageError: the storage is temporarily unreadable.
    """
    key = layout.headers(platform, year, item_id)
    again = f"Materialise cog_headers for {platform}|{year}"
    try:
        content = store.read(key)
    except FileNotFoundError as error:
        raise InputError(f"{store.uri(key)}: has no headers. {again}.") from error
    try:
        return decode_scene_files(content, platform)[0]
    except ValueError as error:
        raise InputError(f"{store.uri(key)}: cannot be read ({error}). {again} again.") from error


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
    """A column's values by row: per-block numbers as NumPy arrays, everything else as Python objects."""
    import pyarrow as pa

    if column.type != pa.list_(pa.uint64()):
        values: list[Any] = column.to_pylist()
        return values
    lists = column.combine_chunks()
    ends, numbers = lists.offsets.to_numpy(), lists.values.to_numpy()
    return [numbers[start:stop] for start, stop in pairwise(ends.tolist())]
