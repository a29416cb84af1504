"""How fast a training loop gets its batches, compared with fetching and decoding the same blocks, and start-up cost.

Run as `python benchmarks/training.py [--folder FOLDER]`, after `make bench-setup`, which makes an environment with
PyTorch; FOLDER keeps the synthetic scenes for the next run.

Each of the seven platforms has a synthetic scene with the blocks, compression and texture of real ones, served under 24
names by an S3 server with 50 ms latency. An epoch mixes all platforms equally and shuffles by scenes. The floor fetches
and decodes the blocks of the same chips, each once, with as many threads and concurrent requests. Start-up is measured
for an index of 72,069,364 chips, of which only the manifest is made, as nothing else is read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from harness import Figures, Row, alternate, child, peer, row, table
from slow_s3 import BUCKET, DELAY, remote

YEAR, SCENES, SIDE, CHIP = 2021, 24, 2560, 256
BATCH, IN_FLIGHT, SEED = 128, 16, 1
WHOLE, GROUP_ROWS, PARTS = 72_069_364, 16_384, 59  # chips, rows per row group and parts of the published index
# Platform → dtype of its bands, bands of a file, size of a pixel in metres, side of its blocks, and its compression.
KINDS: dict[str, tuple[str, int, float, int, dict[str, Any]]] = {
    "sentinel-2-l2a": ("uint16", 1, 10, 1024, {"compress": "deflate", "predictor": 2}),
    "landsat-c2l1": ("uint16", 1, 30, 256, {"compress": "deflate", "predictor": 2}),
    "landsat-c2l2-sr": ("uint16", 1, 30, 256, {"compress": "deflate", "predictor": 2}),
    "sentinel-1-rtc": ("float32", 1, 10, 512, {"compress": "deflate", "predictor": 3}),
    "naip": ("uint8", 4, 0.6, 512, {"compress": "deflate", "interleave": "pixel"}),
    "linz": ("uint8", 3, 0.3, 512, {"compress": "deflate", "predictor": 2, "interleave": "pixel"}),
    "modis": ("int16", 1, 500, 512, {"compress": "deflate", "predictor": 2}),
}
COARSE = ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")  # Sentinel-2's bands of 20 m


# --- the runs -------------------------------------------------------------------------------------


def batches(plan: dict[str, Any]) -> Callable[[], tuple[int, dict[str, Any]]]:
    """The last batches of an epoch from a `ChipLoader` with single-threaded workers, including their start."""
    import torch

    from clay_assets.training import ChipLoader, ChipStream, open_chips

    torch.set_num_threads(1)
    chips = open_chips(plan["storage"])
    stream = ChipStream(chips, BATCH, SEED, platforms="equal", drop_last=True, masks=False, in_flight=IN_FLIGHT)
    loader = ChipLoader(stream, num_workers=plan["workers"], multiprocessing_context="fork")
    loader.load_state_dict(stream.order.state(_begin(stream.order, plan["batches"])))

    def work() -> tuple[int, dict[str, Any]]:
        count = 0
        for batch in loader:
            assert batch["pixels"].shape[2:] == (CHIP, CHIP)
            count += len(batch["platform"])
        return count, {}

    return work


def _begin(order: Any, count: int) -> Any:
    """The position of the last batches of an epoch."""
    from clay_assets.training.order import Position

    return Position(0, order.samples - count * BATCH)


def blocks(plan: dict[str, Any]) -> Callable[[], int]:
    """Fetch and decode the blocks of the same chips, each once, and discard them."""
    import imagecodecs
    import obstore
    from obstore.store import S3Store

    from clay_assets.sources.cog.decoding import decode

    assert imagecodecs.DEFLATE.available
    chips, ranges = _ranges(plan)
    options = {"allow_http": True}
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    store = S3Store(BUCKET, endpoint=endpoint, region="us-east-1", skip_signature=True, client_options=options)

    def fetch(href: str, _: Any, offset: int, size: int) -> Any:
        return obstore.get_range(store, href.removeprefix(f"s3://{BUCKET}/"), start=offset, length=size)

    def work() -> int:
        workers = plan["workers"]
        with ThreadPoolExecutor(workers) as decoders, ThreadPoolExecutor(IN_FLIGHT * workers) as fetchers:
            waiting = fetchers.map(lambda each: decoders.submit(decode, each[1], fetch(*each)), ranges)
            for future in waiting:
                future.result()
        return chips

    return work


def _ranges(plan: dict[str, Any]) -> tuple[int, list[tuple[str, Any, int, int]]]:
    """The number of chips in the batches, and address, header, offset and size of their blocks, batch by batch."""
    from rasterio.windows import Window

    from clay_assets.platforms import platform_of
    from clay_assets.sources.cog.reader import ranges_of
    from clay_assets.storage.stores import open_store
    from clay_assets.training.order import Order
    from clay_assets.training.scene_files import stored_scene_files
    from clay_assets.training.selection import COLUMNS, open_chips

    store, chips = open_store(plan["storage"]), open_chips(plan["storage"])
    own = {key: chips.of_platform(key) for key in KINDS}
    order = Order(chips.hash, {key: len(one) for key, one in own.items()}, SEED, BATCH, "equal", drop_last=True)
    files: dict[tuple[str, str], Any] = {}
    found: dict[tuple[str, int], tuple[str, Any, int, int]] = {}
    count = 0
    for batch in order.shared(_begin(order, plan["batches"])):
        key = order.platform_of(batch)
        rows = own[key].rows(own[key].in_scenes(order.places(batch)), COLUMNS)
        count += rows.num_rows
        for scene, x, y in zip(*(rows[name].to_pylist() for name in COLUMNS[2:5]), strict=True):
            if (key, scene) not in files:
                files[key, scene] = stored_scene_files(store, key, YEAR, scene)
            for name in platform_of(key).assets.bands:
                href, header = files[key, scene].hrefs[name], files[key, scene].headers[name]
                side = CHIP * header.width // SIDE
                for offset, size in ranges_of(header, Window(x * side, y * side, side, side)):
                    found[href, offset] = href, header, offset, size
    return count, list(found.values())


def start(plan: dict[str, Any]) -> Callable[[], tuple[int, dict[str, Any]]]:
    """Select the chips of a split in the full index, make a stream, and pickle it as for a worker."""
    import pickle

    from clay_assets.training import ChipStream, open_chips

    def work() -> tuple[int, dict[str, Any]]:
        stream = ChipStream(open_chips(plan["storage"], split="train"), BATCH)
        return 1, {"bytes": len(pickle.dumps(stream)), "chips": stream.order.samples}

    return work


# --- what is read ---------------------------------------------------------------------------------


def make_files(folder: Path) -> None:
    """The files of a scene of each platform, `{platform}.{asset}.tif`."""
    import rasterio
    from rasterio.transform import from_origin

    from clay_assets.platforms import platform_of

    if (folder / "done").exists():
        return
    (folder / "files").mkdir(parents=True)
    for seed, (key, (dtype, bands, metres, block, compression)) in enumerate(KINDS.items()):
        platform = platform_of(key)
        for number, name in enumerate(platform.asset_names):
            path = folder / "files" / f"{key}.{name}.tif"
            twin = folder / "files" / f"landsat-c2l1.{name}.tif"
            if key == "landsat-c2l2-sr":
                path.hardlink_to(twin)
                continue
            quality = name not in platform.assets.bands
            factor = 2 if name in (*COARSE, "scl") and key == "sentinel-2-l2a" else 1
            side, depth = SIDE // factor, 1 if quality else bands
            pixels = (
                np.full((1, side, side), 1 << 6, np.uint16)
                if quality
                else _textured(depth, side, dtype, np.random.default_rng([seed, number]))
            )
            options = {"blockxsize": block // factor, "blockysize": block // factor, "tiled": True, **compression}
            grid = from_origin(499_980, 5_000_040, metres * factor, metres * factor)
            profile = {"driver": "GTiff", "width": side, "height": side, "count": depth, "dtype": pixels.dtype.name}
            with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=grid, **options) as sink:
                sink.write(pixels)
    (folder / "done").touch()


def _textured(bands: int, side: int, dtype: str, draw: np.random.Generator) -> np.ndarray:
    """Pixels that compress about like real ones: 16 bits to a half, 8 bits to three quarters, radar hardly."""
    walk = draw.integers(-60, 61, (bands, side, side), np.int16).cumsum(axis=2, dtype=np.int32)
    land = 1500 + np.abs(walk % 6000 - 3000)
    if dtype == "uint8":
        return (land // 20 + draw.integers(0, 8, land.shape)).astype(np.uint8)
    if dtype == "float32":
        return (land / 20_000 * draw.gamma(4, 0.25, land.shape)).astype(np.float32)
    return land.astype(dtype)


def item_of(key: str, number: int, address: str) -> dict[str, Any]:
    """The item of a platform's scene."""
    from clay_assets.platforms import platform_of

    metres = KINDS[key][2]
    hrefs = {name: f"{address}/scene-{number:02d}/{key}.{name}.tif" for name in platform_of(key).asset_names}
    grid = {"proj:shape": [SIDE, SIDE], "proj:transform": [metres, 0, 499_980, 0, -metres, 5_000_040]}
    return {
        **{"type": "Feature", "stac_version": "1.0.0", "id": f"scene-{number:02d}", "links": []},
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "geometry": {"type": "Point", "coordinates": [9.1, 45.1]},
        "bbox": [9.0, 44.9, 9.4, 45.2],
        "properties": {"datetime": f"{YEAR}-06-15T10:00:00Z", "proj:epsg": 32632, **grid},
        "assets": {name: {"href": href} for name, href in hrefs.items()},
    }


