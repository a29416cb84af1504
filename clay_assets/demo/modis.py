"""MODIS 8-day composites and items in the form of the Planetary Computer's `modis-09A1-061`.

Images are the upper left 600 × 600 pixels of a tile of the sinusoidal grid; real ones have 2400 × 2400. Composites of a
tile share its bands, except the visible ones of some months, which show clouds; state and QC are drawn per month of the
year. Items have a start and an end instead of `datetime`, and a CRS without a code.

Grid and sphere: NASA, MODIS Land tile grid. Codes: MODIS Surface Reflectance User's Guide, Collection 6.1, tables 10
(500 m QC) and 13 (state).
"""

from __future__ import annotations

import shutil
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio import Affine
from rasterio.crs import CRS as RasterCRS  # noqa: N811
from shapely.geometry.base import BaseGeometry

from clay_assets.demo.ground import CROPS, TOWN, Spots, enlarge, landscape
from clay_assets.demo.imagery import band_pixels, block_size, under
from clay_assets.demo.noise import generator, ranked, smooth_field
from clay_assets.demo.sites import MODIS
from clay_assets.demo.stac import EO, GEOTIFF, PROJECTION, RASTER, Json, item
from clay_assets.demo.truth import Made
from clay_assets.demo.weather import CLOUDS, SHADOWS

SPHERE = 6_371_007.181  # m
TILE = np.pi * SPHERE / 18  # m across a tile
PIXEL = TILE / 2400
SIZE = 600  # pixels; real tiles have 2400
PROJ = f"+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R={SPHERE} +units=m +no_defs"
FILL, QC_FILL, STATE_FILL = -28672, 787410671, 65535
REFERENCE = date(2023, 9, 22)
YEARS = (2022, 2023)
DAYS = 8  # days of a composite; the first of a year starts on 1 January
BANDS = {  # name → (common name, centre in µm)
    "sur_refl_b01": ("red", 0.645),
    "sur_refl_b02": ("nir08", 0.8585),
    "sur_refl_b03": ("blue", 0.469),
    "sur_refl_b04": ("green", 0.555),
    "sur_refl_b05": ("lwir12", 1.24),
    "sur_refl_b06": ("swir16", 1.64),
    "sur_refl_b07": ("swir22", 2.13),
}
PATCH = 10  # width of a quality patch, pixels
DETAIL = 2  # width of a ground patch
SEA = 0.2  # share of an image that is water, and that is nodata if there is any
COVER = ((60, 0.08), (20, 0.14), (30, 0.22), (CROPS, 0.62), (TOWN, 0.64), (10, 1.0))  # class, cumulative share
VISIBLE = ("sur_refl_b01", "sur_refl_b03", "sur_refl_b04")
# Composites that show clouds: those that the demo's recipe samples. The others share clear bands.
CLOUDY_MONTHS = (1, 4, 7, 10)
MIXED, COVERED = 0.6, 0.78  # sky values from which on it is partly and fully cloudy
QC, STATE = "sur_refl_qc_500m", "sur_refl_state_500m"


