"""Land cover of chips: the share of each ESA WorldCover class in every chip of a scene, and of a cell's scenes.

WorldCover is read once per scene and file, at its coarsest overview with at least `SAMPLES` pixels across a chip. Each
pixel is carried into the scene's CRS and belongs to the chip whose cell of the pixel grid its centre lies in, weighted
by its true area. Where full resolution is coarser than that, as under chips of 0.3 m pixels, a pixel is taken as
several.

A scene's file carries a fingerprint of its inputs, and a later run keeps it as long as that is the same. A scene whose
land cover cannot be read is set aside with its error, and the others go on.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from clay_assets.chips.cells import FAILED, MEASURED, ChipCell, LandCoverCell
from clay_assets.chips.index import LANDCOVER, declared_grid, grid_of_file, scene_crs
from clay_assets.chips.versions import LANDCOVER_VERSION
from clay_assets.errors import InputError, StorageError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.grids import Grid
from clay_assets.landcover.worldcover import area_in_cells
from clay_assets.landcover.worldcover_files import (
    EDITION,
    cells_on_web,
    cells_touched,
    href_of,
    stored_cells_of,
)
from clay_assets.landcover.worldcover_pixels import BINS, LOOKUP, UNKNOWN, pixel_areas, read_window, unknown_value
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, stamp_of
from clay_assets.storage.stores import Store
from clay_assets.transport.access import Access
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

logger = logging.getLogger(__name__)

SAMPLES = 16  # land-cover pixels across a chip, at least
DEGREE = 111_195  # m of latitude, on the sphere
MARGIN = 1 / 16  # of a chip: its projected edges leave the straight ones of its polygon by less, even at 83° latitude
STRIP = 1 << 20  # pixels carried into the scene's CRS at a time
CORNERS = 5  # of a chip's ring, the first again at the end
FIT = 0.05  # pixels that the corners of chips may lie off the grid that is fitted to them
CODES = np.array(list(WORLDCOVER_CLASSES), np.uint8)
SHARE_SCHEMA = pa.schema(
    [
        ("chipid", pa.string()),
        *((name, pa.float32()) for name in WORLDCOVER_FIELDS.values()),
        ("valid_share", pa.float32()),
    ]
)
LEDGER_TYPES = {
    "item_id": "string",
    "outcome": "string",
    "chips": "int32",
    "chips_without_land_cover": "int32",
    "worldcover_files": "int32",
    **dict.fromkeys(WORLDCOVER_FIELDS.values(), "float32"),
    "chips_fingerprint": "string",
    "fingerprint": "string",
    "error": "string",
}
AGAIN = "Materialise chip_index again."
_FLOATS = NDArray[np.float64]


@dataclass(frozen=True)
class WorldCover:
    """Where WorldCover lies.

    Attributes:
        location: folder, `s3://bucket/prefix` or `https://` folder of its files.
        access: how it is reached.
        cells: 3° cells that have a file; None where they cannot be listed, and each is asked for.
    """

    location: str
    access: Access
    cells: frozenset[str] | None

    def present(self, needed: list[str]) -> set[str]:
        """Which of some cells have a file."""
        if self.cells is not None:
            return set(needed) & self.cells
        return cells_on_web(self.location, needed, self.access)


@dataclass(frozen=True)
class LandCoverJob:
    """What one worker needs for one scene; small enough to be sent to another machine."""

    item_id: str
    item: Item | None
    platform: str
    chips: str
    chips_fingerprint: str
    key: str
    store: Store
    chip_size: int
    worldcover: WorldCover
    stamp: Mapping[str, str]


def open_worldcover(location: str, access: Access | None = None, *, needed: bool = True) -> WorldCover:
    """WorldCover as a setting names it.

    Args:
        location: folder, `s3://bucket/prefix` or `https://` folder.
        access: how S3 is read; unsigned by default, as the public bucket allows.
        needed: False where there is no chip to look up, as in a cell with nothing to do; then nothing is asked of it.

    Raises:
        InputError: the folder cannot be listed, or holds no file of the edition whose classes are known.
        SourceError: the source did not answer.
    """
    access = access or Access(unsigned=True)
    cells = stored_cells_of(location, access) if needed else set()
    return WorldCover(location, access, None if cells is None else frozenset(cells))


def measure_land_cover(
    cell: ChipCell,
    items: Sequence[Item],
    worldcover: WorldCover,
    store: Store,
    recipe: Recipe,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> LandCoverCell:
    """Measure the land cover of every indexed scene of a cell whose land cover is not there yet.

    Args:
        cell: the chip indexes.
        items: of its imagery, which tell the CRS of the chips.
        worldcover: where land cover lies.
        store: where the files go.
        recipe: chip size, and what the files are stamped with.
        executor: runs scenes in parallel; the workers write the files.
        in_flight: scenes submitted at once.
        progress: called with (scenes done, scenes in all).

    Returns:
        The cell's land cover, its ledger ordered by item id.

    Raises:
        InputError: a web server holds none of the files that are needed.
        StorageError: the store cannot be written; no point in trying the other scenes.
    """
    stamp, known = recipe.stamp(), {item["id"]: item for item in items}
    scenes = cell.scenes
    jobs = (
        LandCoverJob(
            item_id,
            known.get(item_id),
            cell.platform,
            chips,
            fingerprint,
            layout.landcover(cell.platform, cell.year, item_id),
            store,
            recipe.chip_size,
            worldcover,
            stamp,
        )
        for item_id, fingerprint, chips in zip(scenes["item_id"], scenes["fingerprint"], cell.keys, strict=True)
    )
    rows, kept, absent = [], 0, 0
    for done, (job, future) in enumerate(run_bounded(executor, measure_one, jobs, in_flight), start=1):
        try:
            row, without, was_there = future.result()
        except StorageError:
            raise
        except Exception as error:  # whatever a library makes of a bad file, it is not the other scenes' fault
            text = failure_text(error, job.item_id, logger)
            rows.append(_row(job, FAILED, error=text))
        else:
            rows.append(row)
            kept += was_there
            absent += without
        progress(done, len(scenes))
    if worldcover.cells is None and absent and not any(row["worldcover_files"] for row in rows):
        raise InputError(
            f"WorldCover {worldcover.location}: does not hold any of the files that the chips of {cell.platform} "
            f"{cell.year} need. Check CLAY_WORLDCOVER."
        )
    if kept:
        logger.info("%s %d: land cover of %d of %d scenes is kept", cell.platform, cell.year, kept, len(scenes))
    ledger = pd.DataFrame(rows, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)
    return LandCoverCell(cell.platform, cell.year, store, ledger.sort_values("item_id", ignore_index=True), kept)


def measure_one(job: LandCoverJob) -> tuple[dict[str, Any], int, bool]:
    """Measure one scene and write its file.

    Returns:
        Its ledger row, how many 3° cells under it have no file, and whether its file was there already.
    """
    fingerprint = fingerprint_of(job.chips_fingerprint, job.chip_size)
    kept = _kept(job, fingerprint)
    if kept is not None:
        return (*kept, True)
    chips = _read_chips(job)
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt:
            # Where item and files differ, chips lie on the grid of the files, which their index then tells.
            grid = grid_of_file(chips) or _declared(job)
            crs = None if not chips.num_rows else grid.crs if grid else _crs(job)
            table = chip_land_cover(chips, crs, job.chip_size, job.worldcover, declared=grid)
    stamp = {
        **job.stamp,
        **stamp_of(table.schema),
        "chips_fingerprint": job.chips_fingerprint,
        "fingerprint": fingerprint,
    }
    job.store.write(job.key, encode_arrow(table.replace_schema_metadata(None), stamp))
    row, without = _row_of(job, table, stamp)
    return row, without, False


def fingerprint_of(chips_fingerprint: str, chip_size: int) -> str:
    """32 hexadecimal digits that change whenever the land cover of a scene's chips would, WorldCover's files aside."""
    basis = json.dumps([LANDCOVER_VERSION, EDITION, chips_fingerprint, chip_size])
    return hashlib.blake2b(basis.encode(), digest_size=16).hexdigest()


def chip_land_cover(
    chips: pa.Table, crs: CRS | None, chip_size: int, worldcover: WorldCover, *, declared: Grid | None = None
) -> pa.Table:
    """Land cover of the chips of one scene.

    Args:
        chips: of its chip index; columns `chipid`, `chip_index_x`, `chip_index_y`, `gsd` and `geometry` are used.
        crs: of the scene's grid; may be None where there is no chip.
        chip_size: pixels of a chip's side.
        worldcover: where land cover lies.
        declared: the scene's grid as its item tells it, for scenes all of whose chips cross the antimeridian.

    Returns:
        A table of `SHARE_SCHEMA` in the order of `chips`, with the 3° cells under the chips in its metadata:
        `clay:worldcover` those with a file, `clay:worldcover_absent` those without.

    Raises:
        InputError: chips that do not lie on a grid of that CRS, or WorldCover files that cannot be used; names them.
        SourceError: a remote source did not answer.
    """
    count = chips.num_rows
    areas = np.zeros((count, BINS))
    read: list[str] = []
    absent: list[str] = []
    if count and crs is not None:
        polygons = shapely.from_wkb(chips["geometry"].to_numpy(zero_copy_only=False))
        grid = _ChipGrid.fitted(chips, polygons, crs, chip_size, declared)
        side = float(pc.min(chips["gsd"]).as_py()) * chip_size / DEGREE  # of the smallest chip, degrees of latitude
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
    """Shares that sum to 1 as whole percent that sum to 100, by largest remainders; shape (n, classes).

    The order of classes by their shares stays; of equal remainders the first class takes the percent.
    """
    percent = 100 * shares / shares.sum(axis=1, keepdims=True)
    floor = np.floor(percent)
    missing = np.rint(100 - floor.sum(axis=1)).astype(np.intp)
    rank = np.argsort(np.argsort(-(percent - floor), axis=1, kind="stable"), axis=1, kind="stable")
    found: NDArray[np.uint8] = (floor + (rank < missing[:, None])).astype(np.uint8)
    return found


def land_cover_columns(shares: pa.Table | None, count: int, min_valid_share: float) -> tuple[pa.Array, pa.Array]:
    """`landcover` and `landcover_class` of chips.

    Args:
        shares: as `chip_landcover` has them; None of a scene whose land cover was set aside.
        count: chips.
        min_valid_share: share of a chip that WorldCover has to cover; below it both are null.
    """
    if shares is None:
        return pa.nulls(count, LANDCOVER), pa.nulls(count, pa.uint8())
    values = np.stack([shares[field.name].to_numpy() for field in LANDCOVER], axis=1).astype(np.float64)
    covered = shares["valid_share"].to_numpy()
    known = (covered >= np.float32(min_valid_share)) & (covered > 0)
    percent, largest = np.zeros(values.shape, np.uint8), np.zeros(count, np.uint8)
    percent[known] = whole_percent(values[known])
    largest[known] = CODES[values[known].argmax(axis=1)]
    nothing = pa.array(~known)
    columns = [pa.array(column) for column in percent.T]
    return pa.StructArray.from_arrays(columns, fields=list(LANDCOVER), mask=nothing), pa.array(largest, mask=~known)


def composition(cells: Sequence[LandCoverCell]) -> _FLOATS:
    """Share of each class in the area of the chips of some cells, from their ledgers; shape (11,).

    What the shares lack of 1 has no land cover.
    """
    fields = list(WORLDCOVER_FIELDS.values())
    sums, chips = np.zeros(len(fields)), 0
    for cell in cells:
        scenes = cell.scenes
        sums += scenes["chips"].to_numpy(np.float64) @ scenes[fields].to_numpy(np.float64)
        chips += int(scenes["chips"].sum())
    return sums / max(1, chips)


def composition_of_tiles(tiles: pd.DataFrame) -> _FLOATS:
    """Share of each class in the valid area of some MGRS tiles, which are of one size; shape (11,)."""
    shares = tiles[list(WORLDCOVER_CLASSES.values())].fillna(0).to_numpy(np.float64)
    weights = tiles["valid_share"].fillna(1).to_numpy(np.float64)
    whole: _FLOATS = weights @ shares / weights.sum() if weights.sum() else np.zeros(shares.shape[1])
    return whole


# ---- the grid of chips ----


@dataclass(frozen=True)
class _ChipGrid:
    """Which chip of a scene lies at a place.

    Attributes:
        transformer: longitude and latitude → x and y of the scene's CRS.
        inverse: x and y → column and row of chips.
        period: of x, where the CRS ends at the antimeridian (EPSG:3857); 0 where it goes on.
        middle: x around which x is unwrapped.
        labels: (rows, columns) → number of the chip in its index, −1 where the index has none.
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
        """The grid on which the corners of the chips' polygons lie: as their files do, wherever items say."""
        scene = chips["chipid"][0].as_py().rsplit("-", 2)[0]
        x, y = (chips[f"chip_index_{axis}"].to_numpy().astype(np.intp) for axis in "xy")
        labels = np.full((y.max() + 1, x.max() + 1), -1, np.intp)
        labels[y, x] = np.arange(len(x))
        transformer = pyproj.Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
        whole = (shapely.get_num_geometries(polygons) == 1) & (shapely.get_num_coordinates(polygons) == CORNERS)
        if not whole.any():  # all cross the antimeridian, or hold a pole
            if declared is None:
                raise InputError(
                    f"{scene}: all its chips cross ±180°, and its item does not tell their grid. Add proj: fields."
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
        # From the lower right, anticlockwise, as `chip_polygons` writes them.
        column = x[whole, None] + np.array([1, 1, 0, 0])
        row = y[whole, None] + np.array([1, 0, 0, 1])
        places = np.stack([column.ravel(), row.ravel(), np.ones(column.size)], axis=1)
        solution, *_ = np.linalg.lstsq(places, corners.reshape(-1, 2), rcond=None)
        off = np.abs(places @ solution - corners.reshape(-1, 2)).max() * size
        step = np.abs(solution[:2]).max()
        if not np.isfinite(solution).all() or not off <= FIT * step:
            raise InputError(
                f"{scene}: its chips do not lie on a grid of {crs.to_string()}: their corners are up to "
                f"{off / step:.3g} pixels off. {AGAIN}"
            )
        (a, d), (b, e), (c, f) = solution.tolist()
        grid = Affine(a, b, c, d, e, f)
        return cls(transformer, ~grid, period, middle, labels)

    def chip_at(self, lon: _FLOATS, lat: _FLOATS) -> NDArray[np.intp]:
        """The chip at each place, −1 where there is none."""
        x, y = self.transformer.transform(lon, lat)
        x = _unwrapped(x, self.period, self.middle)
        t = self.inverse
        column, row = t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f
        rows, columns = self.labels.shape
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)  # False of what cannot be projected
        found = np.full(column.shape, -1, np.intp)
        found[inside] = self.labels[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        return found


def _period(transformer: pyproj.Transformer, polygon: Any) -> float:
    """How far x jumps where longitudes go from 180° to −180°, at the latitude of a polygon; 0 if it does not."""
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
    """West, south, east, north of the chips in a file, and a little more."""
    bounds = shapely.bounds(parts)
    margin = MARGIN * (bounds[:, 2:] - bounds[:, :2]).max(axis=0)
    whole: _FLOATS = np.concatenate([bounds[:, :2].min(axis=0) - margin, bounds[:, 2:].max(axis=0) + margin])
    return whole


def _areas(href: str, values: NDArray[np.uint8], transform: Affine, finer: int, grid: _ChipGrid, count: int) -> _FLOATS:
    """Area (steradians) of nodata and of each class in each chip, shape (count, 12).

    Args:
        href: of the file, for messages.
        values: of a window of it.
        transform: of the window, north up, degrees.
        finer: each pixel is taken as so many squared.
        grid: of the chips.
        count: of the chips.
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


# ---- one scene of a cell ----


def _read_chips(job: LandCoverJob) -> pa.Table:
    columns = ["chipid", "chip_index_x", "chip_index_y", "gsd", "geometry"]
    name = job.store.uri(job.chips)
    try:
        table = pq.read_table(pa.BufferReader(job.store.read(job.chips)), columns=columns)
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{name}: cannot be read ({error}). {AGAIN}") from error
    if stamp_of(table.schema).get("fingerprint") != job.chips_fingerprint:
        raise InputError(f"{name}: changed after its ledger was written. {AGAIN}")
    return table


def _normalised(job: LandCoverJob) -> tuple[AnyPlatform, Item]:
    if job.item is None:
        raise InputError(f"{job.item_id}: is indexed, but not in scene_imagery. {AGAIN}")
    source = platform_of(job.platform).with_access(job.store.access)
    return source, source.read_item(job.item)


def _crs(job: LandCoverJob) -> CRS:
    source, item = _normalised(job)
    return scene_crs(source, item)


def _declared(job: LandCoverJob) -> Grid | None:
    if job.item is None:
        return None
    source, item = _normalised(job)
    try:
        return declared_grid(source, item)
    except InputError:
        return None


def _kept(job: LandCoverJob, fingerprint: str) -> tuple[dict[str, Any], int] | None:
    """The ledger row of land cover that is there already, if it is what this job would write."""
    try:
        table = pq.read_table(io.BytesIO(job.store.read(job.key)))
    except (FileNotFoundError, OSError, ValueError):
        return None
    stamp = stamp_of(table.schema)
    if stamp.get("fingerprint") != fingerprint or not table.schema.equals(SHARE_SCHEMA):
        return None
    absent = stamp.get("worldcover_absent", "").split()
    if absent and job.worldcover.present(absent):
        return None  # files that were missing then are there now
    return _row_of(job, table, stamp)


def _row_of(job: LandCoverJob, table: pa.Table, stamp: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    covered = table["valid_share"].to_numpy()
    shares = np.stack([table[name].to_numpy() for name in WORLDCOVER_FIELDS.values()], axis=1)
    of_area = np.nan_to_num(shares) * covered[:, None]
    row = _row(
        job,
        MEASURED,
        chips=table.num_rows,
        chips_without_land_cover=int((covered == 0).sum()),
        worldcover_files=len(stamp["worldcover"].split()),
        fingerprint=stamp["fingerprint"],
        **dict(zip(WORLDCOVER_FIELDS.values(), of_area.mean(axis=0) if len(of_area) else CODES * 0.0, strict=True)),
    )
    return row, len(stamp["worldcover_absent"].split())


def _row(job: LandCoverJob, outcome: str, **values: Any) -> dict[str, Any]:
    nothing = {name: 0 if kind.startswith(("int", "float")) else "" for name, kind in LEDGER_TYPES.items()}
    known = {"item_id": job.item_id, "outcome": outcome, "chips_fingerprint": job.chips_fingerprint}
    return {**nothing, "error": None, **known, **values}
