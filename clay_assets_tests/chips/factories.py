"""Factories of scenes and chip indexes that the planet does not have. Expected results belong to the tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import from_origin

from clay_assets.chips.blocks import BlockGrid
from clay_assets.chips.cells import INDEXED, MEASURED, ChipCell, LandCoverCell
from clay_assets.chips.index import CHIP_SCHEMA
from clay_assets.chips.indexing import LEDGER_TYPES
from clay_assets.chips.landcover import SHARE_SCHEMA
from clay_assets.chips.measuring import LEDGER_TYPES as LANDCOVER_LEDGER_TYPES
from clay_assets.chips.splits import GroundSplits, SplitPlan
from clay_assets.recipes import Recipe
from clay_assets.recipes.loader import Splits
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode_arrow, geo_metadata, stamped
from clay_assets.storage.stores import LocalStore, Store

S2, L1, L2 = "sentinel-2-l2a", "landsat-c2l1", "landsat-c2l2-sr"
EPSG, LEFT, TOP = 32632, 500_000, 100_020  # a corner in zone 32 north, near the equator
FINGERPRINT = "f" * 32  # stamp of made scenes, not relevant to the tests


def write_tiff(path: Path, pixels: NDArray[Any], transform: Affine, crs: str | None, **layout: Any) -> Path:
    """Write one or several bands as a GeoTIFF, uncompressed by default."""
    bands = pixels if pixels.ndim > 2 else pixels[None]
    count, height, width = bands.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype, **layout}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as sink:
        sink.write(bands)
    return path


def scl_pixels(size: int = 300, seed: int = 0) -> NDArray[np.uint8]:
    """Random scene classification codes 0 to 11, some chips cloudier than others."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, (size, size), dtype=np.uint8)


def sentinel_2(
    folder: Path, scl: NDArray[Any] | None = None, item_id: str = "S2A_32NMF_20200102_0_L2A"
) -> dict[str, Any]:
    """A Sentinel-2 item as in Earth Search, with a 20 m `scl` file and a 10 m `red` file, in zone 32 north."""
    pixels = scl_pixels() if scl is None else scl
    height, width = (2 * side for side in pixels.shape)
    at = {gsd: from_origin(LEFT, TOP, gsd, gsd) for gsd in (10, 20)}
    write_tiff(folder / "SCL.tif", pixels, at[20], f"EPSG:{EPSG}", nodata=0)
    write_tiff(folder / "B04.tif", np.ones((height, width), np.uint16), at[10], f"EPSG:{EPSG}", compress="deflate")
    assets = {
        name: {"href": str(folder / file), "proj:shape": shape, "proj:transform": [gsd, 0, LEFT, 0, -gsd, TOP]}
        for name, file, gsd, shape in (
            ("red", "B04.tif", 10, [height, width]),
            ("scl", "SCL.tif", 20, list(pixels.shape)),
        )
    }
    return _item(item_id, {"proj:epsg": EPSG, "datetime": "2020-01-02T10:20:30.405Z"}, assets)


def landsat(
    folder: Path, qa: NDArray[Any], item_id: str = "LC08_L2SP_188060_20200102_20200110_02_T1_SR"
) -> dict[str, Any]:
    """A Landsat item as in the USGS server, with a 30 m `qa_pixel` file, in zone 32 north."""
    path = write_tiff(folder / "QA_PIXEL.tif", qa, from_origin(LEFT, TOP, 30, 30), f"EPSG:{EPSG}")
    properties = {
        "proj:epsg": EPSG,
        "proj:shape": list(qa.shape),
        "proj:transform": [30, 0, LEFT, 0, -30, TOP],
        "datetime": "2020-01-02T09:41:32.918283Z",
    }
    return _item(item_id, properties, {"qa_pixel": {"href": str(path), "alternate": {"s3": {"href": str(path)}}}})


