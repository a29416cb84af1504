"""STAC items: validation of foreign items, and the form in which items are stored.

`read_item` validates and normalises a foreign item once, on entry, so that everything downstream can rely on its form;
every catalogue calls it. `as_stac_1_1` migrates items before they are stored. Tables of items are encoded in
`storage.stac_geoparquet`.

Specification: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
"""

from __future__ import annotations

import copy
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clay_assets.errors import InputError

if TYPE_CHECKING:
    import pystac

Item = dict[str, Any]  # a STAC item as JSON

# Members of an item; all others are moved to its properties, where STAC-GeoParquet keeps them.
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
_MEMBERS = frozenset(MEMBERS)
_GEOJSON = {"type", "coordinates"}
ABSOLUTE = ("https://", "s3://", "http://", "/")
_LISTS = (list, tuple)
CLOSED_RING = 4  # minimum number of points
_ASSET_MEMBERS = ("href", "type", "title", "description", "roles")
BY_POSITION = ("eo:bands",)  # item fields that assets referred to by position
_UTC = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\.[0-9]{1,6})?Z")
KEPT_LINKS = ("self", "collection", "derived_from", "license")
BBOX_NUMBERS = 4
STAC_VERSION = "1.1.0"
ITEM_TYPE, ASSUMED_VERSION = "Feature", "1.0.0"  # for items without a version
MOST_BYTES = 12  # per character, percent-encoded
ID_BYTES = 700  # percent-encoded; S3 keys have at most 1,024 bytes, including the rest of the path
FOOTPRINT_ROUNDING = 1e-5  # degrees, about a metre: catalogues round footprints to five or six digits

# pystac registers its extensions lazily when it parses the first item, and is not thread-safe while it does so: items
# parsed meanwhile fail, or keep fields of older versions. The lock has to be the process's, as pystac's registry is.
_PARSING = threading.Lock()


def read_item(item: Item, *, bands: Sequence[str], aliases: Mapping[str, str] | None = None) -> Item:
    """Validate and normalise a foreign item.

    Args:
        item: the item from a catalogue, a file or a user; not modified.
        bands: the assets to keep, under the names used here.
        aliases: the catalogue's names of these assets → the names used here.

    Returns:
        A new item with a text id, only the wanted assets under the names used here, a valid footprint on the globe (or
        null; see `footprints.as_meant`), and a time that `item_datetime` can read.

    Raises:
        InputError: one of these is missing or invalid; names item and field.
    """
    (read,) = read_items([item], bands=bands, aliases=aliases)
    if isinstance(read, InputError):
        raise read
    return read


def read_items(
    items: Sequence[Item], *, bands: Sequence[str], aliases: Mapping[str, str] | None = None
) -> list[Item | InputError]:
    """Apply `read_item` to many items, in order; invalid items are replaced by their error."""
    read: list[Item | InputError] = []
    for item in items:
        try:
            read.append(_read_members(item, bands, aliases))
        except InputError as error:
            read.append(error)
    _read_footprints(read)
    return read


def _read_members(item: Item, bands: Sequence[str], aliases: Mapping[str, str] | None) -> Item:
    """Apply `read_item` except for the footprint."""
    name = item.get("id")
    if not isinstance(name, str) or not name:
        raise InputError(f"an item with id {name!r}: invalid item (id is not text). Leave it out of the catalogue.")
    try:
        name.encode()
    except UnicodeEncodeError as error:  # JSON allows lone surrogates, which cannot be encoded
        raise InputError(f"an item with id {name!r}: invalid item (id is not Unicode).") from error
    if len(name) * MOST_BYTES > ID_BYTES and len(quote(name)) > ID_BYTES:
        raise InputError(f"{name}: invalid item (id of {len(name)} characters). Leave it out of the catalogue.")
    properties: Any = item.get("properties")
    assets = item.get("assets") or {}
    for field, value in (("properties", properties), ("assets", assets)):
        if not isinstance(value, dict):
            raise InputError(f"{name}: invalid item ({field} is not an object).")
    read = {**item, **_members(name, item)}
    item_datetime(read)
    if not properties.get("datetime"):  # datetime may only be null if the interval has both ends
        moment = None if properties.get("end_datetime") else properties["start_datetime"]
        read["properties"] = {**properties, "datetime": moment}
    if aliases:
        named = {aliases.get(key, key): asset for key, asset in assets.items() if _has_href(asset)}
    else:
        named = {key: asset for key, asset in assets.items() if _has_href(asset)}
    read["assets"] = {key: named[key] for key in bands if key in named}
    return read


