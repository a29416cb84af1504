"""Samples the tiles of the MODIS sinusoidal grid that have no nodata pixels.

Specification: the Clay model documentation, "Training Data", section "MODIS sampling strategy"; the recipe sets the
date and band of the test. Tiles of the grid that do not lie on the Earth are left out, as are those of the open ocean,
which have no items.

Grid: https://modis-land.gsfc.nasa.gov/MODLAND_grid.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache

import geopandas as gpd
import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.eligibility import RuleError, best_candidate
from clay_assets.errors import InputError
from clay_assets.executors import failure_text, run_bounded
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.modis import COLUMNS, FILL, ROWS, ModisOptions, on_earth, tile_filter, tile_name
from clay_assets.progress import OnProgress, no_progress
from clay_assets.recipes import Recipe
from clay_assets.sources.rasters import open_raster
from clay_assets.transport.access import Access
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

logger = logging.getLogger(__name__)

EDGE_POINTS = 41  # along each side of a polygon: the sides are curved in degrees
COMPOSITE = timedelta(days=8)
COMPLETE, WITH_NODATA, NO_ITEM, FAILED = "complete", "with nodata", "no item", "failed"
PUBLISHED, NOT_PUBLISHED = "published", "not published"


@dataclass(frozen=True)
class _Read:
    """What a worker needs to test one tile."""

    href: str
    access: Access


def sin_grid() -> gpd.GeoDataFrame:
    """The tiles of the 36 × 18 grid that lie on the Earth.

    Returns:
        `name` (such as `h19v10`), `vertical`, `horizontal`, `geometry` (EPSG:4326), ordered by row and column.
    """
    rows = [
        {
            "name": tile_name(vertical, horizontal),
            "vertical": vertical,
            "horizontal": horizontal,
            "geometry": tile_polygon(vertical, horizontal),
        }
        for vertical in range(ROWS)
        for horizontal in range(COLUMNS)
        if on_earth(vertical, horizontal)
    ]
    return gpd.GeoDataFrame(rows, crs="EPSG:4326")


@cache  # every fingerprint of the splits needs those that the recipe lists
def tile_polygon(vertical: int, horizontal: int) -> BaseGeometry:
    """The part of the Earth that a tile covers, EPSG:4326.

    Args:
        vertical: row from the north, 0 to 17.
        horizontal: column from the west, 0 to 35. The tile must lie on the Earth.
    """
    # x = R · longitude · cos(latitude), so the Earth is as wide as the parallel at that latitude.
    left, right = ((horizontal + side) * 360 / COLUMNS - 180 for side in (0, 1))
    latitude = 90 - (vertical + np.linspace(0, 1, EDGE_POINTS)) * 180 / ROWS
    ends = np.degrees(np.arccos(np.abs([left, right]) / 180))  # where the tile's sides meet the Earth's edge
    ends = np.clip(np.where(latitude.mean() < 0, -ends, ends), latitude.min(), latitude.max())
    latitude = np.union1d(np.clip(latitude, -np.abs(ends).max(), np.abs(ends).max()), ends)
    half_width = 180 * np.clip(np.cos(np.radians(latitude)), 1e-12, None)
    west, east = np.clip(left / half_width, -1, 1) * 180, np.clip(right / half_width, -1, 1) * 180
    polygon = shapely.make_valid(
        shapely.Polygon(np.concatenate([np.stack([west, latitude], 1), np.stack([east, latitude], 1)[::-1]]))
    )
    areas = [part for part in shapely.get_parts(polygon) if part.geom_type == "Polygon"]
    return shapely.orient_polygons(areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas))


def listed_tiles(recipe: Recipe) -> list[BaseGeometry]:
    """Polygons of the published tiles that a recipe lists, EPSG:4326; empty if it lists none."""
    return [tile_polygon(*tile) for tile in recipe.options("modis").published_tiles]


def tile_states(
    platform: AnyPlatform,
    catalogue: Callable[[], Catalogue],
    options: ModisOptions,
    executor: Executor,
    in_flight: int,
    progress: OnProgress = no_progress,
) -> gpd.GeoDataFrame:
    """Test every tile on the Earth on one composite, with one search and one read each, or use the published tiles.

    Args:
        platform: MODIS; its rules choose among the items of a tile.
        catalogue: opens the catalogue to search for the composite; not called if the recipe uses the published tiles.
        options: the composite's day, and the band to read.
        executor: runs the reads in parallel.
        in_flight: number of reads submitted at once.
        progress: called with (tiles tested, tiles in total).

    Returns:
        The grid with `outcome` (`complete`, `with nodata`, `no item` or `failed`; `published` or `not published` if
        nothing was read), `item_id`, `nodata_pixels` and `error`. Failed searches and reads are retried. If they fail
        again, or if a rule of the platform raises, the tile is recorded as `failed`; other tiles are not affected.

    Raises:
        SourceError: the catalogue as a whole does not answer.
    """
    tiles = sin_grid().assign(outcome=NO_ITEM, item_id=None, nodata_pixels=0, error=None)
    if options.tiles == "published":
        taken = tiles["name"].isin(_published(options))
        return tiles.assign(outcome=np.where(taken, PUBLISHED, NOT_PUBLISHED))
    tiles = tiles.set_index("name", drop=False)
    jobs: dict[str, _Read] = {}
    for answer in catalogue().search(platform, _searches(tiles, options)):
        name = answer.request.location
        if answer.error is not None:
            tiles.loc[name, ["outcome", "error"]] = [FAILED, answer.error]
            continue
        try:
            best, _ = best_candidate(platform, answer, options)
            if best is not None:
                tiles.loc[name, "item_id"] = best["id"]
                href = platform.href(best["assets"][options.reference_band], options)
                jobs[name] = _Read(href, platform.access_to(href))
        except (RuleError, InputError) as error:
            tiles.loc[name, ["outcome", "error"]] = [FAILED, str(error)]
    done = len(tiles) - len(jobs)
    for (name, _), future in run_bounded(executor, _named_count, jobs.items(), in_flight):
        try:
            count = future.result()
        except Exception as error:  # a bad file, whatever the library raises, fails its own tile only
            tiles.loc[name, ["outcome", "error"]] = [FAILED, failure_text(error, name, logger)]
        else:
            tiles.loc[name, ["outcome", "nodata_pixels"]] = [WITH_NODATA if count else COMPLETE, count]
        done += 1
        progress(done, len(tiles))
    return tiles.reset_index(drop=True)


def sample_of(tiles: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The sample: the complete or published tiles, ordered by name."""
    columns = ["name", "vertical", "horizontal", "item_id", "geometry"]
    return tiles.loc[tiles["outcome"].isin([COMPLETE, PUBLISHED]), columns].sort_values("name", ignore_index=True)


