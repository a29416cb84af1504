"""The planet is reproducible, and its statements about pixels are true."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from clay_assets.demo.calendar import LANDSAT_QUARTERS, SENTINEL_2_QUARTERS, Draft, quarter_kinds
from clay_assets.demo.grid import tiles
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.modis import PUBLISHED, REFERENCE
from clay_assets.demo.planet import MARKER, Planet, make_planet
from clay_assets.demo.sites import COLLECTIONS, LANDSAT_L1, LANDSAT_L2, MODIS, SENTINEL_2, sentinel_2_sites
from clay_assets.errors import InputError, StorageError
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.stac import Item

SCL_CLOUD = (1, 3, 8, 9, 10)
QA_CLOUD = 0b11010  # bits 1, 3, 4


def _by_path(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tif*"))}


@pytest.fixture(scope="module")
def second(planet: Planet, tmp_path_factory: pytest.TempPathFactory) -> Planet:
    """The same seed in another folder, started on the remains of an interrupted build."""
    folder = tmp_path_factory.mktemp("second") / "planet"
    (folder / "imagery" / "debris").mkdir(parents=True)
    (folder / "truth").mkdir()
    (folder / MARKER).write_text('{"generator":')
    (folder / "mine.txt").write_text("not of the planet")
    return make_planet(folder, planet.seed)


def test_same_seed_same_planet(planet: Planet, second: Planet) -> None:
    for name in COLLECTIONS:
        there = json.dumps(second.items(name)).replace(str(second.folder), "")
        assert there == json.dumps(planet.items(name)).replace(str(planet.folder), "")
    rasters = _by_path(second.folder)
    assert len(rasters) > 1000
    assert rasters == _by_path(planet.folder)
    for folder in ("linz", "natural_earth"):
        theirs, ours = (
            {p.relative_to(one.folder): p for p in (one.folder / folder).rglob("*")} for one in (second, planet)
        )
        assert set(theirs) == set(ours)
        assert all(path.is_dir() or path.read_bytes() == ours[name].read_bytes() for name, path in theirs.items())
    assert second.grid.read_bytes() == planet.grid.read_bytes()
    for item in planet.items(SENTINEL_2)[::50]:
        assert second.chip_truth(item["id"]).equals(planet.chip_truth(item["id"]))


def test_another_seed_another_planet(planet: Planet) -> None:
    site = sentinel_2_sites()[0]
    kept, other = (quarter_kinds(seed, "sentinel-2", site) for seed in (planet.seed, planet.seed + 1))
    assert kept != other
    assert sorted(kept.values()) == sorted(other.values())
    shares = LandCover(planet.seed + 1, tiles()).shares()
    assert not shares.equals(planet.class_shares())
    assert not set(WORLDCOVER_CLASSES.values()) - set(shares.columns[(shares != 0).any()])


def test_half_made_planet_is_made_again(second: Planet) -> None:
    assert not (second.folder / "imagery" / "debris").exists()
    assert (second.folder / "mine.txt").exists()


def test_finished_planet_is_left_alone(second: Planet) -> None:
    before = {path: path.stat().st_mtime_ns for path in second.folder.rglob("*")}
    assert make_planet(second.folder, second.seed) == second
    assert {path: path.stat().st_mtime_ns for path in second.folder.rglob("*")} == before


def test_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="file/planet"):
        make_planet(blocked / "planet")


def test_it_is_small(planet: Planet) -> None:
    assert sum(path.stat().st_size for path in planet.folder.rglob("*") if path.is_file()) < 200e6


def test_environment_points_at_what_is_there(planet: Planet) -> None:
    environment = planet.environment()
    assert set(environment) == {
        "CLAY_MGRS_GRID",
        "CLAY_WORLDCOVER",
        "CLAY_STAC_EARTH_SEARCH",
        "CLAY_STAC_USGS",
        "CLAY_STAC_PLANETARY_COMPUTER",
        "CLAY_NATURAL_EARTH",
        "CLAY_LINZ_CATALOG",
        "CLAY_RECIPE",
    }
    assert all(Path(value).is_absolute() and Path(value).exists() for value in environment.values())


def _read_chips(item: Item, asset: str, chip: int) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(item["assets"][asset]["href"]) as src:
        codes = src.read(1)
    cloud = np.isin(codes, SCL_CLOUD) if asset == "scl" else (codes & QA_CLOUD) != 0
    nodata = codes == 0 if asset == "scl" else (codes & 1) == 1
    down, across = codes.shape[0] // chip, codes.shape[1] // chip

    def per_chip(mask: np.ndarray) -> np.ndarray:
        whole = mask[: down * chip, : across * chip]
        return whole.reshape(down, chip, across, chip).mean(axis=(1, 3)).ravel()

    return per_chip(cloud), per_chip(nodata)


@pytest.mark.parametrize("collection", [SENTINEL_2, LANDSAT_L1, LANDSAT_L2])
def test_chip_truth_is_what_the_rasters_hold(planet: Planet, collection: Any) -> None:
    asset, chip = ("scl", 128) if collection == SENTINEL_2 else ("qa_pixel", 256)
    checked = [item for item in planet.items(collection) if asset in item["assets"]]
    assert len(checked) > 200
    for item in checked:
        truth = planet.chip_truth(item["id"])
        cloud, nodata = _read_chips(item, asset, chip)
        np.testing.assert_array_equal(truth["cloud_cover_percentage"], cloud, err_msg=item["id"])
        np.testing.assert_array_equal(truth["nodata_percentage"], nodata, err_msg=item["id"])
        across = truth["chip_index_x"].max() + 1
        np.testing.assert_array_equal(truth.index, truth["chip_index_y"] * across + truth["chip_index_x"])


def test_chips_are_those_of_256_pixels_of_the_finest_grid(planet: Planet) -> None:
    item = planet.items(SENTINEL_2)[0]
    height, width = item["assets"]["red"]["proj:shape"]
    truth = planet.chip_truth(item["id"])
    assert (height, width) == (1100, 1100)
    assert (truth["chip_index_x"].max(), truth["chip_index_y"].max()) == (width // 256 - 1, height // 256 - 1)


def test_recipe_names_what_the_planet_has(planet: Planet) -> None:
    recipe = tomllib.loads(Path(planet.environment()["CLAY_RECIPE"]).read_text(encoding="utf-8"))
    assert recipe["name"] == "demo"
    assert recipe["platforms"]["linz"]["surveys"] == list(planet.linz_surveys)
    assert recipe["platforms"]["modis"]["published_tiles"] == [list(tile) for tile in PUBLISHED]
    assert recipe["platforms"]["modis"]["reference_date"] == REFERENCE


def test_item_without_chip_truth_is_an_error_that_names_it(planet: Planet) -> None:
    name = planet.items(MODIS)[0]["id"]
    with pytest.raises(InputError, match=name):
        planet.chip_truth(name)


def test_unknown_item_or_collection_is_an_error_that_names_it(planet: Planet) -> None:
    with pytest.raises(InputError, match="S2X"):
        planet.chip_truth("S2X")
    with pytest.raises(InputError, match="modis"):
        planet.items("modis")


def test_stated_cloud_cover_is_that_of_the_drawing(planet: Planet) -> None:
    """Only cloud, without shadow, as a share of valid pixels; a drawing cannot state −1."""
    for item in planet.items(SENTINEL_2)[::9]:
        if "scl" not in item["assets"]:
            continue
        with rasterio.open(item["assets"]["scl"]["href"]) as src:
            codes = src.read(1)
        properties = item["properties"]
        assert properties["eo:cloud_cover"] == pytest.approx(
            100 * np.isin(codes, (8, 9, 10)).sum() / (codes != 0).sum(), abs=1e-5
        )
        assert properties["s2:nodata_pixel_percentage"] == pytest.approx(100 * (codes == 0).mean(), abs=1e-5)
    for item in planet.items("landsat-c2l2-sr")[::9]:
        with rasterio.open(item["assets"]["qa_pixel"]["href"]) as src:
            codes = src.read(1)
        if item["properties"]["eo:cloud_cover"] != -1:
            cloud = ((codes & 8) != 0).sum() / ((codes & 1) == 0).sum()
            assert item["properties"]["eo:cloud_cover"] == pytest.approx(100 * cloud, abs=0.01)


def test_quality_codes_occur(planet: Planet) -> None:
    seen: set[int] = set()
    for item in planet.items(SENTINEL_2)[:150]:
        if "scl" in item["assets"]:
            with rasterio.open(item["assets"]["scl"]["href"]) as src:
                seen |= set(np.unique(src.read(1)).tolist())
    assert seen == set(range(12))
    bits = 0
    for item in planet.items("landsat-c2l1")[:80]:
        with rasterio.open(item["assets"]["qa_pixel"]["href"]) as src:
            codes = src.read(1)
        assert not (codes[(codes & 1) == 1] != 1).any()
        bits |= int(np.bitwise_or.reduce(codes, axis=None))
    assert bits & 0b11111111 == 0b11111111  # fill, dilated, cirrus, cloud, shadow, snow, clear, water


def test_each_kind_of_quarter_offers_what_it_says(planet: Planet) -> None:
    kinds = planet.quarters()
    for family, table, collection in (
        ("sentinel-2", SENTINEL_2_QUARTERS, SENTINEL_2),
        ("landsat", LANDSAT_QUARTERS, "landsat-c2l1"),
    ):
        of_family = kinds[kinds["family"] == family]
        counts = of_family.groupby(["site", "kind"]).size().unstack()
        expected: dict[str, int] = {kind: times for kind, (times, _) in table.items()}
        assert (counts == [expected[kind] for kind in counts.columns]).all().all()
        dates: dict[str, tuple[Draft, ...]] = {kind: drafts for kind, (_, drafts) in table.items()}
        assert len(planet.items(collection)) == sum(len(dates[kind]) for kind in of_family["kind"])
