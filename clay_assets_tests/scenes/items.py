"""STAC items for tests: real ones recorded from the catalogues, and small synthetic ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.scenes.imagery import Imagery
from clay_assets.scenes.picks import Picks
from clay_assets.stac import Item
from clay_assets.storage.stac_geoparquet import encode_items

SENTINEL_2, LANDSAT_L1, LANDSAT_L2 = "sentinel-2-l2a", "landsat-c2l1", "landsat-c2l2-sr"
SENTINEL_1, NAIP, MODIS = "sentinel-1-rtc", "naip", "modis-09A1-061"
REAL_FILES = {
    SENTINEL_2: "sentinel-2-l2a__earth-search-v1.ndjson.gz",
    LANDSAT_L1: "landsat-c2l1__landsatlook.ndjson.gz",
    LANDSAT_L2: "landsat-c2l2-sr__landsatlook.ndjson.gz",
    SENTINEL_1: "sentinel-1-rtc__planetary-computer.ndjson.gz",
    NAIP: "naip__planetary-computer.ndjson.gz",
    MODIS: "modis-09A1-061__stactools-examples.ndjson.gz",
}
SENTINEL_2_ASSETS = [
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "swir16",
    "swir22",
    "scl",
]
LANDSAT_ASSETS = ["red", "green", "blue", "nir08", "swir16", "swir22", "qa_pixel"]

Properties = dict[str, Any]  # names with a colon, passed as keywords


def real_items(folder: Path, collection: str) -> list[Item]:
    """The recorded items of a collection."""
    with gzip.open(folder / "stac" / "items" / REAL_FILES[collection], "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def sentinel_2_item(
    item_id: str,
    when: str,
    cloud: float | None = 10.0,
    *,
    tile: str = "32NLG",
    nodata: float | None = 0.0,
    geometry: BaseGeometry | None = None,
    without: tuple[str, ...] = (),
    collection: str = SENTINEL_2,
    **properties: Any,
) -> Item:
    """An item in the form of Earth Search; by default it covers 6° to 7° E, 0° to 1° N."""
    given = {
        "datetime": when,
        "eo:cloud_cover": cloud,
        "s2:nodata_pixel_percentage": nodata,
        "grid:code": f"MGRS-{tile}",
        "proj:epsg": 32632,
        **properties,
    }
    return _item(item_id, collection, geometry, given, [name for name in SENTINEL_2_ASSETS if name not in without])


def landsat_item(
    item_id: str,
    when: str,
    cloud: float | None = 10.0,
    *,
    sun: float | None = 45.0,
    platform: str = "LANDSAT_8",
    geometry: BaseGeometry | None = None,
    without: tuple[str, ...] = (),
    collection: str = LANDSAT_L2,
    **properties: Any,
) -> Item:
    """An item in the form of the USGS server."""
    given = {
        "datetime": when,
        "eo:cloud_cover": cloud,
        "view:sun_elevation": sun,
        "platform": platform,
        "proj:epsg": 32632,
        **properties,
    }
    return _item(item_id, collection, geometry, given, [name for name in LANDSAT_ASSETS if name not in without])


def _item(item_id: str, collection: str, geometry: BaseGeometry | None, properties: Item, assets: list[str]) -> Item:
    shape = shapely.box(6, 0, 7, 1) if geometry is None else geometry
    west, south, east, north = shape.bounds
    if shape.geom_type == "MultiPolygon":  # across ±180, RFC 7946
        west, east = max(part.bounds[0] for part in shape.geoms), min(part.bounds[2] for part in shape.geoms)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "collection": collection,
        "geometry": json.loads(shapely.to_geojson(shape)),
        "bbox": [west, south, east, north],
        "properties": {name: value for name, value in properties.items() if value is not None},
        "links": [{"rel": "collection", "href": f"https://example.com/{collection}", "type": "application/json"}],
        "assets": {name: {"href": f"https://example.com/{item_id}/{name}.tif"} for name in assets},
    }


def snapshot(path: Path, items: list[Item]) -> str:
    """Write items as a STAC-GeoParquet file and return its location."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_items(items, {}))
    return str(path)


def without_links(items: list[Item]) -> list[Item]:
    """Items without links, for comparison: an API adds its own links."""
    return [{**item, "links": []} for item in items]


def failed_share(found: Picks | Imagery) -> float:
    """Share of a ledger's rows that failed."""
    return float((found.ledger["outcome"] == "failed").sum()) / max(len(found.ledger), 1)
