"""How much class_shares costs above what nothing can avoid: reading the same overviews once.

Run as `python benchmarks/worldcover_stats.py`. Both sides are timed in one process, alternating, the best of
five each; the ratio is what to compare between versions, since it does not depend on the machine. Worlds: a
synthetic 3° file of random patches under 16 tiles of 1.1°, as dense as the Sentinel-2 grid, and the real
WorldCover file under the real grid where `CLAY_REAL_DATA` (default `../shared/data`) has them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from shapely import box

from clay_assets.landcover.grid import read_grid
from clay_assets.landcover.worldcover import CLASSES, class_shares

REPEATS = 5
DECIMATION = 8
PIXELS = 36_000  # of a WorldCover file, each way


def main() -> None:
    """Print one line per world."""
    print(f"{'world':<12}{'tiles':>6}{'class_shares':>15}{'bare read':>12}{'ratio':>8}")
    with TemporaryDirectory() as folder:
        _compare("synthetic", _synthetic(Path(folder)), Path(folder))
    real = Path(os.environ.get("CLAY_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if (real / "worldcover").is_dir():
        grid = read_grid(real / "s2_grid" / "esa_kml_56686_tiles.parquet")
        _compare("N00E006", grid.cx[6.001:8.999, 0.001:2.999], real / "worldcover")
    else:
        print(f"N00E006: not run, there is no {real}")


def _compare(world: str, tiles: gpd.GeoDataFrame, folder: Path) -> None:
    ours, bare = [], []
    for _ in range(REPEATS):
        bare.append(_seconds(lambda: _bare_read(folder)))
        ours.append(_seconds(lambda: class_shares(tiles, folder, decimation=DECIMATION)))
    best, floor = min(ours), min(bare)
    print(f"{world:<12}{len(tiles):>6}{best:>13.3f} s{floor:>10.3f} s{best / floor:>8.1f}")


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _bare_read(folder: Path) -> int:
    """Every file's overview, decoded once."""
    total = 0
    for path in sorted(folder.glob("*_Map.tif")):
        with rasterio.open(path) as src:
            level = src.overviews(1).index(DECIMATION)
        with rasterio.open(path, overview_level=level) as src:
            total += src.read(1).size
    return total


def _synthetic(folder: Path) -> gpd.GeoDataFrame:
    """A file whose overviews are full of patches (its full resolution is left sparse), and 16 tiles."""
    path = folder / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    profile = {
        "driver": "GTiff",
        "width": PIXELS,
        "height": PIXELS,
        "count": 1,
        "dtype": "uint8",
        "nodata": 0,
    }
    layout = {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "compress": "deflate", "sparse_ok": True}
    transform = from_origin(6, 3, 3 / PIXELS, 3 / PIXELS)
    with rasterio.open(path, "w", **profile, **layout, crs="EPSG:4326", transform=transform):
        pass
    with rasterio.open(path, "r+") as dst:
        dst.build_overviews([DECIMATION], Resampling.nearest)
    size = PIXELS // DECIMATION
    patches = np.random.default_rng(0).choice(list(CLASSES), size=(size // 10, size // 10)).astype(np.uint8)
    with rasterio.open(path, "r+", overview_level=0) as dst:
        dst.write(np.kron(patches, np.ones((10, 10), dtype=np.uint8)), 1)
    corners = [(6 + 0.63 * column, 0.63 * row) for row in range(4) for column in range(4)]
    return gpd.GeoDataFrame(
        {"name": [f"T{number:02d}" for number in range(16)]},
        geometry=[box(x, y, x + 1.1, y + 1.1) for x, y in corners],
        crs="EPSG:4326",
    )


if __name__ == "__main__":
    main()
