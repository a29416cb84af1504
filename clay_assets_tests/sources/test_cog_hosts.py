"""Blocks from servers: what is requested, what is noticed, and what happens where servers fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.errors import InputError, SourceError
from clay_assets.sources.cog import BlockReader, BlockRequest, CogHeader, read_header
from clay_assets.transport.access import Access, Header
from clay_assets.transport.signing import shared_signer
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.blobs import BlobService
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.file_host import Host
from clay_assets_tests.servers.process import ServerProcess
from clay_assets_tests.servers.signed import assert_unsigned, signed_blobs
from clay_assets_tests.sources.test_cog import HEIGHT, WIDTH, assert_same, ground, write

WHOLE = Window(0, 0, WIDTH, HEIGHT)
NAME = "B04.tif"
TOKEN = (Header("X-Key", "TEST_KEY"),)


@pytest.fixture
def pixels() -> NDArray[Any]:
    return ground(1, "uint16")


@pytest.fixture
def path(tmp_path: Path, pixels: NDArray[Any]) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    write(folder / NAME, pixels, compress="DEFLATE", predictor=2)
    return folder / NAME


@pytest.fixture
def host(path: Path) -> Iterator[Host]:
    made = Host(path.parent)
    yield made
    made.stop()


@pytest.fixture
def href(host: Host) -> str:
    return f"{host.url}/{NAME}"


@pytest.fixture
def proxy(host: Host, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    return fault_proxy(host.url)


def whole(href: str, header: CogHeader, *ways: Access) -> NDArray[Any]:
    return BlockReader(ways, threads=2).read([BlockRequest(href, header, [WHOLE])])[0][0]


# --- requests -------------------------------------------------------------------------------------


def test_a_header_is_one_request_and_neighbouring_blocks_another(host: Host, href: str, pixels: NDArray[Any]) -> None:
    header = read_header(href)
    assert [method for method, *_ in host.seen] == ["GET"]
    assert (header.etag, header.size) == ('"first"', header.size)
    reader = BlockReader(threads=2)
    assert_same(reader.read([BlockRequest(href, header, [WHOLE])])[0][0], pixels)
    assert [method for method, *_ in host.seen] == ["GET", "GET"]
    start, stop = (int(number) for number in re.findall(r"\d+", host.seen[1][1]))
    assert stop + 1 - start == reader.counters.bytes_fetched == int(header.block_byte_counts.sum())


def test_a_header_at_the_end_of_a_large_file(host: Host, href: str, path: Path) -> None:
    """GDAL writes overviews that were added later behind the pixels."""
    import rasterio

    path.unlink()
    pixels = np.random.default_rng(0).integers(0, 60_000, (1, 700, 800)).astype(np.uint16)
    write(path, pixels, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as sink:
        sink.build_overviews([2])
    header = read_header(href)
    assert 2 <= len(host.seen) <= 4
    (overview,) = header.overviews
    window = Window(100, 100, 200, 200)
    with rasterio.open(path, overview_level=0) as source:
        assert_same(BlockReader().read([BlockRequest(href, overview, [window])])[0][0], source.read(window=window))


def test_bytes_between_far_blocks_are_not_fetched(host: Host, href: str) -> None:
    header = read_header(href)
    reader = BlockReader()
    reader.read([BlockRequest(href, header, [Window(0, 0, 8, 8), Window(192, 140, 8, 8)])])
    assert reader.counters.bytes_fetched == int(header.block_byte_counts[[0, -1]].sum())
    assert len(host.seen) == 3


def test_headers_of_the_access_are_sent(
    host: Host, href: str, pixels: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "secret")
    access = Access(headers=TOKEN)
    assert_same(whole(href, read_header(href, access), access), pixels)
    assert {key for *_, key in host.seen} == {"secret"}


# --- a file that changed --------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["etag", "longer", "shorter", "later"])
def test_a_file_that_changed_is_refused(host: Host, href: str, path: Path, change: str) -> None:
    if change == "later":  # a server without ETags
        host.etag, host.modified = None, True
    header = read_header(href)
    match change:
        case "etag":
            host.etag = '"second"'
        case "longer":
            path.write_bytes(path.read_bytes() + b"more")
        case "shorter":
            path.write_bytes(path.read_bytes()[:600])
        case "later":
            import os

            os.utime(path, (1, 1))
    with pytest.raises(
        InputError, match=rf"^{href}: changed after its header was read\. Read the header again \(delete"
    ):
        whole(href, header)


def test_a_copy_with_the_same_etag_is_the_same_file(host: Host, href: str, pixels: NDArray[Any]) -> None:
    header = read_header(href)
    host.etag = 'W/"first"'  # as a proxy that compresses says
    assert_same(whole(href, header), pixels)


def test_a_file_that_is_gone(href: str, path: Path) -> None:
    header = read_header(href)
    path.unlink()
    with pytest.raises(InputError, match=rf"^{href}: file not found \(404"):
        whole(href, header)


# --- servers that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["503", "429", "reset", "truncate", "stall"])
@pytest.mark.parametrize("what", ["header", "blocks"])
def test_what_passes_is_tried_again(proxy: FaultProxy, pixels: NDArray[Any], fault: str, what: str) -> None:
    href = f"{proxy.url}/{NAME}"
    plan: dict[str, Callable[[], None]] = {
        "503": partial(proxy.answer, 503),
        "429": partial(proxy.answer, 429, retry_after=0.1),
        "stall": partial(proxy.stall, 0.1),
    }
    fail = plan[fault] if fault in plan else getattr(proxy, fault)
    if what == "header":
        fail()
    header = read_header(href)
    if what == "blocks":
        fail()
    reader = BlockReader(threads=2)
    assert_same(reader.read([BlockRequest(href, header, [WHOLE])])[0][0], pixels)
    assert reader.counters.requests == 1
    assert len(proxy.seen) == 3


def test_a_server_that_stays_silent(proxy: FaultProxy, pixels: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after the policy's silence, which is shorter here, and asked again."""
    href = f"{proxy.url}/{NAME}"
    header = read_header(href)
    monkeypatch.setattr("clay_assets.transport.http.TIMEOUT", (5, 0.3))
    proxy.stall()
    assert_same(whole(href, header), pixels)


