"""Reads the Sentinel-2 tiling grid, from any vector file of named tiles, into a table with a fixed schema.

This module reads and checks the polygons, and cuts them at the antimeridian. Download, cache and storage are handled
elsewhere. Reference: ESA's Sentinel-2 tiling grid KML (S2A_OPER_GIP_TILPAR_MPC). Each of its placemarks is a geometry
collection with heights of zero: the tile's polygon (two polygons at ±180°) and a point for its label.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import antimeridian
import geopandas as gpd
import numpy as np
import pyogrio
import pyogrio.errors
import shapely

from clay_assets.errors import InputError

NAME_COLUMNS = ("name", "tile", "tile_id", "mgrs", "mgrs_tile")
"""Columns that can hold a tile's name, in order of preference; case is ignored."""

_MGRS = re.compile(r"(?:MGRS-|T)?(\d{1,2})([A-Z]{3})", re.IGNORECASE | re.ASCII)
_POLYGON, _MULTIPOLYGON = 3, 6  # shapely.GeometryType
_AT_EDGE = 1e-3  # degrees from ±180 that cutting and rounding may leave; tiles are a thousand times wider
_SHOWN = 5


def read_grid(path: str | Path) -> gpd.GeoDataFrame:
    """Read a tiling grid.

    Args:
        path: a local file: the official Sentinel-2 tiling KML, plain or zipped (`.zip`, `.kmz`), GeoParquet,
            FlatGeobuf, GeoPackage, or any other vector file that GDAL reads. The first layer with polygons is read.

    Returns:
        One row per tile, sorted by name, index 0..n-1: `name` (str, unique) and `geometry` (valid 2D Polygon
        or MultiPolygon in EPSG:4326, longitude first). A polygon drawn across the antimeridian (179..181 or
        179..-179) is cut there, along its straight edges in longitude and latitude; coordinates never leave
        -180..180 and -90..90. Two rows of one tile, cut at the antimeridian, are merged. MGRS names are
        normalised to the form `01CCV`. Points and lines are dropped.

    Raises:
        InputError: the file cannot be read as vectors, has no name column, empty or repeated names, a CRS
            other than EPSG:4326, coordinates that are not degrees, no polygons, or a tile without polygons.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"Tiling grid {path}: file not found. Give the path of a KML, GeoParquet, FlatGeobuf or GeoPackage."
        )
    frame = _read_vectors(path)
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    column = name_column(columns)
    if column is None:
        raise InputError(
            f"Tiling grid {path}: no column of tile names. Looked for {', '.join(NAME_COLUMNS)} (any case), "
            f"found {', '.join(columns) or 'no columns'}. Rename the column that holds them."
        )
    _check_crs(path, frame)
    given = _checked_names(path, frame[column])
    names, rows = np.unique(given, return_inverse=True)
    geometries = np.asarray(frame.geometry.array, dtype=object)
    _check_repeats(path, names, rows, geometries)
    polygons = _polygons(path, names, rows, geometries)
    return gpd.GeoDataFrame({"name": names.tolist()}, geometry=gpd.GeoSeries(polygons), crs="EPSG:4326")


def name_column(columns: Sequence[str]) -> str | None:
    """The column of a table that holds the tile names; None if there is none."""
    found = (column for wanted in NAME_COLUMNS for column in columns if column.lower() == wanted)
    return next(found, None)


def tile_name(name: str) -> str:
    """An MGRS tile's name in the form of the official grid: `01CCV` for `1CCV`, `T01CCV` and `MGRS-1CCV`.

    Other names are only stripped.
    """
    found = _MGRS.fullmatch(name.strip())
    return f"{int(found[1]):02}{found[2].upper()}" if found else name.strip()


def _read_vectors(path: Path) -> gpd.GeoDataFrame:
    """Read the layer that holds the polygons, from any supported format."""
    magic = b""
    if path.is_file():
        with path.open("rb") as file:
            magic = file.read(4)
    try:
        # GDAL in the pyogrio wheels has no Parquet driver, so that format goes through pyarrow.
        if magic == b"PAR1":
            return gpd.read_parquet(path)
        source = _inside_zip(path) if magic == b"PK\x03\x04" else path
        for name, kind in pyogrio.list_layers(source):
            # Skip layers declared as points or lines; KML layers declare no type ("Unknown").
            if kind is None or "Point" in kind or "LineString" in kind:
                continue
            frame = pyogrio.read_dataframe(source, layer=name)
            if isinstance(frame, gpd.GeoDataFrame) and _is_areal(frame.geometry.array).any():
                return frame
    except InputError:
        raise
    # The readers' errors have no common base; pyarrow's and geopandas' are ValueErrors and OSErrors.
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        zipfile.BadZipFile,
        OSError,
        ValueError,
    ) as error:
        raise InputError(
            f"Tiling grid {path}: not a readable vector file ({error}). Give a KML (plain or zipped), "
            "GeoParquet, FlatGeobuf or GeoPackage; download a truncated file again."
        ) from error
    raise InputError(f"Tiling grid {path}: no layer with polygons in the file. Give a file of tile outlines.")


def _inside_zip(path: Path) -> str:
    """GDAL's path of the KML in a zip, or of the zip itself if it holds another format."""
    with zipfile.ZipFile(path) as archive:
        kml = [name for name in archive.namelist() if name.lower().endswith(".kml")]
    if len(kml) > 1:
        raise InputError(
            f"Tiling grid {path}: {len(kml)} KML files in the zip ({_listed(kml)}). Unzip it and give one."
        )
    # Braces make GDAL accept a zip with any extension.
    return f"/vsizip/{{{path.resolve()}}}" + (f"/{kml[0]}" if kml else "")


