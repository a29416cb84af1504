"""Makes the miniature planet in a folder, and provides its ground truth.

Contents of the folder: the grid (KML), WorldCover-like rasters, scene files, catalogue snapshots (STAC-GeoParquet), the
items as JSON lines, a static catalogue, shapefiles, and tables of what was drawn. The marker is written last.

Snapshots: STAC-GeoParquet specification 1.1, written with stac-geoparquet.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import rasterio

from clay_assets.demo import grid, stac
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.linz import SURVEYS, draw_linz, write_linz_catalog
from clay_assets.demo.modis import draw_modis
from clay_assets.demo.naip import draw_naip
from clay_assets.demo.natural_earth import write_natural_earth
from clay_assets.demo.optical import draw_optical, optical_quarters, sentinel_2_radiometry
from clay_assets.demo.sentinel_1 import draw_sentinel_1, sentinel_1_quarters
from clay_assets.demo.sites import COLLECTIONS, FOLDERS
from clay_assets.demo.truth import ChipCounts, chip_table, read_chips
from clay_assets.errors import InputError, StorageError

GENERATOR = 7  # increased whenever the same seed would give a different planet
MARKER = "planet.json"
PARTS = (
    "worldcover",
    "imagery",
    "earth_search",
    "usgs",
    "planetary_computer",
    "linz",
    "natural_earth",
    "items",
    "truth",
)
GRID = "S2_tiling_grid.kml"
RECIPE = Path(__file__).with_name("recipe.toml").absolute()


@dataclass(frozen=True)
class Planet:
    """A finished planet.

    Attributes:
        folder: absolute path of its folder.
        seed: the seed it was made from.
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
    def planetary_computer(self) -> Path:
        """Folder with the snapshots of `sentinel-1-rtc`, `naip` and `modis-09A1-061`, one file each."""
        return self.folder / "planetary_computer"

    @property
    def linz(self) -> Path:
        """Folder of the static STAC catalogue of aerial surveys; its root is `catalog.json`."""
        return self.folder / "linz"

    @property
    def linz_surveys(self) -> tuple[str, ...]:
        """The surveys that a recipe should name, as `region/survey`; the catalogue also contains others."""
        return tuple(survey.name for survey in SURVEYS if survey.in_recipe)

    @property
    def natural_earth(self) -> Path:
        """Folder of zipped shapefiles, named like Natural Earth's."""
        return self.folder / "natural_earth"

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
            "CLAY_STAC_PLANETARY_COMPUTER": str(self.planetary_computer),
            "CLAY_NATURAL_EARTH": str(self.natural_earth),
            "CLAY_LINZ_CATALOG": str(self.linz / "catalog.json"),
            "CLAY_RECIPE": str(RECIPE),
        }

    def items(self, collection: str) -> list[dict[str, Any]]:
        """The STAC items of a collection, ordered by time, as new dictionaries."""
        path = self.folder / "items" / f"{_known(collection)}.ndjson"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def collections(self) -> list[dict[str, Any]]:
        """The STAC collections."""
        return [stac.collection(name) for name in COLLECTIONS]

    def class_shares(self) -> pd.DataFrame:
        """The true land cover of every tile, from the cells that were drawn.

        Columns: `name`, the eleven class names (shares of the valid area, NaN where nothing is valid), `count`
        (classes present, each on at least 0.5 % of the tile), `valid_share` (of the polygon).
        """
        return pd.read_parquet(self.folder / "truth" / "class_shares.parquet")

    def quarters(self) -> pd.DataFrame:
        """The kind of quarter at each place in each quarter.

        Columns: `family` (`sentinel-2`, `landsat` or `sentinel-1`), `site` (tile, or path and row), `tiles` (whose
        requests find its scenes), `year`, `quarter`, `kind` (a key of `SENTINEL_2_QUARTERS` or `LANDSAT_QUARTERS` in
        `calendar`, or of `SENTINEL_1_QUARTERS` in `sentinel_1`).
        """
        return pd.read_parquet(self.folder / "truth" / "quarters.parquet")

    def radiometry(self) -> pd.DataFrame:
        """The scaling of every Sentinel-2 scene's digital numbers.

        Columns: `item_id`, `baseline`, `offset` (0 or 1000, the true offset of valid numbers), `stated` (the offset
        according to the item's flags, which is wrong for half of the scenes from baseline 04.00 on).
        """
        return pd.read_parquet(self.folder / "truth" / "radiometry.parquet")

    def chip_truth(self, item_id: str) -> pd.DataFrame:
        """Every whole chip of an item's grid, row by row, regardless of the recipe.

        Columns: `chip_index_x`, `chip_index_y`, `cloud_cover_percentage`, `nodata_percentage` (shares of the chip's
        pixels, 0 to 1, as drawn). Not for MODIS and LINZ, whose images the pipeline resamples.
        """
        table = read_chips(self.folder / "truth" / "chips.parquet")
        if item_id not in table:
            raise InputError(
                f"{item_id}: unknown item, or without chip truth, on the planet in {self.folder}. See Planet.items."
            )
        return table[item_id].copy()


