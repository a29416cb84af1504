"""How fast chips are read, compared with stacchip, plain rasterio windows, and only fetching and decoding their blocks.

Run as `python benchmarks/read_chips.py [--folder FOLDER]`; FOLDER keeps the synthetic scene for the next run.

A synthetic scene has Sentinel-2's real size: ten bands uint16, deflate with predictor 2, blocks of 1024 pixels at 10 m
and of 512 at 20 m. 50 scenes are hard links to its files. From S3 they are read through a proxy that adds 50 ms latency
and maps all scenes to one; its log lists the requests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from harness import Figures, Row, alternate, child, peer, program, row, table
from slow_s3 import BUCKET, DELAY, remote

PLATFORM, YEAR, SCENES = "sentinel-2-l2a", 2021, 50
FINE, COARSE = ("blue", "green", "red", "nir"), ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")
BANDS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
CHIP, SIDE = 256, 10980
BATCH, IN_FLIGHT = 128, 16
STACCHIP = """
import json, resource, sys, time, warnings
from concurrent.futures import ThreadPoolExecutor
warnings.simplefilter("ignore")
import pystac
from stacchip.chipper import Chipper
from stacchip.indexer import NoStatsChipIndexer
plan = json.load(sys.stdin)
chippers = {}
for document in plan["items"]:
    indexer = NoStatsChipIndexer(pystac.Item.from_dict(document, migrate=False))
    chippers[document["id"]] = Chipper(indexer, assets=plan["bands"])
