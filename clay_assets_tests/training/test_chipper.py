"""Pixels of chips, compared with what was written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyproj
import pystac
import pytest
from affine import Affine

from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.sources.cog import read_header
from clay_assets.storage import layout
from clay_assets.training.chip import Chip
from clay_assets.training.chipper import Chipper
from clay_assets.training.selection import open_chips
from clay_assets_tests.chips.factories import EPSG, L2, LEFT, S2, TOP, write_tiff
from clay_assets_tests.training.conftest import BESIDE, LANDSAT, PLAIN, RAISED
from clay_assets_tests.training.made_scenes import TILED, Made, Scene, write_headers


def expected(scene: Scene, chip: Chip) -> np.ndarray:
    """The chip's numbers as stored in the files."""
    return np.stack([scene.window(name, chip.x, chip.y) for name in chip.bands])


def test_every_chip_holds_the_pixels_of_its_place(made: Made) -> None:
    for key, count in ((S2, 18), (L2, 6)):
        chipper = Chipper(open_chips(made.storage, key), radiometry="stored")
        chips = list(chipper)
        assert len(chips) == len(chipper) == count
        for chip in chips:
            scene = made.scene(chip.item_id)
            assert (chip.platform, chip.bands) == (key, platform_of(key).assets.bands)
            assert chip.pixels.dtype == np.uint16
            np.testing.assert_array_equal(chip.pixels, expected(scene, chip))


@pytest.mark.slow
def test_a_batch_is_in_the_order_asked_also_twice_and_from_the_end(made: Made) -> None:
    chipper = Chipper(open_chips(made.storage, S2), threads=2)
    whole = chipper.batch(range(18))
    asked = np.random.default_rng(0).integers(-18, 18, 40)
    batch = chipper.batch(asked)
    np.testing.assert_array_equal(batch.pixels, whole.pixels[asked])
    assert [chip.chipid for chip in batch] == [whole[int(index)].chipid for index in asked]
    for name in ("x", "y", "datetime", "gsd_true", "bounds", "transforms", "latlon", "time", "valid", "cloud"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(whole, name)[asked], err_msg=name)
    assert chipper[-1].chipid == whole[17].chipid
    with pytest.raises(IndexError, match="chip 18: the selection has 18 chips"):
        chipper[18]


def test_a_block_is_decoded_once_while_it_is_at_hand(made: Made) -> None:
    chipper = Chipper(open_chips(made.storage, S2, years=2020))
    chipper.batch(range(6))
    decoded = chipper.counters.blocks_decoded
    # Two rows of three chips: 4 × 6 blocks of a 10 m band, 2 × 3 of a 20 m one, of 128 pixels each.
    assert decoded == 4 * 24 + 6 * 6
    chipper.batch([0, 5])
    assert (chipper.counters.blocks_decoded, chipper.counters.fallbacks) == (decoded, 0)


def test_bands_are_those_asked_for_in_the_order_asked(made: Made) -> None:
    chips = open_chips(made.storage, S2, years=2020)
    chip = Chipper(chips, bands=["swir22", "red", "blue"])[0]
    assert chip.bands == ("swir22", "red", "blue")
    np.testing.assert_array_equal(chip.pixels, expected(made.scene(PLAIN), chip))
    np.testing.assert_array_equal(chip.waves, np.array([2.19, 0.665, 0.493], np.float32))
    assert Chipper(chips, bands="nir")[0].bands == ("nir",)
    for wrong in (["red", "thermal"], []):
        with pytest.raises(InputError, match="not bands of Sentinel-2 L2A, which has blue, green"):
            Chipper(chips, bands=wrong)
    with pytest.raises(InputError, match="bands rededge1: not bands of Landsat"):
        Chipper(open_chips(made.storage), bands=["rededge1"])


@pytest.mark.slow
def test_numbers_lose_the_offset_of_their_scene(made: Made) -> None:
    stored, harmonised = (Chipper(open_chips(made.storage, S2), radiometry=how) for how in ("stored", "harmonised"))
    before, after = stored.batch(range(18)), harmonised.batch(range(18))
    raised = np.array([name == RAISED for name in before.item_id])
    np.testing.assert_array_equal(after.pixels[~raised], before.pixels[~raised])
    held, without = before.pixels[raised].astype(int), after.pixels[raised].astype(int)
    assert after.pixels.dtype == np.uint16
    assert (without[held == 0] == 0).all()
    np.testing.assert_array_equal(without[held > 0], np.maximum(held[held > 0] - 1000, 1))
    with pytest.raises(InputError, match=r"radiometry 'reflectance': not known\. Say"):
        Chipper(open_chips(made.storage), radiometry="reflectance")  # type: ignore[arg-type]


