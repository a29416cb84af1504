"""Chosen items in stored form, made directly from the columns of a snapshot.

Makes the items whose columns show that nothing needs checking, resolving or migrating, and leaves the others to
`snapshot_types.whole_items`, `Platform.read_items` and `stac.as_stac_1_1`, with the same result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.catalogues.candidate_rows import ASSET, PLAIN_ID
from clay_assets.catalogues.snapshot_types import SIDES, footprints, has_box, value_of, with_utc_times
from clay_assets.footprints import POLYGON, geojson_of, meant_and_unchanged
from clay_assets.platforms.base import AnyPlatform
from clay_assets.stac import (
    ABSOLUTE,
    BY_POSITION,
    ITEM_TYPE,
    MEMBERS,
    STAC_VERSION,
    Item,
    asset_as_written,
    read_links,
    written_links,
    written_version,
)
from clay_assets.storage.stac_geoparquet import listed, objects, values_of, with_times_as_text
from clay_assets.storage.untyped import GEOMETRY, UNTYPED

FIRST_YEAR = 1000  # the first with four digits
_SINGLE = 32  # bits


def wanted_fields(schema: pa.Schema, platform: AnyPlatform) -> list[pa.Field] | None:
    """The columns that `stored_items` needs from a file, one per stored asset; None if they suffice for no row.

    Args:
        schema: schema of the snapshot's file, with plain types.
        platform: defines which assets are stored.
    """
    kinds = {field.name: field.type for field in schema if not field.name.startswith("__")}
    assets = kinds.pop("assets")
    if not _are_plain(kinds) or not pa.types.is_struct(assets):
        return None
    kept = [field for field in assets if platform.assets.aliases.get(field.name, field.name) in platform.asset_names]
    if not kept or not all(_is_plain_asset(field.type) for field in kept):
        return None
    return [*map(pa.field, *zip(*kinds.items(), strict=True)), *(field.with_name(ASSET + field.name) for field in kept)]


def stored_items(table: pa.Table, platform: AnyPlatform) -> list[Item]:
    """STAC 1.1 items of the rows for which columns suffice.

    Args:
        table: a table of the `wanted_fields`.
        platform: defines which assets are stored.
    """
    shapes = footprints(table["geometry"].combine_chunks())
    table = with_utc_times(table)
    told = _told(table, shapes)
    if not told.all():
        table, shapes = table.filter(pa.array(told)), shapes[told]
    texts = with_times_as_text(table)
    names = sorted(name for name in table.schema.names if _is_property(name))
    columns = [_values(texts[name]) for name in names]
    if "datetime" in names:
        columns[names.index("datetime")] = listed(_one(pc.replace_substring(texts["datetime"], ".000000Z", "Z")))
    rows = table.num_rows
    fields = (
        listed(_one(table["id"])),
        geojson_of(shapes, list),
        _boxes(table, shapes),
        objects(names, columns),
        _links(table),
        _assets(table, platform),
        listed(_one(table["collection"])) if "collection" in table.schema.names else [None] * rows,
    )
    return [
        {
            "type": ITEM_TYPE,
            "stac_version": STAC_VERSION,
            "stac_extensions": [],
            "id": name,
            "geometry": geometry,
            "bbox": box,
            "properties": properties,
            "links": links,
            "assets": assets,
            **({"collection": collection} if collection else {}),
        }
        for name, geometry, box, properties, links, assets, collection in zip(*fields, strict=True)
    ]


def _are_plain(kinds: dict[str, pa.DataType]) -> bool:
    """Whether a file's column types make it unnecessary to check each item."""
    types = pa.types
    texts = all(types.is_string(kinds[name]) for name in ("type", "collection", UNTYPED) if name in kinds)
    lists = all(types.is_list(kinds[name]) for name in ("stac_extensions", "links") if name in kinds)
    return (
        written_version() == STAC_VERSION
        and texts
        and lists
        and all(name in kinds and types.is_string(kinds[name]) for name in ("id", "stac_version"))
        and "datetime" in kinds
        and types.is_timestamp(kinds["datetime"])
        and not {"properties", GEOMETRY, *BY_POSITION} & set(kinds)
    )


