"""The tiling grid: every format yields the same table, and errors name what is wrong with a file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from shapely import box

from clay_assets.errors import InputError
from clay_assets.landcover.grid import read_grid

# As in the official file: heights, a label point between the two halves, description as HTML.
KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2"><Document><name>doc</name><Folder><name>Features</name>
<Placemark><name>32NLG</name><description><![CDATA[TILE <br>]]></description><MultiGeometry>
<Polygon><outerBoundaryIs><LinearRing><coordinates>
7,0,0 8,0,0 8,1,0 7,1,0 7,0,0</coordinates></LinearRing></outerBoundaryIs></Polygon>
<Point><coordinates>7.5,0.5,0</coordinates></Point></MultiGeometry></Placemark>
<Placemark><name>01CCV</name><MultiGeometry>
<Polygon><outerBoundaryIs><LinearRing><coordinates>
180,-73,0 177,-73,0 177,-72,0 180,-72,0 180,-73,0</coordinates></LinearRing></outerBoundaryIs></Polygon>
<Point><coordinates>178,-72.5,0</coordinates></Point>
<Polygon><outerBoundaryIs><LinearRing><coordinates>
-180,-72,0 -179,-72,0 -179,-73,0 -180,-73,0 -180,-72,0</coordinates></LinearRing></outerBoundaryIs></Polygon>
</MultiGeometry></Placemark></Folder>
<Folder><name>Info</name><description>legend</description></Folder></Document></kml>"""


def _frame(
    geometries: Sequence[object], names: Sequence[str | None] | None = None, column: str = "name"
) -> gpd.GeoDataFrame:
    names = names or [f"T{number}" for number in range(len(geometries))]
    return gpd.GeoDataFrame({column: names}, geometry=geometries, crs="EPSG:4326")


def _written(folder: Path, frame: gpd.GeoDataFrame, suffix: str = ".gpkg") -> Path:
    path = folder / f"grid{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    return path


