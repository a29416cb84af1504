"""Real collections and items of Land Information New Zealand, drawn by the recipe."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.linz import LinzOptions
from clay_assets.platforms.request_table import requests_in
from clay_assets.recipes import load_recipe
from clay_assets.sampling.linz import Drawn, draw_sheets
from clay_assets.scenes.picks import pick_scenes
from clay_assets.storage.stac_geoparquet import decode_items, encode_items
from clay_assets_tests.sampling.static_catalogue import (
    TARANAKI,
    collection,
    draw,
    failures,
    write_root,
    write_survey,
)

LINZ = PLATFORMS["linz"]


REAL_COUNTS = {  # survey → number of item links in its real collection, and number drawn by the recipe
    "auckland/auckland_2022_0.075m": (5620, 2000),
    "bay-of-plenty/tauranga-winter_2022_0.1m": (3097, 1548),
    "bay-of-plenty/tauranga_2022_0.1m": (3162, 1581),
    "canterbury/canterbury_2023_0.3m": (169, 84),
    "gisborne/gisborne_2023_0.075m": (1971, 985),
    "taranaki/taranaki_2022_0.05m": (31, 15),
}


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real collections below a root; every sheet's item is the real example item."""
    source, folder = real_data / "stac" / "linz", tmp_path_factory.mktemp("nz-imagery")
    example = source / "example_items" / "BC40_2000_2421.json"
    paths = []
    for path in sorted(source.rglob("collection.json*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        here = folder / path.parent.relative_to(source)
        here.mkdir(parents=True)
        (here / "collection.json").write_bytes(content)
        template = here / ".item"
        template.write_bytes(example.read_bytes())
        for link in json.loads(content)["links"]:
            if link["rel"] == "item":
                os.link(template, here / link["href"])
        paths.append(here.relative_to(folder).as_posix())
    assert len(paths) == 7
    return write_root(folder, paths)


@pytest.fixture(scope="module")
def real_drawn(real: Path) -> Drawn:
    return draw_sheets(LINZ, str(real), load_recipe("clay_v1").options("linz"), 42, 8)


@pytest.mark.slow
def test_real_collections_are_drawn_by_the_recipe(real_drawn: Drawn) -> None:
    assert {r["survey"]: (r["sheets"], r["drawn"]) for r in real_drawn.collections} == REAL_COUNTS
    assert real_drawn.failures == []
    drawn = Counter(f"{i['properties']['linz:region']}/{i['properties']['linz:survey']}" for i in real_drawn.items)
    assert drawn == {survey: count for survey, (_, count) in REAL_COUNTS.items()}
    assert len({item["id"] for item in real_drawn.items}) == len(real_drawn.items) == 6213
    assert {record["gsd"] for record in real_drawn.collections} == {0.075, 0.1, 0.3, 0.05}


def test_the_published_surveys_that_are_not_among_the_real_ones(real_drawn: Drawn, real_data: Path) -> None:
    published = (real_data / "published" / "linz_surveys.txt").read_text().split()
    assert len(published) == 39
    assert real_drawn.absent == [survey for survey in published if survey not in REAL_COUNTS]
    assert len(real_drawn.absent) == 33


@pytest.mark.slow
def test_the_real_tauranga_surveys_stay_apart(real: Path) -> None:
    surveys = ["bay-of-plenty/tauranga_2022_0.1m", "bay-of-plenty/tauranga-winter_2022_0.1m"]
    linked = [
        {link["href"] for link in json.loads((real / f"{survey}/rgb/2193/collection.json").read_text())["links"][2:]}
        for survey in surveys
    ]
    assert len(linked[0] & linked[1]) == 3097
    drawn = draw(real, surveys=surveys, share=1, max_scenes=400)
    assert len({item["id"] for item in drawn.items}) == 800
    summer, winter = (
        {
            item["properties"]["linz:sheet"]: item["assets"]["visual"]["href"]
            for item in drawn.items
            if item["collection"] == name
        }
        for name in ("01GSXQT9RWV5MBN3JRWTP1TVMS", "01GK2DPV3T9PC8C9QG7FH1GQDQ")
    )
    assert len(summer) == len(winter) == 400
    shared = set(summer) & set(winter)
    assert 20 < len(shared) < 90  # independent draws: 400 × 400 / 3,162 is 51
    assert all(summer[sheet] != winter[sheet] for sheet in shared)


@pytest.mark.slow
def test_the_latest_of_the_real_surveys(real: Path) -> None:
    drawn = draw(real, surveys="latest", min_scenes=1, max_scenes=2)
    assert [record["survey"] for record in drawn.collections] == [
        "auckland/auckland_2022_0.075m",
        "bay-of-plenty/tauranga-winter_2022_0.1m",  # ended in August, the other in January
        "canterbury/canterbury_2023_0.3m",
        "gisborne/gisborne_2023_0.075m",
        "taranaki/taranaki_2022_0.05m",
    ]
    assert len(drawn.items) == 10
    (canterbury,) = {item["collection"] for item in drawn.items if item["properties"]["linz:region"] == "canterbury"}
    assert canterbury == "01HEVBGA2JPM05C4J9AWQWANDH"  # rgb, not rgbnir


def test_real_example_items(real_data: Path, tmp_path: Path) -> None:
    examples = real_data / "stac" / "linz" / "example_items"
    here = write_survey(tmp_path, TARANAKI, collection("01T", ["BC40_2000_2421", "72360"]))
    (here / "BC40_2000_2421.json").write_bytes((examples / "BC40_2000_2421.json").read_bytes())
    (here / "72360.json").write_bytes((examples / "aerial-photo_72360.json").read_bytes())
    drawn = draw(write_root(tmp_path, [TARANAKI]))
    assert list(failures(drawn)) == ["taranaki/taranaki_2022_0.05m 72360"]  # it has no geometry
    (found,) = drawn.items
    assert found["id"] == "01T_BC40_2000_2421"
    assert found["assets"]["visual"]["href"] == f"{here}/BC40_2000_2421.tiff"
    assert found["bbox"] == [177.153697, -37.518955, 177.1652507, -37.5056275]
    assert shapely.geometry.shape(found["geometry"]).area == pytest.approx(1.41e-4, rel=0.02)
    path = tmp_path / "sample.parquet"
    path.write_bytes(encode_items(drawn.items, {}))
    request = requests_in(LINZ.rules.requests(gpd.read_parquet(path), LinzOptions(), 42))[0]
    assert (request.id, request.start.year) == ("01T_BC40_2000_2421", 2021)  # flown from December 2021
    picks = pick_scenes(LINZ, 2021, [request], SnapshotCatalogue(str(path)), LinzOptions())
    assert picks.items == decode_items(path.read_bytes(), str(path))
    assert picks.items[0]["properties"]["datetime"] is None
