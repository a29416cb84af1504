"""Chip indexes and land cover of synthetic scenes, with the numbers, sizes and locations of the published dataset.

Numbers of chips per platform are those in the Clay model documentation ("Dataset size"), spread over the recipe's
years. Scenes have the size of real ones and lie on land, several at each place; their corners are full-precision
numbers, which compress as badly as real ones. Scenes are made with vectorised operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.chips.blocks import BlockGrid
from clay_assets.chips.cells import INDEXED, MEASURED
from clay_assets.chips.index import BBOX, CHIP_FILE, CHIP_SCHEMA, WKB_OF_RING
from clay_assets.chips.indexing import LEDGER_TYPES
from clay_assets.chips.landcover import SHARE_FILE, SHARE_SCHEMA
from clay_assets.chips.measuring import LEDGER_TYPES as LANDCOVER_LEDGER_TYPES
from clay_assets.chips.splits import GroundSplits, SplitPlan
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.recipes.classes import WORLDCOVER_FIELDS
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode, encode_arrow, geo_metadata, stamped
from clay_assets.storage.stores import LocalStore

SCENES_OF_A_JOB = 200
KM = 111.2  # km per degree
SAMPLES = 256  # land-cover pixels per chip
CLASSES = len(WORLDCOVER_FIELDS)


@dataclass(frozen=True)
class Scenes:
    """The layout of a platform's scenes.

    Attributes:
        columns, rows: size of the grid in chips.
        kept: share of the columns with data, in a strip slanted by a share `lean` of them.
        chip_km: side of a chip, km.
        gsd: pixel size, metres.
        name: pattern of item ids, from number, place and day.
        region: the recipe's region that contains the places; None: all land.
        per_place: scenes at one place in a year.
    """

    columns: int
    rows: int
    kept: float
    lean: float
    chip_km: float
    gsd: float
    name: str
    region: str | None = None
    per_place: int = 4

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which chips of the grid are indexed."""
        y, x = np.indices((self.rows, self.columns))
        off = (x + 0.5) / self.columns - 0.5 + self.lean * ((y + 0.5) / self.rows - 0.5)
        return np.asarray(np.abs(off) <= self.kept / 2)


PLATFORMS = {
    "sentinel-2-l2a": Scenes(42, 42, 1, 0, 2.56, 10, "S2A_T{place:05d}_{day}_{number}_L2A"),
    "landsat-c2l1": Scenes(30, 30, 0.75, 0.2, 7.68, 30, "LC08_L1TP_{place:06d}_{day}_{number:08d}_02_T1"),
    "landsat-c2l2-sr": Scenes(30, 30, 0.75, 0.2, 7.68, 30, "LC08_L2SP_{place:06d}_{day}_{number:08d}_02_T1_SR"),
    "sentinel-1-rtc": Scenes(
        112, 82, 0.8, 0.2, 2.56, 10, "S1A_IW_GRDH_1SDV_{day}T053543_{day}T053608_{number:06d}_{place:06X}_rtc", None, 1
    ),
    "naip": Scenes(37, 49, 1, 0, 0.1536, 0.6, "tx_m_{place:07d}_se_14_060_{day}_{number:08d}", "conus", 1),
    "linz": Scenes(30, 40, 0.7, 0.1, 0.077, 0.3, "auckland_{day}_0.3m_BA{place:05d}_{number}", "new_zealand", 1),
    "modis": Scenes(9, 9, 1, 0, 128, 500, "MOD09A1.A{day}.h{place:05d}.061.{number:013d}", None, 12),
}


@dataclass(frozen=True)
class Job:
    """Some scenes of a cell."""

    root: str
    platform: str
    year: int
    first: int
    chips: tuple[int, ...]