start, cpu = time.perf_counter(), time.process_time()
with ThreadPoolExecutor(plan["threads"]) as pool:
    for _ in pool.map(lambda chip: chippers[chip[0]].chip(chip[1], chip[2]), plan["chips"]):
        pass
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak, "count": len(plan["chips"])}))
"""


@dataclass(frozen=True)
class Plan:
    """The chips that a run reads: by index in the selection, and by scene, column and row."""

    storage: str
    places: list[int]
    chips: list[tuple[str, int, int]]
    threads: int
    items: list[dict[str, Any]]
    bands: tuple[str, ...] = BANDS

    @property
    def hrefs(self) -> dict[str, dict[str, str]]:
        """Scene → band → address."""
        return {item["id"]: {band: item["assets"][band]["href"] for band in BANDS} for item in self.items}


# --- the runs -------------------------------------------------------------------------------------


def ours(plan: dict[str, Any], checksums: bool = True) -> Callable[[], int]:
    """With `Chipper.batch`; the time includes opening the storage."""
    import imagecodecs
    import isal  # noqa: F401  imports are not counted
    import obstore  # noqa: F401

    from clay_assets.training.chipper import Chipper
    from clay_assets.training.selection import open_chips

    assert imagecodecs.DEFLATE.available
    places, threads = plan["places"], plan["threads"]

    def work() -> int:
        chips = open_chips(plan["storage"], PLATFORM)
        chipper = Chipper(chips, threads=threads, in_flight=IN_FLIGHT, checksums=checksums)
        for first in range(0, len(places), BATCH):
            batch = chipper.batch(places[first : first + BATCH])
        assert batch.pixels.shape[1:] == (len(BANDS), CHIP, CHIP)
        return len(places)

    return work


def without_checksums(plan: dict[str, Any]) -> Callable[[], int]:
    """The same, but each block is only decoded down to the last row needed."""
    return ours(plan, checksums=False)


def rasterio_windows(plan: dict[str, Any]) -> Callable[[], int]:
    """A window of each band, opening the file each time."""
    import rasterio
    from rasterio.windows import Window

    hrefs = Plan(**plan).hrefs

    def chip(wanted: tuple[str, int, int]) -> None:
        scene, x, y = wanted
        pixels = np.empty((len(BANDS), CHIP, CHIP), np.uint16)
        for place, band in enumerate(BANDS):
            side = CHIP if band in FINE else CHIP // 2
            with rasterio.open(hrefs[scene][band]) as source:
                source.read(1, window=Window(x * side, y * side, side, side), out=pixels[place])

    def work() -> int:
        with rasterio.Env(), ThreadPoolExecutor(plan["threads"]) as pool:
            return len(list(pool.map(chip, plan["chips"])))

    return work


def blocks_once(plan: dict[str, Any]) -> Callable[[], int]:
    """Fetch and decode the blocks that the chips touch, each once, and discard them."""
    import imagecodecs

    from clay_assets.sources.cog.decoding import decode

    assert imagecodecs.DEFLATE.available
    ranges = _ranges(Plan(**plan))
    is_remote = plan["storage"].endswith("remote")
    fetch = _from_s3() if is_remote else _from_disk

    def work() -> int:
        with ThreadPoolExecutor(plan["threads"]) as decoders, ThreadPoolExecutor(IN_FLIGHT) as fetchers:
            if is_remote:
                waiting = fetchers.map(lambda each: decoders.submit(decode, each[1], fetch(*each)), ranges)
                for future in waiting:
                    future.result()
            else:
                list(decoders.map(lambda each: decode(each[1], fetch(*each)), ranges))
        return len(plan["chips"])

    return work


def _ranges(plan: Plan) -> list[tuple[str, Any, int, int]]:
    """Address, header, offset and size of each block, in the order in which chips first need them."""
    from rasterio.windows import Window

    from clay_assets.sources.cog.reader import ranges_of
    from clay_assets.storage.stores import open_store
    from clay_assets.training.scene_files import stored_scene_files

    store = open_store(plan.storage)
    files = {scene: stored_scene_files(store, PLATFORM, YEAR, scene) for scene in {chip[0] for chip in plan.chips}}
    found = {}
    for scene, x, y in plan.chips:
        for band in BANDS:
            href, header = files[scene].hrefs[band], files[scene].headers[band]
            side = CHIP * header.width // SIDE
            for offset, size in ranges_of(header, Window(x * side, y * side, side, side)):
                found[href, offset] = href, header, offset, size
    return list(found.values())


def _from_disk(href: str, _: Any, offset: int, size: int) -> bytes:
    with Path(href).open("rb", buffering=0) as file:
        return os.pread(file.fileno(), size, offset)


def _from_s3() -> Callable[..., Any]:
    import obstore
    from obstore.store import S3Store

    endpoint, options = os.environ["AWS_ENDPOINT_URL"], {"allow_http": True}
    store = S3Store(BUCKET, endpoint=endpoint, region="us-east-1", skip_signature=True, client_options=options)

    def fetch(href: str, _: Any, offset: int, size: int) -> Any:
        return obstore.get_range(store, href.removeprefix(f"s3://{BUCKET}/"), start=offset, length=size)

    return fetch


# --- what is read ---------------------------------------------------------------------------------


def make_scene(folder: Path) -> None:
    """The bands of one scene, and its scene classification."""
    import rasterio
    from rasterio.transform import from_origin
    from read_blocks import write_band

    done = folder / "done"
    if done.exists():
        return
    (folder / "bands").mkdir(parents=True, exist_ok=True)
    for seed, band in enumerate(BANDS):
        layout = (SIDE, 1024, 10) if band in FINE else (SIDE // 2, 512, 20)
        write_band(folder / "bands" / f"{band}.tif", *layout, seed=seed)
    profile = {"width": SIDE // 2, "height": SIDE // 2, "count": 1, "dtype": "uint8", "crs": "EPSG:32632"}
    layout_of_scl = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE"}
    grid = from_origin(499_980, 5_000_040, 20, 20)
    with rasterio.open(folder / "bands" / "scl.tif", "w", transform=grid, **profile, **layout_of_scl) as sink:
        sink.write(np.full((SIDE // 2, SIDE // 2), 4, np.uint8), 1)
    done.touch()


def item_of(number: int, address: str) -> dict[str, Any]:
    """The item of a scene, for us and for stacchip."""
    hrefs = {band: f"{address}/scene-{number:02d}/{band}.tif" for band in (*BANDS, "scl")}
    grid = {"proj:shape": [SIDE, SIDE], "proj:transform": [10, 0, 499_980, 0, -10, 5_000_040]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "id": f"scene-{number:02d}",
        "geometry": {"type": "Point", "coordinates": [9.7, 44.6]},
        "bbox": [9.0, 44.1, 10.4, 45.2],
        "properties": {"datetime": f"{YEAR}-06-15T10:00:00Z", "proj:epsg": 32632, **grid},
        "links": [],
        "assets": {name: {"href": href} for name, href in hrefs.items()},
    }


def make_storage(root: Path, items: Sequence[dict[str, Any]]) -> None:
    """A merged index and headers of all scenes, copied from the first, since all have the same pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import pystac

    from clay_assets.chips.index import MERGED_SCHEMA, index_scene
    from clay_assets.chips.manifest import Part, manifest_of
    from clay_assets.platforms import platform_of
    from clay_assets.recipes import load_recipe
    from clay_assets.storage import layout
    from clay_assets.storage.geoparquet import encode_arrow
    from clay_assets.storage.stores import open_store
    from clay_assets.training.scene_files import read_scene_files, to_table

    store, platform = open_store(root), platform_of(PLATFORM)
    files = read_scene_files(platform, platform.read_item(items[0]))
    index = index_scene(pystac.Item.from_dict(items[0]), PLATFORM)
    tables = []
    for item in items:
        hrefs = {name: item["assets"][name]["href"] for name in files.hrefs}
        own = to_table(replace(files, item_id=item["id"], hrefs=hrefs))
        store.write(layout.headers(PLATFORM, YEAR, item["id"]), encode_arrow(own, {}))
        count, names = index.num_rows, {"item_id": item["id"], "year": YEAR, "split": "train"}
        x, y = (index[name].to_pylist() for name in ("chip_index_x", "chip_index_y"))
        columns = {
            **{name: index[name].combine_chunks() for name in index.schema.names},
            **{name: [value] * count for name, value in names.items()},
            **{name: [None] * count for name in ("landcover", "landcover_class")},
            "chipid": [f"{item['id']}-{column}-{row}" for column, row in zip(x, y, strict=True)],
        }
        arrays = [pa.array(columns[field.name], field.type) for field in MERGED_SCHEMA]
        tables.append(pa.Table.from_arrays(arrays, schema=MERGED_SCHEMA))
    key = layout.merged_part(PLATFORM, YEAR)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(tables), sink, row_group_size=100_000)
    data = sink.getvalue().to_pybytes()
    store.write(key, data)
    rows = sum(table.num_rows for table in tables)
    below = key.removeprefix(layout.MERGED + "/")
    part = Part(PLATFORM, YEAR, below, rows, len(items), len(data), "made", "made")
    store.write(layout.MANIFEST, manifest_of([part], load_recipe()))


