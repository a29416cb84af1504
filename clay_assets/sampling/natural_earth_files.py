"""Reads the layers of Natural Earth, from its zip files or unpacked, in a folder or remote.

Layers and fields are those of Natural Earth 4 and 5 (https://www.naturalearthdata.com). The draw is in `natural_earth`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import shapely
from shapely.errors import ShapelyError

from clay_assets.errors import InputError
from clay_assets.sources.downloads import local_copy
from clay_assets.storage.stores import Store
from clay_assets.transport.locations import is_remote, join, local_path

KEPT_IN = "sampling/source"  # folder of the store for downloaded files
SUFFIXES = (".shp", ".gpkg", ".geojson", ".json", ".parquet")  # looked for in a folder without the zip

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A layer of Natural Earth: its key, file, name fields (the first that is filled counts), and sampling rule."""

    key: str
    file: str
    folder: str = "10m_cultural"
    fields: tuple[str, ...] = ("name",)
    rule: str = "itself"  # itself, inside, half_way, along, within
    archive: str = ""  # zip that holds the layer, if not its own

    @property
    def dimension(self) -> int:
        """0 points, 1 lines, 2 areas."""
        return {"itself": 0, "half_way": 1, "along": 1, "inside": 2, "within": 2}[self.rule]


CODE = ("iso_3166_2",)
STATES_10M = Layer("admin_1", "ne_10m_admin_1_states_provinces", fields=CODE, rule="inside")
STATES_50M = Layer("admin_1", "ne_50m_admin_1_states_provinces", folder="50m_cultural", fields=CODE, rule="inside")
PARKS = "ne_10m_parks_and_protected_lands"
PARK_FIELDS = ("unit_name", "name")
FEATURE_LAYERS = (
    Layer("populated_places", "ne_10m_populated_places"),
    Layer("airports", "ne_10m_airports"),
    Layer("ports", "ne_10m_ports"),
    Layer("parks_area", f"{PARKS}_area", fields=PARK_FIELDS, rule="inside", archive=PARKS),
    Layer("parks_line", f"{PARKS}_line", fields=PARK_FIELDS, rule="half_way", archive=PARKS),
    Layer("parks_point", f"{PARKS}_point", fields=PARK_FIELDS, archive=PARKS),
    Layer("rivers", "ne_10m_rivers_lake_centerlines", folder="10m_physical", rule="along"),
    Layer("lakes", "ne_10m_lakes", folder="10m_physical", rule="within"),
)


@dataclass
class Features:
    """A layer as read: names, geometries as drawn (normalised, EPSG:4326, 2D), and the same with valid polygons."""

    layer: Layer
    names: Array
    drawn: Array
    geometries: Array
    record: dict[str, Any]


@dataclass
class Files:
    """The files of a source; each is opened once."""

    source: str
    keep_in: Store | None
    stack: ExitStack
    opened: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = None if is_remote(self.source) else self._folder()

    def _folder(self) -> Path:
        folder = local_path(self.source)
        if not folder.is_dir():
            raise InputError(f"Natural Earth {self.source}: folder not found. Check CLAY_NATURAL_EARTH.")
        return folder

    def find(self, layer: Layer) -> str | None:
        """Path of a layer's file relative to the source; None if a folder does not have it."""
        if self.root is None:
            return f"{layer.folder}/{layer.archive or layer.file}.zip"
        zips = [f"{name}.zip" for name in (layer.file, layer.archive) if name]
        names = [*zips, *(layer.file + suffix for suffix in SUFFIXES)]
        paths = [path for name in names for path in (name, f"{layer.folder}/{name}")]
        return next((path for path in paths if (self.root / path).is_file()), None)

    def features(self, layer: Layer) -> Features:
        """Read a layer."""
        file = self.find(layer)
        if file is None:
            raise InputError(
                f"Natural Earth layer {layer.key}: neither {layer.archive or layer.file}.zip nor {layer.file} as "
                f"{', '.join(SUFFIXES)} found in {self.source} or its {layer.folder}/. Put it there, or change "
                "CLAY_NATURAL_EARTH."
            )
        address = join(self.source, file)
        where = f"Natural Earth layer {layer.key} ({address})"
        if address not in self.opened:
            try:
                copy = local_copy(address if self.root is None else str(self.root / file), self.keep_in, KEPT_IN)
                self.opened[address] = self.stack.enter_context(copy)
            except InputError as error:
                raise InputError(f"Natural Earth layer {layer.key}: {error} Check CLAY_NATURAL_EARTH.") from error
        return _features(_read_vectors(self.opened[address], layer, where), layer, where, file)


