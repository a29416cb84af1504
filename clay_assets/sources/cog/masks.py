"""Reads validity masks from blocks, by the rules of `sources.rasters.Raster.read_mask`.

By the alpha band, else by the mask of the file, else by the nodata tag: invalid where all bands are nodata. An image
without any of them is valid everywhere, and no block is read.
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
    """The blocks to read for the validity mask of some windows; None: all pixels are valid.

    Args:
        href: address of the file.
        header: header of the image, at full resolution or an overview; not of a mask.
        windows: windows of the image, all of one size.
        measured: bands, from 1, that are known to be measurements, even if the file tags one as alpha; ignored if the
            file has fewer bands.
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
    # GDAL has its own rules for NaN and for nearly equal values.
    return BlockRequest(href, mask_by_rasterio(header, f"nodata {header.nodata} of {header.dtype}"), windows)


def mask_of(request: BlockRequest, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The validity mask, (windows, height, width), 0 for nodata, from the pixels read for a `mask_request`."""
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
