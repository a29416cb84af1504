"""Column descriptions of `mgrs_grid` and `worldcover_stats`."""

from __future__ import annotations

from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.storage.columns import Column, Columns, geometry

NAME = Column("name", "string", "name of the MGRS tile, such as `31UFU`; unique")
GEOMETRY = geometry("the tile, cut at the antimeridian if it crosses it")
STATISTICS = (
    *(
        Column(name, "float64", "share of the land-cover class in the tile's valid area, 0 to 1")
        for name in WORLDCOVER_CLASSES.values()
    ),
    Column("count", "int64", "number of land-cover classes present"),
    Column("valid_share", "float64", "share of the tile's area that WorldCover covers, 0 to 1"),
    Column("diversity", "float64", "Shannon diversity of the class shares; 0 for a single class"),
)

MGRS_GRID = Columns((NAME, *GEOMETRY))
WORLDCOVER_STATS = Columns((NAME, *STATISTICS, *GEOMETRY))
