"""Scenes classified by their file's mask (NAIP) or by invalid values (Sentinel-1): expected shares are computed from
the pixels that were written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pystac
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.transform import from_origin

from clay_assets.chips.contact_sheet import read_sheet
from clay_assets.chips.index import counts_of, index_scene
from clay_assets.chips.indexing import index_scenes
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.scenes.copies import copy_scene
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import write_tiff

NAIP, S1 = "naip", "sentinel-1-rtc"
ROWS, COLUMNS = 2, 3  # whole chips of a synthetic scene
HEIGHT, WIDTH = ROWS * 256 + 88, COLUMNS * 256 + 32
LEFT, TOP, EPSG = 601_135, 3_430_446, 26916  # zone 16 of NAD83, as in the real image
SIDE = 256
INVALID = [[0, 1, SIDE * SIDE], [700, SIDE * SIDE // 2, SIDE * SIDE // 2 + 1]]  # nodata pixels of each chip
RGBN = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def valid_pixels() -> NDArray[Any]:
    """A mask that is 0 for `INVALID` pixels of each chip and for the partial edges."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for y, x in np.ndindex(ROWS, COLUMNS):
        chip = np.full(SIDE * SIDE, 255, np.uint8)
        chip[: INVALID[y][x]] = 0
        mask[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = chip.reshape(SIDE, SIDE)
    return mask


def image(
    path: Path, bands: NDArray[Any], colours: Sequence[ColorInterp], mask: NDArray[Any] | None = None, **layout: Any
) -> Path:
    """An aerial image; `mask` is written as an internal mask."""
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": bands.dtype, **layout}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            **{"photometric": "rgb", "alpha": "no", "tiled": True, **profile},
            crs=f"EPSG:{EPSG}",
            transform=from_origin(LEFT, TOP, 1, 1),
        ) as sink,
    ):
        sink.colorinterp = colours  # before the pixels, since TIFF stores it in the header
        sink.write(bands)
        if mask is not None:
            sink.write_mask(mask)
    return path


def colours_of(seed: int = 0, count: int = 4) -> NDArray[Any]:
    """Bands with some zeros in each, but never in all bands of a pixel."""
    bands = np.random.default_rng(seed).integers(0, 255, (count, HEIGHT, WIDTH), dtype=np.uint8)
    bands[count - 1][(bands == 0).all(axis=0)] = 1
    return bands


def named(*names: Any) -> dict[str, Any]:
    """A band list as in the Planetary Computer."""
    return {"eo:bands": [{"name": name, "common_name": name.lower()} for name in names]}


def naip_item(
    path: Path, shape: tuple[Any, ...] = (HEIGHT, WIDTH), bands: Any = None, **properties: Any
) -> pystac.Item:
    """An item as in the Planetary Computer, except for its band list."""
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": "al_m_3008501_ne_16_1_20110815_20111017",
            "geometry": {"type": "Point", "coordinates": [-85.9, 31.0]},
            "bbox": [-85.9, 31.0, -85.9, 31.0],
            "properties": {
                "datetime": "2011-08-15T00:00:00Z",
                "proj:epsg": EPSG,
                "proj:shape": list(shape),
                "proj:transform": [1.0, 0.0, LEFT, 0.0, -1.0, TOP, 0.0, 0.0, 1.0],
                **properties,
            },
            "links": [],
            "assets": {"image": {"href": str(path), **(bands or {})}},
        }
    )


def every_chip(item: pystac.Item, platform: Any = NAIP, **options: Any) -> pa.Table:
    return index_scene(item, platform, options=PLATFORMS[platform].rules.options(max_chip_nodata=1), **options)


def with_alpha(path: Path) -> Path:
    return image(path, np.concatenate([colours_of()[:3], valid_pixels()[None]]), RGBA, alpha="yes")


def with_near_infrared_and_alpha(path: Path) -> Path:
    bands = np.concatenate([colours_of(), valid_pixels()[None]])
    return image(path, bands, (*RGBN, ColorInterp.alpha))


