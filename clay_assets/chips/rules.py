"""Rules that the chips of a scene must satisfy. Checks of a cell's files and of the merged index are in `audit`;
indexes are made in `index`.

A chip is inside its scene if it is a cell of the scene's pixel grid. A STAC footprint is not suitable: it only roughly
follows the valid pixels, so that whole chips at the edges extend beyond it. It is only used when the item does not
declare its grid; then a chip has to touch it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.chips.grid import chip_polygons, chips_in
from clay_assets.chips.index import CHIP_SCHEMA, rings_of
from clay_assets.errors import InputError
from clay_assets.findings import Finding, make_finding
from clay_assets.grids import HALF_TURN, Grid
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.stac import FOOTPRINT_ROUNDING

SHARES = ("cloud_cover_percentage", "nodata_percentage")
SUM_TOLERANCE = 1e-5  # eleven float32 shares
AREAL = (3, 6)  # shapely's type numbers of Polygon and MultiPolygon
WORLD = np.array([-180.0, -90.0, 180.0, 90.0])
# Pixels: chips follow their file, which can deviate from its item by up to a pixel in each direction.
POSITION_TOLERANCE = 1.5
TURN, TINY = 1e-6, 1e-300  # turn at a corner, relative to the sum of its two products; avoids a division by 0
AGAIN = "Delete it and re-materialise chip_index."
CHECKED = ["chipid", "item_id", "chip_index_x", "chip_index_y", *SHARES, "geometry"]  # columns that the rules need


def check_chips(table: pa.Table, platform: str, item_id: str, name: str, remedy: str = AGAIN) -> None:
    """Reject an invalid chip index of a scene; geometry is not checked.

    Args:
        table: the scene's chip index.
        platform: the platform's key.
        item_id: id of the scene.
        name: name of the file or scene, for messages.
        remedy: what to do about it.

    Raises:
        InputError: unexpected columns, shares outside 0 to 1, pixel sizes that are not positive, nulls, rows of another
            platform or scene, or chip ids that do not match the scene or repeat.
    """
    if not table.schema.equals(CHIP_SCHEMA):
        raise InputError(f"{name}: not the columns of a chip index. {remedy}")
    if any(column.null_count for column in table.columns):
        raise InputError(f"{name}: null values found. {remedy}")
    if not (table["gsd"].to_numpy() > 0).all():
        raise InputError(f"{name}: gsd values must be above 0. {remedy}")
    for column, expected in (("platform", platform), ("item_id", item_id)):
        if set(table[column].unique().to_pylist()) - {expected}:
            raise InputError(f"{name}: rows found whose {column} is not {expected}. {remedy}")
    for found in (shares_in_range(table), ids_unique(table, item_id)):
        found.raise_if_violated(name, remedy)


def shares_in_range(table: pa.Table) -> Finding:
    """Check that cloud and nodata shares are between 0 and 1.

    Returns:
        `chips`, the number `outside` by either share, and the `lowest_share` and `highest_share`.
    """
    said, outside = [], np.zeros(table.num_rows, np.bool_)
    numbers: dict[str, Any] = {}
    for column in SHARES:
        values = table[column].to_numpy()
        off = ~((values >= 0) & (values <= 1))  # NaN also counts as outside
        outside |= off
        if off.any():
            first = int(np.flatnonzero(off)[0])
            said.append(
                f"{column} has values outside 0 to 1: {off.sum():,} chips, first {table['chipid'][first]} with "
                f"{values[first]:g}"
            )
        known = values[~np.isnan(values)]
        if len(known):
            numbers["lowest_share"] = min(numbers.get("lowest_share", np.inf), float(known.min()))
            numbers["highest_share"] = max(numbers.get("highest_share", -np.inf), float(known.max()))
    return make_finding(
        said, violation_count=int(outside.sum()), chips=table.num_rows, outside=int(outside.sum()), **numbers
    )


def ids_unique(table: pa.Table, item_id: str) -> Finding:
    """Check that chip ids are `{item_id}-{x}-{y}` of the scene, and none occurs twice.

    As the ids of a cell's scenes are unique, its chip ids are unique if those of each scene are.

    Returns:
        `chips`, the number with `foreign_ids`, and the number that repeat another chip's position (`repeated`).
    """
    x, y = table["chip_index_x"], table["chip_index_y"]
    ids = pc.binary_join_element_wise(item_id, x.cast(pa.string()), y.cast(pa.string()), "-")
    foreign = _mask(pc.not_equal(table["chipid"], ids))
    places = x.to_numpy().astype(np.uint32) << 16 | y.to_numpy()
    repeated = np.ones(len(places), np.bool_)
    repeated[np.unique(places, return_index=True)[1]] = False
    said = [f"chip ids do not match scene {item_id}: {_chips(table, foreign)}"] if foreign.any() else []
    said += [f"a chip id occurs twice: {_chips(table, repeated)}"] if repeated.any() else []
    return make_finding(
        said,
        violation_count=int((foreign | repeated).sum()),
        chips=table.num_rows,
        foreign_ids=int(foreign.sum()),
        repeated=int(repeated.sum()),
    )


def shares_sum_to_one(table: pa.Table) -> Finding:
    """Check that land-cover shares of each chip are between 0 and 1 and sum to 1, or are all missing.

    Args:
        table: land cover of one scene.

    Returns:
        `chips`, `chips_off`, `chips_without_land_cover`, and `highest_deviation` from 1.
    """
    sums, covered, nothing, off = _land_cover(table)
    deviation = np.where(nothing, 0, np.nan_to_num(np.abs(sums - 1), nan=np.inf))
    said = []
    if off.any():
        first = int(np.flatnonzero(off)[0])
        said.append(
            f"land-cover shares do not sum to 100 %, are not within 0 to 1, or contradict valid_share: "
            f"{_chips(table, off)} with a sum of {100 * sums[first]:.5g} % and a valid_share of {covered[first]:.3g}"
        )
    return make_finding(
        said,
        violation_count=int(off.sum()),
        chips=table.num_rows,
        chips_off=int(off.sum()),
        chips_without_land_cover=int(nothing.sum()),
        highest_deviation=float(deviation.max(initial=0)),
    )


def land_cover_off(table: pa.Table) -> NDArray[np.bool_]:
    """Which chips violate `shares_sum_to_one`."""
    return _land_cover(table)[-1]


def _land_cover(table: pa.Table) -> tuple[NDArray[Any], ...]:
    """For each chip: sum of its shares, share covered, whether it has no land cover, and whether that is wrong."""
    columns = [table[name] for name in WORLDCOVER_FIELDS.values()]
    shares = np.stack([column.cast(pa.float64()).to_numpy() for column in columns], axis=1)
    covered = table["valid_share"].cast(pa.float64()).to_numpy()
    nothing = np.isnan(shares).all(axis=1)
    sums = shares.sum(axis=1)
    deviation = np.where(nothing, 0, np.nan_to_num(np.abs(sums - 1), nan=np.inf))
    within = nothing | np.all((shares >= 0) & (shares <= 1), axis=1)
    covered_so = (covered >= 0) & (covered <= 1) & ((covered > 0) | nothing) & ((covered == 0) | ~nothing)
    return sums, covered, nothing, (deviation > SUM_TOLERANCE) | ~within | ~covered_so


def geometry_valid(table: pa.Table) -> Finding:
    """Check that geometries are valid polygons within ±180° and ±90°.

    Returns:
        `chips`, the number that are `invalid`, and the number beyond ±180° or ±90° (`off_earth`).
    """
    rings = rings_of(table)
    if rings is not None and (np.abs(rings) <= WORLD[2:]).all() and _convex(rings).all():  # like nearly every scene
        return make_finding([], violation_count=0, chips=table.num_rows, invalid=0, off_earth=0)
    return _validity(table, _polygons(table))


def geometry_in_scene(table: pa.Table, grid: Grid | None, footprint: Any, chip_size: int) -> Finding:
    """Check that geometries are valid, and match the scene's grid at the chips' columns and rows.

    Args:
        table: chips of one scene.
        grid: the scene's finest grid; None if its item does not declare it.
        footprint: the item's geometry, EPSG:4326, used if there is no grid; None if it has none.
        chip_size: side length of a chip in pixels.

    Returns:
        Like `geometry_valid`, plus the number of chips `outside` their scene, the number at a wrong position in it
        (`misplaced`), and `scenes_without_grid`.
    """
    polygons = _polygons(table)
    valid = _validity(table, polygons)
    outside = misplaced = np.zeros(table.num_rows, np.bool_)
    if grid is not None:
        columns, rows = chips_in(grid, chip_size)
        x, y = table["chip_index_x"].to_numpy().astype(np.intp), table["chip_index_y"].to_numpy().astype(np.intp)
        outside = (x >= columns) | (y >= rows)
        expected = np.full(table.num_rows, None, dtype=object)
        if not outside.all():
            expected[~outside] = chip_polygons(grid, chip_size)[(y * columns + x)[~outside]]
        misplaced = ~outside & ~_same_place(polygons, expected, chip_size)
    elif footprint is not None:
        outside = ~shapely.dwithin(polygons, footprint, FOOTPRINT_ROUNDING)
    said = [f"chips outside their scene: {_chips(table, outside)}"] if outside.any() else []
    said += [f"chips at wrong positions in their scene: {_chips(table, misplaced)}"] if misplaced.any() else []
    numbers: dict[str, Any] = {
        "outside": int(outside.sum()),
        "misplaced": int(misplaced.sum()),
        "scenes_without_grid": int(grid is None),
    }
    return make_finding(
        [*valid.violations, *said],
        violation_count=valid.violation_count + int((outside | misplaced).sum()),
        **valid.numbers,
        **numbers,
    )


def _polygons(table: pa.Table) -> NDArray[Any]:
    wkb = table["geometry"].to_numpy(zero_copy_only=False)
    polygons: NDArray[Any] = shapely.from_wkb(wkb, on_invalid="ignore")  # None if it is not a geometry
    return polygons


def _convex(rings: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rings of four corners are closed and turn one way at each corner, well beyond rounding: valid polygons."""
    x, y = np.diff(rings, axis=1).transpose(2, 0, 1)
    ahead, aside = x * np.roll(y, -1, axis=1), y * np.roll(x, -1, axis=1)
    turns = (ahead - aside) / (np.abs(ahead) + np.abs(aside) + TINY)
    closed = (rings[:, 0] == rings[:, -1]).all(axis=1)
    convex: NDArray[np.bool_] = closed & (np.abs(turns.sum(axis=1)) == np.abs(turns).sum(axis=1))
    sharp: NDArray[np.bool_] = (np.abs(turns) > TURN).all(axis=1)
    return convex & sharp


