"""A small Natural Earth: zipped shapefiles with the names and fields of the 1:10m layers, version 5.1.

The states have real codes and synthetic outlines. All but one are small boxes around a place with NAIP imagery;
Colorado has about its real size, so that random points on the whole Earth soon hit it. There are also two states
outside CONUS and two foreign provinces that share a border with a state. Features are inside an image, next to one, in
CONUS without any image, outside CONUS, and across its border.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.demo.naip import PLACES

PARKS = "ne_10m_parks_and_protected_lands"
MOMENT = (2022, 5, 1, 0, 0, 0)  # of every file, so that the same planet has identical bytes

# ISO 3166-2 code → (name, country, west, south, east, north), degrees.
STATES: dict[str, tuple[str, str, float, float, float, float]] = {
    "US-AL": ("Alabama", "USA", -86.33, 31.17, -86.27, 31.23),
    "US-CO": ("Colorado", "USA", -109.05, 37.0, -102.05, 41.0),
    "US-KS": ("Kansas", "USA", -98.33, 38.47, -98.27, 38.53),
    "US-NY": ("New York", "USA", -73.51, 44.94, -73.45, 45.0),
    "US-DC": ("District of Columbia", "USA", -77.06, 38.87, -77.0, 38.93),
    "US-CA": ("California", "USA", -117.0, 32.6, -116.94, 32.66),
    "US-HI": ("Hawaii", "USA", -156.03, 20.72, -155.97, 20.78),
    "US-AK": ("Alaska", "USA", -150.05, 61.2, -149.95, 61.26),
    "CA-QC": ("Québec", "CAN", -73.53, 45.0, -73.43, 45.06),
    "MX-BCN": ("Baja California", "MEX", -117.02, 32.54, -116.92, 32.6),
}
_ISO_A2 = {"USA": "US", "CAN": "CA", "MEX": "MX", "DEU": "DE"}
_MIDDLE = {place.state: (place.lon, place.lat) for place in PLACES}
_NOWHERE = {"HI": (-156.0, 20.75), "AK": (-150.0, 61.23), "QC": (-73.48, 45.03), "DE": (13.4, 52.5)}

Row = tuple[str, BaseGeometry | None]


def write_natural_earth(folder: Path) -> None:
    """Write the seven archives into a new folder."""
    folder.mkdir(parents=True)
    layers = {
        "ne_10m_populated_places": {"ne_10m_populated_places": _populated_places()},
        "ne_10m_airports": {"ne_10m_airports": _named(_airports(), type="small", iata_code="")},
        "ne_10m_ports": {"ne_10m_ports": _named(_ports(), website="")},
        PARKS: {
            f"{PARKS}_area": _parks(_park_areas()),
            f"{PARKS}_line": _parks(_park_lines()),
            f"{PARKS}_point": _parks(_park_points()),
            f"{PARKS}_scale_rank": _parks(_park_areas()),
        },
        "ne_10m_rivers_lake_centerlines": {
            "ne_10m_rivers_lake_centerlines": _named(_rivers(), name_en="", rivernum=0, min_zoom=5.0)
        },
        "ne_10m_lakes": {"ne_10m_lakes": _named(_lakes(), name_en="", admin="", min_zoom=5.0)},
        "ne_10m_admin_1_states_provinces": {"ne_10m_admin_1_states_provinces": _states()},
    }
    for name, members in layers.items():
        _write_zip(folder / f"{name}.zip", members)


def _write_zip(path: Path, members: dict[str, gpd.GeoDataFrame]) -> None:
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, table in members.items():
            kinds = {geometry.geom_type.removeprefix("Multi") for geometry in table.geometry.dropna()}
            table.to_file(
                Path(scratch) / f"{name}.shp",
                engine="pyogrio",
                geometry_type=kinds.pop(),  # lines and polygons of a shapefile can have several parts
                encoding="UTF-8",
                layer_options={"DBF_DATE_LAST_UPDATE": f"{MOMENT[0]}-{MOMENT[1]:02d}-{MOMENT[2]:02d}"},
            )
        for file in sorted(Path(scratch).iterdir()):
            entry = zipfile.ZipInfo(file.name, date_time=MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())


def _table(rows: list[Row], columns: dict[str, list[Any]]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=[geometry for _, geometry in rows], crs="EPSG:4326")


def _named(rows: list[Row], **fields: Any) -> gpd.GeoDataFrame:
    names = [name for name, _ in rows]
    constant = {"scalerank": 8, "featurecla": "Demo", **fields}
    return _table(rows, {"name": names, **{field: [value] * len(rows) for field, value in constant.items()}})


def _parks(rows: list[Row]) -> gpd.GeoDataFrame:
    names = [name for name, _ in rows]
    columns: dict[str, list[Any]] = {
        "unit_code": [name[:4].upper() for name in names],
        "unit_name": [f"{name} NP" if name else None for name in names],
        "unit_type": ["National Park"] * len(rows),
        "nps_region": ["Demo"] * len(rows),
        "scalerank": [7] * len(rows),
        "featurecla": ["National Park Service"] * len(rows),
        "name": names,
    }
    return _table(rows, columns)


def _states() -> gpd.GeoDataFrame:
    rows: list[Row] = [(code, shapely.box(*state[2:])) for code, state in STATES.items()]
    columns: dict[str, list[Any]] = {
        "adm1_code": [f"{state[1]}-{3500 + number}" for number, state in enumerate(STATES.values())],
        "iso_3166_2": list(STATES),
        "iso_a2": [_ISO_A2[state[1]] for state in STATES.values()],
        "adm0_a3": [state[1] for state in STATES.values()],
        "name": [state[0] for state in STATES.values()],
        "postal": [code[3:5] for code in STATES],
        "admin": [{"USA": "United States of America", "CAN": "Canada"}.get(s[1], "Mexico") for s in STATES.values()],
        "featurecla": ["Admin-1 states provinces"] * len(STATES),
    }
    return _table(rows, columns)


def _populated_places() -> gpd.GeoDataFrame:
    rows = [
        *((f"{state.upper()} Town", _in(state)) for state in _MIDDLE),
        ("AL Hamlet", _in("al", 0.004, 0.002)),  # in the second of two overlapping images
        ("CO Desert", shapely.Point(-107.5, 38.2)),  # in CONUS, no imagery
        ("KS Corner", _in("ks", 0.025, 0.025)),  # the same, near an image
        ("HI Town", shapely.Point(_NOWHERE["HI"])),
        ("AK Town", shapely.Point(_NOWHERE["AK"])),
        ("QC Town", shapely.Point(_NOWHERE["QC"])),
        ("DE Town", shapely.Point(_NOWHERE["DE"])),
    ]
    country = {"QC Town": "CAN", "DE Town": "DEU"}
    codes = [country.get(name, "USA") for name, _ in rows]
    columns: dict[str, list[Any]] = {
        "SCALERANK": [8] * len(rows),
        "FEATURECLA": ["Populated place"] * len(rows),
        "NAME": [name for name, _ in rows],
        "NAMEASCII": [name for name, _ in rows],
        "ADM0_A3": codes,
        "ISO_A2": [_ISO_A2[code] for code in codes],
        "LATITUDE": [geometry.y for _, geometry in rows],
        "LONGITUDE": [geometry.x for _, geometry in rows],
        "POP_MAX": [1000] * len(rows),
    }
    return _table(list(rows), columns)


def _in(state: str, east: float = 0.001, north: float = 0.001) -> shapely.Point:
    """A point near the centre of a place, inside the NAIP images of all years."""
    lon, lat = _MIDDLE[state]
    return shapely.Point(lon + east, lat + north)


def _airports() -> list[Row]:
    return [
        ("AL Airfield", _in("al", -0.003, -0.001)),
        ("DC Airport", _in("dc", 0.002, -0.002)),
        ("CO Strip", shapely.Point(-103.2, 40.1)),
        ("HI Airport", shapely.Point(-156.01, 20.74)),
        ("DE Airport", shapely.Point(13.5, 52.4)),
    ]


def _ports() -> list[Row]:
    return [
        ("NY Harbour", _in("ny", 0.002, -0.001)),
        ("CA Quay", _in("ca", -0.001, 0.002)),
        ("KS Landing", _in("ks", -0.025, -0.02)),
        ("AK Harbour", shapely.Point(-150.02, 61.22)),
    ]


def _around(state: str, east: float, north: float, half: float) -> BaseGeometry:
    point = _in(state, east, north)
    return shapely.box(point.x - half, point.y - half, point.x + half, point.y + half)


def _park_areas() -> list[Row]:
    return [
        ("CO Meadow", _around("co", 0.001, 0.001, 0.001)),
        ("NY Border", _around("ny", 0.0, 0.04, 0.006)),  # half of it is in Québec
        ("AK Glacier", _around_point(_NOWHERE["AK"], 0.01)),
    ]


def _park_lines() -> list[Row]:
    ks, al = _MIDDLE["ks"], _MIDDLE["al"]
    return [
        ("KS Trail", shapely.LineString([(ks[0] - 0.002, ks[1]), (ks[0], ks[1] + 0.001), (ks[0] + 0.002, ks[1])])),
        (
            "AL Trail",
            shapely.MultiLineString(
                [[(al[0], al[1]), (al[0] + 0.002, al[1])], [(al[0], al[1]), (al[0], al[1] - 0.001)]]
            ),
        ),
    ]


def _park_points() -> list[Row]:
    return [
        ("DC Mall", _in("dc", -0.001, 0.001)),
        ("CA Mesa", _in("ca", 0.001, -0.001)),
        ("", _in("al", 0.003, -0.002)),  # without a name
        ("HI Volcano", shapely.Point(-155.99, 20.76)),
    ]


def _around_point(point: tuple[float, float], half: float) -> BaseGeometry:
    return shapely.box(point[0] - half, point[1] - half, point[0] + half, point[1] + half)


def _rivers() -> list[Row]:
    ny, co, ca, al = (_MIDDLE[state] for state in ("ny", "co", "ca", "al"))
    return [
        ("NY River", shapely.LineString([(ny[0], ny[1] - 0.003), (ny[0], 45.05)])),  # continues into Québec
        (
            "CO Fork",
            shapely.MultiLineString(
                [
                    [(co[0] - 0.003, co[1] - 0.002), (co[0], co[1]), (co[0] + 0.003, co[1] + 0.001)],
                    [(co[0], co[1]), (co[0], co[1] + 0.002)],
                ]
            ),
        ),
        ("CA Arroyo", shapely.LineString([(ca[0], ca[1]), (ca[0], 32.55)])),  # continues into Baja California
        ("AL Creek", shapely.LineString([(al[0] - 0.008, al[1]), (al[0] + 0.008, al[1] + 0.001)])),
        ("Lost River", None),
        ("DE Fluss", shapely.LineString([(13.3, 52.4), (13.6, 52.6)])),
    ]


def _lakes() -> list[Row]:
    ca = _MIDDLE["ca"]
    shore = _around("al", 0.0, 0.0, 0.004)
    island = _around("al", 0.0, 0.0, 0.002)
    bow_tie = shapely.Polygon(
        [
            (ca[0] - 0.002, ca[1] - 0.002),
            (ca[0] + 0.002, ca[1] + 0.002),
            (ca[0] + 0.002, ca[1] - 0.002),
            (ca[0] - 0.002, ca[1] + 0.002),
        ]
    )
    return [
        ("AL Ring", shapely.difference(shore, island)),
        (
            "KS Twins",
            shapely.MultiPolygon([_around("ks", -0.002, 0.0, 0.001), _around("ks", 0.002, 0.0, 0.001)]),
        ),
        ("CA Bow", bow_tie),
        ("CO Reservoir", _around_point((-104.0, 38.5), 0.1)),
        ("QC Lac", _around_point(_NOWHERE["QC"], 0.01)),
    ]
