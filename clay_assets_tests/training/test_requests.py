"""The requests to a server when chips are read from files that this process has never opened."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.storage import layout
from clay_assets.training.chipper import Chipper
from clay_assets.training.scene_files import stored_scene_files
from clay_assets.training.selection import open_chips
from clay_assets_tests.chips.factories import S2
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.file_host import Host
from clay_assets_tests.training.conftest import PLAIN, RAISED
from clay_assets_tests.training.made_scenes import Made, made_storage, sentinel_2


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def remote(tmp_path: Path, host: Host) -> Made:
    """Two scenes whose files are on a server, with its log cleared after their headers were read."""
    made = made_storage(
        tmp_path,
        {"plain": sentinel_2(PLAIN, 2020), "raised": sentinel_2(RAISED, 2020, offset=1000)},
        address=lambda path: f"{host.url}/{path.relative_to(tmp_path)}",
    )
    host.seen.clear()
    return made


@pytest.mark.slow
def test_blocks_alone_are_asked_for(remote: Made, host: Host) -> None:
    chipper = Chipper(open_chips(remote.storage), radiometry="stored", threads=2)
    batch = chipper.batch([3, 1, 7], masks=True)
    for chip in batch:
        scene = remote.scene(chip.item_id)
        for name, band in zip(chip.bands, chip.pixels, strict=True):
            np.testing.assert_array_equal(band, scene.window(name, chip.x, chip.y))
    assert {method for method, *_ in host.seen} == {"GET"}
    asked = [[int(number) for number in re.findall(r"\d+", text)] for _, text, _ in host.seen]
    assert all(len(numbers) == 2 for numbers in asked)  # each is a range request
    touched = 0
    for item_id in set(batch.item_id):
        files = stored_scene_files(remote.store, S2, 2020, item_id)
        for header in files.headers.values():
            side = 256 * header.width // 800
            blocks = {
                row * header.blocks_across + column
                for chip in batch
                if chip.item_id == item_id
                for row in range(chip.y * side // 128, -(-(chip.y + 1) * side // 128))
                for column in range(chip.x * side // 128, -(-(chip.x + 1) * side // 128))
            }
            touched += int(header.block_byte_counts[sorted(blocks)].sum())
    assert sum(stop + 1 - start for start, stop in asked) == chipper.counters.bytes_fetched <= 1.05 * touched
    assert chipper.counters.fallbacks == 0
    before = len(host.seen)
    chipper.batch([1, 3], masks=True)
    assert len(host.seen) == before  # the blocks are still cached


@pytest.mark.slow
def test_a_file_that_was_replaced_is_noticed_by_its_etag(remote: Made, host: Host) -> None:
    host.etag = '"second"'
    with pytest.raises(InputError, match=r"changed after its header was read.*cog_headers"):
        Chipper(open_chips(remote.storage))[0]


@pytest.mark.slow
def test_a_file_that_is_gone_leaves_the_other_scenes(remote: Made, host: Host) -> None:
    (remote.folder / "plain" / "red.tif").unlink()
    chipper = Chipper(open_chips(remote.storage))
    gone = chipper.chips.table(["item_id"])["item_id"].to_numpy() == PLAIN
    with pytest.raises(InputError, match=r"plain/red.tif"):
        chipper.batch(np.flatnonzero(gone))
    assert len(chipper.batch(np.flatnonzero(~gone))) == 6


def test_scenes_on_s3(s3_bucket: Bucket, tmp_path: Path) -> None:
    """Index and imagery in a bucket, and a chipper sent to another process."""
    folder = tmp_path / "files"
    folder.mkdir()
    made = made_storage(
        folder,
        {"plain": sentinel_2(PLAIN, 2020)},
        address=lambda path: upload(s3_bucket, path, f"imagery/{path.relative_to(folder)}"),
    )
    for path in sorted(Path(made.storage).rglob("*")):
        if path.is_file():
            upload(s3_bucket, path, f"storage/{path.relative_to(made.storage)}")
    chipper = Chipper(open_chips(f"{s3_bucket.url}/storage"), radiometry="stored", checksums=False)
    for found in (chipper, pickle.loads(pickle.dumps(chipper))):
        for chip in found.batch([3, 1, 5], masks=True):
            for name, band in zip(chip.bands, chip.pixels, strict=True):
                np.testing.assert_array_equal(band, made.scene(PLAIN).window(name, chip.x, chip.y))
    key = "imagery/plain/red.tif"
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=b"another file")
    with pytest.raises(InputError, match=r"plain/red\.tif: changed after its header was read"):
        Chipper(open_chips(f"{s3_bucket.url}/storage"))[0]


def upload(bucket: Bucket, path: Path, key: str) -> str:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=path.read_bytes())
    return f"{bucket.url}/{key}"


@pytest.mark.slow
def test_headers_are_one_small_file_for_each_scene(remote: Made) -> None:
    key = layout.headers(S2, 2020, PLAIN)
    assert list(remote.store.list(layout.headers_folder(S2, 2020))) == sorted({key, layout.headers(S2, 2020, RAISED)})
    assert set(stored_scene_files(remote.store, S2, 2020, PLAIN).headers) == set(platform_of(S2).asset_names)
