"""Documents of a static catalogue by their address, the links in them, and the small files they are."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.sources.downloads import read_bytes
from clay_assets.sources.static_stac import absolute, links, parts_of, read_document, root_of, with_absolute_hrefs
from clay_assets.stac import Item
from clay_assets.transport.retries import ATTEMPTS
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

DOCUMENT = {"type": "Catalog", "id": "māwhera", "description": 20 * "Imagery. ", "links": []}
CONTENT = json.dumps(DOCUMENT, ensure_ascii=False).encode()


@pytest.fixture
def proxy(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> FaultProxy:
    """A web server with one document, `a b/catalog.json`."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "catalog.json").write_bytes(CONTENT)
    return fault_proxy(file_server(tmp_path).url)


# --- addresses and links ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "root"),
    [
        ("/data/nz", "/data/nz/catalog.json"),
        ("/data/nz/", "/data/nz/catalog.json"),
        ("nz/catalog.json", "nz/catalog.json"),
        ("/data/nz/other.json", "/data/nz/other.json"),
        ("https://example.com", "https://example.com/catalog.json"),
        ("s3://bucket/nz/", "s3://bucket/nz/catalog.json"),
        ("s3://bucket/n#z?", "s3://bucket/n#z?/catalog.json"),
        ("/data/n#z?/", "/data/n#z?/catalog.json"),
        ("https://example.com/nz/?token=a/b", "https://example.com/nz/catalog.json?token=a/b"),
        ("https://example.com/nz/other.json?token=a/b", "https://example.com/nz/other.json?token=a/b"),
    ],
)
def test_the_root_of_a_folder_is_its_catalog(location: str, root: str) -> None:
    assert root_of(location) == root


@pytest.mark.parametrize(
    ("href", "base", "address"),
    [
        ("./b/c.json", "/nz/a.json", "/nz/b/c.json"),
        ("c.tiff", "/nz of old/b/a.json", "/nz of old/b/c.tiff"),
        ("../../c.tiff", "/nz/b/d/a.json", "/nz/c.tiff"),
        ("/other/c.tiff", "/nz/a.json", "/other/c.tiff"),
        ("https://example.com/c.tiff", "/nz/a.json", "https://example.com/c.tiff"),
        ("s3://bucket/c.tiff", "/nz/a.json", "s3://bucket/c.tiff"),
        ("./b%20c/d.json", "https://example.com/m%C4%81/a.json", "https://example.com/m%C4%81/b%20c/d.json"),
        ("../d.json", "https://example.com/x/y/a.json", "https://example.com/x/d.json"),
        ("/d.json", "https://example.com/x/y/a.json", "https://example.com/d.json"),
        ("./b/c.json", "s3://bucket/catalog.json", "s3://bucket/b/c.json"),
        ("../c.json", "s3://bucket/x/y/a.json", "s3://bucket/x/c.json"),
        ("https://example.com/c.tiff", "s3://bucket/a.json", "https://example.com/c.tiff"),
        ("./c.json", "file:///nz/a.json", "file:///nz/c.json"),
        ("./c%23.json", "file:///nz%20old/a.json", "file:///nz%20old/c%23.json"),
        ("./c#1 ?.json", "s3://bucket/a#b?/catalog.json", "s3://bucket/a#b?/c#1 ?.json"),
        ("../c.json", "s3://bucket/a.json", "s3://bucket/c.json"),
        ("/c.json", "s3://bucket/x/a.json", "s3://bucket/c.json"),
        ("./c#1 ?.json", "/nz#/a.json", "/nz#/c#1 ?.json"),
        ("../c.json", "/a#b?c/d/a.json", "/a#b?c/c.json"),
        ("./b/c.json", "file:///a#b?c/a.json", "file:///a#b?c/b/c.json"),
        ("../c.json", "file:///a%23b%3Fc/d/a.json", "file:///a%23b%3Fc/c.json"),
        ("./c.json", "file://localhost/nz/a.json", "file://localhost/nz/c.json"),
        ("/c.json", "file://localhost/nz/a.json", "file://localhost/c.json"),
        ("./c.json", "file:/nz/a.json", "file:/nz/c.json"),
        ("file:/other/c.json", "/nz/a.json", "file:/other/c.json"),
        ("file:///other/c.json", "s3://bucket/a.json", "file:///other/c.json"),
        ("./b/c.json", "https://example.com/a%23b/catalog.json", "https://example.com/a%23b/b/c.json"),
        ("http://[::1", "https://example.com/catalog.json", "http://[::1"),
    ],
)
def test_an_address_relative_to_a_document(href: str, base: str, address: str) -> None:
    assert absolute(href, base) == address


def test_an_address_relative_to_a_document_near_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("./b.json", "nz/a.json") == f"{tmp_path}/nz/b.json"
    assert absolute("./b.json", "~/nz/a.json") == "/home/somebody/nz/b.json"


