"""Scenes with derived images: the files written, the fields of their items, and errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio

from clay_assets.errors import InputError, SourceError, StorageError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform
from clay_assets.scenes.derived import Derived, derive_scene
from clay_assets.storage.stores import LocalStore, Store, open_store
from clay_assets.transport.access import Access
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.scenes.images import (
    AERIAL,
    FILL,
    LEFT,
    RGBA,
    TILES,
    TOP,
    item,
    write_image,
    write_tile,
)
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer


def derive(store: Store, platform: AnyPlatform, scene: dict[str, Any], gsd: float = 0.3) -> Derived:
    return derive_scene(platform, platform.rules.options(imagery="derived", gsd=gsd), store, scene)


def write_sheet(folder: Path, size: float = 0.1, colour: int = 90) -> str:
    pixels = np.full((4, 90, 60), colour, np.uint8)
    pixels[:, :30] = 0
    return write_image(folder / "sheet.tif", pixels, size, meaning=RGBA)


def write_tiles(folder: Path, *names: str) -> dict[str, str]:
    types: dict[str, Any] = {"red": np.int16, "qc": np.uint32, "state": np.uint16}
    return {name: write_tile(folder / f"{name}.tif", np.full((240, 240), 7, types[name])) for name in names}


def files(root: Path) -> dict[str, bytes]:
    """All files below a folder, including unfinished ones."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def mask_of(href: str) -> Any:
    with rasterio.open(href) as made:
        return made.dataset_mask()


def test_near_infrared_that_the_file_calls_alpha_masks_nothing(tmp_path: Path) -> None:
    """If the item names the fourth band; otherwise the file decides."""
    scene = item({"visual": write_sheet(tmp_path)})
    made = {}
    for names in ((), ("red", "green", "blue"), ("red", "green", "blue", "nir")):
        scene["assets"]["visual"]["eo:bands"] = [{"name": name} for name in names]
        href = derive(LocalStore(tmp_path / f"store{len(names)}"), AERIAL, scene).item["assets"]["visual"]["href"]
        with rasterio.open(href) as file:
            made[len(names)] = file.count, file.dataset_mask().all()
    assert made == {0: (3, False), 3: (3, False), 4: (3, False)}  # black in all four bands is always nodata
    pixels = np.full((4, 90, 60), 90, np.uint8)
    pixels[3, :30] = 0  # water
    scene["assets"]["visual"]["href"] = write_image(tmp_path / "water.tif", pixels, 0.1, meaning=RGBA)
    href = derive(LocalStore(tmp_path / "water"), AERIAL, scene).item["assets"]["visual"]["href"]
    assert mask_of(href).all()
    with rasterio.open(href) as file:
        assert set(file.read().ravel()) == {90}


# --- files ------------------------------------------------------------------------------------------