# --- figures --------------------------------------------------------------------------------------


def plan_of(storage: Path, items: list[dict[str, Any]], places: Sequence[int], threads: int) -> dict[str, Any]:
    """The chips at some indices of the selection."""
    from clay_assets.training.selection import open_chips

    rows = open_chips(storage, PLATFORM).rows(places, ["item_id", "chip_index_x", "chip_index_y"])
    chips = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return asdict(Plan(str(storage), list(places), chips, threads, items))


def stacchip(plan: dict[str, Any], env: dict[str, str] | None = None) -> Callable[[], Figures] | None:
    """The chips with stacchip's own `Chipper`."""
    python = peer("stacchip")
    return program([python, "-I", "-c", STACCHIP], json.dumps(plan), env=env) if python else None


def report_requests(log: Path, plan: Plan, before: int) -> None:
    """The requests of one run of ours that the proxy logged, compared with the blocks that the chips touch."""
    seen = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    ranges = _ranges(plan)
    inside = {(href.removeprefix("s3://"), offset) for href, _, offset, _ in ranges}
    asked = [(each["path"].lstrip("/"), re.fullmatch(r"bytes=(\d+)-\d+", each["range"] or "")) for each in seen]
    of_blocks = sum(found is not None and (path, int(found[1])) in inside for path, found in asked)
    touched, fetched = sum(size for *_, size in ranges), sum(each["bytes"] for each in seen)
    print(
        f"files never opened by this process, by the log of the proxy: {len(seen)} requests, of which GET "
        f"{sum(each['method'] == 'GET' for each in seen)}; {len(seen) - of_blocks} of them not of blocks (goal 0); "
        f"{fetched / 1e6:.1f} MB, {fetched / touched:.4f} of the blocks touched (goal <= 1.05)",
        file=sys.stderr,
    )


