"""Stores fields of STAC items that do not fit a typed column.

The type of a field may differ between items of a catalogue: `s2:processing_baseline` may be "05.09" in one and 5 in
another. Such a field is removed from all items of the table and kept as JSON, in one text column, from which it is
restored unchanged. Other fields are not affected.

Times, bounding boxes and the other columns of every STAC-GeoParquet table are always typed, since scenes are searched
by them. Such a column holds the usable values, and the JSON has the original ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import shapely
import shapely.geometry
from shapely.errors import ShapelyError

from clay_assets.errors import InputError
from clay_assets.stac import MEMBERS, Item
from clay_assets.storage import columns

UNTYPED = columns.UNTYPED.name
GEOMETRY = "proj:geometry"  # stored as WKB, also in assets
# Stored as timestamps.
TIMES = ("datetime", "start_datetime", "end_datetime", "created", "updated", "expires", "published", "unpublished")
TEXTS = ("type", "stac_version", "collection")  # members that are text, or null
LINK_TEXTS = ("href", "rel", "type", "title")
MOMENT = pa.timestamp("us", tz="UTC")
DEEPEST = 16  # levels of lists and structs in a column; some readers of Parquet have a limit
BBOX_LENGTHS = (4, 6)
FARTHEST = 1e9  # larger than any coordinate on the Earth, in degrees or metres
UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)

Patch = dict[str, Any]  # the fields of an item in the JSON, structured as in the item
StacType = Callable[[pa.DataType], bool]
StacTypes = Mapping[str, StacType]


def _has_stac_type(kind: pa.DataType, wanted: StacType | None) -> bool:
    return wanted is None or pa.types.is_null(kind) or wanted(kind)


def _list_of(types: StacTypes) -> StacType:
    """Predicate for lists of objects whose members, if present, have these types."""

    def fits(entry: pa.DataType) -> bool:
        return pa.types.is_struct(entry) and all(_has_stac_type(field.type, types.get(field.name)) for field in entry)

    return lambda kind: pa.types.is_list(kind) and _has_stac_type(kind.value_type, fits)


# Types of fields defined by STAC itself, the same in all versions. rustac cannot open tables with other types.
_TEXT, _OBJECT = pa.types.is_string, pa.types.is_struct
PROPERTY_TYPES: StacTypes = {"title": _TEXT, "description": _TEXT}
LINK_TYPES: StacTypes = {
    **dict.fromkeys((*LINK_TEXTS, "method"), _TEXT),
    **dict.fromkeys(("headers", "body"), _OBJECT),
    "merge": pa.types.is_boolean,
}
BAND_TYPES: StacTypes = {
    **dict.fromkeys(("name", "description", "unit", "data_type"), _TEXT),
    "statistics": _OBJECT,
    "nodata": lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or _TEXT(kind),  # "nan"
}
ASSET_TYPES: StacTypes = {
    **{name: kind for name, kind in BAND_TYPES.items() if name != "name"},
    **dict.fromkeys(("href", "type", "title", "created", "updated"), _TEXT),
    "roles": lambda kind: pa.types.is_list(kind) and _has_stac_type(kind.value_type, _TEXT),
    "bands": _list_of(BAND_TYPES),
}


def split_items(items: Sequence[Item]) -> tuple[list[Item], list[str | None]]:
    """Items that fit into one table, and for each the JSON text of its removed fields, or None.

    The given items are not modified.

    Raises:
        InputError: an item's id is not text, its properties or an asset are not objects, or it needs the bounding box
            of its geometry, which is unusable; names the item.
    """
    patches: list[Patch] = [{} for _ in items]
    kept = [{**item, "assets": dict(item.get("assets") or {})} for item in items]
    for item in kept:
        _check(item)
    _keep_bboxes(kept)
    _keep_members(kept, patches)
    _keep_times(kept, patches)
    _take_properties(kept, patches)
    _take_asset_fields(kept, patches)
    return kept, [_json(patch) if patch else None for patch in patches]


def patched(item: Item, text: str | None) -> Item:
    """The inverse of `split_items` for one item, which is modified.

    Raises:
        InputError: the text was not written by `split_items`.
    """
    if text is None:
        return item
    try:
        patch: Patch = json.loads(text)
        item["properties"].update(patch.pop("properties", {}))
        for name, fields in patch.pop("assets", {}).items():
            item["assets"].setdefault(name, {}).update(fields)
        item.update(patch)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{item.get('id')}: invalid JSON in column {UNTYPED}. Write the file again.") from error
    return item


def _check(item: Item) -> None:
    if not _is_text(item.get("id")):
        raise InputError(f"item with id {item.get('id')!r}: id is not text. Remove it from the catalogue.")
    for field, value in (("properties", item.get("properties")), *item["assets"].items()):
        if not isinstance(value, dict):
            raise InputError(f"{item['id']}: {field} is not an object. Remove the item from the catalogue.")


# --- what must have a typed column ----------------------------------------------------------------------------------


def _keep_bboxes(items: Sequence[Item]) -> None:
    """Make all bounding boxes numeric and of one length; a missing one is computed from the geometry."""
    lengths = {len(item["bbox"]) if _is_bbox(item.get("bbox")) else None for item in items}
    if len(lengths) == 1 and None not in lengths:
        return
    for item in items:
        if not _is_bbox(item.get("bbox")) or len(item["bbox"]) != BBOX_LENGTHS[0]:
            item["bbox"] = list(_shape(item).bounds)


def _is_bbox(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) in BBOX_LENGTHS
        and all(
            isinstance(side, (int, float)) and not isinstance(side, bool) and abs(side) <= FARTHEST for side in value
        )
    )


def _shape(item: Item) -> Any:
    try:
        return shapely.geometry.shape(item["geometry"])
    except (ShapelyError, *UNFIT, AttributeError, LookupError) as error:
        raise InputError(f"{item['id']}: geometry cannot be stored ({error!r}). Remove the item.") from error


def _keep_members(items: Sequence[Item], patches: Sequence[Patch]) -> None:
    for name in TEXTS:
        _keep(items, patches, name, lambda value: value if _is_text(value) else None)
    if not all(_is_texts(item.get("stac_extensions")) for item in items):
        _keep(items, patches, "stac_extensions", lambda value: [url for url in _list(value) if _is_text(url)])
    links = [item.get("links") for item in items]
    kind = _column(links) if all(map(_are_links, links)) else None
    if kind is None or not _has_stac_type(kind, _list_of(LINK_TYPES)):
        _keep(items, patches, "links", lambda value: [_plain_link(link) for link in _list(value)])


def _keep(items: Sequence[Item], patches: Sequence[Patch], name: str, usable: Callable[[Any], Any]) -> None:
    for item, patch in zip(items, patches, strict=True):
        if name in item:
            value = item[name]
            item[name] = usable(value)
            if not _same(item[name], value):
                patch[name] = value


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _is_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_text, value)))


def _are_links(value: Any) -> bool:
    return all(
        isinstance(link, dict) and _is_text(link.get("href")) and _is_text(link.get("rel")) for link in _list(value)
    )


def _plain_link(link: Any) -> dict[str, str | None]:
    given = link if isinstance(link, dict) else {}
    plain = {name: given[name] if _is_text(given.get(name)) else None for name in LINK_TEXTS}
    return {**plain, "href": plain["href"] or "", "rel": plain["rel"] or ""}  # required in a link


def _keep_times(items: Sequence[Item], patches: Sequence[Patch]) -> None:
    """Convert other forms of times, such as a date, to UTC, and invalid ones to null."""
    for name in TIMES:
        if _are_moments([item["properties"].get(name) for item in items]):
            continue
        for item, patch in zip(items, patches, strict=True):
            value = item["properties"].get(name)
            if not _are_moments([value]):
                patch.setdefault("properties", {})[name] = value
                item["properties"] = {**item["properties"], name: _utc(value)}


def _utc(value: Any) -> str | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    text = moment.isoformat()
    return text if _are_moments([text]) else None


# --- fields that may be taken out -----------------------------------------------------------------------------------


def _take_properties(items: Sequence[Item], patches: Sequence[Patch]) -> None:
    members = {*MEMBERS, *(name for item in items for name in item)}  # their columns have these names

    def fits(name: str, values: Sequence[Any], *, own: bool = False) -> bool:
        if name == UNTYPED or (name in members and not own):
            return False
        if name in TIMES:
            return not own or _are_moments(values)
        return _storable(name, values, len(items), PROPERTY_TYPES)

    _take([(item, "properties", patch) for item, patch in zip(items, patches, strict=True)], fits)
    for name in sorted(members - {*MEMBERS}):  # of an unmigrated item; they are read back as properties
        values = [item[name] for item in items if name in item]
        if not fits(name, values, own=True):
            for item, patch in zip(items, patches, strict=True):
                if name in item:
                    patch.setdefault("properties", {})[name] = item.pop(name)


def _take_asset_fields(items: Sequence[Item], patches: Sequence[Patch]) -> None:
    for name in dict.fromkeys(name for item in items for name in item["assets"]):
        having = [(item, patch) for item, patch in zip(items, patches, strict=True) if name in item["assets"]]
        taken: list[Patch] = [{} for _ in having]
        holders = [(item["assets"], name, part) for (item, _), part in zip(having, taken, strict=True)]
        _take(holders, _fits_asset(name, len(items)))
        emptied = not any(item["assets"][name] for item, _ in having)
        for (item, patch), part in zip(having, taken, strict=True):
            if part or emptied:
                patch.setdefault("assets", {})[name] = part.get(name, {})
            if emptied:  # Parquet has no struct without fields
                del item["assets"][name]


def _fits_asset(name: str, items: int) -> Callable[[str, Sequence[Any]], bool]:
    return lambda field, values: _is_name(name) and _storable(field, values, items, ASSET_TYPES)


def _take(holders: Sequence[tuple[dict[str, Any], str, Patch]], fits: Callable[[str, Sequence[Any]], bool]) -> None:
    """Move each field that does not fit one column from `holder[key]` to `patch[key]`, in all holders."""
    fields = dict.fromkeys(name for holder, key, _ in holders for name in holder[key])
    for name in fields:
        if fits(name, [holder[key][name] for holder, key, _ in holders if name in holder[key]]):
            continue
        for holder, key, patch in holders:
            if name in holder[key]:
                patch.setdefault(key, {})[name] = holder[key][name]
                holder[key] = {field: value for field, value in holder[key].items() if field != name}


# --- what fits ------------------------------------------------------------------------------------------------------


def _storable(name: str, values: Sequence[Any], items: int, types: StacTypes) -> bool:
    """Whether all values of a field fit one column, and can be restored from it."""
    if not _is_name(name):
        return False
    if name == GEOMETRY:  # stac-geoparquet cannot read a table in which only some items have it
        return len(values) == items and all(map(_is_geometry, values))
    kind = _column(values)
    return kind is not None and _has_stac_type(kind, types.get(name))


def _are_moments(values: Sequence[Any]) -> bool:
    try:
        pa.array(pa.array(values, pa.string()), MOMENT)
    except UNFIT:
        return False
    return True


def _is_geometry(value: Any) -> bool:
    try:
        stored = shapely.from_wkb(shapely.to_wkb(shapely.geometry.shape(value), flavor="iso"))
        return _same(value, lists(shapely.geometry.mapping(stored)))
    except (ShapelyError, *UNFIT, AttributeError, LookupError):
        return False


def _column(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.DataType | None:
    """The type of a column that fits the values, and from which they can be restored; None if there is none."""
    try:
        array = pa.array(values, kind)
    except UNFIT:
        return None
    if not _in_parquet(array.type):
        return None
    # Arrow converts booleans to numbers if there are fractions.
    if _has_float(array.type) and _has_bool(values) and not _same(list(values), array.to_pylist()):
        return None
    return array.type


def _in_parquet(kind: pa.DataType, depth: int = 0) -> bool:
    if not pa.types.is_nested(kind):
        return True
    inner = [kind.field(number) for number in range(kind.num_fields)]
    if depth >= DEEPEST or not inner:
        return False
    named = not pa.types.is_struct(kind) or all(_is_name(field.name) for field in inner)
    return named and all(_in_parquet(field.type, depth + 1) for field in inner)


def _has_float(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_has_float(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_floating(kind))


def _has_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_bool, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_bool, value))
    return isinstance(value, bool)


def _same(one: Any, other: Any) -> bool:
    """Whether a restored value is the same: 1 equals 1.0 but not true, and a null member equals a missing one."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        first, second = ({name: value for name, value in given.items() if value is not None} for given in (one, other))
        return first.keys() == second.keys() and all(_same(value, second[name]) for name, value in first.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other) or (one != one and other != other)  # NaN


def _is_name(name: Any) -> bool:
    return _is_text(name) and bool(name) and "\0" not in name


def _is_text(value: Any) -> bool:
    """Whether it is text that UTF-8 can encode: JSON allows lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- JSON -----------------------------------------------------------------------------------------------------------


def lists(value: Any) -> Any:
    """A GeoJSON geometry with lists instead of shapely's tuples."""
    if isinstance(value, dict):
        return {name: lists(entry) for name, entry in value.items()}
    return [lists(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _json(patch: Patch) -> str:
    text = json.dumps(patch, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return text if _is_text(text) else json.dumps(patch, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Convert types that JSON lacks, which only occur in external tables."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, (datetime, date, time)) else str(value)