def test_one_file_per_asset_in_the_scenes_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    derived = derive(store, TILES, item(write_tiles(tmp_path, "red", "qc", "state")))
    there = files(tmp_path / "store")
    assert sorted(Path(name).name.rsplit("-", 1)[0] for name in there) == ["qc", "red", "state"]
    assert {str(Path(name).parent) for name in there} == {"imagery/toy/a"}
    hrefs = [asset["href"] for asset in derived.item["assets"].values()]
    assert sorted(hrefs) == sorted(store.uri(name) for name in there)
    assert (derived.files, derived.written) == (3, 3)
    assert derived.bytes == sum(map(len, there.values()))


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    scene = item(write_tiles(tmp_path, "red", "qc"))
    first = derive(store, TILES, scene)
    before = files(tmp_path / "store")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.tif")}
    for name in ("red", "qc"):
        (tmp_path / f"{name}.tif").unlink()  # the source is not needed any more
    again = derive(store, TILES, scene)
    assert again == replace(first, written=0)
    assert files(tmp_path / "store") == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_is_missing_is_made_as_it_was(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    scene = item(write_tiles(tmp_path, "red", "qc"))
    first = derive(store, TILES, scene)
    before = files(tmp_path / "store")
    Path(first.item["assets"]["qc"]["href"]).unlink()
    again = derive(store, TILES, scene)
    assert again == replace(first, written=1)
    assert files(tmp_path / "store") == before


def test_another_recipe_makes_another_file_and_the_old_one_goes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.write("imagery/toy/a-neighbour/visual-00000000.tif", b"of another scene")
    scene = item({"visual": write_sheet(tmp_path)})
    first = derive(store, AERIAL, scene).item["assets"]["visual"]["href"]
    other = derive(store, AERIAL, scene, gsd=0.6)
    assert (other.files, other.written) == (1, 1)
    assert other.item["properties"]["proj:shape"] == [15, 10]
    second = other.item["assets"]["visual"]["href"]
    assert {store.uri(key) for key in store.list("imagery")} == {
        second,
        store.uri("imagery/toy/a-neighbour/visual-00000000.tif"),
    }
    assert first != second
    (tmp_path / "moved").mkdir()
    moved = derive(store, AERIAL, item({"visual": write_sheet(tmp_path / "moved", colour=40)}), gsd=0.6)
    assert moved.item["assets"]["visual"]["href"] not in (first, second)
    with rasterio.open(moved.item["assets"]["visual"]["href"]) as made:
        assert made.read().max() == 40


# --- items ------------------------------------------------------------------------------------------


def test_the_item_tells_of_the_new_files(tmp_path: Path) -> None:
    scene = item({"visual": write_sheet(tmp_path), "thumbnail": "https://example.com/a.png"})
    projection = "https://stac-extensions.github.io/projection/v1.1.0/schema.json"
    other = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
    scene["stac_extensions"] = [projection, other]
    scene["links"] = [{"rel": "derived_from", "href": "https://example.com/a.json"}]
    grid = {"proj:shape": [90, 60], "proj:transform": [0.1, 0, LEFT, 0, -0.1, TOP]}
    stale = dict.fromkeys(("wkt2", "projjson", "geometry", "bbox", "centroid"), "old")
    scene["properties"] |= {"gsd": 0.1, "proj:epsg": 2193, "instruments": ["UltraCam"], **grid}
    scene["properties"] |= {f"proj:{name}": value for name, value in stale.items()}
    scene["assets"]["visual"] |= {
        **grid,
        "type": "image/tiff",
        "title": "Aerial photograph",
        "gsd": 0.1,
        "file:checksum": "1220",
        "file:size": 7,
        "alternate": {"s3": {"href": "s3://elsewhere/a.tif"}},
        "eo:bands": [{"name": name} for name in ("red", "green", "blue", "nir")],
        "raster:bands": [{"data_type": "uint8", "spatial_resolution": 0.1, "nodata": 0, "scale": 2}] * 4,
    }
    before = repr(scene)
    derived = derive(LocalStore(tmp_path / "store"), AERIAL, scene).item
    assert repr(scene) == before  # the picked item is not modified
    assert derived["properties"] == {
        "datetime": "2022-02-02T00:00:00Z",
        "instruments": ["UltraCam"],
        "gsd": 0.3,
        "proj:code": "EPSG:2193",
        "proj:shape": [30, 20],
        "proj:transform": [0.3, 0, LEFT, 0, -0.3, TOP],
    }
    assert set(derived["assets"]) == {"visual"}
    assert derived["assets"]["visual"] == {
        "href": derived["assets"]["visual"]["href"],
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "title": "Aerial photograph",
        "eo:bands": [{"name": name} for name in ("red", "green", "blue")],
        "raster:bands": [{"data_type": "uint8", "scale": 2}] * 3,
    }
    assert derived["links"] == scene["links"]
    assert derived["stac_extensions"] == [other, projection.replace("v1.1.0", "v2.0.0")]


def test_the_item_of_a_reprojected_scene(tmp_path: Path) -> None:
    scene = item(write_tiles(tmp_path, "red", "qc"))
    scene["properties"] |= {"proj:epsg": None, "gsd": 500}
    scene["assets"]["red"]["gsd"] = 500
    derived = derive(LocalStore(tmp_path / "store"), TILES, scene).item
    assert derived["properties"]["proj:code"] == "EPSG:3857"
    assert "proj:epsg" not in derived["properties"]
    assert derived["properties"]["gsd"] == derived["assets"]["red"]["gsd"] == 500  # of the product, unchanged
    for asset in derived["assets"].values():
        with rasterio.open(asset["href"]) as made:
            assert derived["properties"]["proj:shape"] == [made.height, made.width]
            assert derived["properties"]["proj:transform"] == list(made.transform)[:6]


def test_a_crs_without_a_code_is_told_whole(tmp_path: Path) -> None:
    made_up = "+proj=tmerc +lon_0=171.3 +k=0.9997 +ellps=GRS80 +units=m"
    sheet = write_image(tmp_path / "sheet.tif", np.full((3, 30, 30), 9, np.uint8), 0.1, crs=made_up)
    properties = derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": sheet})).item["properties"]
    assert properties["proj:code"] is None
    assert rasterio.CRS.from_wkt(properties["proj:wkt2"]) == rasterio.open(sheet).crs


def test_an_asset_that_may_be_missing_is(tmp_path: Path) -> None:
    derived = derive(LocalStore(tmp_path / "store"), TILES, item(write_tiles(tmp_path, "red", "qc")))
    assert list(derived.item["assets"]) == ["red", "qc"]


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "missing"), [(("red",), "qc"), (("qc", "state"), "red"), ((), "red, qc")])
def test_an_asset_that_must_be_there(tmp_path: Path, there: tuple[str, ...], missing: str) -> None:
    with pytest.raises(InputError, match=f"^a: asset {missing}, to be resampled, is missing"):
        derive(LocalStore(tmp_path / "store"), TILES, item(write_tiles(tmp_path, *there)))


