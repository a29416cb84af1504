"""The chips of a scene match what was drawn, are positioned as by pyproj, and open in other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyproj
import pystac
import pytest
import rasterio
import shapely
from numpy.typing import NDArray

from clay_assets.chips.index import counts_of, index_scene, open_index
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.storage.geoparquet import encode_arrow
from clay_assets_tests.chips.factories import L1, L2, S2, landsat, scl_pixels, sentinel_2

MAX_NODATA = {S2: 0.5, L1: 0.0, L2: 0.0}
QUALITY = {S2: "scl", L1: "qa_pixel", L2: "qa_pixel"}
CONTRACT = {
    "chipid": pa.string(),
    "platform": pa.string(),
    "item_id": pa.string(),
    "datetime": pa.timestamp("ms", tz="UTC"),
    "date": pa.date32(),
    "chip_index_x": pa.uint16(),
    "chip_index_y": pa.uint16(),
    "cloud_cover_percentage": pa.float32(),
    "nodata_percentage": pa.float32(),
    "gsd": pa.float32(),
    "geometry": pa.binary(),
    "bbox": pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")]),
}
PRECHIP = ["chipid", "platform", "item_id", "date", "chip_index_x", "chip_index_y", "nodata_percentage"]
EVERY = 6  # of the planet's scenes


def index(document: Any, platform: str, **options: Any) -> pa.Table:
    return index_scene(pystac.Item.from_dict(document, preserve_dict=True), platform, **options)


def find(items: list[dict[str, Any]], text: str) -> dict[str, Any]:
    return next(item for item in items if text in item["id"])


@pytest.mark.parametrize("platform", MAX_NODATA)
def test_index_is_the_truth_of_the_planet(planet: Planet, platform: Any) -> None:
    left_out, at_the_limit = 0, 0
    for item in planet.items(platform)[::EVERY]:
        if QUALITY[platform] not in item["assets"]:
            continue
        table = index(item, platform)
        truth = planet.chip_truth(item["id"])
        kept = truth[truth["nodata_percentage"] <= MAX_NODATA[platform]]
        for column in kept.columns:
            expected = kept[column].to_numpy().astype(CONTRACT[column].to_pandas_dtype())
            np.testing.assert_array_equal(table[column].to_numpy(), expected, err_msg=f"{item['id']} {column}")
        ids = [f"{item['id']}-{x}-{y}" for x, y in zip(kept["chip_index_x"], kept["chip_index_y"], strict=True)]
        assert table["chipid"].to_pylist() == ids
        assert counts_of(table) == (len(truth), len(truth) - len(kept), len(kept))
        moment = pd.Timestamp(item["properties"]["datetime"])
        assert set(table["datetime"].to_pylist()) <= {moment.to_pydatetime()}
        assert set(table["date"].to_pylist()) <= {moment.date()}
        assert set(table["platform"].to_pylist()) <= {platform}
        assert set(table["item_id"].to_pylist()) <= {item["id"]}
        left_out += len(truth) - len(kept)
        at_the_limit += int((kept["nodata_percentage"] == 0.5).sum())
    assert left_out > 0
    assert platform != S2 or at_the_limit > 0


@pytest.mark.parametrize("platform", MAX_NODATA)
def test_schema_is_the_contract(planet: Planet, platform: Any) -> None:
    table = index(planet.items(platform)[0], platform)
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == CONTRACT
    assert table.schema.names == list(CONTRACT)
    table.validate(full=True)
    assert not any(column.null_count for column in table.columns)


def test_a_chip_is_counted_with_its_ragged_edge_left_away(tmp_path: Path) -> None:
    """600 pixels of 10 m: two whole chips in each direction; expected shares are computed from the pixels."""
    pixels = scl_pixels(300)
    table = index(sentinel_2(tmp_path, pixels), S2)
    assert table["chipid"].to_pylist() == [f"S2A_32NMF_20200102_0_L2A-{n}" for n in ("0-0", "1-0", "0-1", "1-1")]
    blocks = [pixels[y : y + 128, x : x + 128] for y in (0, 128) for x in (0, 128)]
    cloud = [np.isin(block, (1, 3, 8, 9, 10)).mean() for block in blocks]
    np.testing.assert_array_equal(table["cloud_cover_percentage"].to_numpy(), np.array(cloud, np.float32))
    np.testing.assert_array_equal(
        table["nodata_percentage"].to_numpy(), np.array([(block == 0).mean() for block in blocks], np.float32)
    )


@pytest.mark.parametrize(("bit", "is_cloud"), [(1, True), (2, False), (3, True), (4, True), (5, False), (6, False)])
def test_landsat_cloud_is_dilated_cloud_cloud_and_shadow(tmp_path: Path, bit: int, is_cloud: bool) -> None:
    qa = np.full((256, 256), 1 << 7, np.uint16)
    qa[:64] |= np.uint16(1 << bit)
    table = index(landsat(tmp_path, qa), L2)
    assert table["cloud_cover_percentage"].to_pylist() == [0.25 if is_cloud else 0.0]


def test_chip_size_and_limit_can_be_chosen(tmp_path: Path) -> None:
    pixels = np.full((300, 300), 4, np.uint8)
    pixels[:64] = 0
    document = sentinel_2(tmp_path, pixels)
    small = index(document, S2, chip_size=128)
    assert counts_of(small) == (16, 4, 12)  # the upper four are entirely nodata
    assert set(small["chip_index_y"].to_pylist()) == {1, 2, 3}
    strict = index(document, S2, options=PLATFORMS[S2].rules.options(max_chip_nodata=0.0))
    assert strict["chip_index_y"].to_pylist() == [1, 1]
    assert index(document, S2, options=PLATFORMS[S2].rules.options(max_chip_nodata=0.5)).num_rows == 4


@pytest.mark.slow
def test_a_tall_scene_read_in_strips_is_counted_right(tmp_path: Path) -> None:
    """40 × 3 chips of 30 m, each with its first k pixels cloudy; more pixels than fit one strip."""
    rows, columns = 3, 40
    qa = np.zeros((rows * 1024, columns * 1024), np.uint16)
    for y in range(rows):
        for x in range(columns):
            qa[y * 1024, x * 1024 : x * 1024 + y * columns + x] = 1 << 3
    table = index(landsat(tmp_path, qa), L2, chip_size=1024)
    counts = table["cloud_cover_percentage"].to_numpy().astype(float) * 1024**2
    np.testing.assert_allclose(counts, np.arange(rows * columns), rtol=1e-6)


def test_microseconds_of_a_time_are_cut_to_the_contracts_milliseconds(tmp_path: Path) -> None:
    table = index(landsat(tmp_path, np.zeros((256, 256), np.uint16)), L1)
    assert table["datetime"].to_pylist() == [pd.Timestamp("2020-01-02T09:41:32.918Z").to_pydatetime()]


# --- positions of chips ---------------------------------------------------------------------------------------------


def corners_by_hand(document: Any, platform: str, x: Any, y: Any) -> NDArray[Any]:
    """Longitudes and latitudes of a chip's corners, only with pyproj, from the item's fields."""
    fields = {**document["properties"], **(document["assets"]["red"] if platform == S2 else {})}
    gsd, _, left, _, _, top = fields["proj:transform"][:6]
    epsg = fields.get("proj:epsg") or int(fields["proj:code"].removeprefix("EPSG:"))
    side = 256 * gsd
    east = [left + (x + dx) * side for dx in (1, 1, 0, 0)]
    north = [top - (y + dy) * side for dy in (1, 0, 0, 1)]
    return np.column_stack(pyproj.Transformer.from_crs(epsg, 4326, always_xy=True).transform(east, north))


@pytest.mark.parametrize(("platform", "place"), [(S2, "33UUU"), (S2, "34HBH"), (L1, "188060"), (L2, "175083")])
def test_polygons_are_the_projected_corners(planet: Planet, platform: Any, place: str) -> None:
    document = find(planet.items(platform), place)
    table = index(document, platform, options=PLATFORMS[platform].rules.options(max_chip_nodata=1))
    polygons = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    assert shapely.is_valid(polygons).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    for polygon, x, y in zip(
        polygons, table["chip_index_x"].to_pylist(), table["chip_index_y"].to_pylist(), strict=True
    ):
        ring = shapely.get_coordinates(polygon)
        np.testing.assert_allclose(ring[:4], corners_by_hand(document, platform, x, y), rtol=0, atol=1e-10)
        np.testing.assert_array_equal(ring[4], ring[0])
    sides = np.array([list(row.values()) for row in table["bbox"].to_pylist()])
    np.testing.assert_array_equal(sides, shapely.bounds(polygons))


@pytest.mark.parametrize(("platform", "place"), [(S2, "1KAB"), (L1, "073072"), (L2, "073072")])
def test_chips_on_the_antimeridian_are_split_there(planet: Planet, platform: Any, place: str) -> None:
    document = find(planet.items(platform), place)
    table = index(document, platform, options=PLATFORMS[platform].rules.options(max_chip_nodata=1))
    polygons = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    assert shapely.is_valid(polygons).all()
    crossing = 0
    for polygon, box, x, y in zip(
        polygons, table["bbox"].to_pylist(), table["chip_index_x"].to_pylist(), table["chip_index_y"].to_pylist(),
        strict=True,
    ):  # fmt: skip
        corners = corners_by_hand(document, platform, x, y)
        around = np.where(corners[:, 0] < 0, corners[:, 0] + 360, corners[:, 0])
        whole = shapely.Polygon(np.column_stack([around, corners[:, 1]]))
        assert polygon.area == pytest.approx(whole.area, rel=1e-5)  # the split is rounded to 1e-7°
        if around.min() < 180 < around.max():
            crossing += 1
            assert polygon.geom_type == "MultiPolygon"
            west, east = sorted(polygon.geoms, key=lambda part: part.bounds[0])
            assert west.bounds[0] == -180.0
            assert east.bounds[2] == 180.0
            assert (box["xmin"], box["xmax"]) == (-180.0, 180.0)
        else:
            assert polygon.geom_type == "Polygon"
        assert max(part.bounds[2] - part.bounds[0] for part in shapely.get_parts(polygon)) < 0.2
    assert crossing >= (4 if platform == S2 else 1)  # one in each row
    geo = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert geo["geometry_types"] == ["MultiPolygon", "Polygon"]


def test_a_scene_that_is_nowhere_on_earth_is_refused(tmp_path: Path) -> None:
    document = landsat(tmp_path, np.zeros((256, 256), np.uint16))
    with rasterio.open(document["assets"]["qa_pixel"]["href"], "r+") as sink:
        sink.transform = rasterio.Affine(30, 0, 1e9, 0, -30, 0)
    document["properties"]["proj:transform"] = [30, 0, 1e9, 0, -30, 0]
    with pytest.raises(InputError, match="is not on the Earth"):
        index(document, L2)


# --- as a file ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(planet: Planet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index files of three scenes of two platforms, in the pipeline's layout."""
    folder = tmp_path_factory.mktemp("indexes")
    for platform, place in ((S2, "33UUU"), (S2, "60KYG"), (L2, "192023")):
        item = find(planet.items(platform), place)
        (folder / f"{item['id']}.parquet").write_bytes(encode_arrow(index(item, platform), {"recipe_name": "clay_v1"}))
    return folder


