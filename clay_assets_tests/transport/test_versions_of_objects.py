"""`?versionId=…` after an S3 key: every way of reading, copying and downloading takes that version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.copies import copy_scene
from clay_assets.sources.downloads import fetch, local_copy, read_bytes, size_of
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import open_store
from clay_assets.transport.access import Access
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.rasters import raster

KEY = "a b/50% of #1?x=1&y=ä.tif"
SIDES = {"first": 64, "second": 96}


@pytest.fixture
def versions(s3_bucket: Bucket, tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    """Name of a version → its address and content."""
    s3_bucket.client.put_bucket_versioning(Bucket=s3_bucket.name, VersioningConfiguration={"Status": "Enabled"})
    made = {}
    for name, side in SIDES.items():
        path = tmp_path / f"{name}.tif"
        raster(path, np.full((side, side), side, np.uint16))
        put = s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=KEY, Body=path.read_bytes())
        made[name] = f"{s3_bucket.url}/{KEY}?versionId={put['VersionId']}", path.read_bytes()
    return made


@pytest.mark.parametrize("name", SIDES)
def test_every_reader_takes_the_version(versions: dict[str, tuple[str, bytes]], name: str, tmp_path: Path) -> None:
    href, content = versions[name]
    for access in (None, Access(requester_pays=True)):
        with open_raster(href, access) as source:
            assert source.shape == (SIDES[name], SIDES[name])
            assert set(source.read(1).ravel()) == {SIDES[name]}
    assert read_bytes(href) == content
    assert size_of(href) == len(content)
    fetch(href, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == content
    with local_copy(href) as path:
        assert path.read_bytes() == content
        assert path.name == "50% of #1?x=1&y=ä.tif"


@pytest.mark.parametrize("to_s3", [False, True], ids=["folder", "s3"])
@pytest.mark.parametrize("name", SIDES)
def test_a_copy_is_of_the_version(
    versions: dict[str, tuple[str, bytes]], s3_bucket: Bucket, name: str, to_s3: bool, tmp_path: Path
) -> None:
    platform = PLATFORMS["naip"]
    href, content = versions[name]
    store = open_store(f"{s3_bucket.url}/clay" if to_s3 else tmp_path / "clay")
    item = {"id": "a", "properties": {}, "assets": {"image": {"href": href}}}
    copied = copy_scene(platform, platform.rules.options(imagery="copy"), store, item).item["assets"]["image"]["href"]
    assert "versionId" not in copied
    assert read_bytes(copied) == content
    with open_raster(copied, store.access) as source:
        assert source.shape == (SIDES[name], SIDES[name])


def test_a_version_that_does_not_exist_is_told_without_a_signature(
    versions: dict[str, tuple[str, bytes]], s3_bucket: Bucket
) -> None:
    href = f"{s3_bucket.url}/none.tif?versionId=null"
    for read in (read_bytes, size_of, lambda href: open_raster(href).__enter__()):
        with pytest.raises(InputError, match="file not found") as raised:
            read(href)
        assert "Signature" not in str(raised.value)
