"""Whether a Sentinel-2 scene includes the offset of 1000: by baseline, pixels and flags, in this order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling

from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.platforms.radiometry import Overviews, RadiometricOffset, harmonise
from clay_assets.platforms.sentinel_2_radiometry import BANDS, _percentiles
from clay_assets.stac import Item, as_stac_1_1
from clay_assets_tests.scenes.items import SENTINEL_2, real_items, sentinel_2_item

Numbers = dict[str, NDArray[Any]]
UNTOLD: Any = object()
# Possible flags of an item: `earthsearch:boa_offset_applied`, and `raster:bands.offset`.
FLAGS = list(product((True, False, None), (-0.1, 0, -1000, None)))
PRODUCT = "S2A_MSIL2A_20200219T112111_{}_R037_T29RKH_20200219T123947.SAFE"


def an_item(baseline: Any = "05.09", applied: Any = None, noted: Any = None, **properties: Any) -> Item:
    """An item with a baseline and flags; None: without."""
    given = {"s2:processing_baseline": baseline, "earthsearch:boa_offset_applied": applied, **properties}
    item = sentinel_2_item(
        "S2A_32NLG_20220501_0_L2A", "2022-05-01T10:00:00Z", **{k: v for k, v in given.items() if v is not None}
    )
    for asset in item["assets"].values():
        asset["raster:bands"] = [{"nodata": 0, "scale": 0.0001, **({} if noted is None else {"offset": noted})}]
    return item


def told(item: Item, pixels: Overviews | Callable[[], Overviews]) -> RadiometricOffset:
    """The platform's decision."""
    radiometry = platform_of(SENTINEL_2).radiometry
    assert radiometry is not None
    return radiometry.decide(item, pixels)


def not_read() -> Overviews:
    raise AssertionError("pixels were read")


@cache
def reflectances(dark: float = 0.02, share: float = 0.05, bright: float = 0.3, size: int = 300) -> Numbers:
    """Pixel values without offset, uint16: a share of dark pixels among bright ones, each band with its own noise."""
    made = {}
    for number, name in enumerate(BANDS):
        rng = np.random.default_rng(number)
        reflectance = rng.normal(bright, 0.03, (size, size))
        where = rng.random((size, size)) < share
        reflectance[where] = rng.normal(dark, 0.005, np.count_nonzero(where))
        made[name] = np.round(reflectance * 10_000)
    return {name: np.maximum(numbers, 1).astype(np.uint16) for name, numbers in made.items()}


def shifted(pixels: Overviews, offset: int, valid: float = 1) -> Numbers:
    """Add an offset, and make only the first rows valid."""
    made = {}
    for name, numbers in pixels.items():
        made[name] = np.where(numbers > 0, numbers + offset, 0).astype(np.uint16)
        made[name][round(valid * len(numbers)) :] = 0
    return made


NOTHING: dict[str, Numbers] = {
    "no band": {},
    "empty bands": {name: np.zeros((0, 0), np.uint16) for name in BANDS},
    "all nodata": shifted(reflectances(), 1000, 0),
    "few valid pixels": shifted(reflectances(), 1000, 3 / 300),
    "bright, without order": shifted(reflectances(share=0), 1000),
}


# --- baselines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["02.14", "03.01", "N0214", "0301", 2.14, 3, " 03.00 ", "2.1"])
def test_before_baseline_04_there_is_no_offset_and_no_pixel_is_read(stated: Any) -> None:
    decision = told(an_item(stated), not_read)
    assert (decision.offset, decision.evidence, decision.lows) == (0, "baseline", {})


