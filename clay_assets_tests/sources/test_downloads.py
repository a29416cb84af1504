"""Single files from elsewhere: fetched once, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clay_assets.errors import InputError, SourceError
from clay_assets.sources.downloads import exists_on_web, fetch, local_copy, names_in, size_of
from clay_assets.storage.stores import LocalStore, open_store
from clay_assets.transport.retries import ATTEMPTS
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def proxy(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> FaultProxy:
    (tmp_path / "web" / "a").mkdir(parents=True)
    (tmp_path / "web" / "a" / "grid.kml").write_bytes(CONTENT)
    return fault_proxy(file_server(tmp_path / "web").url)


def test_a_local_file_is_taken_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "grid.kml"
    path.write_bytes(CONTENT)
    for source in (str(path), f"file://{path}"):
        with local_copy(source, LocalStore(tmp_path / "store"), "source") as found:
            assert found == path
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match=r"nowhere\.kml: file not found"), local_copy("nowhere.kml"):
        pass


def test_a_file_is_fetched_once_and_kept(proxy: FaultProxy, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for _ in range(3):
        with local_copy(f"{proxy.url}/a/grid.kml", store, "source") as path:
            assert path.name == "grid.kml"
            assert path.read_bytes() == CONTENT
        assert not path.exists()
    assert proxy.total == 1
    assert len(store.list("source")) == 1


def test_without_a_store_nothing_is_kept(proxy: FaultProxy) -> None:
    for _ in range(2):
        with local_copy(f"{proxy.url}/a/grid.kml") as path:
            assert path.read_bytes() == CONTENT
    assert proxy.total == 2


def test_two_sources_of_one_name_are_kept_apart(proxy: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "web" / "b").mkdir()
    (tmp_path / "web" / "b" / "grid.kml").write_bytes(b"another")
    store = LocalStore(tmp_path / "store")
    with local_copy(f"{proxy.url}/a/grid.kml", store, "source"):
        pass
    with local_copy(f"{proxy.url}/b/grid.kml", store, "source") as path:
        assert path.read_bytes() == b"another"


def test_from_s3_and_kept_on_s3(s3_bucket: Bucket) -> None:
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="in/sample.fgb", Body=CONTENT)
    store = open_store(f"{s3_bucket.url}/out")
    for _ in range(2):
        with local_copy(f"{s3_bucket.url}/in/sample.fgb", store, "source") as path:
            assert path.read_bytes() == CONTENT
        s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key="in/sample.fgb")
    with pytest.raises(InputError, match="file not found"), local_copy(f"{s3_bucket.url}/in/none.fgb"):
        pass


def test_what_is_not_there_is_said_at_once(proxy: FaultProxy, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with (
        pytest.raises(InputError, match=r"nothing\.kml: file not found \(404 .*Check the address"),
        local_copy(f"{proxy.url}/nothing.kml", store, "source"),
    ):
        pass
    assert proxy.total == 1
    assert store.list("source") == {}


@pytest.mark.parametrize("fault", ["503", "429", "truncate", "reset"])
def test_passing_faults_are_tried_again(proxy: FaultProxy, tmp_path: Path, fault: str) -> None:
    if fault.isdigit():
        proxy.answer(int(fault), times=1)
    else:
        getattr(proxy, fault)(times=1)
    fetch(f"{proxy.url}/a/grid.kml", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert proxy.total == 2


def test_retry_after_is_honoured(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.answer(429, times=1, retry_after=2)
    proxy.answer(503, times=1, retry_after="tomorrow")  # not a time: our own back-off
    fetch(f"{proxy.url}/a/grid.kml", tmp_path / "got")
    first, second, _ = proxy.seen
    assert second.at - first.at >= 1.99


def test_faults_that_stay_end_in_words_and_keep_nothing(proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.truncate(keep=1000, times=None)
    store = LocalStore(tmp_path / "store")
    with (
        pytest.raises(SourceError, match=r"grid\.kml: could not be read .*Check the network"),
        local_copy(f"{proxy.url}/a/grid.kml", store, "source"),
    ):
        pass
    assert proxy.total == ATTEMPTS
    assert store.list("source") == {}


# --- sizes, and names in a folder -------------------------------------------------------------------


@pytest.fixture(params=["folder", "web", "s3"])
def source(request: pytest.FixtureRequest, proxy: FaultProxy, tmp_path: Path) -> str:
    """Address of the file in a folder, on a web server or in a bucket."""
    if request.param == "folder":
        return str(tmp_path / "web" / "a" / "grid.kml")
    if request.param == "web":
        return f"{proxy.url}/a/grid.kml"
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    bucket.client.put_object(Bucket=bucket.name, Key="a/grid.kml", Body=CONTENT)
    return f"{bucket.url}/a/grid.kml"


def test_the_size_of_a_file_is_known_without_reading_it(source: str, proxy: FaultProxy) -> None:
    assert size_of(source) == len(CONTENT)
    assert {seen.method for seen in proxy.seen} <= {"HEAD"}
    with pytest.raises(InputError, match=r"/none\.kml: file not found"):
        size_of(source.replace("grid.kml", "none.kml"))


def test_a_server_that_does_not_tell_a_size_is_named(proxy: FaultProxy) -> None:
    proxy.answer(200, headers={"Content-Length": ""}, method="HEAD")
    with pytest.raises(InputError, match=r'grid\.kml: the server does not send the size .*Use imagery = "reference"'):
        size_of(f"{proxy.url}/a/grid.kml")


def test_a_file_exists_on_the_web_or_not_and_is_not_read(proxy: FaultProxy) -> None:
    assert exists_on_web(f"{proxy.url}/a/grid.kml")
    assert not exists_on_web(f"{proxy.url}/a/none.kml")
    assert {seen.method for seen in proxy.seen} == {"HEAD"}


@pytest.fixture(params=["folder", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with files in it and below it, and an empty one below it."""
    names = ["b.json", "a#1 ?.tif", "below/c.tif", "below/deep/d.tif"]
    if request.param == "folder":
        for name in names:
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_bytes(b"x")
        (tmp_path / "root" / "empty.tif").mkdir()
        return str(tmp_path / "root")
    bucket: Bucket = request.getfixturevalue("s3_bucket")
    for name in ("", *names, "empty.tif/"):  # as consoles make folders
        bucket.client.put_object(Bucket=bucket.name, Key=f"root/{name}", Body=b"x" if name else b"")
    bucket.client.put_object(Bucket=bucket.name, Key="rootless/e.tif", Body=b"x")
    return f"{bucket.url}/root"


@pytest.mark.slow
def test_names_in_a_folder_are_those_of_files(folder: str) -> None:
    assert names_in(folder) == ["a#1 ?.tif", "b.json"]
    assert names_in(f"{folder}/", suffix=".tif") == ["a#1 ?.tif"]
    assert names_in(folder, recursive=True, suffix=".tif") == ["a#1 ?.tif", "below/c.tif", "below/deep/d.tif"]


def test_a_whole_bucket_is_listed(s3_bucket: Bucket) -> None:
    for number in range(3):
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=f"{number}", Body=b"")
    assert names_in(s3_bucket.url) == names_in(f"{s3_bucket.url}/", recursive=True) == ["0", "1", "2"]


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("name", ["none", "file"])
def test_what_is_no_folder_cannot_be_listed(tmp_path: Path, name: str, recursive: bool) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{tmp_path}/{name}: cannot be listed .*Check the path"):
        names_in(str(tmp_path / name), recursive=recursive)