def rows(folder: Path, threads: int = 1, chips: int = 160, remote_chips: int = 128, repeats: int = 2) -> Iterator[Row]:
    """Chips of a scene, shuffled chips of 50 scenes, and the same from S3."""
    make_scene(folder)
    scenes = folder / "scenes"
    items = [item_of(number, str(scenes)) for number in range(SCENES)]
    for item in items:
        (scenes / item["id"]).mkdir(parents=True, exist_ok=True)
        for name in (*BANDS, "scl"):
            with contextlib.suppress(FileExistsError):
                (scenes / item["id"] / f"{name}.tif").hardlink_to(folder / "bands" / f"{name}.tif")
    make_storage(folder / "local", items)
    of_scene = (SIDE // CHIP) ** 2
    shuffled = np.random.default_rng(0).permutation(SCENES * of_scene).tolist()

    def local(places: Sequence[int]) -> dict[str, Any]:
        return plan_of(folder / "local", items, places, threads)

    whole = local(range(of_scene))
    runs = {
        "ours": child(ours, whole),
        "blocks once": child(blocks_once, whole),
        "stacchip": stacchip(local(range(40))),
    }
    goals: dict[str, Any] = {"peer": "stacchip", "of_peer": 20.0, "floor": "blocks once", "of_floor": 1.3}
    yield row("chips of a scene", "chips", alternate(runs, repeats), **goals)

    some, few = local(shuffled[:chips]), local(shuffled[:40])
    runs = {
        **{"ours": child(ours, some), "without checksums": child(without_checksums, some)},
        **{"blocks once": child(blocks_once, some), "rasterio": child(rasterio_windows, few)},
        "stacchip": stacchip(few),
    }
    found = alternate(runs, repeats)
    yield row("shuffled chips", "chips", found, peer="stacchip", of_peer=10.0, floor="blocks once")
    yield row("shuffled chips", "chips", found, peer="rasterio", of_peer=3.0)
    title = "shuffled chips, no checksums"
    yield row(title, "chips", found, ours="without checksums", peer="rasterio", of_peer=3.0, floor="blocks once")

    with remote(folder / "bands", folder) as (env, log):
        items = [item_of(number, f"s3://{BUCKET}") for number in range(SCENES)]
        make_storage(folder / "remote", items)
        some, few = (
            plan_of(folder / "remote", items, places, threads) for places in (shuffled[:remote_chips], shuffled[:6])
        )
        before = len(log.read_text().splitlines())
        child(ours, some, env=env)()
        report_requests(log, Plan(**some), before)
        runs = {
            **{"ours": child(ours, some, env=env), "without checksums": child(without_checksums, some, env=env)},
            **{"fetching and decoding": child(blocks_once, some, env=env), "stacchip": stacchip(few, env)},
        }
        found = alternate(runs, repeats)
        goals = {"peer": "stacchip", "of_peer": 20.0, "floor": "fetching and decoding", "of_floor": 1.25}
        title = f"shuffled chips, S3 behind {DELAY * 1000:.0f} ms"
        yield row(title, "chips", found, **goals)
        yield row(f"{title}, no checksums", "chips", found, ours="without checksums", **goals)


def main() -> None:
    """Make the inputs and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="keeps the made scene, 0.8 GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--chips", type=int, default=160)
    parser.add_argument("--remote-chips", type=int, default=128)
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        print(table(list(rows(folder, options.threads, options.chips, options.remote_chips, options.repeats))))


if __name__ == "__main__":
    main()