def test_a_percent_encoded_link_between_local_files(tmp_path: Path) -> None:
    base = str(tmp_path / "catalog.json")
    for name in ("a#b", "c%23d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").touch()
    assert absolute("./a%23b/x.json", base) == f"{tmp_path}/a#b/x.json"
    assert absolute("./a#b/x.json", base) == f"{tmp_path}/a#b/x.json"
    assert absolute("./c%23d/x.json", base) == f"{tmp_path}/c%23d/x.json"
    assert absolute("./c%23d/y.json", base) == f"{tmp_path}/c%23d/y.json"


@pytest.mark.parametrize(
    ("href", "parts"),
    [
        ("/nz#1/a b?/c.json", ("/", "nz#1", "a b?", "c.json")),
        ("file:///nz%231/a%20b/c.json", ("/", "nz#1", "a b", "c.json")),
        ("s3://bucket/nz#1/a%20b?/c.json", ("nz#1", "a%20b?", "c.json")),
        ("https://example.com/nz%231/c.json?token=a/b#d", ("", "nz#1", "c.json")),
    ],
)
def test_the_parts_of_an_address(href: str, parts: tuple[str, ...]) -> None:
    assert parts_of(href) == parts


# --- the files of an item ---------------------------------------------------------------------------


def linking(*hrefs: Any, self_link: str | None = None) -> Item:
    assets = {f"a{number}": {"href": href} for number, href in enumerate(hrefs)}
    return {"id": "a", "links": [{"rel": "self", "href": self_link}], "assets": assets}


def hrefs_of(item: Item) -> list[str]:
    return [asset["href"] for asset in item["assets"].values()]


@pytest.mark.parametrize(
    ("place", "self_link", "resolved"),
    [
        ("/nz/item.json", None, "/nz/b.tif"),
        ("/nz/item.json", "https://example.com/x/item.json", "/nz/b.tif"),  # where it was read
        ("s3://bucket/nz/item.json", None, "s3://bucket/nz/b.tif"),
        (None, "https://example.com/x/item.json", "https://example.com/x/b.tif"),
        (None, "s3://bucket/nz/item.json", "s3://bucket/nz/b.tif"),
        (None, "/nz#/item.json", "/nz#/b.tif"),
        (None, "file:///nz/item.json", "file:///nz/b.tif"),
        (None, "./item.json", "./b.tif"),  # nobody can tell
        (None, None, "./b.tif"),
    ],
)
def test_hrefs_are_resolved_against_the_item(place: str | None, self_link: str | None, resolved: str) -> None:
    elsewhere = ["/c.tif", "s3://other/c.tif", "https://other.example/c.tif", "file:///c.tif", "file:/c.tif", "~/c.tif"]
    item = linking("./b.tif", *elsewhere, "", None, 7, self_link=self_link)
    item["assets"]["x"] = {
        "href": "b.tif",
        "alternate": {"s3": {"href": "s3://other/b.tif"}, "here": {"href": "./b.tif"}},
    }
    before = json.dumps(item)
    found = with_absolute_hrefs(item, place)
    assert json.dumps(item) == before
    assert hrefs_of(found)[:-1] == [resolved, *elsewhere, "", None, 7]
    here = resolved if resolved != "./b.tif" else "b.tif"
    assert found["assets"]["x"]["href"] == here
    assert found["assets"]["x"]["alternate"] == {"s3": {"href": "s3://other/b.tif"}, "here": {"href": resolved}}


@pytest.mark.parametrize(
    "odd", [{"links": None}, {"links": [7, {"rel": "self"}]}, {"assets": None}, {"assets": {"a": 7}}]
)
def test_items_without_hrefs_to_resolve(odd: Item) -> None:
    item = {**linking("./b.tif"), **odd}
    assert with_absolute_hrefs(item) == item


def test_a_foreign_item_never_means_a_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scl.tif").touch()
    item = sentinel_2_item("a", "2020-06-01T10:00:00Z")
    item["links"].append({"rel": "self", "href": "/data/a/item.json"})
    item["assets"]["scl"]["href"] = "./scl.tif"
    assert PLATFORMS[SENTINEL_2].read_item(item)["assets"]["scl"]["href"] == "/data/a/scl.tif"


def test_links_of_a_relation_in_their_order() -> None:
    document = {
        "links": [
            {"rel": "item", "href": "./z.json"},
            {"rel": "root", "href": "../catalog.json"},
            {"rel": "item", "href": "https://example.com/a.json"},
            {"rel": "item", "href": "./m.json", "title": "M"},
        ]
    }
    found = ["/nz/s/z.json", "https://example.com/a.json", "/nz/s/m.json"]
    assert links(document, "item", "/nz/s/collection.json") == found
    assert links(document, "root", "/nz/s/collection.json") == ["/nz/catalog.json"]
    assert links(document, "child", "/nz/s/collection.json") == []


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"links": None},
        {"links": 7},
        {"links": "a"},
        {"links": []},
        {"links": [None, 3, "item", {"href": "./a"}, {"rel": "item", "href": None}]},
    ],
)
def test_links_that_are_none_are_left_out(document: dict[str, Any]) -> None:
    assert links(document, "item", "/nz/a.json") == []


