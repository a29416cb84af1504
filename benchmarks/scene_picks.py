"""How fast scenes are picked from a snapshot, beside a bare read of the same file.

    python benchmarks/scene_picks.py [--items 100000] [--requests 5000]

Makes a snapshot of synthetic Sentinel-2 items over random tiles in 2020, asks one year's requests of it in one
pass, and prints the seconds of that, of reading the same columns with pyarrow alone, and of both ends of the
process (requests that were given a scene, items picked). One run; figures depend on the machine.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from clay_assets.catalogues.opening import open_catalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import requests_of
from clay_assets.storage.stac_geoparquet import encode_items

PLATFORM = PLATFORMS["sentinel-2-l2a"]
COLUMNS = ["id", "geometry", "bbox", "datetime", "collection", "eo:cloud_cover", "grid:code", "assets"]
ROW_GROUP = 10_000


def tiles(count: int, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Places of one degree with names like those of MGRS tiles."""
    letters = "CDEFGHJKLMNPQRSTUVWX"
    square = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    numbers = np.arange(count)
    names = [
        f"{1 + n % 60:02}{letters[n // 60 % 20]}{square[n // 1200 % 24]}{'ABCDEFGHJKLMNPQRSTUV'[n // 28800 % 20]}"
        for n in numbers
    ]
    west, south = rng.uniform(-179, 178, count), rng.uniform(-60, 60, count)
    return gpd.GeoDataFrame({"name": names}, geometry=shapely.box(west, south, west + 1, south + 1), crs="EPSG:4326")


def write_snapshot(path: Path, places: gpd.GeoDataFrame, count: int, rng: np.random.Generator) -> None:
    """`count` items, each over one of the places at some time in 2020."""
    table = pq.read_table(pa.BufferReader(encode_items([_item()], {})))
    table = table.take(pa.array(np.zeros(count, np.int64)))
    where = rng.integers(0, len(places), count)
    moments = np.datetime64("2020-01-01", "us") + rng.integers(0, 366 * 86_400, count).astype("timedelta64[s]")
    order = np.argsort(moments)
    where, moments = where[order], moments[order]
    bounds = places.bounds.to_numpy()[where]
    sides = ("xmin", "ymin", "xmax", "ymax")
    columns: dict[str, Any] = {
        "id": pa.array([f"item-{number}" for number in range(count)]),
        "geometry": pa.array(shapely.to_wkb(places.geometry.to_numpy()[where])),
        "bbox": pa.StructArray.from_arrays([pa.array(bounds[:, n]) for n in range(4)], names=list(sides)),
        "datetime": pa.array(moments).cast(pa.timestamp("us", "UTC")),
        "eo:cloud_cover": pa.array(rng.uniform(0, 100, count)),
        "s2:nodata_pixel_percentage": pa.array(rng.uniform(0, 40, count)),
        "grid:code": pa.array(np.array([f"MGRS-{name}" for name in places["name"]], dtype=object)[where]),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


def _item() -> dict[str, Any]:
    properties = {
        "datetime": "2020-01-01T00:00:00Z",
        "eo:cloud_cover": 1.0,
        "s2:nodata_pixel_percentage": 1.0,
        "grid:code": "MGRS-32NLG",
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": "x",
        "collection": PLATFORM.scenes.collection,
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]},
        "bbox": [0, 0, 1, 1],
        "properties": properties,
        "links": [],
        "assets": {name: {"href": f"https://example.com/{name}.tif"} for name in PLATFORM.asset_names},
    }


def main() -> None:
    """Make, pick, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=5_000)
    wanted = parser.parse_args()
    rng = np.random.default_rng(0)
    places = tiles(wanted.requests // 4, rng)
    options = PLATFORM.rules.options(years=(2020, 2020), years_per_location=1)
    requests = requests_of(PLATFORM.rules.requests(places, options, 42), 2020)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        write_snapshot(path, places, wanted.items, rng)
        size = path.stat().st_size
        started = time.perf_counter()
        picks = pick_scenes(PLATFORM, 2020, requests, open_catalogue(str(path), 8), options)
        picking = time.perf_counter() - started
        started = time.perf_counter()
        pq.read_table(path, columns=COLUMNS)
        bare = time.perf_counter() - started
        started = time.perf_counter()
        encode_items(picks.items, {})
        writing = time.perf_counter() - started
    picked = int((picks.ledger["outcome"] == "picked").sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{wanted.items:,} items ({size / 1e6:.1f} MB), {len(requests):,} requests, {picked:,} given a scene")
    print(f"picking            {picking:7.2f} s   {len(requests) / picking:,.0f} requests/s")
    print(f"bare pyarrow read  {bare:7.2f} s   picking takes {picking / bare:.1f} times as long")
    print(f"writing the picks  {writing:7.2f} s   {len(picks.items):,} items")
    print(f"peak memory        {peak:7.0f} MB")


if __name__ == "__main__":
    main()