@dataclass(frozen=True)
class Tile:
    """One tile of the sinusoidal grid.

    Attributes:
        vertical, horizontal: tile numbers, 0 to 17 and 0 to 35.
        fill: when some of its pixels are nodata: `never`, `always`, or `once` (only in `ONCE`).
        satellites: satellites whose products include it.
        empty_month: year and month without any composite, or None.
    """

    vertical: int
    horizontal: int
    fill: str = "never"
    satellites: tuple[str, ...] = ("terra", "aqua")
    empty_month: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Name as in product names."""
        return f"h{self.horizontal:02d}v{self.vertical:02d}"

    @property
    def corner(self) -> tuple[float, float]:
        """Upper left corner, m."""
        return (self.horizontal - 18) * TILE, (9 - self.vertical) * TILE


ONCE = date(2022, 3, 6)  # first composite of its month
TILES = (
    Tile(4, 18),
    Tile(11, 11, empty_month=(2022, 6)),
    Tile(10, 18, fill="always"),
    Tile(8, 17, fill="once"),
    Tile(9, 26, satellites=("aqua",)),
)
PUBLISHED = ((4, 18), (11, 11))  # the planet's tiles that are in the published list


@lru_cache(maxsize=1)
def composites() -> tuple[date, ...]:
    """First days of the available composites: for each month the first that starts in it and the last before that.

    The latter starts in the previous month and, unless the former starts on day 1, ends in this month. The reference
    composite is added.
    """
    days = [date(year, 1, 1) + timedelta(days=DAYS * n) for year in (2021, *YEARS) for n in range(46)]
    chosen = {REFERENCE}
    for year in YEARS:
        for month in range(1, 13):
            first = next(n for n, day in enumerate(days) if (day.year, day.month) == (year, month))
            chosen |= set(days[first - 1 : first + 1])
    return tuple(sorted(chosen))


def footprint(tile: Tile) -> BaseGeometry:
    """Outline of an image, EPSG:4326. On the sphere latitude is y / R and longitude x / (R cos latitude)."""
    left, top = tile.corner
    outline = shapely.segmentize(shapely.box(left, top - SIZE * PIXEL, left + SIZE * PIXEL, top), SIZE * PIXEL / 4)

    def to_lonlat(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        latitude = xy[:, 1] / SPHERE
        return np.degrees(np.column_stack([xy[:, 0] / (SPHERE * np.cos(latitude)), latitude]))

    return shapely.transform(outline, to_lonlat)


def draw_modis(folder: Path, seed: int, pool: Executor) -> list[Future[list[Made]]]:
    """Draw every composite of `modis-09A1-061`."""
    return [pool.submit(_tile, folder, seed, tile) for tile in TILES]


def _tile(folder: Path, seed: int, tile: Tile) -> list[Made]:
    here = folder / "imagery" / MODIS / tile.name
    heights = ranked(smooth_field(generator(seed, "sea", tile.name), (SIZE // PATCH,) * 2, 40))
    sea = heights < SEA
    land = np.zeros_like(sea)
    ground = _ground(seed, tile, heights)
    for name in {"never": ("whole",), "always": ("partly",), "once": ("whole", "partly")}[tile.fill]:
        for band in BANDS:
            _write_band(here / f"{name}_{band}.tif", band, ground, sea if name == "partly" else land, tile)
    made: list[Made] = []
    geometry, months = footprint(tile), set()
    for start in composites():
        end = start + timedelta(days=DAYS - 1)
        if tile.empty_month in ((start.year, start.month), (end.year, end.month)):
            continue
        partly = tile.fill == "always" or (tile.fill == "once" and start == ONCE)
        empty, name = (sea, "partly") if partly else (land, "whole")
        month = f"{start:%m}"
        quality = f"{month}{'_once' if tile.fill == 'once' and partly else ''}"
        cloudy = start.month in CLOUDY_MONTHS
        if quality not in months:
            months.add(quality)
            sky, state, qc = _quality(seed, tile, month, empty)
            _write(here / f"{quality}_{STATE}.tif", _patches(state), tile)
            _write(here / f"{quality}_{QC}.tif", _patches(qc), tile)
            if cloudy:
                seen = under(_clouds(sky), ground)
                for band in VISIBLE:
                    _write_band(here / f"{name}_{quality}_{band}.tif", band, seen, empty, tile)
        paths = {
            band: here / f"{name}_{f'{quality}_' if cloudy and band in VISIBLE else ''}{band}.tif" for band in BANDS
        }
        paths |= {band: here / f"{quality}_{band}.tif" for band in (STATE, QC)}
        made += [(_item(paths, tile, satellite, start, geometry), None) for satellite in tile.satellites]
    return made


def _ground(seed: int, tile: Tile, heights: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The landscape of a tile as codes of `materials`, one per `DETAIL` pixels."""
    shape = (SIZE // DETAIL,) * 2
    spots = Spots.of(seed, tile.name, shape, PIXEL * DETAIL)
    field = smooth_field(generator(seed, "cover", tile.name), shape, 110)
    classes, shares = (np.array(column) for column in zip(*COVER, strict=True))
    cover = classes.astype(np.uint8)[np.searchsorted(shares[:-1], ranked(field), side="right")]
    return landscape(spots, cover, enlarge(heights, shape, PATCH / DETAIL), SEA, np.inf)


def _clouds(sky: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The appearance of clouds, as in `weather`, where the state of a composite flags them."""
    wide = enlarge(sky, (SIZE // DETAIL,) * 2, PATCH / DETAIL)
    thick = np.clip((wide - MIXED) / (COVERED - MIXED), 0, 1) * len(CLOUDS)
    return np.where(thick < 1, 0, len(SHADOWS) + thick).astype(np.uint8)


def _quality(
    seed: int, tile: Tile, month: str, empty: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.uint16], NDArray[np.uint32]]:
    """The sky of a month, 0 (clear) to 1 (cloudy), and its state and QC; one value per patch.

    Sky and product are drawn independently, so that each cloud state is combined with each QC. Besides bits 0-1 some
    others are set.
    """
    rng = generator(seed, "modis", tile.name, month)
    sky, product = (ranked(smooth_field(rng, empty.shape, 15)) for _ in range(2))
    # Bits 0-1 clear, assumed clear, mixed, cloudy (with and without shadow, bit 2); bits 3-5 land, 6-7 aerosol.
    states = np.array([8, 72, 11, 10, 9, 13, STATE_FILL], np.uint16)
    state = states[np.searchsorted([0.3, 0.45, MIXED, 0.7, 0.85, 0.9], sky, side="right")]
    # Bits 0-1 ideal, less than ideal, not produced for clouds or for other reasons; bit 30 atmospheric correction.
    codes = np.array([0, 1, 2, 3], np.uint32) + np.uint32(1 << 30)
    qc = codes[np.searchsorted([0.5, 0.75, 0.92], product, side="right")]
    return sky, np.where(empty, np.uint16(STATE_FILL), state), np.where(empty, np.uint32(QC_FILL), qc)


def _patches(patches: NDArray[Any]) -> NDArray[Any]:
    """Expand patches to pixels."""
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def _write_band(path: Path, band: str, seen: NDArray[Any], empty: NDArray[np.bool_], tile: Tile) -> None:
    """Write a band, reflectance × 10,000, with the fill value where patches are empty."""
    pixels = band_pixels(BANDS[band][1], MODIS, seen, DETAIL).view(np.int16)
    _write(path, np.where(_patches(empty), np.int16(FILL), pixels) if empty.any() else pixels, tile)


def _write(path: Path, pixels: NDArray[Any], tile: Tile) -> None:
    """Write pixels into a copy of an empty file, as GDAL is slow to write a CRS without a code."""
    kind = pixels.dtype.name
    left, top = tile.corner
    empty = path.parent / f"empty_{kind}.tif"
    if not empty.exists():
        fill = {"int16": FILL, "uint16": STATE_FILL, "uint32": QC_FILL}[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            empty,
            "w",
            driver="GTiff",
            height=SIZE,
            width=SIZE,
            count=1,
            dtype=kind,
            crs=RasterCRS.from_proj4(PROJ),
            transform=Affine(PIXEL, 0, left, 0, -PIXEL, top),
            nodata=fill,
            tiled=True,
            blockxsize=block_size(SIZE),
            blockysize=block_size(SIZE),
            compress="zstd",
            zstd_level=1,
            sparse_ok=True,
        ):
            pass
    shutil.copyfile(empty, path)
    with rasterio.open(path, "r+") as sink:
        sink.write(pixels, 1)


@lru_cache(maxsize=1)
def _wkt() -> str:
    return CRS(PROJ).to_wkt("WKT2_2019")


def _item(paths: dict[str, Path], tile: Tile, satellite: str, start: date, geometry: BaseGeometry) -> Json:
    product = {"terra": "MOD09A1", "aqua": "MYD09A1"}[satellite]
    done = start + timedelta(days=DAYS + 3)
    name = f"{product}.A{start:%Y%j}.{tile.name}.061.{done:%Y%j}043514"
    left, top = tile.corner
    assets: dict[str, Any] = {}
    for band, (common, middle) in BANDS.items():
        assets[band] = {
            "href": str(paths[band]),
            "type": GEOTIFF,
            "title": f"Surface Reflectance Band {int(band[-2:])}",
            "eo:bands": [{"name": band, "common_name": common, "center_wavelength": middle}],
            "raster:bands": [{"data_type": "int16", "spatial_resolution": 500, "scale": 0.0001}],
            "roles": ["data", "reflectance"],
        }
    for band, kind, title in (
        (QC, "uint32", "Surface reflectance 500m band quality control flags"),
        (STATE, "uint16", "Surface reflectance 500m state flags"),
    ):
        assets[band] = {
            "href": str(paths[band]),
            "type": GEOTIFF,
            "title": title,
            "raster:bands": [{"data_type": kind, "spatial_resolution": 500}],
            "roles": ["data"],
        }
    properties = {
        "datetime": None,
        "start_datetime": f"{start}T00:00:00Z",
        "end_datetime": f"{start + timedelta(days=DAYS - 1)}T23:59:59Z",
        "created": f"{done}T04:35:14Z",
        "updated": f"{done}T04:35:14Z",
        "platform": satellite,
        "instruments": ["modis"],
        "modis:horizontal-tile": tile.horizontal,
        "modis:vertical-tile": tile.vertical,
        "modis:tile-id": f"51{tile.horizontal:03d}{tile.vertical:03d}",
        "proj:epsg": None,
        "proj:wkt2": _wkt(),
        "proj:shape": [SIZE, SIZE],
        "proj:transform": [PIXEL, 0.0, left, 0.0, -PIXEL, top],
    }
    return item(name, MODIS, geometry, properties, assets, [PROJECTION, EO, RASTER])
