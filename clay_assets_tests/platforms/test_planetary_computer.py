"""Signed files over the wire: a token service and blob storage that refuses unsigned requests, with the real host names
through a proxy. No signature may remain in anything that is stored or shown.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from clay_assets.chips.cells import FAILED
from clay_assets.chips.index import index_scene
from clay_assets.chips.indexing import index_scenes
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform
from clay_assets.recipes import load_recipe
from clay_assets.scenes.imagery import Imagery, readable_items
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import LocalStore
from clay_assets.transport.access import Access
from clay_assets.transport.signing import BlobSigner, shared_signer
from clay_assets_tests.chips.factories import write_tiff
from clay_assets_tests.servers.blobs import HOST, TOKENS, BlobService
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.process import ServerProcess
from clay_assets_tests.servers.signed import assert_unsigned, signed_blobs

S1, NAIP = "sentinel-1-rtc", "naip"
ACCOUNT, CONTAINER = "sentinel1euwestrtc", "sentinel1-grd-rtc"
PLACE = f"{ACCOUNT}/{CONTAINER}"
ROOT = f"http://{ACCOUNT}{HOST}/{CONTAINER}"
SIDE = 512  # pixels; four chips, and a file too large to be read with its header


@pytest.fixture
def blobs(
    tmp_path: Path, servers_apart: ServerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[BlobService]:
    """The service and the storage; the environment points to them."""
    with signed_blobs(tmp_path / "blobs", servers_apart, monkeypatch, caplog) as service:
        yield service


@pytest.fixture
def tokens(blobs: BlobService, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the token service only."""
    proxy = fault_proxy(blobs.url)
    monkeypatch.setenv("PC_SDK_SAS_URL", proxy.url + TOKENS.rstrip("/"))
    return proxy


def pixels_of(seed: int) -> NDArray[np.float32]:
    """Gamma nought with a share of nodata that differs from chip to chip."""
    power = np.random.default_rng(seed).random((SIDE, SIDE), dtype=np.float32)
    power[: 40 * seed, :256] = -32768
    return power


def scene(tmp_path: Path, name: str, root: str = ROOT) -> dict[str, Any]:
    """A Sentinel-1 item as in the catalogue, with its files in the storage and unsigned hrefs."""
    transform = from_origin(500_000, 100_020, 10, 10)
    for seed, band in enumerate(("vv", "vh"), start=1):
        path = tmp_path / "blobs" / ACCOUNT / CONTAINER / name / f"{band}.tif"
        if not path.exists():
            tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "nodata": -32768}
            write_tiff(path, pixels_of(seed), transform, "EPSG:32632", **tiles)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": S1,
        "geometry": {"type": "Point", "coordinates": [9.0, 0.9]},
        "bbox": [9.0, 0.9, 9.0, 0.9],
        "properties": {
            "datetime": "2020-01-02T05:00:00Z",
            "proj:epsg": 32632,
            "proj:shape": [SIDE, SIDE],
            "proj:transform": list(transform),
        },
        "links": [],
        "assets": {band: {"href": f"{root}/{name}/{band}.tif"} for band in ("vv", "vh")},
    }


def read(href: str) -> NDArray[Any]:
    with open_raster(href, PLATFORMS[S1].access_to(href)) as source:
        pixels: NDArray[Any] = source.read(1)
        return pixels


# --- signatures -----------------------------------------------------------------------------------


def test_a_file_is_read_with_a_signature(blobs: BlobService, tmp_path: Path) -> None:
    href = scene(tmp_path, "a")["assets"]["vv"]["href"]
    np.testing.assert_array_equal(read(href), pixels_of(1))
    np.testing.assert_array_equal(read(href.replace("vv", "vh")), pixels_of(2))
    assert {served.status for served in blobs.served} <= {200, 206}
    assert [(asked.place, asked.key) for asked in blobs.asked] == [(PLACE, None)]


def test_the_storage_refuses_what_is_not_signed(blobs: BlobService, tmp_path: Path) -> None:
    """Otherwise these tests would prove nothing."""
    href = scene(tmp_path, "a")["assets"]["vv"]["href"]
    of_another_container = shared_signer().sign(f"http://{ACCOUNT}{HOST}/another/file.tif").partition("?")[2]
    for query in ("", "?st=1&sig=made-up", f"?{of_another_container}"):
        with pytest.raises(InputError, match="access refused"), open_raster(f"{href}{query}"):
            pass
    assert {served.status for served in blobs.served} == {403}


@pytest.mark.parametrize(
    "href",
    [
        "/disk/vv.tif",
        "s3://naip-analytic/al/2021/a.tif",
        "https://example.com/a.tif",
        f"https://naipeuwest{HOST}.example.com/naip/a.tif",
        f"https://naipeuwest{HOST}@example.com/naip/a.tif",
    ],
)
def test_other_hosts_are_never_asked_about(blobs: BlobService, href: str) -> None:
    for platform in PLATFORMS.values():
        assert platform.access_to(href).address(href) == href
    assert blobs.asked == []