def test_what_does_not_pass_is_given_up(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    href = f"{proxy.url}/{NAME}"
    header = read_header(href)
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF_MAX", 0.01)
    proxy.answer(503, times=None)
    with pytest.raises(SourceError, match=rf"^{href}: the server answered 503\. Run again later"):
        whole(href, header)


def test_a_server_that_ignores_ranges(host: Host, href: str, path: Path) -> None:
    header = read_header(href)
    host.whole = True
    said = rf"^{href}: the server ignores byte ranges, .*\. Copy the file"
    with pytest.raises(InputError, match=said):
        whole(href, header)
    path.write_bytes(path.read_bytes() + bytes(1 << 16))
    with pytest.raises(InputError, match=said):
        read_header(href)


def test_a_small_file_may_come_whole(host: Host, href: str) -> None:
    header = read_header(href)
    host.whole = True
    assert read_header(href).size == header.size


def test_other_bytes_than_those_asked_for_are_refused(host: Host, href: str, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(href)
    host.shift = 7
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF_MAX", 0.01)
    with pytest.raises(SourceError, match=rf"^{href}: asked for bytes .*\. Run again; if it persists check the server"):
        whole(href, header)


def test_a_login_page_in_place_of_blocks(host: Host, href: str) -> None:
    header = read_header(href)
    host.page = True
    with pytest.raises(InputError, match=rf"^{href}: the server sent its login page instead of the file\. "):
        whole(href, header)


def test_a_corrupt_block_of_a_remote_file(host: Host, href: str, path: Path) -> None:
    header = read_header(href)
    data = bytearray(path.read_bytes())
    start = int(header.block_offsets[3])
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=rf"^{href}: not a readable raster \(block 3 is corrupt: .*\)\. Download it again\.$"
    ):
        whole(href, header)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_bad_file_among_many_leaves_the_reader_usable(
    host: Host, path: Path, pixels: NDArray[Any], threads: int
) -> None:
    requests = []
    for number in range(6):
        path.with_name(f"{number}.tif").write_bytes(path.read_bytes())
        href = f"{host.url}/{number}.tif"
        requests.append(BlockRequest(href, read_header(href), [WHOLE]))
    path.with_name("2.tif").unlink()
    reader = BlockReader(threads=threads, in_flight=3)
    with pytest.raises(InputError, match=r"2\.tif: file not found"):
        reader.read(requests)
    del requests[2]
    for found in reader.read(requests):
        assert_same(found[0], pixels)


# --- signed files, S3 -----------------------------------------------------------------------------


@pytest.fixture
def blobs(
    path: Path, servers_apart: ServerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[BlobService]:
    folder = path.parent.parent / "blobs"
    (folder / "account" / "container").mkdir(parents=True)
    (folder / "account" / "container" / NAME).write_bytes(path.read_bytes())
    with signed_blobs(folder, servers_apart, monkeypatch, caplog) as service:
        yield service


BLOB = f"http://account.blob.core.windows.net/container/{NAME}"


def test_a_signature_that_expires_midway_is_renewed(blobs: BlobService, pixels: NDArray[Any]) -> None:
    access = Access(signer=shared_signer())
    header = read_header(BLOB, access)
    blobs.revoke()
    assert_same(whole(BLOB, header, access), pixels)
    assert len(blobs.asked) == 2


def test_a_signature_that_is_refused_for_good(blobs: BlobService) -> None:
    access = Access(signer=shared_signer())
    header = read_header(BLOB, access)
    blobs.forbid()
    with pytest.raises(InputError, match=rf"^{BLOB}: access refused \(403") as raised:
        whole(BLOB, header, access)
    assert_unsigned(blobs, raised.value)


def test_s3(s3_bucket: Bucket, path: Path, pixels: NDArray[Any]) -> None:
    body, key = path.read_bytes(), "scenes/a b#ä.tif"
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=body)
    href = f"{s3_bucket.url}/{key}"
    for access in (Access(), Access(requester_pays=True)):
        header = read_header(href, access)
        assert header.etag
        assert header.size == len(body)
        assert_same(whole(href, header, access), pixels)
    for other in (body + b"more", body[:600]):
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=other)
        with pytest.raises(InputError, match=rf"^{re.escape(href)}: changed after its header was read\."):
            whole(href, header)
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key=key)
    with pytest.raises(InputError, match=rf"^{re.escape(href)}: file not found"):
        whole(href, header)


def test_s3_through_faults(
    s3_bucket: Bucket,
    path: Path,
    pixels: NDArray[Any],
    fault_proxy: Callable[[str], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=NAME, Body=path.read_bytes())
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    href = f"{s3_bucket.url}/{NAME}"
    header = read_header(href, Access(requester_pays=True))
    assert proxy.seen[-1].headers["x-amz-request-payer"] == "requester"
    for fail in (partial(proxy.answer, 503), proxy.reset, partial(proxy.truncate)):
        fail()
        assert_same(whole(href, header), pixels)
    assert {seen.method for seen in proxy.seen} == {"GET"}