@pytest.mark.parametrize("stated", ["04.00", "05.11", "N0500", 5, 5.09, "4.0", "99.99", "10.00"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_from_baseline_04_on_dark_pixels_decide(stated: Any, offset: int) -> None:
    decision = told(an_item(stated), lambda: shifted(reflectances(), offset))
    assert (decision.offset, decision.evidence) == (offset, "pixels")
    assert set(decision.lows) == set(BANDS)


@pytest.mark.parametrize(
    "where",
    [
        {"sentinel2:processing_baseline": "02.14"},
        {"s2:product_uri": PRODUCT.format("N0214")},
        {"sentinel:product_id": PRODUCT.format("N0214").removesuffix(".SAFE")},
        {"s2:datatake_id": "GS2A_20200219T112111_024344_N02.14"},
        {"processing:version": "02.14"},
    ],
)
@pytest.mark.parametrize("odd", [None, "", [], {}, True, "latest", float("nan"), b"05"])
def test_a_baseline_is_found_wherever_an_item_states_it(where: dict[str, str], odd: Any) -> None:
    decision = told(an_item(odd, **where), not_read)
    assert (decision.offset, decision.evidence, decision.baseline) == (0, "baseline", "02.14")


@pytest.mark.parametrize("stated", [None, [], {"a": 1}, "latest", "0.1.1", "01.00", float("inf"), 10**400])
@pytest.mark.parametrize("offset", [0, 1000])
def test_without_a_baseline_pixels_decide(stated: Any, offset: int) -> None:
    decision = told(an_item(stated), shifted(reflectances(), offset))
    assert (decision.offset, decision.evidence, decision.baseline) == (offset, "pixels", None)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("stated", "named"), [("05.09", "N0214"), ("02.14", "N0509")])
def test_of_baselines_that_disagree_none_is_believed(stated: str, named: str, offset: int) -> None:
    item = an_item(stated, **{"s2:product_uri": PRODUCT.format(named)})
    decision = told(item, shifted(reflectances(), offset))
    assert (decision.offset, decision.evidence, decision.baseline) == (offset, "pixels", None)
    assert "before and after 04.00" in str(decision.contradiction)
    assert stated in str(decision.contradiction)


@pytest.mark.parametrize(("applied", "noted", "doubted"), [(False, 0, False), (True, 0, True), (None, -0.1, True)])
def test_flags_that_the_baseline_belies_are_reported(applied: Any, noted: Any, doubted: bool) -> None:
    decision = told(an_item("02.14", applied, noted), not_read)
    assert (decision.offset, decision.contradiction is not None) == (0, doubted)


# --- pixels -----------------------------------------------------------------------------------------


DARKNESS = [*product((0.0, 0.01, 0.02), (0.005, 0.3, 1)), (-0.02, 0.05), (-0.02, 0.3), (-0.02, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("dark", "share"), DARKNESS)
def test_dark_pixels_decide_whatever_flags_say(offset: int, dark: float, share: float) -> None:
    rng = np.random.default_rng(1)
    pixels = {name: rng.permutation(numbers.ravel()) for name, numbers in reflectances(0.02, share).items()}
    pixels = {
        name: np.clip(numbers.astype(int) + round((dark - 0.02) * 10_000) + offset, 1, None)
        for name, numbers in pixels.items()
    }
    # Flags and darkness are independent: a quarter of the flags each, and all of them with each offset.
    for applied, noted in FLAGS[DARKNESS.index((dark, share)) % 4 :: 4]:
        decision = told(an_item("05.09", applied, noted), pixels)
        assert (decision.offset, decision.evidence) == (offset, "pixels")
        assert (decision.contradiction is not None) == (decision.flagged not in (None, offset))


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(
    "change",
    [
        lambda numbers: numbers[::7, ::7],
        lambda numbers: numbers.astype(np.float32),
        lambda numbers: np.where(numbers == 0, np.nan, numbers.astype(float)),
        lambda numbers: np.ma.masked_equal(numbers, 0),
        lambda numbers: numbers[None],
        lambda numbers: np.concatenate([np.full(100, 1, numbers.dtype), numbers.ravel()]),  # a detector's edge
        lambda numbers: numbers.ravel()[: numbers.size // 20],
    ],
    ids=["coarse", "float", "nan", "masked", "three axes", "edge", "sliver"],
)
def test_the_form_of_the_overview_does_not_matter(change: Callable[[Any], Any], offset: int) -> None:
    pixels = shifted(reflectances(), offset, 0.9)
    decision = told(an_item(), {name: change(numbers) for name, numbers in pixels.items()})
    assert (decision.offset, decision.evidence) == (offset, "pixels")


@pytest.mark.parametrize("left", [("red",), ("blue", "red"), ("red", "swir22"), BANDS[:4]])
@pytest.mark.parametrize("offset", [0, 1000])
def test_bands_that_cannot_be_read_may_be_left_out(left: tuple[str, ...], offset: int) -> None:
    pixels = shifted(reflectances(), offset)
    assert told(an_item(), {name: pixels[name] for name in left}).offset == offset


def test_numbers_below_the_offset_that_were_cut_off_are_nodata() -> None:
    pixels = {
        name: np.clip(numbers.astype(int) - 150, 0, None).astype(np.uint16)
        for name, numbers in reflectances(share=0.5).items()
    }
    assert all((numbers == 0).any() for numbers in pixels.values())
    decision = told(an_item("05.09", False, -0.1), pixels)
    assert (decision.offset, decision.evidence) == (0, "pixels")


def test_dark_soil_that_is_bluest_near_1000_is_no_evidence() -> None:
    """Without an offset, blue near 1000 with brighter other bands is a desert."""
    level = dict(zip(BANDS, (0.10, 0.15, 0.21, 0.24, 0.30, 0.27), strict=True))
    pixels = {
        name: np.round(np.random.default_rng(n).normal(level[name], 0.004, (200, 200)) * 10_000).astype(np.uint16)
        for n, name in enumerate(BANDS)
    }
    assert told(an_item("05.09", True), pixels).offset == 0


# --- flags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize(
    ("applied", "noted", "offset"),
    [
        (True, -0.1, 0),  # as in many real items
        (True, 0, 0),
        (False, -0.1, 1000),
        (False, 0, 1000),
        (None, -0.1, 1000),
        (None, -1000, 1000),
        (None, 0, 0),
        (None, 0.0, 0),
        ("true", None, 0),
        ("False", None, 1000),
        (np.False_, None, 1000),
        (0, None, 1000),
        ([], -0.1, 1000),
        ("unknown", 0, 0),
    ],
)
def test_flags_decide_where_pixels_do_not(pixels: Numbers, applied: Any, noted: Any, offset: int) -> None:
    decision = told(an_item("05.09", applied, noted), pixels)
    assert (decision.offset, decision.evidence, decision.flagged) == (offset, "flags", offset)
    assert decision.contradiction is None


@pytest.mark.parametrize("pixels", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize(("applied", "noted"), [(None, None), ("?", "0"), ({}, []), (2, float("nan")), (None, 0.5)])
def test_where_nothing_tells_the_offset_was_taken_away(pixels: Numbers, applied: Any, noted: Any) -> None:
    decision = told(an_item("05.09", applied, noted), pixels)
    assert (decision.offset, decision.evidence, decision.flagged) == (0, "default", None)


def test_bands_that_note_different_offsets_tell_nothing() -> None:
    item = an_item("05.09", None, -0.1)
    item["assets"]["blue"]["raster:bands"][0]["offset"] = 0
    assert told(item, {}).evidence == "default"


@pytest.mark.parametrize("odd", [None, {}, [], "x", [None], [{"offset": None}], [[-0.1]], {"offset": -0.1}])
def test_band_lists_of_any_form_are_read(odd: Any) -> None:
    item = an_item("05.09")
    for asset in item["assets"].values():
        asset["raster:bands"] = odd
        asset["bands"] = odd
    assert told(item, {}).evidence == "default"
    item["assets"] = {"red": None, "blue": {}}
    assert told(item, {}).evidence == "default"


@pytest.mark.parametrize("noted", [-0.1, 0])
def test_flags_are_the_same_after_the_migration_to_stac_1_1(noted: float) -> None:
    item = an_item("05.09", None, noted)
    migrated = as_stac_1_1(platform_of(SENTINEL_2).read_item(item))
    assert told(migrated, {}).flagged == told(item, {}).flagged == (1000 if noted else 0)


# --- pixel values -----------------------------------------------------------------------------------


def test_harmonised_numbers_stay_valid_where_they_were() -> None:
    stored = np.array([[0, 1, 700, 999], [1000, 1001, 1002, 65535]], np.uint16)
    kept = stored.copy()
    harmonised = harmonise(stored, 1000)
    assert harmonised.dtype == np.uint16
    assert harmonised.tolist() == [[0, 1, 1, 1], [1, 1, 2, 64535]]
    assert (stored == kept).all()


def test_every_number_is_harmonised_as_defined() -> None:
    every = np.arange(65536, dtype=np.uint16)
    expected = [0 if number == 0 else max(1, number - 1000) for number in range(65536)]
    assert harmonise(every, 1000).tolist() == expected
    assert harmonise(every[::-3].reshape(-1, 2), 1000).ravel().tolist() == expected[::-3]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_without_an_offset_numbers_are_the_very_array(dtype: Any) -> None:
    stored = np.arange(6, dtype=dtype)
    assert harmonise(stored, 0) is stored


def test_only_sentinel_2_has_an_offset_to_tell() -> None:
    assert [key for key, one in PLATFORMS.items() if one.radiometry is not None] == [SENTINEL_2]
    radiometry = platform_of(SENTINEL_2).radiometry
    assert radiometry is not None
    assert set(radiometry.bands) <= set(platform_of(SENTINEL_2).assets.bands)


# --- the planet -------------------------------------------------------------------------------------


def overviews(item: Item, resampling: Resampling, pixels: int = 200) -> Overviews:
    """Bands of an item at the resolution of an overview."""
    read = {}
    for name in BANDS:
        with rasterio.open(item["assets"][name]["href"]) as source:
            read[name] = source.read(1, out_shape=(pixels, pixels), resampling=resampling)
    return read


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.average])
def test_no_scene_of_the_planet_is_told_wrongly(planet: Planet, resampling: Resampling) -> None:
    truth = planet.radiometry().set_index("item_id")
    decided: Counter[str] = Counter()
    met = set()
    for item in planet.items(SENTINEL_2)[:: 3 if resampling == Resampling.nearest else 10]:
        real = truth.loc[item["id"]]
        decision = told(item, lambda item=item: overviews(item, resampling))  # type: ignore[misc]
        assert (decision.offset, decision.baseline) == (real.offset, real.baseline), item["id"]
        assert decision.flagged == real.stated
        assert (decision.contradiction is not None) == (real.stated != real.offset)
        decided[decision.evidence] += 1
        met.add((real.offset, real.stated))
    assert set(decided) == {"baseline", "pixels"}
    assert {(0, 0), (0, 1000), (1000, 0), (1000, 1000)} <= met


def test_items_of_the_planet_lie_half_of_the_time(planet: Planet) -> None:
    truth = planet.radiometry()
    later = truth[truth.baseline >= "04"]
    assert 0.4 < (later.offset != later.stated).mean() < 0.6
    assert set(later.groupby(["offset", "stated"]).size().index) == {(0, 0), (0, 1000), (1000, 0), (1000, 1000)}
    former = truth[truth.baseline < "04"]
    assert len(former) > 50
    assert not former.offset.any()


# --- real data --------------------------------------------------------------------------------------

FILES = dict(zip(BANDS, ("B02", "B03", "B04", "B08", "B11", "B12"), strict=True))


def desert(real_data: Path, step: int = 1, resampling: Resampling = Resampling.nearest) -> Numbers:
    """Overviews of 29RKH, baseline 02.14, a desert without any red value below 951."""
    read = {}
    for name, file in FILES.items():
        with rasterio.open(real_data / "rasters" / "sentinel2_29RKH" / f"{file}.tif") as source:
            side = source.height // step
            read[name] = source.read(1, out_shape=(side, side), resampling=resampling)
    return read


def treated(pixels: Numbers) -> Iterator[tuple[str, int, Numbers]]:
    """A name for the treatment of a real scene, the resulting offset, and its pixel values."""
    yield "as it is", 0, pixels
    yield "1000 added", 1000, shifted(pixels, 1000)
    cut = {name: np.clip(numbers.astype(int) - 1000, 0, None).astype(np.uint16) for name, numbers in pixels.items()}
    yield "clipped zeros", 0, cut
    yield "half of it, 1000 added", 1000, shifted(pixels, 1000, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "resampling"), [(1, Resampling.nearest), *product((2, 4), (Resampling.nearest, Resampling.average))]
)
def test_the_real_desert_is_told_right_whatever_its_flags(real_data: Path, step: int, resampling: Resampling) -> None:
    whole = desert(real_data)
    assert int(whole["red"].min()) == 951
    flags = FLAGS if step == 4 else FLAGS[::5]  # independent of the size
    for what, offset, pixels in treated(whole if step == 1 else desert(real_data, step, resampling)):
        for applied, noted in flags:
            decision = told(an_item("05.09", applied, noted), pixels)
            assert (decision.offset, decision.evidence) == (offset, "pixels"), what
            if not offset:
                before = told(an_item("02.14", applied, noted), pixels)
                assert (before.offset, before.evidence) == (0, "baseline")