def _item(item_id: str, properties: dict[str, Any], assets: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "id": item_id,
        "geometry": {"type": "Point", "coordinates": [9.0, 0.9]},
        "bbox": [9.0, 0.9, 9.0, 0.9],
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def without_proj(item: dict[str, Any]) -> dict[str, Any]:
    """The item without `proj:` fields."""

    def plain(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if not name.startswith("proj:")}

    return {
        **item,
        "stac_extensions": [],
        "properties": plain(item["properties"]),
        "assets": {name: plain(asset) for name, asset in item["assets"].items()},
    }


def chip_table(
    platform: str, item_id: str, year: int, west: float, south: float, columns: int, rows: int, step: float = 0.023
) -> pa.Table:
    """A valid chip index of a scene that is square in degrees; cloud and nodata are pseudo-random."""
    y, x = (axis.ravel() for axis in np.indices((rows, columns)))
    left, bottom = west + x * step, south + (rows - 1 - y) * step
    boxes = shapely.box(left, bottom, left + step, bottom + step)
    count = len(x)
    shares = np.random.default_rng([columns, rows]).random((2, count), dtype=np.float32)
    moment = pd.Timestamp(f"{year}-06-15T10:00:00Z")
    text = [pa.array(axis).cast(pa.string()) for axis in (x, y)]
    table = pa.Table.from_arrays(
        [
            pc.binary_join_element_wise(item_id, *text, "-"),
            pa.repeat(pa.scalar(platform), count),
            pa.repeat(pa.scalar(item_id), count),
            pa.repeat(pa.scalar(moment, pa.timestamp("ms", "UTC")), count),
            pa.repeat(pa.scalar(moment.date(), pa.date32()), count),
            pa.array(x, pa.uint16()),
            pa.array(y, pa.uint16()),
            pa.array(shares[0]),
            pa.array(shares[1] / 2),
            pa.array(np.full(count, 10, np.float32)),
            pa.array(shapely.to_wkb(boxes), pa.binary()),
            pa.StructArray.from_arrays(
                [pa.array(side) for side in (left, bottom, left + step, bottom + step)],
                fields=list(CHIP_SCHEMA.field("bbox").type),
            ),
        ],
        schema=CHIP_SCHEMA,
    )
    bounds = shapely.total_bounds(boxes)
    counts = {"chips_in_grid": str(count), "chips_above_nodata_limit": "0"}
    return table.replace_schema_metadata({b"geo": geo_metadata(["Polygon"], bounds), **stamped(counts)})


def ledger_of(chips: dict[str, int], fingerprint: str = FINGERPRINT) -> pd.DataFrame:
    """A ledger of indexed scenes: item id → chips."""
    rows = [
        dict(zip(LEDGER_TYPES, (name, INDEXED, count, count, 0, fingerprint, None, 0, None), strict=True))
        for name, count in chips.items()
    ]
    return pd.DataFrame(rows, columns=list(LEDGER_TYPES)).astype(LEDGER_TYPES)


def write_cell(
    store: Store,
    recipe: Recipe,
    platform: str,
    year: int,
    scenes: Iterable[str],
    columns: int = 8,
    rows: int = 8,
    place: tuple[float, float] | None = None,
) -> ChipCell:
    """Write a cell of square scenes, one index file each, scattered over the world or all at one place."""
    chips = {}
    for item_id in sorted(scenes):
        rng = np.random.default_rng([year, *item_id.encode()])
        west, south = place or (rng.uniform(-170, 130), rng.uniform(-60, 40))
        table = chip_table(platform, item_id, year, west, south, columns, rows)
        store.write(
            layout.chips(platform, year, item_id), encode_arrow(table, {**recipe.stamp(), "fingerprint": FINGERPRINT})
        )
        chips[item_id] = table.num_rows
    return ChipCell(platform, year, store, ledger_of(chips))


def copied(cells: Sequence[ChipCell], store: LocalStore) -> list[ChipCell]:
    """Copy the cells of one local store, and whatever else is in it, to another."""
    (source,) = {cell.store.root for cell in cells if isinstance(cell.store, LocalStore)}
    shutil.copytree(source, store.root, dirs_exist_ok=True)
    return [ChipCell(cell.platform, cell.year, store, cell.ledger.copy()) for cell in cells]


def share_table(chipids: pa.ChunkedArray, seed: int = 0) -> pa.Table:
    """Valid, pseudo-random land cover of chips: every fifth has none, and every seventh is half covered."""
    count = len(chipids)
    shares = np.random.default_rng([seed, count]).dirichlet(np.full(11, 0.3), count).astype(np.float32)
    place = np.arange(count)
    covered = np.where(place % 5 == 4, 0, np.where(place % 7 == 6, 0.49, 1)).astype(np.float32)
    columns = [pa.array(share, mask=covered == 0) for share in shares.T]
    return pa.Table.from_arrays([chipids, *columns, pa.array(covered)], schema=SHARE_SCHEMA)


def land_cover_ledger(cell: ChipCell, fingerprint: str = FINGERPRINT) -> pd.DataFrame:
    """The up-to-date land-cover ledger of all scenes of a cell."""
    scenes = cell.scenes
    nothing = {name: 0 if kind.startswith(("int", "float")) else "" for name, kind in LANDCOVER_LEDGER_TYPES.items()}
    rows = [
        {
            **nothing,
            "error": None,
            "item_id": row.item_id,
            "outcome": MEASURED,
            "chips": row.chips,
            "chips_fingerprint": row.fingerprint,
            "fingerprint": fingerprint,
        }
        for row in scenes.itertuples()
    ]
    frame = pd.DataFrame(rows, columns=list(LANDCOVER_LEDGER_TYPES)).astype(LANDCOVER_LEDGER_TYPES)
    return frame.sort_values("item_id", ignore_index=True)


def write_land_cover(cell: ChipCell) -> LandCoverCell:
    """Write land cover for all chips in a cell's ledger, assuming square scenes regardless of their index files."""
    row: Any
    for row in cell.scenes.itertuples():
        side = max(1, round(row.chips**0.5))
        chipids = pa.chunked_array([[f"{row.item_id}-{n % side}-{n // side}" for n in range(row.chips)]], pa.string())
        with suppress(OSError, KeyError, pa.ArrowInvalid):
            key = layout.chips(cell.platform, cell.year, row.item_id)
            indexed = pq.read_table(pa.BufferReader(cell.store.read(key)))["chipid"]
            chipids = indexed if len(indexed) == row.chips else chipids
        content = encode_arrow(share_table(chipids), {"fingerprint": FINGERPRINT})
        cell.store.write(layout.landcover(cell.platform, cell.year, row.item_id), content)
    return LandCoverCell(cell.platform, cell.year, cell.store, land_cover_ledger(cell))


def made_plan(seed: int = 0, fingerprint: str = "made") -> SplitPlan:
    """Random splits of 800 km blocks; fast, as land cover is ignored."""
    grid = BlockGrid.of(Splits(block_km=800))
    codes = np.random.default_rng(seed).integers(0, 3, grid.columns.sum()).astype(np.uint8)
    return SplitPlan(GroundSplits(5.0, grid, codes), np.arange(len(codes)), (), fingerprint)


def read_items(path: Path) -> list[dict[str, Any]]:
    """Read items from a file with one JSON document per line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_items(path: Path, items: Iterable[dict[str, Any]]) -> Path:
    """The inverse of `read_items`."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path
