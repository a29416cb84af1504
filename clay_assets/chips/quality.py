"""Cloud and nodata shares of every chip of a scene, from its quality assets.

A quality asset is classified by its first band or by its file's mask, depending on the platform. It may be coarser than
the finest grid by an integer factor (Sentinel-2's 20 m scene classification under 10 m bands): it is then counted at
its own resolution, which gives the same shares. A single asset is counted block by block while it is decoded, several
are read in strips, so memory does not grow with the scene; a mask that the file does not have is not read. The platform
defines the meaning of pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from clay_assets.chips.counting import ChipCounts
from clay_assets.chips.declared import Declared, check_same_extent, declared
from clay_assets.chips.grid import chips_in
from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.platforms.base import AnyPlatform
from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader, read_header
from clay_assets.sources.cog.masks import mask_of, mask_request
from clay_assets.sources.cog.scanning import can_scan, scan
from clay_assets.stac import Item

STRIP_PIXELS = 24_000_000  # pixels of one quality asset in memory, if several are classified together
CACHE_BYTES = 64 << 20  # of decoded blocks, for strips that end inside them
DATA = 255  # mask value of valid pixels


@dataclass(frozen=True)
class Shares:
    """Shares of each chip's pixels, float32, 0 to 1; shape (rows, columns)."""

    cloud: NDArray[np.float32]
    nodata: NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """The file of an asset.

    Attributes:
        href: address of the file.
        header: header needed to read its blocks.
        measured: bands, from 1, that contain measurements, even if the file declares one as alpha.
    """

    href: str
    header: CogHeader
    measured: tuple[int, ...] = ()

    def request(self, band: int | None, window: Window) -> BlockRequest | None:
        """The request for a window of a band, from 1, or of the mask; None if all pixels are valid."""
        if band is None:
            return mask_request(self.href, self.header, [window], self.measured)
        return BlockRequest(self.href, self.header, [window], bands=[band - 1])


def source_of(platform: AnyPlatform, item: Item, name: str) -> Source:
    """Read the header of an asset's file with the platform's access and the item's description."""
    href = platform.href(item["assets"][name])
    return Source(href, read_header(href, platform.access_to(href)), platform.measured(item, name))


def read_windows(reader: BlockReader, wanted: Sequence[tuple[Source, int | None, Window]]) -> list[NDArray[Any]]:
    """Read windows, (height, width) each, of a band, from 1, or of the mask, 0 for nodata.

    The mask of a file without one takes no memory and is read-only.

    Raises:
        InputError, SourceError: see `BlockReader.read`.
    """
    requests = [source.request(band, window) for source, band, window in wanted]
    found = iter(reader.read([request for request in requests if request is not None]))
    everywhere = np.uint8(DATA)
    pixels = []
    for request, (_, band, window) in zip(requests, wanted, strict=True):
        if request is None:
            pixels.append(np.broadcast_to(everywhere, (window.height, window.width)))
        else:
            pixels.append(next(found)[0, 0] if band is not None else mask_of(request, next(found))[0])
    return pixels


