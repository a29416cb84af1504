"""NAIP locations: from small layers with known answers, and from Natural Earth itself."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Geod
from shapely import LineString, MultiLineString, Point, Polygon, box

from clay_assets.errors import InputError
from clay_assets.sampling import natural_earth
from clay_assets.sampling.natural_earth import LAYERS, sample_locations
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.sampling.natural_earth_layers import (
    STATES,
    World,
    layer,
    states,
    world,
    write_files,
    write_zips,
)
from clay_assets_tests.servers.files import FileServer

GEOD = Geod(ellps="WGS84")
MANY = 1200  # features of one shape, and so as many draws
FAR_NORTH = {"US-KS": box(-110, 40, -80, 70)}  # where a degree of longitude is 85 km, then 38 km


@pytest.fixture
def sample(tmp_path: Path) -> Callable[..., gpd.GeoDataFrame]:
    """Draws locations from these layers, written as zipped shapefiles."""

    def draw(random_points: int = 0, seed: int = 42, **layers: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        folder = tmp_path / f"world-{len(list(tmp_path.iterdir()))}"
        return sample_locations(str(write_zips(folder, world(**layers))), random_points, seed)

    return draw


def of(locations: gpd.GeoDataFrame, key: str) -> gpd.GeoDataFrame:
    return locations[locations["layer"] == key].set_index("feature")


def record(locations: gpd.GeoDataFrame, key: str) -> dict[str, Any]:
    return {entry["layer"]: entry for entry in locations.attrs["layers"]}[key]


def same(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> None:
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other), check_exact=True)


def is_uniform(values: Iterable[float], low: float, high: float) -> bool:
    """Kolmogorov-Smirnov test at 0.1 %."""
    ordered = (np.sort(np.fromiter(values, float)) - low) / (high - low)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()) < 1.95 / np.sqrt(len(ordered))


# --- what becomes a location ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("key", ["populated_places", "airports", "ports", "parks_point"])
def test_points_are_taken_as_they_are_if_they_lie_in_conus(sample: Callable[..., gpd.GeoDataFrame], key: str) -> None:
    places = {"Kansas": (-98.5, 38.25), "Nebraska": (-99.123456, 41.9), "Border": (-99, 40)}
    away = {
        "Canada": (-99, 42.1),
        "Alaska": (-151, 61),
        "Hawaii": (-156, 21),
        "Puerto Rico": (-66.5, 18.5),
        "Sea": (0, 0),
    }
    table = layer([(name, Point(xy)) for name, xy in {**places, **away}.items()])
    locations = sample(**{key: table})
    found = of(locations, key)
    assert {name: point.coords[0] for name, point in found.geometry.items()} == places
    assert record(locations, key) == {
        "layer": key,
        "file": f"10m_cultural/ne_10m_{'parks_and_protected_lands' if key == 'parks_point' else key}.zip",
        "features": 8,
        "without_geometry": 0,
        "repaired": 0,
        "duplicates": 0,
        "in_conus": 3,
    }


def test_the_table(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    locations = sample(random_points=5)
    assert locations.columns.tolist() == ["name", "layer", "feature", "geometry"]
    assert locations.crs == "EPSG:4326"
    assert set(locations.geom_type) == {"Point"}
    assert locations["name"].is_monotonic_increasing
    assert locations["name"].is_unique
    assert locations["layer"].value_counts().to_dict() == {**dict.fromkeys(LAYERS, 1), "random": 5}
    assert [entry["layer"] for entry in locations.attrs["layers"]] == list(LAYERS)
    assert locations.attrs["conus"] == {
        "file": "10m_cultural/ne_10m_admin_1_states_provinces.zip",
        "states": 2,
        "without_geometry": 0,
        "repaired": 0,
    }
    assert record(locations, "random")["in_conus"] == 5


def test_a_name_is_the_hash_of_layer_feature_and_rounded_geometry(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    locations = sample(airports=layer([("Añe", Point(-98.5000012, 38.25))]))
    wkb = struct.pack("<BIdd", 1, 1, -98.5, 38.25)
    digest = hashlib.blake2b("airports\x1fAñe\x1f".encode() + wkb, digest_size=4).hexdigest()
    assert of(locations, "airports").loc["Añe", "name"] == f"airports-{digest}"


@pytest.mark.slow
def test_equal_features_are_one_location(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    near, other = Point(-99.000001, 39.000001), Point(-99.0001, 39)
    table = layer([("A", Point(-99, 39)), ("A", near), ("A", other), ("B", Point(-99, 39)), (None, near), ("", near)])
    locations = sample(ports=table)
    assert sorted(of(locations, "ports").index) == ["", "A", "A", "B"]
    assert (record(locations, "ports")["duplicates"], record(locations, "ports")["in_conus"]) == (2, 4)
    same(sample(ports=table.iloc[::-1]), locations)


def test_a_park_is_named_by_its_unit_else_by_its_name(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    table = layer([("Zion NP", Point(-99, 39)), (None, Point(-99, 38.5))], "UNIT_NAME")
    table["Name"] = ["Zion", "Nameless"]
    assert sorted(of(sample(parks_point=table), "parks_point").index) == ["Nameless", "Zion NP"]


def test_a_park_area_has_its_location_inside_and_in_conus(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    ring = box(-99.9, 38.1, -98.1, 39.9) - box(-99.8, 38.2, -98.2, 39.8)  # its centroid is in the hole
    across = box(-99.5, 41.9, -98.5, 45)  # nearly all in Canada
    table = layer([("ring", ring), ("across", across), ("away", box(-99, 43, -98, 44))], "unit_name")
    found = of(sample(parks_area=table), "parks_area").geometry
    assert sorted(found.index) == ["across", "ring"]
    assert ring.contains(found["ring"])
    assert across.contains(found["across"])
    assert found["across"].y < 42


def test_a_park_line_has_its_location_half_way(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    corner = LineString([(-99, 38), (-99, 39), (-98, 39)])  # north 111.0 km, then east 86.6 km
    shuffled = MultiLineString([[(-99, 39), (-98, 39)], [(-99, 38.5), (-99, 39)], [(-99, 38.5), (-99, 38)]])
    across = LineString([(-99, 45), (-99, 41)])
    table = layer([("corner", corner), ("shuffled", shuffled), ("across", across)], "unit_name")
    found = of(sample(parks_line=table), "parks_line").geometry
    eastward = GEOD.line_length(np.linspace(-99, -98, 99), [39] * 99)
    for name in ("corner", "shuffled"):
        assert found[name].x == -99
        from_south, to_corner = (GEOD.inv(-99, y, -99, found[name].y)[2] for y in (38, 39))
        assert from_south == pytest.approx(to_corner + eastward, abs=1)  # metres
    assert found["across"].coords[0] == pytest.approx((-99, 41.5), abs=1e-3)


@pytest.mark.slow
def test_a_river_across_the_border_has_its_location_on_this_side(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    table = layer([(f"{n}", LineString([(-99, 39), (-99, 46)])) for n in range(400)])
    found = of(sample(rivers=table), "rivers").geometry
    assert (found.x == -99).all()
    assert is_uniform(found.y, 39, 42)  # a degree of latitude is 0.05 % longer at 42 than at 39
    touching = layer([("along", LineString([(-99, 45), (-99, 42)])), ("in", LineString([(-99, 41), (-99, 40)]))])
    assert of(sample(rivers=touching), "rivers").index.tolist() == ["in"]


def test_null_and_empty_geometries_are_counted(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    locations = sample(
        rivers=layer([("dry", None), ("wet", LineString([(-99, 39), (-98, 39)]))]),
        lakes=layer([("dry", None), ("wet", box(-99, 39, -98.5, 39.5)), ("gone", None)]),
        airports=layer([("nowhere", None)]).astype({"geometry": "geometry"}),
    )
    fields = ("features", "without_geometry", "in_conus")
    counts = {key: tuple(record(locations, key)[f] for f in fields) for key in ("rivers", "lakes", "airports")}
    assert counts == {"rivers": (2, 1, 1), "lakes": (3, 2, 1), "airports": (1, 1, 0)}


def test_a_river_part_of_one_point_twice_is_no_obstacle(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    mixed = MultiLineString([[(-99, 39), (-99, 39)], [(-99, 39), (-98.5, 39)]])
    table = layer([("mixed", mixed), ("spot", LineString([(-99, 39), (-99, 39)]))])
    found = of(sample(rivers=table, parks_line=table.rename(columns={"name": "unit_name"})), "rivers").geometry
    assert found.index.tolist() == ["mixed"]
    assert found["mixed"].distance(mixed) < 1e-6


# --- random draws -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_river_of_parts_is_drawn_by_length_not_by_degrees(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    parts = [[(-100, 42), (-96, 42)], [(-95, 50), (-95, 54)], [(-94, 68), (-90, 68)]]  # each 4 degrees long
    table = layer([(f"{n}", MultiLineString(parts)) for n in range(MANY)])
    found = of(sample(admin_1=states(FAR_NORTH), rivers=table), "rivers").geometry
    lengths = [GEOD.line_length(*shapely.segmentize(LineString(part), 0.01).xy) for part in parts]
    expected = MANY * np.array(lengths) / sum(lengths)
    counts = np.array([shapely.dwithin(found.array, LineString(part), 1e-6).sum() for part in parts])
    assert counts.sum() == MANY
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square of 2 degrees of freedom at 0.1 %
    assert ((counts - MANY / 3) ** 2 / (MANY / 3)).sum() > 50  # shares by degrees would be rejected


@pytest.mark.slow
def test_a_single_long_edge_is_drawn_by_length(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    edge = LineString([(-110, 40), (-80, 70)])
    table = layer([(f"{n}", edge) for n in range(MANY)])
    found = of(sample(admin_1=states(FAR_NORTH), rivers=table), "rivers").geometry
    assert shapely.dwithin(found.array, edge, 1e-6).all()
    fine = shapely.get_coordinates(shapely.segmentize(edge, 0.01))
    upto = np.concatenate([[0], np.cumsum(GEOD.line_lengths(fine[:, 0], fine[:, 1]))])
    assert is_uniform(np.interp(found.y, fine[:, 1], upto), 0, upto[-1])


def test_a_lake_is_drawn_by_area_on_the_sphere(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    table = layer([(f"{n}", box(-100, 40, -90, 70)) for n in range(MANY)])
    found = of(sample(admin_1=states(FAR_NORTH), lakes=table), "lakes").geometry
    assert is_uniform(np.sin(np.radians(found.y)), np.sin(np.radians(40)), np.sin(np.radians(70)))
    assert is_uniform(found.x, -100, -90)
    assert not is_uniform(found.y, 40, 70)


def test_a_lake_has_no_location_on_its_island_nor_in_canada(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    island = box(-99.8, 41.1, -98.2, 41.9)
    lake = box(-99.9, 41, -98.1, 43) - island
    found = of(sample(lakes=layer([(f"{n}", lake) for n in range(300)])), "lakes").geometry
    assert len(found) == 300
    assert found.within(lake).all()
    assert (found.y < 42).all()
    assert found.y.gt(41.9).any()
    assert found.y.lt(41.1).any()


def test_a_bow_tie_lake_is_repaired(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    bow_tie = Polygon([(-99.5, 38.5), (-98.5, 39.5), (-98.5, 38.5), (-99.5, 39.5)])
    west = Polygon([(-99.5, 38.5), (-99, 39), (-99.5, 39.5)])
    east = Polygon([(-98.5, 38.5), (-99, 39), (-98.5, 39.5)])
    locations = sample(lakes=layer([(f"{n}", bow_tie) for n in range(200)] + [("sound", box(-99, 39, -98, 40))]))
    assert record(locations, "lakes")["repaired"] == 200
    found = of(locations, "lakes").geometry.drop("sound")
    in_west, in_east = int(found.within(west).sum()), int(found.within(east).sum())
    assert in_west + in_east == 200
    assert 70 < in_west < 130  # half each, standard deviation 7


def test_random_points_are_uniform_on_the_sphere(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    found = of(sample(random_points=2000, admin_1=states(FAR_NORTH)), "random").geometry
    assert len(found) == 2000
    low, high = np.sin(np.radians([40, 70]))
    height = np.sin(np.radians(found.y))
    assert is_uniform(height, low, high)
    assert height.mean() == pytest.approx((low + high) / 2, abs=0.006)  # three standard errors
    assert is_uniform(found.x, -110, -80)
    assert not is_uniform(found.y, 40, 70)


def test_random_points_fall_in_conus_only(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    found = of(sample(random_points=300), "random").geometry
    assert found.within(box(-100, 38, -98, 42)).all()
    assert found.y.lt(40).any()
    assert found.y.gt(40).any()


def test_more_random_points_keep_the_earlier_ones(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    few, many = (of(sample(random_points=n), "random").set_index("name").geometry for n in (40, 90))
    assert many.index[:40].tolist() == few.index.tolist()
    assert many[:40].geom_equals(few).all()


def test_another_outline_of_conus_keeps_random_points(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    kansas = states({"US-KS": STATES["US-KS"]})
    whole = of(sample(random_points=400), "random").set_index("name").geometry
    half = of(sample(random_points=100, admin_1=kansas), "random").set_index("name").geometry
    assert half.index.tolist() == whole[whole.y < 40].index[:100].tolist()
    assert half.geom_equals(whole[half.index]).all()


# --- determinism ------------------------------------------------------------------------------------

SQUARES = [(f"{n % 7}", box(-99.9 + n / 50, 38, -99.2 + n / 50, 38.5 + n / 20)) for n in range(40)]
LINES = [(f"{n % 7}", LineString([(-99.9 + n / 50, 38), (-99.2, 38.5 + n / 10)])) for n in range(40)]
POINTS = [(f"{n % 7}", Point(-99.9 + n / 50, 38.5)) for n in range(40)]


def full_world() -> World:
    return world(
        populated_places=layer(POINTS, "NAME"),
        parks_area=layer(SQUARES, "unit_name"),
        parks_line=layer(LINES, "unit_name"),
        rivers=layer(LINES),
        lakes=layer(SQUARES),
    )


def test_the_order_of_rows_does_not_matter(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    tables = full_world()
    shuffled = {key: table.sample(frac=1, random_state=1) for key, table in tables.items()}
    same(sample(random_points=20, **tables), sample(random_points=20, **shuffled))


@pytest.mark.slow
def test_how_a_feature_is_written_does_not_matter(tmp_path: Path) -> None:
    bow, cove = [(-99.5, 38.5), (-99, 39.1), (-98.4, 38.6), (-99, 41)], [(-99, 40), (-98.5, 41)]
    one = {"lakes": layer([("a", Polygon(bow))]), "rivers": layer([("b", MultiLineString([bow, cove]))])}
    other = {
        "lakes": layer([("a", shapely.MultiPolygon([Polygon([*bow[2:], *bow[:2]][::-1])]))]),
        "rivers": layer([("b", MultiLineString([cove[::-1], bow[::-1]]))]),
    }
    written = [write_files(tmp_path / f"{n}", world(**tables), ".parquet") for n, tables in enumerate((one, other))]
    same(*(sample_locations(str(folder), 0, 42) for folder in written))


@pytest.mark.slow
@pytest.mark.parametrize("key", ["populated_places", "parks_area", "parks_line", "rivers", "lakes"])
def test_one_more_feature_changes_no_other(sample: Callable[..., gpd.GeoDataFrame], key: str) -> None:
    tables = full_world()
    before = sample(random_points=5, **tables)
    new = {"populated_places": Point(-99.99, 38.01), "parks_area": box(-99.99, 38, -99.98, 38.2)}
    new |= {"lakes": box(-99.99, 38, -99, 41), "rivers": LineString([(-99.99, 38), (-98, 41)])}
    more = layer([("Aa", new.get(key, new["rivers"]))], tables[key].columns[1])
    after = sample(random_points=5, **{**tables, key: pd.concat([more, tables[key]], ignore_index=True)})
    assert len(after) == len(before) + 1
    same(after[after["name"].isin(before["name"])].reset_index(drop=True), before)


@pytest.mark.slow
def test_another_seed_changes_the_draws_and_nothing_else(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    one, other = (sample(random_points=20, seed=seed, **full_world()) for seed in (1, 2))
    for key in LAYERS:
        moved = ~shapely.equals(of(one, key).geometry.array, of(other, key).geometry.array)
        assert moved.all() if key in ("rivers", "lakes", "random") else not moved.any()


def test_rivers_of_one_shape_have_draws_of_their_own(sample: Callable[..., gpd.GeoDataFrame]) -> None:
    line = LineString([(-99, 38), (-98, 41)])
    found = of(sample(rivers=layer([("a", line), ("b", line)])), "rivers").geometry
    assert found["a"].distance(found["b"]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".shp", ".gpkg", ".geojson", ".json", ".parquet"])
def test_every_format_gives_the_same_locations(tmp_path: Path, suffix: str) -> None:
    zips = sample_locations(str(write_zips(tmp_path / "zips", full_world())), 10, 42)
    files = sample_locations(str(write_files(tmp_path / "files", full_world(), suffix)), 10, 42)
    same(files, zips)
    assert record(files, "lakes")["file"] == f"ne_10m_lakes{suffix}"


@pytest.mark.slow
def test_zips_may_lie_flat_and_go_before_other_files(tmp_path: Path) -> None:
    nested = sample_locations(str(write_zips(tmp_path / "nested", full_world())), 10, 42)
    folder = write_zips(tmp_path / "flat", full_world(), flat=True)
    write_files(folder, world(rivers=layer([("other", LineString([(-99, 38), (-98, 41)]))])), ".geojson")
    flat = sample_locations(f"file://{folder}", 10, 42)
    same(flat, nested)
    assert record(flat, "parks_line")["file"] == "ne_10m_parks_and_protected_lands.zip"


@pytest.mark.slow
def test_a_crs_of_any_kind_becomes_4326(tmp_path: Path, sample: Callable[..., gpd.GeoDataFrame]) -> None:
    tables = full_world()
    expected = of(sample(**tables), "populated_places")
    projected = {**tables, "populated_places": tables["populated_places"].to_crs("EPSG:5070")}
    found = of(sample(**projected), "populated_places")
    assert found["name"].tolist() == expected["name"].tolist()
    assert shapely.distance(found.geometry.array, expected.geometry.array).max() < 1e-6


def test_admin_1_of_50m_serves_where_10m_is_not(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files", world(), ".geojson")
    (folder / "ne_10m_admin_1_states_provinces.geojson").rename(folder / "ne_50m_admin_1_states_provinces.geojson")
    assert sample_locations(str(folder), 0, 42).attrs["conus"]["file"] == "ne_50m_admin_1_states_provinces.geojson"
    write_files(folder, {"admin_1": states({"US-KS": STATES["US-KS"]})}, ".geojson")
    both = sample_locations(str(folder), 0, 42).attrs["conus"]
    assert (both["file"], both["states"]) == ("ne_10m_admin_1_states_provinces.geojson", 1)


# --- remote sources ---------------------------------------------------------------------------------


def test_a_bucket_over_http_is_fetched_once(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> None:
    folder = write_zips(tmp_path / "bucket", full_world())
    server = file_server(folder)
    store = LocalStore(tmp_path / "store")
    for _ in range(2):
        same(sample_locations(f"{server.url}/", 10, 42, keep_in=store), sample_locations(str(folder), 10, 42))
    assert sorted(server.requests) == sorted(f"GET /{path.relative_to(folder)}" for path in folder.rglob("*.zip"))
    assert server.total == 7
    assert len(store.list("sampling/source")) == 7
    sample_locations(server.url, 10, 42)
    assert server.total == 14  # nothing is kept, but the three layers of parks share one download


def test_a_bucket_on_s3(tmp_path: Path, s3_bucket: Bucket) -> None:
    folder = write_zips(tmp_path / "zips", full_world())
    for path in folder.rglob("*.zip"):
        s3_bucket.client.upload_file(str(path), s3_bucket.name, f"ne/{path.relative_to(folder)}")
    same(sample_locations(f"{s3_bucket.url}/ne", 10, 42), sample_locations(str(folder), 10, 42))


def test_a_file_that_a_bucket_lacks_is_said(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> None:
    folder = write_zips(tmp_path / "bucket", world())
    (folder / "10m_physical" / "ne_10m_lakes.zip").unlink()
    with pytest.raises(
        InputError, match=r"layer lakes: http.*/10m_physical/ne_10m_lakes\.zip.*404.*CLAY_NATURAL_EARTH"
    ):
        sample_locations(file_server(folder).url, 0, 42)


# --- error messages ---------------------------------------------------------------------------------


def said(folder: Path, random_points: int = 0) -> str:
    with pytest.raises(InputError) as caught:
        sample_locations(str(folder), random_points, 42)
    return str(caught.value)


def test_a_folder_or_a_layer_that_is_missing(tmp_path: Path) -> None:
    assert "nowhere: folder not found. Check CLAY_NATURAL_EARTH" in said(tmp_path / "nowhere")
    folder = write_files(tmp_path / "files", world(), ".gpkg")
    (folder / "ne_10m_parks_and_protected_lands_line.gpkg").unlink()
    told = said(folder)
    assert "layer parks_line: neither ne_10m_parks_and_protected_lands.zip nor" in told
    assert "ne_10m_parks_and_protected_lands_line as .shp, .gpkg" in told
    (folder / "ne_10m_admin_1_states_provinces.gpkg").unlink()
    assert "layer admin_1" in said(folder)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["admin_1", "populated_places", "parks_area", "rivers", "lakes"])
def test_a_field_that_is_missing(tmp_path: Path, key: str) -> None:
    tables = world()
    tables[key] = tables[key].rename(columns={tables[key].columns[1]: "title"})
    told = said(write_zips(tmp_path / "zips", tables))
    field = {"admin_1": "iso_3166_2", "parks_area": "unit_name or name"}.get(key, "name")
    assert f"Natural Earth layer {key} (" in told
    assert ".zip): field " + field + " is missing; found scalerank, title, geometry. Use the layer as" in told


@pytest.mark.slow
def test_files_that_are_no_vectors(tmp_path: Path) -> None:
    folder = write_zips(tmp_path / "zips", world(), flat=True)
    rivers = folder / "ne_10m_rivers_lake_centerlines.zip"
    whole = rivers.read_bytes()
    rivers.write_bytes(whole[: len(whole) // 2])
    assert "layer rivers" in said(folder)
    assert "not a readable vector file" in said(folder)
    rivers.write_bytes((folder / "ne_10m_lakes.zip").read_bytes())
    assert "ne_10m_rivers_lake_centerlines.shp not found in the zip" in said(folder)
    rivers.unlink()
    for suffix in (".parquet", ".gpkg", ".geojson"):
        path = folder / f"ne_10m_rivers_lake_centerlines{suffix}"
        path.write_text("no vectors")
        assert f"{path}): not a readable vector file" in said(folder)
        path.unlink()
    (folder / "ne_10m_rivers_lake_centerlines.json").write_text('[{"name": "River"}]')
    assert "layer rivers" in said(folder)


@pytest.mark.slow
def test_geometries_that_do_not_belong(tmp_path: Path) -> None:
    def told(name: str, **layers: gpd.GeoDataFrame) -> str:
        return said(write_files(tmp_path / name, world(**layers), ".parquet"))

    areas = layer([("Fine", LineString([(-99, 39), (-98, 39)])), ("Odd", box(-99, 38, -98, 39))])
    assert "Odd is a Polygon, must be a LineString or MultiLineString" in told("areas", rivers=areas)
    points = layer([("", shapely.MultiPoint([(-99, 39), (-98, 39)]))])
    assert "an unnamed feature is a MultiPoint, must be a Point" in told("points", ports=points)
    metres = layer([("Far", box(500_000, 4_000_000, 500_100, 4_000_100))])
    assert "Far has coordinates that are not degrees (500000, 4e+06" in told("metres", lakes=metres)
    nowhere = layer([("Lake", box(-99, 38, -98, 39))]).set_crs(None, allow_override=True)
    assert "ne_10m_lakes.parquet): no CRS in the file" in told("nowhere", lakes=nowhere)


def test_geojson_without_a_crs_is_4326(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "files", world(), ".geojson")
    path = folder / "ne_10m_lakes.geojson"
    text = path.read_text()
    path.write_text('{"type": "FeatureCollection", "features": ' + text[text.index('"features":') + 11 :])
    assert "crs" not in path.read_text()
    assert len(of(sample_locations(str(folder), 0, 42), "lakes")) == 1


def test_an_admin_1_without_states(tmp_path: Path) -> None:
    outside = {code: outline for code, outline in STATES.items() if code not in ("US-KS", "US-NE")}
    told = said(write_zips(tmp_path / "zips", world(admin_1=states(outside))))
    assert "layer admin_1" in told
    assert "no iso_3166_2 code of CONUS (US-AL, US-AR, …)" in told


@pytest.mark.slow
def test_draws_that_find_nothing_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_zips(tmp_path / "zips", world(admin_1=states({"US-KS": box(-99.01, 39, -99, 39.001)})))
    monkeypatch.setattr(natural_earth, "MOST_ATTEMPTS", 1 << 16)
    assert "attempts; bounds -99.01, 39, -99, 39.001. Ask for fewer" in said(folder, random_points=50)
    needle = Polygon([(-99.9, 38.1), (-98.1, 41.9), (-98.1, 41.9000001)])
    lakes = layer([("Fine", box(-99, 39, -98, 40)), ("Needle", needle)])
    told = said(write_zips(tmp_path / "needle", world(lakes=lakes)))
    assert "points in the bounds of Needle, -99.9, 38.1, -98.1, 41.9, none is inside" in told


def test_a_negative_number_of_random_points(tmp_path: Path) -> None:
    assert "random_points: -1 is negative" in said(tmp_path, random_points=-1)


# --- Natural Earth itself ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data: Path) -> gpd.GeoDataFrame:
    return sample_locations(str(real_data / "natural_earth"), 4000, 42)


@pytest.fixture(scope="module")
def real_states(real_data: Path) -> gpd.GeoDataFrame:
    table = gpd.read_file(real_data / "natural_earth" / "ne_50m_admin_1_states_provinces.json")
    return table[(table["admin"] == "United States of America") & ~table["name"].isin(["Alaska", "Hawaii"])]


def read(folder: Path, stem: str) -> gpd.GeoDataFrame:
    path = folder / f"{stem}.parquet"
    table = gpd.read_parquet(path) if path.exists() else gpd.read_file(path.with_suffix(".json"))
    return table.set_crs(4326, allow_override=True)


@pytest.mark.slow
def test_real_counts(real: gpd.GeoDataFrame) -> None:
    counts = [tuple(entry.values())[2:] for entry in real.attrs["layers"]]
    assert [entry["layer"] for entry in real.attrs["layers"]] == list(LAYERS)
    assert counts == [
        (7343, 0, 0, 0, 659),
        (891, 0, 0, 0, 121),
        (1081, 0, 0, 4, 67),
        (61, 0, 0, 0, 47),
        (29, 0, 0, 0, 27),
        (315, 0, 0, 0, 277),
        (1455, 1, 0, 0, 160),
        (1354, 0, 2, 0, 113),
        (4000, 0, 0, 0, 4000),
    ]
    assert len(real) == 5471
    assert real.attrs["conus"] == {
        "file": "ne_50m_admin_1_states_provinces.json",
        "without_geometry": 0,
        "repaired": 1,  # Goiás
        "states": 49,
    }


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("populated_places", "ne_10m_populated_places"),
        ("airports", "ne_10m_airports"),
        ("ports", "ne_10m_ports"),
        ("parks_point", "ne_10m_parks_and_protected_lands_point"),
    ],
)
def test_real_points_are_those_within_a_state(
    real: gpd.GeoDataFrame, real_states: gpd.GeoDataFrame, real_data: Path, key: str, stem: str
) -> None:
    table = read(real_data / "natural_earth", stem)
    within = table.sjoin(real_states[["geometry"]], predicate="within")
    there, expected = (np.round(shapely.get_coordinates(t.geometry), 7) for t in (of(real, key), within))
    assert set(map(tuple, there)) == set(map(tuple, expected))
    assert len(within) == len(of(real, key)) + record(real, key)["duplicates"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "stem", "size"),
    [
        ("parks_area", "ne_10m_parks_and_protected_lands_area", shapely.area),
        ("parks_line", "ne_10m_parks_and_protected_lands_line", shapely.length),
        ("rivers", "ne_10m_rivers_lake_centerlines", shapely.length),
        ("lakes", "ne_10m_lakes", shapely.area),
    ],
)
def test_real_lines_and_areas_are_those_with_a_part_in_a_state(
    real: gpd.GeoDataFrame,
    real_states: gpd.GeoDataFrame,
    real_data: Path,
    key: str,
    stem: str,
    size: Callable[[Any], Any],
) -> None:
    table = read(real_data / "natural_earth", stem)
    table["feature"] = table["unit_name" if "unit_name" in table else "name"].fillna("").str.strip()
    table = table.assign(geometry=table.make_valid())
    # State by state; the code under test clips to their union.
    rows, numbers = real_states.sindex.query(table.geometry, predicate="intersects")
    cut = shapely.intersection(table.geometry.array[rows], real_states.geometry.array[numbers])
    there = table.iloc[np.unique(rows[size(cut) > 1e-9])]
    found = of(real, key)
    assert sorted(found.index) == sorted(there["feature"])
    for name, features in there.groupby("feature"):  # each location lies on a feature of its name
        locations = found.loc[[name]].geometry.array
        assert shapely.dwithin(locations, features.union_all(), 1e-6).all()


def test_all_real_locations_are_in_conus(real: gpd.GeoDataFrame, real_states: gpd.GeoDataFrame) -> None:
    conus = real_states.union_all()
    shapely.prepare(conus)
    assert shapely.dwithin(real.geometry.array, conus, 1e-6).all()
    random = of(real, "random").geometry
    assert random.within(conus).all()
    # Texas has 8.6 % of the area of CONUS (678 of 7,900 thousand km², without lakes and coastal waters).
    texas = random.within(real_states.set_index("iso_3166_2").geometry["US-TX"]).mean()
    assert texas == pytest.approx(0.0865, abs=0.014)