def with_nodata_tag(path: Path) -> Path:
    return image(path, np.where(valid_pixels(), colours_of(), 0).astype(np.uint8), RGBN, nodata=0)


def with_internal_mask(path: Path) -> Path:
    return image(path, colours_of(), RGBN, mask=valid_pixels())


def with_alpha_and_nodata_tag(path: Path) -> Path:
    """Alpha takes precedence over the tag, which applies to all bands."""
    bands = np.concatenate([colours_of()[:3], valid_pixels()[None]])
    return image(path, bands, RGBA, alpha="yes", nodata=255)


@pytest.mark.parametrize(
    "make", [with_alpha, with_alpha_and_nodata_tag, with_near_infrared_and_alpha, with_nodata_tag, with_internal_mask]
)
def test_nodata_is_what_the_file_s_mask_says(tmp_path: Path, make: Any) -> None:
    bands = named("Red", "Green", "Blue") if make in (with_alpha, with_alpha_and_nodata_tag) else None
    table = every_chip(naip_item(make(tmp_path / "m.tif"), bands=bands))
    assert [name.rpartition("_")[2] for name in table["chipid"].to_pylist()] == [
        f"20111017-{x}-{y}" for y in range(ROWS) for x in range(COLUMNS)
    ]
    shares = [count / SIDE**2 for row in INVALID for count in row]
    np.testing.assert_array_equal(table["nodata_percentage"].to_numpy(), np.array(shares, np.float32))
    assert set(table["cloud_cover_percentage"].to_pylist()) == {0.0}


def test_chips_with_more_than_half_nodata_are_left_out(tmp_path: Path) -> None:
    table = index_scene(naip_item(with_alpha(tmp_path / "m.tif"), bands=named("Red", "Green", "Blue")), NAIP)
    assert counts_of(table) == (6, 2, 4)
    assert table["nodata_percentage"].to_pylist() == [0.0, 1 / 65536, np.float32(700 / 65536), 0.5]


def test_black_pixels_of_an_image_without_mask_are_data(tmp_path: Path) -> None:
    path = image(tmp_path / "m.tif", np.zeros((4, HEIGHT, WIDTH), np.uint8), RGBN)
    with rasterio.open(path) as source:  # near infrared is not alpha
        assert all(MaskFlags.all_valid in flags for flags in source.mask_flag_enums)
    assert every_chip(naip_item(path))["nodata_percentage"].to_pylist() == [0.0] * 6


# --- near infrared declared as alpha --------------------------------------------------------


NIR = named("Red", "Green", "Blue", "NIR")
OF_STAC_1_1 = {"bands": [{"name": band, "eo:common_name": band} for band in ("red", "green", "blue", "nir")]}
UNNAMED = {"bands": [{"data_type": "uint8"}] * 4}


@pytest.mark.parametrize(
    ("bands", "properties"),
    [
        pytest.param(None, {}, id="no list"),
        pytest.param(NIR, {}, id="eo:bands of the asset"),
        pytest.param(OF_STAC_1_1, {}, id="bands of the asset"),
        pytest.param(None, NIR, id="eo:bands of the item"),
        pytest.param({"eo:bands": [0, 1, 2, 3]}, NIR, id="numbers"),
        pytest.param(UNNAMED, {}, id="bands without names"),
        pytest.param({"eo:bands": [], **OF_STAC_1_1}, {}, id="empty list beside a full one"),
    ],
)
def test_near_infrared_is_no_alpha_whatever_the_file_says(tmp_path: Path, bands: Any, properties: Any) -> None:
    path = with_alpha(tmp_path / "m.tif")  # dark over water, as many pixels as in `INVALID`
    table = every_chip(naip_item(path, bands=bands, **properties))
    assert table["nodata_percentage"].to_pylist() == [0.0] * 6


