"""Rasters of real size and texture for the benchmarks: patches of all sizes, like land and clouds.

Each is a sum of noise of several wavelengths, cut at quantiles. Flat rasters, or rasters of equal squares, decode
several times faster than real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

LAND, CLOUD = (512, 128, 32, 8, 2), (1024, 256, 64, 16, 4, 2)  # wavelengths, pixels
SPECKLE = 0.005  # share of isolated pixels


def noise(generator: np.random.Generator, height: int, width: int, wavelengths: Sequence[int]) -> NDArray[np.float32]:
    """Noise whose amplitude grows with wavelength; (height, width)."""
    total, part = np.zeros((height, width), np.float32), np.empty((height, width), np.float32)
    for length in wavelengths:
        coarse = generator.standard_normal((height // length + 2, width // length + 2), dtype=np.float32)
        profile = {"height": len(coarse), "width": coarse.shape[1], "count": 1, "dtype": "float32"}
        with MemoryFile() as memory:
            with memory.open(driver="GTiff", **profile, transform=from_origin(0, 0, 2, 2)) as sink:
                sink.write(coarse, 1)
            with memory.open() as source:
                source.read(1, out=part, resampling=Resampling.bilinear)
        total += part * np.float32(length**0.5)
    return total


def classes(field: NDArray[np.float32], shares: Sequence[float], codes: Sequence[int], dtype: str) -> NDArray[Any]:
    """Cut a field into classes with given shares of the pixels."""
    edges = np.quantile(field[::16, ::16], np.cumsum(shares)[:-1])
    return np.array(codes, dtype)[np.digitize(field, edges)]


def scene_classification(size: int = 5490, seed: int = 0) -> NDArray[np.uint8]:
    """A scene classification layer of Sentinel-2: land, clouds of every kind, nodata at one side."""
    generator = np.random.default_rng(seed)
    land = classes(noise(generator, size, size, LAND), (0.1, 0.45, 0.35, 0.1), (6, 4, 5, 2), "uint8")
    shares = (0.02, 0.68, 0.06, 0.08, 0.08, 0.08)
    cloud = classes(noise(generator, size, size, CLOUD), shares, (11, 0, 7, 10, 8, 9), "uint8")
    pixels = np.where(cloud > 0, cloud, land)
    alone = generator.random((size, size), dtype=np.float32) < SPECKLE
    pixels[alone] = generator.integers(1, 12, int(alone.sum()), dtype=np.uint8)
    row, column = np.ogrid[:size, :size]
    pixels[column > 0.93 * size + 0.2 * (row - size / 2)] = 0
    return pixels


def quality_band(size: int = 7800, seed: int = 1) -> NDArray[np.uint16]:
    """A QA_PIXEL band of Landsat: land, water and clouds, and fill around the slanted image."""
    generator = np.random.default_rng(seed)
    land = classes(noise(generator, size, size, LAND), (0.85, 0.1, 0.05), (21824, 21952, 30048), "uint16")
    shares = (0.05, 0.65, 0.1, 0.06, 0.06, 0.08)
    cloud = classes(noise(generator, size, size, CLOUD), shares, (54596, 0, 23888, 21826, 22280, 55052), "uint16")
    pixels = np.where(cloud > 0, cloud, land)
    row, column = (axis - size / 2 for axis in np.ogrid[:size, :size])
    reach = 0.41 * size
    pixels[(np.abs(column + 0.2 * row) > reach) | (np.abs(row - 0.2 * column) > reach)] = 1
    return pixels


def backscatter(size: int, seed: int) -> NDArray[np.float32]:
    """A band of Sentinel-1, linear: land and water with speckle, and nodata at one side."""
    generator = np.random.default_rng(seed)
    speckle = generator.gamma(4, 0.25, (size, size))
    pixels = (np.exp(noise(generator, size, size, LAND) / 20 - 3) * speckle).astype(np.float32)
    row, column = np.ogrid[:size, :size]
    pixels[column > 0.95 * size + 0.1 * (row - size / 2)] = -32768
    found: NDArray[np.float32] = pixels
    return found


def land_cover(size: int = 4500, seed: int = 2) -> NDArray[np.uint8]:
    """An overview by 8 of a WorldCover file, with every class and some nodata."""
    generator = np.random.default_rng(seed)
    shares = (0.3, 0.15, 0.15, 0.15, 0.05, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02)
    codes = (10, 30, 20, 40, 60, 50, 80, 90, 95, 100, 70)
    pixels = classes(noise(generator, size, size, LAND[1:]), shares, codes, "uint8")
    pixels[noise(generator, size, size, LAND[1:]) < -25] = 0
    return pixels


def write_aerial(path: Path, height: int = 12_666, width: int = 9_704, seed: int = 3) -> None:
    """A NAIP image of four bands without a mask."""
    generator, block = np.random.default_rng(seed), 512
    ground = noise(generator, 2048, 2048, LAND[1:])
    ground = (ground - ground.min()) / np.ptp(ground) * 180
    tile = (ground[None] + generator.integers(0, 60, (4, 2048, 2048))).astype(np.uint8)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 4, "dtype": "uint8", "crs": "EPSG:26916"}
    layout = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "zstd", "zstd_level": 1}
    colours = {"photometric": "rgb", "alpha": "no", "interleave": "pixel"}
    with rasterio.open(
        path, "w", **profile, **layout, **colours, transform=from_origin(622_000, 3_400_000, 0.6, 0.6)
    ) as sink:
        for top in range(0, height, 2048):
            for left in range(0, width, 2048):
                window = rasterio.windows.Window(left, top, min(2048, width - left), min(2048, height - top))
                sink.write(tile[:, : window.height, : window.width], window=window)
