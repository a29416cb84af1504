"""How fast all blocks of a Sentinel-2 band are read, compared with rasterio with as many threads.

Run as `python benchmarks/read_blocks.py [REPEATS]`. The band is synthetic: 10980 × 10980 uint16 in blocks of 1024,
deflate with predictor 2, written by GDAL, in the page cache. The fastest of alternating repeats counts; only compare
the ratios.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.sources.cog import BlockReader, BlockRequest, read_header

SIDE, BLOCK = 10980, 1024
REPEATS = 3


def write_band(path: Path, side: int = SIDE, block: int = BLOCK, metres: float = 10, seed: int = 0) -> None:
    """Write a band that compresses to a half, about like real ones."""
    draw = np.random.default_rng(seed)
    profile = {"width": side, "height": side, "count": 1, "dtype": "uint16", "crs": "EPSG:32632"}
    layout = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "DEFLATE", "predictor": 2}
    grid = from_origin(499_980, 5_000_040, metres, metres)
    with rasterio.open(path, "w", driver="GTiff", transform=grid, NUM_THREADS="ALL_CPUS", **profile, **layout) as sink:
        for top in range(0, side, block):
            height = min(block, side - top)
            walk = draw.integers(-60, 61, (height, side)).cumsum(axis=1)
            pixels = (1500 + np.abs(walk % 6000 - 3000)).astype(np.uint16)
            sink.write(pixels, 1, window=Window(0, top, side, height))


def with_rasterio(href: str, threads: int) -> np.ndarray:
    """The entire band, decoded by GDAL's own threads."""
    with rasterio.Env(GDAL_NUM_THREADS=str(threads), GDAL_CACHEMAX=512 << 20), rasterio.open(href) as source:
        pixels: np.ndarray = source.read()
    return pixels


def with_reader(href: str, threads: int) -> np.ndarray:
    """The entire band, after reading its header."""
    reader = BlockReader(threads=threads, cache_bytes=0)
    return reader.read([BlockRequest(href, read_header(href), [Window(0, 0, SIDE, SIDE)])])[0][0]


def main() -> None:
    """Print seconds of each, and ratios."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "B04.tif"
        write_band(path)
        href = str(path)
        share = path.stat().st_size / (2 * SIDE * SIDE)
        print(f"{path.stat().st_size / 1e6:.0f} MB, {share:.2f} of the pixels")
        assert (with_rasterio(href, 2) == with_reader(href, 2)).all()
        runs: dict[tuple[str, int], Callable[[str, int], np.ndarray]] = {}
        for threads in (1, 2):
            runs["rasterio", threads] = with_rasterio
            runs["ours", threads] = with_reader
        least = dict.fromkeys(runs, float("inf"))
        for _ in range(repeats):
            for (name, threads), run in runs.items():
                start = time.perf_counter()
                run(href, threads)
                least[name, threads] = min(least[name, threads], time.perf_counter() - start)
        for threads in (1, 2):
            peer, ours = least["rasterio", threads], least["ours", threads]
            print(f"{threads} threads: rasterio {peer:.2f} s, ours {ours:.2f} s, ratio {peer / ours:.2f}")


if __name__ == "__main__":
    main()