@pytest.mark.parametrize("imagery", ["reference", "copy"])
def test_the_contact_sheet_and_copies_agree_with_the_index(tmp_path: Path, imagery: str) -> None:
    recipe, store = load_recipe("clay_v1"), LocalStore(tmp_path / "store")
    item = naip_item(with_alpha(tmp_path / "m.tif"), bands=NIR).to_dict()
    item["geometry"] = {"type": "Point", "coordinates": [-85.9, 31.0]}
    if imagery == "copy":
        platform = PLATFORMS[NAIP]
        item = copy_scene(platform, platform.rules.options(imagery="copy"), store, item).item
        (tmp_path / "m.tif").unlink()
    with ThreadPoolExecutor(1) as pool:
        cell = index_scenes(NAIP, 2011, [item], store, recipe, pool, 1)
    assert cell.ledger["chips"].tolist() == [6]
    sheet = read_sheet(cell, [item], recipe.seed, recipe.chip_size)
    assert sheet is not None
    assert not sheet.note
    valid = [frame.valid is not None and bool(frame.valid.all()) for frame in sheet.frames]
    assert ([frame.nodata for frame in sheet.frames], valid) == ([0] * 6, [True] * 6)


def test_an_index_of_before_is_kept_where_nothing_was_nodata(tmp_path: Path) -> None:
    """What an older version treated as nodata may be near infrared; without any nodata, its index is still right."""
    recipe, store = load_recipe("clay_v1"), LocalStore(tmp_path / "store")
    files = with_alpha(tmp_path / "dark.tif"), image(tmp_path / "light.tif", colours_of(), RGBN)
    items = [{**naip_item(path, bands=NIR).to_dict(), "id": path.stem} for path in files]
    former = replace(PLATFORMS[NAIP], version="1", quality=replace(PLATFORMS[NAIP].quality, measured=0))
    for item in items:
        item["assets"]["image"].pop("eo:bands")  # that version ignored it
    chips = []
    for platform in (former, PLATFORMS[NAIP]):
        with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patch:
            patch.setitem(PLATFORMS, NAIP, platform)
            cell = index_scenes(NAIP, 2011, items, store, recipe, pool, 1)
        chips.append((cell.kept, cell.ledger.set_index("item_id")["chips"].to_dict()))
    assert chips == [(0, {"dark": 4, "light": 6}), (1, {"dark": 6, "light": 6})]


@pytest.mark.parametrize("names", [("Red", "Green", "Blue"), ("Red", "Green", "Blue", "Alpha")])
def test_alpha_is_alpha_where_the_item_names_no_fourth_band(
    tmp_path: Path, names: tuple[str, str, str, str] | tuple[str, str, str]
) -> None:
    table = every_chip(naip_item(with_alpha(tmp_path / "m.tif"), bands=named(*names)))
    assert table["nodata_percentage"][2].as_py() == 1.0


@pytest.mark.parametrize("bands", [None, NIR])
def test_a_mask_counts_beside_near_infrared_that_is_called_alpha(tmp_path: Path, bands: Any) -> None:
    pixels = np.concatenate([colours_of()[:3], np.zeros((1, HEIGHT, WIDTH), np.uint8)])
    shares = np.array([count / SIDE**2 for row in INVALID for count in row], np.float32)
    masked = image(tmp_path / "mask.tif", pixels, RGBA, mask=valid_pixels(), alpha="yes")
    tagged = image(
        tmp_path / "tag.tif", np.where(valid_pixels(), pixels + (pixels == 0), 0).astype(np.uint8), RGBA, nodata=0
    )
    fifth = np.concatenate([pixels, valid_pixels()[None]])
    alpha = image(tmp_path / "alpha.tif", fifth, (*RGBA, ColorInterp.alpha), alpha="yes")
    for path in (masked, tagged, alpha):
        found = every_chip(naip_item(path, bands=bands))["nodata_percentage"].to_numpy()
        np.testing.assert_array_equal(found, shares, err_msg=path.name)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_of_an_image_without_mask_no_pixel_is_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "m.tif"
    colours = (ColorInterp.gray,) if count == 1 else RGBN[:count]
    image(path, colours_of(count=count), colours, photometric="minisblack" if count == 1 else "rgb")
    with rasterio.open(path) as source:
        first = min(
            int(source.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)) for x in range(4) for y in range(3)
        )
    path.write_bytes(path.read_bytes()[:first])
    assert every_chip(naip_item(path))["nodata_percentage"].to_pylist() == [0.0] * 6
    with rasterio.open(path, "r+") as source:
        source.nodata = 0
    with pytest.raises(InputError, match=r"m\.tif: not a readable raster"):  # a mask is read
        every_chip(naip_item(path))


