"""The planet's image files: GeoTIFFs of quality codes, drawn per scene, and of bands, drawn once per place.

The visible bands of some scenes are drawn again with clouds.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS

from clay_assets.demo.grid import to_lonlat
from clay_assets.demo.ground import Spots, enlarge, landscape
from clay_assets.demo.items import LANDSAT_BANDS, PAN, SENTINEL_2_BANDS, VISIBLE, band_file, place_name
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.materials import reflectance
from clay_assets.demo.radiometry import OFFSET, has_offset_files
from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, SENTINEL_2, Site
from clay_assets.demo.weather import SKIES, SURFACE_PIXELS, Weather

DETAIL = 2  # pixels of the finest bands per ground spot: still recognisable, in a quarter of the time
COARSE = 25  # spots between those whose longitude and latitude are calculated
WINDING = 0.01  # degrees by which land-cover borders are displaced; cells are 0.05° wide
BLOCK = 256  # pixels
LARGEST_BLOCK = 384


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
        blockxsize=block_size(pixels.shape[1]),
        blockysize=block_size(pixels.shape[0]),
        compress="zstd",  # takes a third of deflate's time; every GDAL in rasterio's wheels reads it
        zstd_level=1,
    ) as sink:
        sink.write(pixels, 1)


def block_size(pixels: int) -> int:
    """Block width in pixels, chosen so that the last block is nearly full; a multiple of 16, as required by TIFF."""
    blocks = -(-pixels // LARGEST_BLOCK)
    return -(-pixels // (16 * blocks)) * 16


def draw_ground(seed: int, site: Site, weather: Weather, cover: LandCover) -> NDArray[np.uint8]:
    """The landscape of a place, (height, width) spots, as codes of `materials`.

    It follows the land cover, except for water and snow, which follow the quality raster.
    """
    step = detail_step(site)
    shape = (-(-site.height // step), -(-site.width // step))
    spots = Spots.of(seed, site.name, shape, site.pixel * step)
    x, y = (np.arange(-(-count // COARSE)) * COARSE + (COARSE - 1) / 2 for count in (shape[1], shape[0]))
    metres = site.pixel * step
    lon, lat = to_lonlat(site.epsg).transform(
        *np.meshgrid(site.left + (x + 0.5) * metres, site.top - (y + 0.5) * metres)
    )
    lon = lon + 360 * np.round((lon[0, 0] - lon) / 360)  # continues beyond ±180
    lon, lat = (enlarge(degrees, shape, COARSE) for degrees in (lon, lat))
    lon += WINDING * (spots.far + 0.4 * spots.near)
    lat += WINDING * (np.roll(spots.far, COARSE, axis=0) - 0.4 * spots.near)
    codes = weather.codes_of(site)
    snow = codes.index(weather.encoding.snow) / len(codes) if weather.encoding.snow in codes else np.inf
    heights = enlarge(weather.heights(site), shape, SURFACE_PIXELS / step)
    return landscape(spots, cover.at(lon, lat), heights, 1 / len(codes), snow)


def detail_step(site: Site) -> int:
    """Quality-raster pixels per ground spot; Sentinel-2's are twice as wide as those of its finest bands."""
    return 1 if site.pixel == 20 else DETAIL


def write_sentinel_2_bands(folder: Path, site: Site, ground: NDArray[np.uint8]) -> None:
    """Write the ten bands of a place, uint16, 10 m and 20 m, and again with an offset if the place has such scenes."""
    for offset in (0, OFFSET) if has_offset_files(site) else (0,):
        for key in SENTINEL_2_BANDS:
            _sentinel_2_band(folder, site, place_name(site, offset), key, ground, offset)


def write_landsat_bands(folder: Path, site: Site, ground: NDArray[np.uint8]) -> None:
    """Write the bands of both levels of a place, uint16, and the 15 m pan band."""
    for collection in (LANDSAT_L1, LANDSAT_L2):
        for key in LANDSAT_BANDS:
            _landsat_band(folder, site, site.name, collection, key, ground)
    band, size, _, wavelength = PAN
    pixels = band_pixels(wavelength, LANDSAT_L1, ground, 2 * DETAIL)[1 : 2 * site.height, 1 : 2 * site.width]
    path = band_file(folder, LANDSAT_L1, site.name, band)
    write_raster(path, pixels, site.epsg, site.left + size / 2, site.top - size / 2, size, nodata=0)


