"""Images resampled or reprojected into our own storage, as the platform's `Derivation` says.

This module is platform-agnostic. Every file is named after its asset and a fingerprint of its inputs: existing files
are kept, and a changed recipe writes new ones. The resampling itself is in `resample`.

Items follow the projection extension of STAC, version 2 (https://github.com/stac-extensions/projection).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from clay_assets.errors import InputError, SourceError, StorageError
from clay_assets.grids import Grid
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.scenes.resample import (
    ResampleSpec,
    check_same_grid,
    grid_of,
    is_coarser,
    target_grid,
    write_resampled,
)
from clay_assets.sources.rasters import open_raster
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import Store
from clay_assets.transport.retries import WORK_ATTEMPTS, retrying

DERIVED_VERSION = "1"  # increase if the same source would yield different files

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
PROJECTION = "https://stac-extensions.github.io/projection/"
PROJECTION_VERSION = f"{PROJECTION}v2.0.0/schema.json"
# Asset fields that describe the old file, in addition to those of the projection and file extensions.
STALE = ("alternate", "raster:spatial_resolution", "raster:histogram", "statistics", "nodata")
STALE_IN_BAND = ("spatial_resolution", "raster:spatial_resolution", "histogram", "raster:histogram", *STALE[3:])
BAND_LISTS = ("bands", "eo:bands", "raster:bands")


@dataclass(frozen=True)
class Derived:
    """One scene whose images were resampled.

    Attributes:
        item: the item with the hrefs and the grid of the new files.
        files: number of its files.
        bytes: their total size.
        written: number of files written by this call; the others existed.
        note: anything unusual.
    """

    item: Item
    files: int
    bytes: int
    written: int
    note: str | None


def derive_scene(platform: AnyPlatform, options: Options, store: Store, item: Item) -> Derived:
    """Resample the images of one scene into our storage, below `imagery/{platform}/{item_id}/`.

    All files of a scene are on one grid, derived from the source of `platform.assets.grid`. Other files in the scene's
    folder, such as those of another recipe, are deleted at the end.

    Args:
        platform: the scene's platform, which sets derivation, assets and access.
        options: the recipe's options for the derivation.
        store: our storage.
        item: a picked item.

    Raises:
        InputError: an asset is missing; a source is missing, forbidden, not a raster, without CRS, lacks bands, or is
            not on the grid of the others; or it cannot be reprojected to the new CRS.
        SourceError: a source could not be read, even after retries.
        StorageError: our storage cannot be written or read back.
    """
    names = _names(platform, item)
    hrefs = {name: platform.href(item["assets"][name], options) for name in names}
    specs = {name: _spec(platform, options, name) for name in names}
    keys = {name: _key(platform, item, name, hrefs[name], specs[name]) for name in names}
    absent = [name for name, key in keys.items() if store.size(key) is None]
    if absent:
        first = platform.assets.grid
        with _naming(item, first):
            grid = _source_grid(platform, hrefs[first])
            new = target_grid(grid, specs[first], hrefs[first])
        for name in absent:
            with _naming(item, name):
                measured = platform.measured(item, name)
                _make(platform, store, keys[name], hrefs[name], measured, specs[name], grid, new)
    made = _stored_grid(store, keys[platform.assets.grid])
    there = store.list(layout.imagery_folder(platform.key, item["id"]))
    store.delete([key for key in there if key not in keys.values()])
    return Derived(
        item=_item(item, {name: store.uri(key) for name, key in keys.items()}, made, specs),
        files=len(keys),
        bytes=sum(there[key] for key in keys.values()),
        written=len(absent),
        note=_note(made, specs[platform.assets.grid]),
    )


def _names(platform: AnyPlatform, item: Item) -> list[str]:
    """The assets to write: the one that sets the grid first, without optional ones that the item lacks."""
    missing = platform.missing(item, platform.asset_names)
    if platform.assets.grid not in item["assets"]:
        missing = list(dict.fromkeys((platform.assets.grid, *missing)))
    if missing:
        raise InputError(
            f"{item['id']}: asset {', '.join(missing)}, to be resampled, is missing. Re-materialise scene_picks."
        )
    return list(
        dict.fromkeys((platform.assets.grid, *(name for name in platform.asset_names if name in item["assets"])))
    )


def _spec(platform: AnyPlatform, options: Options, asset: str) -> ResampleSpec:
    derivation = platform.files.derivation
    if derivation is None:
        raise InputError(f'{platform.key}: imagery = "derived" is not available. Use "reference" or "copy".')
    return ResampleSpec(
        crs=derivation.crs,
        gsd=derivation.gsd(options) if derivation.gsd else None,
        resampling=derivation.resampling,
        bands=derivation.bands,
        fill=derivation.fill.get(asset),
        masked=derivation.masked,
    )


def _key(platform: AnyPlatform, item: Item, asset: str, href: str, spec: ResampleSpec) -> str:
    measured = [list(platform.measured(item, asset))] if spec.masked and platform.measured(item, asset) else []
    made_of = json.dumps([DERIVED_VERSION, href, asdict(spec), *measured], sort_keys=True)
    fingerprint = hashlib.blake2b(made_of.encode(), digest_size=4).hexdigest()
    return layout.imagery(platform.key, item["id"], f"{asset}-{fingerprint}.tif")


@contextmanager
def _naming(item: Item, asset: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{item['id']}, asset {asset}: {error}") from error
    except SourceError as error:
        raise SourceError(f"{item['id']}, asset {asset}: {error}") from error


def _source_grid(platform: AnyPlatform, href: str) -> Grid:
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt, open_raster(href, platform.access_to(href)) as source:
            return grid_of(source)
    raise AssertionError("tenacity either returns or raises")


def _make(
    platform: AnyPlatform,
    store: Store,
    key: str,
    href: str,
    measured: tuple[int, ...],
    spec: ResampleSpec,
    grid: Grid,
    new: Grid,
) -> None:
    opening = partial(open_raster, href, platform.access_to(href), measured=measured)
    for attempt in retrying(WORK_ATTEMPTS):
        with attempt, store.writing(key) as path, opening() as source:
            check_same_grid(grid_of(source), grid, href, platform.assets.grid)
            write_resampled(path, source, grid, new, spec)


def _stored_grid(store: Store, key: str) -> Grid:
    try:
        with open_raster(store.uri(key), store.access) as source:
            return grid_of(source)
    except (InputError, SourceError) as error:
        raise StorageError(
            f"{error} The file is in your storage; if this persists, delete it and run again."
        ) from error


def _note(grid: Grid, spec: ResampleSpec) -> str | None:
    if spec.gsd is None or not is_coarser(grid, spec.gsd):
        return None
    return f"kept at {max(grid.pixel):g} m, coarser than {spec.gsd:g} m"


def _item(item: Item, hrefs: dict[str, str], grid: Grid, specs: dict[str, ResampleSpec]) -> Item:
    """The item of the new files, without the fields that describe grid and size of the old ones."""
    properties = {name: value for name, value in item["properties"].items() if not name.startswith("proj:")}
    code = grid.crs.to_epsg()
    properties["proj:code"] = f"EPSG:{code}" if code else None
    if not code:
        properties["proj:wkt2"] = grid.crs.to_wkt(version="WKT2_2019")
    properties["proj:shape"] = [grid.height, grid.width]
    properties["proj:transform"] = [float(value) for value in tuple(grid.transform)[:6]]
    if all(spec.crs is None for spec in specs.values()):
        properties["gsd"] = max(grid.pixel)
    extensions = [url for url in item.get("stac_extensions") or [] if not str(url).startswith(PROJECTION)]
    return {
        **item,
        "stac_extensions": [*extensions, PROJECTION_VERSION],
        "properties": properties,
        "assets": {
            name: _asset(asset, hrefs[name], specs[name]) for name, asset in item["assets"].items() if name in hrefs
        },
    }


def _asset(asset: dict[str, Any], href: str, spec: ResampleSpec) -> dict[str, Any]:
    stale = STALE if spec.crs is not None else (*STALE, "gsd")
    kept = {
        name: value for name, value in asset.items() if name not in stale and not name.startswith(("proj:", "file:"))
    }
    for name in BAND_LISTS:
        if isinstance(kept.get(name), list):
            bands = kept[name][: spec.bands]
            kept[name] = [{key: value for key, value in band.items() if key not in STALE_IN_BAND} for band in bands]
    return {**kept, "href": href, "type": COG_TYPE}
