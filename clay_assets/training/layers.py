"""The files that a scene's chips are read from, the chips' windows and locations on the ground, and their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.model import Band
from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader
from clay_assets.sources.cog.masks import mask_of, mask_request
from clay_assets.training.chip import Mask, sines
from clay_assets.training.scene_files import SceneFiles

CHIP_SIZE = 256  # pixels per side
NEAR = 1e-3  # pixels by which grids of one scene may differ


@dataclass(frozen=True)
class Layer:
    """Bands that lie in one file.

    Attributes:
        href, header: address and header of the file.
        factor: pixels of the finest grid per pixel of the file, along a side.
        places: indices of the bands in the batch.
        numbers: indices of the bands in the file, from 0.
    """

    href: str
    header: CogHeader
    factor: int
    places: list[int]
    numbers: list[int]


@dataclass(frozen=True)
class Scene:
    """The chips of a batch that come from one scene.

    Attributes:
        files: the scene's files.
        finest: header of the grid on which chips are counted.
        chips: indices in the batch.
        x, y: columns and rows of the chips.
    """

    files: SceneFiles
    finest: CogHeader
    chips: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]


def finest_of(platform: AnyPlatform, files: SceneFiles) -> CogHeader:
    """The header of the grid on which chips are counted."""
    header = files.headers.get(platform.assets.grid)
    if header is None:
        raise InputError(f"{files.item_id}: has no headers of {platform.assets.grid}. Materialise cog_headers.")
    if header.crs is None:
        raise InputError(f"{files.hrefs[platform.assets.grid]}: has no CRS. Pick another scene.")
    return header


def layers_of(scene: Scene, bands: Sequence[Band]) -> list[Layer]:
    """The bands, grouped by file."""
    assets = list(dict.fromkeys(band.asset for band in bands))
    layers = []
    for asset in assets:
        header = scene.files.headers.get(asset)
        if header is None:
            raise InputError(f"{scene.files.item_id}: has no headers of {asset}. Ask for bands that it has.")
        inside = [(place, band.number - 1) for place, band in enumerate(bands) if band.asset == asset]
        beyond = [number + 1 for _, number in inside if number >= header.count]
        if beyond:
            raise InputError(
                f"{scene.files.hrefs[asset]}: has no band {beyond[0]}, only {header.count}. Ask for bands that it has."
            )
        places, numbers = (list(values) for values in zip(*inside, strict=True))
        layers.append(Layer(scene.files.hrefs[asset], header, _factor(scene, asset, header), places, numbers))
    return layers


def _factor(scene: Scene, asset: str, header: CogHeader) -> int:
    """Pixels of the finest grid per pixel of a file, along a side.

    Raises:
        InputError: the factor is not whole, or the grids are not aligned.
    """
    finest, href = scene.finest, scene.files.hrefs[asset]
    factor = round(finest.width / header.width)
    whole = factor >= 1 and (header.width * factor, header.height * factor) == (finest.width, finest.height)
    if not whole or CHIP_SIZE % factor:
        raise InputError(
            f"{href}: {header.height} × {header.width} pixels do not fit the finest grid of {finest.height} × "
            f"{finest.width}: the factor must be whole and divide {CHIP_SIZE}. Ask for other bands."
        )
    a, b, c, d, e, f = finest.transform
    scaled = np.array((a * factor, b * factor, c, d * factor, e * factor, f))
    # Differences add up over the whole file, so compare there rather than over one pixel.
    reach = np.array((header.width, header.height, 1, header.width, header.height, 1))
    apart = np.abs((np.array(header.transform) - scaled) * reach).max() / max(abs(a), abs(b))
    if apart > NEAR or header.crs != finest.crs:
        raise InputError(
            f"{href}: lies {apart:.3g} pixels from the finest grid of its scene, in {header.crs} rather than in "
            f"{finest.crs}. Ask for other bands."
            if header.crs != finest.crs
            else f"{href}: lies {apart:.3g} pixels from the finest grid of its scene. Ask for other bands."
        )
    return factor


def windows_of(scene: Scene, factor: int) -> list[Window]:
    """The window of each chip in a file whose pixels are coarser by a factor."""
    side = CHIP_SIZE // factor
    return [Window(x * side, y * side, side, side) for x, y in zip(scene.x.tolist(), scene.y.tolist(), strict=True)]


def transforms_of(scene: Scene) -> NDArray[np.float64]:
    """Transform of each chip: pixel column and row → x and y; (chips, 6)."""
    a, b, c, d, e, f = scene.finest.transform
    column, row = scene.x * CHIP_SIZE, scene.y * CHIP_SIZE
    same = np.ones(len(column))
    return np.stack(
        [a * same, b * same, a * column + b * row + c, d * same, e * same, d * column + e * row + f], axis=1
    )


def bounds_of(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """West, south, east and north of each chip; (chips, 4)."""
    a, b, c, d, e, f = transforms.T
    x = np.stack([c, c + a * CHIP_SIZE, c + b * CHIP_SIZE, c + (a + b) * CHIP_SIZE])
    y = np.stack([f, f + d * CHIP_SIZE, f + e * CHIP_SIZE, f + (d + e) * CHIP_SIZE])
    return np.stack([x.min(axis=0), y.min(axis=0), x.max(axis=0), y.max(axis=0)], axis=1)


@lru_cache(maxsize=256)
def _to_lonlat(crs: str) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def latlon_of(scene: Scene, transforms: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sine and cosine of latitude and longitude of each chip's projected centre; (chips, 4)."""
    a, b, c, d, e, f = transforms.T
    half = CHIP_SIZE / 2
    lon, lat = _to_lonlat(str(scene.finest.crs)).transform(c + (a + b) * half, f + (d + e) * half)
    return sines(np.radians(lat), np.radians(lon))


def read_masks(platform: AnyPlatform, reader: BlockReader, scenes: Sequence[Scene], count: int) -> tuple[Mask, Mask]:
    """Masks of valid and of cloudy pixels, by the platform's own rule; (count, 256, 256) each."""
    valid, cloud = (np.empty((count, CHIP_SIZE, CHIP_SIZE), np.bool_) for _ in range(2))
    for scene in scenes:
        judged = [name for name in platform.quality.assets if name in scene.files.headers]
        factors = {name: _factor(scene, name, scene.files.headers[name]) for name in judged}
        finest = min(factors.values())
        pixels = {}
        for name in judged:
            found = _quality(platform, reader, scene, name, windows_of(scene, factors[name]))
            pixels[name] = _repeated(found, factors[name] // finest)
        clouded, empty = platform.quality.judge(pixels)
        valid[scene.chips], cloud[scene.chips] = _repeated(~empty, finest), _repeated(clouded, finest)
    return valid, cloud


def _quality(
    platform: AnyPlatform, reader: BlockReader, scene: Scene, name: str, windows: Sequence[Window]
) -> NDArray[Any]:
    """The part of a quality asset that is used: its first band, or its file's mask; (chips, side, side)."""
    href, header = scene.files.hrefs[name], scene.files.headers[name]
    if platform.quality.reads == "band":
        return reader.read([BlockRequest(href, header, windows, [0])])[0][:, 0]
    request = mask_request(href, header, windows, scene.files.measured.get(name, ()))
    if request is None:
        return np.full((len(windows), int(windows[0].height), int(windows[0].width)), 255, np.uint8)
    return mask_of(request, reader.read([request])[0])


def _repeated(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    """(chips, side, side) with every pixel repeated along both sides."""
    return pixels if times == 1 else pixels.repeat(times, axis=1).repeat(times, axis=2)
