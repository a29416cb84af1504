"""What indexing scenes costs, compared with stacchip and with the unavoidable: reading the quality band once.

Run as `python benchmarks/chip_index.py`. Ours and the floor alternate in one process on the same files, of real size
and texture (see `textures`), with one thread each; the best run of each counts. Times of one scene are CPU seconds,
which other work on the machine hardly affects; those of several workers are wall-clock seconds and need an idle
machine. Compare versions by the ratio.

Floors: reading a scene's entire quality band with rasterio; for a NAIP image without a mask, of which nothing needs to
be read, projecting the corners of its chips with a new transformer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyproj
import pystac
import rasterio
import textures
from harness import PEAK, Row, cpu_seconds, output, peer, table, took
from rasterio.transform import from_origin

from clay_assets.chips.index import index_scene
from clay_assets.chips.indexing import index_scenes
from clay_assets.executors.spread import SpreadExecutor
from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import LocalStore

REPEATS, PEER_REPEATS = 15, 2
CHIP = 256
UTM = 32632
SCENES = 16  # scenes of a cell shared by workers
FEW, MANY = (10, 100), 1_000  # numbers of scenes between which memory must not grow
SENTINEL_1 = 3_072  # pixels per side, a corner of a scene; making a full one would take minutes
PEER = (
    PEAK
    + """
import sys, time, contextlib, io, json, pystac
from stacchip import indexer
def index():
    item = pystac.Item.from_dict(json.loads(sys.argv[1]))
    item.properties["proj:epsg"] = int(sys.argv[4])  # which pystac has made proj:code of
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(indexer, sys.argv[2])(item, chip_max_nodata=1.0).create_index()
    return time.process_time() - start
best = min(index() for _ in range(int(sys.argv[3])))
print(json.dumps([best, peak()]))
"""
)
OURS = (
    PEAK
    + """
import sys, json, pystac
from clay_assets.chips.index import index_scene
index_scene(pystac.Item.from_dict(json.loads(sys.argv[1])), sys.argv[2])
print(peak())
"""
)
# Peak memory of this process and of its children that are still running.
CELL = (
    PEAK.replace("def peak():", "def peak(process='self'):").replace('"/proc/self/', 'f"/proc/{process}/')
    + """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import chip_index
from clay_assets.executors.spread import SpreadExecutor
if __name__ == "__main__":
    with SpreadExecutor(2, 2) as pool:
        chip_index.cell(Path(sys.argv[2]), pool, 4, int(sys.argv[3]))
        children = Path("/proc/self/task").glob("*/children")
        print(peak() + sum(peak(child) for path in children for child in path.read_text().split()))
