"""Blocks that are handed over one by one: together they are the window, each pixel once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.sources.cog import BlockReader, BlockRequest, read_header
from clay_assets.sources.cog.scanning import can_scan, scan

HEIGHT, WIDTH, BANDS = 301, 417, 4
LAYOUTS: dict[str, dict[str, Any]] = {
    "pixels": {"blockxsize": 128, "blockysize": 128, "interleave": "pixel", "compress": "deflate"},
    "bands": {"blockxsize": 128, "blockysize": 64, "interleave": "band", "compress": "lzw", "predictor": 2},
    "plain": {"blockxsize": 48, "blockysize": 16, "interleave": "pixel"},
    "sparse": {"blockxsize": 64, "blockysize": 64, "interleave": "band", "compress": "zstd", "sparse_ok": True},
}
WINDOWS = [Window(0, 0, WIDTH, HEIGHT), Window(0, 0, 256, 128), Window(100, 50, 200, 190), Window(130, 70, 5, 3)]


def write(path: Path, layout: str, **more: Any) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(1, 999, (BANDS, HEIGHT, WIDTH), dtype=np.uint16)
    if layout == "sparse":
        pixels[:, 64:192, 64:320] = 7
        more = {**more, "nodata": 7}
    profile = {"height": HEIGHT, "width": WIDTH, "count": BANDS, "dtype": "uint16", "crs": "EPSG:32632"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        **profile,
        tiled=True,
        **LAYOUTS[layout],
        **more,
        transform=from_origin(5e5, 1e5, 10, 10),
    ) as sink:
        sink.write(pixels)
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("bands", [None, [0], [3], [1, 3]])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache", [0, 1 << 24])
def test_every_pixel_once(tmp_path: Path, layout: str, bands: list[int] | None, window: Window, cache: int) -> None:
    pixels = write(tmp_path / "a.tif", layout)
    href = str(tmp_path / "a.tif")
    request = BlockRequest(href, read_header(href), [window], bands=bands)
    wanted = pixels[slice(None) if bands is None else bands]
    if len(wanted) > 1 and LAYOUTS[layout]["interleave"] == "band":
        assert not can_scan(request)
        return
    assert can_scan(request)
    found = np.zeros((len(wanted), window.height, window.width), np.uint16)
    reader = BlockReader(cache_bytes=cache)

    def visit(row: int, column: int, part: np.ndarray) -> None:
        target = found[:, row : row + part.shape[0], column : column + part.shape[1]]
        assert not target.any()
        target[:] = part.transpose(2, 0, 1)

    for _ in range(2):  # the second time from the cache, where there is one
        found[:] = 0
        scan(reader, request, visit)
        expected = wanted[:, window.row_off :, window.col_off :][:, : window.height, : window.width]
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found, reader.read([request])[0][0])
    reader.close()


def test_what_only_rasterio_reads_is_not_scanned(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "pixels")
    with (
        rasterio.open(tmp_path / "a.tif") as source,
        rasterio.open(tmp_path / "strips.tif", "w", **{**source.profile, "tiled": False, "blockysize": 8}) as sink,
    ):
        sink.write(source.read())
    href = str(tmp_path / "strips.tif")
    assert not can_scan(BlockRequest(href, read_header(href), [WINDOWS[0]]))


@pytest.mark.parametrize("damage", ["truncated", "corrupt"])
def test_a_damaged_file_is_named_as_by_a_read(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.tif"
    write(path, "pixels")
    header, content = read_header(str(path)), path.read_bytes()
    first = int(header.block_offsets[0])
    path.write_bytes(
        content[:-900] if damage == "truncated" else content[: first + 9] + b"\xff" * 99 + content[first + 108 :]
    )
    header = read_header(str(path))
    said = []
    for read in (
        lambda reader, request: reader.read([request]),
        lambda reader, request: scan(reader, request, lambda *_: None),
    ):
        with pytest.raises(InputError, match=r"a\.tif: not a readable raster") as caught:
            read(BlockReader(cache_bytes=0), BlockRequest(str(path), header, [WINDOWS[0]]))
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_what_a_visit_raises_ends_the_scan(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "pixels")
    href = str(tmp_path / "a.tif")

    def visit(row: int, column: int, part: np.ndarray) -> None:
        raise InputError(f"{row}, {column}: enough")

    with pytest.raises(InputError, match="0, 0: enough"):
        scan(BlockReader(), BlockRequest(href, read_header(href), [WINDOWS[0]]), visit)