@pytest.mark.parametrize("packing", [".kml", ".zip", ".kmz"])
def test_the_kml_gives_flat_named_polygons_however_it_is_packed(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"grid{packing}"
    if packing == ".kml":
        path.write_text(KML)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("some folder/grid.kml", KML)
    grid = read_grid(path)
    assert grid.columns.tolist() == ["name", "geometry"]
    assert grid["name"].tolist() == ["01CCV", "32NLG"]  # sorted, unlike in the file
    assert grid.index.tolist() == [0, 1]
    assert grid.crs == "EPSG:4326"
    assert not grid.has_z.any()
    halves = shapely.MultiPolygon([box(177, -73, 180, -72), box(-180, -73, -179, -72)])
    assert grid.geometry[0].geom_type == "MultiPolygon"
    assert grid.geometry[0].equals(halves)
    assert grid.geometry[1].geom_type == "Polygon"
    assert grid.geometry[1].equals(box(7, 0, 8, 1))


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson", ".shp"])
def test_every_format_gives_the_same_table(tmp_path: Path, suffix: str) -> None:
    frame = _frame([box(7, 0, 8, 1), box(-3, 50, -2, 51)], ["B", "A"])
    grid = read_grid(str(_written(tmp_path, frame, suffix)))
    assert grid["name"].tolist() == ["A", "B"]
    assert grid.geometry[0].equals(box(-3, 50, -2, 51))
    assert grid.geometry[1].equals(box(7, 0, 8, 1))


def test_crs84_the_default_of_geoparquet_is_accepted(tmp_path: Path) -> None:
    frame = _frame([box(7, 0, 8, 1)]).set_crs("OGC:CRS84", allow_override=True)
    assert read_grid(_written(tmp_path, frame, ".parquet")).crs == "EPSG:4326"


@pytest.mark.parametrize("column", ["Name", "NAME", "tile", "Tile_ID", "MGRS", "mgrs_tile"])
def test_the_name_column_is_found_without_regard_to_case(tmp_path: Path, column: str) -> None:
    path = _written(tmp_path, _frame([box(7, 0, 8, 1)], ["32NLG"], column), ".fgb")
    assert read_grid(path)["name"].tolist() == ["32NLG"]


def test_the_layer_of_polygons_is_read_when_points_come_first(tmp_path: Path) -> None:
    path = tmp_path / "grid.gpkg"
    _frame([shapely.Point(7, 0)], ["label"]).to_file(path, layer="labels")
    _frame([box(7, 0, 8, 1)], ["32NLG"]).to_file(path, layer="tiles")
    assert read_grid(path)["name"].tolist() == ["32NLG"]


E_HALF, W_HALF = box(179, 10, 180, 11), box(-180, 10, -179, 11)


@pytest.mark.parametrize(
    "ring",
    [
        [(179, 10), (-179, 10), (-179, 11), (179, 11)],
        [(179, 10), (179, 11), (-179, 11), (-179, 10)],  # the same, clockwise
        [(179, 10), (181, 10), (181, 11), (179, 11)],
        [(-181, 10), (-179, 10), (-179, 11), (-181, 11)],
    ],
)
def test_one_ring_across_the_antimeridian_is_cut_there(tmp_path: Path, ring: list[tuple[float, float]]) -> None:
    grid = read_grid(_written(tmp_path, _frame([shapely.Polygon(ring)])))
    assert grid.geometry[0].geom_type == "MultiPolygon"
    assert grid.geometry[0].equals(shapely.MultiPolygon([E_HALF, W_HALF]))


def test_the_cut_lies_on_the_straight_edge_and_keeps_the_hole(tmp_path: Path) -> None:
    hole = [(179.5, 10.4), (-179.5, 10.4), (-179.5, 10.6), (179.5, 10.6)]
    ring = [(179, 10), (-179, 10), (-179, 12), (179, 11)]  # its upper edge meets 180 at 11.5
    part = read_grid(_written(tmp_path, _frame([shapely.Polygon(ring, [hole])]))).geometry[0]
    whole = shapely.MultiPolygon(
        [
            shapely.Polygon([(179, 10), (180, 10), (180, 11.5), (179, 11)]),
            shapely.Polygon([(-180, 10), (-179, 10), (-179, 12), (-180, 11.5)]),
        ]
    )
    holes = shapely.MultiPolygon([box(179.5, 10.4, 180, 10.6), box(-180, 10.4, -179.5, 10.6)])
    assert part.is_valid
    assert shapely.symmetric_difference(part, whole.difference(holes)).area < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    "halves",
    [
        [E_HALF, W_HALF],
        [W_HALF, E_HALF],
        [E_HALF, box(180, 10, 181, 11)],
        [box(-181, 10, -180, 11), W_HALF],
        [E_HALF, shapely.MultiPolygon([box(-180, 10, -179, 10.5), box(-180, 10.5, -179, 11)])],
        [E_HALF, box(-180, 10, -179, 10.7), box(-180, 10.3, -179, 11)],
        [E_HALF, W_HALF, shapely.GeometryCollection([W_HALF, shapely.Point(-179.5, 10)])],
    ],
)
@pytest.mark.parametrize("names", [("01CCV", "01CCV"), ("1CCV", " 01ccv"), ("T01CCV", "MGRS-1CCV")])
def test_a_tile_whose_two_sides_are_rows_of_their_own_is_one(
    tmp_path: Path, halves: list[shapely.Geometry], names: tuple[str, str]
) -> None:
    rows = [*halves, box(7, 0, 8, 1)]
    called = [names[0], *[names[1]] * (len(halves) - 1), "32NLG"]
    grid = read_grid(_written(tmp_path, _frame(rows, called), ".parquet"))
    assert grid["name"].tolist() == ["01CCV", "32NLG"]
    assert grid.is_valid.all()
    assert grid.geometry[0].equals(shapely.MultiPolygon([E_HALF, W_HALF]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [E_HALF, E_HALF],
        [W_HALF, box(-179, 10, -178, 11)],
        [E_HALF, box(0, 10, 1, 11)],
        [shapely.MultiPolygon([E_HALF, W_HALF]), E_HALF],
        [E_HALF, W_HALF, box(5, 5, 6, 6)],
        [E_HALF, None],
        [E_HALF, shapely.Polygon()],
    ],
)
def test_rows_of_one_name_that_are_not_two_sides_are_refused(tmp_path: Path, rows: list[shapely.Geometry]) -> None:
    path = _written(tmp_path, _frame(rows, ["01CCV"] * len(rows)), ".parquet")
    with pytest.raises(InputError, match=r"1 names are repeated \(01CCV\)"):
        read_grid(path)


@pytest.mark.parametrize("ring", [box(180, 10, 181, 11), box(-180, 10, -179, 11)])
def test_a_polygon_that_only_touches_the_antimeridian_stays_one(tmp_path: Path, ring: shapely.Polygon) -> None:
    grid = read_grid(_written(tmp_path, _frame([ring])))
    assert grid.geometry[0].equals(W_HALF)


