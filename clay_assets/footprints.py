"""Normalise footprints on the globe, rather than on a plane that ends at ±180°.

Catalogues encode a footprint across the antimeridian in three ways: with longitudes that jump from 179 to −179, with
longitudes beyond ±180, or split into two parts (RFC 7946, section 3.1.9). On a plane, the first wraps around the world
and the second extends beyond it, so all are converted to the third. Edges are straight in degrees (RFC 7946, section
3.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from clay_assets.grids import HALF_TURN

TURN = 360.0
POLE = 90.0
# Rings around a pole lie beyond this latitude; other rings around the world are kept as drawn.
POLAR = 45.0
MOST_TURNS = 1.5  # of longitude in either direction; coordinates beyond that are not in degrees
ROUNDING = 1e-6  # degrees by which a latitude may exceed ±90
# What shapely raises on invalid GeoJSON.
UNREADABLE = (ShapelyError, LookupError, ValueError, TypeError, AttributeError)
TRIANGLE = 3  # points
STRAIGHT = 1e-6  # sine of an angle; smaller turns may be straight lines, within rounding
LINE, POLYGON = (1, 2), 3  # shapely's type numbers
AREAL = (POLYGON, 6)
_PLAIN = np.isin(np.arange(-1, 8), (0, *LINE, *AREAL))  # by type number; -1 for None


def footprint_of(geometry: Any) -> BaseGeometry | None:
    """The normalised footprint of a GeoJSON geometry (see `as_meant`); None if it is unusable."""
    try:
        told = shapely.geometry.shape(geometry)
    except UNREADABLE:
        return None
    meant: BaseGeometry | None = as_meant(np.array([told], dtype=object))[0]
    return meant


def as_meant(shapes: NDArray[Any]) -> NDArray[Any]:
    """Normalise footprints: valid, two-dimensional, within ±180° and split there.

    Footprints that already comply are returned unchanged. If a shape contains polygons, only those are kept.

    Args:
        shapes: shapely geometries in EPSG:4326, or None; shape (n,).

    Returns:
        (n,) geometries; None where a footprint is empty or not in degrees.
    """
    return meant_and_unchanged(shapes)[0]


def meant_and_unchanged(shapes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Like `as_meant`, plus which footprints already complied, ignoring heights."""
    shapes = np.asarray(shapes, dtype=object)
    meant: NDArray[Any] = np.array(shapely.force_2d(shapes) if shapely.has_z(shapes).any() else shapes, dtype=object)
    bounds = shapely.bounds(meant)
    coordinates, rows = shapely.get_coordinates(meant, return_index=True)
    kept = _in_degrees(bounds, coordinates, rows)
    meant[~kept] = None
    sound = kept & _convex(meant, coordinates, rows)  # as most are, and `is_valid` is slow
    others = np.flatnonzero(kept & ~sound)
    kinds = shapely.get_type_id(meant[others])
    sound[others] = shapely.is_valid(meant[others]) & _PLAIN.take(kinds + 1, mode="clip")
    unchanged = kept & sound & ~_leaves_world(bounds)
    for row in np.flatnonzero(kept & ~unchanged):
        meant[row] = _on_globe(meant[row])
    return meant, unchanged


def geojson_of(
    shapes: NDArray[Any], sequence: type[list[Any]] | type[tuple[Any, ...]] = tuple
) -> Iterator[dict[str, Any] | None]:
    """Shapes as GeoJSON geometries, equal to `shapely.geometry.mapping`; None stays None.

    Args:
        shapes: shapely geometries, or None; shape (n,).
        sequence: type of coordinate sequences; parsed JSON has lists.
    """
    # Most footprints are two-dimensional polygons with one ring, and `mapping` is slow.
    plain = (shapely.get_type_id(shapes) == POLYGON) & (shapely.get_num_interior_rings(shapes) == 0)
    plain &= ~shapely.has_z(shapes) & ~shapely.is_empty(shapes)
    longitudes, latitudes = shapely.get_coordinates(shapes[plain]).T.tolist()
    points = iter(zip(longitudes, latitudes, strict=True))
    sizes = iter(shapely.get_num_coordinates(shapes[plain]).tolist())
    for shape, is_plain in zip(shapes.tolist(), plain.tolist(), strict=True):
        if is_plain:
            ring = islice(points, next(sizes))
            yield {
                "type": "Polygon",
                "coordinates": sequence((sequence(ring if sequence is tuple else map(list, ring)),)),
            }
        elif shape is None:
            yield None
        else:
            yield _held(shapely.geometry.mapping(shape), sequence)


def _held(value: Any, sequence: Any) -> Any:
    if isinstance(value, dict):
        return {name: _held(entry, sequence) for name, entry in value.items()}
    return sequence(_held(entry, sequence) for entry in value) if isinstance(value, (list, tuple)) else value


