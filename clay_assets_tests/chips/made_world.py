"""Synthetic land cover of a world, and synthetic chips like those of every platform, for tests of the splits."""

from __future__ import annotations

from functools import cache
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin, xy

from clay_assets.chips.grid import chip_polygons
from clay_assets.grids import Grid
from clay_assets.recipes.classes import WORLDCOVER_CLASSES

CLASSES = list(WORLDCOVER_CLASSES.values())
CHIP = 256  # pixels
# Platform → pixel size, m; for MODIS in EPSG:3857.
PIXELS = {"naip": 0.6, "linz": 0.3, "sentinel-2-l2a": 10, "sentinel-1-rtc": 10, "landsat-c2l1": 30, "modis": 500}
CROWDED = ((-100, 40), (172, -43), (179.9, 66), (-179.95, -17), (10, 50), (20, 83.2), (-60, -62), (0, 0))


def land_cover(step: float = 2.0, seed: int = 1) -> gpd.GeoDataFrame:
    """Tiles of `step` degrees on two thirds of the world, whose classes vary slowly in space."""
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-180, 180, step), np.arange(-58, 82, step)))
    waves = rng.uniform(0, 2 * np.pi, (2, len(CLASSES) + 1))
    field = np.sin(np.radians(x[:, None] * 3) + waves[0]) + np.sin(np.radians(y[:, None] * 4) + waves[1])
    shares = np.exp(2.5 * field[:, :-1] + rng.normal(0, 0.7, (len(x), len(CLASSES))))
    shares[shares < 0.01 * shares.max(axis=1, keepdims=True)] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    tiles = shapely.box(x, y, x + step, y + step)
    frame = gpd.GeoDataFrame(dict(zip(CLASSES, shares.T, strict=True)), geometry=tiles, crs="EPSG:4326")
    frame.insert(0, "name", [f"T{number:05d}" for number in range(len(x))])
    frame["count"] = (shares > 0).sum(axis=1)
    frame["valid_share"] = rng.uniform(0.2, 1, len(x))
    frame["diversity"] = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    return frame[field[:, -1] > -0.6].reset_index(drop=True)


def made_chips(scenes: int, seed: int = 2) -> tuple[NDArray[Any], NDArray[Any], list[NDArray[np.float64]]]:
    """Chips of scenes of all platforms, concentrated at difficult positions, the others anywhere.

    Returns:
        Polygons, platforms, and for each chip positions all over it, including its edges in the scene's CRS: longitude
        and latitude, (positions, 2).
    """
    rng = np.random.default_rng(seed)
    polygons, platforms, places = [], [], []
    for number in range(scenes):
        platform = sorted(PIXELS)[number % len(PIXELS)]
        x, y = CROWDED[rng.integers(len(CROWDED))] + rng.normal(0, rng.choice([0.05, 4]), 2)
        if number % 3 == 0:
            x, y = rng.uniform(-180, 180), rng.uniform(-60, 82)
        grid = _grid(platform, (x + 180) % 360 - 180, float(np.clip(y, -79, 83.5)))
        chips = chip_polygons(grid, CHIP)
        polygons.append(chips)
        platforms += [platform] * len(chips)
        places += _places(grid)
    return np.concatenate(polygons), np.array(platforms), places


def _grid(platform: str, longitude: float, latitude: float) -> Grid:
    code = 32600 + int((longitude + 180) // 6) + 1 + (100 if latitude < 0 else 0)
    if platform == "modis":
        code, latitude = 3857, float(np.clip(latitude, -80, 80))
    if platform == "linz":
        code, longitude, latitude = 2193, 165 + longitude % 12, -47 + abs(latitude) % 12
    crs = CRS.from_epsg(code)
    x, y = _lonlat(crs, longitude, latitude, inverse=True)
    pixel = PIXELS[platform] / np.cos(np.radians(latitude)) if platform == "modis" else PIXELS[platform]
    across = CHIP * (2 if platform == "modis" else 3)
    return Grid(crs, from_origin(float(x), float(y), pixel, pixel), across, across)


def _places(grid: Grid, points: int = 5) -> list[NDArray[np.float64]]:
    at = np.linspace(0, CHIP, points)
    found = []
    for row in range(grid.height // CHIP):
        for column in range(grid.width // CHIP):
            pixels = np.meshgrid(column * CHIP + at, row * CHIP + at)
            x, y = xy(grid.transform, pixels[1].ravel(), pixels[0].ravel(), offset="ul")
            found.append(np.column_stack(_lonlat(grid.crs, x, y)))
    return found


def _lonlat(crs: CRS, x: Any, y: Any, inverse: bool = False) -> tuple[Any, Any]:
    x, y = _to_lonlat(crs.to_wkt()).transform(x, y, direction="INVERSE" if inverse else "FORWARD")
    return x, y


@cache
def _to_lonlat(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(wkt, "EPSG:4326", always_xy=True)


def nearest_km(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The smallest spherical distance between two sets of positions (lon, lat), km; slightly overestimated."""
    first, second = (_on_sphere(places) for places in (one, other))
    most = max((first[at : at + 500] @ second.T).max() for at in range(0, len(first), 500))
    return float(6371.0 * np.arccos(np.clip(most, -1, 1)))


def _on_sphere(places: NDArray[np.float64]) -> NDArray[np.float64]:
    longitude, latitude = np.radians(places).T
    return np.column_stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
    )
