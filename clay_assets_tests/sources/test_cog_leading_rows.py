"""Blocks that are decoded down to the last wanted row alone, held against rasterio."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.sources.cog import BlockReader, BlockRequest, read_header
from clay_assets_tests.sources.test_cog import LAYOUTS, WHOLE, WINDOWS, assert_same, ground, write


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
@pytest.mark.parametrize(
    ("compression", "predictor", "dtype"),
    [
        *(("DEFLATE", predictor, dtype) for predictor in (1, 2) for dtype in ("uint8", "int16", "uint16", "float32")),
        ("DEFLATE", 3, "float32"),
        ("LZW", 2, "uint16"),
        ("ZSTD", 2, "uint16"),
        ("NONE", 1, "uint16"),
    ],
)
def test_windows_are_those_of_rasterio(
    tmp_path: Path, compression: str, predictor: int, dtype: str, endianness: str, layout: str
) -> None:
    count, interleave = LAYOUTS[layout]
    profile = {"compress": compression, "interleave": interleave, "ENDIANNESS": endianness}
    href = write(tmp_path / "a.tif", ground(count, dtype), predictor=predictor, **profile)
    header, reader = read_header(href), BlockReader(threads=2, checksums=False)
    with rasterio.open(href) as source:
        for window in WINDOWS:
            (found,) = reader.read([BlockRequest(href, header, [window])])
            assert_same(found[0], source.read(window=window))


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """A file whose block 6, the second of the rows from 32, ends in noise."""
    href = write(tmp_path / "a.tif", ground(1, "uint16"), compress="DEFLATE", predictor=2)
    header, data = read_header(href), bytearray(Path(href).read_bytes())
    stop = int(header.block_offsets[6] + header.block_byte_counts[6])
    data[stop - 200 : stop] = bytes([0x81]) * 200
    Path(href).write_bytes(data)
    return href


def test_damage_below_the_wanted_rows_does_no_harm(damaged: str) -> None:
    header, top = read_header(damaged), Window(130, 32, 20, 8)
    (found,) = BlockReader(checksums=False).read([BlockRequest(damaged, header, [top])])
    assert_same(found[0], ground(1, "uint16")[:, 32:40, 130:150])
    with pytest.raises(InputError, match=r"block 6 is corrupt"):
        BlockReader().read([BlockRequest(damaged, header, [top])])


def test_a_stream_that_breaks_off_is_corrupt_all_the_same(damaged: str) -> None:
    with pytest.raises(InputError, match=r"block 6 is corrupt"):
        BlockReader(checksums=False).read([BlockRequest(damaged, read_header(damaged), [WHOLE])])


def test_only_whole_blocks_are_kept(tmp_path: Path) -> None:
    href = write(tmp_path / "a.tif", ground(1, "uint16"), compress="DEFLATE")
    header, reader = read_header(href), BlockReader(checksums=False)
    for window, hits in ((Window(0, 0, 10, 10), 0), (Window(0, 0, 10, 32), 0), (Window(0, 0, 10, 32), 1)):
        (found,) = reader.read([BlockRequest(href, header, [window])])
        assert_same(found[0], ground(1, "uint16")[:, : window.height, :10])
        assert reader.counters.cache_hits == hits