def _check_crs(path: Path, frame: gpd.GeoDataFrame) -> None:
    crs = frame.crs
    # GeoParquet's default, OGC:CRS84, is EPSG:4326 with longitude first, as in all files.
    if crs is None or not (crs.equals("EPSG:4326", ignore_axis_order=True) or crs.to_epsg() == 4326):
        name = "no CRS" if crs is None else f"CRS {':'.join(crs.to_authority() or ())} ({crs.name})"
        raise InputError(f"Tiling grid {path}: {name} instead of EPSG:4326. Reproject it, or set its CRS.")


def _checked_names(path: Path, column: Any) -> np.ndarray:
    """Tile names as an object array of str; an empty one is an error."""
    names: np.ndarray = column.astype(object).where(column.notna(), "").map(str).map(tile_name).to_numpy(dtype=object)
    empty = np.flatnonzero(names == "")
    if empty.size:
        rows = _listed(empty.tolist())
        raise InputError(f"Tiling grid {path}: {empty.size} tiles without a name (rows {rows}). Name or drop them.")
    return names


def _check_repeats(path: Path, names: np.ndarray, rows: np.ndarray, geometries: np.ndarray) -> None:
    """Reject repeated names, except for the two sides of a tile cut at ±180: it is unclear which row is right."""
    repeated = np.flatnonzero(np.bincount(rows) > 1)
    cut = [number for number in repeated if _is_cut(geometries[rows == number])]
    unclear = names[np.setdiff1d(repeated, cut)]
    if unclear.size:
        raise InputError(
            f"Tiling grid {path}: {unclear.size} names are repeated ({_listed(unclear.tolist())}). "
            "Keep one row of each; merge the parts of a tile into one MultiPolygon."
        )


def _is_cut(geometries: np.ndarray) -> bool:
    """Whether all geometries reach ±180, some from the west and some from the east."""
    bounds = np.abs(shapely.bounds(geometries))  # 180 and -180 are one meridian
    eastern, western = (np.abs(bounds[:, side] - 180) <= _AT_EDGE for side in (0, 2))
    return bool((eastern ^ western).all() and eastern.any() and western.any())


def _is_areal(geometries: Any) -> np.ndarray:
    """Mask of the geometries that are, or contain, polygons."""
    parts, rows = shapely.get_parts(np.asarray(geometries, dtype=object), return_index=True)
    areal = np.zeros(len(geometries), dtype=bool)
    areal[rows[np.isin(shapely.get_type_id(parts), (_POLYGON, _MULTIPOLYGON)) & ~shapely.is_empty(parts)]] = True
    return areal


