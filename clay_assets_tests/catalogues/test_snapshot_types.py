"""Snapshots in the forms of many writers: the same full items are found, or a column is rejected before the search."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import stac_geoparquet

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.picks import Picks, pick_scenes
from clay_assets.stac import Item
from clay_assets_tests.catalogues.test_snapshot import request
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item, snapshot

PLATFORM = PLATFORMS[SENTINEL_2]
REQUESTS = [request(2020, quarter, filters=({"grid:code": "MGRS-32NLG"},)) for quarter in (1, 2, 3)]
UNITS = ("s", "ms", "us", "ns")


def items() -> list[Item]:
    """Two scenes in the first quarter, one in the second, and one with an interval in the third."""
    made = [
        sentinel_2_item("cloudy", "2020-01-01T00:00:00Z", 40.5),
        sentinel_2_item("clear", "2020-03-31T23:59:59Z", 1.5),
        sentinel_2_item("b", "2020-05-01T10:00:00Z", 3.25),
        sentinel_2_item("interval", "2020-07-01T10:00:00Z", 2.75),
    ]
    made[3]["properties"] |= {
        "datetime": None,
        "start_datetime": "2020-07-01T10:00:00Z",
        "end_datetime": "2020-07-09T00:00:00Z",
    }
    return made


def table_of(path: Path) -> pa.Table:
    return pq.read_table(snapshot(path / "original.parquet", items()))


def changed(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


def picks(location: str) -> Picks:
    return pick_scenes(PLATFORM, 2020, REQUESTS, SnapshotCatalogue(location), PLATFORM.rules.options())


def written(path: Path, table: pa.Table, schema: pa.Schema | None = None) -> str:
    """Write a table; `schema` is the schema to declare in the file, if pyarrow cannot write it."""
    location = path / "items.parquet"
    with pq.ParquetWriter(location, table.schema, store_schema=schema is None) as writer:
        writer.write_table(table)
        if schema is not None:
            writer.add_key_value_metadata({"ARROW:schema": base64.b64encode(schema.serialize()).decode()})
    return str(location)


def times(column: pa.ChunkedArray, unit: str, zone: str | None) -> pa.Array:
    utc = column.combine_chunks().cast(pa.timestamp(unit, "UTC"), safe=False)
    return utc.cast(pa.timestamp(unit, zone)) if zone else utc.cast(pa.int64()).cast(pa.timestamp(unit))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Picks:
    folder = tmp_path_factory.mktemp("expected")
    found = picks(written(folder, table_of(folder)))
    assert found.ledger["item_id"].tolist() == ["clear", "b", "interval"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "other", "zone"), [*product(UNITS, UNITS, [None]), *product(UNITS[:2], UNITS[2:], ["UTC", "Asia/Tokyo"])]
)
def test_times_of_any_unit_and_zone(tmp_path: Path, expected: Picks, unit: str, other: str, zone: str | None) -> None:
    table = table_of(tmp_path)
    table = changed(table, "datetime", times(table["datetime"], unit, zone))
    for name in ("start_datetime", "end_datetime"):
        table = changed(table, name, times(table[name], other, "UTC" if zone is None else None))
    found = picks(written(tmp_path, table))
    assert found.ledger.equals(expected.ledger)
    assert [item["properties"] for item in found.items] == [item["properties"] for item in expected.items]


def text(table: pa.Table, name: str) -> pa.Array:
    return pa.array([value and value.isoformat() for value in table[name].to_pylist()])


def views(kind: pa.DataType) -> pa.DataType:
    """The same type with views, as written by newer writers."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(views(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(views(kind.value_type))
    return {pa.string(): pa.string_view(), pa.binary(): pa.binary_view()}.get(kind, kind)


def with_dictionaries(table: pa.Table) -> pa.Table:
    for name in ("id", "collection", "grid:code"):
        table = changed(table, name, table[name].combine_chunks().dictionary_encode())
    return table


def large(table: pa.Table) -> pa.Table:
    for name in ("id", "collection", "grid:code"):
        table = changed(table, name, table[name].cast(pa.large_string()))
    return changed(table, "geometry", table["geometry"].cast(pa.large_binary()))


def decimals(table: pa.Table) -> pa.Table:
    values = [Decimal(str(value)) for value in table["eo:cloud_cover"].to_pylist()]
    return changed(table, "eo:cloud_cover", pa.array(values, pa.decimal128(10, 4)))


def only_intervals(table: pa.Table, kind: pa.DataType) -> pa.Table:
    starts = [a or b for a, b in zip(table["datetime"].to_pylist(), table["start_datetime"].to_pylist(), strict=True)]
    table = changed(table, "start_datetime", pa.array(starts, pa.timestamp("us", "UTC")))
    return changed(table, "datetime", pa.nulls(len(table), kind))


def single_precision(table: pa.Table) -> pa.Table:
    kind = pa.struct([(side, pa.float32()) for side in ("xmin", "ymin", "xmax", "ymax")])
    return changed(table, "bbox", table["bbox"].cast(kind))


