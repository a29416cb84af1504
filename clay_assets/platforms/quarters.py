"""Requests of platforms that are sampled by location and quarter, and rules that such platforms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from clay_assets.draws import draw, keyed_hash
from clay_assets.platforms.base import ReferenceOrCopy, Request
from clay_assets.platforms.column_rules import Candidates, Refusal, unknown
from clay_assets.platforms.properties import is_number
from clay_assets.platforms.request_table import quarter_bounds, request_table
from clay_assets.stac import Item

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry


CLOUD_UNKNOWN, CLOUD_NOT_ASSESSED = "cloud cover unknown", "cloud cover below 0 (not assessed)"


class QuarterlyOptions(ReferenceOrCopy):
    """Recipe options of a platform that is searched by quarters."""

    years_per_location: int = Field(default=1, ge=1, description="random years drawn for each location")
    quarters: tuple[int, ...] = Field(
        default=(1, 2, 3, 4), min_length=1, description="quarters of a drawn year that may be searched"
    )

    @model_validator(mode="after")
    def _draw_is_possible(self) -> QuarterlyOptions:
        span = self.years[1] - self.years[0] + 1
        if self.years_per_location > span:
            raise ValueError(
                f"years_per_location {self.years_per_location} is more than the {span} years of {list(self.years)}"
            )
        if set(self.quarters) - {1, 2, 3, 4} or len(set(self.quarters)) != len(self.quarters):
            raise ValueError(f"quarters {list(self.quarters)}: only 1, 2, 3 and 4, each once")
        return self


class CloudOptions(QuarterlyOptions):
    """Recipe options of a platform that picks the least cloudy scene of each quarter."""

    max_cloud_cover: float = Field(default=75, ge=0, le=100, description="maximum eo:cloud_cover, percent")


def quarterly_requests(
    platform: str,
    sample: gpd.GeoDataFrame,
    options: QuarterlyOptions,
    seed: int,
    *,
    quarters_per_year: int | None = None,
    search_geometry: Callable[[BaseGeometry], BaseGeometry] = lambda tile: tile,
    filters: Callable[[str], list[dict[str, str]]] = lambda location: [],
) -> gpd.GeoDataFrame:
    """One request per location, drawn year and quarter, ordered by request id.

    Args:
        platform: platform key; part of every draw, so that platforms draw independently.
        sample: frame with `name` and polygon `geometry`, EPSG:4326.
        options: years and quarters to draw from, and their number.
        seed: the recipe's seed.
        quarters_per_year: number of random quarters per drawn year; None: all.
        search_geometry: tile polygon → geometry to search with.
        filters: location → alternatives of property values that items must equal.
    """
    first, last = options.years
    requests = []
    for name, polygon in zip(sample["name"], sample.geometry, strict=True):
        geometry = search_geometry(polygon)
        alternatives = tuple(filters(name))
        years = draw(range(first, last + 1), options.years_per_location, seed, platform, name)
        for year in map(int, years):
            drawn = keyed_hash(seed, platform, name, year)
            for quarter in _quarters(options, quarters_per_year, seed, platform, name, year):
                start, end = quarter_bounds(year, quarter)
                identity = f"{name}-{year}-Q{quarter}"
                requests.append(Request(identity, name, f"Q{quarter}", start, end, geometry, alternatives, drawn))
    return request_table(platform, requests)


def _quarters(options: QuarterlyOptions, size: int | None, seed: int, platform: str, name: str, year: int) -> list[int]:
    if size is None:
        return list(options.quarters)
    return sorted(map(int, draw(options.quarters, size, seed, platform, name, year, "quarter")))


def number(item: Item, *names: str) -> float | None:
    """The first of these properties that an item has, as a finite number, or None."""
    properties: Mapping[str, Any] = item["properties"]
    for name in names:
        value = properties.get(name)
        if is_number(value):
            return float(value)
    return None


def cloud_refusal(item: Item, options: CloudOptions) -> str | None:
    """Why an item is refused for its cloud cover, or None."""
    cover = number(item, "eo:cloud_cover")
    if cover is None:
        return CLOUD_UNKNOWN
    if cover < 0:
        return CLOUD_NOT_ASSESSED
    return _too_cloudy(options) if cover > options.max_cloud_cover else None


def cloud_refusals(candidates: Candidates, options: CloudOptions) -> list[Refusal]:
    """`cloud_refusal` over columns."""
    cover = candidates.numbers("eo:cloud_cover")
    return [
        (unknown(cover), CLOUD_UNKNOWN),
        (cover < 0, CLOUD_NOT_ASSESSED),
        (cover > options.max_cloud_cover, _too_cloudy(options)),
    ]


def _too_cloudy(options: CloudOptions) -> str:
    return f"cloud cover above {options.max_cloud_cover:g} %"
