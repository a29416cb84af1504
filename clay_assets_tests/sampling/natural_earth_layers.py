"""Synthetic layers in the schema of Natural Earth. The expected values are in the tests."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import shapely

World = dict[str, gpd.GeoDataFrame]
PARKS = "ne_10m_parks_and_protected_lands"
FILES = {
    "admin_1": "10m_cultural/ne_10m_admin_1_states_provinces",
    "populated_places": "10m_cultural/ne_10m_populated_places",
    "airports": "10m_cultural/ne_10m_airports",
    "ports": "10m_cultural/ne_10m_ports",
    "parks_area": f"10m_cultural/{PARKS}_area",
    "parks_line": f"10m_cultural/{PARKS}_line",
    "parks_point": f"10m_cultural/{PARKS}_point",
    "rivers": "10m_physical/ne_10m_rivers_lake_centerlines",
    "lakes": "10m_physical/ne_10m_lakes",
}
STATES = {
    "US-KS": shapely.box(-100, 38, -98, 40),
    "US-NE": shapely.box(-100, 40, -98, 42),
    "CA-MB": shapely.box(-100, 42, -98, 46),
    "US-AK": shapely.box(-152, 60, -150, 62),
    "US-HI": shapely.box(-157, 20, -155, 22),
    "US-PR": shapely.box(-67, 18, -66, 19),
}
"""Two states of CONUS, one north of the other; the northern one borders on Canada."""


def layer(features: Sequence[tuple[str | None, shapely.Geometry | None]], field: str = "name") -> gpd.GeoDataFrame:
    """A table of names and geometries."""
    names, geometries = [name for name, _ in features], [geometry for _, geometry in features]
    return gpd.GeoDataFrame({"scalerank": range(len(names)), field: names}, geometry=geometries, crs="EPSG:4326")


def states(outlines: dict[str, shapely.Geometry] = STATES) -> gpd.GeoDataFrame:
    """An admin-1 layer."""
    return layer(list(outlines.items()), "iso_3166_2")


def world(**layers: gpd.GeoDataFrame) -> World:
    """All layers, by default with one feature in Kansas each."""
    point, line = shapely.Point(-99, 39), shapely.LineString([(-99.5, 39), (-98.5, 39)])
    area = shapely.box(-99.2, 38.8, -98.8, 39.2)
    plain = {
        "admin_1": states(),
        "populated_places": layer([("Town", point)], "NAME"),
        "airports": layer([("Airfield", point)]),
        "ports": layer([("Port", point)]),
        "parks_area": layer([("Park", area)], "unit_name"),
        "parks_line": layer([("Trail", line)], "unit_name"),
        "parks_point": layer([("Memorial", point)], "unit_name"),
        "rivers": layer([("River", line)]),
        "lakes": layer([("Lake", area)]),
    }
    assert set(layers) <= set(plain)
    return {**plain, **layers}


def write_zips(folder: Path, layers: World, flat: bool = False) -> Path:
    """Write zipped shapefiles as Natural Earth publishes them: a README in each, all parks in one."""
    unpacked = folder.parent / f"{folder.name}-unpacked"
    unpacked.mkdir()
    for key, table in layers.items():
        where, _, name = FILES[key].rpartition("/")
        archive = folder / ("" if flat else where) / f"{PARKS if name.startswith(PARKS) else name}.zip"
        archive.parent.mkdir(parents=True, exist_ok=True)
        table.to_file(unpacked / f"{name}.shp", engine="pyogrio")
        with zipfile.ZipFile(archive, "a") as packed:
            packed.writestr(f"{name}.README.html", "<html></html>")
            for path in sorted(unpacked.glob(f"{name}.*")):
                packed.write(path, path.name)
    return folder


def write_files(folder: Path, layers: World, suffix: str) -> Path:
    """Write one file per layer."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, table in layers.items():
        path = folder / f"{Path(FILES[key]).name}{suffix}"
        if suffix == ".parquet":
            table.to_parquet(path)
        elif suffix in (".json", ".geojson"):
            table.to_file(path, driver="GeoJSON", engine="pyogrio")
        else:
            table.to_file(path, engine="pyogrio")
    return folder
