"""Which pixels of an image are data, by the blocks that tell it: the rules of `sources.rasters.Raster.read_mask`.

By the alpha band, else by the mask of the file, else by the nodata tag: not data where all bands hold nodata. An image
without any of them is data everywhere, and no block is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.sources.cog.headers import CogHeader, mask_by_rasterio
from clay_assets.sources.cog.reader import BlockRequest

INTEGERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32)}


def mask_request(
    href: str, header: CogHeader, windows: Sequence[Window], measured: Sequence[int] = ()
) -> BlockRequest | None:
    """What has to be read to know which pixels of some windows are data; None: all of them are.

    Args:
        href: address of the file.
        header: of the image, at full resolution or an overview; not of a mask.
        windows: pixels of the image, all of one size.
        measured: bands, from 1, that are known to be measurements, even where the file calls one alpha; they do not
            count of a file that has fewer.
    """
    known = () if header.count < max(measured, default=0) else measured
    meanings = enumerate(header.colorinterp, start=1)
    alpha = next((band for band, meaning in meanings if meaning == "alpha" and band not in known), None)
    if alpha is not None:
        return BlockRequest(href, header, windows, bands=[alpha - 1])
    if header.mask is not None:
        return BlockRequest(href, header.mask, windows)
    if header.nodata is None:
        return None
    if header.dtype in INTEGERS and header.nodata == np.rint(header.nodata):
        limits = np.iinfo(header.dtype)
        return BlockRequest(href, header, windows) if limits.min <= header.nodata <= limits.max else None
    # GDAL has rules of its own for what is nearly equal, and for NaN.
    return BlockRequest(href, mask_by_rasterio(header, f"nodata {header.nodata} of {header.dtype}"), windows)


def mask_of(request: BlockRequest, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The mask, (windows, height, width), 0 where there is no data, of what a `mask_request` has read."""
    if request.header.is_mask:
        mask: NDArray[np.uint8] = pixels[:, 0]
        return mask
    if request.bands is not None:
        alpha = pixels[:, 0]
        return alpha if alpha.dtype == np.uint8 else _as_mask(alpha != 0)
    nodata = pixels.dtype.type(request.header.nodata)
    valid = pixels[:, 0] != nodata
    for band in range(1, pixels.shape[1]):
        valid |= pixels[:, band] != nodata
    return _as_mask(valid)


def _as_mask(valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    mask = valid.view(np.uint8)
    mask *= np.uint8(255)
    return mask
