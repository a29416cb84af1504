"""Which files are read for each scene, and copies of them: complete, resumable, and with the access of the source."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clay_assets.errors import InputError, StorageError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform
from clay_assets.scenes.imagery import Imagery, readable_items
from clay_assets.storage.stores import LocalStore, Store, open_store
from clay_assets.transport.access import Access, Keys
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.scenes.items import (
    LANDSAT_ASSETS,
    LANDSAT_L2,
    SENTINEL_2,
    SENTINEL_2_ASSETS,
    failed_share,
    landsat_item,
    sentinel_2_item,
)
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

WHEN = "2020-02-01T10:00:00Z"
PLAIN = replace(PLATFORMS[LANDSAT_L2], files=replace(PLATFORMS[LANDSAT_L2].files, access=()))


def accessed(*ways: Access) -> AnyPlatform:
    """The platform with only these ways of access."""
    return replace(PLAIN, files=replace(PLAIN.files, access=ways))


def settle(
    items: list[dict[str, Any]], store: Store, platform: AnyPlatform = PLAIN, imagery: str = "copy", workers: int = 2
) -> Imagery:
    with ThreadPoolExecutor(workers) as pool:
        return readable_items(platform, items, platform.rules.options(imagery=imagery), store, pool, 2 * workers)


def content(item_id: str, name: str) -> bytes:
    return f"{item_id}/{name} ".encode() * 500


def scenes(root: str, *names: str) -> list[dict[str, Any]]:
    """Items whose files lie below an address."""
    items = []
    for item_id in names:
        item = landsat_item(item_id, WHEN)
        for name, asset in item["assets"].items():
            asset["href"] = f"{root}/{item_id}/{name}.tif"
        items.append(item)
    return items


def fill(folder: Path, *names: str) -> list[dict[str, Any]]:
    for item_id in names:
        (folder / item_id).mkdir(parents=True, exist_ok=True)
        for name in LANDSAT_ASSETS:
            (folder / item_id / f"{name}.tif").write_bytes(content(item_id, name))
    return scenes(str(folder), *names)


def fill_bucket(bucket: Bucket, prefix: str, *names: str, other: str | None = None) -> list[dict[str, Any]]:
    """Put scenes into the bucket, or into another one of the same server."""
    for item_id in names:
        for name in LANDSAT_ASSETS:
            key = f"{prefix}/{item_id}/{name}.tif"
            bucket.client.put_object(Bucket=other or bucket.name, Key=key, Body=content(item_id, name))
    return scenes(f"s3://{other or bucket.name}/{prefix}", *names)


def assert_copied(imagery: Imagery, store: Store, *names: str) -> None:
    assert [item["id"] for item in imagery.items] == sorted(names)
    for item in imagery.items:
        for name, asset in item["assets"].items():
            key = f"imagery/{LANDSAT_L2}/{item['id']}/{name}.tif"
            assert asset["href"] == store.uri(key)
            assert store.read(key) == content(item["id"], name)
    good = imagery.ledger[imagery.ledger["outcome"] == "copied"]
    assert good["files"].tolist() == [len(LANDSAT_ASSETS)] * len(names)
    row: Any
    for row in good.itertuples():
        assert row.bytes == sum(len(content(row.item_id, name)) for name in LANDSAT_ASSETS)


# --- reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("imagery", ["reference", "copy"])
def test_a_relative_href_is_not_that_of_another_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imagery: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.tif").write_bytes(b"another")
    good, bad = fill(tmp_path / "files", "a", "b")
    bad["assets"]["red"] = {"href": "./red.tif", "alternate": "none"}
    found = settle([good, bad], LocalStore(tmp_path / "storage"), imagery=imagery)
    assert [item["id"] for item in found.items] == ["a"]
    assert found.ledger["outcome"].tolist() == [{"reference": "referenced", "copy": "copied"}[imagery], "failed"]
    assert found.ledger["error"][1].startswith("./red.tif: relative href without a base address.")


def test_landsat_is_read_from_its_s3_address(tmp_path: Path) -> None:
    item = landsat_item("a", WHEN)
    for name, asset in item["assets"].items():
        s3 = {"href": f"s3://usgs-landsat/a/{name}.TIF", "storage:requester_pays": True}
        asset["alternate"] = {"s3": s3, "download": {"href": "https://elsewhere.org"}}
    del item["assets"]["red"]["alternate"]
    settled = settle([item], LocalStore(tmp_path), PLATFORMS[LANDSAT_L2], "reference")
    hrefs = {name: asset["href"] for name, asset in settled.items[0]["assets"].items()}
    assert hrefs == {name: f"s3://usgs-landsat/a/{name}.TIF" for name in LANDSAT_ASSETS} | {
        "red": "https://example.com/a/red.tif"
    }
    assert all("alternate" not in asset for asset in settled.items[0]["assets"].values())
    assert "alternate" in item["assets"]["blue"]  # the picked item is not modified
    assert settled.ledger.to_dict("records")[0] | {"note": None, "error": None} == {
        "item_id": "a",
        "outcome": "referenced",
        "files": 0,
        "bytes": 0,
        "note": None,
        "error": None,
    }
    assert settled.ledger[["note", "error"]].isna().all(axis=None)
    assert list(tmp_path.iterdir()) == []


def test_sentinel_2_is_read_where_the_catalogue_says(tmp_path: Path) -> None:
    item = sentinel_2_item("a", WHEN)
    settled = settle([item], LocalStore(tmp_path), PLATFORMS[SENTINEL_2], "reference")
    hrefs = {name: asset["href"] for name, asset in settled.items[0]["assets"].items()}
    assert hrefs == {name: f"https://example.com/a/{name}.tif" for name in SENTINEL_2_ASSETS}


@pytest.mark.parametrize("bucket", ["naip-analytic", "naip-visualization"])
def test_naip_is_read_from_the_bucket_that_the_recipe_names(tmp_path: Path, bucket: str) -> None:
    naip = PLATFORMS["naip"]
    href = (
        "https://naipeuwest.blob.core.windows.net/naip/v002/al/2021/al_030cm_2021/30085/m_3008501_ne_16_1_20211103.tif"
    )
    item = {**landsat_item("a", WHEN), "assets": {"image": {"href": href}}}
    with ThreadPoolExecutor(1) as pool:
        settled = readable_items(naip, [item], naip.rules.options(source=bucket), LocalStore(tmp_path), pool, 1)
    (read,) = [asset["href"] for asset in settled.items[0]["assets"].values()]
    assert read.startswith(f"s3://{bucket}/al/2021/30cm/")
    assert naip.access_to(read) == Access(requester_pays=True, hosts=("naip-analytic", "naip-visualization"))
    assert item["assets"]["image"]["href"] == href


def test_derived_images_are_asked_only_of_platforms_that_have_them(tmp_path: Path) -> None:
    derived, items = PLATFORMS["linz"].rules.options(imagery="derived"), fill(tmp_path / "source", "a")
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(InputError, match='landsat-c2l2-sr: imagery = "derived" is not available'),
    ):
        readable_items(PLAIN, items, derived, LocalStore(tmp_path / "store"), pool, 1)


# --- copies -----------------------------------------------------------------------------------------


def test_from_a_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    imagery = settle(fill(tmp_path / "source", "b", "a"), store)
    assert_copied(imagery, store, "a", "b")
    assert imagery.written == 2 * len(LANDSAT_ASSETS)
    assert failed_share(imagery) == 0


def test_what_is_there_is_kept_and_what_differs_is_copied_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    items = fill(tmp_path / "source", "a", "b")
    first = settle(items, store)
    kept = tmp_path / "store" / f"imagery/{LANDSAT_L2}/a/red.tif"
    before = kept.stat().st_mtime_ns
    again = settle(items, store)
    assert again.written == 0
    assert again.items == first.items
    assert again.ledger.equals(first.ledger)
    assert kept.stat().st_mtime_ns == before
    kept.write_bytes(b"half a fi")
    assert settle(items, store).written == 1
    assert_copied(settle(items, store), store, "a", "b")


def test_a_scene_with_a_missing_file_is_set_aside(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    items = fill(tmp_path / "source", "a", "b", "c")
    (tmp_path / "source" / "b" / "qa_pixel.tif").unlink()
    imagery = settle(items, store)
    assert [item["id"] for item in imagery.items] == ["a", "c"]
    row = imagery.ledger.set_index("item_id").loc["b"]
    assert row["outcome"] == "failed"
    assert "b/qa_pixel.tif: file not found" in row["error"]
    assert failed_share(imagery) == pytest.approx(1 / 3)


def test_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    [item] = fill(tmp_path / "source", "a")
    for number, name in enumerate(("red", "blue")):
        path = tmp_path / "source" / "a" / f"R{number}0m" / "B.tif"
        path.parent.mkdir()
        path.write_bytes(name.encode() * 7)
        item["assets"][name]["href"] = str(path)
    settled = settle([item], LocalStore(tmp_path / "store"))
    assert {n: Path(settled.items[0]["assets"][n]["href"]).read_bytes() for n in ("red", "blue")} == {
        "red": b"red" * 7,
        "blue": b"blue" * 7,
    }
    assert settle([item], LocalStore(tmp_path / "store")).written == 0


def test_storage_that_cannot_be_written_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="Check that CLAY_STORAGE is a writable folder"):
        settle(fill(tmp_path / "source", "a", "b"), LocalStore(tmp_path / "store"))


@pytest.fixture
def web(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> FaultProxy:
    """A web server with the scenes a, b and c."""
    fill(tmp_path / "source", "a", "b", "c")
    return fault_proxy(file_server(tmp_path / "source").url)


def test_from_the_web(web: FaultProxy, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    assert_copied(settle(scenes(web.url, "a", "b", "c"), store), store, "a", "b", "c")
    web.clear()
    assert settle(scenes(web.url, "a", "b", "c"), store).written == 0
    assert {seen.method for seen in web.seen} == {"HEAD"}


@pytest.mark.parametrize("fault", ["truncate", "reset", "503"])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_passing_faults_of_the_web_are_tried_again(web: FaultProxy, tmp_path: Path, fault: str, method: str) -> None:
    if fault.isdigit():
        web.answer(int(fault), times=1, method=method)
    elif (fault, method) != ("truncate", "HEAD"):
        getattr(web, fault)(times=1, method=method)
    store = LocalStore(tmp_path / "store")
    assert_copied(settle(scenes(web.url, "a"), store), store, "a")


def test_a_body_that_always_breaks_off_sets_the_scene_aside(web: FaultProxy, tmp_path: Path) -> None:
    web.truncate(keep=50, times=None, path="b/qa_pixel", method="GET")
    store = LocalStore(tmp_path / "store")
    imagery = settle(scenes(web.url, "a", "b", "c"), store)
    assert [item["id"] for item in imagery.items] == ["a", "c"]
    assert "b/qa_pixel.tif: could not be read" in imagery.ledger["error"].iloc[1]
    assert store.size(f"imagery/{LANDSAT_L2}/b/qa_pixel.tif") is None
    web.clear()
    assert settle(scenes(web.url, "a", "b", "c"), store).written == 1


def test_what_the_web_does_not_have_is_set_aside(web: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "source" / "b" / "red.tif").unlink()
    imagery = settle(scenes(web.url, "a", "b"), LocalStore(tmp_path / "store"))
    assert imagery.ledger["outcome"].tolist() == ["copied", "failed"]
    assert "404" in imagery.ledger["error"].iloc[1]


class TokenSigner:
    """Signs with its own token; counts how often a token was reported as refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def sign(self, href: str) -> str:
        return f"{href}?sv=1&sig=secret{len(self.refused)}"

    def forget(self, address: str) -> None:
        self.refused.append(address)