@pytest.mark.slow
@pytest.mark.parametrize("other", ["size", "corner", "crs"])
def test_files_of_one_scene_are_on_one_grid(tmp_path: Path, other: str) -> None:
    hrefs = write_tiles(tmp_path, "red", "qc")
    others: dict[str, dict[str, Any]] = {"corner": {"left": 10.0}, "crs": {"crs": "+proj=sinu +R=6371000"}}
    pixels = np.ones((120, 120) if other == "size" else (240, 240), np.uint32)
    write_tile(tmp_path / "qc.tif", pixels, **others.get(other, {}))
    with pytest.raises(InputError, match=r"^a, asset qc: .*qc\.tif: not on the grid of asset red "):
        derive(LocalStore(tmp_path / "store"), TILES, item(hrefs))
    assert not any("qc" in name for name in files(tmp_path / "store"))


def test_a_source_that_is_not_there_or_no_raster(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    hrefs = write_tiles(tmp_path, "red", "qc")
    Path(hrefs["qc"]).write_text("not a raster")
    with pytest.raises(InputError, match=r"^a, asset qc: .*qc\.tif: not a readable raster .*Download it again"):
        derive(store, TILES, item(hrefs))
    Path(hrefs["red"]).unlink()
    (made,) = files(tmp_path / "store")  # of red
    store.delete([made])
    with pytest.raises(InputError, match=r"^a, asset red: .*red\.tif: file not found"):
        derive(store, TILES, item(hrefs))
    assert files(tmp_path / "store") == {}


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sheet = Path(write_image(tmp_path / "sheet.tif", rng.integers(1, 255, (3, 900, 900), np.uint8), 0.1))
    content = sheet.read_bytes()
    sheet.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"^a, asset visual: .*sheet\.tif: not a readable raster"):
        derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": str(sheet)}))
    assert files(tmp_path / "store") == {}


def test_a_platform_without_a_derivation(tmp_path: Path) -> None:
    platform = replace(AERIAL, files=replace(AERIAL.files, derivation=None))
    with pytest.raises(InputError, match=r'toy: imagery = "derived" is not available\. Use "reference" or "copy"'):
        derive(LocalStore(tmp_path / "store"), platform, item({"visual": write_sheet(tmp_path)}))


def test_storage_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="Check that CLAY_STORAGE is a writable folder"):
        derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": write_sheet(tmp_path)}))


