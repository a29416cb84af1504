"""What the pipeline asks of a platform. A stage asks the platform; it never asks which platform it is.

A platform is data and small pure functions, gathered in one `Platform` at the end of its own module. Searching,
reading and writing belong to the stages.
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

FIRST_YEAR = 2010  # the earliest imagery of any platform that Clay was trained on (NAIP)

# Quoted, as numpy is imported where pixels are: definitions load in half the time without it.
Mask: TypeAlias = "NDArray[np.bool_]"
Pixels: TypeAlias = "Mapping[str, NDArray[Any]]"


class Options(BaseModel):
    """What a recipe may choose for a platform. Platforms add their own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    years: tuple[int, int] = Field(default=(2018, 2023), description="first and last year to draw from, both included")
    max_chip_nodata: float = Field(default=0.5, ge=0, le=1, description="chips with a larger nodata share are left out")
    imagery: Literal["reference", "copy", "derived"] = Field(
        default="reference",
        description="read images where they lie, copy them into our storage first, or resample them into our storage",
    )

    @model_validator(mode="after")
    def _years_in_order(self) -> Options:
        first, last = self.years
        if first > last:
            raise ValueError(f"years {list(self.years)}: the first is after the last")
        this_year = datetime.now(UTC).year
        if first < FIRST_YEAR or last > this_year:
            raise ValueError(f"years {list(self.years)}: there are partitions from {FIRST_YEAR} to {this_year}")
        return self


class ReferenceOrCopy(Options):
    """Recipe fields of a platform whose files are read as they are."""

    imagery: Literal["reference", "copy"] = Field(
        default="reference", description="read images where they lie, or copy them into our storage first"
    )


OptionsT = TypeVar("OptionsT", bound=Options)  # the recipe fields of one platform


