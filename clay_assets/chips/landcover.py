"""Land cover of chips: the share of each ESA WorldCover class in every chip of a scene.

WorldCover is read once per scene and file, at the coarsest overview with at least `SAMPLES` pixels across a chip. Each
pixel centre is transformed to the scene's CRS and assigned to the chip that contains it, weighted by the pixel's true
area. If full resolution is coarser than that, as under chips of 0.3 m pixels, pixels are subdivided.

The scenes of a cell are measured in `measuring`.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.landcover.worldcover import area_in_cells
from clay_assets.landcover.worldcover_files import (
    cells_on_web,
    cells_touched,
    href_of,
    stored_cells_of,
)
from clay_assets.landcover.worldcover_pixels import BINS, LOOKUP, UNKNOWN, pixel_areas, read_window, unknown_value
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.storage.geoparquet import COMPRESSION
from clay_assets.transport.access import Access

logger = logging.getLogger(__name__)

SAMPLES = 16  # minimum land-cover pixels across a chip
DEGREE = 111_195  # m per degree of latitude, on the sphere
CACHED = 8192  # chips per block, so that their shares fit the processor's cache
MARGIN = 1 / 16  # share of a chip; projected edges deviate from the polygon's by less, even at 83° latitude
STRIP = 1 << 20  # pixels transformed to the scene's CRS at a time
CORNERS = 5  # points of a chip's closed ring
FIT = 0.05  # pixels by which chip corners may deviate from the fitted grid
CODES = np.array(list(WORLDCOVER_CLASSES), np.uint8)
SHARE_SCHEMA = pa.schema(
    [
        ("chipid", pa.string()),
        *((name, pa.float32()) for name in WORLDCOVER_FIELDS.values()),
        ("valid_share", pa.float32()),
    ]
)
# How the file of a scene is written, so that it opens and decodes fast: its shares have few values and are short.
SHARE_FILE: dict[str, Any] = {
    "store_schema": False,
    "write_statistics": False,
    "use_dictionary": SHARE_SCHEMA.names[1:],
    "compression": {name: COMPRESSION if name == "chipid" else "none" for name in SHARE_SCHEMA.names},
}
AGAIN = "Materialise chip_index again."
_FLOATS = NDArray[np.float64]


@dataclass(frozen=True)
class WorldCover:
    """The location of WorldCover.

    Attributes:
        location: folder, `s3://bucket/prefix` or `https://` folder of its files.
        access: how the files are accessed.
        cells: 3° cells that have a file; None if they cannot be listed and each file must be requested.
    """

    location: str
    access: Access
    cells: frozenset[str] | None

    def present(self, needed: list[str]) -> set[str]:
        """The given cells that have a file."""
        if self.cells is not None:
            return set(needed) & self.cells
        return cells_on_web(self.location, needed, self.access)


def open_worldcover(location: str, access: Access | None = None, *, needed: bool = True) -> WorldCover:
    """Open WorldCover at a configured location.

    Args:
        location: folder, `s3://bucket/prefix` or `https://` folder.
        access: how S3 is accessed; unsigned by default, as the public bucket allows it.
        needed: False if there are no chips to measure; the location is then not accessed.

    Raises:
        InputError: the folder cannot be listed, or has no file of the supported edition.
        SourceError: the source did not answer.
    """
    access = access or Access(unsigned=True)
    cells = stored_cells_of(location, access) if needed else set()
    return WorldCover(location, access, None if cells is None else frozenset(cells))


def chip_land_cover(
    chips: pa.Table, crs: CRS | None, chip_size: int, worldcover: WorldCover, *, declared: Grid | None = None
) -> pa.Table:
    """Measure the land cover of the chips of one scene.

    Args:
        chips: its chip index; columns `chipid`, `chip_index_x`, `chip_index_y`, `gsd` and `geometry` are used.
        crs: CRS of the scene's grid; may be None without chips.
        chip_size: pixels of a chip's side.
        worldcover: location of land cover.
        declared: the scene's grid according to its item, for scenes all of whose chips cross the antimeridian.

    Returns:
        A table of `SHARE_SCHEMA` in the order of `chips`, with the 3° cells under the chips in its metadata:
        `clay:worldcover` lists those with a file, `clay:worldcover_absent` those without.

    Raises:
        InputError: chips that are not on a grid of that CRS, or unusable WorldCover files; names them.
        SourceError: a remote source did not answer.
    """
    count = chips.num_rows
    areas = np.zeros((count, BINS))
    read: list[str] = []
    absent: list[str] = []
    if count and crs is not None:
        polygons = shapely.from_wkb(chips["geometry"].to_numpy(zero_copy_only=False))
        grid = _ChipGrid.fitted(chips, polygons, crs, chip_size, declared)
        side = float(pc.min(chips["gsd"]).as_py()) * chip_size / DEGREE  # smallest chip, degrees of latitude
        parts, owner = shapely.get_parts(polygons, return_index=True)
        names, part, cell = cells_touched(parts)
        needed = [names[number] for number in np.unique(cell)]
        present = worldcover.present(needed)
        read, absent = ([name for name in needed if (name in present) is there] for there in (True, False))
        for name in read:
            bounds = _bounds_of(parts[part[cell == names.index(name)]])
            href = href_of(worldcover.location, name)
            values, transform = read_window(href, name, worldcover.access, bounds, side / SAMPLES)
            finer = max(1, math.ceil(SAMPLES * -transform.e / side))
            areas += _areas(href, values, transform, finer, grid, count)
        ocean = np.isin(cell, [names.index(name) for name in absent])
        areas[:, 0] += np.bincount(owner, area_in_cells(parts, part[ocean], names, cell[ocean]), minlength=count)
    valid, whole = areas[:, 1:].sum(axis=1), areas.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = areas[:, 1:] / valid[:, None]
        covered = np.where(whole > 0, valid / whole, 0)
    nothing = valid == 0
    columns = [pa.array(share.astype(np.float32), mask=nothing) for share in shares.T]
    table = pa.Table.from_arrays([chips["chipid"], *columns, pa.array(covered.astype(np.float32))], schema=SHARE_SCHEMA)
    return table.replace_schema_metadata(
        {"clay:worldcover": " ".join(read), "clay:worldcover_absent": " ".join(absent)}
    )


def whole_percent(shares: _FLOATS) -> NDArray[np.uint8]:
    """Round shares that sum to 1 to whole percent that sum to 100, by largest remainders; shape (classes, n).

    The order of classes by share is preserved; for equal remainders the first class gets the percent.
    """
    found = np.empty(shares.shape, np.uint8)
    for start in range(0, shares.shape[1], CACHED):
        here = slice(start, start + CACHED)
        found[:, here] = _whole_percent(shares[:, here])
    return found


def _whole_percent(shares: _FLOATS) -> NDArray[np.uint8]:
    percent = 100 * shares / np.ascontiguousarray(shares.T).sum(axis=1)
    floor = np.floor(percent)
    missing = np.rint(100 - floor.sum(axis=0)).astype(np.uint8)
    left = percent - floor
    # Rank by remainder: each class starts behind all later ones, and moves ahead of those without a larger remainder.
    rank = np.broadcast_to(np.arange(len(shares), dtype=np.uint8)[::-1, None], shares.shape).copy()
    for one in range(len(shares)):
        for other in range(one):
            before = (left[other] >= left[one]).view(np.uint8)
            rank[one] += before
            rank[other] -= before
    found: NDArray[np.uint8] = floor.astype(np.uint8) + (rank < missing)
    return found


def land_cover_of(
    shares: NDArray[np.float32], covered: NDArray[np.float32], min_valid_share: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Land cover of chips in the form of the merged index.

    Args:
        shares: share of each class, NaN without land cover; (classes, n).
        covered: share of each chip that WorldCover covers; (n,).
        min_valid_share: minimum share that it must cover.

    Returns:
        Percent of each class, (classes, n), and the code of the class with the largest share, the first if tied, (n,);
        0 where WorldCover covers less.
    """
    unknown = np.flatnonzero(~((covered >= np.float32(min_valid_share)) & (covered > 0)))
    own = shares.astype(np.float64)
    own[:, unknown] = 1  # any number that can be rounded
    percent, largest = whole_percent(own), np.full(len(covered), CODES[0])
    share = shares[0].copy()
    for other, code in zip(shares[1:], CODES[1:], strict=True):
        np.copyto(largest, code, where=other > share)
        np.maximum(share, other, out=share)
    percent[:, unknown], largest[unknown] = 0, 0
    return percent, largest


