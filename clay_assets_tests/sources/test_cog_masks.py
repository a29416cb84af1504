"""Masks by blocks are those of `Raster.read_mask`, whatever tells which pixels are data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.sources.cog import BlockReader, read_header
from clay_assets.sources.cog.masks import mask_of, mask_request
from clay_assets.sources.rasters import open_raster

SIDE = 96
WINDOWS = [Window(0, 0, 50, 40), Window(17, 30, 50, 40)]
COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBA = (*COLOURS, ColorInterp.alpha)


def write(path: Path, count: int, dtype: str, colours: Any = None, mask: str = "", **profile: Any) -> str:
    """A raster of few different numbers, so that some pixels are 0 in all bands."""
    pixels = np.random.default_rng(count).integers(0, 3, (count, SIDE, SIDE)).astype(dtype)
    pixels[:, 20:60, 10:40] = profile.pop("hole", 0)
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", **profile}
    place = {"crs": "EPSG:32632", "transform": from_origin(5e5, 1e5, 10, 10)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask == "inside"),
        rasterio.open(
            path, "w", driver="GTiff", height=SIDE, width=SIDE, count=count, dtype=dtype, **place, **layout
        ) as sink,
    ):
        if colours:
            sink.colorinterp = colours
        sink.write(pixels)
        if mask:
            sink.write_mask(np.random.default_rng(9).random((SIDE, SIDE)) > 0.5)
    return str(path)


def assert_same_masks(href: str, measured: tuple[int, ...] = ()) -> NDArray[np.uint8] | None:
    request, reader = mask_request(href, read_header(href), WINDOWS, measured), BlockReader()
    with open_raster(href, measured=measured) as raster:
        expected = np.stack([raster.read_mask(window) for window in WINDOWS])
        assert raster.has_mask or request is None
    if request is None:
        assert (expected == 255).all()
        return None
    found = mask_of(request, reader.read([request])[0])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "kind",
    [
        {"count": 3, "dtype": "uint8", "nodata": 0},
        {"count": 3, "dtype": "uint16", "nodata": 0},
        {"count": 2, "dtype": "int16", "nodata": -9999, "hole": -9999},
        {"count": 1, "dtype": "int32", "nodata": 1},
        {"count": 2, "dtype": "uint8", "nodata": 0.5},
        {"count": 2, "dtype": "float32", "nodata": 0},
        {"count": 2, "dtype": "float32", "nodata": 0.1, "hole": 0.1},
        {"count": 2, "dtype": "float32", "nodata": np.nan, "hole": np.nan},
        {"count": 1, "dtype": "float64", "nodata": -1e300, "hole": -1e300},
        {"count": 3, "dtype": "uint8", "mask": "inside"},
        {"count": 3, "dtype": "uint8", "mask": "beside"},
        {"count": 3, "dtype": "uint8", "mask": "inside", "nodata": 0},
        {"count": 4, "dtype": "uint8", "colours": RGBA},
        {"count": 4, "dtype": "uint16", "colours": RGBA},
        {"count": 4, "dtype": "uint8", "colours": RGBA, "nodata": 0},
        {"count": 4, "dtype": "uint8", "colours": RGBA, "mask": "beside"},
    ],
    ids=lambda kind: " ".join(map(str, kind.values()))[:60],
)
def test_masks_are_those_of_the_raster(tmp_path: Path, kind: dict[str, Any], interleave: str, tiled: bool) -> None:
    layout: dict[str, Any] = {} if tiled else {"tiled": False, "blockxsize": None, "blockysize": 16}
    href = write(tmp_path / "a.tif", **kind, interleave=interleave, **layout)
    found = assert_same_masks(href)
    assert found is not None
    assert 0 < np.count_nonzero(found) < found.size
    assert_same_masks(href, measured=(1, 2, 3, 4))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_without_a_mask_nothing_is_read(tmp_path: Path, count: int) -> None:
    assert assert_same_masks(write(tmp_path / "a.tif", count, "uint8")) is None


def test_near_infrared_that_the_file_calls_alpha_is_no_mask(tmp_path: Path) -> None:
    assert assert_same_masks(write(tmp_path / "a.tif", 4, "uint8", RGBA), measured=(1, 2, 3, 4)) is None
