"""Makes the miniature planet in a folder, and tells the truth about it.

What lies in the folder: the grid (KML), WorldCover-like rasters, scene files, two catalogue snapshots
(STAC-GeoParquet), the items as JSON lines, and tables of what was drawn. The marker is written last.

Snapshots: STAC-GeoParquet specification 1.1, written with stac-geoparquet.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clay_assets.demo import grid, items
from clay_assets.demo.calendar import Scene, quarter_kinds, scenes
from clay_assets.demo.imagery import write_landsat_bands, write_raster, write_sentinel_2_bands
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.sites import (
    COLLECTIONS,
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL_2,
    Site,
    landsat_sites,
    sentinel_2_sites,
)
from clay_assets.demo.weather import QA_PIXEL, SCL, Weather
from clay_assets.errors import InputError, StorageError

GENERATOR = 1  # raised whenever the same seed would make another planet
MARKER = "planet.json"
PARTS = ("worldcover", "imagery", "earth_search", "usgs", "items", "truth")
GRID = "S2_tiling_grid.kml"
S2_CHIP, LANDSAT_CHIP = (
    128,
    256,
)  # pixels of the quality raster across a chip of 256 pixels of the finest grid


@dataclass(frozen=True)
class ChipCounts:
    """Cloudy pixels and pixels without data of each whole chip, and how many pixels a chip has."""

    cloud: NDArray[np.int64]
    nodata: NDArray[np.int64]
    pixels: int


Made = tuple[dict[str, Any], ChipCounts]


@dataclass(frozen=True)
class Planet:
    """A finished planet.

    Attributes:
        folder: where it lies, absolute.
        seed: what it was made from.
    """

    folder: Path
    seed: int

    @property
    def grid(self) -> Path:
        """The MGRS tiling grid, a KML file in ESA's layout."""
        return self.folder / GRID

    @property
    def worldcover(self) -> Path:
        """Folder of WorldCover-like rasters."""
        return self.folder / "worldcover"

    @property
    def earth_search(self) -> Path:
        """Folder with the snapshot of `sentinel-2-l2a`."""
        return self.folder / "earth_search"

    @property
    def usgs(self) -> Path:
        """Folder with the snapshots of `landsat-c2l1` and `landsat-c2l2-sr`, one file each."""
        return self.folder / "usgs"

    @property
    def tiles(self) -> tuple[str, ...]:
        """Names of all tiles of the grid."""
        return grid.TILES

    def environment(self) -> dict[str, str]:
        """The settings that point a pipeline at this planet."""
        return {
            "CLAY_MGRS_GRID": str(self.grid),
            "CLAY_WORLDCOVER": str(self.worldcover),
            "CLAY_STAC_EARTH_SEARCH": str(self.earth_search),
            "CLAY_STAC_USGS": str(self.usgs),
        }

    def items(self, collection: str) -> list[dict[str, Any]]:
        """The STAC items of a collection, in order of time, as fresh dictionaries."""
        path = self.folder / "items" / f"{_known(collection)}.ndjson"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def collections(self) -> list[dict[str, Any]]:
        """The STAC collections."""
        return [items.collection(name) for name in COLLECTIONS]

    def class_shares(self) -> pd.DataFrame:
        """The true land cover of every tile, from the cells that it was drawn as.

        Columns: `name`, the eleven class names (shares of the valid area, NaN where nothing is valid), `count`
        (classes present, each on at least 0.5 % of the tile), `valid_share` (of the polygon).
        """
        return pd.read_parquet(self.folder / "truth" / "class_shares.parquet")

    def quarters(self) -> pd.DataFrame:
        """What each place was given in each quarter.

        Columns: `family` (`sentinel-2` or `landsat`), `site` (tile, or path and row), `tiles` (whose requests find
        its scenes), `year`, `quarter`, `kind` (a key of `SENTINEL_2_QUARTERS` or `LANDSAT_QUARTERS` in `calendar`).
        """
        return pd.read_parquet(self.folder / "truth" / "quarters.parquet")

    def chip_truth(self, item_id: str) -> pd.DataFrame:
        """Every whole chip of an item's grid, row by row, whatever a recipe leaves out.

        Columns: `chip_index_x`, `chip_index_y`, `cloud_cover_percentage`, `nodata_percentage` (shares of the
        chip's pixels, 0 to 1, by which they were drawn).
        """
        table = _chips(self.folder / "truth" / "chips.parquet")
        if item_id not in table:
            raise InputError(f"{item_id}: no such item on the planet in {self.folder}. See Planet.items(collection).")
        return table[item_id].copy()