def test_signed_addresses_are_used_and_not_stored(web: FaultProxy, tmp_path: Path) -> None:
    signer = TokenSigner()
    signing = PLAIN.with_access(Access(signer=signer, hosts=(web.url.removeprefix("http://"),)))
    store = LocalStore(tmp_path / "store")
    imagery = settle(scenes(web.url, "a"), store, signing)
    assert_copied(imagery, store, "a")
    assert all(seen.path.endswith("?sv=1&sig=secret0") for seen in web.seen)
    assert "secret" not in repr(imagery)
    assert signer.refused == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_refused_address_is_signed_anew_once(web: FaultProxy, tmp_path: Path, method: str) -> None:
    signer = TokenSigner()
    signing = accessed(Access(signer=signer))
    web.answer(403, times=None, path="secret0", method=method)
    store = LocalStore(tmp_path / "store")
    assert_copied(settle(scenes(web.url, "a"), store, signing, workers=1), store, "a")
    assert signer.refused == [f"{web.url}/a/red.tif?sv=1&sig=secret0"]
    web.answer(403, times=None, path="b/red")
    imagery = settle(scenes(web.url, "b"), store, signing)
    assert imagery.ledger["outcome"].tolist() == ["failed"]
    assert f"{web.url}/b/red.tif: access refused (403" in imagery.ledger["error"][0]
    assert len(signer.refused) == 2
    assert "secret" not in repr(imagery.ledger.to_dict())


