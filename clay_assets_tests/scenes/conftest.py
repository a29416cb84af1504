from __future__ import annotations

from collections.abc import Iterator

import geopandas as gpd
import pytest

from clay_assets.demo import grid
from clay_assets.demo.planet import Planet
from clay_assets_tests.servers.stac_api import StacApi


@pytest.fixture(scope="session")
def planet_tiles() -> gpd.GeoDataFrame:
    """All tiles of the planet, in the form of a sample."""
    tiles = grid.tiles()
    return gpd.GeoDataFrame(
        {"name": [tile.name for tile in tiles]}, geometry=[tile.polygon for tile in tiles], crs="EPSG:4326"
    )


@pytest.fixture(scope="module")
def planet_api(stac_api: StacApi, planet: Planet) -> Iterator[StacApi]:
    """A STAC API with the planet's items only."""
    stac_api.clear()
    collections = planet.collections()
    stac_api.load(collections, [item for one in collections for item in planet.items(one["id"])])
    yield stac_api
    stac_api.clear()
