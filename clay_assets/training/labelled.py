"""Chips at labelled points: for each point, one chip of the selection that contains it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike, NDArray

from clay_assets.errors import InputError
from clay_assets.training.selection import Chips

if TYPE_CHECKING:
    from clay_assets.training.chip import Chip, ChipBatch

NONE = -1  # index for "no chip"
COLUMNS = ("datetime", "cloud_cover_percentage", "nodata_percentage")


class Reads(Protocol):
    """Reads chips by their indices in the selection: a `Chipper`."""

    def __getitem__(self, index: int) -> Chip: ...

    def batch(self, indices: ArrayLike) -> ChipBatch:
        """Some chips, in the order requested."""
        ...


@dataclass(frozen=True, eq=False)
class ChipsAt:
    """One chip for each point that lies in one. Made by `Chipper.at`.

    Attributes:
        chipper: the Chipper that reads the chips.
        places: indices of the chips in the selection, -1 where no chip contains the point; (points,).
        days: days from the requested date to the acquisition, 0 without a date, NaN without a chip; (points,).
        candidates: number of chips of the selection that contain each point; (points,).

    Examples:
        >>> import shapely
        >>> from clay_assets.training import Chipper, ChipsAt, open_chips
        >>> chips = open_chips("demo/storage", "sentinel-2-l2a")
        >>> polygons = shapely.from_wkb(chips.table(["geometry"])["geometry"].to_numpy())
        >>> found = Chipper(chips).at(shapely.centroid(polygons[:3]), dates="2021-06-01")
        >>> isinstance(found, ChipsAt) and len(found)
        3
        >>> found[0].pixels.shape
        (10, 256, 256)
    """

    chipper: Reads
    points: NDArray[Any]
    places: NDArray[np.int64]
    days: NDArray[np.float64]
    candidates: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of points."""
        return len(self.places)

    def __getitem__(self, point: int) -> Chip | None:
        """The chip at a point, or None."""
        place = int(self.places[point])
        return None if place == NONE else self.chipper[place]

    def __iter__(self) -> Iterator[Chip | None]:
        """The chip, or None, at each point in turn."""
        return (self[number] for number in range(len(self)))

    @property
    def found(self) -> NDArray[np.int64]:
        """Indices of points that have a chip; (n,)."""
        return np.flatnonzero(self.places != NONE)

    def batch(self, points: ArrayLike | None = None) -> ChipBatch:
        """The chips at some points, or at all points that have one.

        Raises:
            InputError: a point has no chip, or as for `Chipper.batch`.
        """
        wanted = self.found if points is None else np.atleast_1d(np.asarray(points))
        without = wanted[self.places[wanted] == NONE]
        if without.size:
            raise InputError(f"point {without[0]}: no chip contains it. Use the points in `found`.")
        return self.chipper.batch(self.places[wanted])

    def pixels_of(self, batch: ChipBatch, points: ArrayLike | None = None) -> NDArray[np.int64]:
        """Row and column of each point in its chip, for a batch that `batch` returned for the same points; (n, 2)."""
        from pyproj import Transformer

        wanted = self.points[self.found if points is None else np.atleast_1d(np.asarray(points))]
        lon, lat = shapely.get_x(wanted), shapely.get_y(wanted)
        found = np.empty((len(wanted), 2), np.int64)
        crs = np.array(batch.crs, object)
        for name in dict.fromkeys(batch.crs):
            here = np.flatnonzero(crs == name)
            x, y = Transformer.from_crs("EPSG:4326", name, always_xy=True).transform(lon[here], lat[here])
            a, b, c, d, e, f = batch.transforms[here].T
            scale = a * e - b * d
            column, row = (e * (x - c) - b * (y - f)) / scale, (a * (y - f) - d * (x - c)) / scale
            found[here] = np.stack([row, column], axis=1).astype(np.int64)
        # Chip polygons have straight edges in degrees, so a point on an edge may lie a pixel outside.
        return np.clip(found, 0, batch.pixels.shape[-1] - 1)


