"""Overviews are read from files written here, and their pixels decide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import from_origin

from clay_assets.platforms import platform_of
from clay_assets.platforms.offsets import LEAST, radiometric_offset
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.platforms.sentinel_2_radiometry import BANDS
from clay_assets.sources.cog import BlockReader, read_header
from clay_assets.stac import Item
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item

PLATFORM = platform_of(SENTINEL_2)


def ground(seed: int, side: int) -> NDArray[np.uint16]:
    """Bright ground with a dark lake in the middle, a fifth as wide."""
    pixels = np.random.default_rng(seed).integers(2500, 3500, (side, side)).astype(np.uint16)
    lake = slice(side * 2 // 5, side * 3 // 5)
    pixels[lake, lake] = 50 + 10 * seed
    return pixels


def a_scene(folder: Path, offset: int, side: int = 700, factors: tuple[int, ...] = (2,), **properties: Any) -> Item:
    given = {"s2:processing_baseline": "05.09", **properties}
    item = sentinel_2_item("S2A_32NLG_20220501_0_L2A", "2022-05-01T10:00:00Z", **given)
    profile = {"width": side, "height": side, "count": 1, "dtype": "uint16", "nodata": 0, "crs": "EPSG:32632"}
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "DEFLATE"}
    for seed, name in enumerate(BANDS):
        path = folder / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", transform=from_origin(5e5, 1e5, 10, 10), **profile, **layout
        ) as sink:
            sink.write(ground(seed, side) + np.uint16(offset), 1)
            sink.build_overviews([*factors], Resampling.nearest)
        item["assets"][name] = {"href": str(path)}
    return item


def decided(item: Item, reader: BlockReader, **headers: Any) -> RadiometricOffset:
    return radiometric_offset(PLATFORM, item, headers, reader)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize(("side", "factors"), [(700, (2,)), (700, (2, 4)), (400, ()), (200, (2,)), (1500, ())], ids=str)
def test_the_pixels_of_the_files_decide(tmp_path: Path, offset: int, side: int, factors: tuple[int, ...]) -> None:
    """Whatever the flags; including small files without overviews, and large ones."""
    claims: dict[str, Any] = {"earthsearch:boa_offset_applied": offset == 1000}
    decision = decided(a_scene(tmp_path, offset, side, factors, **claims), BlockReader())
    assert (decision.offset, decision.evidence, set(decision.lows)) == (offset, "pixels", set(BANDS))


@pytest.mark.slow
def test_of_the_overviews_the_coarsest_that_is_large_enough_is_read(tmp_path: Path) -> None:
    item, reader = a_scene(tmp_path, 1000, 1300, (2, 4, 8)), BlockReader()
    overviews = {name: read_header(item["assets"][name]["href"]).overviews[1] for name in BANDS}
    assert {overview.width for overview in overviews.values()} == {325}
    assert 325 >= LEAST > 163
    assert decided(item, reader).offset == 1000
    assert reader.counters.blocks_decoded == sum(overview.block_count for overview in overviews.values())


def test_where_the_item_decides_no_file_is_opened(tmp_path: Path) -> None:
    earlier: dict[str, Any] = {"s2:processing_baseline": "02.14"}
    item, reader = a_scene(tmp_path, 1000, **earlier), BlockReader()
    for name in BANDS:
        (tmp_path / f"{name}.tif").unlink()
    assert (decided(item, reader).offset, reader.counters.requests) == (0, 0)


def test_headers_that_are_known_are_not_read_again(tmp_path: Path) -> None:
    item = a_scene(tmp_path, 1000)
    headers = {name: read_header(item["assets"][name]["href"]) for name in BANDS}
    reader = BlockReader()
    assert radiometric_offset(PLATFORM, item, headers, reader) == decided(item, BlockReader())
    (tmp_path / "red.tif").write_bytes((tmp_path / "blue.tif").read_bytes())  # detected by its version
    assert set(radiometric_offset(PLATFORM, item, headers, BlockReader()).lows) == {*BANDS} - {"red"}


def corrupt(path: Path) -> None:
    overview = read_header(str(path)).overviews[0]
    data = bytearray(path.read_bytes())
    start = int(overview.block_offsets[0])
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.slow
@pytest.mark.parametrize("harm", [corrupt, truncate, Path.unlink])
@pytest.mark.parametrize("harmed", [("green",), ("blue", "swir22")])
def test_bands_that_cannot_be_read_are_left_out(tmp_path: Path, harm: Any, harmed: tuple[str, ...]) -> None:
    item = a_scene(tmp_path, 1000)
    for name in harmed:
        harm(tmp_path / f"{name}.tif")
    del item["assets"]["nir"]
    decision = decided(item, BlockReader())
    assert (decision.offset, decision.evidence) == (1000, "pixels")
    assert set(decision.lows) == {*BANDS} - {*harmed, "nir"}


def test_without_any_band_the_flags_decide(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"earthsearch:boa_offset_applied": False}
    item = a_scene(tmp_path, 0, **flags)
    for name in BANDS:
        (tmp_path / f"{name}.tif").unlink()
    assert (decided(item, BlockReader()).offset, decided(item, BlockReader()).evidence) == (1000, "flags")


def test_other_platforms_have_no_offset() -> None:
    item: Mapping[str, Any] = {"id": "a", "properties": {}, "assets": {}}
    assert radiometric_offset(platform_of("naip"), dict(item), {}, BlockReader()) == RadiometricOffset(0, "default")
