"""How other tools read the merged index, and how little a bounding-box query reads."""

from __future__ import annotations

import json
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import duckdb
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.chips.index import open_index
from clay_assets.chips.merge import merge
from clay_assets.chips.sorting import ROW_GROUP_ROWS
from clay_assets.recipes import Recipe
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import L2, S2, made_plan, write_cell, write_land_cover
from clay_assets_tests.oracle.environment import Readers

SCENES, SIDE = 64, 42  # a full-size Sentinel-2 scene has 42 × 42 chips


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, threads: Executor) -> Path:
    """Folder of a merged index: some 110,000 chips of one cell, and two small cells."""
    store = LocalStore(tmp_path_factory.mktemp("merged"))
    cells = [
        write_cell(store, recipe, S2, 2020, [f"S2A_{n:03d}" for n in range(SCENES)], SIDE, SIDE),
        write_cell(store, recipe, S2, 2021, ["S2B_000"]),
        write_cell(store, recipe, L2, 2020, ["LC08_A"]),
    ]
    assert (
        merge(cells, [write_land_cover(cell) for cell in cells], made_plan(), store, recipe, threads, 4).rows
        == SCENES * SIDE * SIDE + 128
    )
    return store.root / layout.MERGED


@pytest.fixture(scope="module")
def large(merged: Path) -> Path:
    return merged / S2 / "2020" / "part-0.parquet"


@pytest.fixture(scope="module")
def window(large: Path) -> tuple[float, float, float, float]:
    """A box of half a degree at the centre of one scene."""
    row = pq.read_table(large, partitioning=None, filters=pc.field("chipid") == "S2A_050-20-20")["bbox"][0].as_py()
    return (row["xmin"] - 0.25, row["ymin"] - 0.25, row["xmin"] + 0.25, row["ymin"] + 0.25)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, threads: Executor) -> tuple[Path, list[list[Any]]]:
    """Folder of a small merged index of two platforms and years, and its rows."""
    store = LocalStore(tmp_path_factory.mktemp("small"))
    cells = [
        write_cell(store, recipe, S2, 2020, ["S2A_0", "S2A_1"]),
        write_cell(store, recipe, S2, 2021, ["S2B_0"]),
        write_cell(store, recipe, L2, 2020, ["LC08_A"]),
    ]
    merge(cells, [write_land_cover(cell) for cell in cells], made_plan(), store, recipe, threads, 4)
    tables = [(cell.platform, cell.year, cell.dataset().to_table(columns=["chipid"])) for cell in cells]
    expected = [[chip, platform, year] for platform, year, table in tables for chip in table["chipid"].to_pylist()]
    return store.root / layout.MERGED, sorted(expected, key=lambda row: (row[1], row[0]))


def rows_of(frame: gpd.GeoDataFrame) -> list[list[Any]]:
    """Chip id, platform and year of every row, in order."""
    return frame[["chipid", "platform", "year"]].sort_values(["platform", "chipid"]).to_numpy().tolist()


def touching(bbox: Any, west: float, south: float, east: NDArray[Any], north: float) -> Any:
    return (bbox("xmin") <= east) & (bbox("xmax") >= west) & (bbox("ymin") <= north) & (bbox("ymax") >= south)