def test_masks_are_the_platforms_own(made: Made) -> None:
    for key in (S2, L2):
        platform = platform_of(key)
        chips = open_chips(made.storage, key)
        batch = Chipper(chips).batch(range(len(chips)), masks=True)
        for chip in batch:
            scene = made.scene(chip.item_id)
            judged = {name: scene.window(name, chip.x, chip.y) for name in platform.quality.assets}
            cloud, nodata = platform.quality.judge(judged)
            np.testing.assert_array_equal(chip.cloud, cloud)
            np.testing.assert_array_equal(chip.valid, ~nodata)
        shares = chips.table(["cloud_cover_percentage", "nodata_percentage"]).to_pandas().to_numpy()
        np.testing.assert_allclose(batch.cloud.mean(axis=(1, 2)), shares[:, 0], atol=1e-6)
        np.testing.assert_allclose((~batch.valid).mean(axis=(1, 2)), shares[:, 1], atol=1e-6)


def test_what_the_model_is_told(made: Made) -> None:
    chip = Chipper(open_chips(made.storage, S2)).chip(PLAIN, 2, 1)
    west, north = LEFT + 2 * 2560.0, TOP - 2560.0
    assert chip.bounds == (west, north - 2560, west + 2560, north)
    assert chip.crs == f"EPSG:{EPSG}"
    assert Affine(*chip.transform) == Affine(10, 0, west, 0, -10, north)
    assert chip.datetime == datetime(2020, 3, 2, 10, 20, 30, 405000, UTC)
    week, hour = 10 * 2 * np.pi / 52, 10 * 2 * np.pi / 24
    np.testing.assert_array_equal(
        chip.time, np.array([np.sin(week), np.cos(week), np.sin(hour), np.cos(hour)], np.float32)
    )
    to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    lon, lat = np.radians(to_lonlat.transform(west + 1280, north - 1280))
    np.testing.assert_array_equal(
        chip.latlon, np.array([np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)], np.float32)
    )
    assert (chip.gsd, chip.chipid) == (10, f"{PLAIN}-2-1")
    assert chip.gsd_true == pytest.approx(10, rel=1e-3)
    with pytest.raises(InputError, match=f"{PLAIN}-3-1: the selection has no such chip"):
        Chipper(open_chips(made.storage, S2)).chip(PLAIN, 3, 1)


def test_a_batch_is_of_one_platform(made: Made) -> None:
    chipper = Chipper(open_chips(made.storage))
    keys = chipper.chips.table(["platform"])["platform"].to_pylist()
    with pytest.raises(InputError, match=f"chips of {L2}, {S2}. Ask for chips of one platform"):
        chipper.batch([keys.index(L2), keys.index(S2)])
    assert [(batch.platform, len(batch)) for batch in chipper.batches(20)] == [(L2, 6), (S2, 18)]
    assert sum(len(batch) for batch in chipper.batches(4, stop=10)) == 10
    with pytest.raises(InputError, match=r"batch: no chip\. Ask for"):
        chipper.batch([])


def test_an_empty_selection_has_no_chip(made: Made) -> None:
    empty = open_chips(made.storage, S2, bbox=(100, 50, 101, 51))
    assert (len(empty), len(Chipper(empty)), list(Chipper(empty))) == (0, 0, [])
    with pytest.raises(IndexError, match="the selection has 0 chips"):
        Chipper(empty)[0]
    assert len(Chipper(open_chips(made.storage, "naip"))) == 0


def _read(chipper: Chipper) -> np.ndarray:
    return chipper.batch([3, 1]).pixels


@pytest.mark.slow
def test_it_can_be_sent_to_other_processes(made: Made) -> None:
    chipper = Chipper(open_chips(made.storage, S2), threads=2)
    here = _read(chipper)
    assert len(pickle.dumps(chipper)) < 5000
    for start in ("fork", "spawn"):
        with ProcessPoolExecutor(1, get_context(start)) as pool:
            np.testing.assert_array_equal(pool.submit(_read, chipper).result(), here)


@pytest.mark.slow
def test_it_can_be_shared_between_threads(made: Made) -> None:
    chipper = Chipper(open_chips(made.storage, S2), cache_bytes=1 << 20)
    whole = chipper.batch(range(18)).pixels
    asked = np.random.default_rng(2).integers(0, 18, (12, 5))
    with ThreadPoolExecutor(4) as pool:
        for indices, batch in zip(asked, pool.map(chipper.batch, asked), strict=True):
            np.testing.assert_array_equal(batch.pixels, whole[indices])


