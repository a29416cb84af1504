"""The values of the assets of a chain on the miniature planet, without what depends on where they lie."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import rasterio

from clay_assets.chips.index import dataset_of
from clay_assets.platforms import PLATFORMS
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets.storage.stores import Store

Values = dict[str, list[Any]]  # column → values of all rows

SHARE, DEGREES, STATISTIC = 1e-5, 1e-7, 0.05  # the largest difference that is none
TOLERANCES = {
    **dict.fromkeys(("west", "south", "east", "north"), DEGREES),
    **dict.fromkeys(("mean", "std"), STATISTIC),
    "gsd": 1e-4,
    "cloud_cover": 1e-9,
}
STATISTIC_DIGITS = 2
SIDES = {"xmin": "west", "ymin": "south", "xmax": "east", "ymax": "north"}


def bounds(geometry: gpd.GeoSeries) -> Values:
    corners = geometry.bounds.round(9)
    return {
        name: corners[side].tolist() for name, side in zip(("west", "south", "east", "north"), corners, strict=True)
    }


def read(store: Store, key: str) -> gpd.GeoDataFrame:
    return decode(store.read(key), key)


def stacked(tables: list[Values]) -> Values:
    names = tables[0] if tables else {}
    return {name: [value for table in tables for value in table[name]] for name in names}


def of_table(asset: str, columns: list[str]) -> Callable[[Store], Values]:
    def values(store: Store) -> Values:
        table = read(store, layout.table(asset))
        plain = json.loads(table[columns].to_json(orient="split", double_precision=12))
        return {
            **dict(zip(columns, map(list, zip(*plain["data"], strict=True)), strict=True)),
            **bounds(table.geometry),
        }

    return values


def land_cover(store: Store) -> Values:
    table = read(store, layout.table("worldcover_stats"))
    return of_table("worldcover_stats", [name for name in table.columns if name != "geometry"])(store)


def linz_sample(store: Store) -> Values:
    key = layout.table("linz_sample")
    return {"id": [item["id"] for item in decode_items(store.read(key), key)]}


def requests(store: Store) -> Values:
    found = []
    for platform in sorted(PLATFORMS):
        table = read(store, layout.table("scene_requests", platform))
        columns = ["request_id", "location", "year", "period", "start", "end", "filters", "draw"]
        found.append({**{name: table[name].astype(str).tolist() for name in columns}, **bounds(table.geometry)})
    return stacked(found)


def ledger(folder: str, columns: list[str]) -> Callable[[Store], Values]:
    def values(store: Store) -> Values:
        found = []
        for key in store.list(folder, ".parquet"):
            table = pd.DataFrame(read(store, key))
            plain = json.loads(table[columns].to_json(orient="split", double_precision=12))
            rows = list(map(list, zip(*plain["data"], strict=True))) or [[] for _ in columns]
            found.append({"cell": [key] * len(table), **dict(zip(columns, rows, strict=True))})
        return stacked(found)

    return values


def imagery(store: Store) -> Values:
    """The ledger's outcomes, and statistics of every band of the images in our storage."""
    found: Values = {"file": [], "shape": [], "mean": [], "std": [], "valid": []}
    for key in store.list("imagery", ".tif"):
        with rasterio.open(store.uri(key)) as source:
            pixels, mask = source.read().astype(np.float64), source.dataset_mask() != 0
        found["file"].append(key.rpartition("-")[0])  # without the fingerprint, which is of the source's place
        found["shape"].append(list(pixels.shape))
        valid = pixels[:, mask] if mask.any() else pixels.reshape(len(pixels), -1)[:, :0]
        for name, statistic in (("mean", np.mean), ("std", np.std)):
            found[name].append(
                [round(float(statistic(band)), STATISTIC_DIGITS) if len(band) else None for band in valid]
            )
        found["valid"].append(round(float(mask.mean()), 5))
    outcomes = ledger("scenes/imagery_ledger", ["item_id", "outcome", "files", "note"])(store)
    return {**found, **{f"ledger {name}": column for name, column in outcomes.items()}}


