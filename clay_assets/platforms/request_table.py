"""The request table of a platform, and the periods of requests.

A request table has one row per search; its columns are described in `scenes/columns.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clay_assets.platforms.base import Request

if TYPE_CHECKING:
    import geopandas as gpd

MONTHS_PER_QUARTER = 3
DECEMBER = 12
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


def request_table(platform: str, requests: Iterable[Request]) -> gpd.GeoDataFrame:
    """Requests as a table, ordered by id. A request belongs to the year in which it starts."""
    import geopandas as gpd  # both here, so that definitions load without a geometry library
    import pandas as pd

    rows = [
        {
            "request_id": request.id,
            "platform": platform,
            "location": request.location,
            "year": request.start.year,
            "period": request.period,
            "start": request.start,
            "end": request.end,
            "filters": json.dumps(list(request.filters), sort_keys=True),
            "draw": request.draw,
            "geometry": request.geometry,
        }
        for request in requests
    ]
    table = gpd.GeoDataFrame(pd.DataFrame(rows, columns=[*COLUMN_TYPES, "geometry"]), crs="EPSG:4326")
    return table.astype(COLUMN_TYPES).sort_values("request_id", ignore_index=True)


def requests_in(table: gpd.GeoDataFrame) -> list[Request]:
    """The inverse of `request_table`."""
    return [
        Request(
            id=row.request_id,
            location=row.location,
            period=row.period,
            start=row.start.to_pydatetime(),
            end=row.end.to_pydatetime(),
            geometry=row.geometry,
            filters=tuple(json.loads(row.filters)),
            draw=row.draw,
        )
        for row in table.itertuples()
    ]


def year_bounds(year: int) -> tuple[datetime, datetime]:
    """First moment of a year and first moment after it, UTC."""
    return datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)


def month_bounds(year: int, month: int) -> tuple[datetime, datetime]:
    """First moment of a month and first moment after it, UTC."""
    start = datetime(year, month, 1, tzinfo=UTC)
    return start, year_bounds(year)[1] if month == DECEMBER else start.replace(month=month + 1)


def quarter_bounds(year: int, quarter: int) -> tuple[datetime, datetime]:
    """First moment of a quarter and first moment after it, UTC."""
    last = MONTHS_PER_QUARTER * quarter
    return datetime(year, last - MONTHS_PER_QUARTER + 1, 1, tzinfo=UTC), month_bounds(year, last)[1]