def _validity(table: pa.Table, polygons: NDArray[Any]) -> Finding:
    sound = shapely.is_valid(polygons) & ~shapely.is_empty(polygons) & np.isin(shapely.get_type_id(polygons), AREAL)
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    away = sound & ~np.all((bounds >= WORLD[[0, 1, 0, 1]]) & (bounds <= WORLD[[2, 3, 2, 3]]), axis=1)
    said = [f"geometry is not a valid polygon: {_chips(table, ~sound)}"] if not sound.all() else []
    said += [f"geometry is outside ±180° and ±90°: {_chips(table, away)}"] if away.any() else []
    invalid, off = int((~sound).sum()), int(away.sum())
    return make_finding(said, violation_count=invalid + off, chips=table.num_rows, invalid=invalid, off_earth=off)


def _same_place(polygons: NDArray[Any], expected: NDArray[Any], chip_size: int) -> NDArray[np.bool_]:
    """Which polygons have their corners at the expected positions, within about a pixel."""
    here, there = shapely.bounds(polygons), shapely.bounds(expected)
    pixel = (there[:, 3] - there[:, 1]) / chip_size  # degrees of latitude
    tolerance = POSITION_TOLERANCE * pixel / np.cos(np.radians(there[:, 1]))  # a degree of longitude is shorter
    same: NDArray[np.bool_] = shapely.equals_exact(polygons, expected, tolerance)
    # A pixel decides whether a chip is split at the antimeridian, so only latitudes are compared there.
    cut: NDArray[np.bool_] = np.abs(there[:, [0, 2]]).max(axis=1, initial=0) > HALF_TURN - tolerance
    level: NDArray[np.bool_] = np.abs(here[:, [1, 3]] - there[:, [1, 3]]).max(axis=1, initial=0) <= tolerance
    return same | (cut & level)


def _mask(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = values.fill_null(True).to_numpy().astype(np.bool_)
    return mask


def _chips(table: pa.Table, which: NDArray[np.bool_]) -> str:
    count = int(which.sum())
    first = table["chipid"][int(np.flatnonzero(which)[0])]
    return f"{first}" if count == 1 else f"{count:,} chips, first {first}"
