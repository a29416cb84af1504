"""A bucket in another region than that of the environment: every reader goes there, and S3 is asked once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clay_assets.sources.downloads import fetch, names_in, read_bytes, size_of
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import open_store
from clay_assets.transport.access import Access
from clay_assets.transport.s3 import S3Connection
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.s3 import REGION
from clay_assets_tests.transport.readers import NAME, PIXELS

ELSEWHERE = "ap-southeast-2"
Proxy = Callable[[str], FaultProxy]


@pytest.fixture
def s3(s3_bucket: Bucket, fault_proxy: Proxy, web: Path, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """The server, with a raster in the bucket; the environment leads to it and names `REGION`."""
    s3_bucket.client.upload_file(str(web / NAME), s3_bucket.name, NAME)
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return proxy


@pytest.fixture
def abroad(s3: FaultProxy) -> FaultProxy:
    """The same, in another region."""
    s3.region(ELSEWHERE)
    return s3


def questions(proxy: FaultProxy, bucket: Bucket) -> list[str]:
    """Regions that a bucket was asked for its own with."""
    asked = [seen for seen in proxy.seen if seen.method == "HEAD" and seen.path.strip("/") == bucket.name]
    return [seen.headers["authorization"].split("/")[2] for seen in asked]


def test_what_is_written_there_is_read_by_every_reader(abroad: FaultProxy, s3_bucket: Bucket, tmp_path: Path) -> None:
    store = open_store(f"{s3_bucket.url}/clay")
    store.write("a.bin", b"first")
    assert store.read("a.bin") == b"first"
    assert store.filesystem().open_input_file("a.bin").read() == b"first"
    assert [info.path for info in store.filesystem().get_file_info([""])] == [""]
    href = f"{s3_bucket.url}/{NAME}"
    for access in (None, Access(requester_pays=True), open_store(s3_bucket.url).access):
        with open_raster(href, access) as source:
            assert (source.read(1) == PIXELS).all()
    assert read_bytes(href)[:2] == b"II"
    assert size_of(href) > PIXELS.nbytes
    fetch(href, tmp_path / "fetched")
    assert names_in(s3_bucket.url) == [NAME]
    assert questions(abroad, s3_bucket) == [REGION, ELSEWHERE]  # asked once, and followed by boto3


def test_a_bucket_is_asked_once_by_many_threads(abroad: FaultProxy, s3_bucket: Bucket) -> None:
    def read(_: int) -> int:
        with open_raster(f"{s3_bucket.url}/{NAME}") as source:
            return int(source.read(1)[0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(24))) == {int(PIXELS[0, 0])}
    assert questions(abroad, s3_bucket) == [REGION, ELSEWHERE]


def test_a_server_that_does_not_tell_is_asked_once_and_read_as_before(s3: FaultProxy, s3_bucket: Bucket) -> None:
    for _ in range(3):
        with open_raster(f"{s3_bucket.url}/{NAME}") as source:
            assert source.shape == PIXELS.shape
        assert open_store(s3_bucket.url).filesystem().get_file_info(NAME).size > PIXELS.nbytes
    assert questions(s3, s3_bucket) == [REGION]


@pytest.mark.parametrize("status", [403, 501])
def test_a_server_that_refuses_the_question_is_read_as_before(s3: FaultProxy, s3_bucket: Bucket, status: int) -> None:
    s3.answer(status, times=None, method="HEAD", path=rf"^/{s3_bucket.name}/?$")
    with open_raster(f"{s3_bucket.url}/{NAME}") as source:
        assert (source.read(1) == PIXELS).all()
    assert open_store(s3_bucket.url).filesystem().get_file_info(NAME).size > PIXELS.nbytes


def test_the_region_is_told_by_a_refusal_too(abroad: FaultProxy, s3_bucket: Bucket) -> None:
    abroad.clear()
    question = rf"^/{s3_bucket.name}/?$"
    abroad.answer(403, times=None, method="HEAD", path=question, headers={"x-amz-bucket-region": ELSEWHERE})
    abroad.region(ELSEWHERE)
    assert open_store(s3_bucket.url).filesystem().get_file_info(NAME).size > PIXELS.nbytes


def test_where_endpoint_and_region_are_given_nothing_is_asked(s3: FaultProxy, s3_bucket: Bucket) -> None:
    given = S3Connection(endpoint=s3.url, region=REGION)
    assert given.in_region_of(s3_bucket.name) is given
    store = open_store(s3_bucket.url, given)
    assert store.filesystem().get_file_info(NAME).size > PIXELS.nbytes
    assert questions(s3, s3_bucket) == []


def test_a_bucket_that_comes_later_is_asked_then(s3: FaultProxy, s3_bucket: Bucket) -> None:
    name = f"{s3_bucket.name}-later"
    assert S3Connection().in_region_of(name) == S3Connection()
    s3_bucket.server.new_bucket(name)
    s3.region(ELSEWHERE)
    assert S3Connection().in_region_of(name).region == ELSEWHERE


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_of_the_environment_is_every_reader_s(
    s3: FaultProxy, s3_bucket: Bucket, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that does not tell the bucket's."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, ELSEWHERE)
    with open_raster(f"{s3_bucket.url}/{NAME}") as source:
        source.read(1)
    store = open_store(s3_bucket.url)
    assert store.filesystem().get_file_info(NAME).size == store.size(NAME)
    signed = {seen.headers["authorization"].split("/")[2] for seen in s3.seen}
    assert signed == {ELSEWHERE}


def test_a_dataset_is_opened_where_it_was_written(abroad: FaultProxy, s3_bucket: Bucket) -> None:
    from clay_assets.chips.index import CHIP_SCHEMA, open_index
    from clay_assets.storage.geoparquet import encode_arrow

    store = open_store(f"{s3_bucket.url}/clay")
    store.write("chips/a.parquet", encode_arrow(CHIP_SCHEMA.empty_table(), {}))
    assert open_index(f"{s3_bucket.url}/clay/chips").count_rows() == 0
    assert pq.read_schema("chips/a.parquet", filesystem=store.filesystem()).names == CHIP_SCHEMA.names