def as_stac_1_1(item: Item) -> Item:
    """Migrate an item of any STAC version to STAC 1.1, so that a table has one schema.

    Raises:
        InputError: it is not a valid STAC item; names the item.
    """
    try:
        return _migrated(item)
    except Exception as error:  # pystac raises its own errors, and any error caused by an invalid member
        raise InputError(f"{item.get('id', 'an item without id')}: not a valid STAC item ({error!r}).") from error


def _migrated(item: Item) -> Item:
    document = _as_pystac_writes(item) if _is_of_today(item) else _through_pystac(item)
    # Properties of a snapshot's items are ordered by the hash seed; a re-run must write the same bytes.
    document["properties"] = dict(sorted(document["properties"].items()))
    return document


def _through_pystac(item: Item) -> Item:
    from shapely.geometry import shape

    try:
        parsed = parse_item(item)
    except Exception:  # an extension's field has an unexpected form; it is not used here
        parsed = parse_item({**item, "stac_version": STAC_VERSION, "stac_extensions": []})
    document = parsed.to_dict(include_self_link=True, transform_hrefs=False)
    footprint = shape(document["geometry"])
    if not _is_bbox(document.get("bbox")):  # missing, or with heights: a table has one kind
        document["bbox"] = list(footprint.bounds)
    if not isinstance(document["id"], str):
        raise TypeError("id is not text")
    for name in sorted(set(document) - set(MEMBERS)):
        document["properties"].setdefault(name, document.pop(name))
    _resolve_band_numbers(document)
    document["links"] = [link for link in document["links"] if link["rel"] in KEPT_LINKS]
    return document


def _is_of_today(item: Item) -> bool:
    """Whether an item needs no migration and pystac would accept it; pystac then only reorders its members."""
    if item.get("stac_version") != STAC_VERSION or written_version() != STAC_VERSION:
        return False
    properties, geometry, bbox = item.get("properties"), item.get("geometry"), item.get("bbox")
    return (
        item.keys() <= _MEMBERS
        and item.get("type") == ITEM_TYPE
        and item.get("stac_extensions") == []
        and isinstance(item.get("id"), str)
        and isinstance(properties, dict)
        and isinstance(item.get("assets"), dict)
        and isinstance(item.get("links"), list)
        and _written_time(properties.get("datetime")) is not None
        and isinstance(item.get("collection"), str | None)
        and _is_plain_polygon(geometry)
        and type(bbox) in _LISTS
        and _is_bbox(bbox)
        and all(map(_has_href, item["assets"].values()))
        and all(_has_href(link) and isinstance(link.get("rel"), str) for link in item["links"])
        and not any(name in BY_POSITION for name in properties)
    )


@cache  # pystac reads the environment each time
def written_version() -> str:
    """The version of STAC that pystac writes."""
    import pystac

    return pystac.get_stac_version()


def _as_pystac_writes(item: Item) -> Item:
    """A current item as `pystac.Item.to_dict` would write it, without the links that are not kept."""
    document = {
        "type": ITEM_TYPE,
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        **{name: item[name] for name in ("id", "geometry", "bbox")},
        "properties": {**item["properties"], "datetime": _written_time(item["properties"]["datetime"])},
        "links": written_links(item["links"]),
        "assets": {name: asset_as_written(asset) for name, asset in item["assets"].items()},
    }
    if item.get("collection"):
        document["collection"] = item["collection"]
    return document


def _written_time(value: Any) -> str | None:
    """A UTC time as pystac writes it; None if it is not certainly one."""
    if not isinstance(value, str) or not _UTC.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value).isoformat().removesuffix("+00:00") + "Z"
    except ValueError:  # such as 30 February
        return None