def make_storage(root: Path, address: str) -> None:
    """A merged index and headers of all scenes of a platform, copied from the first."""
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

    store, parts = open_store(root), []
    for key in KINDS:
        platform, first = platform_of(key), item_of(key, 0, address)
        files = read_scene_files(platform, platform.read_item(first))
        index = index_scene(pystac.Item.from_dict(first), key)
        x, y = (index[name].to_pylist() for name in ("chip_index_x", "chip_index_y"))
        tables = []
        for number in range(SCENES):
            item = item_of(key, number, address)
            hrefs = {name: item["assets"][name]["href"] for name in files.hrefs}
            own = to_table(replace(files, item_id=item["id"], hrefs=hrefs))
            store.write(layout.headers(key, YEAR, item["id"]), encode_arrow(own, {}))
            count = index.num_rows
            columns = {
                **{name: index[name].combine_chunks() for name in index.schema.names},
                **{name: [value] * count for name, value in (("year", YEAR), ("split", "train"))},
                **{name: [None] * count for name in ("landcover", "landcover_class")},
                "item_id": [item["id"]] * count,
                "chipid": [f"{item['id']}-{column}-{line}" for column, line in zip(x, y, strict=True)],
            }
            tables.append(pa.table([pa.array(columns[one.name], one.type) for one in MERGED_SCHEMA], MERGED_SCHEMA))
        merged, sink = pa.concat_tables(tables), pa.BufferOutputStream()
        pq.write_table(merged, sink, row_group_size=GROUP_ROWS)
        data = sink.getvalue().to_pybytes()
        store.write(layout.merged_part(key, YEAR), data)
        below = layout.merged_part(key, YEAR).removeprefix(layout.MERGED + "/")
        told = {"train": [merged.num_rows], "validate": [0], "test": [0], "buffer": [0]}
        parts.append(Part(key, YEAR, below, merged.num_rows, SCENES, len(data), "made", key, told))
    store.write(layout.MANIFEST, manifest_of(parts, load_recipe()))


