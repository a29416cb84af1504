"""MODIS 8-day composites and items, as the Planetary Computer's `modis-09A1-061` has them.

Images are the upper left 600 × 600 pixels of a tile of the sinusoidal grid; real ones have 2400 × 2400. The bands of a
tile are shared by its composites; state and QC are drawn per month of the year. Items have no `datetime` but a start
and an end, and a CRS without a code.

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

from clay_assets.demo.imagery import BLOCK, PATCH
from clay_assets.demo.noise import generator, ranked, smooth_field
from clay_assets.demo.sites import MODIS
from clay_assets.demo.stac import EO, GEOTIFF, PROJECTION, RASTER, Json, item
from clay_assets.demo.truth import Made

SPHERE = 6_371_007.181  # m
TILE = np.pi * SPHERE / 18  # m across a tile
PIXEL = TILE / 2400
SIZE = 600  # pixels, of real 2400
PROJ = f"+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R={SPHERE} +units=m +no_defs"
FILL, QC_FILL, STATE_FILL = -28672, 787410671, 65535
REFERENCE = date(2023, 9, 22)
YEARS = (2022, 2023)
DAYS = 8  # of a composite; the first of a year starts on 1 January
BANDS = {  # name → (common name, middle in µm)
    "sur_refl_b01": ("red", 0.645),
    "sur_refl_b02": ("nir08", 0.8585),
    "sur_refl_b03": ("blue", 0.469),
    "sur_refl_b04": ("green", 0.555),
    "sur_refl_b05": ("lwir12", 1.24),
    "sur_refl_b06": ("swir16", 1.64),
    "sur_refl_b07": ("swir22", 2.13),
}
QC, STATE = "sur_refl_qc_500m", "sur_refl_state_500m"


@dataclass(frozen=True)
class Tile:
    """One tile of the sinusoidal grid.

    Attributes:
        vertical, horizontal: its number, 0 to 17 and 0 to 35.
        fill: when some of its pixels have no data: `never`, `always`, or `once` (in `ONCE` alone).
        satellites: that offer it.
        empty_month: year and month that no composite touches, or None.
    """

    vertical: int
    horizontal: int
    fill: str = "never"
    satellites: tuple[str, ...] = ("terra", "aqua")
    empty_month: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """As in product names."""
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
PUBLISHED = ((4, 18), (11, 11))  # of the planet's tiles, those of the published list


@lru_cache(maxsize=1)
def composites() -> tuple[date, ...]:
    """First days of the composites on offer: of each month the first that starts in it and the last before that.

    The last one before starts in the month before and, unless the first starts on day 1, ends in this month. Beside
    them the reference.
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
    green = np.clip(0.5 + smooth_field(generator(seed, "modis", tile.name), (SIZE // PATCH,) * 2, 20) / 5, 0, 1)
    sea = ranked(smooth_field(generator(seed, "sea", tile.name), green.shape, 40)) < 0.2  # patches without data
    land = np.zeros_like(sea)
    for name in {"never": ("whole",), "always": ("partly",), "once": ("whole", "partly")}[tile.fill]:
        for band, (_, wavelength) in BANDS.items():
            # Reflectance × 10,000 between bare soil and vegetation; the red edge is at 0.7 µm.
            soil, plants = 0.08 + 0.12 * min(wavelength, 1.6), 0.45 if 0.72 < wavelength < 1 else 0.04
            numbers = np.round(10_000 * (soil + (plants - soil) * green)).astype(np.int16)
            _write(
                here / f"{name}_{band}.tif",
                np.where(sea, np.int16(FILL), numbers) if name == "partly" else numbers,
                tile,
            )
    made: list[Made] = []
    geometry, months = footprint(tile), set()
    for start in composites():
        end = start + timedelta(days=DAYS - 1)
        if tile.empty_month in ((start.year, start.month), (end.year, end.month)):
            continue
        partly = tile.fill == "always" or (tile.fill == "once" and start == ONCE)
        quality = f"{start:%m}{'_once' if tile.fill == 'once' and partly else ''}"
        if quality not in months:
            months.add(quality)
            state, qc = _quality(seed, tile, f"{start:%m}", sea if partly else land)
            _write(here / f"{quality}_{STATE}.tif", state, tile)
            _write(here / f"{quality}_{QC}.tif", qc, tile)
        paths = {band: here / f"{'partly' if partly else 'whole'}_{band}.tif" for band in BANDS}
        paths |= {band: here / f"{quality}_{band}.tif" for band in (STATE, QC)}
        made += [(_item(paths, tile, satellite, start, geometry), None) for satellite in tile.satellites]
    return made


def _quality(
    seed: int, tile: Tile, month: str, empty: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """State and QC of a month of the year, one value per patch.

    Both fields are drawn apart, so that each cloud state meets each QC. Beside bits 0-1 some others are set.
    """
    rng = generator(seed, "modis", tile.name, month)
    sky, product = (ranked(smooth_field(rng, empty.shape, 15)) for _ in range(2))
    # Bits 0-1 clear, assumed clear, mixed, cloudy (with and without shadow, bit 2); bits 3-5 land, 6-7 aerosol.
    states = np.array([8, 72, 11, 10, 9, 13, STATE_FILL], np.uint16)
    state = states[np.searchsorted([0.3, 0.45, 0.6, 0.7, 0.85, 0.9], sky, side="right")]
    # Bits 0-1 ideal, less than ideal, not produced for clouds or for other reasons; bit 30 atmospheric correction.
    codes = np.array([0, 1, 2, 3], np.uint32) + np.uint32(1 << 30)
    qc = codes[np.searchsorted([0.5, 0.75, 0.92], product, side="right")]
    return np.where(empty, np.uint16(STATE_FILL), state), np.where(empty, np.uint32(QC_FILL), qc)


def _write(path: Path, patches: NDArray[Any], tile: Tile) -> None:
    """Write patches as pixels into a copy of an empty file, as GDAL takes long to write a CRS that has no code."""
    pixels = patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1)
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
            blockxsize=BLOCK,
            blockysize=BLOCK,
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
