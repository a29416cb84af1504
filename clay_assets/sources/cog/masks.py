"""Which pixels of a file are data, read in blocks: by its alpha band, its mask, or its nodata value.

The rules are those of `Raster.read_mask` of `sources.rasters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.sources.cog.headers import CogHeader
from clay_assets.sources.cog.reader import BlockRequest

VALID = 255


@dataclass(frozen=True)
class Validity:
    """How a file tells which of its pixels are data.

    Attributes:
        by: an alpha band, a mask of the file, the nodata value of its bands; `nothing`: all pixels are data.
        request: what has to be read to know it; None where nothing has.
        nodata: of the bands.
    """

    by: Literal["alpha", "mask", "nodata", "nothing"]
    request: BlockRequest | None = None
    nodata: float | None = None

    def mask(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Validity of what was read, (windows, bands, height, width): 0 where there is no data; without bands.

        An alpha band of 8 bits is given as it is.
        """
        if self.by == "mask" or (self.by == "alpha" and pixels.dtype == np.uint8):
            read: NDArray[np.uint8] = pixels[:, 0]
            return read
        if self.by == "alpha":
            data = pixels[:, 0] != 0
        else:
            nodata = np.float64(np.nan if self.nodata is None else self.nodata)
            data = (~np.isnan(pixels) if np.isnan(nodata) else pixels != nodata).any(axis=1)
        return np.where(data, np.uint8(VALID), np.uint8(0))


def validity(href: str, header: CogHeader, windows: Sequence[Window], measured: Sequence[int] = ()) -> Validity:
    """How a file tells which pixels of some windows are data.

    Args:
        href: address of the file.
        header: of it.
        windows: of one size.
        measured: bands, from 1, that are measurements even where the file calls one alpha.
    """
    alpha = [band for band, said in enumerate(header.colorinterp) if said == "alpha" and band + 1 not in measured]
    if alpha:
        return Validity("alpha", BlockRequest(href, header, windows, alpha[:1]))
    if header.mask is not None:
        return Validity("mask", BlockRequest(href, header.mask, windows))
    if header.nodata is not None:
        return Validity("nodata", BlockRequest(href, header, windows), header.nodata)
    return Validity("nothing")