@pytest.mark.slow
def test_a_mask_is_read_in_strips(tmp_path: Path) -> None:
    """31 million pixels, more than one strip; each chip has as many valid pixels as there are chips before it."""
    rows, columns, path = 24, 20, tmp_path / "m.tif"
    alpha = np.zeros((rows * SIDE + 100, columns * SIDE), np.uint8)
    for y, x in np.ndindex(rows, columns):
        alpha[y * SIDE, x * SIDE : x * SIDE + min(y * columns + x, SIDE)] = 255
        alpha[y * SIDE + 1, x * SIDE : x * SIDE + max(y * columns + x - SIDE, 0)] = 255
    bands = np.stack([np.zeros_like(alpha), alpha])
    image(path, bands, (ColorInterp.gray, ColorInterp.alpha), photometric="minisblack", alpha="yes", compress="lzw")
    table = every_chip(naip_item(path, alpha.shape))
    valid = (1 - table["nodata_percentage"].to_numpy().astype(float)) * SIDE**2
    np.testing.assert_allclose(valid, np.arange(rows * columns), atol=0.01)


# --- the real image -------------------------------------------------------------------------------


def real_item(real_data: Path, **properties: Any) -> pystac.Item:
    folder = real_data / "rasters" / "naip_m_3008501"
    (item_file,) = folder.glob("*.item.json")
    document = json.loads(item_file.read_text())
    document["assets"]["image"]["href"] = str(folder / "m_3008501_ne_16_1_20110815.tif")
    document["properties"] |= properties
    return pystac.Item.from_dict(document)


def test_the_real_image(real_data: Path) -> None:
    """It was reduced to 256 × 256 pixels, so `proj:shape` is set to the file's."""
    item = real_item(real_data, **{"proj:shape": [256, 256]})
    with rasterio.open(item.assets["image"].href) as source:
        assert source.count == 4
        across, down = source.res
    table = index_scene(item, NAIP)
    assert table["chipid"].to_pylist() == ["al_m_3008501_ne_16_1_20110815_20111017-0-0"]
    assert table["nodata_percentage"].to_pylist() == [0.0]
    assert table["cloud_cover_percentage"].to_pylist() == [0.0]
    assert table["gsd"].to_pylist() == pytest.approx([np.sqrt(across * down)], rel=0.001)
    box = table["bbox"][0].as_py()  # the whole image: the item's footprint
    assert item.bbox is not None
    for side, expected in zip(("xmin", "ymin", "xmax", "ymax"), item.bbox, strict=True):
        assert box[side] == pytest.approx(expected, abs=1e-4)


def test_the_real_image_beside_an_item_of_another_size(real_data: Path) -> None:
    """The image defines the grid, so its file decides: no other band could match the item's declaration."""
    table = index_scene(real_item(real_data), NAIP)
    assert table["chipid"].to_pylist() == ["al_m_3008501_ne_16_1_20110815_20111017-0-0"]
    assert table.equals(index_scene(real_item(real_data, **{"proj:shape": [256, 256]}), NAIP))


# --- Sentinel-1 -----------------------------------------------------------------------------------


