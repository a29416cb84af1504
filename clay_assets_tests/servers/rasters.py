"""Small rasters for the tests of the servers and of the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin


def raster(path: Path, values: np.ndarray[Any, Any], resolution: float = 10.0, nodata: int | None = None) -> None:
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype=values.dtype,
        crs="EPSG:32632",
        transform=from_origin(500000, 5000000, resolution, resolution),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        nodata=nodata,
    ) as target:
        target.write(values, 1)
