"""The planet's imagery looks realistic: land cover, clouds, shadows, and the same ground for all sensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.warp import transform

from clay_assets.demo.linz import SURVEYS
from clay_assets.demo.planet import Planet
from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, MODIS, NAIP, SENTINEL_2
from clay_assets.stac import Item

TREES, MEADOWS, CROPS, TOWN, BARE = 10, 30, 40, 50, 60  # WorldCover codes
WATER, SNOW, CLOUD, CLEAR = 6, 11, 9, (4, 5)  # SCL codes
DEEP_IN = 0.02  # degrees; cells are 0.05° wide with displaced borders: this far inside only one class occurs
COLOURS = ("red", "green", "blue")


def _read(item: dict[str, Any], names: Sequence[str], offset: int = 0) -> NDArray[Any]:
    """Reflectance of bands at 10 m, (bands, height, width), whose digital numbers include an offset."""
    bands = []
    for name in names:
        with rasterio.open(item["assets"][name]["href"]) as src:
            pixels = src.read(1)
            assert pixels.min() > offset  # lower values would be nodata
            pixels -= np.uint16(offset)
            factor = round(src.res[0] / 10)
            bands.append(pixels.repeat(factor, axis=0).repeat(factor, axis=1) / 10_000)
    return np.stack(bands)


def _scl(item: dict[str, Any]) -> NDArray[Any]:
    with rasterio.open(item["assets"]["scl"]["href"]) as src:
        return src.read(1).repeat(2, axis=0).repeat(2, axis=1)


def _cover(planet: Planet, item: dict[str, Any], deep_in: Any = DEEP_IN) -> NDArray[Any]:
    """WorldCover code of each pixel at 10 m from the planet's rasters; 0 if several occur nearby."""
    with rasterio.open(item["assets"]["red"]["href"]) as src:
        x = src.bounds.left + (np.arange(src.width) + 0.5) * src.res[0]
        y = src.bounds.top - (np.arange(src.height) + 0.5) * src.res[1]
        places = np.meshgrid(x[::10], y[::10])
        lon, lat = (np.array(v) for v in transform(src.crs, "EPSG:4326", *(p.ravel() for p in places)))
    found = []
    for east in (-deep_in, 0, deep_in):
        for north in (-deep_in, 0, deep_in):
            codes = np.zeros(lon.size, np.uint8)
            for path in planet.worldcover.iterdir():
                with rasterio.open(path) as src:
                    rows = np.floor((src.bounds.top - lat - north) / src.res[1]).astype(int)
                    columns = np.floor((lon + east - src.bounds.left) / src.res[0]).astype(int)
                    inside = (rows >= 0) & (rows < src.height) & (columns >= 0) & (columns < src.width)
                    if inside.any():
                        codes[inside] = src.read(1)[rows[inside], columns[inside]]
            found.append(codes)
    same = np.where(np.ptp(found, axis=0) == 0, found[0], 0).reshape(places[0].shape)
    return same.repeat(10, axis=0).repeat(10, axis=1)


@pytest.fixture(scope="module")
def clear(planet: Planet) -> dict[str, Item]:
    """One item without clouds per Sentinel-2 place: it uses the place's bands."""
    found: dict[str, Item] = {}
    for item in planet.items(SENTINEL_2):
        site = item["id"].split("_")[1].zfill(5)
        if f"/{site}/" in item["assets"]["red"]["href"] and "scl" in item["assets"]:
            found.setdefault(site, item)
    assert len(found) == 10
    return found


@pytest.fixture(scope="module")
def spectra(planet: Planet, clear: dict[str, Item]) -> dict[tuple[str, int], NDArray[Any]]:
    """(what, reflectance in red, green, blue and near infrared) of clear pixels, by land cover and by SCL."""
    by: dict[tuple[str, int], list[NDArray[Any]]] = {}
    for item in clear.values():
        bands, scl, cover = _read(item, (*COLOURS, "nir")), _scl(item), _cover(planet, item)
        for code in (WATER, SNOW):
            by.setdefault(("scl", code), []).append(bands[:, scl == code])
        land = np.isin(scl, CLEAR)
        for code in (TREES, MEADOWS, CROPS, BARE):
            by.setdefault(("cover", code), []).append(bands[:, land & (cover == code)])
        # Towns are single cells.
        by.setdefault(("cover", TOWN), []).append(bands[:, land & (_cover(planet, item, DEEP_IN / 2) == TOWN)])
    return {what: np.concatenate(values, axis=1) for what, values in by.items()}


