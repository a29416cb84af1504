"""Items come back from STAC-GeoParquet as valid items, through any reader."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import stac_geoparquet.arrow as sga

from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.stac import as_stac_1_1, item_datetime
from clay_assets.storage.stac_geoparquet import decode_items, encode_items, items_of
from clay_assets_tests.scenes.items import (
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL_2,
    Properties,
    landsat_item,
    real_items,
    sentinel_2_item,
)


def assert_valid(item: dict[str, Any]) -> None:
    """Valid by the schema of STAC items; extensions' schemas are not on this machine."""
    pystac.Item.from_dict({**item, "stac_extensions": []}, migrate=False).validate()


def assert_some_valid(items: Iterable[dict[str, Any]]) -> None:
    """Every third, as items of one collection are much alike and the schema takes its time."""
    for item in list(items)[::3]:
        assert_valid(item)


def simple(value: Any) -> Any:
    """A value with times in one spelling and tuples as lists, to compare."""
    if isinstance(value, dict):
        return {name: simple(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [simple(inner) for inner in value]
    if isinstance(value, str) and len(value) >= 20 and value[4:5] == "-" and value[10:11] == "T":
        return pystac.utils.str_to_datetime(value)
    return value


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def write(path: Path, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write items as the pipeline does and return what was meant."""
    meant = [as_stac_1_1(PLATFORMS[item["collection"]].read_item(item)) for item in items]
    path.write_bytes(encode_items(meant, {"recipe_name": "test"}))
    return meant


def rustac_items(path: Path) -> list[dict[str, Any]]:
    import rustac

    async def read() -> Any:
        return await rustac.read(str(path))

    features: list[dict[str, Any]] = asyncio.run(read())["features"]
    return features


@pytest.fixture(scope="module", params=[SENTINEL_2, LANDSAT_L1, LANDSAT_L2])
def written(
    request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    path = tmp_path_factory.mktemp("written") / "items.parquet"
    return path, write(path, real_items(real_data, request.param))


@pytest.mark.slow
def test_real_items_come_back_as_they_were(written: tuple[Path, list[dict[str, Any]]]) -> None:
    path, meant = written
    back = decode_items(path.read_bytes(), str(path))
    assert len(back) == len(meant)
    for one, other in zip(meant, back, strict=True):
        assert simple(without_nulls(one)) == simple(without_nulls(other))
        assert_valid(other)
    assert_some_valid(meant)


@pytest.mark.slow
def test_stac_geoparquet_reads_valid_items(written: tuple[Path, list[dict[str, Any]]]) -> None:
    path, meant = written
    items = list(sga.stac_table_to_items(pq.read_table(path)))
    assert [item["id"] for item in items] == [item["id"] for item in meant]
    for item, one in zip(items, meant, strict=True):
        assert item["geometry"]["type"] == one["geometry"]["type"]
    assert_some_valid(without_nulls(item) for item in items)


@pytest.mark.slow
def test_rustac_reads_valid_items(written: tuple[Path, list[dict[str, Any]]]) -> None:
    path, meant = written
    found = rustac_items(path)
    assert [item["id"] for item in found] == [item["id"] for item in meant]
    for item, one in zip(found, meant, strict=True):
        assert set(without_nulls(item["assets"])) == set(one["assets"])
        assert item["properties"].get("eo:cloud_cover") == one["properties"].get("eo:cloud_cover")
    assert_some_valid(without_nulls(item) for item in found)


def test_geopandas_reads_the_same_footprints(written: tuple[Path, list[dict[str, Any]]]) -> None:
    path, meant = written
    frame = gpd.read_parquet(path)
    assert frame["id"].tolist() == [item["id"] for item in meant]
    assert frame.crs.to_epsg() == 4326 or frame.crs.to_string() == "OGC:CRS84"
    assert frame.geometry.is_empty.sum() == 0
    for shape, item in zip(frame.geometry, meant, strict=True):
        assert shape.geom_type == item["geometry"]["type"]
    assert frame["datetime"].tolist() == [item_datetime(item) for item in meant]


def test_the_file_tells_its_origin_and_is_geoparquet(written: tuple[Path, list[dict[str, Any]]]) -> None:
    metadata = pq.read_schema(written[0]).metadata
    assert metadata[b"clay:recipe_name"] == b"test"
    assert b"geo" in metadata
    assert pq.ParquetFile(written[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_empty_table_is_read_by_all() -> None:
    content = encode_items([], {})
    assert decode_items(content, "empty") == []
    table = pq.read_table(io.BytesIO(content))
    assert list(sga.stac_table_to_items(table)) == []
    assert len(gpd.read_parquet(io.BytesIO(content))) == 0


def test_an_empty_file_is_read_by_rustac(tmp_path: Path) -> None:
    (tmp_path / "empty.parquet").write_bytes(encode_items([], {}))
    assert rustac_items(tmp_path / "empty.parquet") == []


def test_the_same_items_give_the_same_bytes(planet: Planet) -> None:
    items = [as_stac_1_1(item) for item in planet.items(LANDSAT_L2)[:20]]
    assert encode_items(items, {"a": "b"}) == encode_items(items, {"a": "b"})


def test_epsg_and_code_in_one_table_come_back_alike(tmp_path: Path) -> None:
    when = "2020-01-01T00:00:00Z"
    old = sentinel_2_item("old", when)
    new = sentinel_2_item("new", when, **Properties({"proj:epsg": None, "proj:code": "EPSG:32632"}))
    old["stac_extensions"] = ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"]
    new["stac_extensions"] = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    path = tmp_path / "items.parquet"
    write(path, [old, new])
    for item in decode_items(path.read_bytes(), "items"):
        assert item["properties"]["proj:code"] == "EPSG:32632"
        assert "proj:epsg" not in item["properties"]
        assert_valid(item)


def test_items_of_stac_0_7_become_items_of_today(real_data: Path) -> None:
    old = [item for item in real_items(real_data, LANDSAT_L2) if item["stac_version"] == "0.7.0"]
    assert len(old) == 14
    for item in old:
        made = as_stac_1_1(PLATFORMS[LANDSAT_L2].read_item(item))
        assert made["stac_version"].startswith("1.")
        assert made["properties"]["datetime"].startswith(item["properties"]["datetime"])
        for asset in made["assets"].values():
            assert all(isinstance(band, dict) for band in asset.get("eo:bands", []) + asset.get("bands", []))
        assert_valid(made)


def test_a_catalogue_s_item_is_not_changed() -> None:
    item = landsat_item("a", "2020-01-01T00:00:00Z")
    before = repr(item)
    as_stac_1_1(item)
    assert repr(item) == before


@pytest.mark.parametrize(
    "damage",
    [{"id": None}, {"geometry": "nowhere"}, {"assets": {"red": {}}}, {"properties": None}, {"links": [3]}],
)
def test_an_item_that_is_none_is_named(damage: dict[str, Any]) -> None:
    item = {**sentinel_2_item("S2A_X", "2020-01-01T00:00:00Z"), **damage}
    with pytest.raises(InputError, match="S2A_X" if "id" not in damage else "valid STAC item"):
        encode_items([as_stac_1_1(item)], {})


def test_members_that_stac_does_not_know_are_kept_with_the_properties() -> None:
    item = {**sentinel_2_item("a", "2020-01-01T00:00:00Z"), "description": "of the catalogue"}
    [back] = decode_items(encode_items([as_stac_1_1(item)], {}), "items")
    assert as_stac_1_1(item)["properties"]["description"] == "of the catalogue"
    assert back["properties"]["description"] == "of the catalogue"


def test_tables_that_others_wrote_differently(tmp_path: Path) -> None:
    # No bounding box, no links or assets, a projected geometry of some items only, times in another zone, as text, or
    # without a zone, and types that only newer writers use.
    berlin = pa.timestamp("ms", tz="Europe/Berlin")
    noon = datetime(2020, 6, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array(["a", "b"], pa.string_view()),
            "geometry": pa.array([shapely.to_wkb(shapely.Point(5, 6))] * 2, pa.large_binary()),
            "bbox": pa.array([None, dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), 5.0)]),
            "proj:geometry": pa.array([None, shapely.to_wkb(shapely.Point(1, 2))]),
            "datetime": pa.array([noon, None], berlin),
            "created": pa.array([noon.replace(tzinfo=None)] * 2, pa.timestamp("s")),
            "updated": ["2020-06-01", None],
        }
    )
    first, second = items_of(table)
    point = {"type": "Point", "coordinates": [5.0, 6.0]}
    assert first == {
        **{"id": "a", "geometry": point, "links": [], "assets": {}},
        "properties": {
            "created": "2020-06-01T12:00:00Z",
            "datetime": "2020-06-01T12:00:00.000Z",
            "updated": "2020-06-01",
        },
    }
    assert second["bbox"] == [5.0] * 4
    assert second["properties"]["proj:geometry"] == {"type": "Point", "coordinates": [1.0, 2.0]}
    assert second["properties"]["datetime"] is None


def test_times_of_items() -> None:
    def of(**properties: Any) -> str:
        return item_datetime({"id": "a", "properties": properties}).isoformat()

    assert of(datetime="2020-10-31") == "2020-10-31T00:00:00+00:00"
    assert of(datetime="2020-10-31T12:00:00+02:00") == "2020-10-31T10:00:00+00:00"
    assert of(datetime=None, start_datetime="2020-01-01T00:00:00Z") == "2020-01-01T00:00:00+00:00"
    with pytest.raises(InputError, match="a: datetime 'soon' is not a valid time"):
        of(datetime="soon")
    with pytest.raises(InputError, match="a: neither datetime nor start_datetime is given"):
        of(datetime=None)


def test_a_file_that_is_no_parquet_is_named() -> None:
    with pytest.raises(InputError, match=r"picks/2020\.parquet: not a readable Parquet file"):
        decode_items(b"PAR1 and then nothing", "picks/2020.parquet")


def test_the_order_of_properties_does_not_reach_the_file(planet: Planet) -> None:
    # stac-geoparquet gives an item's properties in the order of the hash seed.
    (item, *_) = planet.items(SENTINEL_2)
    turned = {**item, "properties": dict(reversed(item["properties"].items()))}
    assert encode_items([as_stac_1_1(turned)], {}) == encode_items([as_stac_1_1(item)], {})


PARSING = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from clay_assets.stac import parse_item
item = {"type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": "a", "geometry": None, "links": [],
        "assets": {}, "properties": {"datetime": "2020-01-01T00:00:00Z"}}
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def parse(_):
    start.wait()
    for _ in range(50):
        parse_item(item)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(parse, range(8)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", range(3))  # pystac is unfinished only while a process parses its first items
def test_the_first_items_of_a_process_may_be_parsed_by_several_threads(process: int) -> None:
    parsing = subprocess.run([sys.executable, "-c", PARSING], capture_output=True, text=True, timeout=120, check=False)
    assert parsing.returncode == 0, parsing.stderr
