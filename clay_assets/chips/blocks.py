"""The blocks that splits are drawn from: their position, stratum and land cover.

Blocks are nearly square on the ground and of nearly equal area everywhere: rows of equal height, each divided into as
many columns as make blocks about as wide as high; each pole is one block. A cylindrical equal-area grid would be worse:
its 500 km blocks are 200 km wide and 1,270 km high on the ground at 70°, so most MODIS chips would cross them. Regions
of the recipe have smaller blocks.

Strata are the regions, and elsewhere the blocks with the same largest land-cover class; blocks without WorldCover form
another stratum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.recipes.loader import Splits
from clay_assets.sampling.modis_grid import listed_tiles
from clay_assets.sampling.tiles import sample_tiles

ELSEWHERE, NO_LAND_COVER, MIXED = "elsewhere", "no land cover", "mixed"

Floats = NDArray[np.float64]

RADIUS = 6371.007  # km, sphere with the Earth's area (WGS 84, authalic)
KM_PER_DEGREE = np.radians(1) * RADIUS
TURN = 360.0
POLE = 90.0
WATER = "Permanent water bodies"
CLASSES = tuple(WORLDCOVER_CLASSES.values())
POINTS = 4  # points along each side of a tile at which its land cover is assigned to blocks
OUTLINE_POINTS = 5  # points along each side of a cell that are tested against the outlines of regions
LEAST_IN_REGION = 0.2  # minimum share of a block inside a region's outline
WIDEST_CHIP = 130  # km, of MODIS: chips that cross borders are `buffer`
LEAST_BLOCKS = 12  # minimum blocks in a stratum; smaller strata are combined


@dataclass(frozen=True)
class BlockGrid:
    """Cells of blocks: rows of equal height from the south, each with its own number of columns starting at ±180.

    Attributes:
        columns: number of columns of each row.
    """

    columns: NDArray[np.int64]

    def __getstate__(self) -> dict[str, Any]:
        """Exclude cached values, as the grid is sent to workers."""
        return {"columns": self.columns}

    @classmethod
    def of(cls, splits: Splits) -> BlockGrid:
        """The grid whose cells fit the blocks of all regions."""
        fine = lcm(*(splits.parts_of(region.block_km) for region in splits.regions))
        return cls(np.repeat(block_columns(splits.block_km) * fine, fine))

    @cached_property
    def height(self) -> float:
        """Height of a row, degrees."""
        return HALF_TURN / len(self.columns)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first cell of each row."""
        return np.concatenate([[0], np.cumsum(self.columns)[:-1]])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row of each cell."""
        return np.repeat(np.arange(len(self.columns)), self.columns)

    @cached_property
    def column(self) -> NDArray[np.int64]:
        """Column of each cell."""
        return np.arange(len(self.rows)) - self.starts[self.rows]

    def bounds(self) -> Floats:
        """West, south, east and north of each cell, degrees; (cells, 4)."""
        width = TURN / self.columns[self.rows]
        west, south = self.column * width - HALF_TURN, self.rows * self.height - POLE
        return np.stack([west, south, west + width, south + self.height], axis=1)

    def areas(self) -> Floats:
        """Area of each cell, km²."""
        west, south, east, north = self.bounds().T
        return _box_areas(west, south, east, north)

    def row_at(self, latitude: Floats) -> NDArray[np.int64]:
        """Row of each latitude; a latitude between two rows is in the northern one."""
        rows = np.floor((latitude + POLE) / self.height).astype(np.int64)
        return np.clip(rows, 0, len(self.columns) - 1)

    def column_at(self, longitude: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Column of each longitude, continuing beyond ±180."""
        return np.asarray(np.floor((longitude + HALF_TURN) / TURN * self.columns[rows]), np.int64)

    def cells_at(self, longitude: Floats, latitude: Floats) -> NDArray[np.int64]:
        """Cell of each position."""
        rows = self.row_at(latitude)
        return np.asarray(self.starts[rows] + self.column_at(longitude, rows) % self.columns[rows])


def block_columns(side: float) -> NDArray[np.int64]:
    """Number of blocks in each row of blocks of `side` km; one at the poles."""
    turn = 2 * np.pi * RADIUS
    rows = max(3, round(turn / 2 / side))
    middles = np.radians((np.arange(rows) + 0.5) * HALF_TURN / rows - POLE)
    columns: NDArray[np.int64] = np.maximum(3, np.rint(2 * rows * np.cos(middles)).astype(np.int64))
    columns[[0, -1]] = 1
    return columns


