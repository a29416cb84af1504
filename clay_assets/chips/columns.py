"""The columns of the chip indexes of scenes, the merged index, and their ledgers."""

from __future__ import annotations

from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.storage.columns import Column, Columns, geometry

_WHERE_FROM = (
    Column("chipid", "string", "`{item_id}-{x}-{y}`, unique within a platform"),
    Column("platform", "string", "key of the platform, such as `sentinel-2-l2a`"),
    Column("item_id", "string", "the STAC item"),
)
_CHIP = (
    Column("datetime", "timestamp[ms, UTC]", "time of acquisition"),
    Column("date", "date32", "day of acquisition, UTC"),
    Column("chip_index_x", "uint16", "column of the chip in the scene's finest grid"),
    Column("chip_index_y", "uint16", "row of the chip in the scene's finest grid"),
    Column("cloud_cover_percentage", "float32", "share of cloud pixels in the chip, **0 to 1**"),
    Column("nodata_percentage", "float32", "share of nodata pixels in the chip, **0 to 1**"),
    Column(
        "gsd",
        "float32",
        "true ground size of a pixel at the chip's centre, metres; in EPSG:3857 (MODIS) far from the grid's pixel size",
    ),
    *geometry("the chip's four projected corners, split at the antimeridian"),
)

CHIP_INDEX = Columns((*_WHERE_FROM, *_CHIP))
_LANDCOVER = (
    Column(
        "landcover",
        f"struct({', '.join(WORLDCOVER_FIELDS.values())})",
        "ESA WorldCover 2021: percent of the chip's valid land-cover area, **0 to 100**, uint8 that sum to 100; null "
        "where WorldCover covers less of the chip than the recipe requires",
    ),
    Column(
        "landcover_class",
        "uint8",
        "WorldCover code of the class with the largest share, such as 10 for tree cover; null where `landcover` is",
    ),
)
_SPLIT = Column(
    "split",
    "string",
    "`train`, `validate` or `test`, by blocks on the ground that are the same for all platforms and years; `buffer` "
    "for a chip that crosses blocks of different splits, or is too close to them",
)
MERGED_INDEX = Columns(
    (*_WHERE_FROM, Column("year", "int16", "year of acquisition, the partition"), *_CHIP, *_LANDCOVER, _SPLIT)
)
CHIP_LANDCOVER = Columns(
    (
        Column("chipid", "string", "the chip; rows are in the order of its chip index"),
        *(
            Column(
                name,
                "float32",
                "share of the land-cover class in the chip's valid land-cover area, 0 to 1; null where WorldCover does "
                "not cover the chip",
            )
            for name in WORLDCOVER_FIELDS.values()
        ),
        Column("valid_share", "float32", "share of the chip's area that WorldCover covers, 0 to 1"),
    )
)
LANDCOVER_LEDGER = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("outcome", "string", "`measured` or `failed`"),
        Column("chips", "int32", "rows of its file"),
        Column("chips_without_land_cover", "int32", "chips without WorldCover coverage"),
        Column("worldcover_files", "int32", "WorldCover files that its chips are in"),
        *(
            Column(name, "float32", "share of the land-cover class in the area of the scene's chips, 0 to 1")
            for name in WORLDCOVER_FIELDS.values()
        ),
        Column("chips_fingerprint", "string", "fingerprint of the chip index that was measured"),
        Column("fingerprint", "string", "hash of the chip index, the WorldCover edition and the code that was used"),
        Column("error", "string", "reason of the failure, else null"),
    ),
)
PAINTED = Columns(
    (
        Column("split", "uint8", "0 `train`, 1 `validate`, 2 `test`; chips in a buffer are not painted"),
        Column("box", "int64", "columns and rows of the gate's grid that a chip touches, packed in one number"),
    )
)
SPLITS = Columns(
    (
        Column("west", "float64", "western edge of the cell, degrees"),
        Column("south", "float64", "southern edge"),
        Column("east", "float64", "eastern edge"),
        Column("north", "float64", "northern edge"),
        Column("block", "int64", "number of the block that the cell belongs to"),
        Column("split", "string", "`train`, `validate` or `test`: the split that the block was drawn for"),
    )
)
CHIP_LEDGER = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("outcome", "string", "`indexed`, `failed`, or `excluded` by the recipe after it was picked"),
        Column("chips", "int32", "rows of its index"),
        Column("chips_in_grid", "int32", "whole chips of the scene"),
        Column("chips_above_nodata_limit", "int32", "chips skipped because of nodata"),
        Column("fingerprint", "string", "hash of the item, the recipe's fields and the code that made the file"),
        Column("error", "string", "reason of the failure, else null"),
        Column("chips_excluded", "int32", "chips that the recipe excludes by id"),
        Column("exclusions", "string", "JSON object: id of the excluded scene or chip → reason; null if none"),
    ),
)
