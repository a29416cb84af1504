"""Pixels of cloud-optimised GeoTIFFs, held against rasterio bit for bit; every file is written by GDAL."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioIOError
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader, read_header

HEIGHT, WIDTH = 150, 200
BLOCK = {"tiled": True, "blockxsize": 64, "blockysize": 32}  # neither side divides the image
PLACE = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 10, 10)}
WHOLE = Window(0, 0, WIDTH, HEIGHT)
# One pixel, inside a block, across two and four blocks, whole rows, and the ragged corner.
WINDOWS = (
    Window(0, 0, 1, 1),
    Window(5, 3, 20, 10),
    Window(60, 3, 10, 10),
    Window(50, 20, 100, 100),
    Window(0, 31, WIDTH, 2),
    Window(190, 140, 10, 10),
    WHOLE,
)
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
DTYPES = (*INTEGERS, *FLOATS, "complex64", "complex128", "complex_int16")
PREDICTORS = {
    "none": [(1, dtype) for dtype in DTYPES],
    "horizontal": [(2, dtype) for dtype in (*INTEGERS, *FLOATS, "complex64")],
    "floating-point": [(3, dtype) for dtype in FLOATS],
}
PREDICTED = ("DEFLATE", "LZW", "ZSTD", "LZMA")
COMPRESSIONS = ("NONE", "PACKBITS", *PREDICTED, "LERC", "LERC_DEFLATE", "LERC_ZSTD", "WEBP", "JPEG", "JXL")
LAYOUTS = {"one band": (1, "pixel"), "by pixel": (3, "pixel"), "by band": (2, "band")}


def ground(count: int, dtype: str, height: int = HEIGHT, width: int = WIDTH) -> NDArray[Any]:
    """Smooth enough for predictors to matter, of the whole range of the type, with what is not finite in floats."""
    steps = np.random.default_rng(count).normal(0, 20, (count, height, width)).cumsum(axis=2)
    kind = np.dtype("complex64" if dtype == "complex_int16" else dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        span = float(limits.max) - float(limits.min)
        values = np.clip((steps / 800 + 0.5) * span + float(limits.min), float(limits.min), float(limits.max) * 0.99)
        return values.astype(kind)
    values = steps.astype(kind)
    if kind.kind == "f":
        values[0, 3:5, 3:5], values[0, 6, 6] = np.nan, -np.inf
    return values


def write(path: Path, pixels: NDArray[Any], **profile: Any) -> str:
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width}
    with rasterio.open(
        path, "w", **{"driver": "GTiff", "dtype": pixels.dtype, **size, **BLOCK, **PLACE, **profile}
    ) as f:
        f.write(pixels)
    return str(path)


def read(header: CogHeader, href: str, *windows: Window, bands: Sequence[int] | None = None) -> list[NDArray[Any]]:
    requests = [BlockRequest(href, header, [window], bands) for window in windows]
    alone, shared = ([pixels[0] for pixels in BlockReader(threads=count).read(requests)] for count in (1, 2))
    for one, other in zip(alone, shared, strict=True):
        assert_same(one, other)
    return alone


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    """The same bits, of NaN too."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def assert_reads_as_rasterio(href: str) -> CogHeader:
    header = read_header(href)
    with rasterio.open(href) as source:
        assert (header.height, header.width, header.count) == (*source.shape, source.count)
        assert header.dtype == source.read(1, window=WINDOWS[0]).dtype.name
        assert header.crs == source.crs.to_string()
        assert header.transform == tuple(source.transform)[:6]
        assert (header.scales, header.offsets) == (source.scales, source.offsets)
        assert header.colorinterp == tuple(meaning.name for meaning in source.colorinterp)
        np.testing.assert_equal(header.nodata, source.nodata)
        windows = [window for window in WINDOWS if window.row_off + window.height <= source.height]
        for window, found in zip(windows, read(header, href, *windows), strict=True):
            assert_same(found, source.read(window=window))
        if source.count > 1:
            for bands in ([source.count - 1, 0], [1], [1, 1]):
                (found,) = read(header, href, WINDOWS[3], bands=bands)
                assert_same(found, source.read([band + 1 for band in bands], window=WINDOWS[3]))
    return header


