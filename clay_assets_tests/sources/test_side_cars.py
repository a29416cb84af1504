"""Files beside a local raster belong to it: mask, place, overviews. Beside a remote one nothing is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from clay_assets.chips.index import index_scene
from clay_assets.chips.indexing import fingerprint_of
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.scenes.copies import copy_scene
from clay_assets.sources.rasters import needs_side_cars, open_raster, side_cars
from clay_assets.storage.stores import LocalStore, open_store
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

SIDE, NAIP = 512, PLATFORMS["naip"]
PLACE = from_origin(500_000, 4_000_000, 1, 1)
HALF = np.arange(SIDE) >= SIDE // 2  # valid columns


def image(path: Path, **profile: Any) -> Path:
    profile = {"crs": "EPSG:26916", "transform": PLACE, **profile}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint8", photometric="rgb", **profile
    ) as sink:
        sink.write(np.full((3, SIDE, SIDE), 7, np.uint8))
    return path


def with_mask(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(image(path), "r+") as sink:
        sink.write_mask(np.broadcast_to(HALF, (SIDE, SIDE)))
    assert path.with_name(f"{path.name}.msk").exists()
    return path


def with_place_beside(path: Path) -> Path:
    image(path, crs=None, transform=None, tfw=True)
    path.with_suffix(".tfw").write_text("1\n0\n0\n-1\n500000.5\n3999999.5\n")
    crs = rasterio.CRS.from_epsg(26916).to_wkt()
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset><SRS>{crs}</SRS></PAMDataset>")
    return path


def with_overviews_beside(path: Path) -> Path:
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(image(path), "r+") as sink:
        sink.build_overviews([2])
    assert path.with_name(f"{path.name}.ovr").exists()
    return path


def with_statistics_beside(path: Path) -> Path:
    image(path).with_name(f"{path.name}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">7</MDI></Metadata>'
        "</PAMRasterBand></PAMDataset>"
    )
    return path


def item(href: Path | str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": "al_m_3008501_ne",
        "geometry": None,
        "properties": {"datetime": "2011-08-15T00:00:00Z"},
        "links": [],
        "assets": {"image": {"href": str(href), **fields}},
    }


def nodata(href: Path | str) -> list[float]:
    table = index_scene(pystac.Item.from_dict(item(href)), "naip", options=NAIP.rules.options(max_chip_nodata=1))
    shares: list[float] = table["nodata_percentage"].to_pylist()
    return shares


@pytest.mark.parametrize("as_url", [False, True])
def test_a_mask_beside_the_file_is_its_mask(tmp_path: Path, as_url: bool) -> None:
    path = with_mask(tmp_path / "a b.tif")
    assert nodata(path.as_uri() if as_url else path) == [1.0, 0.0, 1.0, 0.0]


def test_the_place_beside_the_file_is_its_place(tmp_path: Path) -> None:
    path = with_place_beside(tmp_path / "a.tif")
    with open_raster(str(path)) as source:
        assert source.dataset.crs.to_epsg() == 26916
        assert source.dataset.transform == PLACE
    assert len(nodata(path)) == 4


def test_overviews_beside_the_file_are_its_overviews(tmp_path: Path) -> None:
    path = with_overviews_beside(tmp_path / "a.tif")
    with open_raster(str(path), overview_level=0) as source:
        assert source.shape == (SIDE // 2, SIDE // 2)


def test_beside_a_remote_file_nothing_is_asked_for(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> None:
    path = with_mask(tmp_path / "a.tif")
    web = fault_proxy(file_server(tmp_path).url)
    for first, second in ((str(path), f"{web.url}/a.tif"), (f"{web.url}/a.tif", str(path))):
        with open_raster(first) as one, open_raster(second) as other:
            local, remote = (one, other) if first == str(path) else (other, one)
            assert local.has_mask
            assert local.read_mask(Window(0, 0, SIDE, 1))[0].astype(bool).tolist() == HALF.tolist()
            assert not remote.has_mask
    assert {seen.path for seen in web.seen} == {"/a.tif"}


def test_a_scene_without_crs_is_told_what_can_help(tmp_path: Path) -> None:
    path = with_place_beside(tmp_path / "a.tif")
    path.with_name("a.tif.aux.xml").unlink()
    with pytest.raises(InputError, match=r"a\.tif: no CRS in the file\. Add one"):
        nodata(path)


@pytest.mark.parametrize(
    ("make", "needed", "beside"),
    [
        (image, False, []),
        (with_mask, True, ["a.tif.msk"]),
        (with_place_beside, True, ["a.tif.aux.xml", "a.tfw"]),
        (with_overviews_beside, False, ["a.tif.ovr"]),
        (with_statistics_beside, False, ["a.tif.aux.xml"]),
    ],
)
def test_what_lies_beside_is_copied_where_it_is_needed(
    tmp_path: Path, make: Callable[[Path], Path], needed: bool, beside: list[str]
) -> None:
    (tmp_path / "from").mkdir()
    path = make(tmp_path / "from" / "a.tif")
    assert [other.name for other in side_cars(str(path))] == beside
    assert needs_side_cars(str(path)) == needed
    store = LocalStore(tmp_path / "store")
    for written in (1, 0):
        copied = copy_scene(NAIP, NAIP.rules.options(imagery="copy"), store, item(path))
        assert (copied.files, copied.written) == (1, written)
        there = store.list("imagery")
        assert sorted(Path(key).name for key in there) == sorted(["a.tif", *(beside if needed else [])])
        assert copied.bytes == sum(there.values())
    expected = nodata(path)
    shutil.rmtree(tmp_path / "from")
    assert nodata(copied.item["assets"]["image"]["href"]) == expected


def test_what_would_be_lost_on_s3_is_not_copied_there(tmp_path: Path, s3_bucket: Bucket) -> None:
    store = open_store(f"{s3_bucket.url}/clay")
    options = NAIP.rules.options(imagery="copy")
    with pytest.raises(InputError, match=r"a\.tif: incomplete without its sidecar a\.tif\.msk, .*gdal_translate"):
        copy_scene(NAIP, options, store, item(with_mask(tmp_path / "a.tif")))
    assert store.list("") == {}
    assert copy_scene(NAIP, options, store, item(with_overviews_beside(tmp_path / "b.tif"))).written == 1


def test_a_mask_that_comes_later_makes_another_index(tmp_path: Path) -> None:
    recipe, store = load_recipe("clay_v1"), LocalStore(tmp_path / "store")
    path = image(tmp_path / "a.tif")
    before = fingerprint_of(item(path), "naip", recipe, store)
    with_mask(tmp_path / "a.tif")
    assert fingerprint_of(item(path), "naip", recipe, store) != before
    (tmp_path / "a.tif.msk").unlink()
    with_overviews_beside(tmp_path / "a.tif")
    assert fingerprint_of(item(path), "naip", recipe, store) == before
