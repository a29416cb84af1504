"""What class shares cost, compared with exactextract and with the unavoidable: reading the same overview once.

Run as `python benchmarks/worldcover_stats.py`. All alternate on one file of real size and texture (see `textures`),
under 36 slanted tiles as dense as the Sentinel-2 grid; the figures are CPU seconds of the best run, with one thread.
exactextract weights pixels by their covered fraction, so its shares differ slightly at tile edges; tests compare ours
with shares counted pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import rasterio
import textures
from harness import PEAK, Row, cpu_seconds, output, table, took
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from shapely import box
from shapely.affinity import rotate

from clay_assets.landcover.worldcover import class_shares

REPEATS, PEER_REPEATS = 10, 2
DECIMATION = 8
PIXELS = 36_000  # pixels per side of a WorldCover file
ACROSS, SIDE = 6, 0.98  # tiles per side; degrees, for 109.8 km
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


def rows(folder: Path) -> Iterator[Row]:
    """The row of this stage."""
    path, tiles = write_world(folder), tiles_over_it()
    ours, floors = [], []
    for _ in range(REPEATS):
        floors.append(cpu_seconds(lambda: _read(path)))
        ours.append(cpu_seconds(lambda: class_shares(tiles, folder, decimation=DECIMATION)))
    tiles.to_parquet(folder / "tiles.parquet")
    arguments = [str(path), str(folder / "tiles.parquet"), str(PEER_REPEATS)]
    (peak,) = output(OURS, *arguments)
    seconds, peer_peak = output(PEER, *arguments)
    yield Row(
        "class shares",
        "tiles",
        took(min(ours), peak=peak),
        ("exactextract", took(seconds, peak=peer_peak)),
        ("bare read", took(min(floors))),
        of_peer=6,
        note=f"{len(tiles)} tiles of one file of {PIXELS // DECIMATION}² pixels, CPU",
    )


def write_world(folder: Path) -> Path:
    """Write a file whose overview has the texture of land cover; its full resolution is left sparse."""
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
    """Overlapping tiles within the file, each slightly slanted, like tiles of UTM zones."""
    generator = np.random.default_rng(0)
    corners = np.linspace(0.02, 3 - SIDE - 0.02, ACROSS)
    polygons = [
        rotate(box(6 + x, y, 6 + x + SIDE, y + SIDE), generator.uniform(-3, 3)).intersection(box(6, 0, 9, 3))
        for x in corners
        for y in corners
    ]
    names = [f"T{number:02d}" for number in range(len(polygons))]
    return gpd.GeoDataFrame({"name": names}, geometry=polygons, crs="EPSG:4326")


def _read(path: Path) -> int:
    with rasterio.open(path, overview_level=0) as source:
        return int(source.read(1).size)


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        print(table(list(rows(Path(temporary)))))