def _convex(shapes: NDArray[Any], coordinates: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which shapes are certainly valid because they are convex: polygons of one ring that turns one way, once around.

    Args:
        shapes: two-dimensional, or None; shape (n,).
        coordinates: points of all shapes, (points, 2); may include those of shapes set to None.
        rows: index of the shape of each point.
    """
    found: NDArray[np.bool_] = (shapely.get_type_id(shapes) == POLYGON) & (shapely.get_num_interior_rings(shapes) == 0)
    sizes = np.bincount(rows, minlength=len(shapes))
    found &= sizes > TRIANGLE
    ends = np.cumsum(sizes)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.diff(coordinates, axis=0, append=0)
    following = np.arange(1, len(steps) + 1)
    last = ends[sizes > TRIANGLE] - 1  # the closing point of each ring
    following[last - 1] = ends[sizes > TRIANGLE] - sizes[sizes > TRIANGLE]
    within = np.ones(len(steps), np.bool_)
    within[ends[sizes > 0] - 1] = False  # from the last point of a shape to the next shape
    here, after = steps[within], steps[following[within]]
    of = rows[within]
    with np.errstate(invalid="ignore", over="ignore"):  # for shapes that are not in degrees
        turn = here[:, 0] * after[:, 1] - here[:, 1] * after[:, 0]
        least = STRAIGHT * np.sqrt((here**2).sum(axis=1) * (after**2).sum(axis=1))
    left, right = (np.bincount(of, turns, len(shapes)) for turns in (turn > least, turn < -least))
    found &= (left == sizes - 1) | (right == sizes - 1)
    up, then_up = ((one[:, 1] > 0) | ((one[:, 1] == 0) & (one[:, 0] > 0)) for one in (here, after))
    found &= np.bincount(of, up != then_up, len(shapes)) == 2  # up once, and down once
    return found


def _in_degrees(
    bounds: NDArray[np.float64], coordinates: NDArray[np.float64], rows: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which shapes have coordinates that are all finite and within the range of longitudes and latitudes."""
    limits = np.array([MOST_TURNS * TURN, POLE + ROUNDING] * 2)
    within: NDArray[np.bool_] = np.all(np.abs(bounds) <= limits, axis=1)
    within[rows[~np.isfinite(coordinates).all(axis=1)]] = False  # bounds ignore NaN
    return within


def _leaves_world(bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which bounds, (n, 4), are wider than half the world, or extend beyond ±180 or a pole."""
    west, south, east, north = bounds.T
    leaves = (east - west > HALF_TURN) | (west < -HALF_TURN) | (east > HALF_TURN) | (south < -POLE) | (north > POLE)
    return np.asarray(leaves, np.bool_)


def _on_globe(shape: BaseGeometry) -> BaseGeometry | None:
    try:
        parts = _parts(shape)
        leaves = _leaves_world(shapely.bounds(parts).reshape(-1, 4))
        whole = [
            _cut(part) if leaving else shapely.make_valid(part) for part, leaving in zip(parts, leaves, strict=True)
        ]
        meant = shapely.union_all([_areal(part) for part in whole])
        if shapely.is_valid(shape) and shapely.get_type_id(shape) in AREAL and meant.equals(shape):
            return shape
        return None if meant.is_empty else _areal(meant)
    except ShapelyError:
        return None


def _areal(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of a shape; the whole shape if it has none."""
    polygons = [part for part in _parts(shape) if shapely.get_type_id(part) == POLYGON]
    return shapely.union_all(polygons) if polygons and shapely.get_type_id(shape) not in AREAL else shape


def _parts(shape: BaseGeometry) -> NDArray[Any]:
    """Single geometries, including those in nested collections."""
    parts = shapely.get_parts(shape)
    while (shapely.get_type_id(parts) > POLYGON).any():
        parts = shapely.get_parts(parts)
    return np.asarray(parts[~shapely.is_empty(parts)])


def _cut(part: BaseGeometry) -> BaseGeometry:
    """Split a single geometry that extends beyond ±180, or jumps there, into parts that do not."""
    whole = part
    if isinstance(part, shapely.Polygon):
        shell, *holes = (_filled(ring) for ring in shapely.get_rings(part))
        if shell.area == 0:  # all around the world: neither way is shorter
            return shapely.make_valid(part)
        return _difference(_within_world(shell), [_within_world(hole) for hole in holes])
    if isinstance(part, shapely.LineString):
        coordinates = shapely.get_coordinates(part)
        coordinates[:, 0] = np.unwrap(coordinates[:, 0], period=TURN)
        whole = shapely.LineString(coordinates)
    return _within_world(whole)


def _difference(shape: BaseGeometry, holes: list[BaseGeometry]) -> BaseGeometry:
    return shapely.difference(shape, shapely.union_all(holes)) if holes else shape


def _filled(ring: BaseGeometry) -> BaseGeometry:
    """The area that a ring encloses if each edge takes the shorter way round, with unbounded longitudes."""
    coordinates = shapely.get_coordinates(ring)
    longitudes, latitudes = coordinates.T.copy()
    longitudes = np.unwrap(longitudes, period=TURN)
    if abs(longitudes[-1] - longitudes[0]) > HALF_TURN:
        if not (latitudes > POLAR).all() and not (latitudes < -POLAR).all():
            return shapely.make_valid(shapely.Polygon(coordinates))
        pole = np.copysign(POLE, latitudes.mean())
        longitudes = np.append(longitudes, [longitudes[-1], longitudes[0]])
        latitudes = np.append(latitudes, [pole, pole])
    return shapely.make_valid(shapely.Polygon(np.column_stack([longitudes, latitudes])))


def _within_world(shape: BaseGeometry) -> BaseGeometry:
    west, _, east, _ = shape.bounds
    first, last = (int(np.floor((side + HALF_TURN) / TURN)) for side in (west, east))
    pieces = []
    for turn in range(first, last + 1):
        world = shapely.box(turn * TURN - HALF_TURN, -POLE, turn * TURN + HALF_TURN, POLE)
        pieces.append(translate(shapely.intersection(shape, world), -turn * TURN))
    return shapely.union_all(pieces)
