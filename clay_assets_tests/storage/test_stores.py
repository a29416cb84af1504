"""A folder and an S3 prefix behave alike: whole writes, ordered lists, errors that name the place."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

import pytest
from pyarrow import fs

from clay_assets.errors import InputError, StorageError
from clay_assets.storage.stores import ABANDONED_AFTER, DELETE_BATCH, LocalStore, S3Store, Store, open_store
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy


@pytest.fixture(params=["folder", "s3", "s3 without prefix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is opened, empty."""
    if request.param == "folder":
        return str(tmp_path / "data")
    bucket = request.getfixturevalue("s3_bucket")
    return f"{bucket.url}/some/prefix" if request.param == "s3" else bucket.url


@pytest.fixture
def any_store(place: str) -> Store:
    return open_store(place)


@pytest.mark.slow
def test_what_is_written_is_read(any_store: Store, place: str) -> None:
    any_store.write("a/b/c.bin", b"first")
    any_store.write("a/b/c.bin", b"second")
    assert any_store.read("a/b/c.bin") == b"second"
    assert any_store.size("a/b/c.bin") == 6
    assert any_store.exists("a/b/c.bin")
    assert any_store.uri("a/b/c.bin") == f"{place}/a/b/c.bin"
    assert any_store.uri() == place


def test_what_is_not_there(any_store: Store) -> None:
    any_store.write("a/file", b"x")
    for key in ("nothing", "a/nothing", "a/file/below", "a/fil"):
        assert any_store.size(key) is None
        assert not any_store.exists(key)
        with pytest.raises(FileNotFoundError, match=key):
            any_store.read(key)
    assert any_store.list("nothing") == {}


def test_list_is_what_lies_below_a_folder_in_order(any_store: Store) -> None:
    sizes = {"x/b.parquet": 2, "x/a.parquet": 1, "x/y/c.parquet": 3, "x/d.json": 4, "xx/e.parquet": 5, "top": 6}
    for key, size in sizes.items():
        any_store.write(key, b"." * size)
    assert list(any_store.list("x", ".parquet").items()) == [
        ("x/a.parquet", 1),
        ("x/b.parquet", 2),
        ("x/y/c.parquet", 3),
    ]
    assert set(any_store.list("x")) == {"x/a.parquet", "x/b.parquet", "x/d.json", "x/y/c.parquet"}
    assert any_store.list("") == dict(sorted(sizes.items()))


def test_delete(any_store: Store) -> None:
    for key in ("a/1", "a/2", "a/3"):
        any_store.write(key, b"x")
    any_store.delete(["a/1", "a/2", "a/never"])
    assert list(any_store.list("a")) == ["a/3"]
    any_store.delete([])


def test_more_deletes_than_one_call_takes(s3_bucket: Bucket) -> None:
    store = open_store(s3_bucket.url)
    keys = [f"k/{number:05d}" for number in range(DELETE_BATCH + 5)]
    store.write(keys[0], b"x")
    store.write(keys[-1], b"x")
    store.delete(keys)
    assert store.list("") == {}


def test_a_block_that_ends_well_is_seen_whole(any_store: Store) -> None:
    with any_store.writing("a/big") as path:
        path.write_bytes(b"half")
        assert not any_store.exists("a/big")
        with path.open("ab") as file:
            file.write(b" whole")
    assert any_store.read("a/big") == b"half whole"


def test_a_block_that_fails_leaves_what_was_there(any_store: Store) -> None:
    any_store.write("kept", b"old")
    for key in ("kept", "new"):
        with pytest.raises(ValueError, match="half way"), any_store.writing(key) as path:
            _write_half(path)
    assert any_store.read("kept") == b"old"
    assert any_store.list("") == {"kept": 3}


def _write_half(path: Path) -> Never:
    path.write_bytes(b"half")
    raise ValueError("half way")


def test_an_error_of_ours_in_a_block_stays_itself(any_store: Store) -> None:
    with pytest.raises(InputError, match="bad chip"), any_store.writing("new"):
        raise InputError("bad chip")


def test_a_store_can_be_sent_to_another_process(any_store: Store) -> None:
    any_store.write("a", b"before")
    copy = pickle.loads(pickle.dumps(any_store))
    assert copy.read("a") == b"before"
    copy.write("a", b"after")
    assert any_store.read("a") == b"after"


