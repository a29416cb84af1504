"""STAC items as STAC-GeoParquet, written and read through the `stac-geoparquet` library.

Specification: https://github.com/stac-utils/stac-geoparquet/blob/main/spec/stac-geoparquet-spec.md
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import shapely
import stac_geoparquet.arrow as sga
from shapely.errors import ShapelyError

from clay_assets.errors import InputError
from clay_assets.platforms.base import Item
from clay_assets.storage.geoparquet import COMPRESSION, encode_arrow

# What every STAC-GeoParquet table has, for the tables without items.
EMPTY_SCHEMA = pa.schema(
    [
        ("type", pa.string()),
        ("stac_version", pa.string()),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])),
        ("links", pa.list_(pa.struct([("href", pa.string()), ("rel", pa.string()), ("type", pa.string())]))),
        ("assets", pa.struct([])),
        ("collection", pa.string()),
        ("datetime", pa.timestamp("us", tz="UTC")),
    ]
)
MEMBERS = (*EMPTY_SCHEMA.names[:-1], "properties")  # of an item; the table keeps all else with the properties
BBOX_NUMBERS = 4
KEPT_LINKS = ("self", "collection", "derived_from", "license")


# pystac looks for its extensions when the first item is parsed, and leaves them unfinished to whoever comes meanwhile:
# items parsed at that moment fail, or keep fields of older versions.
_PARSING = threading.Lock()


def parse_item(item: Item) -> pystac.Item:
    """An item as pystac knows it, in STAC 1.1; safe to call from several threads.

    Raises:
        pystac.STACError, KeyError, ValueError, TypeError, AttributeError: it is no valid STAC item.
    """
    with _PARSING:
        return pystac.Item.from_dict(item, migrate=True, preserve_dict=True)


def canonical(item: Item) -> Item:
    """An item as STAC 1.1 says it, whatever version the catalogue answered in, so that a table has one schema.

    Raises:
        InputError: it is no valid STAC item; names the item.
    """
    try:
        parsed = parse_item(item)
        document = parsed.to_dict(include_self_link=True, transform_hrefs=False)
        place = shapely.geometry.shape(document["geometry"])
        if len(document.get("bbox") or ()) != BBOX_NUMBERS:  # none, or with heights: a table has one kind
            document["bbox"] = list(place.bounds)
        if not isinstance(document["id"], str):
            raise TypeError("id is no text")
    except (pystac.STACError, KeyError, IndexError, ValueError, TypeError, AttributeError, ShapelyError) as error:
        raise InputError(f"{item.get('id', 'an item without id')}: is not a valid STAC item ({error!r}).") from error
    for name in sorted(set(document) - set(MEMBERS)):
        document["properties"].setdefault(name, document.pop(name))
    _resolve_band_numbers(document)
    # A snapshot's items come with their properties in the order of the hash seed; a re-run must write the same bytes.
    document["properties"] = dict(sorted(document["properties"].items()))
    document["links"] = [link for link in document["links"] if link["rel"] in KEPT_LINKS]
    return document


def _resolve_band_numbers(item: Item) -> None:
    # Before STAC 1.0 an asset's eo:bands were positions in the item's eo:bands; mixed with today's objects they
    # would not fit one column.
    bands = item["properties"].get("eo:bands", [])
    for asset in item["assets"].values():
        numbers = asset.get("eo:bands", [])
        if any(isinstance(number, int) for number in numbers):
            asset["eo:bands"] = [bands[number] for number in numbers if number < len(bands)]


def item_datetime(item: Item) -> datetime:
    """The acquisition time of an item, UTC; the start of its interval where it has no single time.

    Raises:
        InputError: it has neither; names the item.
    """
    properties = item["properties"]
    value = properties.get("datetime") or properties.get("start_datetime")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{item['id']}: datetime {value!r} is no time ({error}).") from error
    if not isinstance(value, datetime):
        raise InputError(f"{item['id']}: has neither datetime nor start_datetime.")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def encode_items(items: Sequence[Item], metadata: Mapping[str, str]) -> bytes:
    """Items, in the order given, as the bytes of a STAC-GeoParquet file; no items give an empty, valid table.

    Raises:
        InputError: items disagree about the type of a field, so that one table cannot hold them.
    """
    try:
        reader = sga.parse_stac_items_to_arrow(items) if items else EMPTY_SCHEMA.empty_table().to_reader()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{len(items)} items do not fit into one table: {error}.") from error
    with tempfile.TemporaryDirectory(prefix="clay-") as folder:  # the library writes to paths only
        path = Path(folder) / "items.parquet"
        sga.to_parquet(reader, path, compression=COMPRESSION)
        return encode_arrow(pq.read_table(path), metadata)


def decode_items(content: bytes, name: str) -> list[Item]:
    """The items in the bytes of a STAC-GeoParquet file.

    Raises:
        InputError: it is no STAC-GeoParquet; `name` tells which file.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: is not a readable Parquet file ({error}). Materialise it again.") from error
    return items_of(table)


def items_of(table: pa.Table) -> list[Item]:
    """The items in a STAC-GeoParquet table, without the nulls that stand for fields an item does not have."""
    if table.num_rows == 0:
        return []
    items = []
    for item in sga.stac_table_to_items(table):
        clean = _without_nulls(item)
        clean.setdefault("links", [])
        clean.setdefault("assets", {})
        clean["properties"].setdefault("datetime", None)  # the one field that STAC wants even when it is null
        clean["properties"] = dict(sorted(clean["properties"].items()))  # the library's order follows the hash seed
        items.append(clean)
    return items


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_without_nulls(entry) for entry in value]
    return value
