"""The frame of STAC items and collections that all sensors of the planet share.

Properties and assets of a collection are in its sensor's module. STAC specification 1.0.0.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, MODIS, NAIP, SENTINEL_1, SENTINEL_2

Json = dict[str, Any]

GEOTIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
EO = "https://stac-extensions.github.io/eo/v1.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v1.0.0/schema.json"
PROJECTION_WITH_CODE = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_TITLES = {
    SENTINEL_2: "Sentinel-2 Level 2A (demo planet)",
    LANDSAT_L1: "Landsat Collection 2 Level-1 Product (demo planet)",
    LANDSAT_L2: "Landsat Collection 2 Level-2 Surface Reflectance Product (demo planet)",
    SENTINEL_1: "Sentinel-1 Radiometrically Terrain Corrected (demo planet)",
    NAIP: "NAIP: National Agriculture Imagery Program (demo planet)",
    MODIS: "MODIS Surface Reflectance 8-Day 500 m (demo planet)",
}


def collection(name: str) -> Json:
    """A STAC collection."""
    start = "2010-01-01T00:00:00Z" if name == NAIP else "2018-01-01T00:00:00Z"
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "title": _TITLES[name],
        "description": "Made-up scenes of the miniature planet that the demo and the tests run on.",
        "license": "Apache-2.0",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[start, "2023-12-31T23:59:59Z"]]},
        },
        "links": [],
    }


def item(
    name: str, collection: str, geometry: BaseGeometry, properties: Json, assets: Json, extensions: list[str]
) -> Json:
    """A STAC item; its geometry is split at ±180 if it crosses it."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": extensions,
        "id": name,
        "collection": collection,
        "geometry": _lists(shapely.geometry.mapping(geometry)),
        "bbox": bbox(geometry),
        "properties": properties,
        "links": [{"rel": "collection", "href": f"./{collection}.json", "type": "application/json"}],
        "assets": assets,
    }


def bbox(geometry: BaseGeometry) -> list[float]:
    """Bounding box according to RFC 7946, section 5.2: west is larger than east if it crosses ±180."""
    west, south, east, north = geometry.bounds
    if geometry.geom_type == "MultiPolygon":
        parts = [part.bounds for part in geometry.geoms]
        west = max(bounds[0] for bounds in parts)
        east = min(bounds[2] for bounds in parts)
    return [west, south, east, north]


def stamp(moment: datetime) -> str:
    """A moment as RFC 3339, in UTC with microseconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _lists(value: Any) -> Any:
    """Convert nested tuples to lists, as in JSON."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, (tuple, list)) else value