def test_a_broken_outline_is_repaired_to_the_same_area(tmp_path: Path) -> None:
    overlapping = shapely.MultiPolygon([box(0, 0, 2, 1), box(1, 0, 3, 1)])
    bow_tie = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    grid = read_grid(_written(tmp_path, _frame([overlapping, bow_tie]), ".parquet"))
    assert grid.is_valid.all()
    assert grid.geometry[0].equals(box(0, 0, 3, 1))
    assert grid.geometry[1].equals(shapely.make_valid(bow_tie))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (_frame([box(0, 0, 1, 1)], ["a"], "label"), r"no column of tile names.*mgrs.*found label"),
        (_frame([box(0, 0, 1, 1)] * 3, ["a", "", None]), r"2 tiles without a name \(rows 1, 2\)"),
        (_frame([box(0, 0, 1, 1)] * 5, list("ababc")), r"2 names are repeated \(a, b\)"),
        (_frame([box(0, 0, 1, 1)]).to_crs(32632), r"EPSG:32632 \(WGS 84 / UTM zone 32N\) instead of EPSG:4326"),
        (_frame([box(0, 0, 1, 1)]).set_crs(None, allow_override=True), "no CRS instead of EPSG:4326"),
        (_frame([shapely.Point(0, 0)]), "no polygons"),
        (_frame([box(0, 0, 1, 1), shapely.Polygon()], ["full", "bare"]), r"1 tiles have no polygon \(bare\)"),
        (_frame([box(0, 0, 1, 1), None], ["full", "none"]), r"1 tiles have no polygon \(none\)"),
        (_frame([box(500000, 0, 600000, 1)], ["far"]), "tile far has coordinates that are not degrees"),
        (
            _frame([shapely.Polygon([(-150, 85), (-30, 85), (90, 85), (-150, 85)])], ["top"]),
            "tile top goes around a pole",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, frame: gpd.GeoDataFrame, says: str) -> None:
    path = _written(tmp_path, frame, ".parquet")
    with pytest.raises(InputError, match=says) as caught:
        read_grid(path)
    assert str(path) in str(caught.value)


def test_files_that_are_no_vector_files(tmp_path: Path) -> None:
    absent, text, cut, cut_kml, table = (tmp_path / name for name in ("no.kml", "a.kml", "b.zip", "c.kml", "d.parquet"))
    text.write_text("<html>504 Gateway Timeout</html>")
    cut.write_bytes(b"PK\x03\x04 and then nothing")
    cut_kml.write_text(KML[: len(KML) // 2])
    pd.DataFrame({"name": ["a"]}).to_parquet(table)
    with pytest.raises(InputError, match="file not found"):
        read_grid(absent)
    for path in (text, cut, cut_kml, table):
        with pytest.raises(InputError, match="not a readable vector file"):
            read_grid(path)


def test_a_zip_of_two_kml_files_is_not_guessed_at(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "grid.zip", "w") as archive:
        archive.writestr("one.kml", KML)
        archive.writestr("two.kml", KML)
    with pytest.raises(InputError, match=r"2 KML files in the zip \(one.kml, two.kml\)"):
        read_grid(tmp_path / "grid.zip")


@pytest.mark.slow
def test_the_official_kml(real_data: Path) -> None:
    grid = read_grid(real_data / "s2_grid" / "S2_tiling_grid_kml.zip")
    converted = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet").sort_values("name")
    assert len(grid) == 56_686
    assert grid["name"].tolist() == converted["name"].tolist()
    assert grid.is_valid.all()
    assert grid.geom_type.value_counts().to_dict() == {"Polygon": 56_388, "MultiPolygon": 298}
    assert grid.geometry.geom_equals(converted.geometry.reset_index(drop=True)).all()
    # No part is wider than a tile near the pole, and the two halves lie at the two edges of the world.
    parts = grid.geometry.explode().bounds
    assert (parts.maxx - parts.minx).max() < 11
    halves = grid[grid.geom_type == "MultiPolygon"].bounds
    assert (halves.minx == -180).all()
    assert (halves.maxx == 180).all()
    # Independent of any polygon in the KML: tiles are 109.8 km squares in the UTM zone of their name.
    for name, utm in converted.set_index("name").loc[["32NLG", "29RKH", "01CCV"], ["epsg", "utm_wkt"]].iterrows():
        square = shapely.from_wkt(utm["utm_wkt"])
        assert square.area == pytest.approx(109_800**2, rel=1e-6)
        to_degrees = pyproj.Transformer.from_crs(utm["epsg"], 4326, always_xy=True).transform
        expected = np.array([to_degrees(*corner[:2]) for corner in shapely.get_coordinates(square)])
        tile = shapely.get_coordinates(grid.set_index("name").geometry[name])
        offset = np.abs(expected[:, None] - tile[None]).max(axis=2).min(axis=1)
        assert offset.max() < 1e-6, name
