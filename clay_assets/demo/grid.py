"""The planet's MGRS tiles and the grid file, in the layout of ESA's Sentinel-2 tiling grid (KML).

Tiles have real names and real footprints, derived from the name. Their content is drawn elsewhere.

Tile corners: the Sentinel-2 tiling grid moves the north-west corners of the 100 km MGRS squares outwards to multiples
of 60 m, and makes the tiles 109.8 km wide. Square letters: NGA.SIG.0012, "The Universal Grids", appendix B.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

TILE_SIZE = 109_800  # m
SQUARE = 100_000  # m
CORNER_STEP = 60  # m; corners are on the grid of the 60 m bands
ROW_CYCLE = 2_000_000  # m; the row letters repeat
SOUTHERN_FALSE_NORTHING = 10_000_000  # m
COLUMN_LETTERS = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")  # for zones 3, 6, …; 1, 4, …; 2, 5, …
ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"  # even zones start at F
BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"  # 8° each from 80° S

TILES = (
    "01KAB",  # crosses ±180, so it has two parts
    "60KYG",  # overlaps it from the other side
    "05VPJ",  # overlaps 06VUP, across the zone border
    "06VUP",
    "05QMA",  # open ocean, no WorldCover file
    "32NKF",  # crosses the equator; no WorldCover file south of it
    "32NLG",
    "32NMG",  # in two WorldCover files
    "32NLH",  # only water
    "33UUU",
    "33UVU",  # in two WorldCover files
    "34HBH",  # south, partly without valid land cover
)
OCEAN_TILE = "05QMA"
WATER_TILE = "32NLH"


@lru_cache(maxsize=64)
def to_lonlat(epsg: int) -> Transformer:
    """A projected CRS → EPSG:4326, longitude first."""
    return Transformer.from_crs(epsg, 4326, always_xy=True)


def lonlat_ring(epsg: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Projected points as (n, 2) longitude and latitude, degrees; longitudes continue beyond ±180."""
    lon, lat = to_lonlat(epsg).transform(x, y)
    lon, lat = np.asarray(lon), np.asarray(lat)
    return np.column_stack([lon + 360 * np.round((lon[0] - lon) / 360), lat])


def split_at_antimeridian(ring: NDArray[np.float64]) -> BaseGeometry:
    """A ring whose longitudes may pass ±180 as a valid polygon, split there into two parts (RFC 7946, 3.1.9)."""
    polygon = shapely.Polygon(ring)
    parts = []
    for turn in (-360, 0, 360):
        part = shapely.intersection(polygon, shapely.box(turn - 180, -90, turn + 180, 90))
        if not part.is_empty and part.area > 0:
            parts.append(shapely.transform(part, lambda xy, turn=turn: xy - (turn, 0)))
    return shapely.orient_polygons(parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))


@dataclass(frozen=True)
class Tile:
    """One MGRS tile of the Sentinel-2 tiling grid.

    Attributes:
        name: such as `32NLG`.
        epsg: EPSG code of its UTM zone.
        left, top: north-west corner, m.
    """

    name: str
    epsg: int
    left: int
    top: int

    @property
    def zone(self) -> int:
        """UTM zone, 1 to 60."""
        return int(self.name[:2])

    @cached_property
    def ring(self) -> NDArray[np.float64]:
        """Closed ring of the four corners, (5, 2) longitude and latitude; longitudes continue beyond ±180."""
        x = self.left + np.array([0, 1, 1, 0, 0.0]) * TILE_SIZE
        y = self.top - np.array([0, 0, 1, 1, 0.0]) * TILE_SIZE
        return lonlat_ring(self.epsg, x, y)

    @cached_property
    def polygon(self) -> BaseGeometry:
        """The footprint in EPSG:4326, split at ±180."""
        return split_at_antimeridian(self.ring)

    @cached_property
    def search_point(self) -> shapely.Point:
        """The polygon's representative point."""
        return self.polygon.representative_point()


