"""The grid file has real names and footprints, in the layout of ESA's KML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely

from clay_assets.demo.grid import TILES, tile, tiles
from clay_assets.demo.planet import Planet

KML = "{http://www.opengis.net/kml/2.2}"
# From ESA's grid file: EPSG, left, top.
PUBLISHED = {
    "32NLG": (32632, 300000, 200040),
    "32NKF": (32632, 199980, 100020),
    "01KAB": (32701, 99960, 8200000),
    "05VPH": (32605, 600000, 6800040),
    "01LAC": (32701, 99960, 8300020),
    "01CCV": (32701, 300000, 2000020),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_corner_follows_from_the_name(name: Any) -> None:
    found = tile(name)
    assert (found.epsg, found.left, found.top) == PUBLISHED[name]


def test_footprints_are_those_of_the_real_grid(real_data: Path) -> None:
    real = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet").set_index("name")
    for one in tiles():
        assert one.polygon.hausdorff_distance(real.geometry[one.name]) < 1e-8


def test_any_name_of_the_real_grid_gives_its_corner(real_data: Path) -> None:
    real = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet").sample(300, random_state=1)
    corners = [tuple(map(int, re.findall(r"-?\d+", wkt)[:2])) for wkt in real["utm_wkt"]]
    found = [tile(name) for name in real["name"]]
    assert [one.epsg for one in found] == [int(code) for code in real["epsg"]]
    assert [(one.left, one.top) for one in found] == corners


def test_kml_reads_with_gdal(planet: Planet) -> None:
    table = pyogrio.read_dataframe(planet.grid)
    assert list(table["Name"]) == list(TILES)
    assert table.crs.to_epsg() == 4326
    assert table.geometry.is_valid.all()


def test_kml_has_the_layout_of_esas(planet: Planet) -> None:
    root = ET.parse(planet.grid).getroot()
    placemarks = list(root.iter(f"{KML}Placemark"))
    assert [one.findtext(f"{KML}name") for one in placemarks] == list(TILES)
    for one in placemarks:
        assert "TILE_ID" in one.findtext(f"{KML}description", "")
        parts = [part.tag.removeprefix(KML) for part in one.findall(f"{KML}MultiGeometry/*")]
        two = one.findtext(f"{KML}name") == "01KAB"
        assert parts == (["Polygon", "Point", "Polygon"] if two else ["Polygon", "Point"])
        for coordinates in one.iter(f"{KML}coordinates"):
            points = np.array([point.split(",") for point in (coordinates.text or "").split()], np.float64)
            assert points.shape[1] == 3
            assert (points[:, 2] == 0).all()
            assert np.abs(points[:, 0]).max() <= 180


def test_the_tile_at_the_antimeridian_is_two_polygons_that_meet_there() -> None:
    east, west = sorted(shapely.get_parts(tile("01KAB").polygon), key=lambda part: part.bounds[0])
    assert east.bounds[0] == -180
    assert west.bounds[2] == 180
    assert west.bounds[0] > 179
    assert east.bounds[2] < -179
