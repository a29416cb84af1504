"""Which tiles of one composite have no nodata pixels: from a snapshot, from a STAC API, and over a bad network."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

import geopandas as gpd
import pytest

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.opening import open_catalogue
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.modis import ModisOptions
from clay_assets.platforms.request_table import requests_in
from clay_assets.recipes import load_recipe
from clay_assets.sampling.modis_grid import differences, sample_of, sin_grid, tile_polygon, tile_states
from clay_assets_tests.sampling.composites import composite, name_of, write_band
from clay_assets_tests.scenes.items import snapshot
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.stac_api import StacApi

MODIS = PLATFORMS["modis"]
THE_DAY = date(2023, 9, 22)  # the first day of a composite


# --- a world of composites --------------------------------------------------------------------------

COMPLETE, ONE_PIXEL, AQUA_ONLY, NO_FILE, CUT, WORSE_THAT_DAY, BETTER_THAT_DAY, OTHER_DAYS, NO_BAND = (
    (4, 18),
    (4, 19),
    (9, 26),
    (5, 10),
    (5, 11),
    (10, 20),
    (10, 21),
    (10, 22),
    (10, 23),
)
BEFORE, AFTER = date(2023, 9, 14), date(2023, 9, 30)
TRUTH = {  # expected outcome of each tile; all others have no item
    COMPLETE: ("complete", 0),
    ONE_PIXEL: ("with nodata", 1),
    WORSE_THAT_DAY: ("with nodata", 300),
    BETTER_THAT_DAY: ("complete", 0),
    AQUA_ONLY: ("no item", 0),
    OTHER_DAYS: ("no item", 0),
    NO_BAND: ("no item", 0),
    NO_FILE: ("failed", 0),
    CUT: ("failed", 0),
}


def world(folder: Path, root: str = "") -> list[dict[str, Any]]:
    """The composites of `TRUTH`; their rasters lie in a folder, which is served at `root`."""

    def band(tile: tuple[int, int], when: date, fill: int = 0, **given: Any) -> dict[str, Any]:
        path = write_band(folder / f"{name_of(*tile)}-{when}.tif", *tile, fill)
        return composite(*tile, when, f"{root}/{path.name}" if root else str(path), **given)

    items = [
        band(COMPLETE, THE_DAY),
        composite(*COMPLETE, THE_DAY, "/nowhere.tif", satellite="aqua"),
        band(ONE_PIXEL, THE_DAY, 1),
        band(AQUA_ONLY, THE_DAY, satellite="aqua"),
        band(NO_FILE, THE_DAY),
        band(CUT, THE_DAY),
        *(band(WORSE_THAT_DAY, when, 300 if when == THE_DAY else 0) for when in (BEFORE, THE_DAY, AFTER)),
        *(band(BETTER_THAT_DAY, when, 0 if when == THE_DAY else 300) for when in (BEFORE, THE_DAY, AFTER)),
        *(band(OTHER_DAYS, when) for when in (BEFORE, AFTER)),
        band(NO_BAND, THE_DAY, without=("sur_refl_b03",)),
    ]
    (folder / f"{name_of(*NO_FILE)}-{THE_DAY}.tif").unlink()
    cut = folder / f"{name_of(*CUT)}-{THE_DAY}.tif"
    cut.write_bytes(cut.read_bytes()[:1000])
    return items


def judged(catalogue: str | Callable[[], Catalogue], progress: Any = None, **options: Any) -> gpd.GeoDataFrame:
    """The states of all tiles, by name."""
    opened = (lambda: open_catalogue(catalogue, 8)) if isinstance(catalogue, str) else catalogue
    with ThreadPoolExecutor(4) as pool:
        tiles = tile_states(
            MODIS, opened, ModisOptions(**options), pool, 4, *([progress] if progress is not None else [])
        )
    assert tiles["name"].tolist() == sin_grid()["name"].tolist()
    return tiles.set_index("name", drop=False).rename_axis(None)


def outcomes(tiles: gpd.GeoDataFrame) -> dict[tuple[int, int], tuple[str, int]]:
    """Outcome and nodata pixels of each tile that has an item or failed."""
    rows = tiles[(tiles["outcome"] != "no item") | tiles["item_id"].notna()]
    return {(row.vertical, row.horizontal): (row.outcome, row.nodata_pixels) for row in rows.itertuples()}


@pytest.fixture
def made(tmp_path: Path) -> str:
    """A snapshot of the world."""
    return snapshot(tmp_path / "snapshot" / "modis.parquet", world(tmp_path / "images"))


@pytest.mark.slow
def test_each_tile_is_judged_by_the_composite_of_the_day(made: str) -> None:
    tiles = judged(made)
    assert outcomes(tiles) == {tile: found for tile, found in TRUTH.items() if found[0] != "no item"}
    assert (tiles["outcome"] == "no item").sum() == 460 - 6
    assert tiles.loc["h18v04", "item_id"] == "MOD09A1.A2023265.h18v04.061.2023276043514"
    assert tiles.loc["h20v10", "item_id"] == "MOD09A1.A2023265.h20v10.061.2023276043514"
    failed = tiles[tiles["error"].notna()]
    assert failed["name"].tolist() == ["h10v05", "h11v05"]
    assert "h10v05-2023-09-22.tif: file not found" in failed["error"].iloc[0]
    assert "h11v05-2023-09-22.tif: not a readable raster" in failed["error"].iloc[1]
    sample = sample_of(tiles)
    assert sample["name"].tolist() == ["h18v04", "h21v10"]
    assert list(sample.columns) == ["name", "vertical", "horizontal", "item_id", "geometry"]


@pytest.mark.slow
def test_the_sample_gives_requests_that_find_its_items(made: str) -> None:
    sample = sample_of(judged(made))
    options = ModisOptions(years=(2023, 2023), months=(9, 10))
    asked = requests_in(MODIS.rules.requests(sample, options, 42))
    found = {a.request.id: len(a.candidates) for a in open_catalogue(made, 8).search(MODIS, asked)}
    assert found == {"h18v04-2023-M09": 2, "h18v04-2023-M10": 0, "h21v10-2023-M09": 3, "h21v10-2023-M10": 0}


@pytest.mark.slow
@pytest.mark.parametrize("day", [date(2023, 9, 22), date(2023, 9, 25), date(2023, 9, 29)])
def test_a_composite_that_started_before_the_day_covers_it(made: str, day: date) -> None:
    assert outcomes(judged(made, reference_date=day))[WORSE_THAT_DAY] == ("with nodata", 300)


@pytest.mark.slow
@pytest.mark.parametrize("day", [date(2023, 9, 14), date(2023, 9, 21), date(2023, 9, 30), date(2023, 10, 7)])
def test_on_other_days_other_composites_count(made: str, day: date) -> None:
    found = outcomes(judged(made, reference_date=day))
    assert found == {
        WORSE_THAT_DAY: ("complete", 0),
        BETTER_THAT_DAY: ("with nodata", 300),
        OTHER_DAYS: ("complete", 0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("day", [date(2023, 9, 13), date(2023, 10, 8)])
def test_on_days_without_a_composite_there_is_none(made: str, day: date) -> None:
    assert outcomes(judged(made, reference_date=day)) == {}


@pytest.mark.slow
def test_of_two_composites_at_new_year_the_first_counts(tmp_path: Path) -> None:
    # The last composite of a year overlaps the first one of the next.
    old, new = (
        composite(4, 18, when, str(write_band(tmp_path / f"{when}.tif", 4, 18, fill)))
        for when, fill in ((date(2022, 12, 27), 0), (date(2023, 1, 1), 5))
    )
    for number, items in enumerate(([old, new], [new, old])):
        place = snapshot(tmp_path / f"{number}.parquet", items)
        for day, found in {
            date(2022, 12, 31): ("complete", 0),
            date(2023, 1, 3): ("complete", 0),
            date(2023, 1, 4): ("with nodata", 5),
        }.items():
            assert outcomes(judged(place, reference_date=day)) == {(4, 18): found}


@pytest.mark.slow
def test_the_band_is_that_of_the_recipe(tmp_path: Path) -> None:
    path = write_band(tmp_path / "b06.tif", 4, 18, 7)
    place = snapshot(tmp_path / "s.parquet", [composite(4, 18, THE_DAY, str(path), band="sur_refl_b06")])
    assert outcomes(judged(place, reference_band="sur_refl_b06")) == {(4, 18): ("with nodata", 7)}
    assert outcomes(judged(place)) == {(4, 18): ("failed", 0)}  # the file of the first band does not exist


@pytest.mark.slow
def test_progress_ends_with_every_tile(made: str) -> None:
    told: list[tuple[int, int]] = []
    judged(made, lambda done, total: told.append((done, total)))
    assert told == [(done, 460) for done in range(455, 461)]  # tiles with an item; the others were counted before


def test_an_empty_catalogue_samples_nothing(tmp_path: Path) -> None:
    tiles = judged(snapshot(tmp_path / "s.parquet", []))
    assert (tiles["outcome"] == "no item").all()
    sample = sample_of(tiles)
    assert len(sample) == 0
    assert len(MODIS.rules.requests(sample, ModisOptions(), 42)) == 0


# --- the published tiles ----------------------------------------------------------------------------


@pytest.mark.slow
def test_published_tiles_need_no_catalogue() -> None:
    def refuse() -> NoReturn:
        raise AssertionError("the catalogue was opened")

    options = load_recipe("clay_v1").options("modis")
    tiles = judged(refuse, tiles="published", published_tiles=options.published_tiles)
    assert tiles["outcome"].value_counts().to_dict() == {"published": 233, "not published": 227}
    assert tiles["item_id"].isna().all()
    assert tiles["error"].isna().all()
    sample = sample_of(tiles)
    assert len(sample) == 233
    assert sample["name"].is_monotonic_increasing
    assert sample.loc[sample["name"] == "h12v02", "geometry"].item().equals(tile_polygon(2, 12))
    assert differences(sample, options) == ([], [])
    assert len(MODIS.rules.requests(sample, options, 42)) == 233 * 72 == 16_776


@pytest.mark.slow
def test_how_the_computed_tiles_differ_from_the_published(made: str) -> None:
    sample = sample_of(judged(made))
    options = ModisOptions(published_tiles=((10, 21), (9, 1), (2, 12)))
    assert differences(sample, options) == (["h18v04"], ["h01v09", "h12v02"])
    assert differences(sample, ModisOptions(published_tiles=(COMPLETE, BETTER_THAT_DAY))) == ([], [])


# --- over the network -------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> FileServer:
    """A server of the files in `images`."""
    (tmp_path / "images").mkdir()
    return file_server(tmp_path / "images")


def test_one_read_per_tile(tmp_path: Path, web: FileServer, fault_proxy: Callable[[str], FaultProxy]) -> None:
    proxy = fault_proxy(web.url)
    items = [item for item in world(tmp_path / "images", proxy.url) if name_of(*CUT) not in item["id"]]
    tiles = judged(snapshot(tmp_path / "s.parquet", items))
    assert outcomes(tiles) == {tile: found for tile, found in TRUTH.items() if found[0] != "no item" and tile != CUT}
    assert f"{proxy.url}/h10v05-2023-09-22.tif: file not found" in tiles.loc["h10v05", "error"]
    # Nothing is requested twice, and no file of another satellite, day or band is read.
    asked = Counter((seen.path, seen.headers.get("range")) for seen in proxy.seen)
    assert set(asked.values()) == {1}
    read = (COMPLETE, ONE_PIXEL, NO_FILE, WORSE_THAT_DAY, BETTER_THAT_DAY)
    assert {path for path, _ in asked} == {f"/{name_of(*tile)}-{THE_DAY}.tif" for tile in read}


@pytest.mark.parametrize("fault", ["503", "reset", "truncate"])
def test_a_read_that_fails_is_made_again(
    tmp_path: Path, web: FileServer, fault_proxy: Callable[[str], FaultProxy], fault: str
) -> None:
    proxy = fault_proxy(web.url)
    items = [
        composite(*tile, THE_DAY, f"{proxy.url}/{write_band(tmp_path / 'images' / f'{fault}{n}.tif', *tile, n).name}")
        for n, tile in enumerate((COMPLETE, ONE_PIXEL))
    ]
    if fault.isdigit():
        proxy.answer(int(fault), times=2, path=f"{fault}1")
    else:
        getattr(proxy, fault)(times=2, path=f"{fault}1")
    tiles = judged(snapshot(tmp_path / "s.parquet", items))
    assert outcomes(tiles) == {COMPLETE: ("complete", 0), ONE_PIXEL: ("with nodata", 1)}
    assert sum(seen.fault is not None for seen in proxy.seen) == 2


@pytest.fixture
def api(stac_api: StacApi, tmp_path: Path) -> Iterator[StacApi]:
    """The world behind a STAC API."""
    stac_api.clear()
    stac_api.load([], world(tmp_path / "images"))
    yield stac_api
    stac_api.clear()


def test_a_stac_api_gives_the_same_with_one_search_per_tile(
    made: str, api: StacApi, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    proxy = fault_proxy(api.url)
    proxy.answer(503, times=1, path="/search")  # retried
    proxy.answer(400, times=1, path="/search")  # fails one tile only
    tiles = judged(proxy.url)
    near_180 = 112  # tiles with a second search, for footprints that cross 180°
    searches = len([seen for seen in proxy.seen if seen.path.startswith("/search")])
    retried = 1
    # The tile that fails with 400 has no second search.
    assert searches - 460 - near_180 - retried in (0, -1)
    assert proxy.max_in_flight <= 8
    lost = tiles["error"].fillna("").str.contains("search h")
    (row,) = tiles[lost].itertuples()
    assert row.outcome == "failed"
    assert f"search {row.name} failed" in row.error
    columns = ["name", "outcome", "item_id", "nodata_pixels", "error"]
    assert tiles.loc[~lost, columns].equals(judged(made).loc[~lost, columns])


def test_a_catalogue_that_does_not_answer_is_an_error(
    fault_proxy: Callable[[str], FaultProxy], web: FileServer
) -> None:
    proxy = fault_proxy(web.url)
    proxy.answer(404, times=None)
    with pytest.raises((InputError, SourceError), match="did not answer as a STAC API"):
        judged(proxy.url)


# --- real items -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_items(real_data: Path) -> list[dict[str, Any]]:
    path = real_data / "stac" / "items" / "modis-09A1-061__stactools-examples.ndjson.gz"
    with gzip.open(path, "rt") as lines:
        items = [json.loads(line) for line in lines]
    assert [item["properties"]["platform"] for item in items] == ["terra", "terra", "aqua", "aqua"]
    return items


@pytest.mark.slow
@pytest.mark.parametrize(("fill", "outcome"), [(0, "complete"), (3, "with nodata")])
def test_real_terra_items_are_found_at_their_tile(
    real_items: list[dict[str, Any]], tmp_path: Path, fill: int, outcome: str
) -> None:
    # The rasters of the recorded items do not exist; only the first of the two, by id, gets one.
    assert min(item["id"] for item in real_items) == real_items[0]["id"] == "MOD09A1.A2022033.h19v10.061"
    image = {"sur_refl_b01": {"href": str(write_band(tmp_path / "b01.tif", 10, 19, fill))}}
    items = [{**real_items[0], "assets": {**real_items[0]["assets"], **image}}, *real_items[1:]]
    place = snapshot(tmp_path / "s.parquet", items)
    for day in (date(2022, 2, 2), date(2022, 2, 9)):
        tiles = judged(place, reference_date=day)
        assert outcomes(tiles) == {(10, 19): (outcome, fill)}
        assert tiles.loc["h19v10", "item_id"] == "MOD09A1.A2022033.h19v10.061"
    assert outcomes(judged(place, reference_date=date(2022, 2, 10))) == {}


@pytest.mark.slow
def test_real_aqua_items_are_refused(real_items: list[dict[str, Any]], tmp_path: Path) -> None:
    place = snapshot(tmp_path / "s.parquet", real_items)
    assert outcomes(judged(place, reference_date=date(2022, 1, 28))) == {}
    terra = [
        {**item, "properties": {**item["properties"], "platform": "terra"}}
        for item in real_items
        if item["properties"]["platform"] == "aqua"
    ]
    tiles = judged(snapshot(tmp_path / "t.parquet", terra), reference_date=date(2022, 1, 28))
    assert outcomes(tiles) == {(8, 9): ("failed", 0)}  # so only the satellite decides; the raster does not exist
