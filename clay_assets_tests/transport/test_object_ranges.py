"""Ranges of S3 objects through obstore, and what is left to boto3."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context

import pytest

from clay_assets.errors import InputError
from clay_assets.sources.cog.ranges import fetch
from clay_assets.transport.access import Access
from clay_assets.transport.object_ranges import FAILURES, read_range
from clay_assets.transport.s3 import S3Connection
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy

BODY = bytes(range(256)) * 40
BY_OBSTORE = "object_store"


@pytest.fixture
def proxy(s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return proxy


def put(bucket: Bucket, key: str = "a.bin") -> str:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=BODY)
    return f"{bucket.url}/{key}"


def clients(proxy: FaultProxy) -> list[str]:
    agents = [seen.headers.get("user-agent", "") for seen in proxy.seen]
    return ["obstore" if BY_OBSTORE in agent else "boto3" if "Boto3" in agent else agent for agent in agents]


@pytest.mark.parametrize("key", ["a.bin", "scenes/a b#ä+%20.bin", "x=1/~y.bin"])
def test_one_request_without_boto3(s3_bucket: Bucket, proxy: FaultProxy, key: str) -> None:
    href = put(s3_bucket, key)
    data, version = fetch(href, Access(), 100, 900)
    assert (data, version.size) == (BODY[100:900], len(BODY))
    head = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key=key)
    assert version.etag == head["ETag"]
    assert version.mtime_ns == int(head["LastModified"].timestamp()) * 1_000_000_000
    assert clients(proxy) == ["obstore"]


def test_the_end_of_a_file_may_come_before_that_of_the_range(s3_bucket: Bucket, proxy: FaultProxy) -> None:
    data, _ = fetch(put(s3_bucket), Access(), len(BODY) - 10, len(BODY) + 1000)
    assert data == BODY[-10:]
    assert clients(proxy) == ["obstore"]


def test_both_clients_say_the_same_of_an_object(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not taken for changed when another client reads it."""
    href = put(s3_bucket)
    quick = fetch(href, Access(), 0, 100)
    monkeypatch.setattr("clay_assets.sources.cog.ranges.read_range", lambda *_, **__: None)
    assert fetch(href, Access(), 0, 100) == quick


@pytest.mark.parametrize("fault", ["answer", "reset", "truncate", "garbage"])
def test_what_obstore_cannot_read_boto3_reads(s3_bucket: Bucket, proxy: FaultProxy, fault: str) -> None:
    href = put(s3_bucket)
    if fault == "answer":
        proxy.answer(503)
    else:
        getattr(proxy, fault)()
    assert fetch(href, Access(), 100, 900)[0] == BODY[100:900]
    assert clients(proxy) == ["obstore", "boto3"]
    proxy.clear()
    fetch(href, Access(), 0, 10)
    assert clients(proxy)[-1] == "obstore"


def test_a_bucket_that_obstore_never_reads_is_left_to_boto3(s3_bucket: Bucket, proxy: FaultProxy) -> None:
    href = put(s3_bucket)
    for _ in range(FAILURES):
        proxy.reset()
        fetch(href, Access(), 0, 10)
    before = len(proxy.seen)
    assert fetch(href, Access(), 0, 10)[0] == BODY[:10]
    assert clients(proxy)[before:] == ["boto3"]


@pytest.mark.parametrize("key", ["a//b.bin", "../c.bin"])
def test_a_key_that_obstore_does_not_know(s3_bucket: Bucket, key: str) -> None:
    assert fetch(put(s3_bucket, key), Access(), 5, 10)[0] == BODY[5:10]


def test_an_object_that_is_gone_is_told_as_boto3_tells_it(s3_bucket: Bucket) -> None:
    with pytest.raises(InputError, match=r"b\.bin: file not found \(NoSuchKey\)\. Check the address"):
        fetch(put(s3_bucket).replace("a.bin", "b.bin"), Access(), 0, 10)


def test_the_requester_pays_where_the_access_says_so(s3_bucket: Bucket, proxy: FaultProxy) -> None:
    href = put(s3_bucket)
    for pays, expected in ((True, "requester"), (False, None)):
        fetch(href, Access(requester_pays=pays), 0, 10)
        assert proxy.seen[-1].headers.get("x-amz-request-payer") == expected
        assert ("authorization" in proxy.seen[-1].headers) is True


def _read(href: str) -> bool:
    data = fetch(href, Access(), 0, 10)[0]
    return data == BODY[:10] and read_range(S3Connection(), href, 0, 10) is None


def test_a_process_that_was_forked_reads_through_boto3(s3_bucket: Bucket) -> None:
    """The runtime below obstore does not survive a fork, and would never answer."""
    href = put(s3_bucket)
    assert read_range(S3Connection(), href, 0, 10) is not None
    with get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_read, (href,)).get(timeout=60)