def test_each_land_cover_has_its_colours(spectra: dict[Any, Any]) -> None:
    for what, values in spectra.items():
        assert values.shape[1] > 20_000, what
    middle = {what: np.median(values, axis=1) for what, values in spectra.items()}
    red, green, blue, nir = middle["cover", TREES]
    assert green > 1.5 * red
    assert green > 1.5 * blue
    assert green < 0.06  # dark
    assert nir > 8 * red
    red, green, blue, nir = middle["cover", MEADOWS]
    assert green > 1.2 * red
    assert green > middle["cover", TREES][1]
    red, green, blue, nir = middle["scl", WATER]
    assert blue > green > red > nir
    assert blue > 2 * red
    assert blue < 0.1
    red, green, blue, nir = middle["cover", BARE]
    assert red > green > blue > 0.05
    assert middle["scl", SNOW].min() > 0.6
    assert np.ptp(middle["scl", SNOW][:3]) < 0.08


def test_fields_are_of_many_colours_and_towns_are_grey(spectra: dict[Any, Any]) -> None:
    red, green, blue, nir = spectra["cover", CROPS]
    greenness = (nir - red) / (nir + red)
    assert 0.2 < (greenness > 0.6).mean() < 0.8
    assert 0.2 < (greenness < 0.4).mean() < 0.8
    # A field has one colour, so neighbouring pixels are mostly similar.
    assert len(np.unique(np.round(spectra["cover", CROPS][:3, ::97], 3), axis=1).T) > 20
    red, green, blue, nir = spectra["cover", TOWN]
    assert np.median(np.ptp([red, green, blue], axis=0) / green) < 0.35
    assert np.median(red) > 1.5 * np.median(spectra["cover", TREES][0])


def test_clouds_are_where_the_quality_raster_has_them(planet: Planet, clear: dict[Any, Any]) -> None:
    cloudy = [item for item in planet.items(SENTINEL_2) if f"/{item['id']}/" in item["assets"]["red"]["href"]]
    assert {item["properties"]["datetime"][:4] for item in cloudy} == {"2021", "2022", "2023"}
    assert len({item["id"].split("_")[1] for item in cloudy}) == 10
    offsets = planet.radiometry().set_index("item_id").offset
    shaded = 0
    for item in cloudy[::7]:
        assert {name for name, asset in item["assets"].items() if f"/{item['id']}/" in asset["href"]} == {
            *COLOURS,
            "scl",
        }
        seen, scl = _read(item, COLOURS, offsets[item["id"]]), _scl(item)
        below = _read(clear[item["id"].split("_")[1].zfill(5)], COLOURS)
        core, open_ground = seen[:, scl == CLOUD], np.isin(scl, CLEAR)
        white = (core.min(axis=0) > 0.4) & (np.ptp(core, axis=0) < 0.1)
        assert white.mean() > 0.8, item["id"]
        assert (np.abs(seen - below)[:, open_ground].max(axis=0) < 0.005).mean() > 0.6, item["id"]
        assert (seen[:, open_ground].min(axis=0) > 0.4).mean() < 0.02, item["id"]
        # Edges are soft: many pixels are neither ground nor cloud.
        edge = np.isin(scl, (8, 10))
        assert (np.abs(seen[0, edge] - below[0, edge]) > 0.05).mean() > 0.4
        shaded += (seen < 0.75 * below).all(axis=0).mean() > 0.005
    assert shaded >= len(cloudy[::7]) - 2


def test_scenes_that_nobody_takes_share_the_bands_of_their_place(planet: Planet) -> None:
    for collection in (SENTINEL_2, LANDSAT_L1, LANDSAT_L2):
        for item in planet.items(collection):
            own = f"/{item['id']}/" in item["assets"]["red"]["href"]
            cover = item["properties"]["eo:cloud_cover"]
            assert not (own and cover > 65), item["id"]
            assert not (own and item["properties"]["view:sun_elevation"] < 0)


@pytest.mark.parametrize(("collection", "gain", "offset"), [(LANDSAT_L1, 40_000, 5_000), (LANDSAT_L2, 36_364, 7_273)])
def test_landsat_numbers_are_in_the_range_of_their_level(
    planet: Planet, collection: Any, gain: int, offset: int
) -> None:
    """Level 1 (reflectance × sine of the sun's elevation + 0.1) / 0.00002, level 2 (reflectance + 0.2) / 0.0000275."""
    seen, brightest = set(), []
    for item in planet.items(collection)[::9]:
        for name in ("red", "green", "blue", "nir08", "swir16", "swir22"):
            href = item["assets"][name]["href"]
            if href in seen:
                continue
            seen.add(href)
            with rasterio.open(href) as src:
                reflectance = (src.read(1) - float(offset)) / gain
            assert -0.001 <= reflectance.min() < 0.1, href
            assert reflectance.max() <= 1.01, href
            brightest.append(reflectance.max())
    assert len(seen) > 30
    assert np.median(brightest) > 0.2


