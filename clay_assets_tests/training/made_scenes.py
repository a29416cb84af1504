"""A small storage of real files: scenes with known pixels, indexed, merged, with headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from rasterio.transform import from_origin

from clay_assets.chips.cells import ChipCell
from clay_assets.chips.index import index_scene
from clay_assets.chips.merge import merge
from clay_assets.chips.splits import SplitPlan
from clay_assets.platforms import platform_of
from clay_assets.platforms.radiometry import RadiometricOffset
from clay_assets.recipes import load_recipe
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow
from clay_assets.storage.stores import LocalStore, Store
from clay_assets.training.scene_files import read_scene_files, to_table
from clay_assets_tests.chips.factories import (
    EPSG,
    FINGERPRINT,
    L2,
    LEFT,
    S2,
    TOP,
    ledger_of,
    made_plan,
    write_land_cover,
    write_tiff,
)

HEIGHT, WIDTH = 600, 800  # of the finest grid: two rows of three chips, and partial chips at the edges
TILED = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate", "predictor": 2}
COARSE = ("rededge1", "rededge2", "rededge3", "nir08", "swir16", "swir22")  # bands at 20 m


@dataclass(frozen=True)
class Scene:
    """A synthetic scene.

    Attributes:
        platform, year: the scene's cell.
        item: STAC item.
        pixels: asset → pixels in its file.
        offset: offset included in its numbers.
    """

    platform: str
    year: int
    item: dict[str, Any]
    pixels: Mapping[str, NDArray[Any]]
    offset: int = 0

    @property
    def id(self) -> str:
        return str(self.item["id"])

    def window(self, asset: str, x: int, y: int) -> NDArray[Any]:
        """A chip's pixels of an asset, (256, 256), as stored in the file."""
        whole = self.pixels[asset]
        side = 256 * whole.shape[1] // WIDTH
        part = whole[y * side : (y + 1) * side, x * side : (x + 1) * side]
        return part.repeat(256 // side, axis=0).repeat(256 // side, axis=1)


@dataclass
class Made:
    """A storage, and the scenes in it."""

    folder: Path
    scenes: list[Scene] = field(default_factory=list)

    @cached_property
    def store(self) -> LocalStore:
        return LocalStore(self.folder / "storage")

    @property
    def storage(self) -> str:
        return str(self.folder / "storage")

    def scene(self, item_id: str) -> Scene:
        return next(scene for scene in self.scenes if scene.id == item_id)


def made_storage(
    folder: Path,
    scenes: Mapping[str, Callable[[Path], Scene]],
    address: Callable[[Path], str] = str,
    plan: SplitPlan | None = None,
) -> Made:
    """Write scenes, index and merge them, and store their headers.

    Args:
        folder: folder to write to.
        scenes: name of a folder → function that makes a scene there.
        address: maps a file to the address to read it from.
        plan: plan of the splits; None: random splits.
    """
    made = Made(folder, [make(folder / name) for name, make in scenes.items()])
    for scene in made.scenes:
        for asset in scene.item["assets"].values():
            asset["href"] = address(Path(asset["href"]))
    recipe = load_recipe("clay_v1")
    cells = []
    for platform, year in sorted({(scene.platform, scene.year) for scene in made.scenes}):
        chips = {}
        for scene in (one for one in made.scenes if (one.platform, one.year) == (platform, year)):
            table = index_scene(pystac.Item.from_dict(scene.item), platform)
            stamp = {**recipe.stamp(), "fingerprint": FINGERPRINT}
            made.store.write(layout.chips(platform, year, scene.id), encode_arrow(table, stamp))
            chips[scene.id] = table.num_rows
            write_headers(made.store, scene)
        cells.append(ChipCell(platform, year, made.store, ledger_of(dict(sorted(chips.items())))))
        made.store.write(layout.chip_ledger(platform, year), b"")
    with ThreadPoolExecutor(1) as pool:
        merge(cells, [write_land_cover(cell) for cell in cells], plan or made_plan(), made.store, recipe, pool, 1)
    return made


def write_headers(store: Store, scene: Scene) -> None:
    """Store the current headers of a scene's files."""
    platform = platform_of(scene.platform)
    files = read_scene_files(platform, platform.read_item(scene.item))
    if platform.radiometry is not None:
        files = replace(files, radiometry=RadiometricOffset(scene.offset, "pixels"))
    store.write(layout.headers(scene.platform, scene.year, scene.id), encode_arrow(to_table(files), {}))


def sentinel_2(item_id: str, year: int, *, offset: int = 0, column: int = 0) -> Callable[[Path], Scene]:
    """A scene of ten bands and a scene classification; shifted east by `column` scene widths."""

    def make(folder: Path) -> Scene:
        draw = np.random.default_rng([year, offset, column])
        left = LEFT + column * WIDTH * 10
        pixels: dict[str, NDArray[Any]] = {}
        for name in platform_of(S2).assets.bands:
            factor = 2 if name in COARSE else 1
            band = draw.integers(1, 4000, (HEIGHT // factor, WIDTH // factor)).astype(np.uint16) + offset
            band[: 60 // factor, : 60 // factor] = 0
            pixels[name] = band.astype(np.uint16)
        scl = draw.integers(1, 12, (HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
        scl[:30, :30] = 0
        pixels["scl"] = scl
        properties = {"proj:epsg": EPSG, "datetime": f"{year}-03-02T10:20:30.405Z", "s2:processing_baseline": "05.00"}
        return _written(folder, S2, year, item_id, pixels, properties, left, 10, offset)

    return make


def landsat(item_id: str, year: int) -> Callable[[Path], Scene]:
    """A scene of six bands and QA_PIXEL."""

    def make(folder: Path) -> Scene:
        draw = np.random.default_rng(year)
        shape = HEIGHT, WIDTH
        pixels: dict[str, NDArray[Any]] = {
            name: draw.integers(7000, 40000, shape).astype(np.uint16) for name in platform_of(L2).assets.bands
        }
        pixels["qa_pixel"] = draw.choice(np.array([1 << 3, 1 << 6], np.uint16), shape)
        properties = {"proj:epsg": EPSG, "datetime": f"{year}-07-02T09:41:32.918283Z"}
        return _written(folder, L2, year, item_id, pixels, properties, LEFT, 30, 0)

    return make


# Platform key → dtype of its bands and size of its pixels, metres.
KINDS = {
    "sentinel-2-l2a": ("uint16", 10),
    "landsat-c2l1": ("uint16", 30),
    "landsat-c2l2-sr": ("uint16", 30),
    "sentinel-1-rtc": ("float32", 10),
    "naip": ("uint8", 0.6),
    "linz": ("uint8", 0.3),
    "modis": ("int16", 500),
}
QUALITY = {
    "scl": "uint8",
    "qa_pixel": "uint16",
    "sur_refl_qc_500m": "uint32",
    "sur_refl_state_500m": "uint16",
}


def of_platform(key: str, item_id: str, moment: str) -> Callable[[Path], Scene]:
    """A scene of any platform, all bands of the same size; one radar pixel in ten is nodata or has no power."""

    def make(folder: Path) -> Scene:
        draw = np.random.default_rng([ord(letter) for letter in item_id])
        platform, (dtype, gsd) = platform_of(key), KINDS[key]
        bands = platform.model_input.bands
        pixels: dict[str, NDArray[Any]] = {}
        for asset in dict.fromkeys(band.asset for band in bands):
            shape = sum(band.asset == asset for band in bands), HEIGHT, WIDTH
            if dtype == "float32":
                found = draw.lognormal(-2, 1.5, shape).astype(np.float32)
                found[draw.random(shape) < 0.05] = -32768
                found[draw.random(shape) < 0.05] = 0
            else:
                found = draw.integers(1, min(20_000, np.iinfo(dtype).max), shape).astype(dtype)
            pixels[asset] = found if len(found) > 1 else found[0]
        for asset in platform.asset_names:
            if asset not in pixels:
                codes = (1 << 3, 1 << 6) if asset == "qa_pixel" else range(12)  # no Landsat pixel may be nodata
                pixels[asset] = draw.choice(np.array(codes, QUALITY[asset]), (HEIGHT, WIDTH))
        properties = {"proj:epsg": EPSG, "datetime": moment}
        nodata = {"float32": -32768, "int16": -28672}.get(dtype, 0)
        return _written(folder, key, int(moment[:4]), item_id, pixels, properties, LEFT, gsd, 0, nodata)

    return make


def _written(
    folder: Path,
    platform: str,
    year: int,
    item_id: str,
    pixels: Mapping[str, NDArray[Any]],
    properties: dict[str, Any],
    left: float,
    gsd: float,
    offset: int,
    nodata: float = 0,
) -> Scene:
    assets = {}
    for name, band in pixels.items():
        size = gsd * WIDTH / band.shape[-1]
        predictor = 3 if band.dtype.kind == "f" else 2
        options = {**TILED, "predictor": predictor, "nodata": nodata if band.dtype.kind != "u" else 0}
        path = write_tiff(folder / f"{name}.tif", band, from_origin(left, TOP, size, size), f"EPSG:{EPSG}", **options)
        assets[name] = {
            "href": str(path),
            "proj:shape": list(band.shape[-2:]),
            "proj:transform": [size, 0, left, 0, -size, TOP],
        }
    item = {
        **{"type": "Feature", "stac_version": "1.0.0", "id": item_id, "links": [], "bbox": [9.0, 0.9, 9.0, 0.9]},
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "geometry": {"type": "Point", "coordinates": [9.0, 0.9]},
        "properties": properties,
        "assets": assets,
    }
    return Scene(platform, year, item, pixels, offset)
