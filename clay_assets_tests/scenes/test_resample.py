"""Pixels on the new grid: position, validity and value. All tested through `derive_scene`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Derivation
from clay_assets.scenes.derived import Derived, derive_scene
from clay_assets.scenes.resample import STRIP_PIXELS
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.scenes.images import (
    AERIAL,
    COLOURS,
    FILL,
    LEFT,
    NZTM,
    RGBA,
    SIN_TILE,
    SINUSOIDAL,
    TILES,
    TOP,
    item,
    toy,
    write_image,
    write_tile,
)


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pixels of a strip, a quarter of what they are, so that images of several strips are small too."""
    pixels = STRIP_PIXELS // 4
    monkeypatch.setattr("clay_assets.scenes.resample.STRIP_PIXELS", pixels)
    return pixels


def derive(tmp_path: Path, platform: AnyPlatform, hrefs: dict[str, str], gsd: float = 0.3) -> Derived:
    options = platform.rules.options(imagery="derived", gsd=gsd)
    return derive_scene(platform, options, LocalStore(tmp_path / "store"), item(hrefs))


def aerial(tmp_path: Path, pixels: NDArray[Any], size: float, **fields: Any) -> tuple[Derived, Any, Any]:
    """Resample an aerial image: the scene, its colours, and its mask."""
    derived = derive(tmp_path, AERIAL, {"visual": write_image(tmp_path / "sheet.tif", pixels, size, **fields)})
    with rasterio.open(derived.item["assets"]["visual"]["href"]) as made:
        assert made.nodata is None
        assert made.crs.to_epsg() == 2193
        assert (made.transform.c, made.transform.f) == (LEFT, TOP)
        return derived, made.read(), made.dataset_mask()


