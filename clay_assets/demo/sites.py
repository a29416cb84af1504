"""The grids of the planet's scenes: one per Sentinel-2 tile and one per Landsat path and row.

Scenes are smaller than real ones, but their grids are aligned like the real ones: Sentinel-2 in the tile's UTM zone on
multiples of 20 m; Landsat always in a northern zone (EPSG 326xx, negative northings in the south), corners on odd
multiples of 15 m. Landsat sites span the centres of neighbouring tiles, so that two tiles can pick the same scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from clay_assets.demo.grid import TILE_SIZE, lonlat_ring, split_at_antimeridian, tile, to_lonlat

SENTINEL_2 = "sentinel-2-l2a"
LANDSAT_L1 = "landsat-c2l1"
LANDSAT_L2 = "landsat-c2l2-sr"
SENTINEL_1 = "sentinel-1-rtc"
NAIP = "naip"
MODIS = "modis-09A1-061"
# Collection → folder of its snapshot; one folder per catalogue.
FOLDERS = {
    SENTINEL_2: "earth_search",
    LANDSAT_L1: "usgs",
    LANDSAT_L2: "usgs",
    SENTINEL_1: "planetary_computer",
    NAIP: "planetary_computer",
    MODIS: "planetary_computer",
}
COLLECTIONS = tuple(FOLDERS)

S2_PIXELS = 1100  # pixels of 10 m, both ways: four whole chips and a partial one
LANDSAT_GSD = 30
LANDSAT_WIDTH, LANDSAT_HEIGHT = 640, 590  # pixels; two whole chips and a partial one
SWATH_HEIGHT = 270  # minimum in pixels if a site spans several tiles
LEFT_MARGIN, RIGHT_MARGIN = 9_000, 6_000  # m beyond the outermost tile centres; the left one is wider than any wedge
VERTICAL_MARGIN = 2_500  # m

SENTINEL_2_TILES = (
    "01KAB",
    "60KYG",
    "05VPJ",
    "06VUP",
    "32NKF",
    "32NLG",
    "32NMG",
    "33UUU",
    "33UVU",
    "34HBH",
)
LANDSAT_TILES = {
    "073072": ("01KAB", "60KYG"),
    "069017": ("05VPJ", "06VUP"),
    "188060": ("32NKF",),
    "187059": ("32NLG", "32NMG"),
    "192023": ("33UUU", "33UVU"),
    "175083": ("34HBH",),
}


@dataclass(frozen=True)
class Site:
    """The grid shared by all scenes of one place.

    Attributes:
        name: MGRS tile, or Landsat path and row as six digits.
        tiles: tiles whose requests find its scenes.
        epsg: CRS of the grid.
        left, top: north-west corner, m.
        width, height: size of the quality raster in pixels.
        pixel: pixel size of the quality raster, m.
        chip: quality-raster pixels across one chip.
    """

    name: str
    tiles: tuple[str, ...]
    epsg: int
    left: int
    top: int
    width: int
    height: int
    pixel: int
    chip: int
    _footprints: dict[tuple[int, int], BaseGeometry] = field(default_factory=dict, compare=False, repr=False)

    @property
    def whole_chips(self) -> tuple[int, int]:
        """Number of whole chips down and across."""
        return self.height // self.chip, self.width // self.chip

    @property
    def middle(self) -> tuple[float, float]:
        """Longitude and latitude of the centre, degrees."""
        x = self.left + self.width * self.pixel / 2
        y = self.top - self.height * self.pixel / 2
        lon, lat = to_lonlat(self.epsg).transform(x, y)
        return float(lon), float(lat)

    def footprint(self, wedge: tuple[int, int]) -> BaseGeometry:
        """The area with data, EPSG:4326, split at ±180: the grid without a wedge at its left edge.

        Args:
            wedge: width of the wedge at the top and at the bottom, pixels.
        """
        if wedge not in self._footprints:
            right, bottom = self.left + self.width * self.pixel, self.top - self.height * self.pixel
            corners = np.array(
                [
                    (self.left + wedge[0] * self.pixel, self.top),
                    (self.left + wedge[1] * self.pixel, bottom),
                    (right, bottom),
                    (right, self.top),
                ],
                float,
            )
            # Edges are straight in the projection, not in degrees: points every 10 km keep the difference small.
            outline = shapely.segmentize(shapely.Polygon(corners), 10_000)
            points = shapely.get_coordinates(outline)
            self._footprints[wedge] = split_at_antimeridian(lonlat_ring(self.epsg, points[:, 0], points[:, 1]))
        return self._footprints[wedge]


def _sentinel_2(name: str) -> Site:
    one = tile(name)
    x, y = one.left + TILE_SIZE / 2, one.top - TILE_SIZE / 2
    if one.polygon.geom_type == "MultiPolygon":  # there the scene crosses ±180
        latitude = to_lonlat(one.epsg).transform(x, y)[1]
        x = Transformer.from_crs(4326, one.epsg, always_xy=True).transform(180, latitude)[0]
    half = S2_PIXELS * 10 / 2
    left, top = (round(v / 20) * 20 for v in (x - half, y + half))
    return Site(name, (name,), one.epsg, left, top, S2_PIXELS // 2, S2_PIXELS // 2, 20, 128)


def _landsat(name: str, names: tuple[str, ...]) -> Site:
    tiles = [tile(one) for one in names]
    epsg = 32600 + tiles[0].zone
    to_utm = Transformer.from_crs(4326, epsg, always_xy=True)
    points = [one.search_point for one in tiles]
    x, y = (np.asarray(v) for v in to_utm.transform([p.x for p in points], [p.y for p in points]))
    start, end = x.min() - LEFT_MARGIN, x.max() + RIGHT_MARGIN
    if any(one.polygon.geom_type == "MultiPolygon" for one in tiles):  # beyond ±180 by more than a chip
        end = float(to_utm.transform(180, points[0].y)[0]) + 300 * LANDSAT_GSD
    if len(names) == 1:
        height = LANDSAT_HEIGHT
        end = start + LANDSAT_WIDTH * LANDSAT_GSD
    else:
        height = max(SWATH_HEIGHT, round((np.ptp(y) + 2 * VERTICAL_MARGIN) / LANDSAT_GSD))
    top = (y.max() + y.min()) / 2 + height * LANDSAT_GSD / 2
    left, top = (round((v - 15) / LANDSAT_GSD) * LANDSAT_GSD + 15 for v in (start, top))
    return Site(name, names, epsg, left, top, round((end - start) / LANDSAT_GSD), height, LANDSAT_GSD, 256)


def sentinel_2_sites() -> tuple[Site, ...]:
    """One site per tile."""
    return tuple(_sentinel_2(name) for name in SENTINEL_2_TILES)


def landsat_sites() -> tuple[Site, ...]:
    """One site per path and row."""
    return tuple(_landsat(name, tiles) for name, tiles in LANDSAT_TILES.items())


def wedge_widths(site: Site, wedge: tuple[int, int]) -> NDArray[np.int64]:
    """Nodata pixels at the left of each row of the quality raster, shape (height,)."""
    top, bottom = wedge
    rows = np.arange(site.height)
    return top + (bottom - top) * (2 * rows + 1) // (2 * site.height)