VARIANTS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "dictionaries": with_dictionaries,
    "large": large,
    "text datetime": lambda table: changed(table, "datetime", text(table, "datetime")),
    "text start_datetime": lambda table: changed(table, "start_datetime", text(table, "start_datetime")),
    "null datetime": lambda table: only_intervals(table, pa.null()),
    "typed null datetime": lambda table: only_intervals(table, pa.timestamp("ns")),
    "text null datetime": lambda table: only_intervals(table, pa.string()),
    "no datetime": lambda table: only_intervals(table, pa.null()).drop_columns("datetime"),
    "WKT": lambda table: changed(
        table, "geometry", pa.array(shapely.to_wkt(shapely.from_wkb(table["geometry"].to_pylist()), 17))
    ),
    "decimal cloud cover": decimals,
    "JSON assets": lambda table: changed(table, "assets", pa.array(map(json.dumps, table["assets"].to_pylist()))),
    "list box": lambda table: changed(
        table, "bbox", pa.array([list(box.values()) for box in table["bbox"].to_pylist()])
    ),
    "no box": lambda table: table.drop_columns("bbox"),
    "null boxes": lambda table: changed(table, "bbox", pa.nulls(len(table), table["bbox"].type)),
    "single precision box": single_precision,
    "only what is needed": lambda table: table.drop_columns(["bbox", "links", "type", "stac_version"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_of_writing_gives_the_same_scenes(tmp_path: Path, expected: Picks, variant: str) -> None:
    found = picks(written(tmp_path, VARIANTS[variant](table_of(tmp_path))))
    columns = ["outcome", "reason", "item_id", "cloud_cover"]
    assert found.ledger[columns].equals(expected.ledger[columns])
    for item, wanted in zip(found.items, expected.items, strict=True):
        assert item["assets"] == wanted["assets"]
        assert shapely.geometry.shape(item["geometry"]).equals(shapely.geometry.shape(wanted["geometry"]))
        given = item["properties"]["datetime"] or item["properties"]["start_datetime"]
        assert given[:19] == (wanted["properties"]["datetime"] or wanted["properties"]["start_datetime"])[:19]


def test_views_as_newer_writers_have_them(tmp_path: Path, expected: Picks) -> None:
    table = table_of(tmp_path)
    schema = pa.schema([field.with_type(views(field.type)) for field in table.schema])
    location = written(tmp_path, table, schema)
    assert str(pq.read_schema(location)).count("_view") > 20
    found = picks(location)
    assert found.ledger.equals(expected.ledger)
    assert found.items == expected.items


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_a_geodataframe_of_stac_geoparquet(tmp_path: Path, expected: Picks, backend: str) -> None:
    location = tmp_path / "frame.geoparquet"
    stac_geoparquet.to_geodataframe(items()[:3], add_self_link=False, dtype_backend=backend).to_parquet(location)
    found = picks(str(location))
    assert found.ledger["item_id"].tolist()[:2] == expected.ledger["item_id"].tolist()[:2]
    assert [item["assets"] for item in found.items] == [
        item["assets"] for item in expected.items if item["id"] != "interval"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "values", "remedy"),
    [
        ("assets", pa.array([1] * 4), "column assets is of type int64"),
        ("datetime", pa.array([1.5] * 4), "column datetime is of type double"),
        ("start_datetime", pa.array([2020] * 4), "column start_datetime is of type int64"),
        ("geometry", pa.array([{"x": 6.0, "y": 0.5}] * 4), "column geometry is of type struct.*Write geometry as WKB"),
        ("geometry", pa.array([[[{"x": 6.0, "y": 0.5}]]] * 4), "column geometry is of type list.*WKB"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_search(
    tmp_path: Path, column: str, values: pa.Array, remedy: str
) -> None:
    with pytest.raises(InputError, match=remedy):
        SnapshotCatalogue(written(tmp_path, changed(table_of(tmp_path), column, values)))


def test_another_crs_is_refused(tmp_path: Path) -> None:
    location = tmp_path / "mercator.parquet"
    frame: Any = gpd.read_parquet(snapshot(tmp_path / "original.parquet", items()))
    frame.set_crs(4326, allow_override=True).to_crs(3857).to_parquet(location)
    with pytest.raises(InputError, match=r"column geometry is not in EPSG:4326"):
        SnapshotCatalogue(str(location))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["._a.parquet", ".ipynb_checkpoints/a.parquet", "_temporary/0/a.parquet", "a.parquet.crc"]
)
def test_what_tools_leave_behind_is_not_read(tmp_path: Path, expected: Picks, name: str) -> None:
    table = table_of(tmp_path)
    folder = tmp_path / "folder"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"\0\5\26\7")
    pq.write_table(table[:2], folder / "a.parquet")
    pq.write_table(table[2:], folder / "b.geoparquet")
    assert picks(str(folder)).ledger.equals(expected.ledger)


def test_what_was_kept_as_json_decides_as_well(tmp_path: Path) -> None:
    made = items()
    for item, cover in zip(made, (40.5, 1.5, 3.25, "little"), strict=True):  # of more than one type
        item["properties"]["eo:cloud_cover"] = cover
    location = snapshot(tmp_path / "items.parquet", made)
    assert "clay:untyped" in pq.read_schema(location).names
    assert "eo:cloud_cover" not in pq.read_schema(location).names
    found = picks(location)
    assert found.ledger["item_id"].fillna("").tolist() == ["clear", "b", ""]
    assert "property eo:cloud_cover: text, expected a number" in found.ledger["reason"].iloc[2]


def test_relative_hrefs_resolve_against_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = items()[:2]
    for item in made:
        item["assets"] = {name: {"href": f"./{item['id']}/{name}.tif"} for name in item["assets"]}
    location = snapshot(tmp_path / "catalogue" / "items.parquet", made)
    monkeypatch.chdir(tmp_path)
    (kept,) = picks("catalogue/items.parquet").items
    assert Path(kept["assets"]["red"]["href"]) == tmp_path / "catalogue" / "clear" / "red.tif"
    assert location.endswith("items.parquet")


def test_an_item_that_proves_invalid_when_it_is_whole_is_a_row(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    kinds = pa.array(["Feature", "Collection", "Feature", "Feature"])
    found = picks(written(tmp_path, changed(table, "type", kinds)))
    assert found.ledger["outcome"].tolist() == ["failed", "picked", "picked"]
    assert found.ledger["reason"].iloc[0].startswith("clear: invalid item (type is 'Collection')")
