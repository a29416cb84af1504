"""Classes to describe the columns of a table, once for Dagster's catalogue, the documentation and the tests.

The descriptions are in each stage's `columns.py`. This module has those that several stages share, and the columns of
STAC items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

GEOMETRY = "geometry"  # geometry column of a GeoParquet table
STRUCT = "struct"  # with any fields: asset metadata differs between catalogues


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: name as stored.
        type: name of the type, from `type_name`.
        meaning: meaning of a value, its unit, its range, and the meaning of null if it occurs.
    """

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        always: columns that every such table has, in order.
        sometimes: optional columns from a catalogue. Other columns from it are not described.
    """

    always: tuple[Column, ...]
    sometimes: tuple[Column, ...] = ()

    @property
    def described(self) -> tuple[Column, ...]:
        """All described columns."""
        return (*self.always, *self.sometimes)

    @property
    def meanings(self) -> Mapping[str, str]:
        """Name → meaning."""
        return {column.name: column.meaning for column in self.described}

    def markdown(self) -> str:
        """The table as Markdown; consecutive columns with the same meaning share a line."""
        lines = ["| column | type | meaning |", "|---|---|---|"]
        names: list[str] = []
        for column, following in zip(self.described, (*self.described[1:], None), strict=True):
            names.append(f"`{column.name}`")
            if following is None or (following.type, following.meaning) != (column.type, column.meaning):
                lines.append(f"| {', '.join(names)} | {column.type} | {column.meaning} |")
                names = []
        return "\n".join(lines)


def type_name(kind: pa.DataType, name: str = GEOMETRY) -> str:
    """Readable name of a column's type: the same for all ways to store one kind of value.

    Args:
        kind: type as stored.
        name: name of the column; the bytes of a geometry are WKB.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return type_name(kind.value_type, name)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "WKB" if name == GEOMETRY else "binary"
    if pa.types.is_floating(kind):
        return f"float{kind.bit_width}"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{', '.join(filter(None, [kind.unit, kind.tz]))}]"
    if pa.types.is_date(kind):
        return f"date{kind.bit_width}"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {type_name(kind.value_type, name)}"
    if pa.types.is_map(kind):
        return f"map of {type_name(kind.key_type, name)} to {type_name(kind.item_type, name)}"
    if pa.types.is_struct(kind):
        return f"{STRUCT}({', '.join(field.name for field in kind)})"
    return str(kind)


def geometry(meaning: str) -> tuple[Column, Column]:
    """The geometry column of a GeoParquet table, and its bounding box."""
    return (
        Column(GEOMETRY, "WKB", f"{meaning}; EPSG:4326"),
        Column("bbox", "struct(xmin, ymin, xmax, ymax)", "bounding box of the geometry, in degrees, for fast filters"),
    )


# Specification: https://github.com/radiantearth/stac-spec/blob/v1.1.0/item-spec/item-spec.md
ITEM = (
    Column("type", "string", "`Feature`"),
    Column("stac_version", "string", "version of STAC that the item follows"),
    Column("stac_extensions", "list of string", "schemas of the STAC extensions that the item follows"),
    Column("id", "string", "the item's id, unique in its collection"),
    *geometry("the scene's footprint"),
    Column("links", f"list of {STRUCT}", "links of the item: to itself, its collection, its source and its licence"),
    Column("assets", STRUCT, "asset → its href, media type, and other metadata from the catalogue"),
    Column("collection", "string", "the collection that the item belongs to"),
    Column("datetime", "timestamp[us, UTC]", "acquisition time; null if the item has an interval"),
)

# Item properties that platforms, recipes or our own code use. Units are those of the extensions.
PROPERTIES = (
    Column("start_datetime", "timestamp[us, UTC]", "first moment of the acquisition or of the composite"),
    Column("end_datetime", "timestamp[us, UTC]", "last moment of the acquisition or of the composite"),
    Column("platform", "string", "the satellite or aircraft"),
    Column("gsd", "float64", "nominal ground size of a pixel, metres"),
    Column("eo:cloud_cover", "float64", "share of the scene that is cloud, percent"),
    Column("view:sun_elevation", "float64", "height of the sun above the horizon, degrees"),
    Column("proj:code", "string", "CRS of the files, such as `EPSG:32631`"),
    Column("proj:wkt2", "string", "CRS of the files as WKT2, if it has no code"),
    Column("proj:shape", "list of int64", "rows and columns of the grid"),
    Column("proj:transform", "list of float64", "affine transform from column and row to the CRS, row by row"),
    Column("grid:code", "string", "tile of a grid, such as `MGRS-31UFU`"),
    Column("s2:nodata_pixel_percentage", "float64", "nodata share of the tile, percent"),
    Column("sar:instrument_mode", "string", "mode of the radar, such as `IW`"),
    Column("sar:polarizations", "list of string", "polarisations of the files, such as `VV` and `VH`"),
    Column("modis:vertical-tile", "int64", "row of the tile in the sinusoidal grid, 0 in the north"),
    Column("modis:horizontal-tile", "int64", "column of the tile in the sinusoidal grid, 0 in the west"),
    Column("linz:region", "string", "region of New Zealand, named as in the folders of nz-imagery"),
    Column("linz:survey", "string", "aerial survey, named as in the folders of nz-imagery"),
    Column("linz:sheet", "string", "map sheet of the image"),
)

# Only in tables that need it.
UNTYPED = Column(
    "clay:untyped",
    "string",
    "JSON object with the structure of the item: fields that fit no typed column, such as a property that is text in "
    "one item and a number in another; null if all fields fit",
)

ITEMS = Columns(ITEM, (*PROPERTIES, UNTYPED))  # of a STAC-GeoParquet table