def _polygons(path: Path, names: np.ndarray, named: np.ndarray, geometries: np.ndarray) -> np.ndarray:
    """Valid (Multi)Polygons within ±180, one per name; `named` is the index of each geometry's name."""
    if not _is_areal(geometries).any():
        raise InputError(f"Tiling grid {path}: no polygons in the file. Give a file of tile outlines.")
    parts, rows = _polygon_parts(shapely.force_2d(geometries))
    rows = named[rows]
    _check_degrees(path, names[rows], parts)
    for part in np.flatnonzero(_crosses_antimeridian(parts)):
        parts[part] = _cut(path, names[rows[part]], parts[part])
    # Cutting yields MultiPolygons and repairing may yield lines, so split into parts again.
    broken = ~shapely.is_valid(parts)
    parts[broken] = shapely.make_valid(parts[broken])
    parts, inner = _polygon_parts(parts)
    rows = rows[inner]
    bare = np.setdiff1d(np.arange(len(names)), rows)
    if bare.size:
        raise InputError(
            f"Tiling grid {path}: {bare.size} tiles have no polygon ({_listed(names[bare].tolist())}). "
            "Add their outlines or drop them."
        )
    polygons = np.empty(len(names), dtype=object)
    single = np.bincount(rows, minlength=len(names)) == 1
    alone = single[rows]
    polygons[rows[alone]] = parts[alone]
    many = np.unique(rows[~alone])
    if many.size:
        merged = shapely.multipolygons(parts[~alone], indices=np.searchsorted(many, rows[~alone]))
        # Parts that overlap or share an edge must be merged to be valid.
        unsound = ~shapely.is_valid(merged)
        merged[unsound] = shapely.unary_union(merged[unsound][:, None], axis=1)
        polygons[many] = merged
    return polygons


def _polygon_parts(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All non-empty polygons, including those in collections, and the row of each."""
    parts, rows = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # a MultiPolygon inside a collection
    keep = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    return np.asarray(parts[keep]), np.asarray(rows[inner][keep])


def _check_degrees(path: Path, names: np.ndarray, parts: np.ndarray) -> None:
    bounds = shapely.bounds(parts)
    wrong = ~((np.abs(bounds[:, [0, 2]]) <= 360).all(axis=1) & (np.abs(bounds[:, [1, 3]]) <= 90).all(axis=1))
    if wrong.any():
        first = np.flatnonzero(wrong)[0]
        raise InputError(
            f"Tiling grid {path}: tile {names[first]} has coordinates that are not degrees of EPSG:4326 "
            f"({', '.join(f'{value:g}' for value in bounds[first])}). Reproject the file."
        )


def _crosses_antimeridian(parts: np.ndarray) -> np.ndarray:
    """Mask of the polygons that go beyond ±180, or jump from one edge of the world to the other."""
    bounds = shapely.bounds(parts)
    crossing: np.ndarray = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    rings, owners = shapely.get_rings(parts, return_index=True)
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    jump = (np.abs(np.diff(coordinates[:, 0])) > 180) & (ring[1:] == ring[:-1])
    crossing[owners[ring[1:][jump]]] = True
    return crossing


def _cut(path: Path, name: str, polygon: shapely.Polygon) -> shapely.Geometry:
    """Cut a polygon that crosses ±180 there."""
    pieces = []
    for ring in shapely.get_rings(polygon):
        # Unwrap 179..-179 to 179..181 first: winding and shape are meaningless otherwise.
        unwrapped = shapely.get_coordinates(ring)
        unwrapped[:, 0] = np.unwrap(unwrapped[:, 0], period=360)
        if abs(unwrapped[0, 0] - unwrapped[-1, 0]) > 180:
            raise InputError(f"Tiling grid {path}: tile {name} goes around a pole. Cut it into parts within ±180.")
        filled = shapely.orient_polygons(shapely.Polygon(unwrapped))
        # Edges are straight in longitude and latitude (RFC 7946, section 3.1.1), hence no great circles.
        pieces.append(antimeridian.fix_polygon(filled, fix_winding=True, great_circle=False))
    # Holes are cut separately, since antimeridian 0.4 fails on holes of a polygon that goes beyond 180.
    return shapely.difference(pieces[0], shapely.unary_union(pieces[1:]))


def _listed(values: list[Any]) -> str:
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    return shown + (", ..." if len(values) > _SHOWN else "")
