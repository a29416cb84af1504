"""Small Sentinel-2 scenes with all their files, in the layout of Earth Search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from clay_assets.platforms import platform_of
from clay_assets.stac import Item

S2 = "sentinel-2-l2a"
LEFT, TOP, EPSG = 600000, 100020, 32632
SIZE, BLOCK = 640, 256
DARK, BRIGHT = 40, 3000  # numbers without the offset


def write_band(path: Path, pixels: np.ndarray, gsd: int = 10, **layout: Any) -> str:
    """A cloud-optimised GeoTIFF with one overview."""
    count, height, width = pixels.shape
    profile = {
        **{"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "nodata": 0},
        **{"crs": f"EPSG:{EPSG}", "transform": from_origin(LEFT, TOP, gsd, gsd)},
        **{"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 2},
    }
    with rasterio.open(path, "w", **{**profile, **layout}) as sink:
        sink.write(pixels)
        sink.build_overviews([2])
    return str(path)


def make_scene(
    folder: Path, number: int = 0, offset: int = 0, baseline: str = "05.09", applied: bool | None = None, **layout: Any
) -> Item:
    """One scene whose numbers include an offset, whatever its flags say; some land is dark in every band."""
    folder.mkdir(parents=True, exist_ok=True)
    item_id = f"S2A_32NMF_2020010{number}_0_L2A"
    rng = np.random.default_rng(number)
    dark = rng.random((1, SIZE, SIZE)) < 0.2
    assets = {}
    for name in platform_of(S2).asset_names:
        numbers = rng.integers(DARK, BRIGHT, dark.shape)
        numbers = np.where(dark, rng.integers(DARK, 2 * DARK, dark.shape), numbers) + offset
        if name == "scl":
            numbers = np.full(dark.shape, 4)
        pixels = numbers.astype(np.uint8 if name == "scl" else np.uint16)
        assets[name] = {"href": write_band(folder / f"{item_id}-{name}.tif", pixels, **layout)}
    properties = {"proj:epsg": EPSG, "datetime": f"2020-01-0{number + 1}T10:20:30.405Z"}
    properties["s2:processing_baseline"] = baseline
    if applied is not None:
        properties["earthsearch:boa_offset_applied"] = applied
    bbox = [9.0, 0.8, 9.1, 0.9]
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "collection": S2,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": bbox,
        "properties": properties,
        "links": [],
        "assets": assets,
    }