def test_level_1_is_seen_through_blue_air(planet: Planet) -> None:
    by_id = {item["id"].replace("_SR", "").replace("L2SP", "L1TP"): item for item in planet.items(LANDSAT_L2)}
    item = next(one for one in planet.items(LANDSAT_L1) if one["id"] in by_id)
    haze = []
    for name in COLOURS:
        with (
            rasterio.open(item["assets"][name]["href"]) as above,
            rasterio.open(by_id[item["id"]]["assets"][name]["href"]) as ground,
        ):
            haze.append(np.percentile((above.read(1) - 5_000) / 40_000 - (ground.read(1) * 0.0000275 - 0.2), 1))
    assert haze[2] > haze[1] > haze[0] > -0.02
    assert haze[2] > 0.015


def test_modis_shows_its_clouds_in_the_months_that_the_recipe_takes(planet: Planet) -> None:
    white, clear = [], []
    for item in planet.items(MODIS):
        if item["properties"]["start_datetime"][:7] != "2023-07" or item["properties"]["platform"] != "terra":
            continue
        read = []
        for name in ("sur_refl_b01", "sur_refl_b04", "sur_refl_b03"):
            with rasterio.open(item["assets"][name]["href"]) as src:
                read.append(src.read(1))
        with rasterio.open(item["assets"]["sur_refl_state_500m"]["href"]) as src:
            state = src.read(1) & 3
            fill = src.read(1) == 65535
        bands = np.stack(read)
        valid = (bands != -28672).all(axis=0) & ~fill
        assert ((bands[:, valid] >= 0) & (bands[:, valid] <= 10_000)).all()
        white.append((bands[:, valid & (state == 1)].min(axis=0) > 4_000).mean())
        clear.append((bands[:, valid & (state == 0)].min(axis=0) > 4_000).mean())
    assert len(white) >= 4
    assert min(white) > 0.8
    assert max(clear) < 0.06  # snow


def test_neighbouring_aerial_images_show_the_same_ground(planet: Planet) -> None:
    images: dict[str, list[str]] = {}
    for item in planet.items(NAIP):
        if item["properties"]["naip:state"] == "al":
            images.setdefault(item["properties"]["datetime"], []).append(item["assets"]["image"]["href"])
    assert len(images) == 3
    for west, east in map(sorted, images.values()):
        with rasterio.open(west) as one, rasterio.open(east) as other:
            shift = round((other.bounds.left - one.bounds.left) / one.res[0])
            down = round((one.bounds.top - other.bounds.top) / one.res[1])
            assert down == 0
            left, right = one.read()[:, :, shift:], other.read()[:, :, : one.width - shift]
        assert left.shape[2] > 100
        assert (left == right).all(axis=0).mean() > 0.999
        assert left[1].std() > 10  # and the image is not uniform


def test_surveys_of_one_place_show_the_same_houses(planet: Planet) -> None:
    summer, winter = (
        Path(planet.linz) / next(one.path for one in SURVEYS if one.slug.startswith(name))
        for name in ("tauranga_", "tauranga-winter_")
    )
    same = sorted({path.name for path in summer.glob("*.tiff")} & {path.name for path in winter.glob("*.tiff")})
    looks = set()
    for name in same[:6]:
        with rasterio.open(summer / name) as one, rasterio.open(winter / name) as other:
            before, after = one.read(), other.read()
        both = (before[3] > 0) & (after[3] > 0)
        assert (before[:3, both] == after[:3, both]).all()
        looks.add(before[:3].tobytes())
    assert len(looks) == 6


def test_naip_has_green_woods_brown_soil_and_grey_streets(planet: Planet) -> None:
    pixels = []
    for href in sorted({item["assets"]["image"]["href"] for item in planet.items(NAIP)}):
        with rasterio.open(href) as src:
            pixels.append(src.read([1, 2, 3, 4])[:, ::5, ::5].reshape(4, -1))
    red, green, blue, nir = (band.astype(float) for band in np.concatenate(pixels, axis=1))
    known = red + green + blue > 0  # otherwise it is nodata
    green_plants = known & (green > 1.15 * red) & (green > 1.15 * blue)
    assert green_plants.sum() > 0.2 * known.sum()
    assert np.median(nir[green_plants]) > 2 * np.median(red[green_plants])
    assert (known & (red > 1.15 * green) & (green > blue)).sum() > 0.05 * known.sum()
    grey = known & (np.ptp([red, green, blue], axis=0) < 0.15 * green) & (green > 90)
    assert grey.sum() > 0.05 * known.sum()
