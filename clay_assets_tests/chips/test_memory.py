"""A whole Sentinel-1 scene is indexed within 1 GiB, and no block of its files is read twice.

Such a scene has 2 × 2.4 GB of pixels. The files here are equally large but mostly sparse, so that they are fast to
make: empty blocks take no bytes on disk, but as many as any other in GDAL's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

HEIGHT, WIDTH, BLOCK, CHIP = 21_200, 28_900, 512, 256  # pixels; the first two as in real items
ROWS, COLUMNS = HEIGHT // CHIP, WIDTH // CHIP
EVERY = 7  # share of blocks with data
GIB = 1 << 30

INDEX = """
import json, sys, time
from pathlib import Path
import pystac
from clay_assets.chips.index import index_scene

def own(file, field):
    return int(next(line for line in open(f"/proc/self/{file}") if line.startswith(field)).split()[1])

small, large = (pystac.Item.from_file(path) for path in sys.argv[1:])
index_scene(small, "sentinel-1-rtc")  # libraries are loaded, which reads files too
read, began, peak_before = own("io", "rchar:"), time.perf_counter(), own("status", "VmHWM:")
table = index_scene(large, "sentinel-1-rtc")
print(json.dumps({
    "read": own("io", "rchar:") - read,
    "seconds": time.perf_counter() - began,
    "peak": own("status", "VmHWM:") * 1024,  # of this process alone; ru_maxrss would include the one it came from
    "peak_before": peak_before * 1024,
    "chips": [table["chip_index_x"].to_pylist(), table["chip_index_y"].to_pylist()],
    "nodata": table["nodata_percentage"].to_pylist(),
    "counts": {key.decode(): value.decode() for key, value in table.schema.metadata.items() if b"clay:" in key},
}))
"""


def has_data(row: int, column: int) -> bool:
    return (3 * row + column) % EVERY == 0


def write_band(path: Path, height: int, width: int, empty_rows: int) -> None:
    """Sparse backscatter, tiled like the catalogue's COGs; some rows of each block with data are nodata."""
    power = np.tile(np.random.default_rng(0).random(BLOCK, dtype=np.float32) + 0.01, (BLOCK, 1))
    power[:empty_rows] = -32768
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype="float32",
        crs="EPSG:32632",
        transform=from_origin(500_000, 5_000_000, 10, 10),
        nodata=-32768,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="deflate",
        zlevel=1,
        sparse_ok=True,
    ) as sink:
        for row in range(-(-height // BLOCK)):
            for column in range(-(-width // BLOCK)):
                if has_data(row, column):
                    whole = Window(column * BLOCK, row * BLOCK, BLOCK, BLOCK)
                    window = whole.intersection(Window(0, 0, width, height))
                    sink.write(power[: window.height, : window.width], 1, window=window)


def write_scene(folder: Path, height: int, width: int) -> Path:
    folder.mkdir()
    for name, empty_rows in (("vv", 16), ("vh", 32)):
        write_band(folder / f"{name}.tif", height, width, empty_rows)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": folder.name,
        "geometry": {"type": "Point", "coordinates": [9.0, 45.0]},
        "bbox": [9.0, 45.0, 9.0, 45.0],
        "properties": {
            "datetime": "2020-01-02T05:20:43Z",
            "proj:epsg": 32632,
            "proj:shape": [height, width],
            "proj:transform": [10, 0, 500_000, 0, -10, 5_000_000],
        },
        "links": [],
        "assets": {name: {"href": str(folder / f"{name}.tif")} for name in ("vv", "vh")},
    }
    (folder / "item.json").write_text(json.dumps(item))
    return folder / "item.json"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory and bytes read are told by /proc")
def test_a_whole_sentinel_1_scene(tmp_path: Path) -> None:
    small, large = write_scene(tmp_path / "small", 600, 600), write_scene(tmp_path / "large", HEIGHT, WIDTH)
    done = subprocess.run(
        [sys.executable, "-c", INDEX, str(small), str(large)], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print(f"peak {seen['peak'] / GIB:.2f} GiB, {seen['peak_before'] / GIB:.2f} before; {seen['seconds']:.1f} s")
    assert seen["peak"] < GIB
    size = sum((tmp_path / "large" / f"{name}.tif").stat().st_size for name in ("vv", "vh"))
    assert 0.9 * size < seen["read"] < 1.1 * size  # with headers, without the partial edge

    y, x = np.nonzero([[has_data(row // 2, column // 2) for column in range(COLUMNS)] for row in range(ROWS)])
    assert seen["counts"]["clay:chips_in_grid"] == str(ROWS * COLUMNS)
    assert seen["counts"]["clay:chips_above_nodata_limit"] == str(ROWS * COLUMNS - len(x))
    assert seen["chips"] == [x.tolist(), y.tolist()]
    np.testing.assert_array_equal(seen["nodata"], np.where(y % 2, 0, 32 / CHIP))
