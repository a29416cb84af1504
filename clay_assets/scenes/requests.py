"""The request table of a platform: one row per search to make. The columns are described where they are made,
in `clay_assets.platforms.quarters`; which requests there are is the platform's to say.
"""

from __future__ import annotations

import json
from typing import cast

import geopandas as gpd

from clay_assets.errors import InputError
from clay_assets.platforms.base import Platform, Request
from clay_assets.recipes import Recipe


def make_requests(platform: Platform, sample: gpd.GeoDataFrame, recipe: Recipe) -> gpd.GeoDataFrame:
    """All searches of a platform, over all years.

    Args:
        platform: whose requests.
        sample: the table that its requests are made from, EPSG:4326.
        recipe: years, quarters, limits and seed.

    Raises:
        InputError: two requests have the same id.
    """
    table = platform.requests(sample, recipe.options(platform.key), recipe.seed)
    repeated = table["request_id"][table["request_id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"{platform.key}: request {repeated.iloc[0]} occurs twice; {platform.sample} names a location twice."
        )
    return cast(gpd.GeoDataFrame, table)


def requests_of(table: gpd.GeoDataFrame, year: int) -> list[Request]:
    """The requests of one year partition, in the order of their ids."""
    rows = table[table["year"] == year].sort_values("request_id")
    return [
        Request(
            id=row.request_id,
            location=row.location,
            period=row.period,
            start=row.start.to_pydatetime(),
            end=row.end.to_pydatetime(),
            geometry=row.geometry,
            filters=tuple(json.loads(row.filters)),
        )
        for row in rows.itertuples()
    ]
