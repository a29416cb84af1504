"""NAIP images and items in the form of the Planetary Computer's `naip`.

Six places in the conterminous United States, in five UTM zones of NAD83. Images are uint8 with four pixel-interleaved
bands; a few declare nodata, each in a different way. Items keep the catalogue's quirks: `naip:year` is text, times are
16:00 or 00:00 UTC depending on age, and some older items are STAC 1.0.0-beta.2.

Names: USDA NAIP quarter quadrangles (`m_{quadrangle}_{quarter}_{UTM zone}_{resolution}_{date}`).
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp
from shapely.geometry.base import BaseGeometry

from clay_assets.demo.aerial import aerial, colours
from clay_assets.demo.grid import to_lonlat
from clay_assets.demo.imagery import BLOCK, DETAIL, crs
from clay_assets.demo.sites import NAIP
from clay_assets.demo.stac import EO, GEOTIFF, PROJECTION, Json, item
from clay_assets.demo.truth import ChipCounts, Made

WIDTH, HEIGHT, CHIP = 1200, 1000, 256  # pixels
FINE_FROM = 2016  # images are 0.6 m from this year on, 1 m before
NOON_FROM = 2018  # times are 16:00 UTC from this year on, midnight before
BETA_UNTIL = 2012
OVERLAP = 150  # m, overlap of neighbouring quadrangles
WEDGE = (420, 60)  # nodata pixels at the left, at the top and at the bottom
_PROVIDERS = [{"name": "Demo planet", "roles": ["producer"], "url": "https://example.com/"}]
_BANDS = [
    {"name": "Red", "common_name": "red"},
    {"name": "Green", "common_name": "green"},
    {"name": "Blue", "common_name": "blue"},
    {"name": "NIR", "common_name": "nir", "description": "near-infrared"},
]


@dataclass(frozen=True)
class Place:
    """A place with imagery.

    Attributes:
        state: two lower-case letters.
        zone: UTM zone.
        lon, lat: centre, degrees.
        dates: dates of its images, YYYYMMDD.
        masks: date → how nodata is declared: by a `tag`, an `internal` mask or an `alpha` band.
        quads: 1, or 2 that overlap.
        ground: surface types, as passed to `aerial`.
        stream: width of the stream through it, m.
    """

    state: str
    zone: int
    lon: float
    lat: float
    dates: tuple[str, ...]
    masks: tuple[tuple[str, str], ...] = ()
    quads: int = 1
    ground: tuple[str, ...] = ("town",)
    stream: float = 0

    @property
    def epsg(self) -> int:
        """EPSG code of its NAD83 / UTM zone."""
        return 26900 + self.zone


PLACES = (
    Place(
        "al", 16, -86.30, 31.20, ("20130921", "20190812", "20211103"),
        quads=2, ground=("woods", "meadow", "woods"), stream=14,
    ),
    Place(
        "co", 13, -105.02, 39.70, ("20110704", "20150815", "20190901", "20210730"), (("20150815", "tag"),),
        ground=("meadow", "town"),
    ),
    Place("ks", 14, -98.30, 38.50, ("20120619", "20170711"), (("20170711", "internal"),), ground=("farmland",)),
    Place(
        "ny", 18, -73.48, 44.96, ("20130625", "20190903"), (("20190903", "alpha"),),
        ground=("woods", "farmland", "meadow"), stream=30,
    ),
    Place("dc", 18, -77.03, 38.90, ("20180914",), ground=("meadow", "town", "town"), stream=70),
    Place(
        "ca", 11, -116.97, 32.62, ("20100503", "20120518", "20160424", "20200512", "20200801"),
        ground=("scrub", "scrub", "town"),
    ),
)  # fmt: skip


def quad_corner(place: Place, quad: int, pixel: float) -> tuple[float, float]:
    """North-west corner of an image, m in the place's CRS, on multiples of 6 m.

    Args:
        place: the image's place.
        quad: 0, or 1 for the neighbour to the east.
        pixel: pixel size, m.
    """
    x, y = to_lonlat(place.epsg).transform(place.lon, place.lat, direction="INVERSE")
    width = WIDTH * pixel
    x += (quad - place.quads / 2) * (width - OVERLAP) - (OVERLAP / 2 if place.quads > 1 else 0)
    left, top = (round(v / 6) * 6 for v in (x, y + HEIGHT * pixel / 2))
    return float(left), float(top)


def quad_footprint(place: Place, quad: int, pixel: float) -> BaseGeometry:
    """Outline of an image, EPSG:4326."""
    left, top = quad_corner(place, quad, pixel)
    outline = shapely.box(left, top - HEIGHT * pixel, left + WIDTH * pixel, top)
    lonlat = to_lonlat(place.epsg)
    return shapely.transform(outline, lambda xy: np.column_stack(lonlat.transform(xy[:, 0], xy[:, 1])))


def draw_naip(folder: Path, seed: int, pool: Executor) -> list[Future[list[Made]]]:
    """Draw every image of `naip`."""
    return [pool.submit(_quad, folder, seed, place, quad) for place in PLACES for quad in range(place.quads)]


def _quad(folder: Path, seed: int, place: Place, quad: int) -> list[Made]:
    grounds = {pixel: _ground(seed, place, quad, pixel) for pixel in {_pixel(date) for date in place.dates}}
    wedge = np.arange(WIDTH) < np.linspace(*WEDGE, HEIGHT).astype(int)[:, None]
    nowhere = np.zeros_like(wedge)
    made: list[Made] = []
    written = set()
    for date in place.dates:
        pixel, mask = _pixel(date), dict(place.masks).get(date, "none")
        path = folder / "imagery" / NAIP / f"{place.state}_{quad}_{round(pixel * 100):03d}_{mask}.tif"
        if path not in written:
            corner = quad_corner(place, quad, pixel)
            _write(path, grounds[pixel], wedge if mask != "none" else nowhere, mask, place.epsg, corner, pixel)
            written.add(path)
        truth = ChipCounts.of_mask(nowhere if mask == "none" else wedge, CHIP)
        made.append((_item(path, place, quad, date, pixel), truth))
    return made


def _pixel(date: str) -> float:
    """Pixel size of a date, m."""
    return 0.6 if int(date[:4]) >= FINE_FROM else 1.0


def _ground(seed: int, place: Place, quad: int, pixel: float) -> NDArray[np.uint8]:
    """Red, green, blue and near infrared, (4, height, width), 1 to 255."""
    (west, north), (left, top) = quad_corner(place, 0, pixel), quad_corner(place, quad, pixel)
    shape, origin = (HEIGHT // DETAIL, WIDTH // DETAIL), (left - west, north - top)
    codes = aerial(seed, place.state, place.ground, shape, pixel * DETAIL, origin, place.stream)
    spots: NDArray[np.uint8] = colours()[:, codes]
    return spots.repeat(DETAIL, axis=1).repeat(DETAIL, axis=2)


def _write(
    path: Path,
    ground: NDArray[np.uint8],
    empty: NDArray[np.bool_],
    mask: str,
    epsg: int,
    corner: tuple[float, float],
    pixel: float,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.where(empty, np.uint8(0), ground)
    valid = np.where(empty, np.uint8(0), np.uint8(255))
    if mask == "alpha":
        pixels = np.concatenate([pixels, valid[None]])
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=HEIGHT,
            width=WIDTH,
            count=len(pixels),
            dtype="uint8",
            crs=crs(epsg),
            transform=Affine(pixel, 0, corner[0], 0, -pixel, corner[1]),
            nodata=0 if mask == "tag" else None,
            photometric="RGB",
            interleave="pixel",
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="zstd",
            zstd_level=1,
        ) as sink,
    ):
        last = (ColorInterp.alpha,) if mask == "alpha" else ()
        sink.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, *last)
        sink.write(pixels)
        if mask == "internal":
            sink.write_mask(valid)


def _item(path: Path, place: Place, quad: int, date: str, pixel: float) -> Json:
    year = int(date[:4])
    left, top = quad_corner(place, quad, pixel)
    bounds = [left, top - HEIGHT * pixel, left + WIDTH * pixel, top]
    resolution = "060" if pixel < 1 else "1"
    name = f"{place.state}_m_{_quadrangle(place)}_{('nw', 'ne')[quad]}_{place.zone}_{resolution}_{date}"
    page = "https://example.com/naip"
    assets: dict[str, Any] = {
        "image": {"href": str(path), "type": GEOTIFF, "roles": ["data"], "title": "RGBIR COG tile", "eo:bands": _BANDS},
        "thumbnail": {
            "href": f"{page}/{name}.200.jpg",
            "type": "image/jpeg",
            "roles": ["thumbnail"],
            "title": "Thumbnail",
        },
    }
    if year < NOON_FROM:
        href = f"{page}/{name}.txt"
        assets["metadata"] = {"href": href, "type": "text/plain", "roles": ["metadata"], "title": "Metadata"}
    properties: Json = {
        "datetime": f"{date[:4]}-{date[4:6]}-{date[6:]}T{'16' if year >= NOON_FROM else '00'}:00:00Z",
        "gsd": pixel,
        "naip:year": date[:4],
        "naip:state": place.state,
        "proj:epsg": place.epsg,
        "proj:shape": [HEIGHT, WIDTH],
        "proj:bbox": bounds,
        "proj:transform": [pixel, 0.0, left, 0.0, -pixel, top, 0.0, 0.0, 1.0],
    }
    if year >= NOON_FROM:
        properties["providers"] = _PROVIDERS
    made = item(name, NAIP, quad_footprint(place, quad, pixel), properties, assets, [EO, PROJECTION])
    if year <= BETA_UNTIL:
        made["stac_version"] = "1.0.0-beta.2"
    return made


def _quadrangle(place: Place) -> str:
    """The 7.5' quadrangle of a place: degrees of its cell, then 01 to 64, row by row from the north-west."""
    west, south = np.ceil(-place.lon), np.floor(place.lat)
    row, column = int((south + 1 - place.lat) * 8), int((place.lon + west) * 8)
    return f"{int(south):02d}{int(west) - 1:03d}{8 * row + column + 1:02d}"