def test_stacchips_reader_finds_its_columns(folder: Path) -> None:
    """The selection and filter of stacchip's `prechip`, word for word."""
    dataset = ds.dataset(folder, format="parquet")
    table = dataset.to_table(columns=PRECHIP, filter=ds.field("platform") == S2)
    assert table.schema.names == PRECHIP
    assert table.num_rows == 32
    assert table["chip_index_x"].type == pa.uint16()
    assert pc.max(table["nodata_percentage"]).as_py() <= 0.5


def test_geopandas_and_duckdb_read_the_files(folder: Path) -> None:
    frame = gpd.read_parquet(folder)
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry.is_valid.all()
    assert frame["chipid"].is_unique
    counted = duckdb.sql(f"SELECT platform, count(*) FROM '{folder}/*.parquet' GROUP BY 1 ORDER BY 1").fetchall()
    assert counted == sorted(frame.groupby("platform", observed=True).size().items())
    assert open_index(folder).count_rows() == len(frame)
    one = next(folder.glob("S2*UUU*.parquet"))
    assert open_index(one).count_rows() == 16
    assert open_index(folder, platform=L2).count_rows() == dict(counted)[L2]
    assert open_index(folder, year=1999).count_rows() == 0


def test_geoparquet_metadata_follows_version_1_1(folder: Path) -> None:
    for path in folder.iterdir():
        file = pq.ParquetFile(path)
        geo = json.loads(file.metadata.metadata[b"geo"])
        frame = gpd.read_parquet(path)
        assert geo["version"] == "1.1.0"
        column = geo["columns"][geo["primary_column"]]
        assert column["encoding"] == "WKB"
        assert column["geometry_types"] == sorted(set(frame.geometry.geom_type))
        assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
        assert column["bbox"] == list(frame.total_bounds)
        assert column["covering"]["bbox"] == {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}
        assert file.schema_arrow.field("bbox").type == CONTRACT["bbox"]
        assert {file.metadata.row_group(0).column(n).compression for n in range(file.metadata.num_columns)} == {"ZSTD"}


def test_a_scene_without_a_chip_that_may_stay_is_an_empty_valid_table(tmp_path: Path) -> None:
    table = index(landsat(tmp_path, np.ones((300, 300), np.uint16)), L2)
    assert counts_of(table) == (1, 1, 0)
    path = tmp_path / "empty.parquet"
    path.write_bytes(encode_arrow(table, {}))
    frame = gpd.read_parquet(path)
    assert len(frame) == 0
    assert frame.crs.to_epsg() == 4326
    assert pq.read_schema(path).equals(pa.schema(CONTRACT))


def test_there_is_no_index_where_nothing_was_made(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing", tmp_path / "x.parquet"):
        with pytest.raises(InputError, match="chip index not found"):
            open_index(place)
    with pytest.raises(InputError, match="unknown platform 'sentinel-3'"):
        index(sentinel_2(tmp_path), "sentinel-3")
