"""Column descriptions of the samples."""

from __future__ import annotations

from dataclasses import replace

from clay_assets.landcover.columns import GEOMETRY, NAME, STATISTICS
from clay_assets.storage.columns import Column, Columns, geometry

MGRS_SAMPLE = Columns(
    (
        NAME,
        Column(
            "rules", "list of string", "rules of the recipe that chose the tile; `published` for a published sample"
        ),
        *(replace(column, meaning=f"{column.meaning}; null if a published sample lacks it") for column in STATISTICS),
        *GEOMETRY,
    ),
)
NAIP_SAMPLE = Columns(
    (
        Column("name", "string", "name of the location: its layer, and a hash or a number; unique"),
        Column("layer", "string", "source layer of Natural Earth, or `random`"),
        Column("feature", "string", "name of the feature in the layer; empty if it has none"),
        *geometry("the point"),
    ),
)
MODIS_SAMPLE = Columns(
    (
        Column("name", "string", "name of the tile of the sinusoidal grid, such as `h18v04`; unique"),
        Column("vertical", "int64", "row of the tile in the grid, 0 in the north"),
        Column("horizontal", "int64", "column of the tile in the grid, 0 in the west"),
        Column("item_id", "string", "id of the composite that was tested; null if the published tiles are used"),
        *geometry("the tile"),
    ),
)