def make_planet(folder: Path, seed: int = 0) -> Planet:
    """Make the planet of a seed in a folder, or take the one that is already there.

    A finished planet of the same seed, generator version and place is left alone; anything less is made again.
    Other files in the folder are not touched. Takes some seconds and a few ten MB.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    marker = folder / MARKER
    made = {"generator": GENERATOR, "seed": seed, "folder": str(folder)}
    try:
        if marker.is_file() and _read_marker(marker) == made:
            return Planet(folder, seed)
        marker.unlink(missing_ok=True)
        for part in PARTS:
            shutil.rmtree(folder / part, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
            _make(folder, seed, pool)
        marker.write_text(json.dumps(made), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{folder}: the demo planet cannot be written ({error}). Choose another folder or free some space."
        ) from error
    return Planet(folder, seed)


def _make(folder: Path, seed: int, pool: Executor) -> None:
    tiles = grid.tiles()
    grid.write_grid(folder / GRID, tiles)
    truth = folder / "truth"
    truth.mkdir()
    landcover = LandCover(seed, tiles)
    landcover.shares().to_parquet(truth / "class_shares.parquet", index=False)
    landcover.write(folder / "worldcover", pool)

    quarters: list[dict[str, Any]] = []
    grounds: list[Future[None]] = []
    drawings: list[Future[list[Made]]] = []
    scl, qa_pixel = Weather(seed, SCL, S2_CHIP), Weather(seed, QA_PIXEL, LANDSAT_CHIP)
    for index, site in enumerate(sentinel_2_sites()):
        grounds.append(pool.submit(write_sentinel_2_bands, folder, seed, site))
        surface = scl.surface(site)
        quarters += _quarter_rows(seed, "sentinel-2", site)
        found = scenes(seed, "sentinel-2", site)
        without_scl = _ordinary(found, 1, 1) if index == 0 else None
        for scene in found:
            oddities = {"code": scene is _ordinary(found, 0, 0), "without_scl": scene is without_scl}
            drawings.append(pool.submit(_sentinel_2, folder, scl, surface, scene, oddities))
    for site in landsat_sites():
        grounds.append(pool.submit(write_landsat_bands, folder, seed, site))
        surface = qa_pixel.surface(site)
        quarters += _quarter_rows(seed, "landsat", site)
        found = scenes(seed, "landsat", site)
        for scene in found:
            code = scene is _ordinary(found, 0, 0)
            drawings.append(pool.submit(_landsat, folder, qa_pixel, surface, scene, code))
    made = [one for drawing in drawings for one in drawing.result()]
    for ground in grounds:
        ground.result()

    pd.DataFrame(quarters).to_parquet(truth / "quarters.parquet", index=False)
    chips = _chip_table([(item["id"], counts) for item, counts in made])
    chips.to_parquet(truth / "chips.parquet", index=False)
    _write_catalogue(folder, [item for item, _ in made])


def _sentinel_2(
    folder: Path, weather: Weather, surface: NDArray[Any], scene: Scene, oddities: dict[str, bool]
) -> list[Made]:
    drawing = weather.draw(scene, surface)
    item = items.sentinel_2(scene, drawing, folder, **oddities)
    path = items.quality_file(folder, SENTINEL_2, item["id"])
    site = scene.site
    write_raster(path, drawing.codes, site.epsg, site.left, site.top, site.pixel, nodata=SCL.nodata)
    return [(item, ChipCounts(drawing.cloud, drawing.nodata, site.chip**2))]


def _landsat(folder: Path, weather: Weather, surface: NDArray[Any], scene: Scene, code: bool) -> list[Made]:
    """Both levels of an acquisition; they have the same quality band, and nothing of the night becomes level 2."""
    drawing = weather.draw(scene, surface)
    site = scene.site
    made: list[Made] = []
    written: Path | None = None
    for collection in (LANDSAT_L1,) if scene.is_night else (LANDSAT_L1, LANDSAT_L2):
        item = items.landsat(scene, drawing, folder, collection, code=code)
        path = items.quality_file(folder, collection, item["id"])
        if written is None:
            write_raster(path, drawing.codes, site.epsg, site.left, site.top, site.pixel)
        else:
            path.parent.mkdir(parents=True)
            shutil.copyfile(written, path)
        written = path
        made.append((item, ChipCounts(drawing.cloud, drawing.nodata, site.chip**2)))
    return made


def _ordinary(found: list[Scene], nth: int, number: int) -> Scene:
    """Of the nth ordinary quarter of a place, the date with this number: 0 is the least cloudy one."""
    return [one for one in found if one.quarter_kind == "ordinary" and one.number == number][nth]


def _quarter_rows(seed: int, family: str, site: Site) -> list[dict[str, Any]]:
    return [
        {
            "family": family,
            "site": site.name,
            "tiles": list(site.tiles),
            "year": year,
            "quarter": quarter,
            "kind": kind,
        }
        for (year, quarter), kind in quarter_kinds(seed, family, site).items()
    ]


def _chip_table(truth: list[tuple[str, ChipCounts]]) -> pd.DataFrame:
    """One row per whole chip of every item, row by row of its grid."""
    columns = [np.indices(one.cloud.shape)[::-1].reshape(2, -1) for _, one in truth]
    x, y = np.concatenate(columns, axis=1)
    sizes = [one.cloud.size for _, one in truth]
    return pd.DataFrame(
        {
            "item_id": np.repeat([name for name, _ in truth], sizes),
            "chip_index_x": x,
            "chip_index_y": y,
            "cloud_cover_percentage": np.concatenate([one.cloud.ravel() / one.pixels for _, one in truth]),
            "nodata_percentage": np.concatenate([one.nodata.ravel() / one.pixels for _, one in truth]),
        }
    )


def _write_catalogue(folder: Path, made: Iterable[dict[str, Any]]) -> None:
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    by_collection: dict[str, list[dict[str, Any]]] = {name: [] for name in COLLECTIONS}
    for item in made:
        by_collection[item["collection"]].append(item)
    (folder / "items").mkdir()
    for name, found in by_collection.items():
        found.sort(key=lambda item: (item["properties"]["datetime"], item["id"]))
        lines = "".join(json.dumps(item) + "\n" for item in found)
        (folder / "items" / f"{name}.ndjson").write_text(lines, encoding="utf-8")
        snapshot = folder / ("earth_search" if name == SENTINEL_2 else "usgs") / f"{name}.parquet"
        snapshot.parent.mkdir(exist_ok=True)
        to_parquet(
            parse_stac_items_to_arrow(found),
            snapshot,
            collections={name: items.collection(name)},
            compression="zstd",
        )


def _known(collection: str) -> str:
    if collection not in COLLECTIONS:
        raise InputError(f"{collection}: the planet has no such collection, only {', '.join(COLLECTIONS)}.")
    return collection


def _read_marker(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # half written
        return None


@lru_cache(maxsize=2)
def _chips_of(path: Path, changed: int) -> dict[str, pd.DataFrame]:
    table = pd.read_parquet(path)
    return {
        str(name): rows.drop(columns="item_id").reset_index(drop=True)
        for name, rows in table.groupby("item_id", sort=False)
    }


def _chips(path: Path) -> dict[str, pd.DataFrame]:
    return _chips_of(path, path.stat().st_mtime_ns)