def jobs(root: Path, rows: int | None = None) -> Iterator[Job]:
    """All scenes to make, in jobs.

    Args:
        root: root of the storage.
        rows: total number of chips; None: as many as were published.
    """
    recipe = load_recipe()
    published = {key: value.chips or 0 for key, value in recipe.published.items()}
    share = 1.0 if rows is None else rows / sum(published.values())
    for platform, count in published.items():
        first, last = recipe.options(platform).years
        years = list(range(first, last + 1))
        if share < 0.2:  # a small trial has fewer cells with more scenes each
            years = years[:2]
        of_platform = count if rows is None else round(count * share)
        number = 0
        for place, year in enumerate(years):
            whole = of_platform * (place + 1) // len(years) - of_platform * place // len(years)
            each = int(PLATFORMS[platform].mask.sum())
            chips = [each] * (whole // each) + ([whole % each] if whole % each else [])
            for start in range(0, len(chips), SCENES_OF_A_JOB):
                some = tuple(chips[start : start + SCENES_OF_A_JOB])
                yield Job(str(root), platform, year, number, some)
                number += len(some)


def one_cell(root: Path, rows: int) -> Iterator[Job]:
    """A cell of Sentinel-1 with a number of chips, rounded down to whole scenes, and one of NAIP with a single chip."""
    each = int(PLATFORMS["sentinel-1-rtc"].mask.sum())
    for first in range(0, rows // each, SCENES_OF_A_JOB):
        scenes = min(SCENES_OF_A_JOB, rows // each - first)
        yield Job(str(root), "sentinel-1-rtc", 2020, first, (each,) * scenes)
    yield Job(str(root), "naip", 2019, 0, (1,))


def make(root: Path, wanted: Iterable[Job], workers: int = 2) -> int:
    """Write chip indexes, land cover and their ledgers; returns the number of chips."""
    planned = list(wanted)
    ledgers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    with ProcessPoolExecutor(workers) as pool:
        for job, found in zip(planned, pool.map(_made, planned), strict=True):
            ledgers.setdefault((job.platform, job.year), []).extend(found)
    store, recipe = LocalStore(root), load_recipe()
    for (platform, year), scenes in ledgers.items():
        of_chips, of_land_cover = _ledgers(scenes)
        store.write(layout.chip_ledger(platform, year), encode(of_chips, recipe.stamp()))
        store.write(layout.landcover_ledger(platform, year), encode(of_land_cover, recipe.stamp()))
    return sum(count for scenes in ledgers.values() for _, count in scenes)


def made_plan(recipe: Recipe) -> SplitPlan:
    """Splits in the recipe's shares, drawn at random block by block: faster than with land cover."""
    splits = recipe.splits
    grid = BlockGrid.of(splits)
    codes = np.random.default_rng(0).choice(3, grid.columns.sum(), p=[0.9, 0.05, 0.05]).astype(np.uint8)
    return SplitPlan(GroundSplits(splits.distance_km, grid, codes), np.arange(len(codes)), (), "made")


def _ledgers(scenes: list[tuple[str, int]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    names, chips = (list(column) for column in zip(*scenes, strict=True))
    prints = [_fingerprint(name) for name in names]
    of_chips = pd.DataFrame(
        {
            "item_id": names,
            "outcome": INDEXED,
            "chips": chips,
            "chips_in_grid": chips,
            "chips_above_nodata_limit": 0,
            "fingerprint": prints,
            "error": None,
            "chips_excluded": 0,
            "exclusions": None,
        }
    ).astype(LEDGER_TYPES)
    nothing = dict.fromkeys(LANDCOVER_LEDGER_TYPES, 0)
    of_land_cover = pd.DataFrame(
        {
            **nothing,
            "item_id": names,
            "outcome": MEASURED,
            "chips": chips,
            "worldcover_files": 1,
            "chips_fingerprint": prints,
            "fingerprint": prints,
            "error": None,
        }
    ).astype(LANDCOVER_LEDGER_TYPES)
    return of_chips.sort_values("item_id"), of_land_cover.sort_values("item_id")


def _made(job: Job) -> list[tuple[str, int]]:
    found = []
    stamp = load_recipe().stamp()
    for number, count in enumerate(job.chips, start=job.first):
        item_id, chips, shares = scene(job.platform, job.year, number, count)
        own = {**stamp, "fingerprint": _fingerprint(item_id)}
        for table, key, options in ((chips, layout.chips, CHIP_FILE), (shares, layout.landcover, SHARE_FILE)):
            path = Path(job.root) / key(job.platform, job.year, item_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_arrow(table, own, **options))
        found.append((item_id, count))
    return found


def _fingerprint(item_id: str) -> str:
    return item_id.encode().hex()[-32:].rjust(32, "0")


def scene(platform: str, year: int, number: int, count: int) -> tuple[str, pa.Table, pa.Table]:
    """Item id, chip index and land cover of a scene, limited to its first chips."""
    made = PLATFORMS[platform]
    places = _places(made.region)
    place, turn = divmod(number, made.per_place)
    lon, lat = places[place % len(places)]
    rng = np.random.default_rng([number, year])
    moment = pd.Timestamp(f"{year}-01-10T10:20:30.405Z") + pd.Timedelta(days=340 * turn // made.per_place + place % 25)
    item_id = made.name.format(place=place, day=moment.strftime("%Y%m%d"), number=number)
    rings = _rings(platform, float(lon), float(lat))[:count]
    y, x = (axis[made.mask][:count] for axis in np.indices((made.rows, made.columns)))
    corners = rings[:, :-1]
    bounds = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    records = np.empty(count, WKB_OF_RING)
    records["order"], records["type"], records["rings"], records["points"] = 1, 3, 1, rings.shape[1]
    records["xy"] = rings
    starts = np.arange(count + 1, dtype=np.int32) * WKB_OF_RING.itemsize
    cloud = np.maximum(0, rng.integers(-30_000, 65_537, count)) / 65_536
    text = pa.string()
    columns, rows = pa.array(x, pa.uint16()), pa.array(y, pa.uint16())
    chips = pa.Table.from_arrays(
        [
            pc.binary_join_element_wise(item_id, columns.cast(text), rows.cast(text), "-"),
            pa.repeat(pa.scalar(platform), count),
            pa.repeat(pa.scalar(item_id), count),
            pa.repeat(pa.scalar(moment, pa.timestamp("ms", tz="UTC")), count),
            pa.repeat(pa.scalar(moment.date(), pa.date32()), count),
            columns,
            rows,
            pa.array(cloud.astype(np.float32)),
            pa.array(np.zeros(count, np.float32)),
            pa.array(np.round(made.gsd * np.cos(np.radians(bounds[:, 1]) / 50), 4).astype(np.float32)),
            pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(starts), pa.py_buffer(records)]),
            pa.StructArray.from_arrays([pa.array(side) for side in bounds.T], fields=list(BBOX)),
        ],
        schema=CHIP_SCHEMA,
    )
    extent = (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0))
    counts = {"chips_in_grid": str(made.mask.size), "chips_above_nodata_limit": "0"}
    chips = chips.replace_schema_metadata({b"geo": geo_metadata(["Polygon"], extent), **stamped(counts)})
    return item_id, chips, _shares(chips["chipid"], bounds, rng)


def _shares(chipids: pa.ChunkedArray, bounds: NDArray[np.float64], rng: np.random.Generator) -> pa.Table:
    """A few classes per chip, which vary smoothly in space; shares are whole numbers of pixels."""
    waves = np.random.default_rng(1).uniform(0, 2 * np.pi, (2, CLASSES))
    field = np.sin(bounds[:, :1] * 3 + waves[0]) + np.sin(bounds[:, 1:2] * 4 + waves[1])
    weights = np.exp(3 * field + rng.normal(0, 0.7, field.shape))
    counts = np.floor(SAMPLES * weights / weights.sum(axis=1, keepdims=True))
    counts[np.arange(len(counts)), weights.argmax(axis=1)] += SAMPLES - counts.sum(axis=1)
    covered = np.where(rng.random(len(counts)) < 0.03, 0, 1).astype(np.float32)
    columns = [pa.array((one / SAMPLES).astype(np.float32), mask=covered == 0) for one in counts.T]
    return pa.Table.from_arrays([chipids, *columns, pa.array(covered)], schema=SHARE_SCHEMA)


def _rings(platform: str, lon: float, lat: float) -> NDArray[np.float64]:
    """Corners of the chips in degrees, (chips, 5, 2), anticlockwise from the lower right."""
    made = PLATFORMS[platform]
    down, across = np.indices((made.rows + 1, made.columns + 1)).astype(float)
    north = (made.rows / 2 - down) * made.chip_km / KM
    east = (across - made.columns / 2) * made.chip_km / KM
    turn = np.radians(lon % 6 - 3) * np.sin(np.radians(lat))
    y = lat + north * np.cos(turn) + east * np.sin(turn)
    x = lon + (east * np.cos(turn) - north * np.sin(turn)) / np.cos(np.radians(np.clip(y, -80, 80)))
    xy = np.stack([np.clip(x, -180, 180), np.clip(y, -89, 89)], axis=2)
    ring = np.stack([xy[1:, 1:], xy[:-1, 1:], xy[:-1, :-1], xy[1:, :-1], xy[1:, 1:]], axis=2)
    return np.asarray(ring[made.mask])


@cache
def _places(region: str | None) -> NDArray[Any]:
    """Several thousand places of a region, ordered by latitude and longitude, degrees."""
    rng = np.random.default_rng(5)
    if region is None:
        outline = shapely.union_all(gpd.read_file(str(files("clay_assets.pictures") / "land_110m.geojson")).geometry)
        bounds = (-179.0, -56.0, 179.0, 72.0)
    else:
        outline = shapely.Polygon(next(one.outline for one in load_recipe().splits.regions if one.name == region))
        bounds = outline.bounds
    shapely.prepare(outline)
    places = rng.uniform(bounds[:2], bounds[2:], (40_000, 2))
    return np.asarray(places[shapely.contains_xy(outline, *places.T)])
