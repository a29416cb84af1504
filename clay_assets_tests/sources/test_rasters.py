"""Reading rasters: pixels, masks, and how files that cannot be read are told apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.env import getenv
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.chips.quality import read_shares
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.sources.rasters import open_raster
from clay_assets_tests.chips.factories import write_tiff
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

TRANSFORM = from_origin(500_000, 100_000, 10, 10)
WHOLE = Window(0, 0, 32, 32)
COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
INFRARED = (*COLOURS, ColorInterp.undefined)  # GDAL's own guess of a fourth band of bytes is alpha
HALF = np.arange(32) >= 16  # valid columns


def write(
    path: Path,
    pixels: NDArray[Any],
    *,
    meaning: tuple[ColorInterp, ...] | None = None,
    mask: NDArray[np.bool_] | None = None,
    **profile: Any,
) -> str:
    """Write bands (band, row, column)."""
    count, height, width = pixels.shape
    profile |= {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", crs="EPSG:32632", transform=TRANSFORM, **profile) as sink,
    ):
        if meaning:
            sink.colorinterp = meaning
        sink.write(pixels)
        if mask is not None:
            sink.write_mask(mask)
    return str(path)


def noise(bands: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(bands).integers(1, 100, (bands, 32, 32)).astype(dtype)


# --- pixels ---------------------------------------------------------------------------------------


def test_pixels_of_one_band_of_some_and_of_all(tmp_path: Path) -> None:
    pixels = noise(3)
    with open_raster(write(tmp_path / "a.tif", pixels)) as source:
        assert source.shape == (32, 32)
        np.testing.assert_array_equal(source.read(2), pixels[1])
        np.testing.assert_array_equal(source.read([3, 1]), pixels[[2, 0]])
        np.testing.assert_array_equal(source.read(), pixels)
        np.testing.assert_array_equal(source.read(1, Window(4, 8, 10, 2)), pixels[0, 8:10, 4:14])
        into = np.zeros((2, 32, 32), np.uint8)
        assert source.read([1, 2], WHOLE, out=into) is into
        np.testing.assert_array_equal(into, pixels[:2])


def test_an_overview_is_read_in_place_of_the_pixels(tmp_path: Path) -> None:
    href = write(tmp_path / "a.tif", np.full((1, 32, 32), 7, np.uint8))
    with rasterio.open(href, "r+") as file:
        file.build_overviews([2, 4])
    for level, side in ((None, 32), (0, 16), (1, 8)):
        with open_raster(href, overview_level=level) as source:
            assert source.shape == (side, side)
            assert set(source.read(1).ravel()) == {7}


def test_the_cache_of_blocks_is_bounded_while_a_raster_is_open(tmp_path: Path) -> None:
    """GDAL's own would grow with the machine's memory; a number of bytes, not of megabytes."""
    path = write_tiff(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), from_origin(0, 0, 1, 1), "EPSG:32632")
    with open_raster(str(path)):
        assert getenv()["GDAL_CACHEMAX"] == 128 << 20


# --- masks ----------------------------------------------------------------------------------------


def alpha(dtype: Any) -> NDArray[Any]:
    """Colours, black where the alpha band says that there are none."""
    opaque = np.where(np.broadcast_to(HALF, (1, 32, 32)), np.iinfo(dtype).max, 0)
    return np.concatenate([np.where(opaque, noise(3), 0), opaque]).astype(dtype)


def holes(bands: int, *values: int) -> NDArray[Any]:
    """Bands in which a value is where there is no data."""
    pixels = noise(bands, np.int16)
    for band, value in enumerate(values):
        pixels[band, :, ~HALF] = value
    return pixels


MASKED: dict[str, dict[str, Any]] = {
    "alpha among four bands": {"pixels": alpha(np.uint8), "meaning": (*COLOURS, ColorInterp.alpha)},
    "alpha of 16 bits": {"pixels": alpha(np.uint16), "meaning": (*COLOURS, ColorInterp.alpha)},
    "alpha of signed 16 bits": {"pixels": alpha(np.int16), "meaning": (*COLOURS, ColorInterp.alpha)},
    "alpha among five bands": {
        "pixels": np.concatenate([alpha(np.uint8), noise(1)]),
        "meaning": (*COLOURS, ColorInterp.alpha, ColorInterp.undefined),
    },
    "alpha beside a tag": {"pixels": alpha(np.uint8), "meaning": (*COLOURS, ColorInterp.alpha), "nodata": 50},
    "tag of one band": {"pixels": holes(1, -9999), "nodata": -9999},
    "tag, no data in all bands": {"pixels": holes(3, -9999, -9999, -9999), "nodata": -9999},
    "tag beside near infrared": {"pixels": holes(4, 0, 0, 0, 0), "meaning": INFRARED, "nodata": 0},
    "mask in the file": {"pixels": noise(3), "mask": np.broadcast_to(HALF, (32, 32))},
    "mask beside near infrared": {"pixels": noise(4), "meaning": INFRARED, "mask": np.broadcast_to(HALF, (32, 32))},
}


@pytest.mark.parametrize("kind", MASKED)
def test_what_is_valid_is_told_by_alpha_mask_or_tag(tmp_path: Path, kind: str) -> None:
    with open_raster(write(tmp_path / "a.tif", **MASKED[kind])) as source:
        assert source.has_mask
        whole = source.read_mask(WHOLE)
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(whole, np.where(np.broadcast_to(HALF, (32, 32)), 255, 0))
        np.testing.assert_array_equal(source.read_mask(Window(12, 3, 8, 5)), whole[3:8, 12:20])


def test_a_pixel_is_valid_where_one_band_is(tmp_path: Path) -> None:
    with open_raster(write(tmp_path / "a.tif", holes(3, -9999, -9999), nodata=-9999)) as source:
        assert (source.read_mask(WHOLE) == 255).all()


def test_half_transparent_is_valid(tmp_path: Path) -> None:
    pixels = alpha(np.uint8)
    pixels[3, :, HALF] = 1
    with open_raster(write(tmp_path / "a.tif", pixels, meaning=(*COLOURS, ColorInterp.alpha))) as source:
        np.testing.assert_array_equal(source.read_mask(WHOLE), np.broadcast_to(HALF, (32, 32)))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_file_that_says_nothing_is_valid_everywhere_and_not_read(tmp_path: Path, bands: int) -> None:
    meaning = INFRARED if bands == 4 else None
    path = Path(write(tmp_path / "a.tif", np.zeros((bands, 32, 32), np.uint8), meaning=meaning))
    with open_raster(str(path)) as source:
        path.write_bytes(b"")  # so that a read would fail
        assert not source.has_mask
        assert source.read_mask(Window(0, 0, 5, 3)).tolist() == [[255] * 5] * 3


# --- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LC08_L2SP_20200404_QA_PIXEL.TIF", "S2A_20200403.tif", "S2A_20200401.tif"])
def test_a_damaged_file_is_called_damaged_whatever_its_date(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"II*\x00 and then nothing")
    with (
        pytest.raises(InputError, match=rf"^{tmp_path}/{name}: not a readable raster .*\. Download it again"),
        open_raster(str(tmp_path / name)),
    ):
        pass


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "file"])
def test_a_file_that_is_not_there_is_called_absent(tmp_path: Path, as_url: bool) -> None:
    href = (tmp_path / "B04.tif").as_uri() if as_url else str(tmp_path / "B04.tif")
    with pytest.raises(InputError, match=rf"^{href}: file not found\. Check the href"), open_raster(href):
        pass


@pytest.mark.parametrize("name", ["scene_0404.tif", "scene_0403.tif"])
def test_a_damaged_file_on_the_web_may_be_read_another_time(
    tmp_path: Path, file_server: Callable[[Path], FileServer], name: str
) -> None:
    (tmp_path / name).write_bytes(b"II*\x00 and then nothing")
    href = f"{file_server(tmp_path).url}/{name}"
    with pytest.raises(SourceError, match=rf"^{href}: could not be read .* Run again"), open_raster(href):
        pass


def large(path: Path, seed: int) -> Path:
    """A raster that is not read whole when it is opened."""
    pixels = np.random.default_rng(seed).random((256, 256), np.float32)
    return write_tiff(path, pixels, TRANSFORM, "EPSG:32632", tiled=True, blockxsize=64, blockysize=64)


@pytest.mark.parametrize("broken", ["vv", "vh"])
def test_of_two_open_files_the_one_that_breaks_is_named(tmp_path: Path, broken: str) -> None:
    paths = {name: large(tmp_path / f"{name}.tif", seed) for seed, name in enumerate(("vv", "vh"))}
    paths[broken].write_bytes(paths[broken].read_bytes()[:5_000])
    with ExitStack() as stack:
        sources = {name: stack.enter_context(open_raster(str(path))) for name, path in paths.items()}
        for name, source in sources.items():
            if name != broken:
                source.read(1)
                continue
            with pytest.raises(InputError, match=rf"^{paths[broken]}: not a readable raster .*Download it again"):
                source.read(1)


@pytest.mark.parametrize("broken", ["vv", "vh"])
def test_of_two_open_files_on_the_web_the_one_that_breaks_is_named(
    tmp_path: Path,
    file_server: Callable[[Path], FileServer],
    fault_proxy: Callable[[str], FaultProxy],
    broken: str,
) -> None:
    for seed, name in enumerate(("vv", "vh")):
        large(tmp_path / f"{name}.tif", seed)
    proxy = fault_proxy(file_server(tmp_path).url)
    hrefs = {name: f"{proxy.url}/{name}.tif" for name in ("vv", "vh")}
    with open_raster(hrefs["vv"]) as first, open_raster(hrefs["vh"]) as second:
        proxy.answer(404, times=None, path=broken)
        sources = {"vv": first, "vh": second}
        with pytest.raises((InputError, SourceError), match=rf"^{hrefs[broken]}: "):
            sources.pop(broken).read(1)
        (whole,) = sources.values()
        whole.read(1)


def test_of_the_files_of_a_scene_the_one_that_is_damaged_is_named(tmp_path: Path) -> None:
    for broken, whole in (("vv", "vh"), ("vh", "vv")):
        folder = tmp_path / broken
        for name in (broken, whole):
            write_tiff(folder / f"{name}.tif", np.ones((256, 256), np.float32), TRANSFORM, "EPSG:32632", nodata=0)
        content = (folder / f"{broken}.tif").read_bytes()
        (folder / f"{broken}.tif").write_bytes(content[:5_000])
        assets = {name: {"href": str(folder / f"{name}.tif")} for name in ("vv", "vh")}
        item = {"id": "S1A", "properties": {}, "assets": assets}
        with pytest.raises(InputError, match=rf"^{folder}/{broken}\.tif: not a readable raster"):
            read_shares(PLATFORMS["sentinel-1-rtc"], item, 256)


def test_a_mask_that_cannot_be_read_is_told_by_its_file(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((256, 256)) < 0.5
    path = Path(write(tmp_path / "a.tif", np.ones((1, 256, 256), np.uint8), mask=mask, compress="deflate"))
    with open_raster(str(path)) as source:
        assert source.has_mask
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(InputError, match=rf"^{path}: not a readable raster"):
            source.read_mask(Window(0, 0, 256, 256))
