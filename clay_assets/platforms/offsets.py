"""Finds the offset to subtract from a scene's pixel values, from the overviews of its files if the platform needs them.

The decision and the arithmetic are in `radiometry`; this module does the reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.stac import Item

if TYPE_CHECKING:  # modules of this folder are imported when definitions load, without raster libraries
    from numpy.typing import NDArray

    from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader

# Pixels per side: the coarsest image with at least LEAST is read, whole up to WHOLE, else in windows spread over it.
LEAST, WHOLE = 300, 1400
WINDOWS, WINDOW = 4, 256


def radiometric_offset(
    platform: AnyPlatform, item: Item, headers: Mapping[str, CogHeader], reader: BlockReader
) -> RadiometricOffset:
    """The offset to subtract from the pixel values of a scene's bands.

    Overviews are read only if the item alone does not decide. Assets that the item lacks, or whose file is missing,
    forbidden or damaged, are skipped.

    Args:
        platform: the platform, which sets radiometry and access.
        item: the scene.
        headers: asset → header of its file, if known; other headers of `Radiometry.bands` are read.
        reader: reads the blocks of the overviews.

    Raises:
        SourceError: a remote file could not be read now, so that another run might decide differently.
    """
    if platform.radiometry is None:
        return RadiometricOffset(0, "default")
    return platform.radiometry.decide(item, partial(_overviews, platform, item, headers, reader))


def _overviews(
    platform: AnyPlatform, item: Item, headers: Mapping[str, CogHeader], reader: BlockReader
) -> dict[str, NDArray[Any]]:
    from clay_assets.sources.cog import read_header

    requests: dict[str, BlockRequest] = {}
    for name in platform.radiometry.bands if platform.radiometry else ():
        try:
            href = platform.href(item["assets"][name])
            header = headers[name] if name in headers else read_header(href, platform.access_to(href))
        except (KeyError, InputError):
            continue
        requests[name] = _request(href, header)
    try:
        found = dict(zip(requests, reader.read([*requests.values()]), strict=True))
    except InputError:  # at least one file is bad
        found = {name: pixels for name, request in requests.items() if (pixels := _read(reader, request)) is not None}
    return {name: pixels[:, 0] for name, pixels in found.items()}


def _read(reader: BlockReader, request: BlockRequest) -> NDArray[Any] | None:
    try:
        return reader.read([request])[0]
    except InputError:
        return None


def _request(href: str, header: CogHeader) -> BlockRequest:
    """The first band of the coarsest image that is large enough; if it is very large, windows spread over it."""
    import numpy as np
    from rasterio.windows import Window

    from clay_assets.sources.cog import BlockRequest

    images = [image for image in header.overviews if min(image.width, image.height) >= LEAST]
    image = min(images, key=lambda image: image.width, default=header)
    windows = [Window(0, 0, image.width, image.height)]
    if max(image.width, image.height) > WHOLE:
        width, height = min(WINDOW, image.width), min(WINDOW, image.height)
        left = np.linspace(0, image.width - width, WINDOWS).round().astype(int).tolist()
        top = np.linspace(0, image.height - height, WINDOWS).round().astype(int).tolist()
        windows = [Window(column, row, width, height) for row in top for column in left]
    return BlockRequest(href, image, windows, bands=[0])
