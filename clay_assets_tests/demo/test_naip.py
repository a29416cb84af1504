"""The planet's NAIP images are in NAD83, mask nodata in every possible way, and overlap like real ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from clay_assets.demo.naip import PLACES
from clay_assets.demo.planet import Planet
from clay_assets.demo.sites import NAIP
from clay_assets.stac import Item

CHIP = 256


@pytest.fixture(scope="module")
def items(planet: Planet) -> list[dict[str, Any]]:
    return planet.items(NAIP)


def test_files_are_on_the_stated_grid(items: list[Item]) -> None:
    for item in items:
        properties = item["properties"]
        with rasterio.open(item["assets"]["image"]["href"]) as src:
            assert src.crs.to_epsg() == properties["proj:epsg"]
            assert list(src.shape) == properties["proj:shape"]
            assert list(src.transform) == pytest.approx(properties["proj:transform"])
            assert list(src.bounds) == pytest.approx(properties["proj:bbox"])
            assert src.res == (properties["gsd"], properties["gsd"])
            assert (set(src.dtypes), src.interleaving.name, src.block_shapes[0]) == ({"uint8"}, "pixel", (256, 256))
            assert src.colorinterp[:3] == tuple(rasterio.enums.ColorInterp[c] for c in ("red", "green", "blue"))
    assert {i["properties"]["proj:epsg"] for i in items} == {26911, 26913, 26914, 26916, 26918}
    assert {i["properties"]["gsd"] for i in items} == {0.6, 1.0}


def test_chip_truth_is_what_the_files_mask(planet: Planet, items: list[Item]) -> None:
    masked = 0
    for item in items:
        with rasterio.open(item["assets"]["image"]["href"]) as src:
            # GDAL does not derive a mask from the alpha of five bands, but identifies the alpha band.
            mask = (src.read(5) if src.colorinterp[-1].name == "alpha" else src.dataset_mask()) == 0
        down, across = mask.shape[0] // CHIP, mask.shape[1] // CHIP
        shares = mask[: down * CHIP, : across * CHIP].reshape(down, CHIP, across, CHIP).mean(axis=(1, 3)).ravel()
        truth = planet.chip_truth(item["id"])
        np.testing.assert_array_equal(truth["nodata_percentage"], shares)
        assert not truth["cloud_cover_percentage"].any()
        masked += bool(shares.max() > 0.5 and shares.min() == 0)
    assert masked == 3


def test_nodata_is_told_by_tag_by_mask_and_by_alpha(items: list[Item]) -> None:
    ways = Counter[str]()
    for item in items:
        with rasterio.open(item["assets"]["image"]["href"]) as src:
            flags = {flag.name for flag in src.mask_flag_enums[0]}
            ways["alpha" if src.count == 5 else "none" if "all_valid" in flags else "+".join(sorted(flags))] += 1
    assert {name: ways[name] for name in ("alpha", "nodata", "per_dataset")} == {
        "alpha": 1,
        "nodata": 1,
        "per_dataset": 1,
    }
    assert ways["none"] == len(items) - 3


def test_places_have_one_to_four_years(items: list[Item]) -> None:
    years = defaultdict(set)
    for item in items:
        assert item["properties"]["naip:year"] == item["properties"]["datetime"][:4]
        years[item["properties"]["naip:state"]].add(item["properties"]["naip:year"])
    assert {place.state for place in PLACES} == set(years)
    assert sorted(map(len, years.values()))[0] == 1
    assert max(map(len, years.values())) == 4
    assert {item["properties"]["datetime"][10:] for item in items} == {"T00:00:00Z", "T16:00:00Z"}
    assert {item["stac_version"] for item in items} == {"1.0.0", "1.0.0-beta.2"}


def test_two_images_of_one_date_overlap(items: list[Item]) -> None:
    by_date = defaultdict(list)
    for item in items:
        if item["properties"]["naip:state"] == "al":
            by_date[item["properties"]["datetime"]].append(shapely.geometry.shape(item["geometry"]))
    assert len(by_date) == 3
    for one, other in by_date.values():
        shared = shapely.intersection(one, other).area / one.area
        assert 0.05 < shared < 0.3


def test_place_of_a_quad_is_in_all_its_images(items: list[Item]) -> None:
    for place in PLACES:
        shapes = [shapely.geometry.shape(i["geometry"]) for i in items if i["properties"]["naip:state"] == place.state]
        assert all(shape.intersects(shapely.Point(place.lon + 1e-4, place.lat)) for shape in shapes)
