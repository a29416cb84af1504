"""Frames come back as they went, other tools read them, and every file says what it was made from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from geopandas.testing import assert_geodataframe_equal
from shapely import MultiPolygon, Point, box

from clay_assets.errors import InputError
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode, encode, encode_arrow, flatgeobuf, geo_metadata, stamp_of, stamped

STAMP = {"recipe_name": "clay_v1", "recipe_hash": "0123456789abcdef", "recipe": '{"a":"ü"}'}


@pytest.fixture
def frame() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {
            "name": ["01KAB", "32NKF", "60KYG"],
            "share": [0.25, np.nan, 1.0],
            "count": np.array([1, 2, 3], "int8"),
            "rules": [["diversity"], ["built_up", "cropland"], []],
            "when": pd.to_datetime(["2020-01-01", "2021-06-01", "NaT"], utc=True).astype("datetime64[ms, UTC]"),
        },
        geometry=[MultiPolygon([box(-180, 0, -179, 1), box(179, 0, 180, 1)]), box(9, 0, 10, 1), box(179, 3, 180, 4)],
        crs="EPSG:4326",
    )


def test_a_frame_with_geometry_comes_back(frame: gpd.GeoDataFrame) -> None:
    back = decode(encode(frame, STAMP), "x")
    back["rules"] = back["rules"].map(list)
    assert_geodataframe_equal(back, frame, check_dtype=False)
    assert back.dtypes.drop("geometry").astype(str).to_dict() | {"name": "str"} == frame.dtypes.drop("geometry").astype(
        str
    ).to_dict() | {"name": "str"}


def test_a_frame_without_geometry_comes_back() -> None:
    plain = pd.DataFrame({"id": ["a", None], "n": np.array([1, 2], "int32")})
    back = decode(encode(plain, STAMP), "x")
    assert not isinstance(back, gpd.GeoDataFrame)
    pd.testing.assert_frame_equal(back, plain, check_dtype=False)
    assert back["n"].dtype == "int32"


def test_the_same_frame_gives_the_same_bytes(frame: gpd.GeoDataFrame) -> None:
    assert encode(frame, STAMP) == encode(frame.copy(), STAMP)
    assert encode(frame, STAMP) != encode(frame, {**STAMP, "recipe_name": "clay_v0_1"})


def test_the_file_is_geoparquet_1_1(frame: gpd.GeoDataFrame) -> None:
    file = pq.ParquetFile(io.BytesIO(encode(frame, STAMP)))
    geo = json.loads(file.metadata.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    assert column["encoding"] == "WKB"
    assert sorted(column["geometry_types"]) == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == [-180.0, 0.0, 180.0, 4.0]
    assert column["crs"]["id"]["code"] == 4326
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert set(file.schema_arrow.field("bbox").type.names) == {"xmin", "ymin", "xmax", "ymax"}
    assert {file.metadata.row_group(0).column(n).compression for n in range(file.metadata.num_columns)} == {"ZSTD"}
    assert len(gpd.read_parquet(io.BytesIO(encode(frame, STAMP)), bbox=(8, 0, 11, 1))) == 2  # and the split one


def test_the_stamp_comes_back(frame: gpd.GeoDataFrame) -> None:
    schema = pq.read_schema(io.BytesIO(encode(frame, STAMP)))
    assert stamp_of(schema) == STAMP
    assert stamp_of(pa.schema([("a", pa.int8())])) == {}
    assert stamp_of(pa.schema([("a", pa.int8())]).with_metadata(stamped(STAMP))) == STAMP


def test_an_empty_frame_keeps_its_schema(frame: gpd.GeoDataFrame) -> None:
    content = encode(frame.iloc[:0], STAMP)
    back = decode(content, "x")
    assert isinstance(back, gpd.GeoDataFrame)
    assert len(back) == 0
    assert back.crs == frame.crs
    assert list(back.columns) == list(frame.columns)
    schema = pq.read_schema(io.BytesIO(content))
    assert schema.field("count").type == pa.int8()
    assert schema.field("when").type == pa.timestamp("ms", "UTC")
    assert pa.types.is_binary(schema.field("geometry").type)
    assert len(gpd.read_parquet(io.BytesIO(content))) == 0


def test_a_stamp_does_not_take_other_metadata_away() -> None:
    table = pa.table({"geometry": pa.array([Point(1, 2).wkb])}).replace_schema_metadata(
        {b"geo": geo_metadata(["Point"], (1, 2, 1, 2)), b"other": b"kept"}
    )
    metadata = pq.read_schema(io.BytesIO(encode_arrow(table, STAMP))).metadata
    assert metadata[b"other"] == b"kept"
    assert json.loads(metadata[b"geo"])["columns"]["geometry"]["bbox"] == [1, 2, 1, 2]
    assert metadata[b"clay:recipe_name"] == b"clay_v1"


def test_an_empty_table_has_no_bounds() -> None:
    assert "bbox" not in json.loads(geo_metadata([], None))["columns"]["geometry"]


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1PAR1"])
def test_what_is_no_parquet_is_an_error_that_names_the_file(content: bytes) -> None:
    with pytest.raises(InputError, match=r"s3://b/sample\.parquet: not a readable Parquet file.*Materialise"):
        decode(content, "s3://b/sample.parquet")


def test_a_truncated_file_is_an_error(frame: gpd.GeoDataFrame) -> None:
    with pytest.raises(InputError, match="not a readable Parquet file"):
        decode(encode(frame, STAMP)[:-100], "x")


@pytest.mark.parametrize("decoded", [False, True])
def test_flatgeobuf_has_lists_as_text(frame: gpd.GeoDataFrame, tmp_path: Path, decoded: bool) -> None:
    """Also after a frame came back from Parquet, where lists are arrays."""
    path = tmp_path / "sample.fgb"
    path.write_bytes(flatgeobuf(decode(encode(frame, STAMP), "x") if decoded else frame))
    back = gpd.read_file(path)
    assert list(back.sort_values("name")["rules"]) == ["diversity", "built_up, cropland", ""]
    assert back.crs.to_epsg() == 4326
    assert set(back["name"]) == set(frame["name"])
    assert len(gpd.read_file(path, bbox=(9.2, 0.2, 9.8, 0.8))) == 1
    assert frame["rules"].iloc[1] == ["built_up", "cropland"]


def test_flatgeobuf_of_an_empty_frame(frame: gpd.GeoDataFrame, tmp_path: Path) -> None:
    path = tmp_path / "empty.fgb"
    path.write_bytes(flatgeobuf(frame.iloc[:0]))
    assert len(gpd.read_file(path)) == 0


def test_layout_is_the_storage_contract() -> None:
    assert layout.table("mgrs_grid") == "landcover/mgrs_grid.parquet"
    assert layout.table("worldcover_stats") == "landcover/worldcover_stats.parquet"
    assert layout.flatgeobuf("worldcover_stats") == "landcover/worldcover_stats.fgb"
    assert layout.table("mgrs_sample") == "sampling/mgrs_sample.parquet"
    assert layout.flatgeobuf("mgrs_sample") == "sampling/mgrs_sample.fgb"
    cell = ("sentinel-2-l2a", 2020)
    assert layout.table("scene_requests", cell[0]) == "scenes/scene_requests/sentinel-2-l2a.parquet"
    assert layout.table("scene_picks", *cell) == "scenes/scene_picks/sentinel-2-l2a/2020.parquet"
    assert layout.request_ledger(*cell) == "scenes/ledger/sentinel-2-l2a/2020.parquet"
    assert layout.table("scene_imagery", *cell) == "scenes/scene_imagery/sentinel-2-l2a/2020.parquet"
    assert layout.imagery(cell[0], "S2A", "B04.tif") == "imagery/sentinel-2-l2a/S2A/B04.tif"
    assert layout.chips(*cell, "S2A") == "chips/chip_index/sentinel-2-l2a/2020/S2A.parquet"
    assert layout.merged_part(*cell) == "chips/merged_index/sentinel-2-l2a/2020/part-0.parquet"
    assert layout.MANIFEST == "chips/manifest.json"