@dataclass(frozen=True)
class Request:
    """One search to make.

    Attributes:
        id: unique within the platform, such as `29RKH-2020-Q1`.
        location: name of the sampled place, such as an MGRS tile.
        period: name of the part of the year searched, such as `Q1`.
        start: first moment, UTC, included.
        end: last moment, UTC, excluded.
        geometry: what items must intersect, EPSG:4326.
        filters: alternatives; an item matches if all properties of one of them are equal. Empty: any item.
        draw: the keyed hash by which it was drawn; 0 where nothing was left to chance.
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
    """How the images of a scene are resampled into our own storage, as cloud-optimized GeoTIFFs.

    Attributes:
        crs: CRS of the target grid, in metres; None: that of the source.
        gsd: options → pixel size of the target grid in metres, never finer than the source's; None: the size that
            keeps the number of pixels on the diagonal.
        resampling: `nearest` or `bilinear`, of colours; masks are always nearest.
        bands: how many bands are kept, from the first; None: all.
        fill: asset → value of pixels that the source does not have; empty where a mask marks them.
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
    """The typical size of one scene, to estimate the cost of a run before anything is read.

    Bytes are those of the pixels before compression, so files are smaller. The defaults are those of a Sentinel-2
    scene with four bands.

    Attributes:
        height, width: pixels of the finest grid.
        quality_bytes: read to index a scene, per pixel of that grid.
        image_bytes: of all its files, per pixel of that grid.
        derived_bytes: of the files that are resampled from them, per pixel of that grid; 0 where none are.
    """

    height: int = 10980
    width: int = 10980
    quality_bytes: float = 1
    image_bytes: float = 8
    derived_bytes: float = 0

    def chips(self, size: int) -> int:
        """Whole chips of `size` pixels in its grid."""
        return (self.height // size) * (self.width // size)


@dataclass(frozen=True)
class SceneSource:
    """Where the scenes of a platform are looked up.

    Attributes:
        catalogue: the setting that holds its catalogue: a field of `Settings`, or one that `default` makes. Of
            `stac_my_catalogue` the variable is CLAY_STAC_MY_CATALOGUE.
        collection: STAC collection id in that catalogue; None: any.
        sample: asset whose table the requests are made from.
        sample_has_items: whether the sample is itself a table of STAC items; scenes are then looked up there.
        default: the address of a catalogue for which `Settings` has no field; None where it has one.
    """

    catalogue: str
    collection: str | None
    sample: str
    sample_has_items: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Rules(Generic[OptionsT]):
    """Which searches are made, and which scene each of them gets.

    What `refuse`, `rank` or `resolve` raises is a bug of theirs, and fails the request; what may be wrong with an item
    is declared in `properties`, or refused.

    Attributes:
        options: the recipe fields of this platform.
        requests: (sample, options, seed) → request table (see `clay_assets.platforms.request_table`).
        refuse: (item, request, options) → why an item cannot be taken, or None.
        rank: (item, request) → sort key; the lowest is taken.
        properties: item properties that the rules look at; a candidate may lack all others. An item that breaks their
            declaration is refused before the rules run.
        processings: how to tell that items are processings of one acquisition, of which the newest alone is a
            candidate; None: every item is an acquisition of its own.
        resolve: (request, items found, options, seed) → the requests that it becomes, each within one year. For
            platforms whose years are the catalogue's to say: then `requests` gives one search per location, which is
            made once, when the requests are made. None: requests are as `requests` gives them.
        columns: `refuse` and `rank` once more over whole columns, by which snapshots are searched faster; None: item by
            item.
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
        """The rules over columns, None where there are none that stand for these rules."""
        told = (self.processings.tell,) if self.processings else ()
        return self.columns if self.columns and self.columns.of == (self.refuse, self.rank, *told) else None

    @property
    def property_names(self) -> tuple[str, ...]:
        """All names of the item properties that the rules look at, each once."""
        declared = [name for one in self.properties for name in one.names]
        return tuple(dict.fromkeys((*declared, *(self.processings.properties if self.processings else ()))))


@dataclass(frozen=True)
class Assets:
    """The assets of a scene, by the names used here.

    Attributes:
        bands: assets of the model's bands, in the model's order.
        grid: asset on the finest grid, which chips are counted on.
        optional: assets that an item may lack.
        aliases: other names that the catalogue has given to these assets → the name used here.
        shown: what a picture of its chips is made of, on the finest grid: (asset, band from 1) of red, green and blue,
            or of one in grey; empty: the first band of `grid`.
    """

    bands: tuple[str, ...]
    grid: str
    optional: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[tuple[str, int], ...] = ()

    @property
    def view(self) -> tuple[tuple[str, int], ...]:
        """(asset, band from 1) that a picture of its chips is made of: three of them, or one."""
        return self.shown or ((self.grid, 1),)


@dataclass(frozen=True)
class Quality:
    """What cloud and nodata are judged from.

    Attributes:
        assets: the quality assets.
        judge: pixels of the quality assets → (cloud mask, nodata mask), same shape, True where it applies. Each pixel
            by itself, whatever its neighbours are: of a single asset of 8 or 16 bits, it is asked once for each code.
        reads: what is read of a quality asset: its first `band`, or the file's `mask` (0 is not valid).
        measured: how many bands of a file are measurements where the item does not name its bands. None of them is
            alpha, even where the file says so; 0: the file tells.
    """

    assets: tuple[str, ...]
    judge: Callable[[Pixels], tuple[Mask, Mask]]
    reads: Literal["band", "mask"] = "band"
    measured: int = 0


@dataclass(frozen=True)
class Files(Generic[OptionsT]):
    """Which files are read, and how they are accessed.

    Attributes:
        access: ways to access them; the first that applies to an href is taken.
        alternate: name of the alternate-assets entry whose href is read instead of the asset's own.
        rewrite: (href, options) → href that the recipe wants read; None: as it is.
        derivation: how images are resampled, where the recipe says `derived`.
    """

    access: tuple[Access, ...] = ()
    alternate: str | None = None
    rewrite: Callable[[str, OptionsT], str] | None = None
    derivation: Derivation[OptionsT] | None = None


@dataclass(frozen=True)
class Platform(Generic[OptionsT]):
    """One source of scenes, generic over its recipe fields.

    Attributes:
        key: name in partitions, paths and the index.
        title: name in pictures and messages.
        scenes: where its scenes are looked up.
        rules: which searches are made, and which scene each gets.
        assets: names of its assets.
        quality: what cloud and nodata are judged from.
        files: which files are read, and how they are accessed.
        typical: the typical size of one of its scenes.
        version: raise it when its quality rules would give the same scene another index; its scenes alone are then
            indexed again.
        same_without_nodata: a former version that gave scenes without any nodata the index of today; None: none.
        radiometry: how to tell what is to be taken away from the numbers of a scene's bands; None: nothing ever is.
        model: what the model is told of its bands; None: it was not trained on them.
        licence: terms of use of its data, and the attribution that they ask for; Markdown, empty where unknown.
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
        """The bands of its chips in order; the first band of every asset where the model knows none."""
        return self.model or unknown(self.assets.bands)

    @cached_property
    def asset_names(self) -> tuple[str, ...]:
        """Every asset that the pipeline keeps: bands and quality, without repeats."""
        return tuple(dict.fromkeys((*self.assets.bands, *self.quality.assets)))

    def missing(self, item: Item, among: Sequence[str]) -> list[str]:
        """Those of some assets that an item should have and lacks."""
        assets = item["assets"]
        return [name for name in among if name not in assets and name not in self.assets.optional]

    def read_item(self, document: Item) -> Item:
        """A foreign item as the pipeline trusts it, with only the assets of this platform under the names used here.

        Hrefs that are relative to the item are made absolute.

        Raises:
            InputError: the item is not valid; names item and field.
        """
        from clay_assets.sources.static_stac import with_absolute_hrefs  # here, so that definitions load without pystac

        return with_absolute_hrefs(read_item(document, bands=self.asset_names, aliases=self.assets.aliases))

    def read_items(self, documents: Sequence[Item]) -> list[Item | InputError]:
        """Many items as `read_item` gives them, in the same order; the error in place of one that is not valid."""
        from clay_assets.sources.static_stac import with_absolute_hrefs

        read = read_items(documents, bands=self.asset_names, aliases=self.assets.aliases)
        return [
            item if isinstance(item, InputError) or has_absolute_hrefs(item) else with_absolute_hrefs(item)
            for item in read
        ]

    def href(self, asset: Mapping[str, Any], options: OptionsT | None = None) -> str:
        """The href of an asset that is to be read.

        Args:
            asset: of an item; its alternate href is taken where the platform prefers it.
            options: of a recipe, where it may want another place; None for items whose hrefs are settled.

        Raises:
            InputError: the href is relative, and the item did not say to what.
        """
        from clay_assets.sources.static_stac import is_relative

        alternates = asset.get("alternate")
        alternate = alternates.get(self.files.alternate) if isinstance(alternates, Mapping) else None
        href = str((alternate.get("href") if isinstance(alternate, Mapping) else None) or asset["href"])
        if is_relative(href):  # to the working directory, for whoever opens it; another file may lie there
            raise InputError(
                f"{href}: relative href, and its item does not say to what. Give it an absolute self link."
            )
        return self.files.rewrite(href, options) if self.files.rewrite and options is not None else href

    def measured(self, item: Item, asset: str) -> tuple[int, ...]:
        """Bands of an asset's file, from 1, that are measurements by its item's band list, whatever the file says."""
        return measured_bands(item, asset, self.quality.measured)

    def settled(self, item: Item, options: OptionsT, hrefs: Mapping[str, str] | None = None) -> Item:
        """The item with its assets' hrefs settled; the other addresses of an asset are dropped.

        Args:
            item: a picked item.
            options: of the recipe.
            hrefs: asset → href that replaces it.
        """
        settled = {}
        for name, asset in item["assets"].items():
            kept = {field: value for field, value in asset.items() if field != "alternate"}
            settled[name] = {**kept, "href": (hrefs or {}).get(name) or self.href(asset, options)}
        return {**item, "assets": settled}

    def access_to(self, href: str) -> Access:
        """How one href is accessed."""
        return access_for(self.files.access, href)

    def with_access(self, *ways: Access) -> Platform[OptionsT]:
        """The platform with other ways to reach files, tried before its own, such as those of our storage.

        Ways without hosts are left out: they would apply to every file.
        """
        own = tuple(way for way in ways if way.hosts)
        return replace(self, files=replace(self.files, access=(*own, *self.files.access))) if own else self


AnyPlatform: TypeAlias = Platform[Any]  # where it does not matter which recipe fields it has
