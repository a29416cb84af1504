"""Longitude-latitude boxes, also across ±180, and which chips touch them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.errors import InputError

HALF_TURN = 180.0  # degrees; a chip whose bounding box is wider lies across ±180

Box = tuple[float, float, float, float]


def checked_box(bbox: Sequence[float]) -> Box:
    """West, south, east and north in degrees; west > east lies across ±180.

    Raises:
        InputError: the box is invalid.
    """
    box = tuple(float(side) for side in bbox)
    if len(box) != len(("west", "south", "east", "north")) or not np.isfinite(box).all():
        raise InputError(f"bbox {bbox}: not west, south, east and north in degrees. Pass four numbers.")
    west, south, east, north = box
    if south > north or max(abs(south), abs(north)) > HALF_TURN / 2 or max(abs(west), abs(east)) > HALF_TURN:
        raise InputError(f"bbox {bbox}: lies outside -180 to 180 and -90 to 90, or south is north of north.")
    return west, south, east, north


def spans(bbox: Box) -> list[tuple[float, float]]:
    """Longitude ranges of a box: two if it crosses ±180."""
    west, _, east, _ = bbox
    return [(west, east)] if west <= east else [(west, HALF_TURN), (-HALF_TURN, east)]


def bounds_touch(bounds: Sequence[float], bbox: Box) -> bool:
    """Whether bounds, west to east without crossing ±180, touch a box."""
    west, south, east, north = bounds
    along = any(west <= last and east >= first for first, last in spans(bbox))
    return along and south <= bbox[3] and north >= bbox[1]


def may_touch(bbox: Box) -> pc.Expression:
    """Filter for rows whose bounding box touches a box; chips across ±180 may pass as well."""
    low, high = pc.field("bbox", "xmin"), pc.field("bbox", "xmax")
    along = reduce(or_, [(low <= east) & (high >= west) for west, east in spans(bbox)])
    return along & (pc.field("bbox", "ymin") <= bbox[3]) & (pc.field("bbox", "ymax") >= bbox[1])


def touches(rows: pa.Table, bbox: Box) -> NDArray[np.bool_]:
    """Which of the filtered rows touch a box; only chips across ±180 may turn out not to."""
    sides = [pc.struct_field(rows["bbox"], name).to_numpy() for name in ("xmin", "xmax")]
    found = np.ones(rows.num_rows, bool)
    wide = np.flatnonzero(sides[1] - sides[0] > HALF_TURN)
    if wide.size:
        import shapely  # here and below, as most boxes need no geometry

        polygons = shapely.from_wkb(rows["geometry"].take(pa.array(wide)).to_numpy(zero_copy_only=False))
        found[wide] = touching(polygons, bbox)
    return found


def touching(polygons: NDArray[Any], bbox: Box) -> NDArray[np.bool_]:
    """Which polygons in EPSG:4326 touch a box; (n,)."""
    import shapely

    box = shapely.union_all([shapely.box(west, bbox[1], east, bbox[3]) for west, east in spans(bbox)])
    return np.asarray(shapely.intersects(polygons, box))
