"""What the pipeline asks of a platform. A stage asks the platform; it never asks which platform it is.

A platform is data and small pure functions, gathered in one `Platform` at the end of its own module. Searching,
reading and writing belong to the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clay_assets.access import Access

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

FIRST_YEAR = 2010  # the earliest imagery of any platform that Clay was trained on (NAIP)

Item = dict[str, Any]  # a STAC item as JSON
Mask = NDArray[np.bool_]
Pixels = Mapping[str, NDArray[Any]]


class Options(BaseModel):
    """What a recipe may choose for a platform. Platforms add their own fields, with the defaults of clay_v1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    years: tuple[int, int] = Field(default=(2018, 2023), description="first and last year to draw from, both included")
    max_chip_nodata: float = Field(default=0.5, ge=0, le=1, description="chips with a larger nodata share are left out")
    imagery: Literal["reference", "copy"] = Field(
        default="reference", description="read images where they lie, or copy them into our storage first"
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
    """

    id: str
    location: str
    period: str
    start: datetime
    end: datetime
    geometry: BaseGeometry
    filters: tuple[Mapping[str, str | int], ...] = ()


@dataclass(frozen=True)
class Platform:
    """One source of scenes.

    Attributes:
        key: name in partitions, paths and the index.
        title: what people call it.
        catalogue: the field of `Settings` that holds its catalogue.
        collection: STAC collection id in that catalogue.
        sample: asset whose table its requests are made from.
        bands: assets of the model's bands, in the model's order.
        quality: assets that cloud and nodata are judged from.
        grid_asset: asset on the finest grid, which chips are counted on.
        options: the recipe fields of this platform.
        requests: (sample, options, seed) → request table (see `clay_assets.platforms.quarters`).
        refuse: (item, request, options) → why an item cannot be taken, or None.
        rank: (item, request) → sort key; the lowest is taken.
        judge: pixels of the quality assets → (cloud mask, nodata mask), same shape, True where it applies.
        properties: item properties that `refuse` and `rank` look at.
        aliases: other names that the catalogue has given to its assets → the name used here.
        alternate: name of the alternate-assets entry whose href is read instead of the asset's own.
        access: how its files are reached.
    """

    key: str
    title: str
    catalogue: str
    collection: str
    sample: str
    bands: tuple[str, ...]
    quality: tuple[str, ...]
    grid_asset: str
    options: type[Options]
    requests: Callable[[gpd.GeoDataFrame, Any, int], gpd.GeoDataFrame]
    refuse: Callable[[Item, Request, Any], str | None]
    rank: Callable[[Item, Request], tuple[Any, ...]]
    judge: Callable[[Pixels], tuple[Mask, Mask]]
    properties: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    alternate: str | None = None
    access: Access = field(default_factory=Access)

    @property
    def assets(self) -> tuple[str, ...]:
        """Every asset that the pipeline keeps: bands and quality, without repeats."""
        return tuple(dict.fromkeys((*self.bands, *self.quality)))

    def renamed(self, item: Item) -> Item:
        """The item with only the assets of this platform, under the names used here."""
        named = {self.aliases.get(name, name): asset for name, asset in item.get("assets", {}).items()}
        return {**item, "assets": {name: named[name] for name in self.assets if name in named}}

    def href(self, asset: Mapping[str, Any]) -> str:
        """The href of an asset that is to be read: the alternate one where the platform prefers it."""
        alternate = (asset.get("alternate") or {}).get(self.alternate) or {}
        return str(alternate.get("href") or asset["href"])