def extents_of(geometry: NDArray[Any]) -> tuple[Floats, Floats, Floats, Floats]:
    """West, south, east and north of chips; east exceeds 180 for chips that cross ±180."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    if np.isnan(bounds).any():
        bad = int(np.isnan(bounds).any(axis=1).sum())
        raise InputError(f"{bad:,} of {len(bounds):,} chips have no geometry. Re-materialise their chip_index.")
    west, south, east, north = bounds.T.copy()
    wide = np.flatnonzero(east - west > HALF_TURN)
    if wide.size:
        xy, chip = shapely.get_coordinates(geometry[wide], return_index=True)
        x = np.where(xy[:, 0] < 0, xy[:, 0] + TURN, xy[:, 0])
        first = np.flatnonzero(np.diff(chip, prepend=-1))
        low, high = np.minimum.reduceat(x, first), np.maximum.reduceat(x, first)
        around = high - low > HALF_TURN  # only chips that contain a pole are that wide in either case
        west[wide], east[wide] = np.where(around, -HALF_TURN, low), np.where(around, HALF_TURN, high)
    return west, south, east, north


@dataclass(frozen=True)
class Blocks:
    """The blocks by number.

    Attributes:
        of_cell: block of each cell of the grid.
        names: names of the blocks, part of their draws.
        strata: stratum of each block.
        regions: name of each block's region, or `ELSEWHERE`.
        land: relevant area in km²: land, or the whole area if a stratum has no land.
        classes: km² of each WorldCover class in each balanced population: all tiles, the sampled tiles, and the inner
            part of blocks, where the widest chips are not `buffer`; (populations, blocks, classes).
    """

    of_cell: NDArray[np.int64]
    names: list[str]
    strata: NDArray[Any]
    regions: NDArray[Any]
    land: Floats
    classes: Floats

    @classmethod
    def of(cls, recipe: Recipe, grid: BlockGrid, stats: gpd.GeoDataFrame) -> Blocks:
        """Build the blocks of a recipe with the land cover of `worldcover_stats`."""
        splits = recipe.splits
        of_cell, names, regions, inside = _numbered(splits, grid)
        areas = np.bincount(of_cell, grid.areas(), minlength=len(names))
        classes = _land_cover(grid, of_cell, len(names), stats, recipe)
        land = classes[0].sum(axis=1) - classes[0][:, CLASSES.index(WATER)]
        strata = np.where(
            classes[0].sum(axis=1) > 0, np.array(CLASSES)[classes[0].argmax(axis=1)], NO_LAND_COVER
        ).astype(object)
        strata[regions != ELSEWHERE] = regions[regions != ELSEWHERE]
        for stratum in sorted({*strata} - {*regions, NO_LAND_COVER}):
            if (strata == stratum).sum() < LEAST_BLOCKS:
                strata[strata == stratum] = MIXED
        for stratum in {*strata}:
            here = strata == stratum
            if not land[here].sum():  # such as a region without WorldCover
                land[here] = (areas * inside)[here]
        return cls(of_cell, names, strata, regions, land, classes)


def _numbered(splits: Splits, grid: BlockGrid) -> tuple[NDArray[np.int64], list[str], NDArray[Any], Floats]:
    """The block of each cell; name, region and share inside the region's outline of each block."""
    fine = lcm(*(splits.parts_of(region.block_km) for region in splits.regions))
    keys = np.stack([np.zeros(len(grid.rows), np.int64), grid.rows // fine, grid.column // fine], axis=1)
    share = np.ones(len(keys))
    areas = grid.areas()
    for number, region in enumerate(splits.regions, start=1):
        step = fine // splits.parts_of(region.block_km)
        own = np.stack([grid.rows // step, grid.column // step], axis=1)
        _, block = np.unique(own, axis=0, return_inverse=True)
        inside = _inside(grid, shapely.Polygon(region.outline))
        shares = np.bincount(block, inside * areas) / np.bincount(block, areas)
        taken = (shares >= LEAST_IN_REGION)[block] & (keys[:, 0] == 0)
        keys[taken] = np.column_stack([np.full(taken.sum(), number), own[taken]])
        share[taken] = shares[block[taken]]
    found, first, of_cell = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    called = [ELSEWHERE, *(region.name for region in splits.regions)]
    regions = np.array([called[number] for number in found[:, 0]], dtype=object)
    return of_cell, [f"{called[n]} {row} {column}" for n, row, column in found], regions, share[first]


def _inside(grid: BlockGrid, outline: shapely.Polygon) -> Floats:
    """Share of each cell inside an outline."""
    west, south, east, north = grid.bounds().T
    shapely.prepare(outline)
    at = (np.arange(OUTLINE_POINTS) + 0.5) / OUTLINE_POINTS
    x, y = west[:, None] + at * (east - west)[:, None], south[:, None] + at * (north - south)[:, None]
    inside = shapely.contains_xy(outline, *np.broadcast_arrays(x[:, :, None], y[:, None, :]))
    return np.asarray(inside.mean(axis=(1, 2)))


def _land_cover(
    grid: BlockGrid, of_cell: NDArray[np.int64], blocks: int, stats: gpd.GeoDataFrame, recipe: Recipe
) -> Floats:
    """Km² of each class in each block: in all tiles, in the sampled tiles, and in the interior of the block.

    Empty populations, as in a world with few tiles, are omitted.
    """
    west, south, east, north = extents_of(stats.geometry.to_numpy())
    degrees = np.maximum((east - west) * (north - south), np.finfo(float).tiny)
    area = _box_areas(west, south, east, north) * shapely.area(stats.geometry.to_numpy()) / degrees
    at = (np.arange(POINTS) + 0.5) / POINTS
    x, y = west[:, None] + at * (east - west)[:, None], south[:, None] + at * (north - south)[:, None]
    x, y = (axis.reshape(len(stats), -1) for axis in np.broadcast_arrays(x[:, :, None], y[:, None, :]))
    block = of_cell[grid.cells_at(x.ravel(), y.ravel())].reshape(x.shape)
    inside = _from_border(grid, of_cell, x, y, block) >= WIDEST_CHIP / 2
    listed = listed_tiles(recipe)  # of MODIS, which has the widest chips
    if listed:
        area_of_tiles = shapely.union_all(listed)
        shapely.prepare(area_of_tiles)
        inside &= shapely.contains_xy(area_of_tiles, (x + HALF_TURN) % TURN - HALF_TURN, y)
    covered = (area * stats["valid_share"].to_numpy(float) / POINTS**2)[:, None]
    is_sampled = stats["name"].isin(sample_tiles(stats, recipe)["name"]).to_numpy()[:, None]
    weights = np.stack(np.broadcast_arrays(covered, covered * is_sampled, covered * inside))
    shares = stats[list(CLASSES)].to_numpy(float)
    found = np.empty((len(weights), blocks, len(CLASSES)))
    for number, weight in enumerate(weights):
        for column in range(len(CLASSES)):
            of_points = weight * shares[:, column, None]
            found[number, :, column] = np.bincount(block.ravel(), of_points.ravel(), minlength=blocks)
    there = found.sum(axis=(1, 2)) > 0
    there[0] = True
    return np.asarray(found[there])


def _from_border(grid: BlockGrid, of_cell: NDArray[np.int64], x: Floats, y: Floats, block: NDArray[np.int64]) -> Floats:
    """Km from each position to the border of its block, treating each block as the box around its cells."""
    low, high = np.full((of_cell.max() + 1, 2), np.inf), np.full((of_cell.max() + 1, 2), -np.inf)
    bounds = grid.bounds()
    np.minimum.at(low, of_cell, bounds[:, :2])
    np.maximum.at(high, of_cell, bounds[:, 2:])
    west, south = np.moveaxis(low[block], -1, 0)
    east, north = np.moveaxis(high[block], -1, 0)
    turned = (x - west) % TURN  # tiles beyond 180° continue counting
    degrees = np.minimum(turned, east - west - turned) * np.cos(np.radians(y))
    around = east - west >= TURN  # a pole
    return np.asarray(np.minimum(np.where(around, np.inf, degrees), np.minimum(y - south, north - y)) * KM_PER_DEGREE)


def _box_areas(west: Floats, south: Floats, east: Floats, north: Floats) -> Floats:
    tall = np.sin(np.radians(north)) - np.sin(np.radians(south))
    return np.asarray(RADIUS**2 * np.radians(east - west) * tall)