def test_a_file_of_ours_that_is_damaged(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    scene = item({"visual": write_sheet(tmp_path)})
    Path(derive(store, AERIAL, scene).item["assets"]["visual"]["href"]).write_bytes(b"rubbish")
    with pytest.raises(StorageError, match=r"visual-.*\.tif: not a readable raster .* delete it and run again"):
        derive(store, AERIAL, scene)


FULL_DISK = """
import resource, signal, sys
from clay_assets.errors import StorageError
from clay_assets.scenes.derived import derive_scene
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.scenes.images import AERIAL, ToyOptions, item
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for room in sys.argv[3:]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), resource.RLIM_INFINITY))
    try:
        derive_scene(AERIAL, ToyOptions(), LocalStore(sys.argv[1]), item({"visual": sys.argv[2]}))
    except StorageError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, (3, 800, 800), np.uint8)
    sheet = write_image(tmp_path / "sheet.tif", pixels, 0.3)
    rooms = [str(int(share * pixels.size)) for share in (0.3, 0.97, 1.1)]  # 1.33 with overviews
    tried = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "store"), sheet, *rooms],
        capture_output=True,
        text=True,
        check=True,
    )
    said = tried.stdout.splitlines()
    assert len(said) == len(rooms)
    assert all(line.startswith(f"cannot write {tmp_path}/store/") for line in said)
    assert files(tmp_path / "store") == {}


# --- over the network -------------------------------------------------------------------------------


@pytest.fixture
def web(
    tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> FaultProxy:
    """A web server with a sheet."""
    write_sheet(tmp_path / "web")
    return fault_proxy(file_server(tmp_path / "web").url)


def assert_made(derived: Derived) -> None:
    mask = mask_of(derived.item["assets"]["visual"]["href"])
    assert mask.shape == (30, 20)
    assert (mask[:10] == 0).all()
    assert (mask[10:] == 255).all()


@pytest.mark.parametrize("fault", ["none", "503", "reset"])
def test_from_the_web(web: FaultProxy, tmp_path: Path, fault: str) -> None:
    if fault == "503":
        web.answer(503, times=2)
    elif fault == "reset":
        web.reset(times=1)
    assert_made(derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": f"{web.url}/sheet.tif"})))


def test_what_the_web_does_not_have(web: FaultProxy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a, asset visual: .*/other\.tif: file not found"):
        derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": f"{web.url}/other.tif"}))


def test_trouble_that_does_not_pass(web: FaultProxy, tmp_path: Path) -> None:
    web.garbage(times=None)
    with pytest.raises(SourceError, match=r"^a, asset visual: .*/sheet\.tif: could not be read .* Run again"):
        derive(LocalStore(tmp_path / "store"), AERIAL, item({"visual": f"{web.url}/sheet.tif"}))


@dataclass
class Numbering:
    """Signs with a number that changes each time a signature is dropped."""

    number: int = 1
    forgotten: list[str] = field(default_factory=list)

    def sign(self, href: str) -> str:
        return f"{href}?sig={self.number}"

    def forget(self, address: str) -> None:
        self.number += 1
        self.forgotten.append(address)


def test_signatures_are_used_and_not_stored(web: FaultProxy, tmp_path: Path) -> None:
    signer = Numbering()
    platform = AERIAL.with_access(Access(signer=signer, hosts=(urlsplit(web.url).netloc,)))
    store = LocalStore(tmp_path / "store")
    scene = item({"visual": f"{web.url}/sheet.tif"})
    web.answer(403, times=1)
    first = derive(store, platform, scene)
    assert_made(first)
    assert len(signer.forgotten) == 1
    assert {seen.path.split("?")[1] for seen in web.seen} == {"sig=1", "sig=2"}
    assert "sig=" not in repr(first)
    signer.number = 9
    assert derive(store, platform, scene).written == 0  # the file's name does not depend on the signature


def test_from_a_bucket_to_a_bucket(gdal_s3: Bucket, tmp_path: Path) -> None:
    for name, path in {**write_tiles(tmp_path, "red", "qc"), "visual": write_sheet(tmp_path)}.items():
        gdal_s3.client.upload_file(path, gdal_s3.name, f"in/{name}.tif")
    hrefs = {name: f"{gdal_s3.url}/in/{name}.tif" for name in ("red", "qc", "visual")}
    store = open_store(f"{gdal_s3.url}/out")
    sheet = item({"visual": hrefs.pop("visual")}, "b")
    scene = item(hrefs)
    derived = derive(store, TILES, scene)
    assert derived.bytes == sum(store.list("imagery/toy/a").values())
    assert len(gdal_s3.keys("out/")) == 2
    href = derived.item["assets"]["red"]["href"]
    assert href.startswith(f"{gdal_s3.url}/out/imagery/toy/a/red-")
    with rasterio.open(href) as made:
        assert set(np.unique(made.read())) == {7, FILL}
    assert derive(store, TILES, scene) == replace(derived, written=0)
    made_sheet = derive(store, AERIAL, sheet)
    assert_made(made_sheet)
    coarser = derive(store, AERIAL, sheet, gsd=0.6)
    assert [f"{gdal_s3.url}/{key}" for key in gdal_s3.keys("out/imagery/toy/b/")] == [
        coarser.item["assets"]["visual"]["href"]
    ]


# --- the platforms themselves -----------------------------------------------------------------------


@pytest.mark.slow
def test_every_platform_that_has_a_derivation_can_be_derived(tmp_path: Path) -> None:
    having = {key: platform for key, platform in PLATFORMS.items() if platform.files.derivation}
    assert having
    for key, platform in having.items():
        assert platform.files.derivation is not None
        if platform.files.derivation.crs is None:
            hrefs = dict.fromkeys(platform.asset_names, write_sheet(tmp_path / key))
        else:
            needed = {n: platform.files.derivation.fill.get(n, 0) for n in platform.asset_names}
            hrefs = {
                name: write_tile(tmp_path / key / f"{name}.tif", np.ones((240, 240), np.min_scalar_type(int(fill))))
                for name, fill in needed.items()
            }
        options = platform.rules.options(imagery="derived")
        derived = derive_scene(platform, options, LocalStore(tmp_path / "store"), item(hrefs, key))
        assert list(derived.item["assets"]) == list(platform.asset_names)
        assert derived.item["properties"]["proj:code"] in ("EPSG:2193", "EPSG:3857")