def make_manifest(root: Path) -> None:
    """The manifest of an index of the published size, over the platforms and several years."""
    from clay_assets.chips.manifest import Part, manifest_of
    from clay_assets.recipes import load_recipe
    from clay_assets.storage import layout
    from clay_assets.storage.stores import open_store

    parts, draw = [], np.random.default_rng(0)
    for number in range(PARTS):
        key, year = list(KINDS)[number % len(KINDS)], 2012 + number // len(KINDS)
        rows = WHOLE // PARTS + (number < WHOLE % PARTS)
        sizes = [min(GROUP_ROWS, rows - first) for first in range(0, rows, GROUP_ROWS)]
        counts = np.array([draw.multinomial(size, (0.6, 0.1, 0.1, 0.2)) for size in sizes]).T.tolist()
        told = dict(zip(("train", "validate", "test", "buffer"), counts, strict=True))
        parts.append(Part(key, year, f"{key}/{year}/part-0.parquet", rows, 1000, rows, "made", f"{number:032}", told))
    open_store(root).write(layout.MANIFEST, manifest_of(parts, load_recipe()))


# --- figures --------------------------------------------------------------------------------------


def rows(folder: Path, count: int = 7, repeats: int = 2) -> Iterator[Row]:
    """Batches of all platforms from S3 with one worker and with two, and start-up with the full index."""
    python = peer("torch")
    if python is None:
        print("PyTorch is not at hand: run `make bench-setup` first", file=sys.stderr)
        return
    make_files(folder)
    with remote(folder / "files", folder) as (env, _):
        make_storage(folder / "storage", f"s3://{BUCKET}")
        plan = {"storage": str(folder / "storage"), "batches": count}
        one, two = ({**plan, "workers": workers} for workers in (1, 2))
        runs = {
            "one worker": child(batches, one, env=env, python=python),
            "two workers": child(batches, two, env=env, python=python),
            "fetching and decoding": child(blocks, one, env=env),
        }
        found = alternate(runs, repeats)
    each = {name: figures.count / figures.cpu for name, figures in found.items()}
    note = f"{count} batches of {BATCH}; {each['one worker']:.0f} chips per core-second"
    title = f"batches of all platforms, S3 behind {DELAY * 1000:.0f} ms"
    floor: dict[str, Any] = {"floor": "fetching and decoding", "of_floor": 1.25}
    yield row(title, "chips", found, ours="one worker", **floor, note=note)
    note = f"one thread each; {each['two workers']:.0f} chips per core-second"
    yield row("the same, two workers", "chips", found, ours="two workers", peer="one worker", of_peer=1.8, note=note)
    make_manifest(folder / "whole")
    figures: Figures = alternate({"start": child(start, {"storage": str(folder / "whole")}, python=python)}, repeats)[
        "start"
    ]
    sent = f"{figures.more['bytes'] / 1e6:.2f} MB to each worker (goal 1)"
    note = f"{figures.more['chips']:,} of {WHOLE:,} chips; CPU {figures.cpu:.2f} s; {sent}"
    yield row("start over the whole index (goal 1 s)", "starts", {"ours": figures}, note=note)


def main() -> None:
    """Make the inputs and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="keeps the made scenes, 0.3 GB")
    parser.add_argument("--batches", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        found = list(rows(options.folder or Path(temporary), options.batches, options.repeats))
    print(json.dumps([one.cells() for one in found]) if options.json else table(found))


if __name__ == "__main__":
    main()
