"""Requests for platforms that are sampled by place and quarter, and the rules such platforms share.

A request table has one row per search:

| column | type | meaning |
|---|---|---|
| `request_id` | string | unique within the platform, `{location}-{year}-Q{quarter}` |
| `platform`, `location` | string | the platform's key; the sampled place |
| `year` | int16 | the year partition it belongs to |
| `period` | string | `Q1` … `Q4` |
| `start`, `end` | timestamp[ms, UTC] | the period; `end` is excluded |
| `filters` | string | JSON list of alternatives, each `{property: value}` that an item must equal |
| `draw` | uint64 | the keyed hash by which the year was drawn |
| `geometry` | EPSG:4326 | what items must intersect |
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from clay_assets.draws import draw, keyed_hash
from clay_assets.platforms.base import Item, Options

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

MONTHS_PER_QUARTER = 3
COLUMN_TYPES = {
    "request_id": "string",
    "platform": "string",
    "location": "string",
    "year": "int16",
    "period": "string",
    "start": "datetime64[ms, UTC]",
    "end": "datetime64[ms, UTC]",
    "filters": "string",
    "draw": "uint64",
}


class QuarterlyOptions(Options):
    """Recipe fields of a platform that takes the least cloudy scene of each quarter."""

    years_per_location: int = Field(default=1, ge=1, description="random years drawn for each location")
    quarters: tuple[int, ...] = Field(
        default=(1, 2, 3, 4), min_length=1, description="quarters searched in a drawn year"
    )
    max_cloud_cover: float = Field(default=75, ge=0, le=100, description="highest eo:cloud_cover taken, percent")

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


def quarterly_requests(
    platform: str,
    sample: gpd.GeoDataFrame,
    options: QuarterlyOptions,
    seed: int,
    *,
    search_geometry: Callable[[BaseGeometry], BaseGeometry] = lambda tile: tile,
    filters: Callable[[str], list[dict[str, str]]] = lambda location: [],
) -> gpd.GeoDataFrame:
    """One request for each location, drawn year and quarter, ordered by request id.

    Args:
        platform: platform key; part of every draw, so that platforms draw independently.
        sample: frame with `name` and polygon `geometry`, EPSG:4326.
        options: years to draw from, how many, quarters.
        seed: the recipe's seed.
        search_geometry: tile polygon → geometry to search with.
        filters: location → alternatives of property values that items must equal.
    """
    import geopandas as gpd  # both here, so that definitions load without a geometry library
    import pandas as pd

    first, last = options.years
    rows = []
    for name, polygon in zip(sample["name"], sample.geometry, strict=True):
        geometry = search_geometry(polygon)
        alternatives = json.dumps(filters(name), sort_keys=True)
        years = draw(range(first, last + 1), options.years_per_location, seed, platform, name)
        for year in map(int, years):
            drawn = keyed_hash(seed, platform, name, year)
            for quarter in options.quarters:
                start, end = quarter_bounds(year, quarter)
                rows.append(
                    {
                        "request_id": f"{name}-{year}-Q{quarter}",
                        "platform": platform,
                        "location": name,
                        "year": year,
                        "period": f"Q{quarter}",
                        "start": start,
                        "end": end,
                        "filters": alternatives,
                        "draw": drawn,
                        "geometry": geometry,
                    }
                )
    table = gpd.GeoDataFrame(pd.DataFrame(rows, columns=[*COLUMN_TYPES, "geometry"]), crs="EPSG:4326")
    return table.astype(COLUMN_TYPES).sort_values("request_id", ignore_index=True)


def quarter_bounds(year: int, quarter: int) -> tuple[datetime, datetime]:
    """First moment of a quarter and first moment after it, UTC."""
    month = MONTHS_PER_QUARTER * (quarter - 1) + 1
    start = datetime(year, month, 1, tzinfo=UTC)
    after = datetime(year + 1, 1, 1, tzinfo=UTC) if quarter == 4 else start.replace(month=month + MONTHS_PER_QUARTER)
    return start, after


def number(item: Item, *names: str) -> float | None:
    """The first of these properties that an item has, as a finite number; None if it has none of them."""
    properties: Mapping[str, Any] = item["properties"]
    for name in names:
        value = properties.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    return None


def cloud_refusal(item: Item, options: QuarterlyOptions) -> str | None:
    """Why an item's scene cloud cover keeps it from being taken, or None."""
    cover = number(item, "eo:cloud_cover")
    if cover is None:
        return "cloud cover unknown"
    if cover < 0:
        return "cloud cover below 0 (not assessed)"
    if cover > options.max_cloud_cover:
        return f"cloud cover above {options.max_cloud_cover:g} %"
    return None