def test_other_accounts_of_that_host_are_read_as_any_file() -> None:
    href = f"https://somebody{HOST}/container/a.tif"
    assert all(platform.access_to(href).signer is None for platform in PLATFORMS.values())
    assert PLATFORMS[NAIP].access_to(f"https://{ACCOUNT}{HOST}/container/a.tif").signer is None


@pytest.mark.slow
@pytest.mark.parametrize("key", [S1, NAIP])
def test_every_file_of_a_real_item_would_be_signed(real_data: Path, key: str) -> None:
    with gzip.open(real_data / "stac" / "items" / f"{key}__planetary-computer.ndjson.gz", "rt") as lines:
        items = [PLATFORMS[key].read_item(json.loads(line)) for line in lines]
    hrefs = [PLATFORMS[key].href(asset) for item in items for asset in item["assets"].values()]
    assert len(hrefs) >= len(items) > 0
    assert all(PLATFORMS[key].access_to(href).signer is shared_signer() for href in hrefs)
    assert not any("?" in href for href in hrefs)  # as stored


# --- signatures that are refused ------------------------------------------------------------------


def test_a_refused_signature_is_replaced_when_a_file_is_opened(blobs: BlobService, tmp_path: Path) -> None:
    scene(tmp_path, "a")
    read(f"{ROOT}/a/vv.tif")
    blobs.revoke()
    np.testing.assert_array_equal(read(f"{ROOT}/a/vh.tif"), pixels_of(2))
    assert len(blobs.asked) == 2


def test_a_signature_is_replaced_once_for_all_threads(blobs: BlobService, tmp_path: Path) -> None:
    names = [f"scene-{number}" for number in range(8)]
    for name in names:
        scene(tmp_path, name)
    shared_signer().sign(f"{ROOT}/a.tif")
    blobs.revoke()
    blobs.refuse_together(3)

    def mean(name: str) -> float:
        return float(read(f"{ROOT}/{name}/vv.tif").mean())

    with ThreadPoolExecutor(len(names)) as pool:
        assert set(pool.map(mean, names)) == {float(pixels_of(1).mean())}
    assert len(blobs.asked) == 2
    assert sum(served.status == 403 for served in blobs.served) >= 3


def test_a_signature_that_ends_while_pixels_are_read(blobs: BlobService, tmp_path: Path) -> None:
    href = scene(tmp_path, "a")["assets"]["vv"]["href"]

    def read_too_late() -> None:
        with open_raster(href, PLATFORMS[S1].access_to(href)) as source:
            blobs.revoke()
            source.read(1)

    with pytest.raises(
        SourceError, match=rf"^{href}: reading stopped halfway .*Run again, with a new signature"
    ) as raised:
        read_too_late()
    assert_unsigned(blobs, raised.value)
    np.testing.assert_array_equal(read(href), pixels_of(1))
    assert len(blobs.asked) == 2


@pytest.mark.parametrize("after", range(4))
def test_a_scene_is_indexed_whenever_its_signature_ends(blobs: BlobService, tmp_path: Path, after: int) -> None:
    """Refused at the first file, at the second, or while their pixels are read."""
    local = tmp_path / "blobs" / ACCOUNT / CONTAINER
    expected = index_scene(pystac.Item.from_dict(scene(tmp_path, "a", str(local))), S1)
    item = scene(tmp_path, "a")
    shared_signer().sign(f"{ROOT}/a/vv.tif")
    blobs.revoke(after)
    store = LocalStore(tmp_path / "store")
    with ThreadPoolExecutor(2) as pool:
        cell = index_scenes(S1, 2020, [item], store, load_recipe("clay_v1"), pool, 2)
    assert cell.ledger["outcome"].tolist() == ["indexed"], cell.ledger["error"].tolist()
    assert cell.dataset().to_table().equals(expected)
    assert len(blobs.asked) == 2
    assert any(served.status == 403 for served in blobs.served)
    (key,) = cell.keys
    assert_unsigned(blobs, cell.ledger.to_dict("list"), pq.read_schema(tmp_path / "store" / key).metadata)


def test_what_is_forbidden_is_set_aside_by_its_name(blobs: BlobService, tmp_path: Path) -> None:
    items = [scene(tmp_path, "a"), scene(tmp_path, "b")]
    blobs.forbid()
    href = items[0]["assets"]["vv"]["href"]
    with (
        pytest.raises(InputError, match=rf"^{href}: access refused .*the signature was renewed") as raised,
        open_raster(href, PLATFORMS[S1].access_to(href)),
    ):
        pass
    with ThreadPoolExecutor(1) as pool:
        cell = index_scenes(S1, 2020, items, LocalStore(tmp_path / "store"), load_recipe("clay_v1"), pool, 1)
    assert cell.ledger["outcome"].tolist() == [FAILED, FAILED]
    for name, error in zip("ab", cell.ledger["error"], strict=True):
        assert f"{ROOT}/{name}/vv.tif: access refused" in error
    assert_unsigned(blobs, raised.value, cell.ledger.to_dict("list"))
    assert len(blobs.asked) == 4  # one more per attempt, without repeats