# --- a bare item ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_chips_of_an_item_are_those_of_the_index(made: Made) -> None:
    for item_id, key in ((RAISED, S2), (LANDSAT, L2)):
        item = pystac.Item.from_dict(made.scene(item_id).item)
        bare = Chipper.of_item(item, key, radiometry="stored")
        assert len(bare) == 6
        indexed = Chipper(open_chips(made.storage, key), radiometry="stored")
        for chip in bare:
            other = indexed.chip(chip.item_id, chip.x, chip.y)
            np.testing.assert_array_equal(chip.pixels, other.pixels)
            np.testing.assert_array_equal(chip.valid, other.valid)
            np.testing.assert_array_equal(chip.latlon, other.latlon)
            assert (chip.bounds, chip.datetime, chip.gsd_true) == (other.bounds, other.datetime, other.gsd_true)
        assert [(chip.x, chip.y) for chip in bare] == [(x, y) for y in range(2) for x in range(3)]
        assert bare.chip(item_id, 1, 1).chipid == f"{item_id}-1-1"


@pytest.mark.slow
def test_pixels_of_an_item_tell_its_offset(made: Made) -> None:
    for item_id, offset in ((PLAIN, 0), (RAISED, 1000)):
        scene = made.scene(item_id)
        pixels = Chipper.of_item(pystac.Item.from_dict(scene.item), S2)[4].pixels.astype(int)
        held = np.stack([scene.window(name, 1, 1) for name in platform_of(S2).assets.bands]).astype(int)
        np.testing.assert_array_equal(pixels, np.where(held == 0, 0, np.maximum(held - offset, 1)))


def test_chips_of_an_item_in_an_area(made: Made) -> None:
    item = pystac.Item.from_dict(made.scene(RAISED).item)
    chips = open_chips(made.storage, S2)
    rows = chips.find(RAISED, 1, 1, ["bbox"])
    west, south, east, north = (rows["bbox"][0].as_py()[side] for side in ("xmin", "ymin", "xmax", "ymax"))
    lon, lat = (west + east) / 2, (south + north) / 2
    one = Chipper.of_item(item, S2, bbox=(lon, lat, lon, lat))
    assert [(chip.x, chip.y) for chip in one] == [(1, 1)]
    np.testing.assert_array_equal(one[-1].pixels, Chipper.of_item(item, S2)[4].pixels)
    assert one.chip(RAISED, 1, 1).gsd_true == Chipper(chips).chip(RAISED, 1, 1).gsd_true
    with pytest.raises(InputError, match=f"{RAISED}-0-0: the selection has no such chip"):
        one.chip(RAISED, 0, 0)
    some = Chipper.of_item(item, S2, bbox=(lon, lat, lon + (east - west), lat))
    assert [(chip.x, chip.y) for chip in some] == [(1, 1), (2, 1)]
    with pytest.raises(InputError, match=r"no chip touches the box \(0, 0, 1, 0\)\. Take another scene or box"):
        Chipper.of_item(item, S2, bbox=(0, 0, 1, 0))
    with pytest.raises(InputError, match="not west, south, east and north"):
        Chipper.of_item(item, S2, bbox=(0, 0, 1))


def test_an_item_that_holds_no_chip_or_lacks_a_band(made: Made, tmp_path: Path) -> None:
    item = pystac.Item.from_dict(made.scene(LANDSAT).item)
    del item.assets["nir08"]
    with pytest.raises(InputError, match=f"{LANDSAT}: lacks the assets nir08"):
        Chipper.of_item(item, L2)
    small = pystac.Item.from_dict(made.scene(LANDSAT).item)
    for name, asset in small.assets.items():
        pixels = np.ones((200, 300), np.uint16)
        asset.href = str(write_tiff(tmp_path / f"{name}.tif", pixels, Affine(30, 0, LEFT, 0, -30, TOP), f"EPSG:{EPSG}"))
    with pytest.raises(InputError, match="200 × 300 pixels hold no chip of 256 × 256"):
        Chipper.of_item(small, L2)


# --- what can be wrong ----------------------------------------------------------------------------


def test_a_scene_without_headers(spoilt: Made) -> None:
    spoilt.store.delete([layout.headers(S2, 2020, PLAIN)])
    with pytest.raises(InputError, match=rf"has no headers. Materialise cog_headers .*{S2}\|2020"):
        Chipper(open_chips(spoilt.storage))[0]