@lru_cache(maxsize=128)
def tile(name: str) -> Tile:
    """The tile with a name such as `32NLG`, derived from the name alone."""
    zone, band, column, row = int(name[:2]), name[2], name[3], name[4]
    northern = band >= "N"
    epsg = (32600 if northern else 32700) + zone
    left = (COLUMN_LETTERS[zone % 3].index(column) + 1) * SQUARE
    south = (ROW_LETTERS.index(row) - (5 if zone % 2 == 0 else 0)) % len(ROW_LETTERS) * SQUARE
    souths = np.arange(south, SOUTHERN_FALSE_NORTHING, ROW_CYCLE)
    middle = to_lonlat(epsg).transform(np.full(len(souths), 500_000), souths + SQUARE / 2)[1]
    wanted = -76 + 8 * BAND_LETTERS.index(band)
    south = int(souths[np.argmin(np.abs(np.asarray(middle) - wanted))])
    origin = 0 if northern else SOUTHERN_FALSE_NORTHING  # corners are counted from the equator
    top = -(-(south + SQUARE - origin) // CORNER_STEP) * CORNER_STEP + origin
    return Tile(name, epsg, left // CORNER_STEP * CORNER_STEP, top)


def tiles() -> tuple[Tile, ...]:
    """All tiles of the planet."""
    return tuple(tile(name) for name in TILES)


_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2">
<Document>
	<name>S2A_OPER_GIP_TILPAR_demo</name>
	<open>1</open>
	<Style id="zn"><LineStyle><color>ff0000ff</color></LineStyle><PolyStyle><fill>0</fill></PolyStyle></Style>
	<Folder>
		<name>Features</name>
		<Snippet maxLines="2">Legend: Single Symbol</Snippet>
"""
_TAIL = """	</Folder>
</Document>
</kml>
"""


def _coordinates(ring: NDArray[np.float64]) -> str:
    return " ".join(f"{lon:.10f},{lat:.10f},0" for lon, lat in ring)


def _row(name: str, value: str) -> str:
    return f'<tr><td align="right"><font COLOR="#000000"><b>{name}</b></font></td><td>{value}</td></tr>'


def _placemark(tile: Tile) -> str:
    right, bottom = tile.left + TILE_SIZE, tile.top - TILE_SIZE
    corners = [
        (tile.left, tile.top),
        (tile.left, bottom),
        (right, bottom),
        (right, tile.top),
        (tile.left, tile.top),
    ]
    utm = ",".join(f"{x} {y}" for x, y in corners)
    table = "".join(
        _row(name, value)
        for name, value in (
            ("TILE_ID", tile.name),
            ("EPSG", str(tile.epsg)),
            ("UTM_WKT", f"MULTIPOLYGON((({utm})))"),
        )
    )
    polygons = [
        "<Polygon><outerBoundaryIs><LinearRing><coordinates>"
        f"{_coordinates(shapely.get_coordinates(part))}"
        "</coordinates></LinearRing></outerBoundaryIs></Polygon>"
        for part in shapely.get_parts(tile.polygon)
    ]
    middle = tile.ring[:4].mean(axis=0, keepdims=True)
    middle[:, 0] = (middle[:, 0] + 180) % 360 - 180
    point = f"<Point><coordinates>{_coordinates(middle)}</coordinates></Point>"
    return (
        f"		<Placemark>\n			<name>{tile.name}</name>\n"
        '			<Snippet maxLines="0"></Snippet>\n'
        f"			<description><![CDATA[TILE PROPERTIES<br><table>{table}</table>]]></description>\n"
        "			<styleUrl>#zn</styleUrl>\n"
        f"			<MultiGeometry>{polygons[0]}{point}{''.join(polygons[1:])}</MultiGeometry>\n"
        "		</Placemark>\n"
    )


def write_grid(path: Path, tiles: Iterable[Tile]) -> None:
    """Write the tiles as KML: each has a name, a description table, one or two polygons and a point, with z = 0."""
    path.write_text(_HEAD + "".join(map(_placemark, tiles)) + _TAIL, encoding="utf-8")