def make_planet(folder: Path, seed: int = 0, processes: int = 0) -> Planet:
    """Make the planet of a seed in a folder, or use the existing one.

    A complete planet of the same seed, generator version and path is kept; otherwise it is rebuilt. Other files in the
    folder are not touched. Takes a few seconds and some ten MB.

    Args:
        folder: folder for the planet.
        seed: the planet's seed.
        processes: number of additional processes, which make the aerial, radar and MODIS scenes, about half of the
            work. They are spawned, so a script that uses them needs `if __name__ == "__main__"`.

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
        spawn = multiprocessing.get_context("spawn")
        others = ProcessPoolExecutor(processes, spawn, initializer=_enter_gdal) if processes else nullcontext()
        threads = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), initializer=_enter_gdal)
        with threads as pool, others as beside:
            _make(folder, seed, pool, beside or pool)
        marker.write_text(json.dumps(made), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{folder}: the demo planet cannot be written ({error}). Choose another folder or free some space."
        ) from error
    return Planet(folder, seed)


def _enter_gdal() -> None:
    """Keep a thread in one GDAL environment: rasterio would create one per file, which takes half of the time."""
    rasterio.Env().__enter__()


def _make(folder: Path, seed: int, pool: Executor, beside: Executor) -> None:
    tiles = grid.tiles()
    grid.write_grid(folder / GRID, tiles)
    truth = folder / "truth"
    truth.mkdir()
    surveys = draw_linz(folder / "linz", seed, beside)
    parts = [draw(folder, seed, beside) for draw in (draw_sentinel_1, draw_naip, draw_modis)]
    coasts = beside.submit(write_natural_earth, folder / "natural_earth")
    landcover = LandCover(seed, tiles)
    landcover.shares().to_parquet(truth / "class_shares.parquet", index=False)
    landcover.write(folder / "worldcover", pool)

    parts.append(draw_optical(folder, seed, pool, landcover))
    coasts.result()
    write_linz_catalog(folder / "linz", [survey.result() for survey in surveys])
    quarters = pd.DataFrame([*optical_quarters(seed), *sentinel_1_quarters(seed)])
    quarters.to_parquet(truth / "quarters.parquet", index=False)
    pd.DataFrame(sentinel_2_radiometry(seed)).to_parquet(truth / "radiometry.parquet", index=False)
    (folder / "items").mkdir()
    counted: list[tuple[str, ChipCounts]] = []
    for drawings in parts:  # the first are catalogued while the last are still being drawn
        made = [one for drawing in drawings for one in drawing.result()]
        counted += [(item["id"], counts) for item, counts in made if counts is not None]
        _write_catalogue(folder, [item for item, _ in made])
    chip_table(counted).to_parquet(truth / "chips.parquet", index=False)


def _write_catalogue(folder: Path, made: Iterable[dict[str, Any]]) -> None:
    """Write items as JSON lines and as snapshots, for all collections that they belong to."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    by_collection: dict[str, list[dict[str, Any]]] = {}
    for item in made:
        by_collection.setdefault(item["collection"], []).append(item)
    for name, found in by_collection.items():
        found.sort(key=_by_time)
        lines = "".join(json.dumps(item) + "\n" for item in found)
        (folder / "items" / f"{name}.ndjson").write_text(lines, encoding="utf-8")
        snapshot = folder / FOLDERS[name] / f"{name}.parquet"
        snapshot.parent.mkdir(exist_ok=True)
        to_parquet(
            parse_stac_items_to_arrow(found),
            snapshot,
            collections={name: stac.collection(name)},
            compression="zstd",
        )


def _by_time(item: dict[str, Any]) -> tuple[str, str]:
    properties = item["properties"]
    return properties["datetime"] or properties["start_datetime"], item["id"]


def _known(collection: str) -> str:
    if collection not in COLLECTIONS:
        raise InputError(f"{collection}: unknown collection. The planet has {', '.join(COLLECTIONS)}.")
    return collection


def _read_marker(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # incompletely written
        return None
