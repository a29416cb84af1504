"""Addresses: which are local, what they name, and how GDAL is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from clay_assets.errors import InputError
from clay_assets.sources.downloads import fetch, read_bytes, size_of
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import open_store
from clay_assets.transport.locations import (
    gdal_path,
    host_of,
    is_http,
    is_remote,
    is_s3,
    join,
    local_path,
    name_of,
    s3_address_of,
    split_s3,
    version_of,
    web_address,
)
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.rasters import raster

PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
ODD = "a b/50% of #1?x=1&y=ä.tif"  # what an S3 key and a file may be called

# --- local ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "path"),
    [
        pytest.param("/disk/a.tif", "/disk/a.tif", id="path"),
        pytest.param("/disk/50%25 #1?.tif", "/disk/50%25 #1?.tif", id="path, which is never decoded"),
        pytest.param("file:///disk/a.tif", "/disk/a.tif", id="file"),
        pytest.param("file://localhost/disk/a.tif", "/disk/a.tif", id="localhost"),
        pytest.param("file:///disk/a%20b/50%25%20%231%3F%C3%A4.tif", "/disk/a b/50% #1?ä.tif", id="encoded"),
        pytest.param("file:/disk/a%20b.tif", "/disk/a b.tif", id="one slash"),
        pytest.param("FILE://LocalHost/disk/a.tif", "/disk/a.tif", id="capitals"),
        pytest.param("file:///disk/a b#1?ä.tif", "/disk/a b#1?ä.tif", id="not encoded"),
        pytest.param("file:///disk/%E4.tif", "/disk/\udce4.tif", id="bytes that are not UTF-8"),
    ],
)
def test_a_local_address_names_a_path(href: str, path: str) -> None:
    assert local_path(href) == Path(path)
    assert gdal_path(href) == path
    assert name_of(href) == Path(path).name
    assert host_of(href) == ""
    assert not any(said(href) for said in (is_remote, is_http, is_s3))


def test_a_path_may_be_relative_or_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_path("a/b.tif") == tmp_path / "a" / "b.tif"
    assert local_path("~/b.tif") == tmp_path / "home" / "b.tif"
    assert gdal_path("~/b.tif") == str(tmp_path / "home" / "b.tif")


@pytest.mark.parametrize("host", ["server", "localhost:8080", "127.0.0.1"])
def test_a_file_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(InputError, match=rf"^file://{host}/a\.tif: not a file of this machine\. Write file:///"):
        local_path(f"file://{host}/a.tif")


@pytest.mark.parametrize("href", ["s3://bucket/a.tif", "https://example.com/a.tif", "gs://bucket/a.tif", "ftp://a/b"])
def test_what_is_not_local_is_no_path(href: str) -> None:
    with pytest.raises(InputError, match=r"unsupported location .*Use a path, file://, s3:// or https://"):
        local_path(href)


@pytest.mark.parametrize(
    ("href", "key", "version"),
    [
        (
            "s3://bucket/a/b.tif?versionId=3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY",
            "a/b.tif",
            "3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY",
        ),
        ("s3://bucket/a#1?x=y.tif?versionId=null", "a#1?x=y.tif", "null"),
        ("s3://bucket/a.tif", "a.tif", None),
        ("https://example.com/a.tif?versionId=1", "a.tif", None),  # part of a web address, which is sent whole
    ],
)
def test_an_s3_address_may_name_a_version(href: str, key: str, version: str | None) -> None:
    assert version_of(href) == version
    assert name_of(href) == Path(key).name
    if is_s3(href):
        assert split_s3(href) == ("bucket", key)


@pytest.mark.parametrize("as_url", [False, True], ids=["path", "file"])
def test_a_file_of_any_name_is_read_alike(tmp_path: Path, as_url: bool) -> None:
    path = tmp_path / ODD
    path.parent.mkdir()
    raster(path, PIXELS)
    href = path.as_uri() if as_url else str(path)
    assert "%23" in href if as_url else "#" in href
    assert read_bytes(href) == path.read_bytes()
    with open_raster(href) as source:
        assert (source.read(1) == PIXELS).all()
    assert open_store(path.parent.as_uri() if as_url else path.parent).read(path.name) == path.read_bytes()


# --- S3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "bucket", "key"),
    [
        ("s3://bucket/a/b.tif", "bucket", "a/b.tif"),
        (f"s3://bucket/{ODD}", "bucket", ODD),
        ("s3://bucket/%20//b", "bucket", "%20//b"),
        ("s3://bucket/a?versionId", "bucket", "a?versionId"),
        ("s3://bucket/a/", "bucket", "a/"),
        ("s3://bucket", "bucket", ""),
    ],
)
def test_an_s3_address_is_bucket_and_key_as_they_are(href: str, bucket: str, key: str) -> None:
    assert split_s3(href) == s3_address_of(href) == (bucket, key)
    assert host_of(href) == bucket
    assert gdal_path(href) == f"/vsis3/{href.removeprefix('s3://')}"
    assert is_s3(href)
    assert is_remote(href)


def test_an_object_of_any_name_is_read_alike(s3_bucket: Bucket, tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", PIXELS)
    s3_bucket.client.upload_file(str(tmp_path / "a.tif"), s3_bucket.name, ODD)
    href = f"{s3_bucket.url}/{ODD}"
    assert name_of(href) == Path(ODD).name
    assert read_bytes(href) == (tmp_path / "a.tif").read_bytes()
    with open_raster(href) as source:
        assert (source.read(1) == PIXELS).all()


@pytest.mark.parametrize(
    ("href", "address"),
    [
        ("https://nz-imagery.s3.ap-southeast-2.amazonaws.com/a/b.tiff", ("nz-imagery", "a/b.tiff")),
        ("https://nz-imagery.s3.amazonaws.com/a%20b/%23.tiff", ("nz-imagery", "a b/#.tiff")),
        ("https://naip-analytic.s3-us-west-2.amazonaws.com/a.tif", ("naip-analytic", "a.tif")),
        ("https://a.dotted.name.s3.dualstack.us-west-2.amazonaws.com/a.tif", ("a.dotted.name", "a.tif")),
        ("https://bucket.s3.amazonaws.com//a", ("bucket", "/a")),
        ("https://bucket.s3.amazonaws.com/a?X-Amz-Signature=1", None),  # is read with its signature
        ("http://bucket.s3.amazonaws.com/a", None),
        ("https://bucket.s3.amazonaws.com.example.com/a", None),
        ("https://bucket.s3.amazonaws.com@example.com/a", None),
        ("https://buckets3.amazonaws.com/a", None),
        ("https://ec2.amazonaws.com/a", None),
        ("/disk/bucket.s3.amazonaws.com/a", None),
    ],
)
def test_files_that_aws_serves_by_https_are_in_s3(href: str, address: tuple[str, str] | None) -> None:
    assert s3_address_of(href) == address


# --- the web --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "host", "name"),
    [
        ("https://example.com/a/b.tif", "example.com", "b.tif"),
        ("http://Example.com:8080/a%20b.tif?sig=/x#y", "example.com:8080", "a b.tif"),
        ("https://good.org@example.com/b.tif", "example.com", "b.tif"),
        ("https://example.com", "example.com", ""),
    ],
)
def test_a_web_address_has_a_host_and_a_name(href: str, host: str, name: str) -> None:
    assert (host_of(href), name_of(href)) == (host, name)
    assert gdal_path(href) == f"/vsicurl/{href}"
    assert is_http(href)
    assert is_remote(href)


@pytest.mark.parametrize(
    ("href", "sent"),
    [
        ("https://example.com/a b/ä.tif", "https://example.com/a%20b/%C3%A4.tif"),
        ("https://example.com/a b/%23%C3%A4.tif?x=1 2", "https://example.com/a%20b/%23%C3%A4.tif?x=1%202"),
        ("https://example.com/50% of.tif", "https://example.com/50%25%20of.tif"),
        ("https://example.com/a%20b/%23.tif?sig=a%2Fb#c", "https://example.com/a%20b/%23.tif?sig=a%2Fb#c"),
    ],
)
def test_a_web_address_is_sent_as_a_url(href: str, sent: str) -> None:
    assert web_address(href) == sent
    assert gdal_path(href) == f"/vsicurl/{sent}"


def test_a_file_of_any_name_is_read_alike_on_the_web(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> None:
    (tmp_path / ODD).parent.mkdir()
    raster(tmp_path / ODD, PIXELS)
    root = file_server(tmp_path).url
    for written in (quote(ODD), ODD.replace("%", "%25").replace("#", "%23").replace("?", "%3F")):
        href = f"{root}/{written}"
        assert read_bytes(href) == (tmp_path / ODD).read_bytes()
        assert size_of(href) == (tmp_path / ODD).stat().st_size
        fetch(href, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == (tmp_path / ODD).read_bytes()
        assert name_of(href) == Path(ODD).name
        with open_raster(href) as source:
            assert (source.read(1) == PIXELS).all()


@pytest.mark.parametrize("folder", ["/disk/a", "/disk/a/", "s3://bucket/a", "https://example.com/a/"])
def test_a_name_is_joined_to_a_folder(folder: str) -> None:
    assert join(folder, "b.tif") == f"{folder.rstrip('/')}/b.tif"


def test_names_that_gdal_knows_stay_as_they_are() -> None:
    assert gdal_path("/vsizip/a.zip/b.tif") == "/vsizip/a.zip/b.tif"
