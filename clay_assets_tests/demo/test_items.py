"""Items are valid STAC and include every quirk that the pipeline must handle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
from rasterio.warp import transform as warp
from stac_geoparquet.arrow import stac_table_to_items

from clay_assets.demo.grid import OCEAN_TILE, TILES, tile
from clay_assets.demo.planet import Planet
from clay_assets.demo.sites import COLLECTIONS, FOLDERS, LANDSAT_L1, LANDSAT_L2, LANDSAT_TILES, MODIS, SENTINEL_2

OPTICAL = (SENTINEL_2, LANDSAT_L1, LANDSAT_L2)
LANDSAT_BANDS = {"blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel"}
S2_BANDS = {"blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22"}


def _prop(item: dict[str, Any], name: str) -> Any:
    return item["properties"].get(name)


def _quarters(items: list[dict[str, Any]]) -> Any:
    """Items by place, year and quarter."""
    found = defaultdict(list)
    for item in items:
        place = _prop(item, "landsat:wrs_path") or item["id"].split("_")[1]
        year, month = _prop(item, "datetime")[:4], int(_prop(item, "datetime")[5:7])
        found[place, year, (month - 1) // 3].append(item)
    return found


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_items_are_valid_stac(planet: Planet, collection: Any) -> None:
    items = planet.items(collection)
    assert len({item["id"] for item in items}) == len(items)
    for raw in items:
        shape = shapely.geometry.shape(raw["geometry"])
        assert shape.is_valid
        assert all(-180 <= x <= 180 for x in shapely.get_coordinates(shape)[:, 0])
        item = pystac.Item.from_dict(raw, preserve_dict=True)
        assert (item.datetime is None) == (collection == MODIS)
        if collection == MODIS:
            start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
            assert start is not None
            assert end is not None
            assert start < end
        assert item.collection_id == collection


def test_collections_are_valid_stac(planet: Planet) -> None:
    found = [pystac.Collection.from_dict(raw) for raw in planet.collections()]
    assert [one.id for one in found] == list(COLLECTIONS)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_snapshot_gives_the_items_back(planet: Planet, collection: Any) -> None:
    table = pq.read_table(planet.folder / FOLDERS[collection] / f"{collection}.parquet")
    assert b"geo" in table.schema.metadata
    read = {item["id"]: item for item in stac_table_to_items(table)}
    items = planet.items(collection)
    assert set(read) == {item["id"] for item in items}
    for item in items:
        back = read[item["id"]]
        pystac.Item.from_dict(back, preserve_dict=True)
        assert set(back["assets"]) == set(item["assets"])
        assert back["bbox"] == item["bbox"]
        assert {key: asset["href"] for key, asset in back["assets"].items()} == {
            key: asset["href"] for key, asset in item["assets"].items()
        }
        for name in ("eo:cloud_cover", "grid:code", "proj:epsg", "proj:code", "platform", "proj:shape"):
            assert _prop(back, name) == _prop(item, name)
        assert shapely.geometry.shape(back["geometry"]).equals(shapely.geometry.shape(item["geometry"]))


@pytest.mark.parametrize("collection", OPTICAL)
def test_files_have_the_grid_that_the_item_states(planet: Planet, collection: Any) -> None:
    for item in planet.items(collection)[::40]:
        for asset in item["assets"].values():
            with rasterio.open(asset["href"]) as src:
                stated = {**item["properties"], **asset}
                assert list(src.shape) == stated["proj:shape"]
                assert list(src.transform)[:6] == stated["proj:transform"]
                epsg = stated.get("proj:epsg") or int(stated["proj:code"].removeprefix("EPSG:"))
                assert src.crs.to_epsg() == epsg
                assert src.dtypes[0] == ("uint8" if "SCL" in asset["href"] else "uint16")


def test_sentinel_2_scenes_lie_in_their_tiles(planet: Planet) -> None:
    for item in planet.items(SENTINEL_2):
        name = item["id"].split("_")[1].zfill(5)
        assert tile(name).polygon.buffer(1e-6).contains(shapely.geometry.shape(item["geometry"]))


def test_landsat_scenes_hold_the_middle_of_each_of_their_tiles(planet: Planet) -> None:
    for item in (*planet.items(LANDSAT_L1), *planet.items(LANDSAT_L2)):
        shape = shapely.geometry.shape(item["geometry"])
        names = LANDSAT_TILES[_prop(item, "landsat:wrs_path") + _prop(item, "landsat:wrs_row")]
        assert all(shape.contains(tile(name).polygon.representative_point()) for name in names)


def test_footprint_is_where_the_data_is(planet: Planet) -> None:
    """The corners of the valid area, read from the file, match the item's outline."""
    item = next(one for one in planet.items(SENTINEL_2) if _prop(one, "s2:nodata_pixel_percentage") > 20)
    with rasterio.open(item["assets"]["scl"]["href"]) as src:
        rows = src.read(1) != 0
        first = rows.argmax(axis=1)
        x = src.bounds.left + np.array([first[0], first[-1]]) * src.res[0]
        y = np.array([src.bounds.top, src.bounds.bottom])
        lon, lat = warp(src.crs, "EPSG:4326", x, y)
    outline = shapely.geometry.shape(item["geometry"])
    for point in zip(lon, lat, strict=True):
        assert outline.exterior.distance(shapely.Point(point)) < 0.0004  # two pixels


