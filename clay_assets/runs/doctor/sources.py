"""Checks that catalogues and files of scenes, WorldCover, Natural Earth and the tiling grid can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clay_assets.errors import ClayError, InputError
from clay_assets.platforms.base import AnyPlatform, Options
from clay_assets.recipes import Recipe
from clay_assets.runs.doctor.lines import Check, Line, failure
from clay_assets.settings import Settings
from clay_assets.storage import layout
from clay_assets.storage.stores import open_store
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_http, is_s3

if TYPE_CHECKING:
    from clay_assets.catalogues.base import Catalogue
    from clay_assets.stac import Item

SAMPLE_CELL = "N45E006"  # a WorldCover cell in the Alps
LAND_COVER_SAMPLE = "mgrs_sample"


def checks_of_sources(settings: Settings, recipe: Recipe, platforms: Sequence[AnyPlatform]) -> dict[str, Check]:
    """The checks of what some platforms are made from, by name."""
    checks: dict[str, Check] = {}
    for platform in platforms:
        scenes = _Scenes(settings, platform, recipe.options(platform.key))
        checks[scenes.what] = scenes
    samples = {platform.scenes.sample for platform in platforms}
    checks["WorldCover"] = lambda: _worldcover(settings.worldcover)
    if "naip_sample" in samples:
        checks["Natural Earth"] = lambda: _natural_earth(settings.natural_earth)
    if LAND_COVER_SAMPLE in samples:
        checks["tiling grid"] = lambda: _tiling_grid(settings)
        if settings.mgrs_sample:
            published = settings.mgrs_sample
            checks["published sample"] = lambda: [_reached("published sample", published, "CLAY_MGRS_SAMPLE")]
    return checks


@dataclass(frozen=True)
class _Scenes:
    """Checks that scenes of a platform are found, and that the files of one of them can be read."""

    settings: Settings
    platform: AnyPlatform
    options: Options

    @property
    def what(self) -> str:
        """Name of the check."""
        return f"scenes of {self.platform.key}"

    def __call__(self) -> Iterator[Line]:
        yield from self._secrets()
        if self.platform.scenes.sample_has_items:
            where, item = self.settings.linz_catalog, _item_of_static_catalogue(self.settings.linz_catalog)
        else:
            where = str(getattr(self.settings, self.platform.scenes.catalogue))
            item = _opened(where).any_item(self.platform)
        collection = self.platform.scenes.collection
        if item is None:
            variable = f"CLAY_{self.platform.scenes.catalogue.upper()}"
            remedy = f"Check {variable}, or select other platforms with --platform."
            yield Line("failed", self.what, f"{where}: no items of collection {collection}", remedy)
            return
        yield Line("ok", self.what, f"{where}: has items{f' of {collection}' if collection else ''}")
        yield self._file(item)

    def _secrets(self) -> Iterator[Line]:
        """Check the variables with keys and tokens that its files need."""
        for way in self.platform.files.access:
            try:
                way.http_headers()
                if way.keys is not None:
                    way.s3()
            except InputError as error:
                yield failure(f"credentials of {self.platform.key}", error)

    def _file(self, document: Item) -> Line:
        """Check that a file of an item can be read as its platform requires: signed, requester-pays or with keys."""
        from clay_assets.sources.downloads import size_of

        what = f"files of {self.platform.key}"
        try:
            item = self.platform.read_item(document)
            name = next((one for one in self.platform.asset_names if one in item["assets"]), None)
            if name is None:
                remedy = "Check that the catalogue has this platform."
                return Line("warning", what, f"{item['id']}: required assets not found", remedy)
            href = self.platform.href(item["assets"][name], self.options)
        except InputError as error:
            return failure(what, error, "warning")  # other items may be valid
        access = self.platform.access_to(href)
        if access.requester_pays and access.s3().opened().anonymous:
            remedy = "The bucket is requester-pays: set AWS credentials of an account that may be billed."
            return Line("failed", what, f"{href}: AWS credentials not found", remedy)
        try:
            size = size_of(href, access)
        except ClayError as error:
            return failure(what, error)
        billed = ", at your account's cost" if access.requester_pays else ""
        return Line("ok", what, f"{href}: can be read{billed}, {size:,} bytes")


def _opened(location: str) -> Catalogue:
    """A catalogue that gives up early."""
    from clay_assets.catalogues.opening import open_catalogue
    from clay_assets.catalogues.stac_api import ApiCatalogue

    if is_http(location):
        return ApiCatalogue(location, requests_in_flight=1, attempts=2)
    return open_catalogue(location, 1)


def _item_of_static_catalogue(location: str) -> Item | None:
    """The first item of the first collection of a static catalogue."""
    from clay_assets.sources.static_stac import links, read_document, root_of, with_absolute_hrefs

    root = root_of(location)
    for child in links(read_document(root), "child", root)[:1]:
        for href in links(read_document(child), "item", child)[:1]:
            return with_absolute_hrefs(read_document(href), href)
    return None


def _worldcover(location: str) -> list[Line]:
    from clay_assets.landcover.worldcover_files import href_of, stored_cells_of
    from clay_assets.sources.downloads import exists_on_web

    access = Access(unsigned=True)
    if not is_http(location):
        cells = stored_cells_of(location, access) or set()
        return [Line("ok", "WorldCover", f"{location}: holds {len(cells):,} files")]
    href = href_of(location, SAMPLE_CELL)
    if exists_on_web(href, access):
        return [Line("ok", "WorldCover", f"{href}: found")]
    remedy = "Check CLAY_WORLDCOVER, unless it is a subset without the Alps."
    return [Line("warning", "WorldCover", f"{href}: file not found", remedy)]


def _natural_earth(location: str) -> Iterator[Line]:
    from clay_assets.sampling.natural_earth_files import FEATURE_LAYERS, Files

    with ExitStack() as stack:
        files = Files(location, None, stack)
        if files.root is None:
            yield _reached(
                "Natural Earth", f"{location.rstrip('/')}/{files.find(FEATURE_LAYERS[0])}", "CLAY_NATURAL_EARTH"
            )
            return
        missing = [layer.file for layer in FEATURE_LAYERS if files.find(layer) is None]
    if missing:
        remedy = "Add the files, or change CLAY_NATURAL_EARTH."
        yield Line("failed", "Natural Earth", f"{location}: missing {', '.join(missing)}", remedy)
        return
    yield Line("ok", "Natural Earth", f"{location}: has all {len(FEATURE_LAYERS)} layers")


def _tiling_grid(settings: Settings) -> list[Line]:
    store = open_store(settings.storage)
    made = layout.table("mgrs_grid")
    if store.exists(made):
        return [Line("ok", "tiling grid", f"{store.uri(made)}: materialised")]
    return [_reached("tiling grid", settings.mgrs_grid, "CLAY_MGRS_GRID")]


def _reached(what: str, address: str, variable: str) -> Line:
    """Check that an external file exists."""
    from clay_assets.sources.downloads import exists_on_web, size_of

    if is_http(address):
        there = exists_on_web(address)
    else:
        there = bool(size_of(address, Access(unsigned=True) if is_s3(address) else None))
    if there:
        return Line("ok", what, f"{address}: found")
    return Line("failed", what, f"{address}: file not found", f"Check {variable}.")
