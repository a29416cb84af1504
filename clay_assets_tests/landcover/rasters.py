"""Small rasters in WorldCover's tiling and naming, with overviews set by the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin


def file_name(cell: str) -> str:
    return f"ESA_WorldCover_10m_2021_v200_{cell}_Map.tif"


def corner(cell: str) -> tuple[int, int]:
    """West and south edge of a 3° cell named like `S03W180`."""
    south = int(cell[1:3]) * (1 if cell[0] == "N" else -1)
    return int(cell[4:]) * (1 if cell[3] == "E" else -1), south


def write_cell(
    folder: Path,
    cell: str,
    overview: npt.NDArray[np.uint8],
    factors: tuple[int, ...] = (2, 4, 8),
    shown: int = 8,
) -> Path:
    """Write a 3° file whose overview of factor `shown` is exactly `overview` (n x n pixels)."""
    west, south = corner(cell)
    full = np.kron(overview, np.ones((shown, shown), dtype=np.uint8)).astype(np.uint8)
    path = folder / file_name(cell)
    size = full.shape[0]
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8", "nodata": 0}
    transform = from_origin(west, south + 3, 3 / size, 3 / size)
    with rasterio.open(
        path, "w", **profile, crs="EPSG:4326", transform=transform, tiled=True, blockxsize=64, blockysize=64,
        compress="deflate",
    ) as dst:  # fmt: skip
        dst.write(full, 1)
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews(list(factors), Resampling.nearest)
    return path


def plain(value: int, size: int = 60) -> npt.NDArray[np.uint8]:
    """A cell of one class: 60 pixels are 0.05° each."""
    return np.full((size, size), value, dtype=np.uint8)
