"""Headers as rows of a table, and what has to be at hand to read blocks by them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import Window

from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader, arrow_schema, read_header
from clay_assets_tests.sources.test_cog import HEIGHT, WIDTH, assert_same, ground, write

WHOLE = Window(0, 0, WIDTH, HEIGHT)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"compress": "DEFLATE", "predictor": 2, "nodata": 0},
    "by band": {"compress": "ZSTD", "interleave": "band"},
    "big": {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    "jpeg": {"compress": "JPEG"},
    "lerc": {"compress": "LERC_ZSTD", "interleave": "band"},
    "strips": {"tiled": False, "blockxsize": None, "blockysize": 16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_was_stored_reads_the_same_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        href = write(path, ground(3, "uint8"), **KINDS[kind])
        with rasterio.open(path, "r+") as sink:
            sink.write_mask(np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5)
            sink.build_overviews([2, 4])
    header = read_header(href)
    table = pa.Table.from_pylist(header.to_records(), arrow_schema())
    pq.write_table(table, tmp_path / "headers.parquet")
    stored = CogHeader.from_records(pq.read_table(tmp_path / "headers.parquet").to_pylist())
    assert repr(stored) == repr(header)
    reader = BlockReader()
    with rasterio.open(path) as source:
        requests = [BlockRequest(href, image, [WHOLE]) for image in (stored, stored.mask) if image]
        pixels, mask = reader.read(requests)
        assert_same(pixels[0], source.read())
        assert_same(mask[0][0], source.read_masks(1))
    for level, overview in enumerate(stored.overviews):
        assert overview.mask is not None
        with rasterio.open(path, overview_level=level) as source:
            window = Window(0, 0, source.width, source.height)
            found = reader.read([BlockRequest(href, overview, [window]), BlockRequest(href, overview.mask, [window])])
            assert_same(found[0][0], source.read())
            assert_same(found[1][0][0], source.read_masks(1))


def test_further_columns_of_a_row_are_left_alone(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.tif", ground(1, "uint8")))
    again = CogHeader.from_records([{**row, "item_id": "S2A", "asset": "red"} for row in header.to_records()])
    np.testing.assert_array_equal(again.block_offsets, header.block_offsets)


def test_a_header_of_a_sentinel_2_band_takes_little_room(tmp_path: Path) -> None:
    """121 blocks; about 1 GB for all bands of 60,000 scenes."""
    pixels = np.random.default_rng(0).integers(0, 4000, (1, 1098, 1098)).astype(np.uint16)
    href = write(tmp_path / "a.tif", pixels, blockxsize=112, blockysize=112, compress="DEFLATE")
    header = read_header(href)
    rows = [row for _ in range(10) for row in header.to_records()]
    pq.write_table(pa.Table.from_pylist(rows, arrow_schema()), tmp_path / "headers.parquet", compression="zstd")
    assert header.block_count == 100
    assert (tmp_path / "headers.parquet").stat().st_size < 40_000


@pytest.mark.slow
def test_importing_it_is_quick() -> None:
    """Codecs are loaded when the first block is decoded."""
    heavy = ("dagster", "imagecodecs", "tifffile")
    code = f"import sys, clay_assets.sources.cog; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("nodata", (None, 0, 255)),
        ("crs", (None, "EPSG:32632", "EPSG:2193")),
        ("transform", (rasterio.Affine(10, 0, 3e5, 0, -10, 5e6), rasterio.Affine(10, 0, 4e5, 0, -10, 5e6))),
        ("photometric", ("MINISBLACK", "RGB")),
        ("scales", ((1, 1, 1), (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))),
    ],
)
def test_files_that_differ_in_one_tag_are_told_apart(tmp_path: Path, tag: str, values: tuple[object, ...]) -> None:
    """What GDAL makes of tags is asked once for all files that have the same ones."""
    for number, value in enumerate(values * 2):  # the second time round from what is kept
        href = write(tmp_path / f"{number}.tif", ground(3, "uint8"), **({} if tag == "scales" else {tag: value}))
        if tag == "scales":
            with rasterio.open(href, "r+") as sink:
                sink.scales = value
        header = read_header(href)
        with rasterio.open(href) as source:
            assert header.nodata == source.nodata
            assert header.crs == (source.crs.to_string() if source.crs else None)
            assert header.transform == tuple(source.transform)[:6]
            assert header.colorinterp == tuple(one.name for one in source.colorinterp)
            assert header.scales == source.scales
