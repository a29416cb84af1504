"""Toy platforms with derived images, and image files of known pixels for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Assets, Derivation, Files, Options, Platform

LEFT, TOP = 1_576_160.0, 5_184_720.0  # corner of a sheet, NZTM2000
NZTM = "EPSG:2193"
SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
FILL = -28672
SIN_TILE = 1_111_950.5196666666  # m, side of a tile of the MODIS grid, whose upper left corner is at -18 and 9 tiles

COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBA = (*COLOURS, ColorInterp.alpha)


class ToyOptions(Options):
    gsd: float = 0.3


def toy(*assets: str, derivation: Derivation[ToyOptions], optional: tuple[str, ...] = ()) -> Platform[ToyOptions]:
    """A platform with some assets, on the grid of the first."""
    landsat = PLATFORMS["landsat-c2l1"]
    return replace(
        landsat,
        key="toy",
        rules=replace(landsat.rules, options=ToyOptions),
        assets=Assets(bands=assets, grid=assets[0], optional=optional),
        quality=replace(landsat.quality, assets=assets[:1]),
        files=Files(derivation=derivation),
    )


AERIAL = toy(
    "visual",
    derivation=Derivation(gsd=lambda options: options.gsd, resampling="bilinear", bands=3, masked=True),
)
TILES = toy(
    "red",
    "qc",
    "state",
    derivation=Derivation(crs="EPSG:3857", fill={"red": FILL, "qc": 2**32 - 1, "state": 65535}),
    optional=("state",),
)


def write_image(
    path: Path,
    pixels: NDArray[Any],
    size: float,
    *,
    left: float = LEFT,
    top: float = TOP,
    crs: str | None = NZTM,
    nodata: float | None = None,
    meaning: tuple[ColorInterp, ...] | None = None,
    mask: NDArray[np.bool_] | None = None,
    down: float | None = None,
) -> str:
    """Write bands (band, row, column) as a tiled GeoTIFF, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": pixels.dtype, "count": count, "nodata": nodata, "crs": crs}
    profile |= {"height": height, "width": width, "transform": Affine(size, 0, left, 0, down or -size, top)}
    profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "zstd", "zstd_level": 1}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as sink:
        if meaning:
            sink.colorinterp = meaning
        sink.write(pixels)
        if mask is not None:
            sink.write_mask(mask)
    return str(path)


def write_tile(path: Path, pixels: NDArray[Any], horizontal: int = 19, vertical: int = 10, **fields: Any) -> str:
    """Write one band that covers a tile of the MODIS grid, or several stacked tiles."""
    place = {"left": (horizontal - 18) * SIN_TILE, "top": (9 - vertical) * SIN_TILE, "crs": SINUSOIDAL}
    return write_image(path, pixels[None], SIN_TILE / pixels.shape[1], **{**place, **fields})


def item(hrefs: Mapping[str, str], item_id: str = "a") -> dict[str, Any]:
    """An item with the required fields only."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "geometry": None,
        "properties": {"datetime": "2022-02-02T00:00:00Z"},
        "links": [],
        "assets": {name: {"href": href} for name, href in hrefs.items()},
    }