def test_files_that_are_gone(gone: Made) -> None:
    with pytest.raises(InputError, match=r"plain/\w+.tif"):
        Chipper(open_chips(gone.storage))[0]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _replace(path: Path) -> None:
    pixels = np.full((600, 800), 7, np.uint16)
    write_tiff(path, pixels, Affine(10, 0, LEFT, 0, -10, TOP), f"EPSG:{EPSG}", **TILED)


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [_truncate, _replace, _touch])
def test_a_file_that_changed_after_its_header_was_read_is_refused(spoilt: Made, spoil: Callable[[Path], None]) -> None:
    chipper = Chipper(open_chips(spoilt.storage))
    spoil(spoilt.folder / "plain" / "red.tif")
    with pytest.raises(InputError, match=r"red.tif: .*cog_headers"):
        chipper.batch(range(6))
    np.testing.assert_array_equal(
        Chipper(open_chips(spoilt.storage), bands=["blue"])[0].pixels[0, 100:], chipper_window(spoilt, "blue")[100:]
    )


def chipper_window(made: Made, band: str) -> np.ndarray:
    chip = Chipper(open_chips(made.storage), bands=[band])[0]
    return made.scenes[0].window(band, chip.x, chip.y)


def _rewritten(made: Made, name: str, pixels: np.ndarray, transform: Affine, epsg: int = EPSG) -> None:
    write_tiff(made.folder / "plain" / f"{name}.tif", pixels, transform, f"EPSG:{epsg}", **TILED)
    write_headers(made.store, made.scenes[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "transform", "epsg", "words"),
    [
        pytest.param((400, 533), (15, 15, 0), EPSG, "the factor must be whole and divide 256", id="not whole"),
        pytest.param((200, 266), (30, 30, 0), EPSG, "the factor must be whole", id="a third, not of the width"),
        pytest.param((300, 800), (10, 20, 0), EPSG, "the factor must be whole", id="not square"),
        pytest.param((1200, 1600), (5, 5, 0), EPSG, "the factor must be whole", id="finer"),
        pytest.param((300, 400), (20, 20, 10), EPSG, r"lies 1 pixels from the finest grid", id="shifted"),
        pytest.param((300, 400), (20, 20, 0), 32633, "EPSG:32633 rather than in EPSG:32632", id="another zone"),
    ],
)
def test_a_band_that_does_not_fit_the_finest_grid(
    spoilt: Made, shape: tuple[int, int], transform: tuple[float, float, float], epsg: int, words: str
) -> None:
    across, down, shift = transform
    place = Affine(across, 0, LEFT + shift, 0, -down, TOP)
    _rewritten(spoilt, "swir16", np.ones(shape, np.uint16), place, epsg)
    with pytest.raises(InputError, match=rf"swir16.tif: .*{words}"):
        Chipper(open_chips(spoilt.storage))[0]
    assert Chipper(open_chips(spoilt.storage), bands=["red"])[0].pixels.shape == (1, 256, 256)


@pytest.mark.slow
def test_a_quarter_is_a_whole_factor(spoilt: Made) -> None:
    coarse = np.arange(150 * 200, dtype=np.uint16).reshape(150, 200)
    _rewritten(spoilt, "swir16", coarse, Affine(40, 0, LEFT, 0, -40, TOP))
    chip = Chipper(open_chips(spoilt.storage), bands=["red", "swir16"]).chip(PLAIN, 2, 1)
    np.testing.assert_array_equal(chip.pixels[1], coarse[64:128, 128:192].repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.slow
def test_a_chip_beyond_the_files_of_its_scene(spoilt: Made) -> None:
    for name, factor in (("red", 1), ("green", 1)):
        _rewritten(spoilt, name, np.ones((600 // factor, 512 // factor), np.uint16), Affine(10, 0, LEFT, 0, -10, TOP))
    with pytest.raises(InputError, match=rf"{PLAIN}-2-\d: lies beyond the 600 × 512 pixels of .*red.tif"):
        Chipper(open_chips(spoilt.storage), bands=["red"]).batch(range(6))


def test_a_corrupt_block_names_its_file(spoilt: Made) -> None:
    path = spoilt.folder / "plain" / "green.tif"
    content = bytearray(path.read_bytes())
    start = int(read_header(str(path)).block_offsets[0])
    content[start + 100 : start + 400] = bytes(300)
    path.write_bytes(content)
    write_headers(spoilt.store, spoilt.scenes[0])
    with pytest.raises(InputError, match=r"green.tif: .*block \d+ is corrupt"):
        list(Chipper(open_chips(spoilt.storage)))


def test_scenes_beside_each_other_keep_apart(made: Made) -> None:
    batch = Chipper(open_chips(made.storage, S2, years=2021)).batch(range(12))
    assert set(batch.item_id) == {RAISED, BESIDE}
    beside = [chip for chip in batch if chip.item_id == BESIDE]
    assert {chip.bounds[0] for chip in beside} == {LEFT + 8000 + 2560 * x for x in range(3)}
