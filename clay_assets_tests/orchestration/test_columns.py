"""Every column of every table is described once, and Dagster and the documents match the description."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.chips.columns import (
    CHIP_INDEX,
    CHIP_LANDCOVER,
    CHIP_LEDGER,
    LANDCOVER_LEDGER,
    MERGED_INDEX,
    PAINTED,
    SPLITS,
)
from clay_assets.definitions import defs
from clay_assets.landcover.columns import MGRS_GRID, WORLDCOVER_STATS
from clay_assets.orchestration.metadata import COLUMN_SCHEMA, OUR_COLUMN_SCHEMA
from clay_assets.platforms import PLATFORMS
from clay_assets.sampling.columns import MGRS_SAMPLE, MODIS_SAMPLE, NAIP_SAMPLE
from clay_assets.scenes.columns import IMAGERY_LEDGER, REQUEST_LEDGER, SCENE_REQUESTS
from clay_assets.storage.columns import ITEMS, STRUCT, UNTYPED, Column, Columns, type_name
from clay_assets.training.columns import COG_HEADERS, HEADERS_LEDGER
from clay_assets_tests.chain import Chain
from clay_assets_tests.conftest import REPOSITORY

MAKE_TABLES = REPOSITORY / "scripts" / "make_tables.py"
# Asset → its columns.
ASSETS = {
    "mgrs_grid": MGRS_GRID,
    "worldcover_stats": WORLDCOVER_STATS,
    "mgrs_sample": MGRS_SAMPLE,
    "naip_sample": NAIP_SAMPLE,
    "linz_sample": ITEMS,
    "modis_sample": MODIS_SAMPLE,
    "scene_requests": SCENE_REQUESTS,
    "scene_picks": ITEMS,
    "scene_imagery": ITEMS,
    "chip_index": CHIP_INDEX,
    "chip_landcover": CHIP_LANDCOVER,
    "merged_index": MERGED_INDEX,
    "cog_headers": COG_HEADERS,
}
LEDGERS = {
    "scene_picks": REQUEST_LEDGER,
    "scene_imagery": IMAGERY_LEDGER,
    "chip_index": CHIP_LEDGER,
    "chip_landcover": LANDCOVER_LEDGER,
    "cog_headers": HEADERS_LEDGER,
}
# Folder and name of a file, or folder of files → the columns; in addition to the assets' own.
BESIDE = {
    "scenes/ledger": REQUEST_LEDGER,
    "scenes/imagery_ledger": IMAGERY_LEDGER,
    "scenes/search_results": ITEMS,
    "chips/ledger": CHIP_LEDGER,
    "chips/landcover_ledger": LANDCOVER_LEDGER,
    "chips/painted": PAINTED,
    "chips/splits": SPLITS,
    "training/headers_ledger": HEADERS_LEDGER,
}
PARTITIONS = {
    "scene_requests": "sentinel-2-l2a",
    **dict.fromkeys(
        ("scene_picks", "scene_imagery", "chip_index", "chip_landcover", "cog_headers"), "sentinel-2-l2a|2020"
    ),
}


def tables(chain: Chain) -> Iterator[tuple[str, pa.Schema, int]]:
    """Key, schema and number of rows of every table of a chain's storage."""
    store = chain.clay.store()
    for key in store.list("", ".parquet"):
        file = pq.ParquetFile(io.BytesIO(store.read(key)))
        yield key, file.schema_arrow, file.metadata.num_rows


def columns_of(key: str) -> Columns:
    """The description of a table, found by its folder and the name of its asset or ledger."""
    folder, name = key.removesuffix(".parquet").split("/")[:2]
    return BESIDE[f"{folder}/{name}"] if f"{folder}/{name}" in BESIDE else ASSETS[name]


def fits(column: Column, kind: pa.DataType) -> bool:
    """Whether a stored type matches the description; for a generic struct, only whether it is a struct."""
    name = type_name(kind, column.name)
    return name == column.type or (column.type.endswith(STRUCT) and name.startswith(f"{column.type}("))


def test_every_stored_table_has_exactly_the_columns_that_are_described(built: Chain) -> None:
    described = {id(columns) for columns in (*ASSETS.values(), *BESIDE.values())}
    for key, schema, rows in tables(built):
        columns = columns_of(key)
        described.discard(id(columns))
        if columns is not ITEMS:
            assert schema.names == [column.name for column in columns.described], key
        # Parquet cannot store a struct without fields, so a table without items has no assets either.
        without = {"assets"} if columns is ITEMS and not rows else set()
        assert {column.name for column in columns.always} - set(schema.names) == without, key
        for column in columns.described:
            if column.name in schema.names:
                assert fits(column, schema.field(column.name).type), (key, column, schema.field(column.name).type)
    assert not described  # no description of a table that is never written


def test_item_properties_are_described_if_a_platform_declares_them_and_only_if_an_item_has_them(built: Chain) -> None:
    stored = {name for key, schema, _ in tables(built) if columns_of(key) is ITEMS for name in schema.names}
    assert set(ITEMS.meanings) - {UNTYPED.name} <= stored
    for platform in PLATFORMS.values():
        for declared in platform.rules.properties:
            assert set(declared.names) & set(ITEMS.meanings), (platform.key, declared)


