"""The splits at the published size: chips per split and platform, time and memory of split and gate.

Run as `python benchmarks/splits.py TILES [SHARE]` with the `worldcover_stats.parquet` or the `mgrs_grid.parquet` of a
storage and, for fewer chips, a share such as 0.1. For a grid, land cover is synthetic: it varies smoothly over the land
within the maps' outline. Chips are synthetic: in the recipe's tile sample for the satellites, in its published MODIS
tiles, and scattered over its regions for NAIP and LINZ, with the numbers in the Clay model documentation ("Dataset
size"). They are streamed one scene at a time, as in a merge.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from clay_assets.chips.leaks import Leaks
from clay_assets.chips.splits import BUFFER, SPLITS, SplitPlan
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.sampling.modis_grid import tile_polygon
from clay_assets.sampling.tiles import sample_tiles

BATCH = 200_000  # chips
LOOKED_UP = 10_000  # chips looked up in the land cover of the tiles
CLASSES = list(WORLDCOVER_CLASSES.values())
POINTS = 5  # points along each side of a tile to look up in the outline of the land
ICE = -60  # degrees of latitude; WorldCover has nothing south of it
COASTAL = 0.2  # share of land below which WorldCover is assumed to cover half of a tile
KM = 111.2  # km per degree
# Platform → km across a chip, km across a scene.
SATELLITES = {
    "sentinel-2-l2a": (2.56, 109.8),
    "sentinel-1-rtc": (2.56, 200.0),
    "landsat-c2l1": (7.68, 180.0),
    "landsat-c2l2-sr": (7.68, 180.0),
}
AERIAL = {"naip": (0.15, 5.0, "conus"), "linz": (0.077, 1.0, "new_zealand")}
MODIS_CHIP = 128.0


def main() -> None:
    """Print a line per platform, then the gate's result and cost."""
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    recipe, stats = load_recipe(), _with_land_cover(gpd.read_parquet(sys.argv[1]))
    start = time.perf_counter()
    plan = SplitPlan.of(recipe, stats)
    print(f"blocks drawn in {time.perf_counter() - start:.1f} s")
    gate = Leaks(recipe.splits.distance_km)
    split_seconds = gate_seconds = 0.0
    chips = 0
    head = "".join(f"{name:>12}" for name in (*SPLITS, BUFFER))
    print(f"{'platform':<17}{'chips':>12}{head}{'buffer, %':>11}   train / validate / test, %   classes off, points")
    for platform, published in recipe.published.items():
        counted, cover = Counter[str](), np.zeros((len(SPLITS) + 1, len(CLASSES)))
        for polygons in _made(platform, round((published.chips or 0) * share), recipe, stats):
            start = time.perf_counter()
            splits = plan.ground.split_of(polygons)
            middle = time.perf_counter()
            gate.add_boxes(shapely.bounds(polygons), splits)
            split_seconds, gate_seconds = split_seconds + middle - start, gate_seconds + time.perf_counter() - middle
            counted.update(dict(zip(*np.unique(splits, return_counts=True), strict=True)))
            some = slice(None, None, max(1, len(polygons) // LOOKED_UP))
            cover += _land_cover(polygons[some], splits[some], stats)
        chips += counted.total()
        kept = counted.total() - counted[BUFFER]
        numbers = "".join(f"{counted[name]:>12,}" for name in (*SPLITS, BUFFER))
        percents = " / ".join(f"{100 * counted[name] / kept:.2f}" for name in SPLITS)
        lost = 100 * counted[BUFFER] / counted.total()
        print(f"{platform:<17}{counted.total():>12,}{numbers}{lost:>11.2f}   {percents}   {_off(cover)}", flush=True)
    start = time.perf_counter()
    finding = gate.finding()
    print(f"{chips:,} chips: split {split_seconds:.0f} s ({chips / split_seconds / 1e6:.1f} M/s), gate", end=" ")
    print(
        f"{gate_seconds:.0f} s to paint and {time.perf_counter() - start:.0f} s to look; leaks: {finding.summary or 0}"
    )
    print(f"painted {finding.numbers['painted_km2']:,} km²; peak memory", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, of which made chips are a part")


def _with_land_cover(tiles: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The tiles if they have statistics; else those on land, with synthetic ones."""
    if {*CLASSES} <= {*tiles.columns}:
        return tiles
    rng = np.random.default_rng(1)
    west, south, east, north = tiles.geometry.bounds.to_numpy().T
    at = (np.arange(POINTS) + 0.5) / POINTS
    x, y = west[:, None] + at * (east - west)[:, None], south[:, None] + at * (north - south)[:, None]
    outline = shapely.union_all(gpd.read_file(str(files("clay_assets.pictures") / "land_110m.geojson")).geometry)
    shapely.prepare(outline)
    land = shapely.contains_xy(outline, *np.broadcast_arrays(x[:, :, None], y[:, None, :])).mean(axis=(1, 2))
    kept = (land > 0) & (south > ICE) & (east - west < 180)
    x, y, land = x[kept].mean(axis=1), y[kept].mean(axis=1), land[kept]
    waves = rng.uniform(0, 2 * np.pi, (2, len(CLASSES)))
    field = np.sin(np.radians(x[:, None] * 3) + waves[0]) + np.sin(np.radians(y[:, None] * 4) + waves[1])
    shares = np.exp(2.5 * field + rng.normal(0, 0.7, field.shape))
    shares[shares < 0.01 * shares.max(axis=1, keepdims=True)] = 0
    shares *= (land / shares.sum(axis=1))[:, None]
    shares[:, CLASSES.index("Permanent water bodies")] += 1 - land
    found = tiles[kept][["name", "geometry"]].reset_index(drop=True)
    found[CLASSES] = shares
    found["count"] = (shares > 0).sum(axis=1)
    found["valid_share"] = np.where(land < COASTAL, 0.5, 1.0)
    found["diversity"] = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    return found


def _land_cover(polygons: NDArray[Any], splits: NDArray[np.str_], stats: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Summed class shares of the tiles that contain chips, by split and buffer; (4, 11)."""
    chip, tile = stats.sindex.query(shapely.centroid(polygons), predicate="intersects")
    shares = stats[CLASSES].to_numpy()[tile] * stats["valid_share"].to_numpy()[tile, None]
    return np.stack([shares[splits[chip] == name].sum(axis=0) for name in (*SPLITS, BUFFER)])


def _off(cover: NDArray[np.float64]) -> str:
    """The largest deviation of any class share from that of all chips in each split, percentage points."""
    whole = cover.sum(axis=0) / cover.sum()
    own = cover[:-1] / np.maximum(cover[:-1].sum(axis=1, keepdims=True), 1e-9)
    return " / ".join(f"{one:.2f}" for one in 100 * np.abs(own - whole).max(axis=1))


def _made(platform: str, count: int, recipe: Recipe, stats: gpd.GeoDataFrame) -> Iterator[NDArray[Any]]:
    if platform == "modis":
        chips = np.concatenate([_modis(*tile) for tile in recipe.options("modis").published_tiles])
        for _ in range(max(1, round(count / len(chips)))):  # the same places, month after month
            yield chips
        return
    rng = np.random.default_rng(0)
    if platform in SATELLITES:
        chip, scene = SATELLITES[platform]
        points = sample_tiles(stats, recipe).representative_point()
        places = np.column_stack([points.x, points.y])
    else:
        chip, scene, name = AERIAL[platform]
        outline = shapely.Polygon(next(one.outline for one in recipe.splits.regions if one.name == name))
        west, south, east, north = outline.bounds
        places = rng.uniform((west, south), (east, north), (20_000, 2))
        places = places[shapely.contains_xy(outline, *places.T)]
    side = int(scene // chip)
    scenes = max(1, round(count / side**2))
    made = 0
    step = max(1, BATCH // side**2)
    while made < scenes:
        some = places[np.arange(made, min(made + step, scenes)) * len(places) // scenes % len(places)]
        yield _square(some, side, chip)
        made += step


def _square(places: NDArray[np.float64], side: int, chip: float) -> NDArray[Any]:
    """Scenes of side × side chips around places."""
    tall = chip / KM
    wide = tall / np.cos(np.radians(np.clip(places[:, 1], -80, 80)))
    row, column = (axis.ravel() - side / 2 for axis in np.indices((side, side)))
    south = (places[:, 1, None] + row * tall).ravel()
    west = (places[:, 0, None] + column * wide[:, None]).ravel()
    east = west + np.repeat(wide, side**2)
    inside = (west >= -180) & (east <= 180)
    return np.asarray(shapely.box(west, south, east, south + tall)[inside])


def _modis(vertical: int, horizontal: int) -> NDArray[Any]:
    tile = tile_polygon(vertical, horizontal)
    west, south, east, north = shapely.bounds(tile)
    tall = MODIS_CHIP / KM
    latitudes = np.arange(south, north - tall, tall)
    boxes = []
    for latitude in latitudes:
        wide = tall / np.cos(np.radians(latitude))
        x = np.arange(west, east - wide, wide)
        boxes.append(shapely.box(x, latitude, x + wide, latitude + tall))
    if not boxes:
        return np.empty(0, dtype=object)
    chips = np.concatenate(boxes)
    return np.asarray(chips[shapely.contains(tile, shapely.centroid(chips))])  # the rest of the image is nodata


if __name__ == "__main__":
    main()
