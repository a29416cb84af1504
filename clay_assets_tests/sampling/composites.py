"""Synthetic MODIS composites: small rasters in the sinusoidal grid, with items like the Planetary Computer's."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio import Affine

from clay_assets.sampling.modis_grid import tile_polygon

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
FILL = -28672
SIZE = 40  # pixels; a real image has 2,400
BANDS = [f"sur_refl_b0{number}" for number in range(1, 8)]
QUALITY = ["sur_refl_qc_500m", "sur_refl_state_500m"]

Json = dict[str, Any]


def name_of(vertical: int, horizontal: int) -> str:
    """The tile's name in product names."""
    return f"h{horizontal:02d}v{vertical:02d}"


def write_band(path: Path, vertical: int, horizontal: int, fill_pixels: int = 0) -> Path:
    """Write a band of a tile with a number of nodata pixels."""
    pixels = np.random.default_rng(7).integers(-100, 16001, SIZE * SIZE).astype(np.int16)
    pixels[len(pixels) - fill_pixels :] = FILL
    tile = np.pi * 6371007.181 / 18
    corner = Affine(tile / SIZE, 0, (horizontal - 18) * tile, 0, -tile / SIZE, (9 - vertical) * tile)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=SIZE, width=SIZE, count=1, dtype="int16", crs=SINUSOIDAL, transform=corner
    ) as sink:
        sink.write(pixels.reshape(SIZE, SIZE), 1)
    return path


def composite(
    vertical: int,
    horizontal: int,
    start: date,
    href: str,
    *,
    band: str = BANDS[0],
    satellite: str = "terra",
    without: tuple[str, ...] = (),
) -> Json:
    """An item with the address of one band; the files of the other bands do not exist."""
    product = {"terra": "MOD09A1", "aqua": "MYD09A1"}[satellite]
    item_id = f"{product}.A{start:%Y%j}.{name_of(vertical, horizontal)}.061.{start + timedelta(days=11):%Y%j}043514"
    outline = tile_polygon(vertical, horizontal)
    names = [name for name in (*BANDS, *QUALITY) if name not in without]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "collection": "modis-09A1-061",
        "geometry": shapely.geometry.mapping(shapely.segmentize(outline, 5)),
        "bbox": list(outline.bounds),
        "properties": {
            "datetime": None,
            "start_datetime": f"{start}T00:00:00Z",
            "end_datetime": f"{start + timedelta(days=7)}T23:59:59Z",
            "platform": satellite,
            "instruments": ["modis"],
            "modis:vertical-tile": vertical,
            "modis:horizontal-tile": horizontal,
        },
        "links": [],
        "assets": {name: {"href": href if name == band else f"/nowhere/{item_id}_{name}.tif"} for name in names},
    }