def read_shares(platform: AnyPlatform, item: Item, size: int) -> tuple[Grid, Shares]:
    """Read the quality assets of a scene once, and aggregate them to chips.

    The finest grid is that of the file of `platform.assets.grid`, if that is a quality asset. Otherwise it has the
    extent of the first quality asset, and the height and width declared by the item or, if missing, of the file of
    `platform.assets.grid`.

    Args:
        platform: defines the access to files and the classification of pixels.
        item: the scene; optional assets may be missing.
        size: side length of a chip in pixels of the finest grid.

    Returns:
        The finest grid, positioned like the files, and the shares.

    Raises:
        InputError: files that contradict the item, are not on the grid or an integer fraction of it, or are smaller
            than one chip.
        SourceError: a remote file could not be read.
    """
    said = declared(item, platform.assets.grid)
    sources = {name: source_of(platform, item, name) for name in platform.quality.assets if name in item["assets"]}
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
            f"{first.href}: a scene of {found.height} × {found.width} pixels is smaller than a chip of {size} × {size}."
        )
    factors = {name: _factor(found, source, size) for name, source in sources.items()}
    for name, source in sources.items():
        if name != platform.assets.grid:
            check_same_extent(grids[name], found, source.href, first.href)
            declared(item, name, own=True).check_file(grids[name], source.href)
    if of_file != platform.assets.grid:
        said.check_extent(found, max(grids[of_file].pixel), first.href)
    band, finest = _band_of(platform), min(factors.values())  # pixels are counted at its resolution
    repeats = {name: factor // finest for name, factor in factors.items()}  # subdivision of each pixel along both sides
    height, width = rows * size // finest, columns * size // finest
    requests = (
        source.request(band, Window(0, 0, width // repeats[name], height // repeats[name]))
        for name, source in sources.items()
    )
    needed = [request for request in requests if request is not None]
    if not needed:  # all chips have the same shares
        masks = platform.quality.judge({name: np.full((1, 1), DATA, np.uint8) for name in sources})
        cloud, nodata = (np.full((rows, columns), np.float32(mask[0, 0])) for mask in masks)
        return found, Shares(cloud, nodata)
    names = ", ".join(f"{source.href} ({source.header.dtype})" for source in sources.values())
    what = f"{names}: not a valid quality band of {platform.title}"
    counts = ChipCounts(platform.quality, size // finest, rows, columns, what)
    if len(sources) == 1 and can_scan(needed[0]):
        _count_block_by_block(platform, next(iter(sources)), needed[0], counts)
    else:
        _count_in_strips(platform, sources, repeats, needed, counts)
    return found, Shares(*counts.shares())


def _count_block_by_block(platform: AnyPlatform, name: str, request: BlockRequest, counts: ChipCounts) -> None:
    """Count a single file whose blocks we decode."""
    masked = platform.quality.reads == "mask"

    def visit(row: int, column: int, pixels: NDArray[Any]) -> None:
        part = mask_of(request, pixels.transpose(2, 0, 1)[np.newaxis])[0] if masked else pixels[:, :, 0]
        counts.add(row, column, {name: part})

    with closing(BlockReader(platform.files.access, cache_bytes=0)) as reader:
        scan(reader, request, visit)


def _count_in_strips(
    platform: AnyPlatform,
    sources: Mapping[str, Source],
    repeats: Mapping[str, int],
    requests: Sequence[BlockRequest],
    counts: ChipCounts,
) -> None:
    """Count several files together, or files read through rasterio, in whole strips."""
    band, (height, width) = _band_of(platform), counts.shape
    step, apart = _strip(requests, height, counts.side)
    with closing(BlockReader(platform.files.access, cache_bytes=0 if apart else CACHE_BYTES)) as reader:
        for top in range(0, height, step):
            rows = min(step, height - top)
            wanted = [
                (source, band, Window(0, top // repeats[name], width // repeats[name], rows // repeats[name]))
                for name, source in sources.items()
            ]
            pixels = {}
            for name, part in zip(sources, read_windows(reader, wanted), strict=True):
                times = repeats[name]  # quality assets of a scene can differ in resolution
                pixels[name] = part if times == 1 else part.repeat(times, axis=0).repeat(times, axis=1)
            counts.add(top, 0, pixels)


def _strip(requests: Sequence[BlockRequest], height: int, side: int) -> tuple[int, bool]:
    """Rows of pixels read at once, and whether every block is in only one strip.

    Strips are whole rows of chips, and also of the files' blocks if that needs at most twice the memory, so that no
    block is read twice.

    Args:
        requests: request of each file for all chips.
        height: height of all chips in counted pixels.
        side: side length of a chip in counted pixels.
    """
    most, together = height // side, 1  # rows of chips
    for request in requests:
        (window,), header = request.windows, request.header
        of_chip = int(window.height) * side // height
        bands = header.count if request.bands is None else len(request.bands)
        most = min(most, max(1, STRIP_PIXELS // (of_chip * int(window.width) * bands)))
        together = lcm(together, lcm(of_chip, header.block_height) // of_chip)
    if together > 2 * most:
        return most * side, False
    return max(together, most // together * together) * side, True


def _band_of(platform: AnyPlatform) -> int | None:
    """What to read of a quality asset: a band, from 1, or the mask."""
    return None if platform.quality.reads == "mask" else 1


def _refined(grid: Grid, shape: tuple[int, int]) -> Grid:
    """The same extent with another number of pixels."""
    (height, width), t = shape, grid.transform
    across, down = grid.width / width, grid.height / height
    finer = Affine(t.a * across, t.b * down, t.c, t.d * across, t.e * down, t.f)
    return Grid(grid.crs, finer, height, width)


def _check_finest(platform: AnyPlatform, item: Item, said: Declared, file: Grid, href: str) -> None:
    """Check an item that only declares a shape against the header of its finest file, if readable."""
    if platform.assets.grid not in item["assets"]:
        return
    try:
        source = source_of(platform, item, platform.assets.grid)
        finest = _grid_of(source)
    except InputError:  # the header is only needed for this check
        return
    said.check_file(finest, source.href)
    check_same_extent(file, finest, href, source.href)


def _shape_of_finest(platform: AnyPlatform, item: Item, said: Declared, file: Grid, href: str) -> tuple[int, int]:
    """Height and width from the header of the asset on the finest grid, which must cover the same area."""
    name = platform.assets.grid
    if name not in item["assets"]:
        raise InputError(f"{item['id']}: neither proj:shape nor the asset {name} found, so the grid is unknown.")
    source = source_of(platform, item, name)
    finest = _grid_of(source)
    said.check_place(finest, source.href)
    check_same_extent(file, finest, href, source.href)
    return finest.height, finest.width


def _grid_of(source: Source) -> Grid:
    header, href = source.header, source.href
    if header.crs is None:
        raise InputError(
            f"{href}: no CRS in the file. Add one, such as with `rio edit-info --crs`; sidecar files are only read for "
            "local files."
        )
    crs = CRS.from_string(header.crs)
    if not crs.is_projected or crs.linear_units_factor[1] != 1.0:
        raise InputError(f"{href}: {crs.to_string()} is not a projected CRS in metres.")
    return Grid(crs, Affine(*header.transform), header.height, header.width)


def _factor(grid: Grid, source: Source, size: int) -> int:
    raster = source.header
    down, across = grid.height / raster.height, grid.width / raster.width
    factor: int = round(down)
    if factor < 1 or abs(down - factor) > 0 or abs(across - factor) > 0 or size % factor:
        raise InputError(
            f"{source.href}: {raster.height} × {raster.width} pixels do not fit the finest grid of {grid.height} × "
            f"{grid.width} with chips of {size}: the factor must be an integer and divide the chip."
        )
    return factor