def test_real_forest_is_told_right_whatever_its_flags(real_data: Path) -> None:
    """Surface reflectance of a real Landsat scene, scaled like Sentinel-2."""
    folder = real_data / "rasters" / "landsat_LC08_001062"
    numbers = {}
    for name, band in zip(BANDS, ("B2", "B3", "B4", "B5", "B6", "B7"), strict=True):
        with rasterio.open(next(folder.glob(f"*_SR_{band}.TIF"))) as source:
            stored = source.read(1)
        reflectance = np.maximum(np.round((stored * 0.0000275 - 0.2) * 10_000), 1)
        numbers[name] = np.where(stored > 0, reflectance, 0).astype(np.uint16)
    for offset in (0, 1000):
        for applied, noted in FLAGS:
            decision = told(an_item("05.09", applied, noted), shifted(numbers, offset))
            assert (decision.offset, decision.evidence) == (offset, "pixels")


def test_flags_of_real_items(real_data: Path) -> None:
    decided: Counter[tuple[str | None, str, int | None]] = Counter()
    platform = platform_of(SENTINEL_2)
    for document in real_items(real_data, SENTINEL_2):
        decision = told(platform.read_item(document), {})
        decided[decision.baseline, decision.evidence, decision.flagged] += 1
        assert decision.contradiction is None
        assert decision.offset == (decision.flagged or 0)
    assert decided == {
        ("02.14", "baseline", 0): 25,
        ("02.14", "baseline", None): 6,  # older items, in which only the product id has it
        ("04.00", "flags", 1000): 2,
        ("05.00", "flags", 0): 1,
        ("05.09", "flags", 0): 24,
        ("05.10", "flags", 0): 7,
        ("05.11", "flags", 0): 113,
    }


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "int16", "float32"])
@pytest.mark.parametrize("most", [2, 40, 250])
def test_percentiles_are_numpys_to_the_last_bit(dtype: str, most: int) -> None:
    rng = np.random.default_rng(most)
    for size in (1000, 1001, 4097, 60_000):
        values = rng.integers(1, most, size).astype(dtype)
        for wanted in ((0.2, 0.5, 50), (0, 33.3, 99.99), (100,)):
            np.testing.assert_array_equal(_percentiles(values, wanted), np.percentile(values, wanted))