def test_filesystem_shows_the_same_keys(any_store: Store) -> None:
    any_store.write("a/b", b"content")
    files = any_store.filesystem()
    assert files.open_input_file("a/b").read() == b"content"
    assert [info.path for info in files.get_file_info(fs.FileSelector("a"))] == ["a/b"]


# --- a folder ------------------------------------------------------------------------------------------------------


def test_temporary_files_are_no_content(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with store.writing("x.parquet") as path:
        path.write_bytes(b"half")
        assert store.list("", ".parquet") == {}
    assert store.list("") == {"x.parquet": 4}


def test_abandoned_temporary_files_are_swept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"x")
    old, young = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "young"
    for path in (old, young):
        path.write_bytes(b"debris")
    then = time.time() - ABANDONED_AFTER - 60
    os.utime(old, (then, then))
    LocalStore(tmp_path).write("b", b"x")
    assert not old.exists()
    assert young.exists()


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, key in (tmp_path / "file" / "data", "a/b"), (tmp_path, "file/b"):
        with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/file/.*Check that CLAY_STORAGE"):
            LocalStore(folder).write(key, b"x")


def test_a_folder_in_the_way_cannot_be_replaced(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a/b", b"x")
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/a: "):
        store.write("a", b"y")
    with pytest.raises(StorageError, match=rf"cannot read {tmp_path}/a: "):
        store.read("a")
    assert store.list("") == {"a/b": 1}


def test_home_and_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("data").uri() == str(tmp_path / "data")
    assert open_store(Path("~/data")).uri("x") == str(tmp_path / "home" / "data" / "x")


# --- S3 ------------------------------------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist_is_named(s3_bucket: Bucket) -> None:
    store = open_store("s3://clay-no-such-bucket/prefix")
    for verb, action in (
        ("write", lambda: store.write("a", b"x")),
        ("read", lambda: store.read("a")),
        ("list", lambda: store.list("a")),
    ):
        with pytest.raises(StorageError, match=rf"cannot {verb} s3://clay-no-such-bucket/prefix/a: .*NoSuchBucket"):
            action()


def test_wrong_credentials_are_told(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    store = open_store(s3_bucket.url)
    for action in (lambda: store.read("a"), lambda: store.size("a"), lambda: store.write("a", b"x")):
        with pytest.raises(StorageError, match=rf"{s3_bucket.url}/a: .*credentials"):
            action()


def test_a_server_that_does_not_answer_is_told(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"cannot write s3://bucket/a: .*AWS_ENDPOINT_URL"):
        S3Store("bucket", "").write("a", b"x")


def test_a_server_that_stumbles_is_asked_again(
    s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    store = open_store(s3_bucket.url)
    proxy.answer(503, times=1, method="PUT")
    store.write("a", b"content")
    proxy.answer(500, times=1, method="GET")
    proxy.truncate(3, times=1, method="GET")
    assert store.read("a") == b"content"
    assert [seen.fault for seen in proxy.seen] == ["answer", None, "answer", "truncate", None]


def test_deletes_that_are_refused_are_told(s3_bucket: Bucket) -> None:
    store = open_store(s3_bucket.url)
    store.write("kept/a", b"x")
    deny = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", '
        f'"Resource": "arn:aws:s3:::{s3_bucket.name}/*"}}]}}'
    )
    s3_bucket.client.put_bucket_policy(Bucket=s3_bucket.name, Policy=deny)
    with pytest.raises(StorageError, match=rf"cannot delete {s3_bucket.url}/kept/a: .*AccessDenied"):
        store.delete(["kept/a"])


@pytest.mark.parametrize(
    ("location", "said"), [("s3://", "no bucket in the location"), ("gs://bucket/x", "Use a folder or s3://")]
)
def test_a_location_that_cannot_be_written_to(location: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_store(location)


def test_writing_over_a_version(any_store: Store) -> None:
    """Of two that read the same, one writes."""
    assert any_store.version("a/b") is None
    assert any_store.write_over("a/b", b"one", None)
    first = any_store.version("a/b")
    assert not any_store.write_over("a/b", b"two", None)
    assert any_store.write_over("a/b", b"three", first)
    assert not any_store.write_over("a/b", b"four", first)
    assert any_store.read("a/b") == b"three"
    assert any_store.version("a/b") not in (None, first)
    any_store.delete(["a/b"])
    assert not any_store.write_over("a/b", b"five", first)
    assert any_store.version("a/b") is None