# ---- the grid of chips ----


@dataclass(frozen=True)
class _ChipGrid:
    """Maps positions to the chips of a scene.

    Attributes:
        transformer: longitude and latitude → x and y of the scene's CRS.
        inverse: x and y → column and row of chips.
        period: period of x if the CRS ends at the antimeridian (EPSG:3857); 0 if it continues.
        middle: x around which x is unwrapped.
        labels: (rows, columns) → number of the chip in its index, −1 if the index has none.
    """

    transformer: pyproj.Transformer
    inverse: Affine
    period: float
    middle: float
    labels: NDArray[np.intp]

    @classmethod
    def fitted(
        cls, chips: pa.Table, polygons: NDArray[Any], crs: CRS, size: int, declared: Grid | None = None
    ) -> _ChipGrid:
        """Fit the grid to the corners of the chips' polygons, which follow the files rather than the items."""
        scene = chips["chipid"][0].as_py().rsplit("-", 2)[0]
        x, y = (chips[f"chip_index_{axis}"].to_numpy().astype(np.intp) for axis in "xy")
        labels = np.full((y.max() + 1, x.max() + 1), -1, np.intp)
        labels[y, x] = np.arange(len(x))
        transformer = pyproj.Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
        whole = (shapely.get_num_geometries(polygons) == 1) & (shapely.get_num_coordinates(polygons) == CORNERS)
        if not whole.any():  # all cross the antimeridian, or contain a pole
            if declared is None:
                raise InputError(
                    f"{scene}: all chips cross ±180°, and the item does not declare their grid. Add proj: fields."
                )
            t = declared.transform
            grid = Affine(t.a * size, t.b * size, t.c, t.d * size, t.e * size, t.f)
            middle = t.c + t.a * declared.width / 2
            return cls(transformer, ~grid, _period(transformer, polygons[0]), middle, labels)
        lonlat = shapely.get_coordinates(polygons[whole]).reshape(-1, CORNERS, 2)[:, :-1]
        corners = np.stack(transformer.transform(lonlat[..., 0], lonlat[..., 1]), axis=-1)
        period = _period(transformer, polygons[whole][0])
        middle = float(corners[0, 0, 0])
        corners[..., 0] = _unwrapped(corners[..., 0], period, middle)
        # Anticlockwise from the lower right, as written by `chip_polygons`.
        column = x[whole, None] + np.array([1, 1, 0, 0])
        row = y[whole, None] + np.array([1, 0, 0, 1])
        places = np.stack([column.ravel(), row.ravel(), np.ones(column.size)], axis=1)
        solution, *_ = np.linalg.lstsq(places, corners.reshape(-1, 2), rcond=None)
        off = np.abs(places @ solution - corners.reshape(-1, 2)).max() * size
        step = np.abs(solution[:2]).max()
        if not np.isfinite(solution).all() or not off <= FIT * step:
            raise InputError(
                f"{scene}: its chips are not on a grid of {crs.to_string()}: corners are up to "
                f"{off / step:.3g} pixels off. {AGAIN}"
            )
        (a, d), (b, e), (c, f) = solution.tolist()
        grid = Affine(a, b, c, d, e, f)
        return cls(transformer, ~grid, period, middle, labels)

    def chip_at(self, lon: _FLOATS, lat: _FLOATS) -> NDArray[np.intp]:
        """The chip at each position, −1 if there is none."""
        x, y = self.transformer.transform(lon, lat)
        x = _unwrapped(x, self.period, self.middle)
        t = self.inverse
        column, row = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
        rows, columns = self.labels.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)  # False if not projectable
        found = np.full(column.shape, -1, np.intp)
        found[inside] = self.labels[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        return found


def _period(transformer: pyproj.Transformer, polygon: Any) -> float:
    """The jump of x from longitude 180° to −180° at the latitude of a polygon; 0 if there is none."""
    latitude = float(shapely.bounds(polygon)[1])
    (west, east), _ = transformer.transform([-180.0 + 1e-9, 180.0 - 1e-9], [latitude, latitude])
    jump = abs(east - west)
    return float(jump) if np.isfinite(jump) and jump > DEGREE else 0.0


def _unwrapped(x: _FLOATS, period: float, middle: float) -> _FLOATS:
    if not period:
        return x
    unwrapped: _FLOATS = middle + (x - middle + period / 2) % period - period / 2
    return unwrapped


def _bounds_of(parts: NDArray[Any]) -> _FLOATS:
    """West, south, east, north of the chips in a file, with a small margin."""
    bounds = shapely.bounds(parts)
    margin = MARGIN * (bounds[:, 2:] - bounds[:, :2]).max(axis=0)
    whole: _FLOATS = np.concatenate([bounds[:, :2].min(axis=0) - margin, bounds[:, 2:].max(axis=0) + margin])
    return whole


def _areas(href: str, values: NDArray[np.uint8], transform: Affine, finer: int, grid: _ChipGrid, count: int) -> _FLOATS:
    """Area (steradians) of nodata and of each class in each chip, shape (count, 12).

    Args:
        href: the file's address, for messages.
        values: pixels of a window of the file.
        transform: transform of the window, north up, degrees.
        finer: factor by which pixels are subdivided in each direction.
        grid: grid of the chips.
        count: number of chips.
    """
    height, width = (side * finer for side in values.shape)
    fine = Affine(transform.a / finer, 0, transform.c, 0, transform.e / finer, transform.f)
    lon = fine.c + fine.a * (np.arange(width) + 0.5)
    lat = fine.f + fine.e * (np.arange(height) + 0.5)
    weights = pixel_areas(fine, height)
    binned = LOOKUP[values]
    bins = UNKNOWN + 1
    areas = np.zeros((count, bins))
    step = max(1, STRIP // width)
    for top in range(0, height, step):
        rows = np.arange(top, min(top + step, height))
        chip = grid.chip_at(*np.meshgrid(lon, lat[rows]))
        inside = chip >= 0
        classes = binned[rows[:, None] // finer, np.arange(width) // finer]
        keys = chip[inside] * bins + classes[inside]
        weight = np.broadcast_to(weights[rows, None], chip.shape)[inside]
        areas += np.bincount(keys, weight, minlength=count * bins).reshape(count, bins)
    if areas[:, UNKNOWN].any():
        raise unknown_value(href, int(values[binned == UNKNOWN][0]))
    return areas[:, :BINS]