"""
)


def rows(folder: Path) -> Iterator[Row]:
    """One scene of each kind, and many scenes with two workers."""
    scenes = {
        "index, Sentinel-2": (sentinel_2(folder), "sentinel-2-l2a", "Sentinel2Indexer", 1.5, 12),
        "index, Landsat": (landsat(folder), "landsat-c2l2-sr", "LandsatIndexer", 1.3, None),
        "index, NAIP without a mask": (naip(folder), "naip", "NoStatsChipIndexer", 3, 15),
        "index, Sentinel-1 (two bands)": (sentinel_1(folder), "sentinel-1-rtc", None, None, None),
    }
    for stage, scene in scenes.items():
        yield _one_scene(stage, *scene)
    yield from _workers(folder)
    peaks = {count: output(CELL, __file__, str(folder), str(count)) for count in (*FEW, MANY)}
    note = "both processes; " + ", ".join(f"{count} scenes: {peaks[count] / 2**20:.0f} MiB" for count in FEW)
    yield Row(f"index, memory of {MANY:,} scenes", "scenes", took(0, peak=peaks[MANY]), note=note)


def _one_scene(
    stage: str,
    document: dict[str, Any],
    platform: str,
    indexer: str | None,
    of_floor: float | None,
    of_peer: float | None,
) -> Row:
    item = pystac.Item.from_dict(document)
    files = [asset["href"] for asset in document["assets"].values()]
    floor = _projected if platform == "naip" else _read
    count = index_scene(item, platform).num_rows
    ours, floors = [], []
    for _ in range(REPEATS):
        floors.append(cpu_seconds(lambda: [floor(file) for file in files]))
        ours.append(cpu_seconds(lambda: index_scene(item, platform)))
    text, stacchip, their = json.dumps(document), peer("stacchip"), None
    if stacchip and indexer:
        epsg = str(document["properties"]["proj:epsg"])
        seconds, peak = output(PEER, text, indexer, str(PEER_REPEATS), epsg, python=stacchip)
        their = "stacchip", took(seconds, peak=peak)
    return Row(
        stage,
        "scenes",
        took(min(ours), peak=output(OURS, text, platform)),
        their,
        ("projection" if platform == "naip" else "bare read", took(min(floors))),
        of_peer,
        of_floor,
        f"{count:,} chips, CPU",
    )


def _workers(folder: Path) -> Iterator[Row]:
    """A cell of Sentinel-2 scenes with two single-threaded workers; the floor is half the time of one."""
    with SpreadExecutor(1, 1) as one, SpreadExecutor(2, 2) as two:
        times: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(5):  # the first one starts the workers
            for workers, executor in ((1, one), (2, two)):
                times[workers].append(cell(folder, executor, 2 * workers))
    single, both = (min(times[workers][1:]) for workers in (1, 2))
    note = f"{single / both:.2f} × one worker (goal >= 1.85)"
    floor = "half of one worker", took(single / 2)
    yield Row(f"index, {SCENES} scenes with two workers", "scenes", took(both), floor=floor, note=note)


def cell(folder: Path, executor: Executor, in_flight: int, count: int = SCENES) -> float:
    """Wall-clock seconds to index that many copies of the Sentinel-2 scene into an empty storage."""
    document = json.loads((folder / "sentinel-2.json").read_text())
    items = [{**document, "id": f"{document['id']}-{number}"} for number in range(count)]
    with TemporaryDirectory(dir=folder) as store:
        start = time.perf_counter()
        found = index_scenes(
            "sentinel-2-l2a", 2020, items, LocalStore(store), load_recipe("clay_v1"), executor, in_flight
        )
        seconds = time.perf_counter() - start
    assert (found.ledger["outcome"] == "indexed").all()
    return seconds


def _read(href: str) -> int:
    with rasterio.open(href) as source:
        return int(source.read(1).size)


def _projected(href: str) -> Any:
    with rasterio.open(href) as source:
        t, crs, height, width = source.transform, source.crs, source.height, source.width
    x, y = np.meshgrid(np.arange(width // CHIP + 1.0) * CHIP, np.arange(height // CHIP + 1.0) * CHIP)
    transformer = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    return transformer.transform(t.a * x + t.c, t.e * y + t.f)


def sentinel_2(folder: Path) -> dict[str, Any]:
    """A scene with its 20 m scene classification under 10 m bands."""
    href = _written(folder / "scl.tif", textures.scene_classification(), 20)
    grid = {"proj:shape": [10_980] * 2, "proj:transform": [10, 0, 399_960, 0, -10, 5_300_040]}
    document = _item("sentinel-2", UTM, grid, "scl", href)
    (folder / "sentinel-2.json").write_text(json.dumps(document))
    return document


def landsat(folder: Path) -> dict[str, Any]:
    """A scene with its 30 m QA_PIXEL."""
    href = _written(folder / "qa_pixel.tif", textures.quality_band(), 30)
    grid = {"proj:shape": [7_800] * 2, "proj:transform": [30, 0, 399_960, 0, -30, 5_300_040]}
    return _item("landsat", UTM, grid, "qa_pixel", href)


def naip(folder: Path) -> dict[str, Any]:
    """A 0.6 m image without a mask."""
    textures.write_aerial(folder / "naip.tif")
    grid = {"proj:shape": [12_666, 9_704], "proj:transform": [0.6, 0, 622_000, 0, -0.6, 3_400_000]}
    return _item("naip", 26916, grid, "image", str(folder / "naip.tif"))


def sentinel_1(folder: Path) -> dict[str, Any]:
    """Part of a scene with two 10 m bands."""
    side = SENTINEL_1
    hrefs = {
        band: _written(folder / f"{band}.tif", textures.backscatter(side, seed), 10, nodata=-32768)
        for seed, band in enumerate(("vv", "vh"))
    }
    grid = {"proj:shape": [side, side], "proj:transform": [10, 0, 399_960, 0, -10, 5_300_040]}
    document = _item("sentinel-1", UTM, grid, "vv", hrefs["vv"])
    document["assets"]["vh"] = {"href": hrefs["vh"]}
    return document


def _written(path: Path, pixels: np.ndarray[Any, Any], gsd: float, nodata: float | None = None) -> str:
    layout = {"driver": "COG", "blocksize": 512, "compress": "deflate", "overviews": "none"}
    profile = {"width": pixels.shape[1], "height": pixels.shape[0], "count": 1, "dtype": pixels.dtype}
    profile |= {"nodata": nodata}
    transform = from_origin(399_960, 5_300_040, gsd, gsd)
    with rasterio.open(path, "w", **profile, **layout, crs=f"EPSG:{UTM}", transform=transform) as sink:
        sink.write(pixels, 1)
    return str(path)


def _item(name: str, epsg: int, grid: dict[str, Any], asset: str, href: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "id": f"{name}-full-size",
        "geometry": {"type": "Point", "coordinates": [8.0, 47.5]},
        "bbox": [8.0, 47.5, 8.0, 47.5],
        "properties": {"datetime": "2020-06-15T10:00:00Z", "proj:epsg": epsg, **grid},
        "links": [],
        "assets": {asset: {"href": href, "alternate": {"s3": {"href": href}}}},
    }


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        print(table(list(rows(Path(temporary)))))