def sentinel_1(
    folder: Path, vv: NDArray[Any], vh: NDArray[Any], nodata: float | None = -32768, **layout: Any
) -> pystac.Item:
    """An item as in the Planetary Computer with two files, 10 m, zone 32 north."""
    transform = from_origin(500_000, 100_020, 10, 10)
    hrefs = {
        name: str(write_tiff(Path(folder) / f"{name}.tif", pixels, transform, "EPSG:32632", nodata=nodata, **layout))
        for name, pixels in (("vv", vv), ("vh", vh))
    }
    return pystac.Item.from_dict(
        {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": [],
            "id": "S1A_IW_GRDH_1SDV_20200102T052030_20200102T052055_030607_0381DA_rtc",
            "geometry": {"type": "Point", "coordinates": [9.0, 0.9]},
            "bbox": [9.0, 0.9, 9.0, 0.9],
            "properties": {
                "datetime": "2020-01-02T05:20:43Z",
                "proj:epsg": 32632,
                "proj:shape": list(vv.shape),
                "proj:transform": list(transform),
            },
            "links": [],
            "assets": {name: {"href": href} for name, href in hrefs.items()},
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "is_data"),
    [(-32768, False), (0, False), (-0.0, False), (-1e-6, False), (np.nan, False), (-np.inf, False), (1e-12, True)],
)
@pytest.mark.parametrize("tag", [-32768, None])
def test_what_is_not_above_0_is_no_backscatter(tmp_path: Path, value: Any, is_data: bool, tag: int | None) -> None:
    vv, vh = (np.full((SIDE, SIDE), 0.1, np.float32) for _ in range(2))
    vv[:10] = value  # 10 rows of VV, 6 of VH, 4 of them in both
    vh[6:12] = value
    table = every_chip(sentinel_1(tmp_path, vv, vh, tag), S1)
    assert table["nodata_percentage"].to_pylist() == [0.0 if is_data else 12 / 256]
    assert table["cloud_cover_percentage"].to_pylist() == [0.0]


@pytest.mark.slow
@pytest.mark.parametrize("block", [512, 256, 1024, None], ids=["512", "256", "1024", "rows"])
def test_exact_counts_in_strips_that_do_not_end_with_the_blocks(tmp_path: Path, block: int | None) -> None:
    """30 million pixels; 6100 rows end inside a chip and inside a block. Both files have their own nodata."""
    height, width = 6100, 5000
    rows, columns = height // SIDE, width // SIDE
    vv, vh = (np.full((height, width), 0.1, np.float32) for _ in range(2))
    expected = np.zeros((rows, columns))
    for y, x in np.ndindex(rows, columns):
        count = (y * columns + x) % SIDE
        vv[y * SIDE, x * SIDE : x * SIDE + count] = -32768  # at the upper edge of the chip
        vh[(y + 1) * SIDE - 1, x * SIDE : x * SIDE + SIDE - count] = 0  # at its lower edge
        expected[y, x] = SIDE
    expected[2, 3] += SIDE * 10
    vv[2 * SIDE + 100 : 2 * SIDE + 110, 3 * SIDE : 4 * SIDE] = np.nan
    vv[rows * SIDE :], vh[:, columns * SIDE :] = -32768, 0  # the partial edges are not chips
    layout = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    table = every_chip(sentinel_1(tmp_path, vv, vh, **layout), S1)
    assert counts_of(table) == (rows * columns, 0, rows * columns)
    np.testing.assert_array_equal(table["nodata_percentage"].to_numpy(), np.float32(expected.ravel() / SIDE**2))


def test_two_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    item = sentinel_1(tmp_path, np.ones((512, 512), np.float32), np.ones((512, 512), np.float32))
    write_tiff(tmp_path / "vh.tif", np.ones((500, 512), np.float32), Affine(10, 0, 5e5, 0, -10, 100_020), "EPSG:32632")
    with pytest.raises(InputError, match=r"vh\.tif: 500 × 512 pixels do not fit the finest grid of 512 × 512"):
        every_chip(item, S1)


def test_a_scene_without_vh_is_refused_by_name(tmp_path: Path) -> None:
    item = sentinel_1(tmp_path, np.ones((512, 512), np.float32), np.ones((512, 512), np.float32))
    del item.assets["vh"]
    with pytest.raises(InputError, match=f"{item.id}: asset vh not found, only vv"):
        every_chip(item, S1)