# --- compression, predictor, type, interleave -----------------------------------------------------

DECODED = {
    "LERC": {"int8", "uint8", "int16", "uint16", "int32", "uint32", *FLOATS},
    "WEBP": {"uint8"},
    "JPEG": {"uint8"},
}


ALL = ("DEFLATE", "by pixel")
WAYS = [
    (compression, predictor, layout, endian)
    for compression in COMPRESSIONS
    for predictor in PREDICTORS
    for layout in LAYOUTS
    for endian in ("LITTLE", "BIG")
    # Codec, byte order and layout do not depend on each other, but for one codec that is tried with all.
    if (predictor == "none" or compression in PREDICTED)
    and (layout == "one band" or (compression != "LZMA" and endian == "LITTLE") or (compression, layout) == ALL)
]
OF_EACH_SIZE = {"uint8", "int16", "float32", "float64", "complex128", "complex_int16"}


@pytest.mark.slow
@pytest.mark.parametrize(("compression", "predictor", "layout", "endian"), WAYS)
def test_every_way_to_store_pixels(tmp_path: Path, compression: str, predictor: str, layout: str, endian: str) -> None:
    """Whatever GDAL here can write and read; which of it we decode ourselves is part of the contract."""
    count, interleave = LAYOUTS[layout]
    tried = 0
    for number, dtype in PREDICTORS[predictor]:
        dear = layout != "one band" or compression == "LZMA"
        if dear and compression != "DEFLATE" and dtype not in OF_EACH_SIZE:
            continue
        how = {"compress": compression, "interleave": interleave, "ENDIANNESS": endian}
        if number > 1:
            how["predictor"] = str(number)
        try:
            href = write(tmp_path / f"{dtype}.tif", ground(count, dtype), dtype=dtype, **how)
            with rasterio.open(href) as source:
                source.read()
        except (RasterioIOError, OSError):  # GDAL cannot
            continue
        tried += 1
        header = assert_reads_as_rasterio(href)
        fallback = header.fallback
        known = DECODED.get(compression.partition("_")[0], set(DTYPES) - {"complex_int16"})
        planes = 1 if interleave == "band" else count
        if compression.startswith("LERC") and (planes > 1 or (endian == "BIG" and np.dtype(dtype).itemsize > 1)):
            known = set()
        if (compression == "JPEG" and planes > 3) or (header.predictor > 1 and dtype.startswith("complex")):
            known = set()
        assert (fallback is None) == (dtype in known), (dtype, fallback)
    if not tried:
        pytest.skip("GDAL cannot write it")


@pytest.mark.parametrize("level", ["10", "75"])
@pytest.mark.parametrize("photometric", ["RGB", "YCBCR", "MINISBLACK"])
def test_jpeg_is_read_as_gdal_reads_it(tmp_path: Path, photometric: str, level: str) -> None:
    """Of YCbCr the colours are subsampled, which decoders interpolate in different ways: through rasterio."""
    how = {"compress": "JPEG", "photometric": photometric, "interleave": "pixel", "JPEG_QUALITY": level}
    header = assert_reads_as_rasterio(write(tmp_path / "a.tif", ground(3, "uint8"), **how))
    assert (header.fallback is None) == (photometric == "RGB")


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("how", [{"WEBP_LEVEL": "20"}, {"WEBP_LOSSLESS": "YES"}], ids=["lossy", "lossless"])
def test_webp(tmp_path: Path, how: dict[str, str], count: int) -> None:
    pixels = ground(count, "uint8")
    header = assert_reads_as_rasterio(write(tmp_path / "a.tif", pixels, compress="WEBP", interleave="pixel", **how))
    assert header.fallback is None


@pytest.mark.parametrize("compression", ["LERC", "LERC_DEFLATE", "LERC_ZSTD"])
def test_lerc_with_an_error(tmp_path: Path, compression: str) -> None:
    header = assert_reads_as_rasterio(
        write(tmp_path / "a.tif", ground(1, "float32"), compress=compression, MAX_Z_ERROR="0.1")
    )
    assert header.fallback is None