def random_colours(height: int, width: int, bands: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(1, 255, (bands, height, width), np.uint8)


def with_alpha(colours: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Colours and alpha, black where alpha is 0."""
    opaque = np.iinfo(colours.dtype).max
    return np.concatenate([np.where(valid, colours, 0), np.where(valid, opaque, 0)[None]]).astype(colours.dtype)


# --- the CRS of the source --------------------------------------------------------------------------


def test_flat_patches_keep_their_colours(tmp_path: Path) -> None:
    patches = random_colours(20, 30)
    pixels = patches.repeat(30, 1).repeat(30, 2)  # 3 m
    _, made, mask = aerial(tmp_path, pixels, 0.1, meaning=COLOURS)
    assert made.shape == (3, 200, 300)
    assert (mask == 255).all()
    inner = np.ix_(
        np.arange(3), *(np.flatnonzero((np.arange(n) % 10 > 0) & (np.arange(n) % 10 < 9)) for n in (200, 300))
    )
    assert (made[inner] == patches.repeat(10, 1).repeat(10, 2)[inner]).all()


@pytest.mark.slow
def test_colours_are_means_of_valid_pixels_weighted_by_distance(tmp_path: Path, small_strips: int) -> None:
    rows, columns, ratio = 3600, 600, 3
    assert small_strips < rows * columns < 2 * small_strips  # two strips
    colours = random_colours(rows, columns)
    valid = np.random.default_rng(8).random((rows, columns)) < 0.7
    _, made, mask = aerial(tmp_path, with_alpha(colours, valid), 0.1, meaning=RGBA)
    # A triangle two new pixels wide: bilinear interpolation stretched to the new grid.
    reach = np.arange(-3, 6)
    weights = np.clip(1 - np.abs(reach + 0.5 - 1.5) / ratio, 0, None)
    padded = np.pad(np.where(valid, colours, 0).astype(float), ((0, 0), (3, 3), (3, 3)))
    there = np.pad(valid.astype(float), 3)
    centres = [np.arange(length // ratio) * ratio for length in (rows, columns)]

    def blur(values: NDArray[Any]) -> NDArray[Any]:
        down = sum(w * values[..., centres[0] + 3 + at, :] for w, at in zip(weights, reach, strict=True))
        across: NDArray[Any] = sum(w * down[..., centres[1] + 3 + at] for w, at in zip(weights, reach, strict=True))
        return across

    wanted = blur(padded) / blur(there)
    nearest = valid[1::3, 1::3]
    assert ((mask == 255) == nearest).all()
    assert np.abs(made - wanted)[:, nearest].max() <= 0.51  # rounded to integers
    assert (made[:, ~nearest] == 0).all()


def test_black_of_masked_pixels_does_not_bleed(tmp_path: Path) -> None:
    valid = np.ones((300, 420), bool)
    valid[:90] = False
    valid[:, 300:] = False
    valid[130:133, 100] = False
    _, made, mask = aerial(tmp_path, with_alpha(np.full((3, 300, 420), 200, np.uint8), valid), 0.1, meaning=RGBA)
    wanted = np.zeros((100, 140), bool)
    wanted[30:, :100] = True  # edges that fall on new pixels are kept
    wanted[43, 33] = False  # rows 129-131, columns 99-101, and the middle one is masked
    assert ((mask == 255) == wanted).all()
    assert set(np.unique(made[:, wanted])) == {200}
    assert set(np.unique(made[:, ~wanted])) == {0}


@pytest.mark.parametrize(
    ("size", "shape", "wanted"),
    [
        (0.125, (1000, 501), (416, 208)),  # 416.67, 208.75
        (0.075, (400, 403), (100, 100)),
        (0.1, (4800, 7), (1600, 2)),  # 0.1 and 0.3 are not exact in binary
        (0.2, (1, 1), (1, 1)),  # less than one pixel
        (0.29, (300, 3), (290, 2)),
    ],
)
def test_as_many_pixels_as_the_source_covers(
    tmp_path: Path, size: float, shape: tuple[int, int], wanted: tuple[int, int]
) -> None:
    derived, made, _ = aerial(tmp_path, random_colours(*shape), size)
    assert made.shape == (3, *wanted)
    assert derived.item["properties"]["proj:shape"] == list(wanted)
    assert derived.item["properties"]["proj:transform"] == pytest.approx([0.3, 0, LEFT, 0, -0.3, TOP], abs=1e-9)
    assert derived.note is None


@pytest.mark.parametrize(
    ("size", "note"), [(0.3, None), (0.3 * (1 + 1e-8), None), (0.4, "kept at 0.4 m, coarser than 0.3 m")]
)
def test_what_is_as_coarse_or_coarser_keeps_its_pixels(tmp_path: Path, size: float, note: str | None) -> None:
    colours = random_colours(300, 200)
    valid = np.random.default_rng(8).random((300, 200)) < 0.7
    derived, made, mask = aerial(tmp_path, with_alpha(colours, valid), size, meaning=RGBA)
    assert (made == np.where(valid, colours, 0)).all()
    assert ((mask == 255) == valid).all()
    assert derived.note == note
    assert derived.item["properties"]["gsd"] == size


# --- masks ------------------------------------------------------------------------------------------


def bordered(value: int, bands: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Colours with a border of one value, and the valid mask on the new grid with a third of the pixels."""
    pixels = np.full((bands, 150, 150), 90, np.uint8)
    pixels[:, :30] = value
    pixels[:, :, 120:] = value
    valid = np.ones((50, 50), bool)
    valid[:10] = valid[:, 40:] = False
    return pixels, valid


def test_without_alpha_black_is_not_valid(tmp_path: Path) -> None:
    pixels, valid = bordered(0)
    pixels[:2, 60:63, 60:63] = 0  # deep blue is a colour
    _, made, mask = aerial(tmp_path, pixels, 0.1, meaning=COLOURS)
    assert ((mask == 255) == valid).all()
    assert (made[:, ~valid] == 0).all()
    assert (made[2][valid] == 90).all()


def test_a_nodata_value_becomes_the_mask(tmp_path: Path) -> None:
    pixels, valid = bordered(255)
    pixels[:, 60:90, 60:90] = 0  # black is a colour here
    _, made, mask = aerial(tmp_path, pixels, 0.1, meaning=COLOURS, nodata=255)
    assert ((mask == 255) == valid).all()
    assert made[:, valid].max() == 90
    assert (made[:, 22:28, 22:28] == 0).all()


def test_a_mask_of_the_file_stays(tmp_path: Path) -> None:
    pixels, valid = bordered(17)
    _, made, mask = aerial(tmp_path, pixels, 0.1, mask=valid.repeat(3, 0).repeat(3, 1))
    assert ((mask == 255) == valid).all()
    assert set(np.unique(made[:, valid])) == {90}


def test_alpha_counts_more_than_a_nodata_value(tmp_path: Path) -> None:
    pixels, valid = bordered(17)
    rgba = with_alpha(pixels, valid.repeat(3, 0).repeat(3, 1))
    rgba[:3, 60:90, 60:90] = 0
    _, _, mask = aerial(tmp_path, rgba, 0.1, meaning=RGBA, nodata=0)
    assert ((mask == 255) == valid).all()


def test_of_four_colours_three_are_kept(tmp_path: Path) -> None:
    pixels, valid = bordered(0, bands=4)
    pixels[3] = np.where(pixels[3] == 0, 0, 40)
    pixels[:3, 60:90, 60:90] = 0  # dark except in near infrared
    _, made, mask = aerial(tmp_path, pixels, 0.1, meaning=(*COLOURS, ColorInterp.undefined))
    assert made.shape == (3, 50, 50)
    assert ((mask == 255) == valid).all()
    assert (made[:, 22:28, 22:28] == 0).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_sixteen_bits(tmp_path: Path, dtype: Any) -> None:
    pixels, valid = bordered(0)
    rgba = with_alpha(pixels.astype(dtype) * 300, valid.repeat(3, 0).repeat(3, 1))
    _, made, mask = aerial(tmp_path, rgba, 0.1, meaning=RGBA)
    assert made.dtype == dtype
    assert ((mask == 255) == valid).all()
    assert set(np.unique(made[:, valid])) == {27000}


# --- another CRS ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_pixel_is_the_one_that_lies_there(tmp_path: Path, small_strips: int) -> None:
    # Two tiles, one below the other: more than one strip.
    size, rows, columns = 1200, 2400, 1200
    assert rows * columns > small_strips
    number = np.arange(rows * columns, dtype=np.uint32).reshape(rows, columns)
    red = (number % 40_000).astype(np.int32).astype(np.int16)
    red[::7, ::5] = FILL
    red[::7, 1::5] = 0
    qc = number + np.uint32(2**32 - 1 - number.max())  # up to the fill value itself
    state = (number % 65_536).astype(np.uint16)
    sources = {"red": red, "qc": qc, "state": state}
    hrefs = {name: write_tile(tmp_path / f"{name}.tif", pixels, 12, 2) for name, pixels in sources.items()}
    derived = derive(tmp_path, TILES, hrefs)
    made = {}
    for name, asset in derived.item["assets"].items():
        with rasterio.open(asset["href"]) as file:
            made[name] = file.read(1)
            placed, crs, nodata = file.transform, file.crs, file.nodata
            assert file.dtypes == (sources[name].dtype.name,)
            assert nodata == {"red": FILL, "qc": 2**32 - 1, "state": 65535}[name]
    assert crs.to_epsg() == 3857
    assert list(placed)[:6] == derived.item["properties"]["proj:transform"]
    height, width = made["red"].shape
    assert np.hypot(height, width) == pytest.approx(np.hypot(rows, columns), rel=1e-3)
    # Independent computation: where each new pixel's centre lies in the source.
    x, y = np.meshgrid(placed.c + (np.arange(width) + 0.5) * placed.a, placed.f + (np.arange(height) + 0.5) * placed.e)
    east, north = pyproj.Transformer.from_crs(3857, SINUSOIDAL, always_xy=True).transform(x, y)
    column, row = (east + 6 * SIN_TILE) / (SIN_TILE / size), (7 * SIN_TILE - north) / (SIN_TILE / size)
    sure = (np.abs(column - np.round(column)) > 1e-3) & (np.abs(row - np.round(row)) > 1e-3)
    inside = (column > 0) & (column < columns) & (row > 0) & (row < rows)
    at = tuple(np.where(inside, np.floor(axis), 0).astype(int) for axis in (row, column))
    assert 0.2 < inside.mean() < 0.9
    assert sure.mean() > 0.99
    for name, fill in (("red", FILL), ("qc", 2**32 - 1), ("state", 65535)):
        wanted = np.where(inside, sources[name][at], np.array(fill, sources[name].dtype))
        assert (made[name] == wanted)[sure].all(), name


def test_a_pixel_size_may_be_asked_for_in_another_crs(tmp_path: Path) -> None:
    platform = toy("red", derivation=Derivation(crs="EPSG:3857", gsd=lambda options: options.gsd, fill={"red": -1}))
    hrefs = {"red": write_tile(tmp_path / "red.tif", np.full((240, 240), 5, np.int16))}  # 4,633 m
    coarse = derive(tmp_path, platform, hrefs, 10_000)
    assert coarse.item["properties"]["proj:transform"][0] == 10_000
    assert coarse.note is None
    fine = derive(tmp_path, platform, hrefs, 1_000)
    kept = fine.item["properties"]["proj:transform"][0]
    assert 4_500 < kept < 5_500
    assert fine.note == f"kept at {kept:g} m, coarser than 1000 m"


@pytest.mark.parametrize(("horizontal", "vertical"), [(17, 0), (18, 17), (35, 8), (0, 8)])
def test_poles_and_the_antimeridian_have_no_place_in_mercator(tmp_path: Path, horizontal: int, vertical: int) -> None:
    hrefs = {"red": write_tile(tmp_path / "red.tif", np.ones((240, 240), np.int16), horizontal, vertical)}
    hrefs["qc"] = hrefs["red"]
    with pytest.raises(InputError, match=r"a, asset red: .*red.tif: cannot be reprojected to EPSG:3857.* a pole"):
        derive(tmp_path, TILES, hrefs)


# --- what cannot be resampled -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bands", "fields", "message"),
    [
        (3, {"crs": None}, "no CRS in the file"),
        (3, {"down": 0.1}, "not north up"),
        (3, {"crs": "EPSG:4326", "left": 170.0, "top": -40.0}, "is not a projected CRS in metres"),
        (3, {"crs": "EPSG:2263"}, "is not a projected CRS in metres"),  # feet
        (1, {}, "1 bands besides alpha, expected 3"),
        (3, {"meaning": (ColorInterp.red, ColorInterp.green, ColorInterp.alpha)}, "2 bands besides alpha, expected 3"),
    ],
)
def test_sources_that_cannot_be_resampled(tmp_path: Path, bands: int, fields: dict[str, Any], message: str) -> None:
    href = write_image(tmp_path / "sheet.tif", random_colours(30, 30, bands), 0.1, **fields)
    with pytest.raises(InputError, match=rf"a, asset visual: .*sheet\.tif: .*{message}"):
        derive(tmp_path, AERIAL, {"visual": href})


def test_a_place_that_no_other_crs_knows(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    red = write_image(tmp_path / "red.tif", np.ones((1, 30, 30), np.int16), 10, crs=local)
    with pytest.raises(InputError, match=r"asset red: .*red.tif: cannot be reprojected to EPSG:3857"):
        derive(tmp_path, TILES, {"red": red, "qc": red})


def test_a_type_without_the_fill_value(tmp_path: Path) -> None:
    red = write_tile(tmp_path / "red.tif", np.ones((240, 240), np.uint8))
    with pytest.raises(InputError, match="dtype uint8 cannot hold the fill value -28672"):
        derive(tmp_path, TILES, {"red": red, "qc": red})


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_are_cloud_optimized(tmp_path: Path) -> None:
    colours = random_colours(1500, 1300)
    valid = np.ones((1500, 1300), bool)
    valid[:, 1000:] = False
    derived, _, _ = aerial(tmp_path, with_alpha(colours, valid), 0.3, meaning=RGBA)
    path = derived.item["assets"]["visual"]["href"]
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as made:
        assert made.block_shapes == [(512, 512)] * 3
        assert made.colorinterp == COLOURS
        assert made.overviews(1) == [2, 4]
        assert made.profile["compress"] == "deflate"
    with rasterio.open(path, overview_level=0) as overview:
        valid_there = overview.dataset_mask() == 255
        assert valid_there[:, :500].all()
        assert not valid_there[:, 501:].any()  # in GDAL's overviews a pixel is valid if any pixel under it is
        assert (overview.read()[:, valid_there] > 0).all()  # masked black is not blended in


@pytest.mark.slow
def test_overviews_of_codes_are_codes(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).choice(np.array([1, 2**30, 2**31 + 5], np.uint32), (1300, 1300))
    hrefs = {"red": write_tile(tmp_path / "red.tif", np.ones((1300, 1300), np.int16))}
    hrefs["qc"] = write_tile(tmp_path / "qc.tif", codes)
    path = derive(tmp_path, TILES, hrefs).item["assets"]["qc"]["href"]
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path, overview_level=0) as overview:
        assert set(np.unique(overview.read())) == {*np.unique(codes), 2**32 - 1}


def test_scale_and_offset_stay(tmp_path: Path) -> None:
    platform = toy("red", derivation=Derivation(crs="EPSG:3857"))
    red = write_tile(tmp_path / "red.tif", np.ones((240, 240), np.int16))
    with rasterio.open(red, "r+") as file:
        file.scales, file.offsets = [0.0001], [-0.5]
    with rasterio.open(derive(tmp_path, platform, {"red": red}).item["assets"]["red"]["href"]) as made:
        assert made.nodata is None
        assert set(np.unique(made.read())) == {0, 1}  # 0 marks pixels without source data, as no fill value is set
        assert (made.scales, made.offsets) == ((0.0001,), (-0.5,))


WHOLE_SHEET = """
import re, sys
from pathlib import Path
from clay_assets.scenes.derived import derive_scene
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.scenes.images import AERIAL, ToyOptions, item
derived = derive_scene(AERIAL, ToyOptions(), LocalStore(sys.argv[1]), item({"visual": sys.argv[2]}))
print(derived.item["properties"]["proj:shape"])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the most memory held is told by Linux")
def test_memory_does_not_grow_with_the_sheet(tmp_path: Path) -> None:
    height, width = 12_000, 14_400  # more than half of a sheet at 0.05 m: 0.7 GB of pixels
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 4, "height": height, "width": width, "crs": NZTM}
    profile |= {"transform": Affine(0.05, 0, LEFT, 0, -0.05, TOP), "photometric": "RGB", "alpha": "yes"}
    path = tmp_path / "sheet.tif"
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=512, blockysize=512, sparse_ok=True):
        pass
    made = subprocess.run(
        [sys.executable, "-c", WHOLE_SHEET, str(tmp_path), str(path)], capture_output=True, text=True, check=True
    )
    shape, kilobytes = made.stdout.splitlines()
    assert shape == "[2000, 2400]"
    assert int(kilobytes) < 600_000