def _is_plain_asset(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("href") < 0:
        return False
    names = {field.name for field in kind}
    return pa.types.is_string(kind.field("href").type) and not names & {"alternate", GEOMETRY}


def _told(table: pa.Table, shapes: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of rows in which everything except values is already in stored form."""
    told = _where(pc.equal(table["stac_version"], STAC_VERSION))
    ids, names = table["id"], set(table.schema.names)
    told &= _where(pc.and_(pc.string_is_ascii(ids), pc.less_equal(pc.binary_length(ids), PLAIN_ID)))
    told &= _where(pc.greater(pc.binary_length(ids), 0))
    told &= _where(pc.greater_equal(pc.year(table["datetime"]), FIRST_YEAR))
    told &= _where(pc.less(pc.year(table["datetime"]), 10 * FIRST_YEAR))
    if "type" in names:
        told &= _where(pc.fill_null(pc.equal(table["type"], ITEM_TYPE), True))
    if "stac_extensions" in names:
        told &= _where(pc.equal(pc.fill_null(pc.list_value_length(table["stac_extensions"]), 0), 0))
    if UNTYPED in names:
        told &= _where(pc.is_null(table[UNTYPED]))
    told &= (shapely.get_type_id(shapes) == POLYGON) & (shapely.get_num_interior_rings(shapes) == 0)
    told &= ~shapely.has_z(shapes) & meant_and_unchanged(shapes)[1]
    told &= np.isfinite(_bounds(table, shapes)).all(axis=1)
    for asset in (table[name] for name in table.schema.names if name.startswith(ASSET)):
        href = pc.struct_field(asset, "href")
        absolute = pc.starts_with(href, ABSOLUTE[0])
        for start in ABSOLUTE[1:]:
            absolute = pc.or_(absolute, pc.starts_with(href, start))
        sound = pc.and_(absolute, pc.invert(pc.match_substring(href, "\\")))
        told &= _where(pc.or_kleene(pc.is_null(asset), sound))
    return told


def _is_property(name: str) -> bool:
    return name not in MEMBERS and name != UNTYPED and not name.startswith(ASSET)


def _where(condition: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(condition, False).to_numpy(zero_copy_only=False), np.bool_)


def _bounds(table: pa.Table, shapes: NDArray[Any]) -> NDArray[np.float64]:
    """Bounding boxes, (rows, 4), EPSG:4326; NaN if missing or not of four numbers."""
    if not has_box(table.schema):
        return np.asarray(shapely.bounds(shapes), np.float64)
    kind = table.schema.field("bbox").type
    if kind.num_fields != len(SIDES) or any(field.type.bit_width < _SINGLE for field in kind):
        return np.full((len(shapes), len(SIDES)), np.nan)
    box = _one(table["bbox"])
    sides = [pc.struct_field(box, side) for side in SIDES]
    return np.column_stack([side.cast(pa.float64()).to_numpy(zero_copy_only=False) for side in sides])


def _boxes(table: pa.Table, shapes: NDArray[Any]) -> list[list[float]]:
    boxes: list[list[float]] = _bounds(table, shapes).tolist()
    return boxes


def _links(table: pa.Table) -> list[list[dict[str, Any]]]:
    rows = table.num_rows
    if "links" not in table.schema.names or not pc.any(pc.greater(pc.list_value_length(table["links"]), 0)).as_py():
        return [[] for _ in range(rows)]
    return [written_links(read_links(links)) for links in values_of(_one(table["links"]))]


def _assets(table: pa.Table, platform: AnyPlatform) -> list[dict[str, Any]]:
    """The stored assets of each row under our names; if an asset has several names, the last one present."""
    columns: dict[str, list[Any]] = {}
    for column in (name for name in table.schema.names if name.startswith(ASSET)):
        asset = _one(table[column])
        if asset.type.num_fields == 1:
            hrefs = listed(pc.struct_field(asset, "href"))
            found = [None if href is None else {"href": href} for href in hrefs]
        else:
            found = [None if value is None else asset_as_written(value) for value in values_of(asset)]
        given = column.removeprefix(ASSET)
        name = platform.assets.aliases.get(given, given)
        known = columns.get(name)
        columns[name] = found if known is None else [a or b for a, b in zip(found, known, strict=True)]
    names = [name for name in platform.asset_names if name in columns]
    return objects(names, [columns[name] for name in names])


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values of a property in JSON's types."""
    types, kind = pa.types, column.type
    same = types.is_string(kind) or types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)
    values = values_of(_one(column))
    return values if same else list(map(value_of, values))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