@pytest.mark.parametrize("bits", [1, 4, 12])
def test_samples_that_are_no_whole_bytes_are_read_through_rasterio(tmp_path: Path, bits: int) -> None:
    dtype = "uint16" if bits > 8 else "uint8"
    pixels = ground(1, "uint8").astype(dtype) % (1 << bits)
    header = assert_reads_as_rasterio(write(tmp_path / "a.tif", pixels, dtype=dtype, NBITS=str(bits)))
    assert header.fallback


def test_half_floats_are_read_through_rasterio(tmp_path: Path) -> None:
    pixels = np.nan_to_num(ground(1, "float32"), neginf=0)
    header = assert_reads_as_rasterio(write(tmp_path / "a.tif", pixels, NBITS="16"))
    assert header.fallback == "samples of type float16"


@pytest.mark.parametrize("kind", ["palette", "white is zero", "cmyk", "alpha"])
def test_colours_are_handed_over_as_stored(tmp_path: Path, kind: str) -> None:
    """But for CMYK, of which GDAL makes RGB."""
    count, photometric = {"palette": (1, "PALETTE"), "white is zero": (1, "MINISWHITE"), "cmyk": (4, "CMYK")}.get(
        kind, (4, "RGB")
    )
    path = tmp_path / "a.tif"
    options = {} if photometric == "PALETTE" else {"photometric": photometric}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=HEIGHT, width=WIDTH, dtype="uint8", **BLOCK, **PLACE, **options
    ) as sink:
        if kind == "palette":
            sink.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
        if kind == "alpha":
            sink.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        sink.write(ground(count, "uint8"))
    assert (assert_reads_as_rasterio(str(path)).fallback is None) == (kind != "cmyk")


# --- sparse blocks, nodata, masks, overviews, BigTIFF ---------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None),
        ("uint16", 0),
        ("uint16", 65535),
        ("int16", -9999),
        ("float32", np.nan),
        ("float64", -1e300),
        ("int64", -(2**53)),
        ("uint64", 2**53),
        ("int8", -128),
    ],
)
def test_sparse_blocks_are_nodata(tmp_path: Path, dtype: str, nodata: float | None, interleave: str) -> None:
    path = tmp_path / "a.tif"
    size = {"count": 2, "height": HEIGHT, "width": WIDTH, "dtype": dtype, "nodata": nodata, "interleave": interleave}
    with rasterio.open(
        path, "w", driver="GTiff", SPARSE_OK="TRUE", compress="DEFLATE", **size, **BLOCK, **PLACE
    ) as sink:
        sink.write(
            ground(2, dtype)[:, :32, :64] if dtype[0] != "f" else np.ones((2, 32, 64)), window=Window(64, 32, 64, 32)
        )
    header = assert_reads_as_rasterio(str(path))
    assert header.fallback is None
    assert (header.block_byte_counts == 0).sum() == len(header.block_byte_counts) - (2 if interleave == "band" else 1)


@pytest.mark.parametrize("compression", ["NONE", "DEFLATE", "JPEG"])
def test_masks_and_overviews(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    valid = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.3
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        href = write(path, ground(3, "uint8"), compress=compression, interleave="pixel")
        with rasterio.open(path, "r+") as sink:
            sink.write_mask(valid)
            sink.build_overviews([2, 4])
    header = assert_reads_as_rasterio(href)
    assert header.mask is not None
    assert (header.mask.is_mask, header.mask.dtype, header.mask.fallback) == (True, "uint8", None)
    assert len(header.overviews) == 2
    for level, image in ((None, header), *enumerate(header.overviews)):
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as source:
            assert (image.level, image.height, image.width) == (level, *source.shape)
            np.testing.assert_allclose(image.transform, tuple(source.transform)[:6])
            window = Window(3, 5, source.width - 3, source.height - 5)
            assert_same(read(image, href, window)[0], source.read(window=window))
            assert image.mask is not None
            assert_same(read(image.mask, href, window)[0][0], source.read_masks(1, window=window))
            assert_same(source.read_masks(1), source.dataset_mask())


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["DEFLATE", "LZW", "ZSTD", "LERC", "WEBP", "JPEG"])
def test_files_of_the_cog_driver(tmp_path: Path, compression: str) -> None:
    """Whose blocks have leaders between them, and whose mask lies beside the pixels."""
    count = 3 if compression in ("WEBP", "JPEG") else 1
    plain = write(tmp_path / "plain.tif", ground(count, "uint8", 700, 600))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(plain, "r+") as sink:
        sink.write_mask(np.random.default_rng(0).random((700, 600)) > 0.5)
    href = str(tmp_path / "cog.tif")
    copy(plain, href, driver="COG", compress=compression, blocksize=128, overview_count=2)
    header = read_header(href)
    with rasterio.open(href) as source:
        assert_same(read(header, href, Window(100, 100, 300, 300))[0], source.read(window=Window(100, 100, 300, 300)))
        assert len(header.overviews) == len(source.overviews(1)) > 0
        assert header.mask is not None
        assert_same(read(header.mask, href, Window(0, 0, 600, 700))[0][0], source.read_masks(1))


