"""Hundreds of footprints, stored in all the ways that catalogues use, in both kinds of catalogue."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.catalogues.base import Catalogue
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.catalogues.stac_api import ApiCatalogue
from clay_assets.errors import InputError
from clay_assets.footprints import as_meant, meant_and_unchanged
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.scenes.picks import pick_scenes
from clay_assets.stac import Item
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets_tests.scenes.items import LANDSAT_L2, SENTINEL_1, landsat_item
from clay_assets_tests.servers.stac_api import StacApi

WHEN = "2020-02-01T10:00:00Z"
LANDSAT, RADAR = PLATFORMS[LANDSAT_L2], PLATFORMS[SENTINEL_1]
WAYS = ("jumping", "jumping", "beyond", "cut", "bow-tie", "three-dimensional", "polar", "polar cut", "plain", "hole")


@dataclass(frozen=True)
class Drawn:
    """A footprint: its true area, and one of the ways to store it.

    Attributes:
        meant: true area, on a plane of unlimited longitudes, without jumps.
        told: GeoJSON as stored in a catalogue.
    """

    meant: shapely.Geometry
    told: dict[str, Any]

    def covers(self, lon: float, lat: float) -> bool:
        return any(shapely.intersects_xy(self.meant, lon + turn, lat) for turn in (-720, -360, 0, 360, 720))


def wrapped(lon: float) -> float:
    return (lon + 180) % 360 - 180


def drawn(rng: np.random.Generator, way: str) -> Drawn:
    """A footprint of a few degrees; most cross ±180."""
    if way.startswith("polar"):
        return polar(rng, cut=way == "polar cut")
    lat, width, height = rng.uniform(-80, 80), rng.uniform(0.5, 3.5), rng.uniform(0.5, 3)
    lon = rng.choice([180.0, -180.0]) - rng.uniform(0.1, width - 0.1)
    if way in ("bow-tie", "plain"):  # a server finds footprints that jump, but not if they self-intersect too
        lon = rng.uniform(-176, 176 - width)
    tilt = rng.uniform(-0.2, 0.2)
    corners = np.array([(0, 0), (width, tilt), (width + tilt, height), (tilt, height - tilt)]) + np.array([lon, lat])
    ring = corners.tolist()
    if way == "bow-tie":
        ring = [ring[0], ring[2], ring[1], ring[3]]
    if rng.random() < 0.5:
        ring = ring[::-1]
    rings = [ring]
    if way == "hole":
        rings.append([list(place) for place in shapely.Point(corners.mean(axis=0)).buffer(0.1, 2).exterior.coords])
    meant = shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))
    if way == "cut":
        parts = [
            shapely.transform(shapely.intersection(meant, shapely.box(turn - 180, -90, turn + 180, 90)), at(-turn))
            for turn in (-360, 0, 360)
        ]
        whole = shapely.union_all(parts)
        return Drawn(meant, json.loads(shapely.to_geojson(whole)))
    told = rings if way == "beyond" else [[[wrapped(x), y] for x, y in one] for one in rings]
    closed = [[*one, one[0]] for one in told]
    if way == "three-dimensional":
        closed = [[[*place, 120.0] for place in one] for one in closed]
    return Drawn(meant, {"type": "Polygon", "coordinates": closed})


def at(turn: float) -> Any:
    return lambda places: places + np.array([turn, 0])


def polar(rng: np.random.Generator, *, cut: bool) -> Drawn:
    """A footprint around a pole: a ring of eight points, or RFC 7946's polygon that reaches it along ±180."""
    sign = float(rng.choice([-1.0, 1.0]))
    longitudes = -180 + 45 * np.arange(8) + (0 if cut else rng.uniform(0, 40))
    latitudes = sign * rng.uniform(82, 86, 8)
    ring = list(zip(longitudes.tolist(), latitudes.tolist(), strict=True))
    first, last = ring[0], (ring[0][0] + 360, ring[0][1])
    ring.append(last)
    meant = shapely.Polygon([*ring, (last[0], sign * 90), (first[0], sign * 90)])
    told = [*ring, (180.0, sign * 90), (-180.0, sign * 90)] if cut else ring[:-1]
    return Drawn(meant, {"type": "Polygon", "coordinates": [[list(place) for place in [*told, told[0]]]]})


@pytest.fixture(scope="module")
def footprints() -> list[Drawn]:
    rng = np.random.default_rng(20)
    return [drawn(rng, WAYS[number % len(WAYS)]) for number in range(500)]


@pytest.fixture(scope="module")
def items(footprints: list[Drawn]) -> list[Item]:
    """A Landsat scene per footprint; no two have the same cloud cover."""
    covers = np.random.default_rng(21).permutation(len(footprints)) / 20
    return [
        {**landsat_item(f"f{number}", WHEN, float(covers[number])), "geometry": one.told, "bbox": planar(one.told)}
        for number, one in enumerate(footprints)
    ]


def planar(told: dict[str, Any]) -> list[float]:
    """The bounding box as computed by catalogues: of the plain numbers."""
    return list(shapely.force_2d(shapely.geometry.shape(told)).bounds)