def chips(store: Store) -> Values:
    keys = list(store.list(layout.folder_of("chip_index"), ".parquet"))
    columns = ["chipid", "datetime", "cloud_cover_percentage", "nodata_percentage", "gsd", "bbox"]
    table = dataset_of(store, keys).to_table(columns=columns).flatten().to_pandas()
    plain = {name: table[name].round(7).tolist() for name in columns[2:5]}
    places = {name: table[f"bbox.{side}"].round(9).tolist() for side, name in SIDES.items()}
    return {"chipid": table["chipid"].tolist(), "datetime": table["datetime"].astype(str).tolist(), **plain, **places}


def chip_land_cover(store: Store) -> Values:
    found = []
    for key in store.list(layout.folder_of("chip_landcover"), ".parquet"):
        table = pq.read_table(io.BytesIO(store.read(key)))
        plain = {
            name: [None if v is None else round(v, 7) for v in table[name].to_pylist()]
            for name in table.column_names[1:]
        }
        found.append({"chipid": table["chipid"].to_pylist(), **plain})
    return stacked(found)


def merged(store: Store) -> Values:
    found = []
    for key in store.list(layout.MERGED, ".parquet"):
        columns = ["chipid", "platform", "year", "landcover", "landcover_class", "split"]
        table = pq.read_table(io.BytesIO(store.read(key)), columns=columns).flatten()
        found.append({name: table[name].to_pylist() for name in table.column_names})
    return stacked(found)


def headers(store: Store) -> Values:
    """What the files of every scene are like, without sizes and places of blocks, which hang on the compressors."""
    told = ["item_id", "asset", "level", "is_mask", "width", "height", "count", "dtype", "block_width", "block_height"]
    told += ["crs", "nodata", "fallback", "radiometric_offset", "offset_evidence", "processing_baseline"]
    told += ["flagged_offset", "offset_contradiction"]
    tables = []
    for key in store.list(layout.folder_of("cog_headers"), ".parquet"):
        table = pq.read_table(io.BytesIO(store.read(key)))
        plain = {name: table[name].to_pylist() for name in told}
        blocks = [len(offsets) for offsets in table["block_offsets"].to_pylist()]
        transforms = [[round(number, 9) for number in one] for one in table["transform"].to_pylist()]
        tables.append({**plain, "blocks": blocks, "transform": transforms})
    return stacked(tables)


VALUES: Mapping[str, Callable[[Store], Values]] = {
    "mgrs_grid": of_table("mgrs_grid", ["name"]),
    "worldcover_stats": land_cover,
    "mgrs_sample": of_table("mgrs_sample", ["name", "rules"]),
    "naip_sample": of_table("naip_sample", ["name", "layer", "feature"]),
    "linz_sample": linz_sample,
    "modis_sample": of_table("modis_sample", ["name", "vertical", "horizontal", "item_id"]),
    "scene_requests": requests,
    "scene_picks": ledger("scenes/ledger", ["request_id", "outcome", "reason", "candidates", "item_id", "cloud_cover"]),
    "scene_imagery": imagery,
    "chip_index": chips,
    "chip_landcover": chip_land_cover,
    "merged_index": merged,
    "cog_headers": headers,
}


def differences(expected: Values, found: Values) -> list[str]:
    """What differs by more than rounding, one line per column."""
    if list(expected) != list(found):
        return [f"columns {', '.join(found)}, were {', '.join(expected)}"]
    said = []
    for name, before in expected.items():
        after = found[name]
        if len(before) != len(after):
            said.append(f"{name}: {len(after)} rows, were {len(before)}")
            continue
        off = [
            row for row, pair in enumerate(zip(before, after, strict=True)) if not _same(*pair, TOLERANCES.get(name))
        ]
        if off:
            said.append(f"{name}: {len(off)} rows differ, first row {off[0]}: {after[off[0]]}, was {before[off[0]]}")
    return said


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Asset → its version and values, as `save` wrote them."""
    document: dict[str, dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    return document


def save(path: Path, document: Mapping[str, Mapping[str, Any]]) -> None:
    path.write_bytes(gzip.compress(json.dumps(document).encode(), mtime=0))


def _same(before: Any, after: Any, tolerance: float | None) -> bool:
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(_same(*pair, tolerance) for pair in zip(before, after, strict=True))
    if isinstance(before, float) or isinstance(after, float):
        if before is None or after is None or isinstance(before, str) or isinstance(after, str):
            return bool(before == after)
        return abs(before - after) <= (SHARE if tolerance is None else tolerance)
    return bool(before == after)
