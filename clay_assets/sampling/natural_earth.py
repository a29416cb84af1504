"""Draws the locations for NAIP: points in CONUS from the layers of Natural Earth 1:10m, and random points.

Specification: the Clay model documentation, "Training Data", section "NAIP sampling strategy". Layers and fields are
those of Natural Earth 4 and 5 (https://www.naturalearthdata.com). The platform decides which scenes are used at each
location.

CONUS, the 48 states and DC, is the union of the admin-1 features with their codes. The locations in it are
- each populated place, airport and port, and each park mapped as a point;
- a point inside each park mapped as an area, and the midpoint of each park mapped as a line;
- a random point along each river, uniform by length on the WGS 84 ellipsoid;
- a random point in each lake, uniform by area on the sphere;
- random points, uniform on the sphere. The i-th attempt depends on (seed, "random", i) only and falls anywhere on
  Earth; those outside CONUS are rejected. Asking for more points therefore keeps the earlier ones, and a different
  outline of CONUS only changes points near its border.

Features that cross the border are first clipped to CONUS; parts below a metre, or a square metre, are dropped. A
random draw depends on (seed, layer, name of the location), and the name on the feature only, so features do not affect
each other's draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import Geod

from clay_assets.draws import keyed_hash
from clay_assets.errors import InputError
from clay_assets.sampling.natural_earth_files import (
    FEATURE_LAYERS,
    STATES_10M,
    STATES_50M,
    Array,
    Features,
    Files,
    format_bounds,
    parts_of_dimension,
)
from clay_assets.storage.stores import Store

__all__ = ["LAYERS", "RANDOM", "sample_locations"]

STATE = r"US-[A-Z]{2}"  # ISO 3166-2
NOT_CONUS = {"US-AK", "US-HI", "US-AS", "US-GU", "US-MP", "US-PR", "US-UM", "US-VI"}  # and outlying areas
RANDOM = "random"  # the layer of the random points
ID_DECIMALS = 5  # of degrees (about 1 m): features are identified by their geometry rounded to these
DECIMALS = 7  # of degrees (about 1 cm): locations are rounded, so that they are the same on every CPU
SMALLEST = 1.0  # metres of a line, square metres of an area
STEP = 0.1  # degrees; edges are split to this length, since the scale changes with latitude
DEGREE = 111_195.0  # metres, on a sphere of 6,371 km
MOST_ATTEMPTS = 1 << 27  # random points on Earth: 2 million for CONUS, which is 1.6 % of it
MOST_LAKE_ATTEMPTS = 1 << 18  # within the bounds of a lake


LAYERS = (*(layer.key for layer in FEATURE_LAYERS), RANDOM)


def sample_locations(source: str, random_points: int, seed: int, keep_in: Store | None = None) -> gpd.GeoDataFrame:
    """Draw the locations at which NAIP is sampled.

    Args:
        source: root of Natural Earth's bucket (`https://…`, `s3://…`), with `10m_cultural/ne_10m_airports.zip` and so
            on; or a folder with these zip files or with unpacked `.shp`, `.gpkg`, `.geojson`, `.json` or `.parquet`
            files, in the same subfolders or in none. A folder may hold admin-1 at 1:50m instead.
        random_points: number of random points, in addition to the features.
        seed: the recipe's seed.
        keep_in: store that keeps downloaded files, so that each is downloaded once.

    Returns:
        Points in EPSG:4326 ordered by name, with the columns `name` (unique: layer and 8 hexadecimal digits, or the
        number of the attempt for random points), `layer` (one of LAYERS), `feature` (its name in the layer, or "") and
        `geometry`. `attrs["layers"]` has one record per layer: `layer`, `file` (relative to the source), `features`,
        `without_geometry`, `repaired` polygons, `duplicates` (features in CONUS that equal another to about 1 m) and
        `in_conus` (locations). `attrs["conus"]` has `file`, `states`, `without_geometry`, `repaired`.

    Raises:
        InputError: a layer is missing, unreadable or not georeferenced, or lacks a field; no states; too few random
            points.
        SourceError: a file could not be downloaded.
    """
    if random_points < 0:
        raise InputError(f"random_points: {random_points} is negative. Ask for 0 or more.")
    with ExitStack() as stack:
        files = Files(source, keep_in, stack)
        conus, states = _conus(files)
        tables, records = [], []
        for layer in FEATURE_LAYERS:
            table, record = _locations(files.features(layer), conus, seed)
            tables.append(table)
            records.append(record)
    attempts, xy = _random_points(conus, random_points, seed)
    names = [f"{RANDOM}-{attempt:07d}" for attempt in attempts]
    tables.append(_table(RANDOM, names, [""] * len(names), xy))
    nothing = {"without_geometry": 0, "repaired": 0, "duplicates": 0}
    records.append({"layer": RANDOM, "file": "", "features": len(names), **nothing, "in_conus": len(names)})
    locations = gpd.GeoDataFrame(pd.concat(tables, ignore_index=True), geometry="geometry", crs="EPSG:4326")
    locations = locations.sort_values("name", ignore_index=True)
    locations.attrs = {"layers": records, "conus": states}
    return locations


def _conus(files: Files) -> tuple[shapely.Geometry, dict[str, Any]]:
    """Outline of the 48 states and DC, and a record of its source."""
    coarse = files.find(STATES_10M) is None and files.find(STATES_50M) is not None
    states = files.features(STATES_50M if coarse else STATES_10M)
    codes = pd.Series(states.names, dtype=str)
    chosen = (codes.str.fullmatch(STATE) & ~codes.isin(NOT_CONUS)).to_numpy() & ~shapely.is_missing(states.geometries)
    if not chosen.any():
        raise InputError(
            f"Natural Earth layer admin_1 ({files.source}/{states.record['file']}): no iso_3166_2 code of CONUS "
            "(US-AL, US-AR, …). Use the layer as published by Natural Earth."
        )
    ordered = sorted(states.geometries[chosen], key=shapely.to_wkb)  # the last bits of a union depend on the order
    conus = parts_of_dimension(np.array([shapely.union_all(ordered)], dtype=object), 2)[0]
    shapely.prepare(conus)
    counts = {name: states.record[name] for name in ("file", "without_geometry", "repaired")}
    return conus, {**counts, "states": len(set(states.names[chosen]))}


def _locations(features: Features, conus: shapely.Geometry, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    layer = features.layer
    parts = _parts_inside(features.geometries, conus, layer.dimension)
    rows = np.flatnonzero(~shapely.is_missing(parts))
    rows = rows[np.argsort(shapely.to_wkb(features.drawn[rows]))]  # so that the same one of near duplicates is kept
    ids = _ids(layer.key, features.names[rows], features.drawn[rows])
    names, first = np.unique(ids, return_index=True)  # sorted, so that the order in the file does not matter
    duplicates = len(rows) - len(names)
    rows = rows[first]
    streams = [np.random.Philox(key=keyed_hash(seed, layer.key, name)) for name in names]
    if layer.rule == "itself":
        xy = shapely.get_coordinates(parts[rows])
    elif layer.rule == "inside":
        xy = shapely.get_coordinates(shapely.point_on_surface(parts[rows]))
    elif layer.rule == "half_way":
        xy = _along(parts[rows], np.full(len(rows), 0.5))
    elif layer.rule == "along":
        xy = _along(parts[rows], np.array([_uniform(stream, 1)[0] for stream in streams]))
    else:
        xy = _within(parts[rows], streams, features.names[rows], features.record["file"])
    record = {**features.record, "duplicates": duplicates, "in_conus": len(names)}
    return _table(layer.key, names.tolist(), features.names[rows].tolist(), xy), record


def _ids(key: str, names: Array, drawn: Array) -> Array:
    """Id of each feature: its layer, and a hash of its name and its geometry to about 1 m."""
    rounded = shapely.transform(drawn, lambda xy: np.round(xy, ID_DECIMALS) + 0.0)  # no -0
    contents = shapely.to_wkb(rounded, byte_order=1)
    hashes = [
        hashlib.blake2b(f"{key}\x1f{name}\x1f".encode() + content, digest_size=4).hexdigest()
        for name, content in zip(names, contents, strict=True)
    ]
    return np.array([f"{key}-{digest}" for digest in hashes], dtype=object)


def _parts_inside(geometries: Array, conus: shapely.Geometry, dimension: int) -> Array:
    """The part of each geometry in CONUS, of the same dimension and normalised; None if it lies outside."""
    inside = shapely.covers(conus, geometries)
    parts: Array = np.full(len(geometries), None, dtype=object)
    parts[inside] = geometries[inside]
    if dimension == 0:
        return parts
    across = shapely.intersects(conus, geometries) & ~inside
    parts[across] = parts_of_dimension(shapely.intersection(geometries[across], conus), dimension)
    there = np.flatnonzero(~shapely.is_missing(parts))
    if dimension == 1:
        row, _, _, length = _segments(parts[there])
        size = np.bincount(row, length, minlength=len(there)) / 1e6
    else:
        latitude = shapely.bounds(parts[there])[:, [1, 3]].mean(axis=1)
        size = shapely.area(parts[there]) * np.cos(np.radians(latitude)) * DEGREE**2
    parts[there[size < SMALLEST]] = None
    return parts


def _segments(lines: Array) -> tuple[Array, Array, Array, Array]:
    """Row, start, end (degrees) and geodesic length (whole micrometres) of every segment of (Multi)LineStrings."""
    parts, rows = shapely.get_parts(lines, return_index=True)
    long = shapely.length(parts) > 0  # GEOS cannot split a part of zero length
    parts, rows = shapely.segmentize(parts[long], STEP), rows[long]
    xy, part = shapely.get_coordinates(parts, return_index=True)
    joined = part[1:] == part[:-1]
    start, end = xy[:-1][joined], xy[1:][joined]
    _, _, metres = Geod(ellps="WGS84").inv(start[:, 0], start[:, 1], end[:, 0], end[:, 1])
    # Sums of integers do not depend on the other lines; those of floats would.
    return rows[part[1:][joined]], start, end, np.rint(np.asarray(metres) * 1e6).astype(np.int64)


def _along(lines: Array, shares: Array) -> Array:
    """Longitude and latitude at a fraction (0 to below 1) of the geodesic length of each (Multi)LineString."""
    row, start, end, length = _segments(shapely.normalize(shapely.line_merge(lines)))
    upto = np.cumsum(length)
    total = np.zeros(len(lines), dtype=np.int64)
    np.add.at(total, row, length)
    target = np.cumsum(total) - total + (shares * total).astype(np.int64)
    segment = np.searchsorted(upto, target, side="right")
    share = (target - upto[segment] + length[segment]) / length[segment]
    return np.asarray(start[segment] + share[:, None] * (end[segment] - start[segment]))


def _within(polygons: Array, streams: list[np.random.Philox], names: Array, file: str) -> Array:
    """A random point in each polygon, uniform by area on the sphere: the first hit of points in its bounds."""
    shapely.prepare(polygons)
    bounds = shapely.bounds(polygons)
    xy = np.full((len(polygons), 2), np.nan)
    left, tried, batch = np.arange(len(polygons)), 0, 8
    while left.size:
        if tried >= MOST_LAKE_ATTEMPTS:
            raise InputError(
                f"Natural Earth layer lakes ({file}): of {tried} points in the bounds of {names[left[0]] or 'a lake'}, "
                f"{format_bounds(bounds[left[0]])}, none is inside. Repair or remove its outline."
            )
        uniform = np.stack([_uniform(streams[row], 2 * batch).reshape(batch, 2) for row in left])
        points = _on_sphere(uniform, bounds[left, None])
        inside = shapely.contains_xy(polygons[left, None], points[..., 0], points[..., 1])
        found = inside.any(axis=1)
        xy[left[found]] = points[found, inside[found].argmax(axis=1)]
        left, tried, batch = left[~found], tried + batch, min(2 * batch, 1 << 13)
    return xy


def _random_points(conus: shapely.Geometry, count: int, seed: int) -> tuple[list[int], Array]:
    """The first attempts that fall in CONUS: their numbers, and their longitude and latitude."""
    stream = np.random.Philox(key=keyed_hash(seed, RANDOM))
    world = np.array([-180, -90, 180, 90])
    # Most attempts are far from CONUS; the bounds reject them before any trigonometry.
    west, south, east, north = conus.bounds
    low, high = (np.sin(np.radians([south, north])) + 1) / 2 + np.array([-1e-6, 1e-6])
    left, right = (np.array([west, east]) + 180) / 360 + np.array([-1e-6, 1e-6])
    numbers, points = [np.empty(0, dtype=np.int64)], [np.empty((0, 2))]
    found, tried, batch = 0, 0, 1 << 14
    while found < count:
        if tried >= MOST_ATTEMPTS:
            raise InputError(
                f"Natural Earth layer random: only {found} of {count} points found in CONUS after {tried} attempts; "
                f"bounds {format_bounds(conus.bounds)}. Ask for fewer, or check the states of admin-1."
            )
        across, up = _uniform(stream, 2 * batch).reshape(batch, 2).T
        near = np.flatnonzero((across > left) & (across < right) & (up > low) & (up < high))
        xy = _on_sphere(np.stack([across[near], up[near]], axis=-1), world)
        inside = shapely.contains_xy(conus, xy[:, 0], xy[:, 1])
        numbers.append(tried + near[inside])
        points.append(xy[inside])
        found, tried, batch = found + int(inside.sum()), tried + batch, min(2 * batch, 1 << 18)
    return np.concatenate(numbers)[:count].tolist(), np.concatenate(points)[:count]


def _uniform(stream: np.random.Philox, count: int) -> Array:
    """53-bit numbers from 0 to below 1, from raw words: NumPy guarantees only these to stay the same."""
    return np.asarray((stream.random_raw(count) >> np.uint64(11)) * 2.0**-53)


def _on_sphere(uniform: Array, bounds: Array) -> Array:
    """Map uniform pairs (…, 2) to longitude and latitude, uniform by area in bounds (…, west south east north)."""
    west, south, east, north = np.moveaxis(np.asarray(bounds, dtype=float), -1, 0)
    low, high = np.sin(np.radians(south)), np.sin(np.radians(north))
    latitude = np.degrees(np.arcsin(low + uniform[..., 1] * (high - low)))
    return np.round(np.stack([west + uniform[..., 0] * (east - west), latitude], axis=-1), DECIMALS)


def _table(layer: str, names: Sequence[str], features: Sequence[str], xy: Array) -> pd.DataFrame:
    geometry = shapely.points(np.round(xy, DECIMALS) + 0.0)
    return pd.DataFrame({"name": names, "layer": layer, "feature": features, "geometry": geometry}, dtype=object)