def _zones(planet: Planet) -> set[str]:
    return {name[:2] for name in planet.tiles}


def _s2(planet: Planet) -> list[dict[str, Any]]:
    return planet.items(SENTINEL_2)


def _landsat(planet: Planet) -> list[dict[str, Any]]:
    return planet.items(LANDSAT_L1) + planet.items(LANDSAT_L2)


def _least(items: list[dict[str, Any]]) -> dict[str, Any]:
    return min(items, key=lambda item: _prop(item, "eo:cloud_cover"))


def _crosses(item: dict[str, Any]) -> bool:
    return item["geometry"]["type"] == "MultiPolygon" and item["bbox"][0] > item["bbox"][2]


def _places_with_gaps(planet: Planet, collection: str) -> int:
    places = {place for place, _, _ in _quarters(planet.items(collection))}
    return len(places) * 24 - len(_quarters(planet.items(collection)))


def _any_chip(planet: Planet, collection: str, test: Any) -> bool:
    return any(test(planet.chip_truth(item["id"])["nodata_percentage"]).any() for item in planet.items(collection))


TRAITS: dict[str, Callable[[Planet], bool]] = {
    "10 to 14 tiles": lambda p: 10 <= len(p.tiles) <= 14,
    "three UTM zones": lambda p: len(_zones(p)) >= 3,
    "a tile in zones 2 to 9": lambda p: any(2 <= int(zone) <= 9 for zone in _zones(p)),
    "both hemispheres": lambda p: {name[2] >= "N" for name in p.tiles} == {True, False},
    "a tile across ±180": lambda p: any(tile(n).polygon.geom_type == "MultiPolygon" for n in p.tiles),
    "a tile without WorldCover": lambda p: p.class_shares().set_index("name").valid_share[OCEAN_TILE] == 0,
    "a tile partly without WorldCover": lambda p: bool(p.class_shares().valid_share.between(0.5, 0.95).any()),
    "Sentinel-2 scene across ±180": lambda p: any(map(_crosses, _s2(p))),
    "Landsat scene across ±180": lambda p: any(map(_crosses, _landsat(p))),
    "grid:code padded": lambda p: any(_prop(i, "grid:code")[5] == "0" for i in _s2(p)),
    "grid:code unpadded": lambda p: any(len(_prop(i, "grid:code")) == 9 for i in _s2(p)),
    "all years": lambda p: all(
        {_prop(i, "datetime")[:4] for i in p.items(c)} == {str(y) for y in range(2018, 2024)} for c in OPTICAL
    ),
    "several dates in a quarter": lambda p: all(max(map(len, _quarters(p.items(c)).values())) >= 2 for c in OPTICAL),
    "quarters without items": lambda p: all(_places_with_gaps(p, c) for c in OPTICAL),
    "quarters all above 75 % cloud": lambda p: all(
        any(_prop(_least(q), "eo:cloud_cover") > 75 for q in _quarters(p.items(c)).values()) for c in OPTICAL
    ),
    "least cloudy has too much nodata": lambda p: any(
        len(q) > 1 and _prop(_least(q), "s2:nodata_pixel_percentage") > 20 for q in _quarters(_s2(p)).values()
    ),
    "cloud 0.0 twice": lambda p: all(
        any(sum(_prop(i, "eo:cloud_cover") == 0 for i in q) >= 2 for q in _quarters(p.items(c)).values())
        for c in OPTICAL
    ),
    "cloud −1 by day": lambda p: all(
        any(_prop(i, "eo:cloud_cover") == -1 and _prop(i, "view:sun_elevation") > 0 for i in p.items(c))
        for c in (LANDSAT_L1, LANDSAT_L2)
    ),
    "night with cloud −1": lambda p: any(
        _prop(i, "view:sun_elevation") < 0 and _prop(i, "eo:cloud_cover") == -1 for i in p.items(LANDSAT_L1)
    ),
    "night that is the least cloudy": lambda p: any(
        len(q) > 1 and _prop(_least(q), "view:sun_elevation") < 0 and _prop(_least(q), "eo:cloud_cover") == 0
        for q in _quarters(p.items(LANDSAT_L1)).values()
    ),
    "no night in level 2": lambda p: all(_prop(i, "view:sun_elevation") > 0 for i in p.items(LANDSAT_L2)),
    "Landsat 7": lambda p: any(
        i["id"].startswith("LE07_") and _prop(i, "platform") == "LANDSAT_7" for i in _landsat(p)
    ),
    "Landsat 8 and 9": lambda p: {"LANDSAT_8", "LANDSAT_9"} <= {_prop(i, "platform") for i in _landsat(p)},
    "proj:code for proj:epsg": lambda p: all(
        any("proj:code" in i["properties"] and "proj:epsg" not in i["properties"] for i in p.items(c)) for c in OPTICAL
    ),
    "one item without scl, not the best": lambda p: (
        [_least(q)["id"] != i["id"] for q in _quarters(_s2(p)).values() for i in q if "scl" not in i["assets"]]
        == [True]
    ),
    "two processings of a scene": lambda p: any(
        i["id"].replace("_1_L2A", "_0_L2A") in {j["id"] for j in _s2(p)} for i in _s2(p) if "_1_L2A" in i["id"]
    ),
    "Sentinel-2 assets": lambda p: all(set(i["assets"]) | {"scl"} == S2_BANDS | {"scl"} for i in _s2(p)),
    "Landsat assets": lambda p: all(set(i["assets"]) == LANDSAT_BANDS for i in p.items(LANDSAT_L2)),
    "15 m pan in level 1": lambda p: all(
        i["assets"]["pan"]["proj:shape"] == [2 * n - 1 for n in _prop(i, "proj:shape")] for i in p.items(LANDSAT_L1)
    ),
    "requester-pays alternate": lambda p: all(
        a["alternate"]["s3"]["storage:requester_pays"] for i in _landsat(p) for a in i["assets"].values()
    ),
    "southern Landsat in a northern zone": lambda p: any(
        _prop(i, "proj:epsg") == 32634 and _prop(i, "proj:transform")[5] < 0 for i in _landsat(p)
    ),
    "one Landsat scene for two tiles": lambda p: any(len(names) > 1 for names in LANDSAT_TILES.values()),
    "ragged edge": lambda p: all(i["assets"]["red"]["proj:shape"][0] % 256 for i in _s2(p)),
    "chips without any nodata": lambda p: all(_any_chip(p, c, lambda n: n == 0) for c in OPTICAL),
    "chips with some nodata": lambda p: all(_any_chip(p, c, lambda n: (n > 0) & (n < 0.5)) for c in OPTICAL),
    "chips of exactly half nodata": lambda p: all(_any_chip(p, c, lambda n: n == 0.5) for c in OPTICAL),
    "chips of more than half nodata": lambda p: all(_any_chip(p, c, lambda n: (n > 0.5) & (n < 1)) for c in OPTICAL),
    "every file readable": lambda p: all(_readable(i) for c in OPTICAL for i in p.items(c)[::25]),
}


def _readable(item: dict[str, Any]) -> bool:
    for asset in item["assets"].values():
        with rasterio.open(asset["href"]) as src:
            src.read(1)
    return True


@pytest.mark.parametrize("trait", TRAITS)
def test_planet_has(planet: Planet, trait: Any) -> None:
    assert TRAITS[trait](planet)


def test_a_chip_crosses_the_antimeridian(planet: Planet) -> None:
    """A whole chip has its west edge before and its east edge beyond ±180."""
    for collection, asset in ((SENTINEL_2, "red"), (LANDSAT_L1, "qa_pixel")):
        item = next(one for one in planet.items(collection) if _crosses(one))
        with rasterio.open(item["assets"][asset]["href"]) as src:
            edges = np.arange(src.width // 256 + 1) * 256 * src.res[0] + src.bounds.left
            lon, _ = warp(src.crs, "EPSG:4326", edges, np.full(len(edges), src.bounds.top))
        crossing = (np.asarray(lon[:-1]) > 0) & (np.asarray(lon[1:]) < 0)
        assert crossing.sum() == 1


def test_every_tile_of_a_scene_is_in_the_grid(planet: Planet) -> None:
    assert {name for names in LANDSAT_TILES.values() for name in names} <= set(TILES)
