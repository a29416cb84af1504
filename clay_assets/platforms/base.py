"""The interface of a platform. Stages use the interface only, and never depend on which platform it is.

A platform consists of data and small pure functions, combined in a `Platform` at the end of its own module. Searching,
reading and writing are left to the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clay_assets.errors import InputError
from clay_assets.platforms.bands import measured_bands
from clay_assets.platforms.column_rules import ColumnRules
from clay_assets.platforms.model import ModelInput, unknown
from clay_assets.platforms.processing import Processings
from clay_assets.platforms.properties import Property
from clay_assets.platforms.radiometry import Radiometry
from clay_assets.stac import Item, has_absolute_hrefs, read_item, read_items
from clay_assets.transport.access import Access, access_for

if TYPE_CHECKING:
    import geopandas as gpd
    import numpy as np
    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "FIRST_YEAR",
    "AnyPlatform",
    "Assets",
    "Derivation",
    "Files",
    "Mask",
    "Options",
    "Pixels",
    "Platform",
    "Quality",
    "ReferenceOrCopy",
    "Request",
    "Rules",
    "SceneSource",
    "Typical",
]

FIRST_YEAR = 2010  # the earliest imagery of any platform that Clay was trained on (NAIP)

# Quoted, since definitions load in half the time without numpy.
Mask: TypeAlias = "NDArray[np.bool_]"
Pixels: TypeAlias = "Mapping[str, NDArray[Any]]"


class Options(BaseModel):
    """The options that a recipe can set for a platform. Platforms add their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    years: tuple[int, int] = Field(default=(2018, 2023), description="first and last year to draw from, both included")
    max_chip_nodata: float = Field(default=0.5, ge=0, le=1, description="chips with a larger nodata share are dropped")
    imagery: Literal["reference", "copy", "derived"] = Field(
        default="reference",
        description="read images in place, copy them into our storage first, or resample them into our storage",
    )

    @model_validator(mode="after")
    def _years_in_order(self) -> Options:
        first, last = self.years
        if first > last:
            raise ValueError(f"years {list(self.years)}: the first is after the last")
        this_year = datetime.now(UTC).year
        if first < FIRST_YEAR or last > this_year:
            raise ValueError(f"years {list(self.years)}: outside the partitions {FIRST_YEAR} to {this_year}")
        return self


class ReferenceOrCopy(Options):
    """Recipe options of a platform whose files are read without resampling."""

    imagery: Literal["reference", "copy"] = Field(
        default="reference", description="read images in place, or copy them into our storage first"
    )


OptionsT = TypeVar("OptionsT", bound=Options)  # the recipe options of a platform


@dataclass(frozen=True)
class Request:
    """One search to make.

    Attributes:
        id: unique within the platform, such as `29RKH-2020-Q1`.
        location: name of the sampled place, such as an MGRS tile.
        period: name of the searched part of the year, such as `Q1`.
        start: first moment, UTC, included.
        end: last moment, UTC, excluded.
        geometry: the area that items must intersect, EPSG:4326.
        filters: alternatives; an item matches if all properties of one of them are equal. Empty: any item.
        draw: keyed hash by which the request was drawn; 0 if it was not drawn at random.
    """

    id: str
    location: str
    period: str
    start: datetime
    end: datetime
    geometry: BaseGeometry
    filters: tuple[Mapping[str, str | int], ...] = ()
    draw: int = 0


@dataclass(frozen=True)
class Derivation(Generic[OptionsT]):
    """How the images of a scene are resampled into our storage, as cloud-optimized GeoTIFFs.

    Attributes:
        crs: CRS of the target grid, in metres; None: that of the source.
        gsd: options → pixel size of the target grid in metres, never finer than the source's; None: the size that
            keeps the number of pixels on the diagonal.
        resampling: resampling of the bands, `nearest` or `bilinear`; masks are always nearest.
        bands: number of bands to keep, from the first; None: all.
        fill: asset → value of pixels without source data; empty if a mask marks them.
        masked: write an internal mask: from alpha, else from the file's own mask, else where all bands are 0.
    """

    crs: str | None = None
    gsd: Callable[[OptionsT], float] | None = None
    resampling: Literal["nearest", "bilinear"] = "nearest"
    bands: int | None = None
    fill: Mapping[str, float] = field(default_factory=dict)
    masked: bool = False


