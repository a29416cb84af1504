"""Cloud and nodata pixels counted part by part match a manual count, for any parts and codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clay_assets.chips import counting
from clay_assets.chips.counting import ChipCounts, codes_of
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Quality

NAME = "codes"


def quality_of(cloud: np.ndarray, nodata: np.ndarray) -> Quality:
    """A platform that looks up codes in two tables."""

    def judge(pixels: Any) -> tuple[np.ndarray, np.ndarray]:
        return cloud[pixels[NAME]], nodata[pixels[NAME]]

    return Quality(assets=(NAME,), judge=judge)


def expected(mask: np.ndarray, side: int) -> np.ndarray:
    rows, columns = mask.shape[0] // side, mask.shape[1] // side
    counts = mask.reshape(rows, side, columns, side).sum(axis=(1, 3), dtype=np.int64)
    return (counts / (side * side)).astype(np.float32)


def parts_of(height: int, width: int, tall: int, wide: int) -> list[tuple[slice, slice]]:
    return [
        (slice(row, min(row + tall, height)), slice(column, min(column + wide, width)))
        for row in range(0, height, tall)
        for column in range(0, width, wide)
    ]


def random_table(generator: np.random.Generator, size: int, share: float) -> np.ndarray:
    table = np.zeros(size, bool)
    table[:16] = generator.random(16) < share
    if generator.random() < 0.3:
        table[-3:] = True
    return table


TABLES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "none": lambda generator, size: np.zeros(size, bool),
    "every": lambda generator, size: np.ones(size, bool),
    "zero": lambda generator, size: np.arange(size) == 0,
    "highest": lambda generator, size: np.arange(size) == size - 1,
    "flags": lambda generator, size: (np.arange(size) & 0b11010) != 0,
    "one flag": lambda generator, size: (np.arange(size) & 1) != 0,
    "a flag that is not there": lambda generator, size: (np.arange(size) & 0b11010) == 0,
    "few": lambda generator, size: random_table(generator, size, 0.2),
    "half": lambda generator, size: random_table(generator, size, 0.5),
    "scattered": lambda generator, size: generator.random(size) < 0.5,
    "Sentinel-2": lambda generator, size: np.isin(np.arange(size), (1, 3, 8, 9, 10)),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", TABLES)
def test_any_codes(name: str, dtype: str) -> None:
    generator = np.random.default_rng(len(name))
    size = np.iinfo(dtype).max + 1
    for _ in range(6):
        cloud, nodata = TABLES[name](generator, size), random_table(generator, size, 0.1)
        quality = quality_of(cloud, nodata)
        assert codes_of(quality.judge, NAME, dtype) is not None
        most = int(generator.choice([3, 12, 16, size]))  # the codes that occur are lower
        pixels = generator.integers(0, most, (64, 96)).astype(dtype)
        counts = ChipCounts(quality, 32, 2, 3, "")
        for rows, columns in parts_of(64, 96, 32, 48):
            counts.add(rows.start, columns.start, {NAME: pixels[rows, columns]})
        for found, table in zip(counts.shares(), (cloud, nodata), strict=True):
            np.testing.assert_array_equal(found, expected(table[pixels], 32))


@pytest.mark.slow
@pytest.mark.parametrize("slab", [1 << 9, 1 << 14, 1 << 19])
@pytest.mark.parametrize(("side", "rows", "columns"), [(20, 9, 7), (64, 4, 5), (128, 3, 2), (256, 2, 3), (300, 2, 2)])
@pytest.mark.parametrize("block", [(512, 512), (240, 272), (16, 48), (1, 1000), (1000, 1), (77, 131)])
def test_any_parts(
    monkeypatch: pytest.MonkeyPatch, slab: int, side: int, rows: int, columns: int, block: tuple[int, int]
) -> None:
    monkeypatch.setattr(counting, "SLAB_BYTES", slab)
    pixels = np.random.default_rng(side).integers(0, 12, (rows * side, columns * side), dtype=np.uint8)
    pixels[: side + 3, side // 2 :] = 0
    pixels[2 * side - 5 :] = 9
    quality = PLATFORMS["sentinel-2-l2a"].quality
    counts = ChipCounts(quality, side, rows, columns, "")
    for down, across in parts_of(pixels.shape[0], pixels.shape[1], *block):
        counts.add(down.start, across.start, {"scl": pixels[down, across]})
    cloud, nodata = counts.shares()
    np.testing.assert_array_equal(cloud, expected(np.isin(pixels, (1, 3, 8, 9, 10)), side))
    np.testing.assert_array_equal(nodata, expected(pixels == 0, side))


@pytest.mark.parametrize("side", [251, 257, 1024, 2 * 263])  # prime, and more than fits a byte
@pytest.mark.parametrize("block", [(512, 512), (128, 2048)])
def test_chips_of_any_side(side: int, block: tuple[int, int]) -> None:
    pixels = np.full((2 * side, 2 * side), 8, np.uint16)
    pixels[:side, :side] = 1
    pixels[side + 7, 3] = 0
    counts = ChipCounts(PLATFORMS["landsat-c2l2-sr"].quality, side, 2, 2, "")
    for down, across in parts_of(pixels.shape[0], pixels.shape[1], *block):
        counts.add(down.start, across.start, {"qa_pixel": pixels[down, across]})
    cloud, nodata = counts.shares()
    np.testing.assert_array_equal(cloud, np.array([[0, 1], [1 - 1 / side**2, 1]], np.float32))
    np.testing.assert_array_equal(nodata, np.array([[1, 0], [0, 0]], np.float32))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_pixels_of_any_type(dtype: str) -> None:
    generator = np.random.default_rng(1)
    pixels = generator.choice(np.array([0, 1, 2, 8, 16, 27, 64]), (200, 300)).astype(dtype)
    counts = ChipCounts(PLATFORMS["landsat-c2l2-sr"].quality, 100, 2, 3, "")
    counts.add(0, 0, {"qa_pixel": pixels})
    for found, bits in zip(counts.shares(), (26, 1), strict=True):
        np.testing.assert_array_equal(found, expected((pixels.astype(int) & bits) != 0, 100))


def test_every_platform_of_codes_says_of_each_code_what_it_says_of_pixels() -> None:
    for key, asset, dtype in (
        ("sentinel-2-l2a", "scl", "uint8"),
        ("landsat-c2l1", "qa_pixel", "uint16"),
        ("naip", "image", "uint8"),
        ("linz", "visual", "uint8"),
    ):
        quality = PLATFORMS[key].quality
        assert codes_of(quality.judge, asset, dtype) is not None
        every = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 16)
        counts = ChipCounts(quality, 4, len(every) // 4, 4, "")
        counts.add(0, 0, {asset: every})
        for found, mask in zip(counts.shares(), quality.judge({asset: every}), strict=True):
            np.testing.assert_array_equal(found, expected(mask, 4))


def test_a_platform_that_does_not_know_every_code_is_asked_of_those_that_occur() -> None:
    quality = quality_of(np.arange(10) == 3, np.arange(10) == 0)
    assert codes_of(quality.judge, NAME, "uint8") is None
    pixels = np.random.default_rng(0).integers(0, 10, (64, 64), dtype=np.uint8)
    counts = ChipCounts(quality, 32, 2, 2, "a.tif: not a valid quality band")
    counts.add(0, 0, {NAME: pixels})
    np.testing.assert_array_equal(counts.shares()[0], expected(pixels == 3, 32))
    with pytest.raises(InputError, match=r"a\.tif: not a valid quality band \(index 10 is out of bounds"):
        counts.add(0, 0, {NAME: pixels + np.uint8(1)})


def test_several_assets_are_judged_together() -> None:
    generator = np.random.default_rng(2)
    vv, vh = (generator.normal(0.1, 0.1, (96, 64)).astype(np.float32) for _ in range(2))
    counts = ChipCounts(PLATFORMS["sentinel-1-rtc"].quality, 32, 3, 2, "")
    for top in (0, 32, 64):
        counts.add(top, 0, {"vv": vv[top : top + 32], "vh": vh[top : top + 32]})
    cloud, nodata = counts.shares()
    assert not cloud.any()
    np.testing.assert_array_equal(nodata, expected(~((vv > 0) & (vh > 0)), 32))