def _read_vectors(path: Path, layer: Layer, where: str) -> gpd.GeoDataFrame:
    try:
        if path.suffix == ".parquet":  # GDAL in the pyogrio wheels has no Parquet driver
            return gpd.read_parquet(path)
        readable = str(path)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                members = {Path(name).name.lower(): name for name in archive.namelist()}
            member = members.get(f"{layer.file}.shp")
            if member is None:
                raise InputError(
                    f"{where}: {layer.file}.shp not found in the zip. Use it as published by Natural Earth."
                )
            readable = f"/vsizip/{{{path.absolute()}}}/{member}"
        frame = pyogrio.read_dataframe(readable, on_invalid="fix")
    except InputError:
        raise
    # The readers' errors have no common base; pyogrio's are RuntimeErrors, pyarrow's ValueErrors and OSErrors.
    except (RuntimeError, OSError, ValueError, zipfile.BadZipFile, ShapelyError) as error:
        raise InputError(
            f"{where}: not a readable vector file ({error}). Download it again; copies are kept in {KEPT_IN}."
        ) from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{where}: no geometry in the file. Use the layer as published by Natural Earth.")
    if frame.crs is None and path.suffix in (".json", ".geojson"):
        frame = frame.set_crs("EPSG:4326")  # RFC 7946, section 4
    return frame


def _features(frame: gpd.GeoDataFrame, layer: Layer, where: str, file: str) -> Features:
    names = _names(frame, layer, where)
    crs = frame.crs
    if crs is None:
        raise InputError(f"{where}: no CRS in the file. Add one (for a shapefile, a .prj).")
    if not (crs.equals("EPSG:4326", ignore_axis_order=True) or crs.to_epsg() == 4326):
        frame = frame.to_crs("EPSG:4326")
    drawn = shapely.force_2d(np.asarray(frame.geometry.array, dtype=object))
    there = ~(shapely.is_missing(drawn) | shapely.is_empty(drawn))
    names, drawn = names[there], drawn[there]
    parts, rows = shapely.get_parts(drawn, return_index=True)
    alone = (np.bincount(rows, minlength=len(drawn)) == 1)[rows]
    drawn[rows[alone]] = parts[alone]  # formats differ in whether one part is a multi-part
    drawn = shapely.normalize(drawn)
    _check(names, drawn, layer, where)
    geometries, broken = drawn, np.zeros(len(drawn), dtype=bool)
    if layer.dimension == 2:
        broken = ~shapely.is_valid(drawn)
        geometries = drawn.copy()
        geometries[broken] = parts_of_dimension(shapely.make_valid(drawn[broken]), 2)
    record = {
        "layer": layer.key,
        "file": file,
        "features": len(frame),
        "without_geometry": int((~there).sum()),
        "repaired": int(broken.sum()),
    }
    return Features(layer, names, drawn, geometries, record)


def _check(names: Array, drawn: Array, layer: Layer, where: str) -> None:
    """Reject geometries of the wrong type, and coordinates that are not degrees."""
    wanted = (("Point",), ("LineString", "MultiLineString"), ("Polygon", "MultiPolygon"))[layer.dimension]
    wrong = ~np.isin(shapely.get_type_id(drawn), [shapely.GeometryType[kind.upper()] for kind in wanted])
    bounds = shapely.bounds(drawn)
    far = ~(np.abs(bounds) <= np.array([180, 90, 180, 90]) + 1e-6).all(axis=1)  # also true if not finite
    for row in np.flatnonzero(wrong | far)[:1]:
        what = f"{where}: {names[row] or 'an unnamed feature'}"
        if wrong[row]:
            kinds = " or ".join(wanted)
            raise InputError(f"{what} is a {drawn[row].geom_type}, must be a {kinds}. Use the layer as published.")
        raise InputError(
            f"{what} has coordinates that are not degrees ({format_bounds(bounds[row])}). Set the right CRS."
        )


def _names(frame: gpd.GeoDataFrame, layer: Layer, where: str) -> Array:
    """Names of the features, from the first field that is filled; field names are matched ignoring case."""
    names = pd.Series("", index=frame.index, dtype=object)
    found = [column for wanted in layer.fields for column in frame.columns if column.lower() == wanted]
    if not found:
        raise InputError(
            f"{where}: field {' or '.join(layer.fields)} is missing; found {', '.join(map(str, frame.columns))}. "
            "Use the layer as published by Natural Earth."
        )
    for column in found:
        text = frame[column].astype(object).where(frame[column].notna(), "").map(str).str.strip()
        names = names.where(names != "", text)
    return np.asarray(names.to_numpy(dtype=object))


def parts_of_dimension(geometries: Array, dimension: int) -> Array:
    """The lines or polygons of each geometry, as a normalised multi-part geometry; None if it has none."""
    parts, rows = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # a multi-part inside a collection
    keep = (shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)
    collect = shapely.multilinestrings if dimension == 1 else shapely.multipolygons
    found = np.full(len(geometries), None, dtype=object)
    collect(parts[keep], indices=rows[inner][keep], out=found)
    return np.asarray(shapely.normalize(found))


def format_bounds(bounds: Sequence[float]) -> str:
    """Format bounds for a message."""
    return ", ".join(f"{value:g}" for value in bounds)
