"""Make the chip index of one scene, and open any chip index.

A row is one whole chip; the columns are those of `CHIP_SCHEMA`. For Sentinel-2 and Landsat the two percentages are
those of stacchip's index, row for row. Both are shares of all pixels of a chip, 0 to 1; cloud is not relative to valid
pixels only. `gsd` is the true ground size in metres of a pixel of the finest grid: in EPSG:3857 it is far from the
grid's pixel size.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pystac
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from clay_assets.chips.declared import declared, same_grid
from clay_assets.chips.grid import CORNERS, chip_corners, crosses, polygons_of, rounded_ground_sample_distance
from clay_assets.chips.quality import read_shares
from clay_assets.errors import InputError
from clay_assets.executors.turns import in_turn
from clay_assets.grids import Grid
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.recipes.exclusions import chip_place
from clay_assets.sources.rasters import open_raster
from clay_assets.stac import Item, item_datetime
from clay_assets.storage.geoparquet import geo_metadata, stamp_of, stamped
from clay_assets.storage.stores import Store, open_store
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_file_url, local_path

__all__ = [
    "CHIP_FILE",
    "CHIP_SCHEMA",
    "CHIP_SIZE",
    "DICTIONARIES",
    "MERGED_SCHEMA",
    "as_chips",
    "counts_of",
    "dataset_of",
    "declared_grid",
    "grid_of_file",
    "index_scene",
    "open_index",
    "rings_of",
    "scene_crs",
]

CHIP_SIZE = 256  # pixels, as in Clay v1
EXCLUDED_COUNT = "chips_excluded"  # metadata key: chips that the recipe excludes by id
GRID = "grid"  # metadata key: the grid of the scene's files if its item declares another
GEOMETRY_TYPES = {3: "Polygon", 6: "MultiPolygon"}  # by WKB type number, which is also shapely's
# A polygon of one ring as little-endian WKB: byte order, type, number of rings, of points, and the points.
WKB_OF_RING = np.dtype(
    [("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (CORNERS, 2))]
)
BBOX = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
CHIP_SCHEMA = pa.schema(
    [
        ("chipid", pa.string()),
        ("platform", pa.string()),
        ("item_id", pa.string()),
        ("datetime", pa.timestamp("ms", tz="UTC")),
        ("date", pa.date32()),
        ("chip_index_x", pa.uint16()),
        ("chip_index_y", pa.uint16()),
        ("cloud_cover_percentage", pa.float32()),
        ("nodata_percentage", pa.float32()),
        ("gsd", pa.float32()),
        ("geometry", pa.binary()),
        ("bbox", BBOX),
    ]
)


# Percent of a chip's valid land-cover area, and the WorldCover code of the largest share; null without land cover.
LANDCOVER = pa.struct([(name, pa.uint8()) for name in WORLDCOVER_FIELDS.values()])
LANDCOVER_FIELDS = [pa.field("landcover", LANDCOVER), pa.field("landcover_class", pa.uint8())]
SPLIT_FIELD = pa.field("split", pa.string())  # train, validate, test, or buffer between them
# The merged index also has land cover, split and the year of acquisition, by which readers find the files of a year.
MERGED_SCHEMA = pa.schema(
    [
        *CHIP_SCHEMA.insert(CHIP_SCHEMA.get_field_index("datetime"), pa.field("year", pa.int16())),
        *LANDCOVER_FIELDS,
        SPLIT_FIELD,
    ]
)
# Columns with few distinct values, which Parquet stores as dictionaries.
DICTIONARIES = ["platform", "item_id", "year", "datetime", "date", "chip_index_x", "chip_index_y", "landcover_class"]
DICTIONARIES += ["split", *(f"landcover.{name}" for name in WORLDCOVER_FIELDS.values())]
SIDES = [f"bbox.{side.name}" for side in BBOX]
# How a scene's chip index is written, so that it opens fast. Parquet's own types imply the Arrow schema, which would
# store the metadata a second time, and nobody looks for a chip by the range of ids or geometries.
CHIP_FILE: dict[str, Any] = {
    "store_schema": False,
    "use_dictionary": [name for name in DICTIONARIES if name in CHIP_SCHEMA.names] + ["nodata_percentage", "gsd"],
    "column_encoding": dict.fromkeys(SIDES, "BYTE_STREAM_SPLIT"),
    "write_statistics": [name for name in CHIP_SCHEMA.names if name not in ("chipid", "geometry", "bbox")] + SIDES,
}


def index_scene(
    item: pystac.Item,
    platform: str,
    *,
    options: Options | None = None,
    chip_size: int = CHIP_SIZE,
    access: Sequence[Access] = (),
    excluded: Collection[str] = (),
) -> pa.Table:
    """Index the chips of one scene.

    Only the quality assets are read, once. Chips with more nodata than `options.max_chip_nodata` are skipped.

    Args:
        item: a scene with readable hrefs. If `proj:` fields are missing, the grid is read from the files.
        platform: platform key.
        options: the platform's recipe fields; None: those of clay_v1.
        chip_size: side length of a chip in pixels of the finest grid.
        access: ways to access files in addition to the platform's own, such as a store's.
        excluded: ids of chips to exclude.

    Returns:
        A table of `CHIP_SCHEMA`, ordered by row and column of the chip, with `geo` metadata and the counts
        `clay:chips_in_grid` and `clay:chips_above_nodata_limit`, and `clay:chips_excluded` if there are any. An
        excluded chip above the limit counts as above the limit.

    Raises:
        InputError: a missing asset, an invalid CRS or grid, a damaged file, or a scene smaller than one chip; names the
            item.
        SourceError: a remote file is temporarily unreadable.

    Examples:
        >>> import pyarrow.parquet as pq
        >>> import pystac
        >>> import stac_geoparquet.arrow
        >>> from clay_assets import index_scene
        >>> table = pq.read_table("demo/storage/scenes/scene_imagery/sentinel-2-l2a/2020.parquet")
        >>> item = pystac.Item.from_dict(next(stac_geoparquet.arrow.stac_table_to_items(table)))
        >>> chips = index_scene(item, "sentinel-2-l2a")
        >>> chips.column_names[:3]
        ['chipid', 'platform', 'item_id']
    """
    source = platform_of(platform).with_access(*access)
    limit = (options or source.rules.options()).max_chip_nodata
    document = source.read_item(item.to_dict(include_self_link=True, transform_hrefs=False))
    missing = source.missing(document, source.quality.assets)
    if missing:
        raise InputError(
            f"{item.id}: asset {', '.join(missing)} not found, only {', '.join(item.assets) or 'none'}; "
            f"{source.title} cannot be indexed without it."
        )
    grid, shares = read_shares(source, document, chip_size)
    with in_turn():
        table = _table(
            item.id, platform, item_datetime(document), grid, chip_size, shares.cloud, shares.nodata, limit, excluded
        )
    said = declared_grid(source, document)
    if said is None or same_grid(said, grid):
        return table
    return table.replace_schema_metadata({**table.schema.metadata, **stamped({GRID: _as_text(grid)})})


def open_index(location: str | Path, platform: str | None = None, year: int | None = None) -> ds.Dataset:
    """Open a chip index lazily: a merged index, one scene's file, or a folder of either.

    Args:
        location: path or `s3://` address of a file or folder.
        platform: only this platform.
        year: only this year of acquisition.

    Raises:
        InputError: chip index not found at that location.

    Examples:
        >>> import pyarrow.compute as pc
        >>> from clay_assets import open_index
        >>> index = open_index("demo/storage/chips/merged_index", platform="sentinel-2-l2a", year=2020)
        >>> clear = index.to_table(columns=["chipid"], filter=pc.field("cloud_cover_percentage") <= 1)
        >>> clear.num_rows == index.count_rows()
        True
    """
    text = str(location)
    text = (str(local_path(text)) if is_file_url(text) else text).rstrip("/")
    parent, _, name = text.rpartition("/")
    single = name.endswith(".parquet")
    store = open_store((parent or ".") if single else text)
    keys = [name] if single and store.exists(name) else [] if single else list(store.list("", ".parquet"))
    if not keys:
        raise InputError(f"{location}: chip index not found. Materialise chip_index or merged_index first.")
    if platform is not None:
        platform_of(platform)
        keys = [key for key in keys if _may_hold(key, platform, "platform")]
    if year is not None:
        keys = [key for key in keys if _may_hold(key, str(year), "year")]
    dataset = dataset_of(store, keys)
    if keys and (platform is not None or year is not None):
        _check_origin(store, keys[0])
    if platform is not None:
        dataset = dataset.filter(pc.field("platform") == platform)
    if year is not None:
        of_year = pc.field("year") if "year" in dataset.schema.names else pc.year(pc.field("datetime"))
        dataset = dataset.filter(of_year == year)
    return dataset


def _check_origin(store: Store, key: str) -> None:
    """Raise an error if a platform or year is requested of an index that stores neither: nothing would be left."""
    names = pq.read_schema(key, filesystem=store.filesystem()).names
    missing = [name for name in ("platform", "datetime") if name not in names]
    if missing:
        raise InputError(
            f"{store.uri(key)}: no column {' or '.join(missing)}, as in indexes of stacchip. Open it with "
            "clay_assets.chips.stacchip.open_stacchip_index."
        )


def _may_hold(key: str, value: str, name: str) -> bool:
    """Whether a file `{platform}/{year}/….parquet` can contain chips of a platform or year; True for other layouts."""
    folders = key.split("/")[:-1]
    if name == "year":
        years = [folder for folder in folders if folder.isdigit() and len(folder) == len(value)]
        return not years or value in years
    platforms = [folder for folder in folders if folder in PLATFORMS]
    return not platforms or value in platforms


def dataset_of(store: Store, keys: Sequence[str]) -> ds.Dataset:
    """A lazy dataset of chip-index files of scenes or of the merged index; reads at most one footer.

    Raises:
        InputError: the first file cannot be read.
    """
    filesystem = store.filesystem()
    schema = CHIP_SCHEMA
    if keys:
        try:
            merged = "year" in pq.read_schema(keys[0], filesystem=filesystem).names
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{store.uri(keys[0])}: cannot be read ({error}). Materialise it again.") from error
        schema = MERGED_SCHEMA if merged else CHIP_SCHEMA
    return ds.dataset(list(keys), schema=schema, filesystem=filesystem, format="parquet")


def as_chips(table: pa.Table) -> pa.Table:
    """Convert a chip index to current column types: version 0.1 wrote `platform` and `item_id` as dictionaries."""
    if table.schema.names != CHIP_SCHEMA.names:
        return table
    for name in ("platform", "item_id"):
        position = table.schema.get_field_index(name)
        if pa.types.is_dictionary(table.schema.field(position).type):
            table = table.set_column(position, name, table[name].cast(pa.string()))
    return table


def declared_grid(platform: AnyPlatform, item: Item) -> Grid | None:
    """The finest grid according to an item's `proj:` fields; None if they are incomplete.

    Raises:
        InputError: the fields are invalid; names the item.
    """
    return declared(item, platform.assets.grid).grid


def grid_of_file(table: pa.Table) -> Grid | None:
    """The grid of an indexed scene if its files differ from the grid that its item declares."""
    text = stamp_of(table.schema).get(GRID)
    if text is None:
        return None
    said = json.loads(text)
    return Grid(CRS.from_wkt(said["crs"]), Affine(*said["transform"]), *said["shape"])


def scene_crs(platform: AnyPlatform, item: dict[str, Any]) -> CRS:
    """The CRS of a scene's chips from its item, or else from the header of its first quality asset.

    Raises:
        InputError: neither has it; names the item or the file.
        SourceError: a remote file is temporarily unreadable.
    """
    said = declared(item, platform.assets.grid).crs
    if said is not None:
        return said
    asset = next((item["assets"][name] for name in platform.quality.assets if name in item["assets"]), None)
    if asset is None:
        raise InputError(f"{item['id']}: neither proj: fields nor a quality asset found, so the CRS is unknown.")
    href = platform.href(asset)
    with open_raster(href, platform.access_to(href)) as source:
        crs: CRS | None = source.dataset.crs
    if crs is None:
        raise InputError(f"{href}: no CRS in the file. Download it again.")
    return crs


def counts_of(table: pa.Table) -> tuple[int, int, int]:
    """Chips in the grid of an indexed scene, chips above the nodata limit, chips in the index."""
    stamp = stamp_of(table.schema)
    return int(stamp["chips_in_grid"]), int(stamp["chips_above_nodata_limit"]), table.num_rows


def _as_text(grid: Grid) -> str:
    said = {
        "crs": grid.crs.to_wkt(),
        "transform": tuple(grid.transform)[:6],
        "shape": [grid.height, grid.width],
    }
    return json.dumps(said)


def _table(
    item_id: str,
    platform: str,
    moment: Any,
    grid: Grid,
    size: int,
    cloud: NDArray[np.float32],
    nodata: NDArray[np.float32],
    limit: float,
    excluded: Collection[str] = (),
) -> pa.Table:
    kept = nodata.ravel() <= np.float32(limit)
    below = int(kept.sum())
    for x, y in _places(item_id, excluded):
        if y < cloud.shape[0] and x < cloud.shape[1]:
            kept[y * cloud.shape[1] + x] = False
    rows, columns = (axis.ravel()[kept] for axis in np.indices(cloud.shape))
    geometry, bounds, types = _geometry(chip_corners(grid, size)[kept])
    gsd = rounded_ground_sample_distance(grid, size)[kept]
    count = int(kept.sum())
    x, y = pa.array(columns, pa.uint16()), pa.array(rows, pa.uint16())
    text = pa.string()
    table = pa.Table.from_arrays(
        [
            pc.binary_join_element_wise(item_id, x.cast(text), y.cast(text), "-"),
            pa.repeat(pa.scalar(platform), count),
            pa.repeat(pa.scalar(item_id), count),
            pa.repeat(pa.scalar(moment, pa.timestamp("ms", tz="UTC")), count),
            pa.repeat(pa.scalar(moment.date(), pa.date32()), count),
            x,
            y,
            pa.array(cloud.ravel()[kept]),
            pa.array(nodata.ravel()[kept]),
            pa.array(gsd),
            geometry,
            pa.StructArray.from_arrays([pa.array(side) for side in bounds.T], fields=list(BBOX)),
        ],
        schema=CHIP_SCHEMA,
    )
    extent = (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)) if count else None
    counts = {"chips_in_grid": str(kept.size), "chips_above_nodata_limit": str(kept.size - below)}
    counts |= {EXCLUDED_COUNT: str(below - count)} if below > count else {}
    return table.replace_schema_metadata({b"geo": geo_metadata(types, extent), **stamped(counts)})


def rings_of(table: pa.Table) -> NDArray[np.float64] | None:
    """The rings of a chip index in the form of `chip_corners`; None if any geometry is not such a ring."""
    geometry = table["geometry"].combine_chunks()
    lengths = pc.binary_length(geometry).to_numpy(zero_copy_only=False)
    if geometry.null_count or not len(geometry) or (lengths != WKB_OF_RING.itemsize).any():
        return None
    first = np.frombuffer(geometry.buffers()[1], np.int32)[geometry.offset]
    records = np.frombuffer(geometry.buffers()[2], WKB_OF_RING, len(geometry), first)
    wanted = {"order": 1, "type": 3, "rings": 1, "points": CORNERS}
    if any((records[name] != value).any() for name, value in wanted.items()):
        return None
    rings: NDArray[np.float64] = records["xy"]
    return rings


def _places(item_id: str, chipids: Collection[str]) -> list[tuple[int, int]]:
    """Column and row of the chips that belong to a scene."""
    places = filter(None, map(chip_place, chipids))
    return [(place.x, place.y) for place in places if place.item_id == item_id]


def _geometry(rings: NDArray[np.float64]) -> tuple[pa.Array, NDArray[np.float64], list[str]]:
    """Polygons of `chip_corners` as WKB, their bounds (n, 4), and the names of the geometry types."""
    corners = [rings[:, corner] for corner in range(CORNERS - 1)]
    bounds = np.concatenate([np.minimum.reduce(corners), np.maximum.reduce(corners)], axis=1)
    if crosses(bounds).any():
        polygons = polygons_of(rings)
        types = [GEOMETRY_TYPES[number] for number in np.unique(shapely.get_type_id(polygons))]
        return pa.array(shapely.to_wkb(polygons), pa.binary()), shapely.bounds(polygons), types
    records = np.empty(len(rings), WKB_OF_RING)
    records["order"], records["type"], records["rings"], records["points"] = 1, 3, 1, CORNERS
    records["xy"] = rings
    starts = np.arange(len(rings) + 1, dtype=np.int32) * WKB_OF_RING.itemsize
    geometry = pa.Array.from_buffers(pa.binary(), len(rings), [None, pa.py_buffer(starts), pa.py_buffer(records)])
    return geometry, bounds, ["Polygon"] if len(rings) else []
