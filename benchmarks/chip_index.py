"""How much index_scene costs above what nothing can avoid, reading the quality band once, and beside stacchip.

Run as `python benchmarks/chip_index.py`. Everything is timed in one run, alternating, the best of five each; the
ratio is what to compare between versions, since it does not depend on the machine. Scenes: a full-size Sentinel-2
scene (10980 pixels of 10 m, its scene classification 5490 of 20 m) and a full-size Landsat scene (7800 pixels),
patchy, as COGs. stacchip is timed inside its own environment, without its start, where that environment was built
(the tests build it).
"""

from __future__ import annotations

import cProfile
import json
import pstats
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pystac
import rasterio
from rasterio.transform import from_origin

from clay_assets.chips.index import index_scene
from clay_assets.storage.geoparquet import encode_arrow

REPEATS = 5
PATCH = 30  # pixels
EPSG, LEFT, TOP = 32632, 399_960, 5_300_040
ORACLE = Path(__file__).parents[1] / ".oracle"
SCENES = {  # platform → asset, codes, type, pixels of the finest grid, of the band, metres, stacchip's class
    "sentinel-2-l2a": ("scl", (0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), "uint8", 10_980, 5_490, 20, "Sentinel2Indexer"),
    "landsat-c2l2-sr": ("qa_pixel", (21824, 21952, 22280, 23888), "uint16", 7_800, 7_800, 30, "LandsatIndexer"),
}
TIME_STACCHIP = """
import sys, time, contextlib, io, pystac
from stacchip import indexer
best = float("inf")
for _ in range(int(sys.argv[3])):
    item = pystac.Item.from_file(sys.argv[1])
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(indexer, sys.argv[2])(item, chip_max_nodata=1.0).create_index()
    best = min(best, time.perf_counter() - start)
print(best)
"""


def main() -> None:
    """Print one line per platform, then where index_scene spends its time."""
    print(f"{'platform':<17}{'chips':>7}{'bare read':>12}{'index_scene':>13}{'ratio':>7}{'encode':>10}{'stacchip':>11}")
    with TemporaryDirectory() as folder:
        items = {platform: _scene(Path(folder), platform) for platform in SCENES}
        for platform, document in items.items():
            _compare(platform, document, Path(folder))
        for platform, document in items.items():
            _profile(platform, document)


def _compare(platform: str, document: dict[str, Any], folder: Path) -> None:
    asset, *_, indexer = SCENES[platform]
    href, item = document["assets"][asset]["href"], pystac.Item.from_dict(document)
    bare, ours, written = [], [], []
    for _ in range(REPEATS):
        bare.append(_seconds(lambda: _bare_read(href)))
        ours.append(_seconds(lambda: index_scene(item, platform)))
        table = index_scene(item, platform)
        written.append(_seconds(lambda table=table: encode_arrow(table, {})))
    theirs = _stacchip(document, indexer, folder)
    other = f"{theirs:9.3f} s" if theirs else f"{'not run':>11}"
    best, floor = min(ours), min(bare)
    times = f"{floor:>10.3f} s{best:>11.3f} s{best / floor:>7.2f}{min(written):>8.3f} s{other}"
    print(f"{platform:<17}{table.num_rows:>7}{times}")


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _bare_read(href: str) -> int:
    with rasterio.open(href) as src:
        return int(src.read(1).size)


def _stacchip(document: dict[str, Any], indexer: str, folder: Path) -> float | None:
    """Seconds of stacchip's best run, None where its environment was not built."""
    python = next(ORACLE.glob("*/bin/python"), None)
    if python is None:
        return None
    path = folder / "item.json"
    path.write_text(json.dumps(document))
    command = [str(python), "-I", "-c", TIME_STACCHIP, str(path), indexer, "2"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _profile(platform: str, document: dict[str, Any]) -> None:
    item, profile = pystac.Item.from_dict(document), cProfile.Profile()
    profile.runcall(index_scene, item, platform)
    print(f"\n{platform}: where index_scene spends its time")
    stats = pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime")
    stats.print_stats(8)


def _scene(folder: Path, platform: str) -> dict[str, Any]:
    asset, codes, dtype, finest, size, gsd, _ = SCENES[platform]
    patches = np.random.default_rng(0).choice(codes, size=(-(-size // PATCH),) * 2).astype(dtype)
    pixels = np.kron(patches, np.ones((PATCH, PATCH), dtype))[:size, :size]
    path = folder / f"{asset}.tif"
    layout = {"driver": "COG", "blocksize": 512, "compress": "deflate", "overviews": "none"}
    profile = {"width": size, "height": size, "count": 1, "dtype": dtype, "crs": f"EPSG:{EPSG}"}
    with rasterio.open(path, "w", **profile, **layout, transform=from_origin(LEFT, TOP, gsd, gsd)) as sink:
        sink.write(pixels, 1)
    fine = gsd * size // finest
    grid = {"proj:shape": [finest, finest], "proj:transform": [fine, 0, LEFT, 0, -fine, TOP]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "id": f"{platform}-full-size",
        "geometry": {"type": "Point", "coordinates": [8.0, 47.5]},
        "bbox": [8.0, 47.5, 8.0, 47.5],
        "properties": {"datetime": "2020-06-15T10:00:00Z", "proj:epsg": EPSG, **grid},
        "links": [],
        "assets": {asset: {"href": str(path), "alternate": {"s3": {"href": str(path)}}}},
    }


if __name__ == "__main__":
    main()