@pytest.mark.slow
def test_row_groups_are_of_one_size(large: Path) -> None:
    file = pq.ParquetFile(large).metadata
    sizes = [file.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert set(sizes[:-1]) == {ROW_GROUP_ROWS}
    assert 0 < sizes[-1] <= ROW_GROUP_ROWS
    assert sum(sizes) == SCENES * SIDE * SIDE


@pytest.mark.slow
def test_a_bounding_box_reads_few_row_groups(large: Path, window: Window) -> None:
    file = pq.ParquetFile(large).metadata
    columns = {file.row_group(0).column(n).path_in_schema: n for n in range(file.num_columns)}
    ranges = [
        {
            side: file.row_group(n).column(columns[f"bbox.{side}"]).statistics
            for side in ("xmin", "ymin", "xmax", "ymax")
        }
        for n in range(file.num_row_groups)
    ]
    west, south, east, north = window
    read = [
        one
        for one in ranges
        if one["xmin"].min <= east and one["xmax"].max >= west and one["ymin"].min <= north and one["ymax"].max >= south
    ]
    assert 1 <= len(read) <= 0.25 * len(ranges)


def test_tools_agree_on_a_bounding_box(large: Path, merged: Path, window: Window) -> None:
    table = ds.dataset(large).to_table(columns=["chipid", "bbox"])
    sides = table["bbox"].combine_chunks().flatten()
    everything = dict(zip(("xmin", "ymin", "xmax", "ymax"), (side.to_numpy() for side in sides), strict=True))
    expected = set(np.array(table["chipid"].to_pylist())[touching(everything.get, *window)])
    assert 100 < len(expected) < 2000
    by_arrow = open_index(merged, S2, 2020).to_table(
        columns=["chipid"], filter=touching(lambda side: pc.field("bbox", side), *window)
    )
    assert set(by_arrow["chipid"].to_pylist()) == expected
    assert set(gpd.read_parquet(large, bbox=window)["chipid"]) == expected
    west, south, east, north = window
    where = f"bbox.xmin <= {east} AND bbox.xmax >= {west} AND bbox.ymin <= {north} AND bbox.ymax >= {south}"
    assert {name for (name,) in duckdb.sql(f"SELECT chipid FROM '{large}' WHERE {where}").fetchall()} == expected


@pytest.mark.slow
def test_part_is_geoparquet_1_1(large: Path) -> None:
    file = pq.ParquetFile(large)
    geo = json.loads(file.metadata.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"], column["encoding"]) == ("1.1.0", "geometry", "WKB")
    assert column["geometry_types"] == ["Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    frame = gpd.read_parquet(large, columns=["geometry"])
    assert column["bbox"] == list(frame.total_bounds)
    # Arrow readers, including GDAL, read the Arrow schema in the file, not the Parquet metadata next to it.
    assert pq.read_schema(large).metadata[b"geo"] == file.metadata.metadata[b"geo"]
    assert {file.metadata.row_group(0).column(n).compression for n in range(file.metadata.num_columns)} == {"ZSTD"}


@pytest.mark.slow
def test_the_folder_opens_as_one_dataset(merged: Path) -> None:
    total = SCENES * SIDE * SIDE + 128
    by_platform = {S2: total - 64, L2: 64}
    assert pd.read_parquet(merged, columns=["platform"]).value_counts().to_dict() == {
        (name,): rows for name, rows in by_platform.items()
    }
    frame = gpd.read_parquet(merged, filters=[("year", "==", 2021)])
    assert len(frame) == 64
    assert frame.crs.to_epsg() == 4326
    assert len(gpd.read_parquet(merged, columns=["chipid", "geometry"])) == total


@pytest.mark.slow
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda root: pq.read_table(root).to_pandas(), id="pyarrow table"),
        pytest.param(lambda root: ds.dataset(root).to_table().to_pandas(), id="pyarrow dataset"),
        pytest.param(lambda root: ds.dataset(root, partitioning="hive").to_table().to_pandas(), id="pyarrow, hive"),
        pytest.param(pd.read_parquet, id="pandas"),
        pytest.param(gpd.read_parquet, id="geopandas"),
        pytest.param(lambda root: duckdb.sql(f"SELECT * FROM '{root}/**/*.parquet'").df(), id="duckdb"),
    ],
)
def test_it_opens_with_no_option(small: tuple[Path, list[list[Any]]], read: Any) -> None:
    root, expected = small
    assert rows_of(read(str(root))) == expected


def test_it_opens_with_no_option_in_dask_polars_and_datasets(
    small: tuple[Path, list[list[Any]]], readers: Readers
) -> None:
    root, expected = small
    found = readers.open(root)
    assert set(found) == {"dask", "dask-geopandas", "polars", "polars, lazily", "huggingface datasets"}
    assert {name: rows == expected for name, rows in found.items()} == dict.fromkeys(found, True)


def test_files_prune_by_platform_and_year(merged: Path) -> None:
    """By their statistics, without knowing folder names."""
    kept = ds.dataset(merged).get_fragments(filter=(pc.field("platform") == S2) & (pc.field("year") == 2021))
    counted = [fragment.count_rows() for fragment in kept if fragment.subset(pc.field("year") == 2021).row_groups]
    assert sum(counted) == 64
    assert sorted(path.name for path in merged.iterdir()) == [L2, S2]
    assert {path.suffix for path in merged.rglob("*") if path.is_file()} == {".parquet"}
