"""The pixels of ESA WorldCover files: their values, areas and windows.

Shared by the statistics of tiles (`worldcover`) and of chips (`clay_assets.chips.landcover`). Reference: the WorldCover
Product User Manual v2.0 (https://esa-worldcover.org, 10 m, 2021, v200).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.landcover.worldcover_files import TILE_DEGREES, corner
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.sources.rasters import Raster, open_raster
from clay_assets.transport.access import Access

NODATA = 0
BINS = len(WORLDCOVER_CLASSES) + 1  # of a histogram: nodata, then the classes in the order of WORLDCOVER_CLASSES
UNKNOWN = BINS  # bin of undefined pixel values
LOOKUP = np.full(256, UNKNOWN, dtype=np.uint8)
LOOKUP[[NODATA, *WORLDCOVER_CLASSES]] = np.arange(BINS)


def unknown_value(href: str, value: int) -> InputError:
    """The error for an undefined pixel value."""
    return InputError(
        f"{href}: pixel value {value} is neither a WorldCover class ({', '.join(map(str, WORLDCOVER_CLASSES))}) nor "
        f"nodata ({NODATA}). Download the file again, or rebuild its overviews with mode resampling."
    )


def check_tiling(href: str, cell: str, source: rasterio.DatasetReader) -> None:
    """Reject a file that is not the WorldCover file of a cell.

    Raises:
        InputError: wrong data type or CRS, or bounds that do not match the name; names the file.
    """
    west, south = corner(cell)
    expected = (west, south, west + TILE_DEGREES, south + TILE_DEGREES)
    if source.dtypes[0] != "uint8" or source.crs is None or source.crs.to_epsg() != 4326:
        raise InputError(
            f"{href}: {source.dtypes[0]} in {source.crs or 'no CRS'} instead of uint8 in EPSG:4326. "
            "Use the file as published by ESA."
        )
    if not np.allclose(source.bounds, expected, rtol=0, atol=1e-6):
        raise InputError(
            f"{href}: bounds {tuple(source.bounds)} instead of {expected} as named. Rename it, or download it again."
        )


def pixel_areas(transform: rasterio.Affine, height: int) -> npt.NDArray[np.float64]:
    """True area on the sphere (steradians) of one pixel of each row of a grid in degrees, shape (height,)."""
    edges = np.sin(np.radians(transform.f + transform.e * np.arange(height + 1)))
    areas: npt.NDArray[np.float64] = np.radians(transform.a) * (edges[:-1] - edges[1:])
    return areas


def pixel_ranges(
    bounds: npt.NDArray[np.float64], source: rasterio.DatasetReader
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns (first, one past last), shape (n, 2), that intersect bounds (west, south, east, north)."""
    transform = source.transform
    columns = (bounds[:, [0, 2]] - transform.c) / transform.a
    rows = (bounds[:, [3, 1]] - transform.f) / transform.e
    for ranges, size in ((columns, source.width), (rows, source.height)):
        # At least one pixel each, even if a polygon only touches the file by a rounding error.
        ranges[:, 0] = np.clip(np.floor(ranges[:, 0]), 0, size - 1)
        ranges[:, 1] = np.clip(np.ceil(ranges[:, 1]), ranges[:, 0] + 1, size)
    return rows.astype(np.intp), columns.astype(np.intp)


def read_window(
    href: str, cell: str, access: Access, bounds: npt.NDArray[np.float64], coarsest: float
) -> tuple[npt.NDArray[np.uint8], rasterio.Affine]:
    """Read the pixels of a file within bounds, from the coarsest overview that is fine enough.

    Args:
        href: address of the file.
        cell: the 3° cell that the file must cover.
        access: how the file is accessed.
        bounds: west, south, east, north, degrees; clipped to the file.
        coarsest: maximum height of a pixel, degrees. Full resolution is read if no overview is fine enough.

    Returns:
        Values, uint8, and the transform of their grid to degrees.

    Raises:
        InputError: the wrong or a damaged file.
        SourceError: a remote source did not answer.
    """
    with open_raster(href, access) as source:
        check_tiling(href, cell, source.dataset)
        factors = source.dataset.overviews(1)
        most = coarsest / -source.dataset.transform.e
        factor = max((factor for factor in factors if factor <= most), default=1)
        if factor == 1:
            return _read(source, bounds)
    with open_raster(href, access, overview_level=factors.index(factor)) as source:
        return _read(source, bounds)


def _read(source: Raster, bounds: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.uint8], rasterio.Affine]:
    rows, columns = pixel_ranges(bounds[None], source.dataset)
    (top, bottom), (left, right) = rows[0].tolist(), columns[0].tolist()
    values = source.read(1, Window(left, top, right - left, bottom - top))
    t = source.dataset.transform
    return values, rasterio.Affine(t.a, 0, t.c + left * t.a, 0, t.e, t.f + top * t.e)