@dataclass(frozen=True)
class Typical:
    """The typical size of a scene, to estimate the cost of a run before anything is read.

    Bytes are uncompressed, so files are smaller. The defaults are those of a Sentinel-2 scene with four bands.

    Attributes:
        height, width: pixels of the finest grid.
        quality_bytes: bytes read to index a scene, per pixel of that grid.
        image_bytes: bytes of all its files, per pixel of that grid.
        derived_bytes: bytes of the resampled files, per pixel of that grid; 0 if images are not resampled.
    """

    height: int = 10980
    width: int = 10980
    quality_bytes: float = 1
    image_bytes: float = 8
    derived_bytes: float = 0

    def chips(self, size: int) -> int:
        """Number of whole chips of `size` pixels in the grid."""
        return (self.height // size) * (self.width // size)


@dataclass(frozen=True)
class SceneSource:
    """Where the scenes of a platform are searched.

    Attributes:
        catalogue: the setting with the catalogue's address: a field of `Settings`, or a new one declared with
            `default`. The variable of `stac_my_catalogue` is CLAY_STAC_MY_CATALOGUE.
        collection: STAC collection id in that catalogue; None: any.
        sample: asset from whose table the requests are made.
        sample_has_items: whether the sample is itself a table of STAC items, in which scenes are then searched.
        default: address of a catalogue that is not a field of `Settings`; else None.
    """

    catalogue: str
    collection: str | None
    sample: str
    sample_has_items: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Rules(Generic[OptionsT]):
    """Which searches are made, and which scene each of them gets.

    An exception in `refuse`, `rank` or `resolve` counts as a bug, and fails the request. Declare in `properties`, or
    refuse, what can be wrong with an item.

    Attributes:
        options: the recipe options of this platform.
        requests: (sample, options, seed) → request table (see `clay_assets.platforms.request_table`).
        refuse: (item, request, options) → why an item is not eligible, or None.
        rank: (item, request) → sort key; the lowest is picked.
        properties: item properties that the rules use; a candidate may lack all others. An item that violates a
            declaration is refused before the rules run.
        processings: how to recognise processings of one acquisition, of which only the newest is a candidate; None:
            every item is a separate acquisition.
        resolve: (request, items found, options, seed) → the requests that it becomes, each within one year. For
            platforms whose years only the catalogue knows: `requests` then returns one search per location, which is
            run once, when the requests are made. None: the requests of `requests` are final.
        columns: `refuse` and `rank` over whole columns, to search snapshots faster; None: item by item.
    """

    options: type[OptionsT]
    requests: Callable[[gpd.GeoDataFrame, OptionsT, int], gpd.GeoDataFrame]
    refuse: Callable[[Item, Request, OptionsT], str | None]
    rank: Callable[[Item, Request], tuple[Any, ...]]
    properties: tuple[Property, ...] = ()
    processings: Processings | None = None
    resolve: Callable[[Request, Sequence[Item], OptionsT, int], list[Request]] | None = None
    columns: ColumnRules[OptionsT] | None = None

    @property
    def by_columns(self) -> ColumnRules[OptionsT] | None:
        """The rules over columns; None if there are none, or if they belong to other rules."""
        told = (self.processings.tell,) if self.processings else ()
        return self.columns if self.columns and self.columns.of == (self.refuse, self.rank, *told) else None

    @property
    def property_names(self) -> tuple[str, ...]:
        """Names of all item properties that the rules use, each once."""
        declared = [name for one in self.properties for name in one.names]
        return tuple(dict.fromkeys((*declared, *(self.processings.properties if self.processings else ()))))


@dataclass(frozen=True)
class Assets:
    """The assets of a scene, by the names used here.

    Attributes:
        bands: assets of the model's bands, in the model's order.
        grid: asset on the finest grid, which defines the chips.
        optional: assets that an item may lack.
        aliases: other names of these assets in the catalogue → the name used here.
        shown: bands for pictures of chips, on the finest grid: (asset, band from 1) of red, green and blue, or of a
            single grey band; empty: the first band of `grid`.
    """

    bands: tuple[str, ...]
    grid: str
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[tuple[str, int], ...] = ()

    @property
    def view(self) -> tuple[tuple[str, int], ...]:
        """(asset, band from 1) for pictures of chips: three of them, or one."""
        return self.shown or ((self.grid, 1),)


@dataclass(frozen=True)
class Quality:
    """How cloud and nodata are determined.

    Attributes:
        assets: the quality assets.
        judge: pixels of the quality assets → (cloud mask, nodata mask), same shape, True for cloud or nodata. Must be
            pixelwise: for a single asset of 8 or 16 bits it is called once per code.
        reads: what to read from a quality asset: its first `band`, or the file's `mask` (0 is not valid).
        measured: number of measurement bands in a file if the item does not name its bands. They are never alpha,
            even if the file says so; 0: the file decides.
    """

    assets: tuple[str, ...]
    judge: Callable[[Pixels], tuple[Mask, Mask]]
    reads: Literal["band", "mask"] = "band"
    measured: int = 0


@dataclass(frozen=True)
class Files(Generic[OptionsT]):
    """Which files are read, and how they are accessed.

    Attributes:
        access: ways to access them; the first that applies to an href is used.
        alternate: name of the alternate-assets entry whose href is read instead of the asset's.
        rewrite: (href, options) → href to read by the recipe; None: unchanged.
        derivation: how images are resampled if the recipe says `derived`.
    """

    access: tuple[Access, ...] = ()
    alternate: str | None = None
    rewrite: Callable[[str, OptionsT], str] | None = None
    derivation: Derivation[OptionsT] | None = None


@dataclass(frozen=True)
class Platform(Generic[OptionsT]):
    """A source of scenes, generic over its recipe options.

    Attributes:
        key: name in partitions, paths and the index.
        title: name in pictures and messages.
        scenes: where its scenes are searched.
        rules: which searches are made, and which scene each gets.
        assets: names of its assets.
        quality: how cloud and nodata are determined.
        files: which files are read, and how they are accessed.
        typical: the typical size of a scene.
        version: increase if changed quality rules would yield a different index; only this platform is then re-indexed.
        same_without_nodata: an earlier version with the same index as today for scenes without nodata, or None.
        radiometry: how to find the offset to subtract from pixel values; None: there is never an offset.
        model: band metadata for the model; None: the model was not trained on this platform.
        licence: terms of use of its data, and the required attribution; Markdown, empty if unknown.
    """

    key: str
    title: str
    scenes: SceneSource
    rules: Rules[OptionsT]
    assets: Assets
    quality: Quality
    files: Files[OptionsT] = field(default_factory=Files)
    typical: Typical = field(default_factory=Typical)
    version: str = "1"
    same_without_nodata: str | None = None
    radiometry: Radiometry | None = None
    model: ModelInput | None = None
    licence: str = ""

    @property
    def model_input(self) -> ModelInput:
        """The bands of its chips in order; the first band of every asset if the model has no metadata."""
        return self.model or unknown(self.assets.bands)

    @cached_property
    def asset_names(self) -> tuple[str, ...]:
        """All assets that the pipeline keeps: bands and quality, without duplicates."""
        return tuple(dict.fromkeys((*self.assets.bands, *self.quality.assets)))

    def missing(self, item: Item, among: Sequence[str]) -> list[str]:
        """The required assets of `among` that an item lacks."""
        assets = item["assets"]
        return [name for name in among if name not in assets and name not in self.assets.optional]

    def read_item(self, document: Item) -> Item:
        """Validate an item from a catalogue, and keep only the assets of this platform, renamed to the names used here.

        Hrefs relative to the item are made absolute.

        Raises:
            InputError: invalid item; names item and field.
        """
        from clay_assets.sources.static_stac import with_absolute_hrefs  # here, so that definitions load without pystac

        return with_absolute_hrefs(read_item(document, bands=self.asset_names, aliases=self.assets.aliases))

    def read_items(self, documents: Sequence[Item]) -> list[Item | InputError]:
        """`read_item` for many items, in the same order; an invalid item is replaced by its error."""
        from clay_assets.sources.static_stac import with_absolute_hrefs

        read = read_items(documents, bands=self.asset_names, aliases=self.assets.aliases)
        return [
            item if isinstance(item, InputError) or has_absolute_hrefs(item) else with_absolute_hrefs(item)
            for item in read
        ]

    def href(self, asset: Mapping[str, Any], options: OptionsT | None = None) -> str:
        """The href to read for an asset.

        Args:
            asset: an item's asset; its alternate href is used if the platform prefers it.
            options: the recipe's options, which may rewrite the href; None for items whose hrefs are settled.

        Raises:
            InputError: the href is relative, and the item has no base address.
        """
        from clay_assets.sources.static_stac import is_relative

        alternates = asset.get("alternate")
        alternate = alternates.get(self.files.alternate) if isinstance(alternates, Mapping) else None
        href = str((alternate.get("href") if isinstance(alternate, Mapping) else None) or asset["href"])
        if is_relative(href):  # readers would resolve it against the working directory
            raise InputError(f"{href}: relative href without a base address. Add an absolute self link to the item.")
        return self.files.rewrite(href, options) if self.files.rewrite and options is not None else href

    def measured(self, item: Item, asset: str) -> tuple[int, ...]:
        """Measurement bands of an asset's file, from 1, by the item's band list; the file's own tags are ignored."""
        return measured_bands(item, asset, self.quality.measured)

    def settled(self, item: Item, options: OptionsT, hrefs: Mapping[str, str] | None = None) -> Item:
        """The item with the hrefs to read; other addresses of its assets are dropped.

        Args:
            item: a picked item.
            options: the recipe's options.
            hrefs: asset → replacement href.
        """
        settled = {}
        for name, asset in item["assets"].items():
            kept = {field: value for field, value in asset.items() if field != "alternate"}
            settled[name] = {**kept, "href": (hrefs or {}).get(name) or self.href(asset, options)}
        return {**item, "assets": settled}

    def access_to(self, href: str) -> Access:
        """How an href is accessed."""
        return access_for(self.files.access, href)

    def with_access(self, *ways: Access) -> Platform[OptionsT]:
        """The platform with additional ways of access, tried before its own, such as that of our storage.

        Ways without hosts are ignored: they would apply to every file.
        """
        own = tuple(way for way in ways if way.hosts)
        return replace(self, files=replace(self.files, access=(*own, *self.files.access))) if own else self


AnyPlatform: TypeAlias = Platform[Any]  # if its recipe options do not matter