@pytest.fixture(scope="module")
def requests(footprints: list[Drawn]) -> list[Request]:
    """Requests in every ninth footprint, and elsewhere."""
    rng = np.random.default_rng(22)
    inside = [shapely.point_on_surface(one.meant) for one in footprints[::9]]
    places = [(wrapped(point.x), point.y) for point in inside]
    places += list(zip(rng.uniform(-180, 180, 20), rng.uniform(-80, 80, 20), strict=True))
    places += list(zip(rng.uniform(177, 183, 40), rng.uniform(-80, 80, 40), strict=True))
    start, end = quarter_bounds(2020, 1)
    return [
        Request(f"r{number}", f"r{number}", "Q1", start, end, shapely.Point(wrapped(float(lon)), float(lat)))
        for number, (lon, lat) in enumerate(places)
    ]


def best(footprints: list[Drawn], items: list[Item], requests: list[Request]) -> dict[str, str | None]:
    """Request → the least cloudy scene that covers it."""
    found: dict[str, str | None] = {}
    for request in requests:
        lon, lat = request.geometry.x, request.geometry.y
        covering = [item for one, item in zip(footprints, items, strict=True) if one.covers(lon, lat)]
        clearest = min(covering, key=lambda item: item["properties"]["eo:cloud_cover"], default=None)
        found[request.id] = clearest["id"] if clearest else None
    assert sum(item is not None for item in found.values()) > len(requests) / 2
    return found


def picked(catalogue: Catalogue, requests: list[Request]) -> dict[str, str | None]:
    found = pick_scenes(LANDSAT, 2020, requests, catalogue, LANDSAT.rules.options())
    assert set(found.ledger["outcome"]) <= {"picked", "none"}, set(
        found.ledger.loc[found.ledger["outcome"] == "failed", "reason"]
    )
    assert all(shapely.geometry.shape(item["geometry"]).is_valid for item in found.items)
    assert np.abs(shapely.total_bounds([shapely.geometry.shape(item["geometry"]) for item in found.items])).max() <= 180
    ids = found.ledger["item_id"].astype(object).where(found.ledger["item_id"].notna(), None)
    return dict(zip(found.ledger["request_id"], ids, strict=True))


def written(path: Path, items: list[Item]) -> str:
    """A snapshot with each footprint in its stored form."""
    table = pq.read_table(pa.BufferReader(encode_items([{**item, "geometry": PLAIN} for item in items], {})))
    shapes = [shapely.geometry.shape(item["geometry"]) for item in items]
    table = table.set_column(table.schema.get_field_index("geometry"), "geometry", pa.array(shapely.to_wkb(shapes)))
    pq.write_table(table, path / "items.parquet")
    return str(path / "items.parquet")


PLAIN = {"type": "Polygon", "coordinates": [[[6, 0], [7, 0], [7, 1], [6, 1], [6, 0]]]}


@pytest.mark.slow
def test_a_snapshot_gives_the_scenes_that_cover_the_places(
    tmp_path: Path, footprints: list[Drawn], items: list[Item], requests: list[Request]
) -> None:
    assert picked(SnapshotCatalogue(written(tmp_path, items)), requests) == best(footprints, items, requests)


def test_an_api_gives_the_same(
    stac_api: StacApi, footprints: list[Drawn], items: list[Item], requests: list[Request]
) -> None:
    # A server sees a plain ring around a pole as a band at most, and nothing inside it.
    seen = [number for number in range(len(items)) if WAYS[number % len(WAYS)] != "polar"]
    truth = best([footprints[number] for number in seen], [items[number] for number in seen], requests)
    stac_api.clear()
    stac_api.load([], [items[number] for number in seen])
    try:
        assert picked(ApiCatalogue(stac_api.url), requests) == truth
    finally:
        stac_api.clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        {"type": "Polygon", "coordinates": [[[179.27, -15], [-178.5, -15.4], [-178.11, -17], [179.6, -16.8]]]},
        {"type": "Polygon", "coordinates": [[[-181.4, -17], [-178.6, -17], [-178.6, -15], [-181.4, -15]]]},
        {"type": "Polygon", "coordinates": [[[178.6, -17], [181.4, -17], [181.4, -15], [178.6, -15]]]},
    ],
)
@pytest.mark.parametrize("platform", [LANDSAT, RADAR], ids=["landsat", "radar"])
def test_it_is_no_candidate_on_the_other_side_of_the_world(tmp_path: Path, told: dict[str, Any], platform: Any) -> None:
    item = landsat_item("pacific", WHEN, collection=platform.scenes.collection)
    item["properties"] |= {"sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"]}
    item["assets"] = {name: {"href": f"https://example.com/{name}.tif"} for name in platform.asset_names}
    item |= {"geometry": told, "bbox": planar(told)}
    start, end = quarter_bounds(2020, 1)
    places = {"australia": (133, -24.8), "west": (179.7, -16), "east": (-179.7, -16), "greenwich": (0, -16)}
    asked = [
        Request(name, name, "Q1", start, end, shapely.box(lon - 0.1, lat - 0.1, lon + 0.1, lat + 0.1))
        for name, (lon, lat) in places.items()
    ]
    catalogue = SnapshotCatalogue(written(tmp_path, [item]))
    found = pick_scenes(platform, 2020, asked, catalogue, platform.rules.options()).ledger
    assert dict(zip(found["request_id"], found["outcome"], strict=True)) == {
        "australia": "none",
        "west": "picked",
        "east": "picked",
        "greenwich": "none",
    }


