"""The catalogue of aerial surveys can be walked link by link, and its sheets match their metadata."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom

from clay_assets.demo.linz import SURVEYS
from clay_assets.demo.planet import Planet

BY_PATH = {survey.path: survey for survey in SURVEYS}


@pytest.fixture(scope="module")
def collections(planet: Planet) -> dict[str, Any]:
    """Folder of each collection relative to the root → collection, found by walking from the root."""
    root = pystac.Catalog.from_file(str(planet.linz / "catalog.json"))
    found = {str(one.get_self_href()): one for one in root.get_children()}
    return {str(Path(href).parent.relative_to(planet.linz)): one for href, one in found.items()}


def _items(collection: Any) -> Iterator[pystac.Item]:
    for link in collection.get_item_links():
        path = Path(link.get_absolute_href())
        if path.exists():
            yield pystac.Item.from_file(str(path))


def test_root_links_to_every_collection(planet: Planet, collections: dict[str, Any]) -> None:
    there = {str(path.parent.relative_to(planet.linz)) for path in planet.linz.rglob("collection.json")}
    assert set(collections) == there == set(BY_PATH)
    assert len({one.id for one in collections.values()}) == len(collections)
    for path, one in collections.items():
        region, slug, kind, epsg = path.split("/")
        assert re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", one.id)
        assert (one.extra_fields["linz:region"], one.extra_fields["linz:slug"]) == (region, slug)
        assert (kind in ("rgb", "rgbnir"), epsg) == (True, "2193")
        assert one.extra_fields["gsd"] == BY_PATH[path].gsd
        assert one.extra_fields["linz:geospatial_category"].endswith("aerial-photos")


def test_checksums_are_those_of_the_files(planet: Planet, collections: dict[str, Any]) -> None:
    def digest(href: str | None) -> str:
        return f"1220{hashlib.sha256(Path(str(href)).read_bytes()).hexdigest()}"

    root = pystac.Catalog.from_file(str(planet.linz / "catalog.json"))
    for link in root.get_child_links():
        assert link.extra_fields["file:checksum"] == digest(link.get_absolute_href())
    for collection in collections.values():
        for link in collection.get_item_links():
            if Path(link.get_absolute_href()).exists():
                assert link.extra_fields["file:checksum"] == digest(link.get_absolute_href())
        for item in _items(collection):
            image = item.assets["visual"]
            assert image.extra_fields["file:checksum"] == digest(image.get_absolute_href())


def test_sheets_are_where_their_items_say(collections: dict[str, Any]) -> None:
    for path, collection in collections.items():
        survey = BY_PATH[path]
        for item in _items(collection):
            assert item.collection_id == collection.id
            assert item.datetime is None
            assert item.assets["visual"].href == f"./{item.id}.tiff"
            with rasterio.open(item.assets["visual"].get_absolute_href()) as src:
                assert src.crs.to_epsg() == 2193
                assert src.res == pytest.approx((survey.gsd, survey.gsd))
                assert (src.dtypes[0], src.block_shapes[0]) == ("uint8", (256, 256))
                assert src.count == (4 if survey.kind == "rgbnir" or survey.alpha else 3)
                assert min(src.shape) * survey.gsd >= 256 * 0.3
                edges = np.array(src.bounds) / 0.3
                np.testing.assert_allclose(edges, edges.round(), atol=1e-4)
                outline = shapely.geometry.shape(transform_geom(src.crs, "EPSG:4326", shapely.box(*src.bounds)))
            assert outline.hausdorff_distance(shapely.geometry.shape(item.geometry)) < 2e-7


def test_alpha_and_black_tell_where_there_is_no_data(collections: dict[str, Any]) -> None:
    partly: dict[str, list[float]] = {}
    for path, collection in collections.items():
        survey = BY_PATH[path]
        for item in _items(collection):
            with rasterio.open(item.assets["visual"].get_absolute_href()) as src:
                pixels = src.read()
            empty = (pixels[:3] == 0).all(axis=0)
            if survey.alpha:
                assert set(np.unique(pixels[3])) <= {0, 255}
                assert ((pixels[3] == 0) == empty).all()
            if empty.any():
                partly.setdefault(path, []).append(empty.mean())
                factor = round(0.3 / survey.gsd)
                cells = empty.reshape(empty.shape[0] // factor, factor, empty.shape[1] // factor, factor)
                assert (cells == cells[:, :1, :, :1]).all()  # edges on multiples of 0.3 m
    assert {path: len(shares) for path, shares in partly.items()} == {
        path: len(survey.wedges) for path, survey in BY_PATH.items() if survey.wedges
    }
    assert all(0.1 < share < 0.3 for shares in partly.values() for share in shares)
    assert any(not BY_PATH[path].alpha for path in partly)


def test_surveys_offer_every_case(planet: Planet, collections: dict[str, Any]) -> None:
    sheets = {path: [item.id for item in _items(one)] for path, one in collections.items()}
    sizes = {path: len(names) for path, names in sheets.items()}
    assert sizes["bay-of-plenty/tauranga_2022_0.1m/rgb/2193"] == 24
    assert sizes["auckland/auckland_2022_0.075m/rgb/2193"] == 10
    assert sizes["canterbury/canterbury_2023_0.3m/rgb/2193"] == 6
    assert "canterbury/canterbury_2023_0.3m/rgbnir/2193" in sizes
    shared = set(sheets["bay-of-plenty/tauranga_2022_0.1m/rgb/2193"])
    assert len(shared & set(sheets["bay-of-plenty/tauranga-winter_2022_0.1m/rgb/2193"])) >= 10
    assert {survey.gsd for survey in SURVEYS} == {0.075, 0.1, 0.3, 0.4}
    missing = {path: len(one.get_item_links()) - sizes[path] for path, one in collections.items()}
    assert {path: count for path, count in missing.items() if count} == {"gisborne/gisborne_2023_0.3m/rgb/2193": 1}
    assert "gisborne/gisborne_2023_0.3m" not in planet.linz_surveys
    assert "auckland/auckland_2017_0.075m" not in planet.linz_surveys
    assert set(planet.linz_surveys) <= {survey.name for survey in SURVEYS}


def test_one_sheet_starts_in_the_year_after_its_collection(collections: dict[str, Any]) -> None:
    odd = []
    for path, collection in collections.items():
        first = collection.extent.temporal.intervals[0][0]
        for item in _items(collection):
            start = item.common_metadata.start_datetime
            assert start is not None
            if start.year != first.year:
                odd.append((path, start.year - first.year))
    assert odd == [("auckland/auckland_2022_0.075m/rgb/2193", 1)]


def test_names_are_of_the_published_list_where_it_has_such(planet: Planet, real_data: Path) -> None:
    published = (real_data / "published" / "linz_surveys.txt").read_text().split()
    assert len(set(planet.linz_surveys) & set(published)) == 4
