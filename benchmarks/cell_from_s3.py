"""How fast a cell of scenes on S3 is indexed, compared with fetching and decoding the same blocks equally concurrently.

Run as `python benchmarks/cell_from_s3.py`. The 200 Sentinel-2 scenes of real size share one scene classification, on an
S3 server behind a proxy that adds 50 ms latency. The floor requests the unavoidable, a scene's header and then its
blocks, through the same client, and decodes the blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chip_index import sentinel_2
from harness import Row, alternate, child, row, table
from slow_s3 import BUCKET, DELAY, remote

SCENES, WORKERS, IN_FLIGHT = 200, 8, 16
PLATFORM, YEAR = "sentinel-2-l2a", 2021
HEADER_BYTES = 1 << 16


def ours(plan: dict[str, Any]) -> Callable[[], int]:
    """With `index_scenes`, as in the asset `chip_index`."""
    import imagecodecs
    import obstore  # noqa: F401  imports are not counted

    from clay_assets.chips.indexing import index_scenes
    from clay_assets.executors import open_executor
    from clay_assets.recipes import load_recipe
    from clay_assets.storage.stores import open_store

    assert imagecodecs.DEFLATE.available
    recipe = load_recipe("clay_v1")

    def work() -> int:
        with (
            TemporaryDirectory() as folder,
            open_executor(plan["workers"], short_jobs=len(plan["items"])) as (executor, in_flight),
        ):
            store = open_store(folder)
            cell = index_scenes(PLATFORM, YEAR, plan["items"], store, recipe, executor, in_flight)
        assert (cell.scenes["chips"] > 0).all()
        assert len(cell.scenes) == len(plan["items"])
        return len(plan["items"])

    return work


def blocks_once(plan: dict[str, Any]) -> Callable[[], int]:
    """One request for each scene's header and one for its blocks, which are decoded."""
    import os

    import obstore
    from obstore.store import S3Store

    from clay_assets.sources.cog import read_header
    from clay_assets.sources.cog.decoding import decode
    from clay_assets.transport.access import Access

    endpoint, options = os.environ["AWS_ENDPOINT_URL"], {"allow_http": True}
    store = S3Store(BUCKET, endpoint=endpoint, region="us-east-1", skip_signature=True, client_options=options)
    header = read_header(plan["items"][0]["assets"]["scl"]["href"], Access(unsigned=True))
    start = int(header.block_offsets.min())
    stop = int((header.block_offsets + header.block_byte_counts).max())
    blocks = list(zip((header.block_offsets - start).tolist(), header.block_byte_counts.tolist(), strict=True))

    def scene(item: dict[str, Any]) -> None:
        key = item["assets"]["scl"]["href"].removeprefix(f"s3://{BUCKET}/")
        obstore.get_range(store, key, start=0, length=HEADER_BYTES)
        data = memoryview(obstore.get_range(store, key, start=start, end=stop))
        for offset, size in blocks:
            decode(header, data[offset : offset + size])

    def work() -> int:
        with ThreadPoolExecutor(plan["workers"]) as pool:
            return len(list(pool.map(scene, plan["items"])))

    return work


def rows(folder: Path, scenes: int = SCENES) -> Iterator[Row]:
    """The row of this stage."""
    files = folder / "files"
    files.mkdir()
    document = sentinel_2(files)
    with remote(files, folder) as (env, _):
        items = []
        for number in range(scenes):
            item = json.loads(json.dumps(document))
            item["id"] = f"scene-{number:03d}"
            item["assets"]["scl"]["href"] = f"s3://{BUCKET}/scene-{number:03d}/scl.tif"
            items.append(item)
        plan = {"items": items, "workers": WORKERS}
        runs = {"ours": child(ours, plan, env=env), "fetching and decoding": child(blocks_once, plan, env=env)}
        found = alternate(runs, 2)
        title = f"index a cell of {scenes} scenes, S3 behind {DELAY * 1000:.0f} ms, {WORKERS} workers"
        yield row(title, "scenes", found, floor="fetching and decoding", of_floor=1.5)


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        print(table(list(rows(Path(temporary)))))
