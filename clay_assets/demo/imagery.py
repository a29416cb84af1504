"""The planet's image files: GeoTIFFs of quality codes, drawn per scene, and of bands, drawn once per place."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS

from clay_assets.demo.items import LANDSAT_BANDS, PAN, SENTINEL_2_BANDS, band_file
from clay_assets.demo.noise import generator, smooth_field
from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, SENTINEL_2, Site

PATCH = 10  # pixels of the quality raster across one patch of equal reflectance
BLOCK = 256


def write_raster(
    path: Path,
    pixels: NDArray[Any],
    epsg: int,
    left: float,
    top: float,
    size: float,
    *,
    nodata: float | None = None,
) -> None:
    """Write one band as a tiled, compressed GeoTIFF, north up, square pixels of `size` m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=pixels.shape[0],
        width=pixels.shape[1],
        count=1,
        dtype=pixels.dtype.name,
        crs=crs(epsg),
        transform=Affine(size, 0, left, 0, -size, top),
        nodata=nodata,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="zstd",  # a third of deflate's time; every GDAL that rasterio ships reads it
        zstd_level=1,
    ) as sink:
        sink.write(pixels, 1)


def write_sentinel_2_bands(folder: Path, seed: int, site: Site) -> None:
    """The ten bands of a place: reflectance × 10,000, uint16, 10 m and 20 m."""
    green = _greenness(seed, site)
    for band, gsd, _, wavelength in SENTINEL_2_BANDS.values():
        factor = site.pixel // gsd
        pixels = _ground(green, wavelength, 10_000, 0, factor * PATCH)
        pixels = pixels[: factor * site.height, : factor * site.width]
        path = band_file(folder, SENTINEL_2, site, band)
        write_raster(path, pixels, site.epsg, site.left, site.top, gsd, nodata=0)


def write_landsat_bands(folder: Path, seed: int, site: Site) -> None:
    """The bands of both levels of a place, uint16: scaled radiance with the 15 m pan band, and reflectance.

    Level 2 stores (reflectance + 0.2) / 0.0000275 (Landsat 8-9 Collection 2 Level 2 Science Product Guide).
    """
    green = _greenness(seed, site)
    for band, size, _, wavelength in LANDSAT_BANDS.values():
        for collection, name, gain, offset in (
            (LANDSAT_L1, band, 40_000, 5_000),
            (LANDSAT_L2, f"SR_{band}", 1 / 0.0000275, 0.2 / 0.0000275),
        ):
            pixels = _ground(green, wavelength, gain, offset, PATCH)[: site.height, : site.width]
            path = band_file(folder, collection, site, name)
            write_raster(path, pixels, site.epsg, site.left, site.top, size, nodata=0)
    band, size, _, wavelength = PAN
    pixels = _ground(green, wavelength, 40_000, 5_000, 2 * PATCH)[1 : 2 * site.height, 1 : 2 * site.width]
    path = band_file(folder, LANDSAT_L1, site, band)
    write_raster(path, pixels, site.epsg, site.left + size / 2, site.top - size / 2, size, nodata=0)


@lru_cache(maxsize=64)
def crs(epsg: int) -> CRS:
    """The CRS of an EPSG code; looked up once."""
    return CRS.from_epsg(epsg)


def _greenness(seed: int, site: Site) -> NDArray[np.float32]:
    """How green each patch of a place is, 0 to 1."""
    shape = (-(-site.height // PATCH), -(-site.width // PATCH))
    return np.clip(0.5 + smooth_field(generator(seed, "ground", site.name), shape, 20) / 5, 0, 1)


def _ground(
    green: NDArray[np.float32], wavelength: float, gain: float, offset: float, patch: int
) -> NDArray[np.uint16]:
    """Digital numbers of a ground between bare soil and vegetation, in patches; the red edge is at 0.7 µm."""
    soil = 0.08 + 0.12 * min(wavelength, 1.6)
    plants = 0.45 if 0.72 < wavelength < 1 else 0.04 + 0.06 * wavelength
    numbers = np.round(gain * (soil + (plants - soil) * green) + offset).astype(np.uint16)
    return numbers.repeat(patch, axis=0).repeat(patch, axis=1)
