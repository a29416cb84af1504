"""Cloud and nodata shares of every chip of a scene, from its quality assets.

A quality asset is judged by its first band or by its file's own mask, as the platform says. It may be coarser than the
finest grid by a whole factor (Sentinel-2's 20 m scene classification under 10 m bands): then it is counted at its own
resolution, which gives the same shares. It is read in strips of whole chip rows, so memory does not grow with the
height of a scene. What a pixel means is the platform's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.access import Access
from clay_assets.chips.grid import Grid
from clay_assets.errors import InputError
from clay_assets.platforms.base import Platform
from clay_assets.rasters import explaining, open_raster, read_mask

STRIP_PIXELS = 24_000_000  # pixels of one quality asset held at a time


@dataclass(frozen=True)
class Shares:
    """Shares of each chip's pixels, float32, 0 to 1; shape (rows, columns)."""

    cloud: NDArray[np.float32]
    nodata: NDArray[np.float32]


@dataclass(frozen=True)
class _Source:
    """A quality asset, open."""

    href: str
    access: Access
    raster: rasterio.DatasetReader

    @classmethod
    def opened(cls, stack: ExitStack, href: str, platform: Platform) -> _Source:
        access = platform.access_to(href)
        return cls(href, access, stack.enter_context(open_raster(href, access)))

    def read(self, window: Window, *, mask: bool) -> NDArray[Any]:
        """The first band, or the file's mask: 0 where a pixel has no data."""
        with explaining(self.raster, self.href, self.access):
            pixels: NDArray[Any] = read_mask(self.raster, window) if mask else self.raster.read(1, window=window)
        return pixels


def read_shares(
    platform: Platform, hrefs: Mapping[str, str], size: int, grid: Grid | None, shape: tuple[int, int] | None
) -> tuple[Grid, Shares]:
    """Read the quality assets of a scene once, and reduce them to chips.

    Args:
        platform: how the files are reached and the pixels judged.
        hrefs: quality asset → file.
        size: pixels of a chip's side on the finest grid.
        grid: the finest grid where the item tells it; only its CRS and corner are held against the files.
        shape: height and width of the finest grid; None if the quality assets are on it.

    Returns:
        The finest grid, placed as the files are placed, and the shares.

    Raises:
        InputError: files that do not lie on the grid, or not on a whole fraction of it, or smaller than one chip.
        SourceError: a remote file could not be read.
    """
    with ExitStack() as stack:
        sources = {name: _Source.opened(stack, href, platform) for name, href in hrefs.items()}
        first = next(iter(sources.values()))
        found = _finest_grid(first, shape)
        if grid is not None:
            _check_same_place(grid, found, first.href)
        columns, rows = found.chips(size)
        if not columns or not rows:
            raise InputError(
                f"{first.href}: a scene of {found.height} × {found.width} pixels holds no chip of {size} × {size}."
            )
        factors = {name: _factor(found, source, size) for name, source in sources.items()}
        side = size // min(factors.values())  # pixels of a chip in the finest quality asset
        strip = _strip(sources, side, columns)
        shares = [
            _strip_shares(platform, sources, factors, size, columns, top, min(top + strip, rows))
            for top in range(0, rows, strip)
        ]
    cloud, nodata = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    return found, Shares(cloud, nodata)


def _strip(sources: Mapping[str, _Source], side: int, columns: int) -> int:
    """Rows of chips read at once: whole rows of the files' blocks where there is room, so that none is read twice."""
    most = max(1, STRIP_PIXELS // (side * side * columns))
    block = lcm(side, *(source.raster.block_shapes[0][0] for source in sources.values())) // side
    return most // block * block or most


def _finest_grid(source: _Source, shape: tuple[int, int] | None) -> Grid:
    raster, href = source.raster, source.href
    if raster.crs is None:
        raise InputError(f"{href}: has no CRS; fetch the file again.")
    if not raster.crs.is_projected or raster.crs.linear_units_factor[1] != 1.0:
        raise InputError(f"{href}: is in {raster.crs.to_string()}, not in a projected CRS in metres.")
    height, width = shape or (raster.height, raster.width)
    t = raster.transform
    across, down = raster.width / width, raster.height / height
    finest = Affine(t.a * across, t.b * down, t.c, t.d * across, t.e * down, t.f)
    return Grid(raster.crs, finest, height, width)


def _check_same_place(grid: Grid, found: Grid, href: str) -> None:
    if grid.crs != found.crs:
        raise InputError(
            f"{href}: is in {found.crs.to_string()}, but its item says {grid.crs.to_string()}; one of them is wrong."
        )
    off = max(abs(grid.transform.c - found.transform.c), abs(grid.transform.f - found.transform.f))
    if off > abs(found.transform.a):
        raise InputError(
            f"{href}: its corner is {off:g} m away from that of its item; item and file are not of one scene."
        )


def _factor(grid: Grid, source: _Source, size: int) -> int:
    raster = source.raster
    down, across = grid.height / raster.height, grid.width / raster.width
    factor: int = round(down)
    if factor < 1 or abs(down - factor) > 0 or abs(across - factor) > 0 or size % factor:
        raise InputError(
            f"{source.href}: {raster.height} × {raster.width} pixels do not fit the finest grid of {grid.height} × "
            f"{grid.width} with chips of {size}: the factor must be whole and divide the chip."
        )
    return factor


def _strip_shares(
    platform: Platform,
    sources: Mapping[str, _Source],
    factors: Mapping[str, int],
    size: int,
    columns: int,
    top: int,
    bottom: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    finest = min(factors.values())
    pixels: dict[str, NDArray[Any]] = {}
    for name, source in sources.items():
        side = size // factors[name]
        window = Window(0, top * side, columns * side, (bottom - top) * side)
        band = source.read(window, mask=platform.reads == "mask")
        repeat = factors[name] // finest  # quality assets of one scene may differ in resolution
        pixels[name] = band if repeat == 1 else band.repeat(repeat, axis=0).repeat(repeat, axis=1)
    try:
        cloud, nodata = platform.judge(pixels)
    except (IndexError, TypeError) as error:
        names = ", ".join(f"{source.href} ({source.raster.dtypes[0]})" for source in sources.values())
        raise InputError(
            f"{names}: is no quality band of {platform.title} ({error}). Check the item's hrefs."
        ) from error
    side = size // finest
    return _chip_shares(cloud, side), _chip_shares(nodata, side)


def _chip_shares(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    blocks = mask.reshape(rows, side, columns, side)
    shares: NDArray[np.float32] = (blocks.sum(axis=(1, 3), dtype=np.int64) / (side * side)).astype(np.float32)
    return shares