def test_without_a_signer_what_is_refused_is_asked_once(web: FaultProxy, tmp_path: Path) -> None:
    web.answer(403, times=None, path="a/red")
    imagery = settle(scenes(web.url, "a"), LocalStore(tmp_path / "store"))
    assert "a/red.tif: access refused (403" in imagery.ledger["error"][0]
    assert [seen.path for seen in web.seen] == ["/a/red.tif"]


def test_each_place_is_reached_in_its_own_way(web: FaultProxy, tmp_path: Path) -> None:
    """NAIP's images are signed on one host, and requester-pays in buckets."""
    ways = (Access(signer=TokenSigner(), hosts=("signed.example.com",)), Access(unsigned=True))
    store = LocalStore(tmp_path / "store")
    assert_copied(settle(scenes(web.url, "a"), store, accessed(*ways)), store, "a")
    assert not any("sig=" in seen.path for seen in web.seen)


# --- S3 ---------------------------------------------------------------------------------------------


@pytest.fixture
def s3(s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the S3 server; the AWS environment variables point to it."""
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return proxy


def test_between_buckets_the_server_copies(s3: FaultProxy, s3_bucket: Bucket) -> None:
    items = fill_bucket(s3_bucket, "in", "a", "b")
    big = bytes(9 << 20)
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="in/a/red.tif", Body=big)  # copied in parts
    store = open_store(f"{s3_bucket.url}/out")
    imagery = settle(items, store)
    assert imagery.ledger["outcome"].tolist() == ["copied", "copied"]
    assert {seen.method for seen in s3.seen} <= {"HEAD", "PUT", "POST"}  # no GET: no data was downloaded
    puts = [seen for seen in s3.seen if seen.method == "PUT"]
    assert all("x-amz-copy-source" in seen.headers for seen in puts)
    assert all(int(seen.headers.get("content-length", 0)) == 0 for seen in puts)
    assert store.size(f"imagery/{LANDSAT_L2}/a/red.tif") == len(big)
    assert store.read(f"imagery/{LANDSAT_L2}/b/red.tif") == content("b", "red")
    assert imagery.items[1]["assets"]["red"]["href"] == f"{s3_bucket.url}/out/imagery/{LANDSAT_L2}/b/red.tif"
    assert settle(items, store).written == 0
    store.write(f"imagery/{LANDSAT_L2}/b/red.tif", b"short")
    assert settle(items, store).written == 1


def test_from_s3_to_a_folder(s3: FaultProxy, s3_bucket: Bucket, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    s3.answer(503, times=1, method="GET")
    assert_copied(settle(fill_bucket(s3_bucket, "in", "a", "b"), store), store, "a", "b")


@pytest.mark.parametrize("to_s3", [True, False])
def test_landsat_says_that_the_requester_pays(s3: FaultProxy, s3_bucket: Bucket, tmp_path: Path, to_s3: bool) -> None:
    source = s3_bucket.server.new_bucket("usgs-landsat")
    items = fill_bucket(s3_bucket, f"in-{s3_bucket.name}", "a", other=source)
    store = open_store(f"{s3_bucket.url}/out") if to_s3 else LocalStore(tmp_path)
    assert_copied(settle(items, store, PLATFORMS[LANDSAT_L2]), store, "a")
    of_the_source = [seen for seen in s3.seen if source in seen.path or "x-amz-copy-source" in seen.headers]
    assert len(of_the_source) >= 2 * len(LANDSAT_ASSETS)
    assert {seen.headers.get("x-amz-request-payer") for seen in of_the_source} == {"requester"}


@pytest.mark.parametrize("platform", [PLAIN, PLATFORMS[LANDSAT_L2]], ids=["another platform", "another bucket"])
def test_others_do_not(s3: FaultProxy, s3_bucket: Bucket, tmp_path: Path, platform: AnyPlatform) -> None:
    settle(fill_bucket(s3_bucket, "in", "a"), LocalStore(tmp_path), platform)
    assert s3.total
    assert not any("x-amz-request-payer" in seen.headers for seen in s3.seen)


def test_public_buckets_are_read_without_a_signature(s3: FaultProxy, s3_bucket: Bucket, tmp_path: Path) -> None:
    public = s3_bucket.server.new_bucket(f"{s3_bucket.name}-public", public_read=True)
    for name in LANDSAT_ASSETS:
        s3_bucket.client.put_object(Bucket=public, Key=f"in/a/{name}.tif", Body=content("a", name))
    unsigned = accessed(Access(unsigned=True))
    store = LocalStore(tmp_path)
    assert_copied(settle(scenes(f"s3://{public}/in", "a"), store, unsigned), store, "a")
    assert s3.total
    assert not any("authorization" in seen.headers for seen in s3.seen)


def test_missing_and_forbidden_objects_are_set_aside(s3_bucket: Bucket, tmp_path: Path) -> None:
    items = fill_bucket(s3_bucket, "in", "a", "b")
    s3_bucket.client.delete_object(Bucket=s3_bucket.name, Key="in/b/red.tif")
    imagery = settle([*items, *scenes("s3://no-such-bucket-here/in", "c")], LocalStore(tmp_path))
    assert imagery.ledger["outcome"].tolist() == ["copied", "failed", "failed"]
    assert "b/red.tif: file not found" in imagery.ledger["error"].iloc[1]
    unsigned = accessed(Access(unsigned=True))
    refused = settle(items[:1], LocalStore(tmp_path / "other"), unsigned)
    assert "access refused" in refused.ledger["error"].iloc[0]


def test_what_our_keys_may_not_read_passes_through_here(
    s3: FaultProxy, s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server copies with the storage's credentials, so it cannot use those of the source."""
    items = fill_bucket(s3_bucket, "in", "a")
    store = open_store(f"{s3_bucket.url}/out")
    monkeypatch.setenv("THEIR_KEY", s3_bucket.server.access_key)
    monkeypatch.setenv("THEIR_SECRET", s3_bucket.server.secret_key)
    theirs = accessed(Access(keys=Keys("THEIR_KEY", "THEIR_SECRET", endpoint=s3_bucket.server.endpoint_url)))
    assert_copied(settle(items, store, theirs), store, "a")
    assert not any("x-amz-copy-source" in seen.headers for seen in s3.seen)


def test_public_buckets_of_the_same_server_are_copied_by_it(s3: FaultProxy, s3_bucket: Bucket) -> None:
    public = s3_bucket.server.new_bucket(f"{s3_bucket.name}-open", public_read=True)
    items = fill_bucket(s3_bucket, "in", "a", other=public)
    store = open_store(f"{s3_bucket.url}/out")
    assert_copied(settle(items, store, accessed(Access(unsigned=True))), store, "a")
    assert len([seen for seen in s3.seen if "x-amz-copy-source" in seen.headers]) == len(LANDSAT_ASSETS)


# --- a kill -----------------------------------------------------------------------------------------

COPY = """
import sys
from pathlib import Path
from clay_assets_tests.scenes.test_imagery import LocalStore, scenes, settle
settle(scenes(sys.argv[1], *sys.argv[3:]), LocalStore(sys.argv[2]))
"""


def test_after_a_kill_the_rest_is_copied(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> None:
    names = [f"scene-{number}" for number in range(6)]
    fill(tmp_path / "source", *names)
    web = fault_proxy(file_server(tmp_path / "source").url)
    web.delay(0.15)
    folder = tmp_path / "store"
    copying = subprocess.Popen([sys.executable, "-c", COPY, web.url, str(folder), *names])
    deadline = time.monotonic() + 30
    while len(list(folder.glob("imagery/**/*.tif"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    copying.kill()
    copying.wait(10)
    web.clear()
    store = LocalStore(folder)
    there = {key: size for key, size in store.list("imagery").items() if key.endswith(".tif")}
    assert 5 <= len(there) < len(names) * len(LANDSAT_ASSETS)
    for key, size in there.items():  # every file under its final name is complete
        item_id, name = key.split("/")[-2:]
        assert size == len(content(item_id, name.removesuffix(".tif")))
    imagery = settle(scenes(web.url, *names), store)
    assert imagery.written == len(names) * len(LANDSAT_ASSETS) - len(there)
    assert_copied(imagery, store, *names)
