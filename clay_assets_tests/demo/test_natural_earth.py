"""The layers read like Natural Earth's, and have features on both sides of every relevant boundary."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import pyogrio
import pytest
import shapely

from clay_assets.demo.natural_earth import PARKS, STATES
from clay_assets.demo.planet import Planet
from clay_assets.demo.sites import NAIP

OUTSIDE = {"US-HI", "US-AK", "CA-QC", "MX-BCN"}
FIELDS = {
    "ne_10m_populated_places": {"NAME", "ADM0_A3"},
    "ne_10m_airports": {"name"},
    "ne_10m_ports": {"name"},
    PARKS: {"unit_name", "name"},
    "ne_10m_rivers_lake_centerlines": {"name"},
    "ne_10m_lakes": {"name"},
    "ne_10m_admin_1_states_provinces": {"iso_3166_2", "iso_a2", "adm0_a3", "name", "postal"},
}
KINDS = {"populated_places": "Point", "airports": "Point", "ports": "Point", "rivers_lake_centerlines": "LineString"}
KINDS |= {"lakes": "Polygon", "parks_and_protected_lands_line": "LineString"}
KINDS |= {"parks_and_protected_lands_point": "Point", "parks_and_protected_lands_area": "Polygon"}


def _layer(planet: Planet, name: str, archive: Any = None) -> gpd.GeoDataFrame:
    return pyogrio.read_dataframe(planet.natural_earth / f"{archive or name}.zip", layer=name)


@pytest.fixture(scope="module")
def conus(planet: Planet) -> Any:
    states = _layer(planet, "ne_10m_admin_1_states_provinces").set_index("iso_3166_2")
    return states.drop(index=list(OUTSIDE)).union_all()


@pytest.fixture(scope="module")
def quads(planet: Planet) -> Any:
    return gpd.GeoSeries([shapely.geometry.shape(item["geometry"]) for item in planet.items(NAIP)]).union_all()


def test_archives_hold_shapefiles_with_the_fields_of_natural_earth(planet: Planet) -> None:
    assert {path.stem for path in planet.natural_earth.iterdir()} == set(FIELDS)
    for archive, fields in FIELDS.items():
        layers = [str(name) for name, _ in pyogrio.list_layers(planet.natural_earth / f"{archive}.zip")]
        expected = [f"{PARKS}_{part}" for part in ("area", "line", "point", "scale_rank")]
        assert sorted(layers) == (expected if archive == PARKS else [archive])
        for name in layers:
            table = _layer(planet, name, archive)
            assert fields <= set(table.columns)
            assert table.crs.to_epsg() == 4326


def test_states_have_their_codes(planet: Planet) -> None:
    states = _layer(planet, "ne_10m_admin_1_states_provinces")
    assert list(states["iso_3166_2"]) == list(STATES)
    assert set(states.loc[states["adm0_a3"] == "USA", "iso_a2"]) == {"US"}
    assert set(states.loc[states["adm0_a3"] != "USA", "iso_3166_2"]) == {"CA-QC", "MX-BCN"}
    assert states.geometry.is_valid.all()


def test_every_image_lies_in_a_state(conus: Any, quads: Any) -> None:
    assert conus.contains(quads)


@pytest.mark.parametrize("name", KINDS)
def test_each_layer_has_features_in_images_beside_them_or_outside(
    planet: Planet, conus: Any, quads: Any, name: Any
) -> None:
    archive = PARKS if name.startswith("parks") else None
    table = _layer(planet, f"ne_10m_{name}", archive and f"ne_10m_{'_'.join(name.split('_')[:4])}")
    shapes = table.geometry.dropna()
    assert {kind.removeprefix("Multi") for kind in shapes.geom_type} == {KINDS[name]}
    assert shapes.make_valid().intersects(quads).any()
    if name != "parks_and_protected_lands_line":
        assert (~shapes.intersects(conus)).any()  # in Hawaii, Alaska or abroad


def test_some_points_in_conus_have_no_imagery(planet: Planet, conus: Any, quads: Any) -> None:
    places = _layer(planet, "ne_10m_populated_places").geometry
    assert (places.intersects(conus) & ~places.intersects(quads)).sum() >= 2
    assert places.intersects(quads).sum() >= 6


def test_rivers_cross_borders_have_parts_or_no_geometry(planet: Planet, conus: Any) -> None:
    rivers = _layer(planet, "ne_10m_rivers_lake_centerlines").set_index("name").geometry
    assert rivers.isna().sum() == 1
    crossing = rivers.dropna().crosses(conus.boundary) & rivers.dropna().intersects(conus)
    assert {"NY River", "CA Arroyo"} <= set(crossing[crossing].index)
    assert rivers["CO Fork"].geom_type == "MultiLineString"


def test_lakes_have_a_hole_parts_and_a_fault(planet: Planet, conus: Any) -> None:
    lakes = _layer(planet, "ne_10m_lakes").set_index("name").geometry
    assert len(lakes["AL Ring"].interiors) == 1
    assert lakes["KS Twins"].geom_type == "MultiPolygon"
    assert list(lakes.index[~lakes.is_valid]) == ["CA Bow"]
    assert list(lakes.index[~lakes.make_valid().intersects(conus)]) == ["QC Lac"]
