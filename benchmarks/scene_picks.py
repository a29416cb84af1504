"""How fast scenes are picked: from a snapshot, compared with a bare read, and from an API, compared with its limit.

    python benchmarks/scene_picks.py [--items 100000] [--requests 5000] [--no-api] [--large 5000000]

Makes a snapshot of synthetic Sentinel-2 items over random tiles in 2020, and picks one year's requests from it: by the
platform's rules over columns, item by item, and with bare pyarrow reading only the columns needed; alternating, best of
three, and once more in separate processes for peak memory. Then from `stac_server`, with and without quarters that
share a search; the floor is the number of searches divided by the rate limit, the peer pystac-client, which makes some
of the requests one after another.

With `--large` it makes a snapshot of that many items instead, picks from it once in a separate process, and prints
seconds and peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from harness import Row, table, took
from numpy.typing import NDArray
from pystac_client import Client

from clay_assets.catalogues.opening import open_catalogue
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.scenes.picks import pick_scenes
from clay_assets.scenes.requests import requests_of
from clay_assets.storage.stac_geoparquet import encode_items

PLATFORM = PLATFORMS["sentinel-2-l2a"]
ITEM_BY_ITEM = replace(PLATFORM, rules=replace(PLATFORM.rules, columns=None))
OPTIONS = PLATFORM.rules.options(years=(2020, 2020), years_per_location=1)
COLUMNS = ["id", "geometry", "bbox", "datetime", "collection", "eo:cloud_cover", "grid:code", "assets"]
ROW_GROUP = 10_000
REPEATS = 3
LATENCY, LIMIT, IN_FLIGHT = 0.2, 40, 12  # of the API: seconds, searches per second, concurrent searches
API_TILES = 300
PEER_REQUESTS = 20  # requests made with pystac-client, spread evenly over all
GOALS = {"columns": 10_000, "item by item": 2_500}  # requests per second


def tiles(count: int, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """One-degree squares named like MGRS tiles."""
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
    """Write `count` items ordered by time, each over one of the places in 2020, one row group at a time."""
    one = pq.read_table(pa.BufferReader(encode_items([_item()], {})))
    moments = np.sort(rng.integers(0, 366 * 86_400, count)).astype("timedelta64[s]") + np.datetime64("2020-01-01", "us")
    with pq.ParquetWriter(path, one.schema, compression="zstd") as writer:
        for start in range(0, count, ROW_GROUP):
            writer.write_table(_rows_of(one, places, start, moments[start : start + ROW_GROUP], rng))


def _rows_of(
    table: pa.Table, places: gpd.GeoDataFrame, start: int, moments: NDArray[Any], rng: np.random.Generator
) -> pa.Table:
    count = len(moments)
    table = table.take(pa.array(np.zeros(count, np.int64)))
    where = rng.integers(0, len(places), count)
    bounds = places.bounds.to_numpy()[where]
    sides = ("xmin", "ymin", "xmax", "ymax")
    columns: dict[str, Any] = {
        "id": pa.array([f"item-{number}" for number in range(start, start + count)]),
        "geometry": pa.array(shapely.to_wkb(places.geometry.to_numpy()[where])),
        "bbox": pa.StructArray.from_arrays([pa.array(bounds[:, n]) for n in range(4)], names=list(sides)),
        "datetime": pa.array(moments).cast(pa.timestamp("us", "UTC")),
        "eo:cloud_cover": pa.array(rng.uniform(0, 100, count)),
        "s2:nodata_pixel_percentage": pa.array(rng.uniform(0, 40, count)),
        "grid:code": pa.array(np.array([f"MGRS-{name}" for name in places["name"]], dtype=object)[where]),
    }
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), values.cast(table.schema.field(at).type))
    return table


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
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "properties": properties,
        "links": [],
        "assets": {name: {"href": f"https://example.com/{name}.tif"} for name in PLATFORM.asset_names},
    }


def asked(count: int) -> tuple[gpd.GeoDataFrame, list[Request]]:
    """A number of requests, and their places."""
    places = tiles(count // 4, np.random.default_rng(0))
    return places, requests_of(PLATFORM.rules.requests(places, OPTIONS, 42), 2020)


def seconds(work: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def pick(platform: AnyPlatform, location: str, requests: list[Request]) -> None:
    """Pick for all requests; fails if most get nothing."""
    picks = pick_scenes(platform, 2020, requests, open_catalogue(location, IN_FLIGHT), OPTIONS)
    if (picks.ledger["outcome"] == "picked").mean() < 0.9:
        raise SystemExit(f"only {len(picks.items)} scenes for {len(requests)} requests")


def peak_of(which: str, path: Path, requests: int) -> int:
    """Peak memory in bytes of a process that picks once."""
    call = [sys.executable, __file__, "--once", which, "--path", str(path), "--requests", str(requests)]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def large(items: int, requests: int) -> None:
    """Picks from a snapshot larger than the memory limit."""
    places, _ = asked(requests)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        write_snapshot(path, places, items, np.random.default_rng(1))
        size = path.stat().st_size
        lasted = seconds(lambda: print(f"peak {peak_of('columns', path, requests) / 2**20:,.0f} MiB"))
    print(f"{requests:,} requests on {items:,} items of {size / 2**20:,.0f} MiB: {lasted:.0f} s with the imports")


def rows(_: Path | None = None, items: int = 100_000, requests: int = 5_000, *, api: bool = True) -> Iterator[Row]:
    """The rows of this stage."""
    places, searches = asked(requests)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        write_snapshot(path, places, items, np.random.default_rng(1))
        bare = lambda: pq.read_table(path, columns=COLUMNS)  # noqa: E731
        ways = {
            "columns": lambda: pick(PLATFORM, str(path), searches),
            "item by item": lambda: pick(ITEM_BY_ITEM, str(path), searches),
        }
        best = {name: float("inf") for name in ("bare", *ways)}
        for _ in range(REPEATS):
            for name, work in {"bare": bare, **ways}.items():
                best[name] = min(best[name], seconds(work))
        for name in ways:
            note = f"{requests:,} requests on {items:,} items (goal >= {GOALS[name]:,} a second)"
            ours = took(best[name], peak=peak_of(name, path, requests), count=requests)
            floor = "bare read", took(best["bare"], count=requests)
            yield Row(f"picks from a snapshot, {name}", "requests", ours, floor=floor, note=note)
    if api:
        yield from api_rows()


def api_rows() -> Iterator[Row]:
    """Separate searches, and quarters that share one search."""
    places = tiles(API_TILES * 2, np.random.default_rng(0))
    places = places[~places["name"].str.startswith("0")]  # the others have two spellings, so two searches
    for name, quarters in (("one search each", (1, 3)), ("the quarters of a tile", (1, 2, 3, 4))):
        options = PLATFORM.rules.options(years=(2020, 2020), years_per_location=1, quarters=quarters)
        searches = requests_of(PLATFORM.rules.requests(places, options, 42), 2020)
        with server() as url:
            ours = seconds(lambda url=url, searches=searches: pick(PLATFORM, url, searches))
            made, refused, lasted = json.load(urllib.request.urlopen(f"{url}/counts"))
            some = searches[:: len(searches) // PEER_REQUESTS]
            theirs = seconds(lambda url=url, some=some: one_after_another(url, some))
        rate = (made - 1) / lasted
        note = f"{len(searches)} requests by {made} searches, {rate:.1f} of {LIMIT} a second, {refused} refused"
        count = len(searches)
        floor = "the limit", took(made / LIMIT, count=count)
        peer = "pystac-client", took(theirs, count=len(some))
        yield Row(
            f"picks from an API, {name}", "requests", took(ours, count=count), peer, floor, of_floor=1.05, note=note
        )


def one_after_another(url: str, requests: list[Request]) -> None:
    """All items of each request, with plain pystac-client."""
    client = Client.open(url)
    for request in requests:
        for wanted in request.filters:
            found = client.search(
                collections=[PLATFORM.scenes.collection],
                datetime=(request.start, request.end - timedelta(microseconds=1)),
                intersects=shapely.geometry.mapping(request.geometry),
                query={name: {"eq": value} for name, value in wanted.items()},
                limit=100,
            )
            if not list(found.items_as_dicts()):
                raise SystemExit(f"nothing for {request.id}")


class server:  # noqa: N801
    """The address of a `stac_server` in a separate process."""

    def __enter__(self) -> str:
        call = [sys.executable, str(Path(__file__).with_name("stac_server.py")), "--latency", str(LATENCY)]
        self.process = subprocess.Popen([*call, "--limit", str(LIMIT)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--no-api", action="store_true")
    parser.add_argument("--large", type=int, metavar="ITEMS", help="a snapshot of so many items, once, nothing else")
    parser.add_argument("--once", choices=("columns", "item by item"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.once:
        pick(PLATFORM if wanted.once == "columns" else ITEM_BY_ITEM, wanted.path, asked(wanted.requests)[1])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    if wanted.large:
        large(wanted.large, wanted.requests)
        return
    print(table(list(rows(None, wanted.items, wanted.requests, api=not wanted.no_api))))


if __name__ == "__main__":
    main()
