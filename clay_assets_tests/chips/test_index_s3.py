"""Scenes and index on S3: access to hrefs, what is retried and what is not, and reading back index files."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import Executor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pystac
import pytest

from clay_assets.chips.cells import FAILED
from clay_assets.chips.index import index_scene, open_index
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.manifest import read_manifest
from clay_assets.chips.merge import merge
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError, SourceError
from clay_assets.recipes import Recipe
from clay_assets.storage.stores import LocalStore, open_store
from clay_assets_tests.chips.factories import L2, S2, made_plan, write_land_cover
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy

ASSET = {S2: "scl", L2: "qa_pixel"}


LANDSAT_BUCKET = "usgs-landsat"  # requester-pays


def on_s3(bucket: Bucket, document: Any, platform: str) -> dict[str, Any]:
    """Upload the quality file of an item, and return the item with its `s3://` href."""
    name = bucket.server.new_bucket(LANDSAT_BUCKET) if platform == L2 else bucket.name
    changed = deepcopy(document)
    asset = changed["assets"][ASSET[platform]]
    path = Path(asset["href"])
    key = f"{bucket.name}/scenes/{document['id']}/{path.name}"
    bucket.client.upload_file(str(path), name, key)
    asset["href"] = f"s3://{name}/{key}"
    if "alternate" in asset:
        asset["href"] = "https://landsatlook.usgs.gov/not-this-one.tif"
        asset["alternate"]["s3"]["href"] = f"s3://{name}/{key}"
    return changed


def index(document: Any, platform: str) -> pa.Table:
    return index_scene(pystac.Item.from_dict(document, preserve_dict=True), platform)


def some(planet: Planet, platform: str, count: int = 1) -> list[dict[str, Any]]:
    of_2018 = [item for item in planet.items(platform) if item["properties"]["datetime"].startswith("2018")]
    items = [item for item in of_2018 if ASSET[platform] in item["assets"]]
    return items[:: len(items) // count][:count]


@pytest.fixture
def proxy(s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the S3 server; the AWS variables point to it."""
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return proxy


@pytest.mark.parametrize("platform", [S2, L2])
def test_a_scene_on_s3_gives_the_same_index(
    planet: Planet, s3_bucket: Bucket, proxy: FaultProxy, platform: Any
) -> None:
    document = some(planet, platform)[0]
    remote = on_s3(s3_bucket, document, platform)
    assert index(remote, platform).equals(index(document, platform))
    reads = [seen for seen in proxy.seen if "tif" in seen.path]
    assert reads
    assert all("authorization" in seen.headers for seen in reads)
    payer = {seen.headers.get("x-amz-request-payer") for seen in reads}
    assert payer == ({"requester"} if platform == L2 else {None})


def test_503_is_retried(planet: Planet, s3_bucket: Bucket, proxy: FaultProxy) -> None:
    document = some(planet, S2)[0]
    remote = on_s3(s3_bucket, document, S2)
    proxy.answer(503, times=2, path="tif")
    assert index(remote, S2).equals(index(document, S2))
    assert sum(seen.fault == "answer" for seen in proxy.seen) == 2


def test_a_scene_that_is_not_there_is_an_error_that_names_it(
    planet: Planet, s3_bucket: Bucket, proxy: FaultProxy
) -> None:
    remote = on_s3(s3_bucket, some(planet, S2)[0], S2)
    remote["assets"]["scl"]["href"] = f"{s3_bucket.url}/scenes/nothing.tif"
    with pytest.raises(InputError, match=rf"{s3_bucket.url}/scenes/nothing\.tif: file not found"):
        index(remote, S2)
    assert len([seen for seen in proxy.seen if "nothing.tif" in seen.path]) <= 2  # no useless requests


def test_wrong_credentials_are_told(planet: Planet, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = on_s3(s3_bucket, some(planet, L2)[0], L2)
    key = f"{s3_bucket.url}/scenes/other.tif"
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="scenes/other.tif", Body=b"II*\0")
    remote["assets"]["qa_pixel"]["alternate"]["s3"]["href"] = key
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    with pytest.raises(InputError, match=f"{re.escape(key)}: access refused.*credentials"):
        index(remote, L2)


def test_a_remote_file_that_breaks_off_is_a_passing_error(planet: Planet, s3_bucket: Bucket) -> None:
    """The file may still be being written, so a retry can help."""
    document = some(planet, S2)[0]
    content = Path(document["assets"]["scl"]["href"]).read_bytes()
    remote = on_s3(s3_bucket, document, S2)
    href = f"{s3_bucket.url}/scenes/half.tif"
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="scenes/half.tif", Body=content[: len(content) // 2])
    remote["assets"]["scl"]["href"] = href
    with pytest.raises(SourceError, match=f"{re.escape(href)}: could not be read.*Run again"):
        index(remote, S2)


def test_index_files_on_s3_come_back(
    planet: Planet, s3_bucket: Bucket, recipe: Recipe, threads: Executor, tmp_path: Path
) -> None:
    store = open_store(f"{s3_bucket.url}/deployment")
    local = LocalStore(tmp_path)
    documents = some(planet, S2, 6)
    remote = [on_s3(s3_bucket, document, S2) for document in documents]
    gone = deepcopy(remote[0])
    gone["id"] += "_GONE"
    gone["assets"]["scl"]["href"] = f"{s3_bucket.url}/scenes/gone.tif"
    cell = index_scenes(S2, 2018, [*remote, gone], store, recipe, threads, 4)
    expected = index_scenes(S2, 2018, documents, local, recipe, threads, 4)
    assert list(cell.ledger.loc[cell.ledger["outcome"] == FAILED, "item_id"]) == [gone["id"]]
    assert cell.keys == expected.keys
    assert cell.dataset().to_table().equals(expected.dataset().to_table())
    assert index_scenes(S2, 2018, remote, store, recipe, threads, 4).kept == 6

    first = merge([cell], [write_land_cover(cell)], made_plan(), store, recipe, threads, 4)
    assert (first.rows, first.written) == (expected.ledger["chips"].sum(), 1)
    assert merge([cell], [write_land_cover(cell)], made_plan(), store, recipe, threads, 4).written == 0
    assert read_manifest(store) == first.parts
    dataset = open_index(f"{s3_bucket.url}/deployment/chips/merged_index", S2, 2018)
    assert dataset.count_rows() == first.rows
    assert open_index(f"{s3_bucket.url}/deployment/{cell.keys[0]}").count_rows() == cell.ledger["chips"].iloc[0]
    assert cell.prune() == 0
    assert index_scenes(S2, 2018, remote[:2], store, recipe, threads, 4).prune() == 4
    assert len(store.list("chips/chip_index")) == 2
