"""What the splits come to at the published size: chips per split and platform, time and memory of split and gate.

Run as `python benchmarks/splits.py WORLDCOVER_STATS [SHARE]` with the `worldcover_stats.parquet` of a storage and,
for less than all of the chips, a share such as 0.1. Chips are made: of the recipe's tile sample for the satellites, of
its published MODIS tiles, and strewn over the outlines of its regions for NAIP and LINZ, in the numbers that the Clay
model documentation gives ("Dataset size"). They stream by as those of a merge do, a scene's worth at a time.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from clay_assets.chips.leaks import Leaks
from clay_assets.chips.splits import BUFFER, SPLITS, SplitPlan
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.sampling.modis_grid import tile_polygon
from clay_assets.sampling.tiles import sample_tiles

BATCH = 200_000  # chips
KM = 111.2  # of a degree
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
    """Print a line per platform, then what the gate found and cost."""
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    recipe, stats = load_recipe(), gpd.read_parquet(sys.argv[1])
    start = time.perf_counter()
    plan = SplitPlan.of(recipe, stats)
    print(f"blocks drawn in {time.perf_counter() - start:.1f} s")
    gate = Leaks(recipe.splits.distance_km)
    split_seconds = gate_seconds = 0.0
    chips = 0
    head = "".join(f"{name:>12}" for name in (*SPLITS, BUFFER))
    print(f"{'platform':<17}{'chips':>12}{head}{'buffer, %':>11}   train / validate / test, %")
    for platform, published in recipe.published.items():
        counted = Counter[str]()
        for polygons in _made(platform, round((published.chips or 0) * share), recipe, stats):
            start = time.perf_counter()
            splits = plan.split_of(polygons)
            middle = time.perf_counter()
            gate.add_boxes(shapely.bounds(polygons), splits)
            split_seconds, gate_seconds = split_seconds + middle - start, gate_seconds + time.perf_counter() - middle
            counted.update(dict(zip(*np.unique(splits, return_counts=True), strict=True)))
        chips += counted.total()
        kept = counted.total() - counted[BUFFER]
        numbers = "".join(f"{counted[name]:>12,}" for name in (*SPLITS, BUFFER))
        percents = " / ".join(f"{100 * counted[name] / kept:.2f}" for name in SPLITS)
        lost = 100 * counted[BUFFER] / counted.total()
        print(f"{platform:<17}{counted.total():>12,}{numbers}{lost:>11.2f}   {percents}", flush=True)
    start = time.perf_counter()
    finding = gate.finding()
    print(f"{chips:,} chips: split {split_seconds:.0f} s ({chips / split_seconds / 1e6:.1f} M/s), gate", end=" ")
    print(
        f"{gate_seconds:.0f} s to paint and {time.perf_counter() - start:.0f} s to look; leaks: {finding.summary or 0}"
    )
    print(f"painted {finding.numbers['painted_km2']:,} km²; peak memory", end=" ")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, of which made chips are a part")


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
    west, south, east, north = shapely.bounds(tile_polygon(vertical, horizontal))
    tall = MODIS_CHIP / KM
    latitudes = np.arange(south, north - tall, tall)
    boxes = []
    for latitude in latitudes:
        wide = tall / np.cos(np.radians(latitude))
        x = np.arange(west, east - wide, wide)
        boxes.append(shapely.box(x, latitude, x + wide, latitude + tall))
    return np.concatenate(boxes) if boxes else np.empty(0, dtype=object)


if __name__ == "__main__":
    main()