def chips_at(
    chips: Chips, points: NDArray[Any], dates: Any = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The chip that contains each point: indices, days to the requested date, and numbers of candidates.

    Of several chips, the one nearest in time is taken if a date is given, then the one with the least nodata and cloud,
    then the first in the selection.

    Args:
        chips: the selection to search.
        points: shapely points in EPSG:4326; (n,).
        dates: one date for all points or one for each; None: any.

    Raises:
        InputError: invalid dates, or not one for each point.
    """
    asked = None if dates is None else _moments(dates, len(points))
    matches, tables = [np.empty((2, 0), np.int64)], []
    for match, rows in chips.holding(points, COLUMNS):
        matches.append(match)
        tables.append(rows.to_pandas())
    point, place = np.concatenate(matches, axis=1)
    rows = pd.concat(tables) if tables else pd.DataFrame(columns=list(COLUMNS))
    moments = _utc(rows["datetime"])
    days = np.zeros(len(point)) if asked is None else (moments - asked[point]) / np.timedelta64(1, "D")
    covered = rows[["cloud_cover_percentage", "nodata_percentage"]].to_numpy(np.float64).sum(axis=1)
    order = np.lexsort((place, covered, np.abs(days), point))
    first, start, candidates = np.unique(point[order], return_index=True, return_counts=True)
    places, apart, held = np.full(len(points), NONE), np.full(len(points), np.nan), np.zeros(len(points), np.int64)
    places[first], apart[first], held[first] = place[order][start], days[order][start], candidates
    return places, apart, held


def points_of(points: Any) -> NDArray[Any]:
    """Points as shapely points in EPSG:4326; other geometries raise an error.

    Args:
        points: a GeoDataFrame or GeoSeries with a CRS, shapely points in EPSG:4326, or longitudes and latitudes,
            (n, 2).

    Raises:
        InputError: not points, outside the valid range, or without a CRS.
    """
    if hasattr(points, "to_crs"):
        series = points.geometry
        if series.crs is None:
            raise InputError("points: have no CRS. Set it, such as with `set_crs(4326)`.")
        found = series.to_crs(4326).to_numpy()
    else:
        given = np.asarray(points, dtype=None if not isinstance(points, shapely.Point) else object)
        found = given.ravel() if given.dtype == object else _from_numbers(given)
    found = np.asarray(found, object)
    kinds = shapely.get_type_id(found)
    lon, lat = shapely.get_x(found), shapely.get_y(found)
    wrong = (kinds != 0) | ~(np.abs(lon) <= 180) | ~(np.abs(lat) <= 90)
    if wrong.any():
        number = int(np.flatnonzero(wrong)[0])
        raise InputError(f"point {number}: {found[number]} is not a point on the Earth. Pass longitude and latitude.")
    return found


def _from_numbers(given: NDArray[Any]) -> NDArray[Any]:
    if given.dtype.kind not in "iuf" or given.ndim > 2 or given.shape[-1:] != (2,):
        raise InputError(f"points: {given.dtype} of shape {given.shape}. Pass longitudes and latitudes, (n, 2).")
    made: NDArray[Any] = shapely.points(np.atleast_2d(given).astype(np.float64))
    return made


def _moments(dates: Any, count: int) -> NDArray[np.datetime64]:
    try:
        moments = _utc(pd.Series([dates] if isinstance(dates, str) or not np.iterable(dates) else list(dates)))
    except (ValueError, TypeError) as error:
        raise InputError(f"dates: not understood ({error}). Pass dates such as 2020-06-01.") from error
    if len(moments) not in (1, count):
        raise InputError(f"{len(moments)} dates for {count} points. Pass one date, or one for each point.")
    if np.isnat(moments).any():
        raise InputError(f"date {int(np.flatnonzero(np.isnat(moments))[0])}: is missing. Pass a date for each point.")
    return np.broadcast_to(moments, count)


def _utc(values: pd.Series) -> NDArray[np.datetime64]:
    moments: NDArray[np.datetime64] = pd.to_datetime(values, utc=True).dt.tz_localize(None).to_numpy()
    return moments.astype("datetime64[ms]")
