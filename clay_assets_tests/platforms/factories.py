"""Shared by the tests of the platforms: recipes with a section for one platform, requests, and small samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from shapely.geometry.base import BaseGeometry

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import requests_in, year_bounds
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.scenes.requests import make_requests

HEAD = 'name = "x"\nseed = 42\n[[tile_rules]]\nrule = "r"\nclass = "Cropland"\ntiles = 1\nfrom_highest = 1\n'
TILE = shapely.box(6, 0, 7, 1)
TWO_PARTS = shapely.MultiPolygon([shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.5, -16)])


def recipe_with(folder: Path, platform: str, section: str) -> Recipe:
    """A recipe with one rule, and with these lines of TOML as the section of a platform."""
    path = folder / "recipe.toml"
    path.write_text(f"{HEAD}[platforms.{platform}]\n{section}\n", encoding="utf-8")
    return load_recipe(path)


def mistake(folder: Path, platform: str, section: str) -> str:
    """The error message for such a section."""
    with pytest.raises(InputError) as raised:
        recipe_with(folder, platform, section)
    return str(raised.value)


def request(
    location: str = "32NLG", geometry: BaseGeometry = TILE, year: int = 2020, filters: tuple[dict[str, Any], ...] = ()
) -> Request:
    """A request for any item of a year."""
    return Request(f"{location}-{year}", location, "all", *year_bounds(year), geometry, filters)


def moment(text: str) -> datetime:
    """Parse an ISO 8601 time."""
    return datetime.fromisoformat(text)


def world(count: int) -> gpd.GeoDataFrame:
    """`count` tiles of one degree."""
    names = [f"{1 + n % 60:02}C{'ABCDEFGH'[n // 60 % 8]}{'JKLM'[n // 480]}" for n in range(count)]
    boxes = [shapely.box(-180 + n % 350, 0, -179 + n % 350, 1) for n in range(count)]
    return gpd.GeoDataFrame({"name": names}, geometry=boxes, crs="EPSG:4326")


def table(platform: str, sample: gpd.GeoDataFrame, recipe: Recipe | None = None) -> gpd.GeoDataFrame:
    """The request table of a sample, by default with Clay v1's recipe."""
    return make_requests(PLATFORMS[platform], sample, recipe or load_recipe("clay_v1"))


def requests(platform: str, sample: gpd.GeoDataFrame, recipe: Recipe | None = None) -> list[Request]:
    """The rows of that table."""
    return requests_in(table(platform, sample, recipe))


def same(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> None:
    """Assert that two request tables are equal, including row order and types."""
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))


def hashed(*names: str | int) -> int:
    """The draw for names, computed from its definition: BLAKE2b of 8 bytes, parts joined by U+001F."""
    return int(hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).hexdigest(), 16)


def lowest(candidates: Iterable[int], *names: str | int) -> int:
    """The candidate with the lowest draw."""
    return min(candidates, key=lambda candidate: hashed(*names, candidate))


def item(
    item_id: str,
    collection: str,
    when: str | None,
    assets: Iterable[str],
    geometry: BaseGeometry = TILE,
    **properties: Any,
) -> dict[str, Any]:
    """A STAC item; properties that are None are left out."""
    given = {name: value for name, value in properties.items() if value is not None}
    west, south, east, north = geometry.bounds
    if geometry.geom_type == "MultiPolygon" and east - west > 180:  # across ±180, RFC 7946
        west, east = max(part.bounds[0] for part in geometry.geoms), min(part.bounds[2] for part in geometry.geoms)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": item_id,
        "collection": collection,
        "geometry": shapely.geometry.mapping(geometry),
        "bbox": [west, south, east, north],
        "properties": {"datetime": when, **given},
        "links": [{"rel": "collection", "href": f"https://example.com/{collection}", "type": "application/json"}],
        "assets": {name: {"href": f"https://example.com/{item_id}/{name}.tif"} for name in assets},
    }