def test_big_tiff(tmp_path: Path) -> None:
    for endian in ("LITTLE", "BIG"):
        href = write(tmp_path / f"{endian}.tif", ground(2, "uint16"), BIGTIFF="YES", ENDIANNESS=endian, compress="LZW")
        assert Path(href).read_bytes()[2:4] in (b"+\0", b"\0+")
        assert assert_reads_as_rasterio(href).fallback is None


@pytest.mark.parametrize("side", [16, 48, 512])
def test_blocks_of_other_sizes(tmp_path: Path, side: int) -> None:
    """Also one block that is larger than the image."""
    pixels = ground(1, "uint16")
    assert_reads_as_rasterio(
        write(tmp_path / "a.tif", pixels, blockxsize=side, blockysize=16, compress="DEFLATE", predictor=2)
    )


def test_numbers_that_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, ground(2, "uint16"), nodata=0)
    with rasterio.open(path, "r+") as sink:
        sink.scales, sink.offsets = (0.0001, 0.5), (-0.1, 3.0)
    header = assert_reads_as_rasterio(str(path))
    assert (header.scales, header.offsets, header.nodata) == ((0.0001, 0.5), (-0.1, 3.0), 0)


@pytest.mark.parametrize("kind", ["wkt", "rotated", "point"])
def test_georeferencing_is_gdals(tmp_path: Path, kind: str) -> None:
    sinusoidal = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
    place = {"crs": sinusoidal} if kind == "wkt" else {}
    if kind == "rotated":
        place["transform"] = PLACE["transform"] @ rasterio.Affine.rotation(30)
    path = tmp_path / "a.tif"
    href = write(path, ground(1, "int16"), **place)
    if kind == "point":
        with rasterio.open(path, "r+") as sink:
            sink.update_tags(AREA_OR_POINT="Point")
    assert_reads_as_rasterio(href)


# --- fallback -------------------------------------------------------------------------------------


def test_strips_are_read_through_rasterio_and_counted(tmp_path: Path) -> None:
    href = write(tmp_path / "a.tif", ground(2, "uint16"), tiled=False, blockxsize=None, blockysize=16)
    header = assert_reads_as_rasterio(href)
    assert header.fallback == "strips"
    reader = BlockReader()
    reader.read([BlockRequest(href, header, [WINDOWS[1], WINDOWS[1]])])
    assert (reader.counters.fallbacks, reader.counters.blocks_decoded) == (2, 0)


@pytest.mark.parametrize("driver", ["JP2OpenJPEG", "PNG", "JPEG"])
def test_other_formats_are_read_through_rasterio(tmp_path: Path, driver: str) -> None:
    plain = write(tmp_path / "plain.tif", ground(1, "uint8"))
    href = str(tmp_path / "a.other")
    try:
        copy(plain, href, driver=driver)
    except (RasterioIOError, rasterio.errors.DriverRegistrationError, ValueError):
        pytest.skip("GDAL cannot write it")
    header = assert_reads_as_rasterio(href)
    assert header.fallback == "not a TIFF"


