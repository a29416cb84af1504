"""Land cover of each tile: area shares of the ESA WorldCover classes inside its polygon.

This module computes the statistics. Names and presence of the files are in `worldcover_files`, and remote rasters are
opened by `clay_assets.sources.rasters`. Reference: the WorldCover Product User Manual v2.0
(https://esa-worldcover.org, 10 m, 2021, v200).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.errors import InputError
from clay_assets.executors import run_bounded
from clay_assets.landcover.spans import Spans, count_values, spans_inside
from clay_assets.landcover.worldcover_files import TILE_DEGREES, cells_touched, corner, href_of, present_cells
from clay_assets.landcover.worldcover_pixels import (
    BINS,
    NODATA,
    check_tiling,
    pixel_areas,
    pixel_ranges,
    unknown_value,
)
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.sources.rasters import Raster, open_raster
from clay_assets.transport.access import Access

__all__ = ["CLASSES", "area_in_cells", "class_shares", "spherical_area"]

CLASSES = WORLDCOVER_CLASSES
WATER = 80
STRIP_PIXELS = 64_000_000  # read from a file at a time: a whole overview of factor 8, but not the full resolution
_FLOATS = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Job:
    """The input of one worker: a WorldCover file and the polygons (WKB, EPSG:4326) that it may cover."""

    href: str
    cell: str
    access: Access
    decimation: int
    polygons: tuple[bytes, ...]


def class_shares(
    tiles: gpd.GeoDataFrame,
    worldcover: str | Path,
    *,
    decimation: int = 8,
    executor: Executor | None = None,
    progress: OnProgress = no_progress,
    access: Access | None = None,
    in_flight: int | None = None,
) -> gpd.GeoDataFrame:
    """Area share of every WorldCover class in the valid area of each tile.

    A pixel belongs to a tile if its centre lies inside the polygon, and is weighted by its true area on the sphere.
    Missing WorldCover files are open ocean: that part of a polygon is not valid.

    Args:
        tiles: `name` (unique) and `geometry` (valid Polygon or MultiPolygon, EPSG:4326, within ±180), as
            `clay_assets.landcover.grid.read_grid` gives them.
        worldcover: folder, `s3://bucket/prefix` or `https://` folder that holds
            `ESA_WorldCover_10m_2021_v200_{tile}_Map.tif`.
        decimation: factor of the overview to read: 8 is 80 m, 1 is full resolution.
        executor: runs one job per file (threads, processes, Dask); None reads the files in the calling thread.
        progress: called as `progress(done, total)` after each file, in the calling thread.
        access: S3 access; by default unsigned, as the public bucket allows.
        in_flight: number of jobs submitted at once, which bounds memory; by default twice the workers of a local pool,
            or twice the cores of this machine for other executors.

    Returns:
        In the order of `tiles`: `name`; the 11 class shares (float64, 0..1, they sum to 1); `count`, the
        number of classes present; `valid_share` (valid area of the polygon / its area, 0..1); `diversity`
        (Shannon, natural logarithm, of the shares); `geometry`. Tiles without valid area, or with only water in it,
        are left out. `attrs` counts: `considered`, `only_water`, `no_valid_pixels`, 3° tiles under the polygons
        with a file (`worldcover_tiles_read`) and without (`worldcover_tiles_absent`), `decimation`. The result does
        not depend on the executor.

    Raises:
        InputError: unusable tiles or files, named in the message.
        SourceError: a remote source did not answer.

    Examples:
        >>> import geopandas as gpd
        >>> from clay_assets import class_shares
        >>> tiles = gpd.read_parquet("demo/storage/landcover/mgrs_grid.parquet")
        >>> stats = class_shares(tiles, "demo/planet/worldcover")
        >>> bool(stats["valid_share"].between(0, 1).all())
        True
        >>> stats.attrs["considered"] == len(tiles)
        True
    """
    access = access or Access(unsigned=True)
    polygons = _checked_polygons(tiles)
    cells, pairs_tile, pairs_cell = cells_touched(polygons)
    needed = np.unique(pairs_cell)
    present = present_cells(str(worldcover), [cells[cell] for cell in needed], access)
    absent = np.array([cells[cell] not in present for cell in needed], dtype=bool)
    members = {cell: pairs_tile[pairs_cell == cell] for cell in needed[~absent]}
    jobs = [
        _Job(
            href=href_of(str(worldcover), cells[cell]),
            cell=cells[cell],
            access=access,
            decimation=decimation,
            polygons=tuple(shapely.to_wkb(polygons[rows])),
        )
        for cell, rows in members.items()
    ]
    # Added in the order of the jobs, not of their completion: floating-point sums depend on the order.
    results = _run(jobs, executor, in_flight, progress)
    areas = np.zeros((len(tiles), BINS))
    for rows, histograms in zip(members.values(), results, strict=True):
        areas[rows] += histograms
    ocean = np.isin(pairs_cell, needed[absent])
    areas[:, 0] += area_in_cells(polygons, pairs_tile[ocean], cells, pairs_cell[ocean])
    shares = _shares(tiles, areas)
    shares.attrs.update(
        worldcover_tiles_read=len(jobs), worldcover_tiles_absent=int(absent.sum()), decimation=int(decimation)
    )
    return shares


def _shares(tiles: gpd.GeoDataFrame, areas: _FLOATS) -> gpd.GeoDataFrame:
    """The table of `class_shares` from areas in steradians, shape (tiles, nodata + 11 classes)."""
    classes = areas[:, 1:]
    valid = classes.sum(axis=1)
    present = classes > 0
    no_valid = valid == 0
    water = list(CLASSES).index(WATER)
    only_water = present[:, water] & (present.sum(axis=1) == 1)
    kept = ~no_valid & ~only_water
    share = classes[kept] / valid[kept, None]
    log = np.log(share, where=share > 0, out=np.zeros_like(share))
    table = pd.DataFrame(share, columns=list(CLASSES.values()))
    table.insert(0, "name", tiles["name"].to_numpy()[kept])
    table["count"] = present[kept].sum(axis=1).astype(np.int64)
    table["valid_share"] = valid[kept] / (valid + areas[:, 0])[kept]
    table["diversity"] = 0.0 - (share * log).sum(axis=1)  # 0.0 - x, since -x would give -0.0 for one class
    result = gpd.GeoDataFrame(table, geometry=tiles.geometry.to_numpy()[kept], crs="EPSG:4326")
    result.attrs = {
        "considered": len(tiles),
        "only_water": int(only_water.sum()),
        "no_valid_pixels": int(no_valid.sum()),
    }
    return result


def _checked_polygons(tiles: gpd.GeoDataFrame) -> npt.NDArray[np.object_]:
    missing = {"name", "geometry"} - set(tiles.columns)
    if missing:
        raise InputError(f"Tiles: column {', '.join(sorted(missing))} is missing. Read them with read_grid.")
    repeated = tiles["name"][tiles["name"].duplicated()].tolist()
    if repeated:
        raise InputError(f"Tiles: names are repeated ({', '.join(map(str, repeated[:5]))}). Keep one row of each.")
    if tiles.crs is None or not tiles.crs.equals("EPSG:4326", ignore_axis_order=True):
        raise InputError(f"Tiles: CRS {tiles.crs} instead of EPSG:4326. Read them with read_grid.")
    polygons = np.asarray(tiles.geometry.array, dtype=object)
    areal = np.isin(shapely.get_type_id(polygons), (3, 6)) & ~shapely.is_empty(polygons)
    bounds = np.abs(shapely.bounds(polygons))
    inside = (bounds[:, [0, 2]] <= 180).all(axis=1) & (bounds[:, [1, 3]] <= 90).all(axis=1)
    if not (areal & inside).all():
        name = tiles["name"].to_numpy()[np.flatnonzero(~(areal & inside))[0]]
        raise InputError(
            f"Tile {name}: not a polygon within ±180° and ±90°. Read the grid with read_grid, which cuts it."
        )
    return polygons


def area_in_cells(
    polygons: npt.NDArray[np.object_],
    rows: npt.NDArray[np.intp],
    names: list[str],
    cells: npt.NDArray[np.intp],
) -> _FLOATS:
    """Area (steradians) of each polygon in some 3° cells, such as those of open ocean; shape (polygons,).

    Args:
        polygons: polygons in EPSG:4326, within ±180.
        rows: polygon of each pair.
        names: names of all cells.
        cells: cell of each pair, an index of `names`.
    """
    corners = np.array([corner(names[cell]) for cell in cells], dtype=float).reshape(-1, 2)
    boxes = shapely.box(*corners.T, *(corners + TILE_DEGREES).T)
    inside = spherical_area(shapely.intersection(polygons[rows], boxes))
    return np.bincount(rows, weights=inside, minlength=len(polygons)).astype(np.float64)


def spherical_area(polygons: npt.NDArray[np.object_]) -> _FLOATS:
    """Area on the unit sphere (steradians) of polygons whose edges are straight in longitude and latitude.

    Exact: by Green's theorem the area is the sum over edges of the integral of -sin(latitude) d(longitude).
    """
    parts, owners = shapely.get_parts(polygons, return_index=True)
    areal = shapely.get_type_id(parts) == 3
    # Exterior rings counter-clockwise and holes clockwise, so that holes count negative.
    rings, of_part = shapely.get_rings(shapely.orient_polygons(parts[areal]), return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    lon, lat = np.radians(points).T
    edge = ring[1:] == ring[:-1]
    dlon, dlat = np.diff(lon)[edge], np.diff(lat)[edge]
    # Mean of sin over the edge: sin(middle) sinc(half the difference), which holds for level edges too.
    middle = (lat[1:] + lat[:-1])[edge] / 2
    integral = dlon * np.sin(middle) * np.sinc(dlat / (2 * np.pi))
    owner = owners[areal][of_part[ring[1:][edge]]]
    return np.bincount(owner, weights=-integral, minlength=len(polygons)).astype(np.float64)


# ---- reading ----


def _run(
    jobs: list[_Job],
    executor: Executor | None,
    in_flight: int | None,
    progress: OnProgress,
) -> list[_FLOATS]:
    """Run the jobs, at most `in_flight` at once, and return their results in the order of the jobs."""
    results: list[_FLOATS] = [np.empty(0)] * len(jobs)

    def keep(number: int, result: _FLOATS, done: int) -> None:
        results[number] = result
        progress(done, len(jobs))

    if executor is None:
        for number, job in enumerate(jobs):
            keep(number, _histograms(job), number + 1)
        return results
    limit = in_flight or 2 * (getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
    numbered = run_bounded(executor, _numbered_histograms, list(enumerate(jobs)), limit)
    for done, (_, future) in enumerate(numbered, start=1):
        number, histograms = future.result()
        keep(number, histograms, done)
    return results


def _numbered_histograms(numbered: tuple[int, _Job]) -> tuple[int, _FLOATS]:
    number, job = numbered
    return number, _histograms(job)


def _histograms(job: _Job) -> _FLOATS:
    """Area (steradians) of nodata and of each class inside each polygon of a job, shape (polygons, 12)."""
    polygons = shapely.from_wkb(np.array(job.polygons, dtype=object))
    level = _overview_level(job)
    with open_raster(job.href, job.access, overview_level=level) as src:
        check_tiling(job.href, job.cell, src.dataset)
        rows, columns = pixel_ranges(shapely.bounds(polygons), src.dataset)
        t, west = src.dataset.transform, int(columns[:, 0].min())
        inside = []
        for polygon, (top, bottom), (left, right) in zip(polygons, rows.tolist(), columns.tolist(), strict=True):
            grid = from_origin(t.c + left * t.a, t.f + top * t.e, t.a, -t.e)
            row, first, stop = spans_inside(polygon, grid, (bottom - top, right - left))
            shift = left - west
            inside.append((row + top, first + shift, stop + shift, pixel_areas(grid, bottom - top)[row]))
        spans = Spans.of(inside)
        strips = _strips(src, int(rows[:, 0].min()), int(rows[:, 1].max()), west, int(columns[:, 1].max()))
        counts, unknown = count_values(strips, spans, (NODATA, *CLASSES))
    if unknown is not None:
        raise unknown_value(job.href, unknown)
    return spans.weighted(counts, len(polygons))


def _strips(
    source: Raster, top: int, bottom: int, left: int, right: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Read a window in strips of whole blocks; yields the first row and the pixels of each."""
    block = source.dataset.block_shapes[0][0]
    step = max(1, STRIP_PIXELS // (right - left) // block) * block
    begin = top
    while begin < bottom:
        end = min(bottom, (begin // step + 1) * step)
        yield begin, source.read(1, Window(left, begin, right - left, end - begin))
        begin = end


def _overview_level(job: _Job) -> int | None:
    if job.decimation == 1:
        return None
    with open_raster(job.href, job.access) as src:
        check_tiling(job.href, job.cell, src.dataset)  # first: overviews do not matter if it is the wrong raster
        factors = src.dataset.overviews(1)
    if job.decimation not in factors:
        raise InputError(
            f"{job.href}: no overview of factor {job.decimation} in the file, found {factors or 'none'}. "
            f"Add it with `gdaladdo -r mode`, or use the file as published by ESA."
        )
    return int(factors.index(job.decimation))