def meant(shape: shapely.Geometry | None) -> shapely.Geometry | None:
    found = as_meant(np.array([shape], dtype=object))[0]
    assert found is None or isinstance(found, shapely.Geometry)
    return found


@pytest.mark.parametrize("bounds", [(-180, -90, 180, 90), (-180, -60, 180, 60), (0, 0, 1, 1), (170, 0, 180, 1)])
def test_what_lies_on_the_globe_stays_as_it_is(bounds: tuple[float, float, float, float]) -> None:
    box = shapely.box(*bounds)
    assert shapely.equals_identical(meant(box), box)
    assert meant(None) is None


def test_what_cannot_be_on_it_is_none() -> None:
    nan = shapely.from_wkt("POLYGON ((0 0, 1 NaN, 1 1, 0 0))")
    empty = (shapely.Polygon(), shapely.GeometryCollection())
    for shape in (*empty, shapely.box(5e5, 0, 6e5, 1e5), shapely.box(0, 89, 1, 91), nan):
        assert meant(shape) is None


def test_a_wide_ring_at_low_latitudes_is_taken_as_it_is_drawn() -> None:
    ring = shapely.Polygon([(-100, 0), (0, 0), (100, 0), (100, 5), (-100, 5)])
    found = meant(ring)
    assert found is not None
    assert found.equals(ring)


@pytest.mark.parametrize(
    "wkt",
    [
        "POLYGON ((0 0, 1 0, 0.5 0, 0 0))",
        "POLYGON ((0 0, 0 0, 0 0, 0 0))",
        "MULTIPOLYGON (((0 0, 2 0, 2 2, 0 2, 0 0)), ((1 1, 3 1, 3 3, 1 3, 1 1)))",
        "GEOMETRYCOLLECTION (POINT (5 5), POLYGON ((0 0, 1 0, 1 1, 0 0)))",
        "GEOMETRYCOLLECTION (GEOMETRYCOLLECTION (POLYGON ((179 0, -179 0, -179 1, 179 1, 179 0))))",
        "LINESTRING (179 0, -179 1)",
        "MULTIPOINT (181 0, -181 0)",
        "POLYGON Z ((0 0 1, 1 0 1, 1 1 1, 0 0 1))",
        "POLYGON ((0 0, 10 0, 10 10, 0 10, 0 0), (20 20, 21 20, 21 21, 20 20))",
    ],
)
def test_anything_becomes_valid_or_none(wkt: str) -> None:
    found = meant(shapely.from_wkt(wkt))
    assert found is None or (found.is_valid and not found.is_empty and not found.has_z)


def test_what_is_valid_is_kept_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    rings = [rng.normal(0, 1, (rng.integers(3, 8), 2)) for _ in range(300)]
    rings += [np.round(ring) for ring in rings]
    for corners in (4, 5, 9):
        angles = np.sort(rng.uniform(0, 2 * np.pi, (100, corners)), axis=1)
        rings += list(np.stack([np.cos(angles), np.sin(angles)], axis=2))
    stars = np.arange(5) * 4 * np.pi / 5  # turns in one direction, but twice around
    rings += [np.stack([np.cos(stars), np.sin(stars)], axis=1)[::way] for way in (1, -1)]
    holed = shapely.Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (5, 1), (1, 2)]])
    spike = shapely.Polygon([(0, 0), (1, 0), (2, 0), (1, 0), (1, 1)])
    others = [holed, spike, shapely.Polygon([(0, 0), (0, 0), (1, 0), (1, 1)]), None, shapely.Point(1, 1)]
    shapes = np.array([*map(shapely.Polygon, rings), *others], dtype=object)
    kept, unchanged = meant_and_unchanged(shapes)
    assert unchanged.tolist() == shapely.is_valid(shapes).tolist()
    assert 100 < unchanged.sum() < len(shapes)
    assert all(shape is None or shape.is_valid for shape in kept)


def test_an_id_that_no_file_can_hold_is_an_invalid_item() -> None:
    with pytest.raises(InputError, match=r"an item with id 'half .ud800': invalid item \(id is not Unicode\)"):
        LANDSAT.read_item(landsat_item("half \ud800", WHEN))


def test_a_footprint_that_is_no_geometry_is_an_invalid_item() -> None:
    geometry: Any
    for geometry in (
        5,
        "POINT (1 2)",
        [],
        {"type": "Polygon"},
        {"type": "Cube", "coordinates": []},
        {"coordinates": 1},
    ):
        with pytest.raises(InputError, match=r"f: invalid item \(geometry: "):
            LANDSAT.read_item({**landsat_item("f", WHEN), "geometry": geometry})
