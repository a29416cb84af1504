"""Cloud and nodata shares of every chip of a scene, from its quality assets.

A quality asset is judged by its first band or by its file's own mask, as the platform says. It may be coarser than the
finest grid by a whole factor (Sentinel-2's 20 m scene classification under 10 m bands): then it is counted at its own
resolution, which gives the same shares. It is read in strips of whole chip rows, so memory does not grow with the
height of a scene. What a pixel means is the platform's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.chips.declared import Declared, check_same_extent, declared
from clay_assets.chips.grid import chips_in
from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.platforms.base import AnyPlatform
from clay_assets.sources.rasters import Raster, open_raster
from clay_assets.stac import Item

STRIP_PIXELS = 24_000_000  # pixels of one quality asset held at a time


@dataclass(frozen=True)
class Shares:
    """Shares of each chip's pixels, float32, 0 to 1; shape (rows, columns)."""

    cloud: NDArray[np.float32]
    nodata: NDArray[np.float32]


def open_asset(platform: AnyPlatform, item: Item, name: str) -> AbstractContextManager[Raster]:
    """Open the file of an asset, as its platform reaches it and its item describes it."""
    href = platform.href(item["assets"][name])
    return open_raster(href, platform.access_to(href), measured=platform.measured(item, name))


def read_shares(platform: AnyPlatform, item: Item, size: int) -> tuple[Grid, Shares]:
    """Read the quality assets of a scene once, and reduce them to chips.

    The finest grid is that of the file of `platform.assets.grid`, if that is a quality asset. Else it has the extent of
    the first quality asset, and the height and width that the item says, or the file of `platform.assets.grid` if the
    item does not.

    Args:
        platform: how the files are reached and the pixels judged.
        item: the scene; it may lack optional assets.
        size: pixels of a chip's side on the finest grid.

    Returns:
        The finest grid, placed as the files are placed, and the shares.

    Raises:
        InputError: files that contradict the item, or do not lie on the grid, or not on a whole fraction of it, or
            smaller than one chip.
        SourceError: a remote file could not be read.
    """
    said = declared(item, platform.assets.grid)
    with ExitStack() as stack:
        sources = {
            name: stack.enter_context(open_asset(platform, item, name))
            for name in platform.quality.assets
            if name in item["assets"]
        }
        grids = {name: _grid_of(source) for name, source in sources.items()}
        of_file = platform.assets.grid if platform.assets.grid in sources else next(iter(sources))
        first, found = sources[of_file], grids[of_file]
        if of_file != platform.assets.grid:
            found = _refined(found, said.shape_over(found) or _shape_of_finest(platform, item, said, found, first.href))
            if said.shape is not None and not said.tells_extent:
                _check_finest(platform, item, said, grids[of_file], first.href)
        said.check_place(found, first.href)
        columns, rows = chips_in(found, size)
        if not columns or not rows:
            raise InputError(
                f"{first.href}: a scene of {found.height} × {found.width} pixels holds no chip of {size} × {size}."
            )
        factors = {name: _factor(found, source, size) for name, source in sources.items()}
        for name, source in sources.items():
            if name != platform.assets.grid:
                check_same_extent(grids[name], found, source.href, first.href)
                declared(item, name, own=True).check_file(grids[name], source.href)
        if of_file != platform.assets.grid:
            said.check_extent(found, max(grids[of_file].pixel), first.href)
        side = size // min(factors.values())  # pixels of a chip in the finest quality asset
        strip = _strip(sources, side, columns)
        shares = [
            _strip_shares(platform, sources, factors, size, columns, top, min(top + strip, rows))
            for top in range(0, rows, strip)
        ]
    cloud, nodata = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    return found, Shares(cloud, nodata)


def _strip(sources: Mapping[str, Raster], side: int, columns: int) -> int:
    """Rows of chips read at once: whole rows of the files' blocks where there is room, so that none is read twice."""
    most = max(1, STRIP_PIXELS // (side * side * columns))
    block = lcm(side, *(source.dataset.block_shapes[0][0] for source in sources.values())) // side
    return most // block * block or most


def _grid_of(source: Raster) -> Grid:
    raster, href = source.dataset, source.href
    if raster.crs is None:
        raise InputError(
            f"{href}: has no CRS. Write it into the file, such as with `rio edit-info --crs`; what lies beside a file "
            "is read only of local ones."
        )
    if not raster.crs.is_projected or raster.crs.linear_units_factor[1] != 1.0:
        raise InputError(f"{href}: is in {raster.crs.to_string()}, not in a projected CRS in metres.")
    return Grid(raster.crs, raster.transform, raster.height, raster.width)


def _refined(grid: Grid, shape: tuple[int, int]) -> Grid:
    """The same extent in another number of pixels."""
    (height, width), t = shape, grid.transform
    across, down = grid.width / width, grid.height / height
    finer = Affine(t.a * across, t.b * down, t.c, t.d * across, t.e * down, t.f)
    return Grid(grid.crs, finer, height, width)


def _check_finest(platform: AnyPlatform, item: Item, said: Declared, file: Grid, href: str) -> None:
    """Hold an item that tells no more than a shape against the header of its finest file, where that can be read."""
    if platform.assets.grid not in item["assets"]:
        return
    try:
        with open_asset(platform, item, platform.assets.grid) as source:
            finest, name = _grid_of(source), source.href
    except InputError:  # of which nothing else is needed
        return
    said.check_file(finest, name)
    check_same_extent(file, finest, href, name)


def _shape_of_finest(platform: AnyPlatform, item: Item, said: Declared, file: Grid, href: str) -> tuple[int, int]:
    """Height and width by the header of the asset on the finest grid, which has to cover the same place."""
    name = platform.assets.grid
    if name not in item["assets"]:
        raise InputError(f"{item['id']}: has neither proj:shape nor the asset {name}, so its grid is unknown.")
    with open_asset(platform, item, name) as source:
        finest = _grid_of(source)
        said.check_place(finest, source.href)
        check_same_extent(file, finest, href, source.href)
    return finest.height, finest.width


def _factor(grid: Grid, source: Raster, size: int) -> int:
    raster = source.dataset
    down, across = grid.height / raster.height, grid.width / raster.width
    factor: int = round(down)
    if factor < 1 or abs(down - factor) > 0 or abs(across - factor) > 0 or size % factor:
        raise InputError(
            f"{source.href}: {raster.height} × {raster.width} pixels do not fit the finest grid of {grid.height} × "
            f"{grid.width} with chips of {size}: the factor must be whole and divide the chip."
        )
    return factor


def _strip_shares(
    platform: AnyPlatform,
    sources: Mapping[str, Raster],
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
        band = source.read_mask(window) if platform.quality.reads == "mask" else source.read(1, window)
        repeat = factors[name] // finest  # quality assets of one scene may differ in resolution
        pixels[name] = band if repeat == 1 else band.repeat(repeat, axis=0).repeat(repeat, axis=1)
    try:
        cloud, nodata = platform.quality.judge(pixels)
    except (IndexError, TypeError) as error:
        names = ", ".join(f"{source.href} ({source.dataset.dtypes[0]})" for source in sources.values())
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
