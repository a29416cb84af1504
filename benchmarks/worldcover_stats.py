"""What class shares cost, beside exactextract and beside what nothing can avoid: reading the same overview once.

Run as `python benchmarks/worldcover_stats.py [--peers PYTHON]`, where PYTHON has exactextract, geopandas and rasterio.
All alternate on one file, of real size and texture (see `textures`), under 36 slanted tiles as dense as the Sentinel-2
grid; CPU seconds, the best run of each, with one thread. exactextract weighs what a polygon covers of a pixel, so that
its shares differ a little at the outlines; tests hold ours against those that were counted pixel by pixel.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import textures
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from shapely import box
from shapely.affinity import rotate

from clay_assets.landcover.worldcover import class_shares

REPEATS, PEER_REPEATS = 10, 2
DECIMATION = 8
PIXELS = 36_000  # of a WorldCover file, each way
ACROSS, SIDE = 6, 0.98  # tiles each way; degrees, of 109.8 km
PEAK = """
def peak():  # of this process alone; getrusage would include the one that it came from
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
"""
PEER = (
    PEAK
    + """
import sys, time, json, rasterio, geopandas
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
tiles = geopandas.read_parquet(sys.argv[2])
def shares():
    start = time.process_time()
    with rasterio.open(sys.argv[1], overview_level=0) as source:
        values, bounds = source.read(1), source.bounds
    extent = dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds))
    raster = NumPyRasterSource(values, **extent, nodata=0, srs_wkt=tiles.crs.to_wkt(), name="class")
    exact_extract(raster, tiles, ["unique", "frac"], include_cols=["name"], output="pandas")
    return time.process_time() - start
best = min(shares() for _ in range(int(sys.argv[3])))
print(json.dumps([best, peak()]))
"""
)
OURS = (
    PEAK
    + """
import sys, json, geopandas
from pathlib import Path
from clay_assets.landcover.worldcover import class_shares
class_shares(geopandas.read_parquet(sys.argv[2]), Path(sys.argv[1]).parent)
print(json.dumps([peak()]))
"""
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        stage: what was timed.
        ours, peer, floor: CPU seconds; None where it was not run.
        peak, peer_peak: bytes of memory of a process that does it.
        note: what the numbers are of.
    """

    stage: str
    ours: float
    peer: float | None = None
    floor: float | None = None
    peak: int | None = None
    peer_peak: int | None = None
    note: str = ""


def rows(peers: str | None = None) -> Iterator[Row]:
    """The rows of this stage.

    Args:
        peers: a Python that has exactextract; None: it is not run.
    """
    with TemporaryDirectory() as name:
        path, tiles = write_world(Path(name)), tiles_over_it()
        ours, floors = [], []
        for _ in range(REPEATS):
            floors.append(_cpu(lambda: _read(path)))
            ours.append(_cpu(lambda: class_shares(tiles, name, decimation=DECIMATION)))
        tiles.to_parquet(Path(name) / "tiles.parquet")
        arguments = [str(path), str(Path(name) / "tiles.parquet"), str(PEER_REPEATS)]
        (peak,) = _output(sys.executable, OURS, *arguments)
        peer, peer_peak = _output(peers, PEER, *arguments) if peers else (None, None)
        note = f"{len(tiles)} tiles of {PIXELS // DECIMATION}² pixels, CPU seconds"
        yield Row("class shares", min(ours), peer, min(floors), peak, peer_peak, note)


def write_world(folder: Path) -> Path:
    """A file whose overview has the texture of land cover; its full resolution is left sparse."""
    path = folder / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    profile = {"driver": "GTiff", "width": PIXELS, "height": PIXELS, "count": 1, "dtype": "uint8", "nodata": 0}
    layout = {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "compress": "deflate", "sparse_ok": True}
    transform = from_origin(6, 3, 3 / PIXELS, 3 / PIXELS)
    with rasterio.open(path, "w", **profile, **layout, crs="EPSG:4326", transform=transform):
        pass
    with rasterio.open(path, "r+") as sink:
        sink.build_overviews([DECIMATION], Resampling.nearest)
    with rasterio.open(path, "r+", overview_level=0) as sink:
        sink.write(textures.land_cover(PIXELS // DECIMATION), 1)
    return path


def tiles_over_it() -> gpd.GeoDataFrame:
    """Overlapping tiles within the file, each a little slanted, as tiles of UTM zones are."""
    generator = np.random.default_rng(0)
    corners = np.linspace(0.02, 3 - SIDE - 0.02, ACROSS)
    polygons = [
        rotate(box(6 + x, y, 6 + x + SIDE, y + SIDE), generator.uniform(-3, 3)).intersection(box(6, 0, 9, 3))
        for x in corners
        for y in corners
    ]
    names = [f"T{number:02d}" for number in range(len(polygons))]
    return gpd.GeoDataFrame({"name": names}, geometry=polygons, crs="EPSG:4326")


def _output(python: str, script: str, *arguments: str) -> Any:
    """What a script prints, in a process of its own."""
    command = [python, *(() if python == sys.executable else ("-I",)), "-c", script, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _read(path: Path) -> int:
    with rasterio.open(path, overview_level=0) as source:
        return int(source.read(1).size)


def _cpu(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Print the rows, or the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python that has exactextract, geopandas and rasterio")
    parser.add_argument("--json", action="store_true", help="rows as JSON, one per line")
    arguments = parser.parse_args()
    for row in rows(arguments.peers):
        if arguments.json:
            print(json.dumps(asdict(row)), flush=True)
            continue
        peer = f"exactextract {row.peer:.3f} s ({row.peer / row.ours:.1f} × ours), " if row.peer else ""
        floor = f"bare read {row.floor:.3f} s" if row.floor else ""
        memory = f"{(row.peak or 0) / 2**20:.0f} MiB"
        print(f"{row.stage}: ours {row.ours:.3f} s, {peer}{floor}; {memory}; {row.note}")


if __name__ == "__main__":
    main()
