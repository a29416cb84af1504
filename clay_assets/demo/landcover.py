"""Land cover: drawn as cells of 0.05°, written as rasters with the naming and tiling of ESA WorldCover v200.

The cells are the ground truth. A tile's shares are the exact areas of the cells inside its polygon, computed
geometrically; the rasters only repeat the cells. Files are 2,400 pixels wide instead of 36,000.

WorldCover 10 m 2021 v200, product user manual: 3° tiles named by their south-west corner, codes and colours.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling

from clay_assets.demo.grid import WATER_TILE, Tile, tile
from clay_assets.demo.noise import generator, ranked, smooth_field
from clay_assets.recipes.classes import WORLDCOVER_CLASSES

FILE_DEGREES = 3
FILE_PIXELS = 2400
CELL_DEGREES = 0.05
CELLS = 60  # cells across a file
BESIDE = 1.0  # degrees; imagery extends the land cover by up to this distance
OVERVIEWS = (2, 4, 8, 16)
NODATA = 0
WATER = 80
MIN_SHARE = 0.005  # share of a tile that every class present covers at least

COLOURS = {
    10: (0, 100, 0),
    20: (255, 187, 34),
    30: (255, 255, 76),
    40: (240, 150, 255),
    50: (250, 0, 0),
    60: (180, 180, 180),
    70: (240, 240, 240),
    80: (0, 100, 200),
    90: (0, 150, 160),
    95: (0, 207, 117),
    100: (250, 230, 160),
}


@dataclass(frozen=True)
class Region:
    """Two WorldCover files side by side, drawn as one.

    Attributes:
        west, south: corner, degrees; longitudes continue beyond 180.
        bands: (class, share), from the lowest ground to the highest.
        patches: (class, share of the land) of small, scattered patches.
    """

    west: int
    south: int
    bands: tuple[tuple[int, float], ...]
    patches: tuple[tuple[int, float], ...]
    files: int = 2

    @property
    def corner(self) -> tuple[int, int]:
        """East and north edge, degrees."""
        return self.west + FILE_DEGREES * self.files, self.south + FILE_DEGREES


REGIONS = (
    Region(
        6,
        0,
        ((80, 0.30), (95, 0.08), (90, 0.06), (40, 0.12), (30, 0.10), (10, 0.34)),
        ((50, 0.06), (20, 0.06)),
    ),
    Region(177, -18, ((80, 0.40), (95, 0.10), (10, 0.30), (30, 0.12), (20, 0.08)), ((50, 0.05), (40, 0.08))),
    Region(-153, 60, ((80, 0.12), (90, 0.13), (10, 0.25), (20, 0.12), (100, 0.16), (60, 0.10), (70, 0.12)), ()),
    Region(12, 51, ((80, 0.08), (90, 0.07), (40, 0.40), (30, 0.20), (10, 0.25)), ((50, 0.14),)),
    Region(15, -36, ((80, 0.30), (60, 0.10), (20, 0.20), (30, 0.20), (40, 0.20)), ((50, 0.10), (10, 0.05))),
)
_TOWNS = ((80, 0.05), (40, 0.45), (30, 0.20), (10, 0.30))
_ISLANDS = ((80, 0.15), (30, 0.45), (20, 0.10), (10, 0.30))
_SAVANNA = ((80, 0.04), (90, 0.06), (30, 0.30), (20, 0.20), (10, 0.40))
_DESERT = ((80, 0.45), (60, 0.40), (20, 0.15))
# Files under the scenes of platforms that are not sampled by land cover: south-west corners, bands and patches. Nothing
# else on the planet depends on them; part of MODIS has none, like open ocean.
BENEATH: tuple[
    tuple[tuple[tuple[int, int], ...], tuple[tuple[int, float], ...], tuple[tuple[int, float], ...]], ...
] = (
    (((-117, 30), (-108, 39), (-99, 36), (-87, 30), (-78, 36), (-75, 42)), _TOWNS, ((50, 0.30),)),
    (((168, -48), (171, -45), (174, -39), (177, -39)), _ISLANDS, ((50, 0.10), (60, 0.05))),
    (((0, 45), (3, 45), (0, 48), (3, 48)), _TOWNS, ((50, 0.10),)),
    (((-12, 6), (-9, 6), (-12, 9), (-9, 9)), _SAVANNA, ((50, 0.03), (40, 0.15))),
    (((-78, -24), (-75, -24), (-72, -24), (-78, -21), (-75, -21), (-72, -21)), _DESERT, ((50, 0.02),)),
)
BENEATH_PIXELS = 600  # of these files
NO_COVER_WEST_OF = 17.9  # degrees, in the last region: the product ends there, as it does off many coasts


def file_name(west: int, south: int) -> str:
    """Name of the WorldCover file with this south-west corner, degrees."""
    west = (west + 180) % 360 - 180
    name = f"{'S' if south < 0 else 'N'}{abs(south):02d}{'W' if west < 0 else 'E'}{abs(west):03d}"
    return f"ESA_WorldCover_10m_2021_v200_{name}_Map.tif"


class LandCover:
    """The cells of the whole planet and the shares that follow from them.

    Attributes:
        cells: one array per region, uint8, (60, 120), north at the top.
        beneath: south-west corner → cells of a further file, uint8, (60, 60).
    """

    def __init__(self, seed: int, tiles: tuple[Tile, ...]) -> None:
        self.tiles = tiles
        self.beneath = {
            (west, south): _draw(Region(west, south, bands, patches, files=1), generator(seed, "beneath", west, south))
            for corners, bands, patches in BENEATH
            for west, south in corners
        }
        self._areas = [[_cell_areas(region, one.ring) for region in REGIONS] for one in tiles]
        for attempt in count():  # nearly always the first one
            self.cells = [
                _draw(region, generator(seed, "land cover", index, attempt)) for index, region in enumerate(REGIONS)
            ]
            self._settle()
            if self._has_every_class():
                break

    def _has_every_class(self) -> bool:
        seen = {
            int(code)
            for areas in self._areas
            for cells, area in zip(self.cells, areas, strict=True)
            for code in np.unique(cells[area > 0])
        }
        return seen >= set(WORLDCOVER_CLASSES)

    def _settle(self) -> None:
        """Remove classes that barely touch a tile, so that its set of classes is unambiguous."""
        protected = [_cell_areas(region, tile(WATER_TILE).ring) > 0 for region in REGIONS]
        for cells, wet in zip(self.cells, protected, strict=True):
            cells[wet] = WATER
        settled = False
        while not settled:
            settled = True
            for areas in self._areas:
                whole = sum(area.sum() for area in areas)
                for cells, area, wet in zip(self.cells, areas, protected, strict=True):
                    sums = np.bincount(cells.ravel(), area.ravel(), minlength=256)
                    grazing = [code for code in WORLDCOVER_CLASSES if 0 < sums[code] < MIN_SHARE * whole]
                    taken = np.isin(cells, grazing) & (area > 0) & ~wet
                    if taken.any():
                        cells[taken] = sums[1:].argmax() + 1
                        settled = False

    def shares(self) -> pd.DataFrame:
        """Per tile: `name`, one column per class, `count`, `valid_share`.

        Class columns are shares of the tile's valid area and sum to 1, NaN where nothing is valid. `valid_share`
        is the share of the whole polygon. Areas are true areas on the sphere.
        """
        rows = []
        for one, areas in zip(self.tiles, self._areas, strict=True):
            sums = sum(
                np.bincount(cells.ravel(), area.ravel(), minlength=256)
                for cells, area in zip(self.cells, areas, strict=True)
            )
            by_class = np.asarray(sums)[list(WORLDCOVER_CLASSES)]
            valid = by_class.sum()
            shares = by_class / valid if valid else np.full(len(by_class), np.nan)
            rows.append(
                {
                    "name": one.name,
                    **dict(zip(WORLDCOVER_CLASSES.values(), shares, strict=True)),
                    "count": int((by_class > 0).sum()),
                    "valid_share": valid / float(_areas(shapely.Polygon(one.ring))[0]),
                }
            )
        return pd.DataFrame(rows)

    def at(self, lon: NDArray[Any], lat: NDArray[Any]) -> NDArray[np.uint8]:
        """Class code of the nearest cell at positions given in degrees, or water if no cell is near."""
        found = np.full(np.shape(lon), WATER, np.uint8)
        for region, cells in zip(REGIONS, self.cells, strict=True):
            east = (lon - region.west + BESIDE) % 360 - BESIDE
            down = region.corner[1] - lat
            width = FILE_DEGREES * region.files
            near = (east < width + BESIDE) & (down > -BESIDE) & (down < FILE_DEGREES + BESIDE)
            if near.any():
                column = np.clip(east / CELL_DEGREES, 0, cells.shape[1] - 1).astype(int)
                row = np.clip(down / CELL_DEGREES, 0, CELLS - 1).astype(int)
                np.copyto(found, cells[row, column], where=near)
        return np.where(found == NODATA, np.uint8(WATER), found)

    def write(self, folder: Path, pool: Executor) -> None:
        """Write one GeoTIFF per 3° file: uint8, EPSG:4326, nodata 0, tiled, deflate, nearest overviews."""
        folder.mkdir(parents=True, exist_ok=True)
        jobs = []
        for region, cells in zip(REGIONS, self.cells, strict=True):
            for index, part in enumerate(np.split(cells, region.files, axis=1)):
                west = region.west + FILE_DEGREES * index
                jobs.append(pool.submit(_write_file, folder, west, region.south, part))
        for (west, south), cells in self.beneath.items():
            jobs.append(pool.submit(_write_file, folder, west, south, cells, BENEATH_PIXELS))
        for job in jobs:
            job.result()


def _draw(region: Region, rng: np.random.Generator) -> NDArray[np.uint8]:
    shape = (CELLS, CELLS * region.files)
    height = ranked(smooth_field(rng, shape, 30))
    codes, shares = zip(*region.bands, strict=True)
    edges = np.cumsum(shares[:-1])
    cells = np.asarray(codes, np.uint8)[np.searchsorted(edges, height, side="right")]
    for code, share in region.patches:
        scattered = ranked(smooth_field(rng, shape, 8))
        cells[(scattered < share) & (cells != WATER)] = code
    if region is REGIONS[-1]:
        columns = round((NO_COVER_WEST_OF - region.west) / CELL_DEGREES)
        cells[:, :columns] = NODATA
    return cells


def _areas(polygons: NDArray[np.object_] | shapely.Polygon) -> NDArray[np.float64]:
    """Exact areas of polygons with straight edges in longitude and latitude, on the unit sphere × 180/π.

    By Green's theorem, the area is the integral of −sin(latitude) over longitude along the ring.
    """
    polygons = np.atleast_1d(np.asarray(polygons, dtype=object))
    points, owner = shapely.get_coordinates(polygons, return_index=True)
    lat = np.radians(points[:-1, 1])
    run, rise = np.diff(points[:, 0]), np.diff(np.radians(points[:, 1]))
    level = np.abs(rise) < 1e-12  # radians; below this the mean sine equals the sine
    mean_sine = np.where(level, np.sin(lat), (np.cos(lat) - np.cos(lat + rise)) / np.where(level, 1, rise))
    edges = np.where(owner[1:] == owner[:-1], run * mean_sine, 0)
    return np.abs(np.bincount(owner[:-1], edges, minlength=len(polygons)))


def _cell_areas(region: Region, ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each of a region's cells inside a tile's ring, same shape as the cells."""
    rows, columns = CELLS, CELLS * region.files
    areas = np.zeros((rows, columns))
    polygon = shapely.Polygon(ring)
    if not polygon.intersects(shapely.box(region.west, region.south, *region.corner)):
        return areas
    west = region.west + CELL_DEGREES * np.arange(columns)
    north = region.south + FILE_DEGREES - CELL_DEGREES * np.arange(rows)
    boxes = shapely.box(*np.broadcast_arrays(west, north[:, None] - CELL_DEGREES, west + CELL_DEGREES, north[:, None]))
    shapely.prepare(polygon)
    touching = shapely.intersects(polygon, boxes)
    pieces = shapely.intersection(boxes[touching], polygon)
    areas[touching] = _areas(pieces) if pieces.size else 0
    return areas


def _write_file(folder: Path, west: int, south: int, cells: NDArray[np.uint8], side: int = FILE_PIXELS) -> None:
    pixels = np.kron(cells, np.ones((side // CELLS,) * 2, np.uint8))
    west_of = (west + 180) % 360 - 180
    size = FILE_DEGREES / side
    with rasterio.open(
        folder / file_name(west, south),
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=1,
        dtype="uint8",
        crs="EPSG:4326",
        transform=Affine(size, 0, west_of, 0, -size, south + FILE_DEGREES),
        nodata=NODATA,
        tiled=True,
        blockxsize=1024,
        blockysize=1024,
        compress="deflate",
        zlevel=1,
    ) as sink:
        sink.write(pixels, 1)
        sink.write_colormap(1, COLOURS)
        sink.build_overviews(OVERVIEWS, Resampling.nearest)
