"""What is to be taken away from the numbers of a scene, by the overviews of its files where its platform asks for them.

`radiometry` holds the decision and the arithmetic; here is what reads for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.stac import Item

if TYPE_CHECKING:  # modules of this folder are imported when definitions load, and that reads no raster
    from numpy.typing import NDArray

    from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader

# Pixels a side: the coarsest image that has as many is read, whole up to the second, else in windows across and down.
LEAST, WHOLE = 300, 1400
WINDOWS, WINDOW = 4, 256


def radiometric_offset(
    platform: AnyPlatform, item: Item, headers: Mapping[str, CogHeader], reader: BlockReader
) -> RadiometricOffset:
    """What is to be taken away from the numbers of a scene's bands.

    Overviews are read only where the item alone does not decide. An asset that the item lacks, or whose file is absent,
    forbidden or damaged, is left out.

    Args:
        platform: how its numbers are told and its files are reached.
        item: the scene.
        headers: asset → header of its file, as far as they are known; others of `Radiometry.bands` are read.
        reader: of the overviews' blocks.

    Raises:
        SourceError: a remote file could not be read now, so that another run may decide otherwise.
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
    except InputError:  # of one of them at least
        found = {name: pixels for name, request in requests.items() if (pixels := _read(reader, request)) is not None}
    return {name: pixels[:, 0] for name, pixels in found.items()}


def _read(reader: BlockReader, request: BlockRequest) -> NDArray[Any] | None:
    try:
        return reader.read([request])[0]
    except InputError:
        return None


def _request(href: str, header: CogHeader) -> BlockRequest:
    """The first band of the coarsest image that is large enough; of a large one, windows that are spread over it."""
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