def test_a_mask_beside_the_file_is_read_through_rasterio(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    href = write(path, ground(1, "uint8"))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as sink:
        sink.write_mask(np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5)
    assert path.with_name("a.tif.msk").exists()
    header = assert_reads_as_rasterio(href)
    assert header.fallback is None
    assert header.mask is not None
    assert header.mask.fallback == "a mask in a sidecar file"
    with rasterio.open(path) as source:
        assert_same(read(header.mask, href, WHOLE)[0][0], source.read_masks(1))


def test_masks_of_strips(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        href = write(path, ground(1, "uint8"), tiled=False, blockxsize=None, blockysize=16)
        with rasterio.open(path, "r+") as sink:
            sink.write_mask(np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5)
    header = read_header(href)
    assert header.mask is not None
    with rasterio.open(path) as source:
        assert_same(read(header.mask, href, WINDOWS[3])[0][0], source.read_masks(1, window=WINDOWS[3]))


# --- the reader -----------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> list[tuple[str, CogHeader, NDArray[Any]]]:
    """Three files of one scene."""
    made = []
    for number in range(3):
        pixels = ground(1, "uint16") + number
        href = write(tmp_path / f"{number}.tif", pixels.astype(np.uint16), compress="DEFLATE", predictor=2)
        made.append((href, read_header(href), pixels.astype(np.uint16)))
    return made


def test_each_block_is_fetched_and_decoded_once(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    reader = BlockReader(threads=2)
    windows = [Window(column, row, 40, 40) for row in range(0, 111, 10) for column in range(0, 161, 10)]
    requests = [BlockRequest(href, header, windows) for href, header, _ in scene]
    for (_, _, pixels), found in zip(scene, reader.read(requests), strict=True):
        expected = [pixels[:, w.row_off : w.row_off + 40, w.col_off : w.col_off + 40] for w in windows]
        assert_same(found, np.array(expected))
    counted = reader.counters
    assert counted.blocks_decoded == sum(header.block_count for _, header, _ in scene)
    assert counted.requests == 3  # a file's blocks lie next to each other
    assert counted.bytes_fetched == sum(int(header.block_byte_counts.sum()) for _, header, _ in scene)
    assert counted.cache_hits == 0
    reader.read(requests)
    assert counted.requests == 3
    assert counted.cache_hits == counted.blocks_decoded


def test_the_cache_is_bounded(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    block = 64 * 32 * 2
    href, header, pixels = scene[0]
    for room, hits in ((0, 0), (3 * block, 3), (100 * block, header.block_count)):
        reader = BlockReader(cache_bytes=room)
        reader.read([BlockRequest(href, header, [WHOLE])])
        assert reader._cached_bytes <= room
        last = Window(128, 128, 72, 22)  # the last two blocks
        (again,) = reader.read([BlockRequest(href, header, [last])])
        assert_same(again[0], pixels[:, 128:, 128:])
        assert reader.counters.cache_hits == min(hits, 2)


def test_only_the_blocks_that_are_needed_are_fetched(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, _ = scene[0]
    reader = BlockReader()
    reader.read([BlockRequest(href, header, [Window(0, 0, 8, 10), Window(192, 140, 8, 10)])])
    ends = header.block_byte_counts[[0, -1]]
    assert (reader.counters.blocks_decoded, reader.counters.requests) == (2, 2)
    assert reader.counters.bytes_fetched == int(ends.sum())


def test_pixels_go_into_an_array_of_the_caller(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    chips = np.zeros((2, 3, 50, 50), np.uint16)
    windows = [Window(0, 0, 50, 50), Window(100, 50, 50, 50)]
    requests = [
        BlockRequest(href, header, windows, out=chips[:, band : band + 1])
        for band, (href, header, _) in enumerate(scene)
    ]
    BlockReader(threads=2).read(requests)
    for band, (_, _, pixels) in enumerate(scene):
        assert_same(chips[0, band], pixels[0, :50, :50])
        assert_same(chips[1, band], pixels[0, 50:100, 100:150])


@pytest.mark.parametrize(
    "stored", [{**BLOCK, "interleave": "pixel"}, {**BLOCK, "interleave": "band"}, {"tiled": False}]
)
def test_pixels_are_repeated_and_changed(tmp_path: Path, stored: dict[str, Any]) -> None:
    pixels = ground(3, "uint16")
    href = write(tmp_path / "a.tif", pixels, **stored)
    header, reader = read_header(href), BlockReader()
    for window in WINDOWS:
        expected = pixels[(slice(None), *window.toslices())].repeat(3, axis=1).repeat(3, axis=2)
        for bands in (None, [2, 0]):  # decoded at first, then out of the cache
            plain = BlockRequest(href, header, [window], bands, repeat=3)
            changed = BlockRequest(href, header, [window], bands, repeat=3, change=np.invert)
            found = reader.read([changed, plain])
            wanted = expected[np.newaxis] if bands is None else expected[np.newaxis, bands]
            assert_same(found[0], ~wanted)
            assert_same(found[1], wanted)
    with pytest.raises(InputError, match="repeat"):
        reader.read([BlockRequest(href, header, [WHOLE], repeat=0)])


def test_nothing_is_asked_for(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, _ = scene[0]
    assert BlockReader().read([]) == []
    assert BlockReader().read([BlockRequest(href, header, [])])[0].shape[0] == 0


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(-1, 0, 10, 10), "row 0, column -1 reaches beyond the image of 150 × 200"),
        (Window(0, 141, 10, 10), "row 141, column 0 reaches beyond"),
        (Window(191, 0, 10, 10), "row 0, column 191 reaches beyond"),
        (Window(0, 0, 201, 150), "reaches beyond"),
        (Window(0.5, 0, 10, 10), "whole pixels"),
        (Window(0, 0, 0, 10), "whole pixels"),
    ],
)
def test_windows_that_are_not_in_the_image(
    scene: list[tuple[str, CogHeader, NDArray[Any]]], window: Window, said: str
) -> None:
    href, header, _ = scene[0]
    with pytest.raises(InputError, match=rf"^{href}: .*{said}.*\. Request "):
        BlockReader().read([BlockRequest(href, header, [window])])


def test_requests_that_cannot_be_met(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, _ = scene[0]
    wrong: dict[str, Any]
    for wrong, said in (
        ({"windows": [Window(0, 0, 4, 4), Window(0, 0, 5, 4)]}, "of one size"),
        ({"windows": [WHOLE], "bands": [1]}, "no bands"),
        ({"windows": [WHOLE], "bands": [-1]}, "no bands"),
        ({"windows": [WHOLE], "bands": []}, "no bands"),
        ({"windows": [WHOLE], "out": np.empty((1, 1, 4, 4), np.uint16)}, "cannot be read into"),
        ({"windows": [WHOLE], "out": np.empty((1, 1, HEIGHT, WIDTH), np.uint8)}, "cannot be read into"),
    ):
        with pytest.raises(InputError, match=said):
            BlockReader().read([BlockRequest(href, header, **wrong)])
    with pytest.raises(InputError, match="out of range"):
        BlockReader(threads=0)


def test_one_reader_serves_several_threads(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    reader = BlockReader(threads=2, cache_bytes=5 * 64 * 32 * 2)

    def read_one(number: int) -> bool:
        href, header, pixels = scene[number % 3]
        window = Window(number % 150, number % 100, 50, 50)
        (found,) = reader.read([BlockRequest(href, header, [window])])
        rows, columns = window.toslices()
        return bool((found[0] == pixels[:, rows, columns]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_one, range(200)))


def _read_whole(reader: BlockReader, href: str, header: CogHeader) -> NDArray[Any]:
    return reader.read([BlockRequest(href, header, [WHOLE])])[0][0]


def test_a_reader_that_was_used_works_in_another_process(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, pixels = scene[0]
    reader = BlockReader(threads=2)
    _read_whole(reader, href, header)
    fork = get_context("fork")
    with ProcessPoolExecutor(1, fork) as pool:  # which hands a pickled copy over
        assert_same(pool.submit(_read_whole, reader, href, header).result(), pixels)
    with ProcessPoolExecutor(1, fork, _inherit, (reader,)) as pool:
        assert_same(pool.submit(_read_inherited, href, header).result(), pixels)


_inherited: list[BlockReader] = []


def _inherit(reader: BlockReader) -> None:
    _inherited[:] = [reader]


def _read_inherited(href: str, header: CogHeader) -> NDArray[Any]:
    return _read_whole(_inherited[0], href, header)


def test_a_header_is_small(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    _, header, _ = scene[0]
    assert len(pickle.dumps(header)) < 1_000 + 16 * header.block_count


# --- files that are not as they were --------------------------------------------------------------


def test_a_file_that_was_replaced_is_refused(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, pixels = scene[0]
    Path(href).unlink()
    write(Path(href), pixels + np.uint16(1), compress="DEFLATE", predictor=2)
    said = rf"^{href}: changed after its header was read\. Read the header again"
    with pytest.raises(InputError, match=said):
        BlockReader().read([BlockRequest(href, header, [WHOLE])])


def test_a_replaced_file_that_rasterio_reads_is_refused(tmp_path: Path) -> None:
    strips: dict[str, Any] = {"tiled": False, "blockxsize": None, "blockysize": 16}
    href = write(tmp_path / "a.tif", ground(1, "uint8"), **strips)
    header = read_header(href)
    Path(href).unlink()
    write(tmp_path / "a.tif", ground(1, "uint8"), **strips)
    with pytest.raises(InputError, match=r"changed after its header was read\."):
        BlockReader().read([BlockRequest(href, header, [WHOLE])])


def test_a_file_that_is_gone(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    href, header, _ = scene[0]
    Path(href).unlink()
    with pytest.raises(InputError, match=rf"^{href}: file not found\. Check the href"):
        BlockReader().read([BlockRequest(href, header, [WHOLE])])
    with pytest.raises(InputError, match=rf"^{href}: file not found"):
        read_header(href)


def test_a_truncated_file(scene: list[tuple[str, CogHeader, NDArray[Any]]]) -> None:
    """The blocks that are whole are read."""
    href, _, pixels = scene[0]
    path = Path(href)
    path.write_bytes(path.read_bytes()[:-100])
    header = read_header(href)
    (found,) = BlockReader().read([BlockRequest(href, header, [Window(0, 0, 64, 32)])])
    assert_same(found[0], pixels[:, :32, :64])
    with pytest.raises(
        InputError,
        match=rf"^{href}: not a readable raster \(truncated: block {header.block_count - 1} ends .*again\.$",
    ):
        BlockReader().read([BlockRequest(href, header, [WHOLE])])


@pytest.mark.parametrize("compression", ["DEFLATE", "LZW", "ZSTD", "LZMA", "LERC", "WEBP", "PACKBITS"])
def test_a_corrupt_block_is_named(tmp_path: Path, compression: str) -> None:
    count = 3 if compression == "WEBP" else 1
    path = tmp_path / "a.tif"
    try:
        href = write(path, ground(count, "uint8"), compress=compression, interleave="pixel")
    except RasterioIOError:
        pytest.skip("GDAL cannot write it")
    header = read_header(href)
    data = bytearray(path.read_bytes())
    start, size = int(header.block_offsets[6]), int(header.block_byte_counts[6])
    data[start : start + size] = bytes([0x81]) * size
    path.write_bytes(data)
    header = read_header(href)
    BlockReader().read([BlockRequest(href, header, [Window(0, 0, 64, 32)])])
    with pytest.raises(
        InputError, match=rf"^{href}: not a readable raster \(block 6 is corrupt: .*\)\. Download it again\.$"
    ):
        BlockReader(threads=2).read([BlockRequest(href, header, [WHOLE])])


@pytest.mark.parametrize("keep", [0, 3, 8, 100, 200])
def test_a_damaged_header_is_called_not_a_raster(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.tif"
    href = write(path, ground(1, "uint8"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"^{href}: not a readable raster"):
        read_header(href)


def test_noise_in_a_header_ends_in_an_error_of_ours_or_in_pixels(tmp_path: Path) -> None:
    """Whatever is damaged, nothing but our errors comes, and no pixel that rasterio reads otherwise."""
    path = tmp_path / "a.tif"
    href = write(path, ground(1, "uint16"), compress="DEFLATE")
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in draw.integers(4, 420, 3):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            header = read_header(href)
            window = Window(0, 0, min(header.width, 64), min(header.height, 32))
            (found,) = BlockReader().read([BlockRequest(href, header, [window])])
        except (InputError, OSError):
            continue
        try:
            with rasterio.open(path) as source:
                expected = source.read(window=window)
        except RasterioIOError:
            continue
        assert_same(found[0], expected)
