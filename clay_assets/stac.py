"""STAC items: the one way in for an item that others wrote, and the form in which it is stored.

`read_item` takes a foreign item to the form that everything downstream trusts, once, where it enters: every catalogue
calls it. `as_stac_1_1` migrates an item that is kept. How tables of items are encoded is in `storage.stac_geoparquet`.

Specification: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clay_assets.errors import InputError

if TYPE_CHECKING:
    import pystac

Item = dict[str, Any]  # a STAC item as JSON

# Members of an item; whatever else it has goes to its properties, as STAC-GeoParquet keeps it.
MEMBERS = (
    "type",
    "stac_version",
    "stac_extensions",
    "id",
    "geometry",
    "bbox",
    "links",
    "assets",
    "collection",
    "properties",
)
KEPT_LINKS = ("self", "collection", "derived_from", "license")
BBOX_NUMBERS = 4
STAC_VERSION = "1.1.0"
ITEM_TYPE, ASSUMED_VERSION = "Feature", "1.0.0"  # of items that do not say
ID_BYTES = 700  # percent-encoded; a key of S3 has at most 1,024, and a path of ours is around it
FOOTPRINT_ROUNDING = 1e-5  # degrees, about a metre: catalogues round footprints to five or six digits

# pystac registers its extensions lazily when it parses the first item, and is not thread-safe while it does so: items
# parsed meanwhile fail, or keep fields of older versions. The lock has to be the process's, as pystac's registry is.
_PARSING = threading.Lock()


def read_item(item: Item, *, bands: Sequence[str], aliases: Mapping[str, str] | None = None) -> Item:
    """A foreign item in the form that everything downstream trusts.

    Args:
        item: as a catalogue, a file or a user gave it; not changed.
        bands: the assets to keep, under the names used here.
        aliases: names that the catalogue has given to these assets → the name used here.

    Returns:
        A new item: a text id, only the wanted assets under their names here, a valid footprint on the globe (or null;
        see `footprints.as_meant`), and a time that `item_datetime` can tell.

    Raises:
        InputError: the item lacks one of these, or they are invalid; names item and field.
    """
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise InputError(f"an item with id {name!r}: invalid item (id is not text). Leave it out of the catalogue.")
    try:
        name.encode()
    except UnicodeEncodeError as error:  # JSON has halves of characters, which no file can hold
        raise InputError(f"an item with id {name!r}: invalid item (id is not Unicode).") from error
    if len(quote(name)) > ID_BYTES:
        raise InputError(f"{name}: invalid item (id of {len(name)} characters). Leave it out of the catalogue.")
    properties: Any = item.get("properties")
    assets = item.get("assets") or {}
    for field, value in (("properties", properties), ("assets", assets)):
        if not isinstance(value, dict):
            raise InputError(f"{name}: invalid item ({field} is not an object).")
    read = {**item, **_members(name, item)}
    item_datetime(read)
    if not properties.get("datetime"):  # only an interval that has two ends may go without
        moment = None if properties.get("end_datetime") else properties["start_datetime"]
        read["properties"] = {**properties, "datetime": moment}
    named = {(aliases or {}).get(key, key): asset for key, asset in assets.items() if _has_href(asset)}
    read["assets"] = {key: named[key] for key in bands if key in named}
    return _with_footprint(read)


def as_stac_1_1(item: Item) -> Item:
    """An item as STAC 1.1 writes it, whatever version the catalogue answered in, so that a table has one schema.

    Raises:
        InputError: it is not a valid STAC item; names the item.
    """
    try:
        return _migrated(item)
    except Exception as error:  # pystac raises whatever a wrong member leads to, besides errors of its own
        raise InputError(f"{item.get('id', 'an item without id')}: not a valid STAC item ({error!r}).") from error


def _migrated(item: Item) -> Item:
    from shapely.geometry import shape

    try:
        parsed = parse_item(item)
    except Exception:  # a field of an extension that is not as its migration expects it, and decides nothing here
        parsed = parse_item({**item, "stac_version": STAC_VERSION, "stac_extensions": []})
    document = parsed.to_dict(include_self_link=True, transform_hrefs=False)
    footprint = shape(document["geometry"])
    if not _is_bbox(document.get("bbox")):  # none, or with heights: a table has one kind
        document["bbox"] = list(footprint.bounds)
    if not isinstance(document["id"], str):
        raise TypeError("id is not text")
    for name in sorted(set(document) - set(MEMBERS)):
        document["properties"].setdefault(name, document.pop(name))
    _resolve_band_numbers(document)
    # A snapshot's items come with their properties in the order of the hash seed; a re-run must write the same bytes.
    document["properties"] = dict(sorted(document["properties"].items()))
    document["links"] = [link for link in document["links"] if link["rel"] in KEPT_LINKS]
    return document


def parse_item(item: Item) -> pystac.Item:
    """An item as pystac knows it, in STAC 1.1; safe to call from several threads.

    Raises:
        pystac.STACError, KeyError, ValueError, TypeError, AttributeError: it is not a valid STAC item.
    """
    import pystac

    with _PARSING:
        return pystac.Item.from_dict(item, migrate=True, preserve_dict=True)


def item_datetime(item: Item) -> datetime:
    """The acquisition time of an item, UTC; the start of its interval if it has no single time.

    Raises:
        InputError: it has neither; names the item.
    """
    properties = item["properties"]
    value = properties.get("datetime") or properties.get("start_datetime")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{item['id']}: datetime {value!r} is not a time ({error}).") from error
    if not isinstance(value, datetime):
        raise InputError(f"{item['id']}: neither datetime nor start_datetime is given.")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _members(name: str, item: Item) -> dict[str, Any]:
    """The members of an item that decide nothing, as STAC has them; what is not so is left out."""
    if item.get("type") not in (None, ITEM_TYPE):
        raise InputError(f"{name}: invalid item (type is {item['type']!r}). Leave it out of the catalogue.")
    names = ("stac_version", "stac_extensions", "collection", "links")
    version, extensions, collection, links = (item.get(member) for member in names)
    return {
        "type": ITEM_TYPE,
        "stac_version": version if isinstance(version, str) and version else ASSUMED_VERSION,
        "stac_extensions": [entry for entry in _listed(extensions) if isinstance(entry, str)],
        "collection": collection if isinstance(collection, str) else None,
        "links": [link for link in _listed(links) if _has_href(link) and isinstance(link.get("rel"), str)],
    }


def _is_bbox(value: Any) -> bool:
    numbers = [number for number in _listed(value) if isinstance(number, int | float) and math.isfinite(number)]
    return len(numbers) == len(_listed(value)) == BBOX_NUMBERS


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _has_href(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("href"), str) and bool(value["href"])


def _with_footprint(item: Item) -> Item:
    """An item whose geometry is its footprint as it is meant; where that changes it, the bounding box follows."""
    import antimeridian
    import numpy as np
    import shapely

    from clay_assets.footprints import UNREADABLE, as_meant

    if item.get("geometry") is None:
        return {**item, "geometry": None}
    try:
        told = shapely.geometry.shape(item["geometry"])
    except UNREADABLE as error:
        raise InputError(f"{item['id']}: invalid item (geometry: {type(error).__name__}).") from error
    if told.is_empty:
        return {**item, "geometry": None}
    meant = as_meant(np.array([told], dtype=object))[0]
    if meant is None:
        raise InputError(f"{item['id']}: invalid item (geometry: not longitudes and latitudes).")
    if not told.has_z and shapely.equals_identical(told, meant):
        return item
    geometry = json.loads(shapely.to_geojson(meant))
    areal = geometry["type"] in ("Polygon", "MultiPolygon")
    return {**item, "geometry": geometry, "bbox": antimeridian.bbox(geometry) if areal else list(meant.bounds)}


def _resolve_band_numbers(item: Item) -> None:
    # Before STAC 1.0 an asset's eo:bands were positions in the item's eo:bands; mixed with today's objects they
    # would not fit one column.
    bands = _listed(item["properties"].get("eo:bands"))
    for asset in item["assets"].values():
        numbers = _listed(asset.get("eo:bands"))
        if numbers and all(isinstance(number, int) for number in numbers):
            asset["eo:bands"] = [bands[number] for number in numbers if 0 <= number < len(bands)]