def test_every_description_is_a_phrase_of_its_own() -> None:
    for columns in (*ASSETS.values(), *BESIDE.values()):
        names = [column.name for column in columns.described]
        assert len(set(names)) == len(names)
        for column in columns.described:
            assert column.meaning == column.meaning.strip().rstrip(".")
            assert "|" not in column.meaning, "it would end a cell of a Markdown table"


def test_kinds_of_values_have_one_name_however_they_are_stored() -> None:
    text = pa.string()
    for kind in (text, pa.large_string(), pa.dictionary(pa.int32(), text)):
        assert type_name(kind) == "string"
    assert type_name(pa.list_(pa.large_string())) == type_name(pa.large_list(text)) == "list of string"
    assert type_name(pa.float32()) == "float32"
    assert type_name(pa.uint16()) == "uint16"
    assert type_name(pa.date32()) == "date32"
    assert type_name(pa.timestamp("ms", tz="UTC")) == "timestamp[ms, UTC]"
    assert type_name(pa.timestamp("us")) == "timestamp[us]"
    assert type_name(pa.struct([("xmin", pa.float64()), ("ymin", pa.float64())])) == "struct(xmin, ymin)"
    assert type_name(pa.list_(pa.struct([("href", text)]))) == "list of struct(href)"
    assert type_name(pa.binary()) == "WKB"
    assert type_name(pa.binary(), "jpeg_tables") == "binary"
    assert type_name(pa.map_(text, pa.float64())) == "map of string to float64"


def test_the_definition_of_each_asset_describes_its_columns() -> None:
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(ASSETS)
    for asset, columns in ASSETS.items():
        metadata = graph.get(dg.AssetKey(asset)).metadata
        # If both have `dagster/column_schema`, the UI shows the materialisation's names in lower case.
        capitals = any(column.name != column.name.lower() for column in columns.described)
        schema = metadata[OUR_COLUMN_SCHEMA if capitals else COLUMN_SCHEMA]
        assert not capitals or COLUMN_SCHEMA not in metadata
        assert isinstance(schema, dg.TableSchema)
        assert {(c.name, c.type, c.description) for c in schema.columns} == {
            (column.name, column.type, column.meaning) for column in columns.described
        }
        ledger = metadata.get("ledger_columns")
        names = [column.name for column in ledger.columns] if isinstance(ledger, dg.TableSchema) else []
        assert names == [column.name for column in (LEDGERS[asset].described if asset in LEDGERS else ())]


@pytest.mark.parametrize("asset", ASSETS)
def test_materialisations_describe_the_columns_that_were_written(built: Chain, asset: str) -> None:
    found = built.metadata(asset, PARTITIONS.get(asset))[COLUMN_SCHEMA]
    assert isinstance(found, dg.TableSchema)
    meanings = ASSETS[asset].meanings
    assert {column.name: column.description for column in found.columns if column.description} == {
        name: meaning for name, meaning in meanings.items() if name in {column.name for column in found.columns}
    }
    assert {column.name for column in ASSETS[asset].always} <= {column.name for column in found.columns}
    types = {column.name: column.type for column in found.columns}
    if asset not in ("chip_landcover", "cog_headers"):  # those without geometry
        assert types["bbox"] == "struct(xmin, ymin, xmax, ymax)"
    if asset == "merged_index":
        assert (types["platform"], types["gsd"], types["datetime"]) == ("string", "float32", "timestamp[ms, UTC]")


def test_columns_that_mean_the_same_share_a_line() -> None:
    table = Columns(
        (Column("a", "int8", "one"), Column("b", "int8", "one"), Column("c", "int16", "one")), (Column("d", "x", "y"),)
    )
    lines = table.markdown().splitlines()
    assert lines[2:] == ["| `a`, `b` | int8 | one |", "| `c` | int16 | one |", "| `d` | x | y |"]


def make_tables(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, MAKE_TABLES, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_the_tables_of_the_documents_are_up_to_date() -> None:
    checked = make_tables("--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    text = (REPOSITORY / "docs" / "columns.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| (`.*`) \|", text, re.MULTILINE))
    for columns in (*ASSETS.values(), *BESIDE.values()):
        for column in columns.described:
            assert any(f"`{column.name}`" in names for names in told), column


@pytest.mark.slow
def test_a_table_that_is_not_up_to_date_is_told_and_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    before, after = (
        "# Before\n\n<!-- columns: clay_assets.chips.columns:CHIP_LEDGER -->\n",
        "<!-- end of columns -->\n\nAfter\n",
    )
    page.write_text(f"{before}\n| stale |\n\n{after}", encoding="utf-8")
    assert make_tables("--check", str(page)).returncode == 1
    assert "| stale |" in page.read_text(encoding="utf-8")
    assert make_tables(str(page)).returncode == 0
    assert page.read_text(encoding="utf-8") == f"{before}\n{CHIP_LEDGER.markdown()}\n\n{after}"
    assert make_tables("--check", str(page)).returncode == 0