@pytest.mark.parametrize("damage", ["absent", "half"])
def test_a_bad_file_is_told_without_its_signature(blobs: BlobService, tmp_path: Path, damage: str) -> None:
    item = scene(tmp_path, "a")
    href = item["assets"]["vh"]["href"]
    path = tmp_path / "blobs" / ACCOUNT / CONTAINER / "a" / "vh.tif"
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20_000])
    kind, words = (
        (InputError, "file not found")
        if damage == "absent"
        else (SourceError, "could not be read .*truncated.*if it persists the file is damaged")
    )
    with pytest.raises(kind, match=rf"^{href}: {words}") as raised:
        index_scene(pystac.Item.from_dict(item), S1)
    assert_unsigned(blobs, raised.value)


# --- copies ---------------------------------------------------------------------------------------


def copy(items: list[dict[str, Any]], tmp_path: Path, platform: AnyPlatform = PLATFORMS[S1]) -> Imagery:
    with ThreadPoolExecutor(2) as pool:
        options = platform.rules.options(imagery="copy")
        return readable_items(platform, items, options, LocalStore(tmp_path / "store"), pool, 4)


@pytest.mark.parametrize("after", [None, 0, 1, 2, 3])
def test_copies_are_signed_and_signed_anew(blobs: BlobService, tmp_path: Path, after: int | None) -> None:
    items = [scene(tmp_path, name) for name in ("a", "b")]
    if after is not None:
        shared_signer().sign(f"{ROOT}/a.tif")
        blobs.revoke(after)
    imagery = copy(items, tmp_path)
    assert imagery.ledger["outcome"].tolist() == ["copied", "copied"], imagery.ledger["error"].tolist()
    assert imagery.written == 4
    for item in imagery.items:
        for name, seed in (("vv", 1), ("vh", 2)):
            with rasterio.open(item["assets"][name]["href"]) as source:
                np.testing.assert_array_equal(source.read(1), pixels_of(seed))
    assert len(blobs.asked) == (1 if after is None else 2)
    assert_unsigned(blobs, imagery.items, imagery.ledger.to_dict("list"))
    assert copy(items, tmp_path).written == 0


def test_referenced_items_keep_unsigned_hrefs(blobs: BlobService, tmp_path: Path) -> None:
    item = scene(tmp_path, "a")
    with ThreadPoolExecutor(1) as pool:
        imagery = readable_items(
            PLATFORMS[S1], [item], PLATFORMS[S1].rules.options(), LocalStore(tmp_path / "store"), pool, 1
        )
    assert imagery.items == [item]
    assert blobs.asked == []


def test_copies_of_what_is_forbidden_are_set_aside(blobs: BlobService, tmp_path: Path) -> None:
    blobs.forbid()
    imagery = copy([scene(tmp_path, "a")], tmp_path)
    assert imagery.ledger["outcome"].tolist() == ["failed"]
    assert f"{ROOT}/a/vv.tif: access refused (403 Forbidden). Check the item" in imagery.ledger["error"][0]
    assert_unsigned(blobs, imagery.ledger.to_dict("list"))
    assert len(blobs.asked) == 2


def test_copies_without_a_service_are_set_aside_in_time(tokens: FaultProxy, tmp_path: Path) -> None:
    tokens.stall(times=None)
    impatient = PLATFORMS[S1].with_access(Access(signer=BlobSigner(patience=0.3), hosts=(f"{ACCOUNT}{HOST}",)))
    imagery = copy([scene(tmp_path, "a")], tmp_path, impatient)
    assert imagery.ledger["outcome"].tolist() == ["failed"]
    assert "a/vv.tif: no signature from the Planetary Computer" in imagery.ledger["error"][0]
    assert "no answer within 0.3 s" in imagery.ledger["error"][0]


def test_a_copy_that_breaks_off_is_told_without_its_signature(
    blobs: BlobService, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = fault_proxy(blobs.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    proxy.reset(times=None, method="HEAD", path="/a/")
    proxy.truncate(times=None, method="GET", path="/b/")
    imagery = copy([scene(tmp_path, name) for name in ("a", "b")], tmp_path)
    assert imagery.ledger["outcome"].tolist() == ["failed", "failed"]
    assert f"{ROOT}/a/vv.tif: could not be read" in imagery.ledger["error"][0]
    assert f"{ROOT}/b/vv.tif: could not be read" in imagery.ledger["error"][1]
    assert_unsigned(blobs, imagery.ledger.to_dict("list"))
