"""The planet's Sentinel-1 scenes cover every case that a search can meet, and their pixels match their metadata."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely

from clay_assets.demo.grid import tile
from clay_assets.demo.planet import Planet
from clay_assets.demo.sentinel_1 import SENTINEL_1_QUARTERS, TILES
from clay_assets.demo.sites import SENTINEL_1
from clay_assets.stac import Item

CHIP = 256


@pytest.fixture(scope="module")
def items(planet: Planet) -> list[dict[str, Any]]:
    return planet.items(SENTINEL_1)


def _tile(item: dict[str, Any]) -> str:
    return next(iter(item["assets"].values()))["href"].split("/")[-2].split("_")[0]


def _overlap(item: dict[str, Any], name: str) -> float:
    """Share of a scene's area that is inside a tile, in the tile's CRS."""
    one = tile(name)
    to_utm = pyproj.Transformer.from_crs(4326, one.epsg, always_xy=True)
    shape = shapely.transform(
        shapely.geometry.shape(item["geometry"]), lambda xy: np.column_stack(to_utm.transform(xy[:, 0], xy[:, 1]))
    )
    square = shapely.box(one.left, one.top - 109_800, one.left + 109_800, one.top)
    return shapely.intersection(shape, square).area / shape.area


def _quarters(items: list[dict[str, Any]]) -> Any:
    found = defaultdict(list)
    for item in items:
        when = item["properties"]["datetime"]
        found[_tile(item), int(when[:4]), (int(when[5:7]) + 2) // 3].append(item)
    return found


def _empty(item: dict[str, Any]) -> Any:
    mask = False
    for asset in item["assets"].values():
        with rasterio.open(asset["href"]) as src:
            mask = mask | ~(src.read(1) > 0)
    return mask


def test_files_are_gamma_nought_on_the_stated_grid(items: list[Item]) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for item in items:
        properties = item["properties"]
        assert sorted(item["assets"]) == sorted(p.lower() for p in properties["sar:polarizations"])
        assert properties["start_datetime"][10] == " "
        for asset in item["assets"].values():
            seen.setdefault(asset["href"], properties)
    for href, properties in seen.items():
        with rasterio.open(href) as src:
            assert (src.dtypes, src.nodata, src.res) == (("float32",), -32768, (10, 10))
            assert src.crs.to_epsg() == properties["proj:epsg"]
            assert list(src.shape) == properties["proj:shape"]
            assert list(src.transform) == properties["proj:transform"]
            assert list(src.bounds) == properties["proj:bbox"]
            pixels = src.read(1)
            assert 0.001 < np.nanmedian(pixels) < 0.5
    assert {properties["proj:epsg"] // 100 for properties in seen.values()} == {326, 327}


def test_chip_truth_is_what_the_files_hold(planet: Planet, items: list[Item]) -> None:
    known, kinds = {}, set()
    for item in items:
        files = tuple(asset["href"] for asset in item["assets"].values())
        if files not in known:
            mask = _empty(item)[: 2 * CHIP, : 3 * CHIP]
            known[files] = mask.reshape(2, CHIP, 3, CHIP).mean(axis=(1, 3)).ravel()
        truth = planet.chip_truth(item["id"])
        np.testing.assert_array_equal(truth["nodata_percentage"], known[files])
        assert not truth["cloud_cover_percentage"].any()
        kinds |= {"none" if n == 0 else "half" if n == 0.5 else "less" if n < 0.5 else "more" for n in known[files]}
    assert kinds == {"none", "less", "half", "more"}


def test_each_band_alone_has_pixels_without_data(items: list[Item]) -> None:
    item = next(i for i in items if "_speckle" in i["assets"].get("vh", {"href": ""})["href"])
    bands = []
    for key in ("vv", "vh"):
        with rasterio.open(item["assets"][key]["href"]) as src:
            bands.append(src.read(1) <= 0)
    assert bands[0].any()
    assert bands[1].any()
    assert not (bands[0] & bands[1]).any()


def test_nodata_comes_as_the_tag_as_nan_and_as_zero_or_less(items: list[Item]) -> None:
    seen = set()
    for href in {item["assets"]["vv"]["href"] for item in items if "vv" in item["assets"]}:
        with rasterio.open(href) as src:
            pixels = src.read(1)
        seen |= {name for name, mask in (("tag", pixels == -32768), ("nan", np.isnan(pixels))) if mask.any()}
        seen |= {name for name, mask in (("0", pixels == 0), ("less", (pixels < 0) & (pixels > -1))) if mask.any()}
    assert seen == {"tag", "nan", "0", "less"}


def test_each_kind_of_quarter_offers_what_it_says(planet: Planet, items: list[Item]) -> None:
    offered = _quarters(items)
    kinds = planet.quarters()
    kinds = kinds[kinds["family"] == "sentinel-1"]
    assert sorted(set(kinds["site"])) == sorted(TILES)
    assert (kinds.groupby("site").size() == 24).all()
    row: Any
    for row in kinds.itertuples():
        found = offered[row.site, row.year, row.quarter]
        assert len(found) == len(SENTINEL_1_QUARTERS[row.kind][1])
        found.sort(key=lambda item: item["properties"]["datetime"])
        whole = [_overlap(item, row.site) > 0.999 for item in found]
        modes = [(i["properties"]["sar:instrument_mode"], *i["properties"]["sar:polarizations"]) for i in found]
        dual = ("IW", "VV", "VH")
        if row.kind == "edge_first":
            assert (whole, modes) == ([False, True], [dual, dual])
        elif row.kind == "equal_overlap":
            assert (whole, modes) == ([True, True, False], [dual] * 3)
            assert found[0]["geometry"] == found[1]["geometry"]
            assert found[0]["properties"]["datetime"] < found[1]["properties"]["datetime"]
        elif row.kind == "single_polarization":
            assert modes == [("IW", "VV"), dual]
        elif row.kind == "only_extra_wide":
            assert modes == [("EW", "HH", "HV")]


def test_scenes_at_an_edge_are_partly_inside(items: list[Item]) -> None:
    shares = [_overlap(item, _tile(item)) for item in items if "_edge_" in next(iter(item["assets"].values()))["href"]]
    assert len(shares) > 50
    assert min(shares) > 0.3
    assert max(shares) < 0.5


def test_one_place_crosses_the_antimeridian(items: list[Item]) -> None:
    crossing = [item for item in items if item["geometry"]["type"] == "MultiPolygon"]
    assert {_tile(item) for item in crossing} == {"01KAB"}
    assert all(item["bbox"][0] > item["bbox"][2] for item in crossing)