def write_visible(
    folder: Path, site: Site, item_id: str, collection: str, seen: NDArray[np.uint16], offset: int = 0
) -> None:
    """Write the visible bands of one scene next to its quality raster.

    Args:
        folder: the planet's folder.
        site: the scene's site.
        item_id: id of the scene.
        collection: collection of the scene.
        seen: the result of `under`.
        offset: offset of Sentinel-2's digital numbers.
    """
    for key in VISIBLE:
        if collection == SENTINEL_2:
            _sentinel_2_band(folder, site, item_id, key, seen, offset)
        else:
            _landsat_band(folder, site, item_id, collection, key, seen)


def under(sky: NDArray[np.uint8], ground: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Ground seen through a sky, as indices into the tables of all bands."""
    return sky.astype(np.uint16) * np.uint16(256) + ground


def _sentinel_2_band(folder: Path, site: Site, place: str, key: str, seen: NDArray[Any], offset: int) -> None:
    band, gsd, _, wavelength = SENTINEL_2_BANDS[key]
    factor = DETAIL * 10 // gsd
    height, width = (side * site.pixel // gsd for side in (site.height, site.width))
    pixels = band_pixels(wavelength, SENTINEL_2, seen, factor, offset)[:height, :width]
    write_raster(band_file(folder, SENTINEL_2, place, band), pixels, site.epsg, site.left, site.top, gsd, nodata=0)


def _landsat_band(folder: Path, site: Site, place: str, collection: str, key: str, seen: NDArray[Any]) -> None:
    band, gsd, _, wavelength = LANDSAT_BANDS[key]
    pixels = band_pixels(wavelength, collection, seen, DETAIL)[: site.height, : site.width]
    path = band_file(folder, collection, place, band if collection == LANDSAT_L1 else f"SR_{band}")
    write_raster(path, pixels, site.epsg, site.left, site.top, gsd, nodata=0)


@lru_cache(maxsize=64)
def crs(epsg: int) -> CRS:
    """The CRS of an EPSG code, cached."""
    return CRS.from_epsg(epsg)


def band_pixels(
    wavelength: float, collection: str, seen: NDArray[Any], factor: int, offset: int = 0
) -> NDArray[np.uint16]:
    """A band as recorded by a sensor, each spot `factor` pixels wide and high: 1, 2 or 4.

    Args:
        wavelength: the band's wavelength, µm.
        collection: collection that defines the digital numbers.
        seen: the ground as codes of `materials`, or the result of `under`.
        factor: width of a spot in pixels.
        offset: value added to the digital numbers.
    """
    # A wide integer that contains `factor` copies of a value is several pixels: faster than repeating them.
    copies = sum(1 << 16 * place for place in range(factor))
    wide = (_digital_numbers(wavelength, collection) + np.uint16(offset)).ravel().astype(f"u{2 * factor}") * copies
    pixels: NDArray[np.uint16] = wide.take(seen).view(np.uint16).repeat(factor, axis=0)
    return pixels


@lru_cache(maxsize=64)
def _digital_numbers(wavelength: float, collection: str) -> NDArray[np.uint16]:
    """Digital numbers of a band: one row per sky, one column per ground code.

    Sentinel-2 level 2A (here without its offset) and MODIS store reflectance × 10,000; Landsat level 2 stores
    (reflectance + 0.2) / 0.0000275 (Landsat 8-9 Collection 2 Level 2 Science Product Guide); level 1 stores
    (reflectance × sine of the sun elevation + 0.1) / 0.00002, at the top of an atmosphere that adds blue haze.
    """
    light, hidden, bright = (column[:, None] for column in np.array(SKIES).T)
    white = bright * np.interp(wavelength, (1.0, 1.6, 2.2), (1, 0.6, 0.45))  # clouds absorb in the infrared
    seen = reflectance(wavelength) * light * (1 - hidden) + white * hidden
    if collection == LANDSAT_L1:
        numbers = (0.8 * (0.9 * seen + 0.008 * (0.7 / wavelength) ** 4) + 0.1) / 0.00002
    elif collection == LANDSAT_L2:
        numbers = (seen + 0.2) / 0.0000275
    else:
        numbers = seen * 10_000
    rounded: NDArray[np.uint16] = np.round(numbers).astype(np.uint16)
    return rounded