# --- documents --------------------------------------------------------------------------------------


def test_a_document_wherever_it_lies(tmp_path: Path, proxy: FaultProxy, s3_bucket: Bucket) -> None:
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="a b/catalog.json", Body=CONTENT)
    path = tmp_path / "a b" / "catalog.json"
    for href in (
        str(path),
        f"file://{path}",
        f"{proxy.url}/a%20b/catalog.json",
        f"{proxy.url}/a b/catalog.json",
        f"{s3_bucket.url}/a b/catalog.json",
    ):
        assert read_document(href) == DOCUMENT
    assert proxy.total == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"bad\.json: not JSON .*Check the address, or download the file again"),
        (CONTENT[:-5], r"bad\.json: not JSON"),
        (b"\xff\xfe\x00", r"bad\.json: not JSON"),
        (b"<html></html>", r"bad\.json: not JSON"),
        (b"[]", r"bad\.json: not a STAC document"),
        (b"null", r"bad\.json: not a STAC document"),
        (b'"text"', r"bad\.json: not a STAC document"),
    ],
)
def test_what_is_no_document(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_document(str(tmp_path / "bad.json"))


# --- bytes ------------------------------------------------------------------------------------------


def test_what_is_not_there(tmp_path: Path, proxy: FaultProxy, s3_bucket: Bucket) -> None:
    (tmp_path / "file").write_bytes(b"")
    for source in (tmp_path / "none.json", tmp_path / "file" / "none.json", tmp_path, f"file://{tmp_path}/none.json"):
        with pytest.raises(InputError, match="file not found"):
            read_bytes(str(source))
    with pytest.raises(InputError, match=r"none\.json: file not found \(404 .*Check the address"):
        read_bytes(f"{proxy.url}/none.json")
    assert proxy.total == 1
    with pytest.raises(InputError, match=r"s3://.*/none\.json: file not found"):
        read_bytes(f"{s3_bucket.url}/none.json")


def test_what_may_not_be_read(proxy: FaultProxy, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy.answer(403, times=None)
    with pytest.raises(InputError, match=r"catalog\.json: access refused \(403 .*Check that the file is public"):
        read_bytes(f"{proxy.url}/a%20b/catalog.json")
    assert proxy.total == 1
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="a.json", Body=CONTENT)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=rf"{s3_bucket.url}/a\.json: access refused .*Check AWS credentials"):
        read_bytes(f"{s3_bucket.url}/a.json")


@pytest.mark.parametrize("fault", ["408", "429", "500", "503", "truncate", "reset"])
def test_faults_that_pass(proxy: FaultProxy, fault: str) -> None:
    if fault.isdigit():
        proxy.answer(int(fault), times=2)
    else:
        getattr(proxy, fault)(times=2)
    assert read_bytes(f"{proxy.url}/a%20b/catalog.json") == CONTENT
    assert proxy.total == 3


def test_a_server_is_asked_again_when_it_says(proxy: FaultProxy) -> None:
    proxy.answer(503, times=1, retry_after=2)
    assert read_bytes(f"{proxy.url}/a%20b/catalog.json") == CONTENT
    first, second = proxy.seen
    assert second.at - first.at >= 1.99


def test_faults_that_stay(proxy: FaultProxy) -> None:
    proxy.truncate(keep=10, times=None)
    with pytest.raises(SourceError, match=r"catalog\.json: could not be read .*Check the network, or run again"):
        read_bytes(f"{proxy.url}/a%20b/catalog.json")
    assert proxy.total == ATTEMPTS


@pytest.mark.slow
def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SourceError, match=rf"http://127\.0\.0\.1:{port}/a\.json: could not be read"):
        read_bytes(f"http://127.0.0.1:{port}/a.json")


def test_many_at_once(tmp_path: Path, proxy: FaultProxy, s3_bucket: Bucket) -> None:
    for number in range(40):
        (tmp_path / f"{number}.json").write_text(str(number))
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=f"{number}.json", Body=str(number).encode())
    start = threading.Barrier(8)

    def read(source: str) -> bytes:
        if source.endswith(tuple(f"/{n}.json" for n in range(8))):
            start.wait(30)
        return read_bytes(source)

    with ThreadPoolExecutor(8) as pool:
        for root in (proxy.url, s3_bucket.url):
            assert [int(found) for found in pool.map(read, [f"{root}/{n}.json" for n in range(40)])] == list(range(40))
    assert proxy.total == 40