def differences(sample: gpd.GeoDataFrame, options: ModisOptions) -> tuple[list[str], list[str]]:
    """Names of the tiles that are sampled but not published, and of those published but not sampled."""
    published, sampled = _published(options), set(sample["name"])
    return sorted(sampled - published), sorted(published - sampled)


def _published(options: ModisOptions) -> set[str]:
    return {f"h{horizontal:02d}v{vertical:02d}" for vertical, horizontal in options.published_tiles}


def _searches(tiles: gpd.GeoDataFrame, options: ModisOptions) -> Sequence[Request]:
    # Composites start every eight days, so exactly one covers the day.
    day = datetime.combine(options.reference_date, time(), UTC)
    start, end = day - COMPOSITE + timedelta(days=1), day + timedelta(days=1)
    return [
        Request(
            tile.name,
            tile.name,
            f"{options.reference_date}",
            start,
            end,
            tile.geometry,
            (tile_filter(int(tile.vertical), int(tile.horizontal)),),
        )
        for tile in tiles.itertuples(index=False)
    ]


def _named_count(job: tuple[str, _Read]) -> int:
    count: int = retrying(WORK_ATTEMPTS)(_count_nodata, job[1])
    return count


def _count_nodata(read: _Read) -> int:
    with open_raster(read.href, read.access) as source:
        return int(np.count_nonzero(source.read(1) == FILL))
