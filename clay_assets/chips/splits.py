"""The split of each chip: `train`, `validate`, `test`, or `buffer` between them.

The Earth is divided into blocks (`clay_assets.chips.blocks`), the same for all platforms and years, and each block has
one split. A chip has that split if, grown by half the recipe's distance, it is entirely inside blocks of the split;
otherwise it is `buffer`. So any two chips of different splits are at least that distance apart, regardless of other
chips.

Within a stratum, blocks are drawn by keyed hash until a split has its share of the land. Blocks outside the regions are
then exchanged as long as this makes the splits more similar to the whole, in their share of the land and of the sampled
tiles and in the land cover of both. The best of several such draws is kept. All of this depends only on
`worldcover_stats` and the recipe's seed, tile rules and `splits`, never on chips: adding cells or platforms does not
change the split of a chip.

A chip is represented by its corners. Its bounding box in degrees is grown, and widened by the curvature of edges that
are straight in the scene's CRS, so that it is never too small. `clay_assets.chips.leaks` checks the result.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from clay_assets.chips.blocks import (
    CLASSES,
    ELSEWHERE,
    NO_LAND_COVER,
    POLE,
    RADIUS,
    TURN,
    WATER,
    WIDEST_CHIP,
    BlockGrid,
    Blocks,
    Floats,
    extents_of,
)
from clay_assets.draws import keyed_hash
from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN
from clay_assets.recipes import Recipe
from clay_assets.recipes.loader import Splits
from clay_assets.sampling.modis_grid import listed_tiles
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, stamp_of
from clay_assets.storage.stores import Store

VERSION = "1"  # increase it when the same recipe and land cover would be split differently
SPLITS = ("train", "validate", "test")
BUFFER = "buffer"
SPLIT_NAMES = (*SPLITS, BUFFER)

Codes = NDArray[np.uint8]

DEGREE = 110.574  # km along a meridian, where a degree is shortest (WGS 84, at the equator)
WIDE_DEGREE = 111.7  # km, where a degree is longest
# The gate paints cells of 1 km² that are square at 30° (EASE-Grid 2.0, EPSG:6933), so chips are rounded to cells.
TRUE_SCALE = np.cos(np.radians(30.0))
CELLS_OF_GATE = 1.25  # additional growth of a chip, so that the gate has no false alarms
TALLEST_CELL = 110.0  # km, at the poles
MEASURES = ("valid_share", "count", "diversity")  # columns of a tile besides its classes that tile rules use
LEAST_OF_REGION = len(SPLITS)  # blocks with land
POINT = 0.01  # unit in which deviations are squared and summed
LEAST_GAIN = 1e-6  # minimum gain of an exchange, so that rounding has no effect
MOST_EXCHANGES = 100
DRAWS = 60  # number of draws, of which the best is kept
BORDER_WEIGHT = 500.0  # weight of the share of chips that cross borders of splits, relative to the squared deviations


@dataclass(frozen=True)
class GroundSplits:
    """The split of every position on Earth, in a few kilobytes, as it is sent to workers with every scene.

    Attributes:
        distance_km: minimum distance between chips of different splits.
        grid: grid of cells.
        codes: index in `SPLITS` of each cell's split.
    """

    distance_km: float
    grid: BlockGrid
    codes: Codes

    def __getstate__(self) -> dict[str, Any]:
        """Exclude cached values."""
        return {"distance_km": self.distance_km, "grid": self.grid, "codes": self.codes}

    def split_of(self, geometry: NDArray[Any]) -> NDArray[np.str_]:
        """The split of each chip.

        Args:
            geometry: chip polygons in EPSG:4326, split where they cross ±180; (n,).

        Returns:
            (n,) of `train`, `validate`, `test` or `buffer`.

        Raises:
            InputError: a chip has no geometry.
        """
        return np.array(SPLIT_NAMES)[self.codes_of(*extents_of(geometry))]

    def codes_of(self, west: Floats, south: Floats, east: Floats, north: Floats) -> Codes:
        """Index in `SPLIT_NAMES` of the split of each chip.

        Args:
            west: western edges of chips, degrees; (n,).
            south: southern edges.
            east: eastern edges; beyond 180 for chips that cross ±180.
            north: northern edges.
        """
        west, south, east, north = self._grown(west, south, east, north)
        found = np.full(len(west), len(SPLITS), np.uint8)
        first, last = self.grid.row_at(south), self.grid.row_at(north)
        whole = np.ones(len(west), bool)
        for step in range(int((last - first).max(initial=-1)) + 1):  # a chip spans few rows
            chips = np.flatnonzero(whole & (first + step <= last))
            code, one = self._along_row(first[chips] + step, west[chips], east[chips])
            whole[chips] = one & ((step == 0) | (code == found[chips]))
            found[chips] = code
        found[~whole] = len(SPLITS)
        return found

    def _along_row(self, rows: NDArray[np.int64], west: Floats, east: Floats) -> tuple[Codes, NDArray[np.bool_]]:
        """The split at the western end of each span of a row, and whether it is the same along the whole span."""
        columns = self.grid.columns[rows]
        left, right = self.grid.column_at(west, rows), self.grid.column_at(east, rows)
        right = np.minimum(right, left + columns)  # at most once around
        turns = left // columns
        left, right = left - turns * columns, right - turns * columns
        start = self.grid.starts[rows]
        borders = self._borders[2 * start + right] - self._borders[2 * start + left]
        return self.codes[start + left], borders == 0

    @cached_property
    def _borders(self) -> NDArray[np.int32]:
        """For every row, twice around: the number of split borders west of each cell, accumulated from row to row."""
        cells = np.arange(len(self.codes))
        columns = self.grid.columns[self.grid.rows]
        before = np.where(self.grid.column == 0, cells + columns - 1, cells - 1)
        border = self.codes != self.codes[before]
        around = np.arange(2 * len(cells)) - np.repeat(2 * self.grid.starts, 2 * self.grid.columns)
        starts = np.repeat(self.grid.starts, 2 * self.grid.columns)
        return np.cumsum(border[starts + around % np.repeat(self.grid.columns, 2 * self.grid.columns)], dtype=np.int32)

    def _grown(self, west: Floats, south: Floats, east: Floats, north: Floats) -> tuple[Floats, ...]:
        """Boxes that contain every position within half the distance of a chip; longitudes may exceed ±180."""
        farthest = np.maximum(np.abs(south), np.abs(north))
        nearest = np.where((south <= 0) & (north >= 0), 0, np.minimum(np.abs(south), np.abs(north)))
        shrink = np.maximum(np.cos(np.radians(farthest)), TRUE_SCALE / TALLEST_CELL)
        diagonal = WIDE_DEGREE * np.hypot(north - south, (east - west) * np.cos(np.radians(nearest)))
        bulge = diagonal**2 / (8 * RADIUS) * (1 + 1 / shrink)  # of edges from a parallel
        bulge = np.minimum(bulge, diagonal / 2)
        cell = np.maximum(TRUE_SCALE / shrink, 1 / TRUE_SCALE)  # km, the longer side
        reach = (self.distance_km / 2 + CELLS_OF_GATE * cell + bulge) / DEGREE
        polar = farthest + reach >= POLE
        # The longitude range of a circle (Bronstein et al.: a right spherical triangle).
        ratio = np.sin(np.radians(reach)) / np.cos(np.radians(np.where(polar, 0, farthest)))
        aside = np.degrees(np.arcsin(np.clip(ratio, 0, 1)))
        around = polar | (east - west + 2 * aside >= TURN)
        south, north = np.maximum(south - reach, -POLE), np.minimum(north + reach, POLE)
        west, east = np.where(around, -HALF_TURN, west - aside), np.where(around, HALF_TURN, east + aside)
        return west, south, east, north


@dataclass(frozen=True)
class SplitPlan:
    """The splits of the ground, and the blocks that they were drawn from.

    Attributes:
        ground: the split of every position.
        block: number of the block of each cell of its grid.
        blocks: one record per block, by number: `name`, `stratum`, `split`, `land_km2`.
        fingerprint: hash of everything that affects the split of a chip; parts of the merged index with another one are
            stale.
    """

    ground: GroundSplits
    block: NDArray[np.int64]
    blocks: tuple[Mapping[str, Any], ...]
    fingerprint: str

    @classmethod
    def of(cls, recipe: Recipe, worldcover_stats: gpd.GeoDataFrame) -> SplitPlan:
        """Draw the splits of a recipe.

        Args:
            recipe: the recipe; its seed, tile rules and `splits` are used.
            worldcover_stats: the table of that name: class shares 0 to 1 and `valid_share` of MGRS tiles, EPSG:4326.

        Raises:
            InputError: a region or a split has too few blocks; names it and the remedy.
        """
        splits = recipe.splits
        grid = BlockGrid.of(splits)
        blocks = Blocks.of(recipe, grid, worldcover_stats.sort_values("name", ignore_index=True))
        codes = min(
            (_improved(blocks, _drawn(blocks, splits, recipe.seed, number), splits) for number in range(DRAWS)),
            key=lambda found: found[1] + BORDER_WEIGHT * _across_borders(grid, found[0][blocks.of_cell]),
        )[0]
        _check_none_is_empty(blocks, codes, splits)
        records = tuple(
            {"name": name, "stratum": stratum, "split": SPLITS[code], "land_km2": round(float(land))}
            for name, stratum, code, land in zip(blocks.names, blocks.strata, codes, blocks.land, strict=True)
        )
        fingerprint = split_fingerprint(recipe, worldcover_stats)
        ground = GroundSplits(splits.distance_km, grid, codes[blocks.of_cell])
        return cls(ground, blocks.of_cell, records, fingerprint)


def stored_plan(store: Store, recipe: Recipe, worldcover_stats: gpd.GeoDataFrame) -> SplitPlan:
    """Load the stored splits of a recipe; draw and store them if the fingerprint differs.

    They are stored in `chips/splits.parquet`: block and split of each cell, in the order of `BlockGrid`.
    """
    fingerprint = split_fingerprint(recipe, worldcover_stats)
    grid = BlockGrid.of(recipe.splits)
    try:
        with pq.ParquetFile(io.BytesIO(store.read(layout.SPLITS))) as file:
            stamp = stamp_of(file.schema_arrow)
            if stamp["fingerprint"] == fingerprint:
                table = file.read(["block", "split"])
                codes = np.array([SPLITS.index(name) for name in table["split"].to_pylist()], np.uint8)
                ground = GroundSplits(recipe.splits.distance_km, grid, codes)
                if len(codes) == grid.columns.sum():
                    return SplitPlan(ground, table["block"].to_numpy(), tuple(json.loads(stamp["blocks"])), fingerprint)
    except (FileNotFoundError, pa.ArrowException, OSError, KeyError, ValueError):
        pass  # missing or outdated: it is drawn, which takes half a minute
    plan = SplitPlan.of(recipe, worldcover_stats)
    columns = {"block": plan.block, "split": np.array(SPLITS)[plan.ground.codes]}
    sides = dict(zip(("west", "south", "east", "north"), grid.bounds().T, strict=True))
    stamp = {**recipe.stamp(), "fingerprint": fingerprint, "blocks": json.dumps(plan.blocks)}
    store.write(layout.SPLITS, encode_arrow(pa.table({**sides, **columns}), stamp))
    return plan


def split_fingerprint(recipe: Recipe, worldcover_stats: gpd.GeoDataFrame) -> str:
    """Hash of everything that affects the split of a chip, without drawing anything.

    Args:
        recipe: the recipe; its seed, tile rules and `splits` are used.
        worldcover_stats: the table of that name, in any order.
    """
    stats = worldcover_stats.sort_values("name", ignore_index=True)
    document = recipe.model_dump(mode="json", by_alias=True, include={"seed", "tile_rules", "splits"})
    digest = hashlib.blake2b(json.dumps([VERSION, document], sort_keys=True).encode(), digest_size=16)
    digest.update(json.dumps(stats["name"].tolist()).encode())
    digest.update(stats[[*CLASSES, *MEASURES]].to_numpy(float).tobytes())
    digest.update(b"".join(shapely.to_wkb([*stats.geometry, *listed_tiles(recipe)])))
    return digest.hexdigest()


def _drawn(blocks: Blocks, splits: Splits, seed: int, number: int) -> Codes:
    """Blocks drawn by keyed hash within each stratum, until a split has its share of the land there."""
    codes = np.zeros(len(blocks.names), np.uint8)
    left_over = dict.fromkeys(SPLITS[1:], 0.0)  # strata that are too small for one block of each split
    for region in splits.regions:
        having = int(((blocks.strata == region.name) & (blocks.land > 0)).sum())
        if having < LEAST_OF_REGION:
            raise InputError(
                f"splits, region {region.name}: {having} blocks with land, but one of each split is needed. "
                "Make its block_km smaller, or its outline larger."
            )
    for stratum in sorted({*blocks.strata}):
        own = stratum in {region.name for region in splits.regions}
        here = np.flatnonzero((blocks.strata == stratum) & (blocks.land > 0))
        order = sorted(here, key=lambda block: keyed_hash(seed, "splits", number, blocks.names[block]))
        for name in SPLITS[1:]:
            separate = own or stratum == NO_LAND_COVER
            wanted = splits.shares[name] / 100 * blocks.land[here].sum() + (0 if separate else left_over[name])
            got, code = 0.0, SPLITS.index(name)
            for block in order:
                if not codes[block] and abs(got + blocks.land[block] - wanted) < abs(got - wanted):
                    codes[block], got = code, got + blocks.land[block]
            if own and wanted and not got:
                free = [block for block in order if not codes[block]]
                codes[min(free, key=lambda block: abs(blocks.land[block] - wanted))] = code
            if not separate:
                left_over[name] = wanted - got
    return codes


def _improved(blocks: Blocks, codes: Codes, splits: Splits) -> tuple[Codes, float]:
    """Exchange blocks between splits, or move one, as long as the splits become more similar to the whole."""
    measures = np.concatenate([blocks.classes, np.zeros_like(blocks.classes[:, :1])], axis=1)  # last: no block
    whole = measures.sum(axis=1, keepdims=True)
    codes = np.append(codes, np.uint8(0))
    held = [code for code, name in enumerate(SPLITS) if code and splits.shares[name]]
    totals = {code: measures[:, codes == code].sum(axis=1)[:, None] for code in held}
    left: float = sum(_deviation(totals[code], whole, splits.shares[SPLITS[code]] / 100)[0] for code in held)
    for _ in range(MOST_EXCHANGES):
        one, other, of_one, of_other = _moves(blocks, codes[:-1], held)
        after = np.zeros(len(one))
        moved = measures[:, other] - measures[:, one]
        for code in held:
            change = (of_one == code).astype(float) - (of_other == code)
            covers = totals[code] + change[:, None] * moved
            after += _deviation(covers, whole, splits.shares[SPLITS[code]] / 100)
        best = int(after.argmin()) if len(after) else 0
        if not len(after) or after[best] > left - LEAST_GAIN:
            break
        left = float(after[best])
        for code in held:
            change = float(of_one[best] == code) - float(of_other[best] == code)
            totals[code] = totals[code] + change * moved[:, best : best + 1]
        codes[[one[best], other[best]]] = of_other[best], of_one[best]
        codes[-1] = 0
    return codes[:-1], float(left)


def _moves(blocks: Blocks, codes: Codes, held: list[int]) -> tuple[NDArray[Any], ...]:
    """Pairs of blocks that may exchange their splits, and these splits; the last number stands for no block.

    Blocks of regions are not exchanged: there are too few of them to keep their share right.
    """
    none = len(codes)
    moves = []
    here = np.flatnonzero((blocks.regions == ELSEWHERE) & (blocks.strata != NO_LAND_COVER) & (blocks.land > 0))
    for code in held:
        own, unused = here[codes[here] == code], here[codes[here] == 0]
        for stratum in sorted({*blocks.strata[here]}):
            free = here[(codes[here] < code) & (blocks.strata[here] == stratum)]
            first, second = np.meshgrid(own[blocks.strata[own] == stratum], free, indexing="ij")
            moves.append((first.ravel(), second.ravel(), np.full(first.size, code), codes[second.ravel()]))
        moves.append((np.full(len(unused), none), unused, np.full(len(unused), code), codes[unused]))
        if len(own) > 1:
            moves.append((own, np.full(len(own), none), np.full(len(own), code), np.zeros(len(own), np.uint8)))
    return tuple(np.concatenate(columns) for columns in zip(*moves, strict=True))


def _deviation(covers: Floats, whole: Floats, share: float) -> Floats:
    """Deviation of splits from the whole in their share of the land and in its composition; (splits,).

    Args:
        covers: km² of each class in each population; (populations, splits, classes).
        whole: km² over all splits; (populations, 1, classes).
        share: target share of a split.
    """
    dry = [number for number, name in enumerate(CLASSES) if name != WATER]
    tiny = np.finfo(float).tiny
    of_land = covers[..., dry].sum(axis=2) / np.maximum(whole[..., dry].sum(axis=2), tiny) - share
    of_classes = covers / np.maximum(covers.sum(axis=2, keepdims=True), tiny)
    of_classes = of_classes - whole / np.maximum(whole.sum(axis=2, keepdims=True), tiny)
    squares = of_land**2 + (of_classes**2).sum(axis=2)
    return np.asarray(squares.sum(axis=0) / POINT**2)


def _across_borders(grid: BlockGrid, codes: Codes) -> float:
    """Approximate share of the widest chips on Earth that cross borders of splits."""
    _, south, _, north = grid.bounds().T
    column, columns = grid.column, grid.columns[grid.rows]
    east = codes[grid.starts[grid.rows] + (column + 1) % columns]
    above = np.minimum(grid.rows + 1, len(grid.columns) - 1)
    over = codes[grid.starts[above] + ((column + 0.5) / columns * grid.columns[above]).astype(np.int64)]
    along = 2 * np.pi * RADIUS * np.cos(np.radians(north)) / columns
    border = (codes != east) * np.radians(north - south) * RADIUS + (codes != over) * along
    return float(border.sum() * WIDEST_CHIP / grid.areas().sum())


def _check_none_is_empty(blocks: Blocks, codes: Codes, splits: Splits) -> None:
    land = np.where(blocks.strata == NO_LAND_COVER, 0, blocks.land)
    empty = [n for c, n in enumerate(SPLITS) if splits.shares[n] and not land[codes == c].sum()]
    if empty:
        raise InputError(
            f"splits: no block with land left for {', '.join(empty)}, of {(land > 0).sum()}. "
            "Make block_km smaller or the share larger, or set the share to 0."
        )