def read_links(value: Any) -> list[dict[str, Any]]:
    """The links of an item, without what is not a link."""
    return [link for link in _listed(value) if _has_href(link) and isinstance(link.get("rel"), str)]


def written_links(links: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The kept ones of some links, as pystac writes them."""
    return [_link_as_written(link) for link in links if link["rel"] in KEPT_LINKS]


def _link_as_written(link: Mapping[str, Any]) -> dict[str, Any]:
    from pystac.utils import make_absolute_href

    href = make_absolute_href(link["href"]) if link["rel"] == "self" else _posix(link["href"])
    kind, title = link.get("type"), link.get("title")
    return {
        "rel": link["rel"],
        "href": href,
        **({} if kind is None else {"type": str(kind)}),
        **({} if title is None else {"title": title}),
        **{name: value for name, value in link.items() if name not in ("rel", "href", "type", "title")},
    }


def asset_as_written(asset: Mapping[str, Any]) -> dict[str, Any]:
    """An asset of an item of today, as pystac writes it."""
    href = asset["href"]
    written: dict[str, Any] = {"href": _posix(href) if "\\" in href else href}
    if len(asset) == 1:
        return written
    written |= {name: asset[name] for name in ("type", "title", "description") if asset.get(name) is not None}
    written |= {name: value for name, value in asset.items() if name not in _ASSET_MEMBERS}
    if asset.get("roles") is not None:
        written["roles"] = asset["roles"]
    return written


def _posix(href: str) -> str:
    return href.replace("\\\\", "/").replace("\\", "/")


def parse_item(item: Item) -> pystac.Item:
    """Parse an item with pystac, migrated to STAC 1.1; thread-safe.

    Raises:
        pystac.STACError, KeyError, ValueError, TypeError, AttributeError: not a valid STAC item.
    """
    import pystac

    with _PARSING:
        # pystac deep-copies it twice, slowly.
        return pystac.Item.from_dict(_Document(_copied(item)), migrate=True, preserve_dict=False)


class _Document(dict[str, Any]):
    """A JSON object that is deep-copied faster than by `copy.deepcopy`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        copied: dict[str, Any] = _copied(self)
        return copied


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is float or kind is int or kind is bool or value is None:
        return value
    if kind is list:
        return [_copied(entry) for entry in value]
    if kind is dict or kind is _Document:
        return {name: _copied(entry) for name, entry in value.items()}
    return copy.deepcopy(value)


def item_datetime(item: Item) -> datetime:
    """The acquisition time of an item, UTC; the start of its interval if `datetime` is null.

    Raises:
        InputError: neither is given, or it is invalid; names the item.
    """
    properties = item["properties"]
    value = properties.get("datetime") or properties.get("start_datetime")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{item['id']}: datetime {value!r} is not a valid time ({error}).") from error
    if not isinstance(value, datetime):
        raise InputError(f"{item['id']}: neither datetime nor start_datetime is given.")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def has_absolute_hrefs(item: Item) -> bool:
    """Whether all assets of an item certainly have absolute hrefs; a fast test that may miss some such items."""
    assets = item.get("assets")
    if not isinstance(assets, dict):
        return False
    for asset in assets.values():
        if type(asset) is not dict or "alternate" in asset:
            return False
        href = asset.get("href")
        if type(href) is not str or not href.startswith(ABSOLUTE):
            return False
    return True


def _members(name: str, item: Item) -> dict[str, Any]:
    """The remaining members of an item in the form required by STAC; invalid entries are dropped."""
    if item.get("type") not in (None, ITEM_TYPE):
        raise InputError(f"{name}: invalid item (type is {item['type']!r}). Leave it out of the catalogue.")
    names = ("stac_version", "stac_extensions", "collection", "links")
    version, extensions, collection, links = (item.get(member) for member in names)
    return {
        "type": ITEM_TYPE,
        "stac_version": version if isinstance(version, str) and version else ASSUMED_VERSION,
        "stac_extensions": [entry for entry in _listed(extensions) if isinstance(entry, str)],
        "collection": collection if isinstance(collection, str) else None,
        "links": read_links(links),
    }


def _is_bbox(value: Any) -> bool:
    numbers = [number for number in _listed(value) if isinstance(number, int | float) and math.isfinite(number)]
    return len(numbers) == len(_listed(value)) == BBOX_NUMBERS


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _has_href(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    href = value.get("href")
    return isinstance(href, str) and href != ""


def _read_footprints(items: list[Item | InputError]) -> None:
    """Replace geometries by normalised footprints, and update the bounding box of those that change.

    An item with an invalid geometry is replaced by its error.
    """
    import antimeridian
    import numpy as np
    import shapely

    from clay_assets.footprints import meant_and_unchanged

    places, shapes = [], []
    for place, (item, told) in enumerate(zip(items, shapes_of(items), strict=True)):
        if isinstance(item, InputError):
            continue
        if isinstance(told, Exception):
            items[place] = InputError(f"{item['id']}: invalid item (geometry: {type(told).__name__}).")
        elif told is None or told.is_empty:
            items[place] = {**item, "geometry": None}
        else:
            places.append(place)
            shapes.append(told)
    drawn = np.array([*shapes, None], dtype=object)[:-1]
    meant, unchanged = meant_and_unchanged(drawn)
    same = unchanged & ~shapely.has_z(drawn)
    for at in np.flatnonzero(~same).tolist():
        item, place, footprint = items[places[at]], places[at], meant[at]
        assert not isinstance(item, InputError)
        if footprint is None:
            items[place] = InputError(f"{item['id']}: invalid item (geometry: not longitudes and latitudes).")
        elif shapes[at].has_z or not shapely.equals_identical(shapes[at], footprint):
            geometry = json.loads(shapely.to_geojson(footprint))
            areal = geometry["type"] in ("Polygon", "MultiPolygon")
            bbox = antimeridian.bbox(geometry) if areal else list(footprint.bounds)
            items[place] = {**item, "geometry": geometry, "bbox": bbox}


def shapes_of(items: Sequence[Item | InputError]) -> list[Any]:
    """The shape of each item's geometry, None if it has none, or the error that shapely raised."""
    import shapely

    from clay_assets.footprints import UNREADABLE

    found: list[Any] = [None] * len(items)
    plain = []
    for place, item in enumerate(items):
        geometry = None if isinstance(item, InputError) else item.get("geometry")
        if _is_plain_polygon(geometry):
            plain.append(place)
        elif geometry is not None:
            try:
                found[place] = shapely.geometry.shape(geometry)
            except UNREADABLE as error:
                found[place] = error
    if plain:
        rings = [items[place]["geometry"]["coordinates"][0] for place in plain]  # type: ignore[index]
        numbers = [place for place, ring in enumerate(rings) for _ in ring]
        drawn = shapely.polygons(shapely.linearrings([point for ring in rings for point in ring], indices=numbers))
        for place, shape in zip(plain, drawn, strict=True):
            found[place] = shape
    return found


def _is_plain_polygon(geometry: Any) -> bool:
    """Whether a geometry is certainly a two-dimensional polygon of one closed ring, like most footprints."""
    if not isinstance(geometry, dict) or geometry.keys() != _GEOJSON or geometry["type"] != "Polygon":
        return False
    rings = geometry["coordinates"]
    if type(rings) not in _LISTS or len(rings) != 1 or type(rings[0]) not in _LISTS:
        return False
    ring = rings[0]
    if len(ring) < CLOSED_RING or ring[0] != ring[-1]:
        return False
    return all(
        type(point) in _LISTS and len(point) == 2 and type(point[0]) is float and type(point[1]) is float
        for point in ring
    )


def _resolve_band_numbers(item: Item) -> None:
    # Before STAC 1.0 an asset's eo:bands were indices into the item's eo:bands; mixed with today's objects they would
    # not fit one column.
    bands = _listed(item["properties"].get("eo:bands"))
    for asset in item["assets"].values():
        numbers = _listed(asset.get("eo:bands"))
        if numbers and all(isinstance(number, int) for number in numbers):
            asset["eo:bands"] = [bands[number] for number in numbers if 0 <= number < len(bands)]
