"""Read chip indexes that stacchip wrote, and compare them with a merged index.

stacchip (0.1.38) writes `index/{platform}/{item}/index_{item}.parquet`, a row per chip. It stores neither platform nor
scene: the scene is part of the chip's id, and the platform is the name of a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clay_assets.chips.index import CHIP_SCHEMA
from clay_assets.errors import InputError
from clay_assets.storage.stores import open_store
from clay_assets.transport.locations import is_file_url, local_path

COLUMNS = (
    *("chipid", "date", "chip_index_x", "chip_index_y"),
    *("cloud_cover_percentage", "nodata_percentage", "geometry"),
)
STACCHIP_SCHEMA = pa.schema([CHIP_SCHEMA.field(name) for name in COLUMNS])
SAME = 1e-6  # shares that differ by less are equal: both are float32 ratios of pixel counts
NAMED = 5  # scenes listed
_SCENE = r"regexp_replace(chipid, '-\d+-\d+$', '')"


@dataclass(frozen=True)
class Comparison:
    """A stacchip index compared with ours.

    Attributes:
        theirs, ours: number of chips in each index.
        both: number of chips whose id is in both.
        equal: number of those with the same cloud and nodata shares.
        cloud, nodata: largest difference of each share over the chips in both; 0 if there are none.
        only_theirs, only_ours: the first few scenes, sorted, that are in only one index.
        scenes_theirs, scenes_ours, scenes_both: number of scenes in each, and in both.
    """

    theirs: int
    ours: int
    both: int
    equal: int
    cloud: float
    nodata: float
    only_theirs: tuple[str, ...]
    only_ours: tuple[str, ...]
    scenes_theirs: int
    scenes_ours: int
    scenes_both: int


def open_stacchip_index(location: str | Path, platform: str | None = None) -> ds.Dataset:
    """Open a stacchip index lazily: one file, or all files below a folder.

    Args:
        location: path or `s3://` address of a file or folder.
        platform: only files in a folder of this name; None: all.

    Returns:
        A dataset of `STACCHIP_SCHEMA`; geometry is WKB in EPSG:4326, though the files do not declare it.

    Raises:
        InputError: no index at that location, or not one written by stacchip; names file and columns.
    """
    text = str(location)
    text = (str(local_path(text)) if is_file_url(text) else text).rstrip("/")
    parent, _, name = text.rpartition("/")
    single = name.endswith(".parquet")
    store = open_store((parent or ".") if single else text)
    keys = [name] if single and store.exists(name) else [] if single else list(store.list("", ".parquet"))
    if platform is not None and not single:
        inside = text.split("/")
        keys = [key for key in keys if platform in (*inside, *key.split("/")[:-1])]
    if not keys:
        of_platform = f" of {platform}" if platform else ""
        raise InputError(f"{location}: no Parquet file{of_platform} at this place. Check the address.")
    filesystem = store.filesystem()
    try:
        names = pq.read_schema(keys[0], filesystem=filesystem).names
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{store.uri(keys[0])}: not a readable Parquet file ({error}). Copy it again.") from error
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise InputError(f"{store.uri(keys[0])}: no column {', '.join(missing)}. Give an index that stacchip wrote.")
    return ds.dataset(keys, schema=STACCHIP_SCHEMA, filesystem=filesystem, format="parquet")


def compare(theirs: ds.Dataset, ours: ds.Dataset) -> Comparison:
    """Compare a stacchip index with ours, chip by chip.

    Args:
        theirs: result of `open_stacchip_index`.
        ours: result of `clay_assets.chips.index.open_index` for the same platform.
    """
    with duckdb.connect() as connection:
        for name, index in (("theirs", theirs), ("ours", ours)):
            connection.register(f"{name}_index", index)
            connection.execute(
                f"CREATE TEMP TABLE {name} AS SELECT DISTINCT ON (chipid) chipid, {_SCENE} AS scene, "
                f"cloud_cover_percentage AS cloud, nodata_percentage AS nodata FROM {name}_index"
            )
        both, equal, cloud, nodata = _row(
            connection,
            f"""
            SELECT count(*), count(*) FILTER (cloud <= {SAME} AND nodata <= {SAME}),
                   coalesce(max(cloud), 0), coalesce(max(nodata), 0)
            FROM (SELECT abs(theirs.cloud - ours.cloud) AS cloud, abs(theirs.nodata - ours.nodata) AS nodata
                  FROM theirs JOIN ours USING (chipid))
            """,
        )
        counts = {name: _row(connection, f"SELECT count(*), count(DISTINCT scene) FROM {name}") for name in _NAMES}
        alone = {name: _alone(connection, name, other) for name, other in zip(_NAMES, _NAMES[::-1], strict=True)}
        (shared,) = _row(connection, "SELECT count(*) FROM (SELECT scene FROM theirs INTERSECT SELECT scene FROM ours)")
    return Comparison(
        theirs=counts["theirs"][0],
        ours=counts["ours"][0],
        both=both,
        equal=equal,
        cloud=float(cloud),
        nodata=float(nodata),
        only_theirs=alone["theirs"],
        only_ours=alone["ours"],
        scenes_theirs=counts["theirs"][1],
        scenes_ours=counts["ours"][1],
        scenes_both=shared,
    )


_NAMES = ("theirs", "ours")


def _row(connection: Any, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    assert row is not None  # every query here is a count
    return row


def _alone(connection: Any, name: str, other: str) -> tuple[str, ...]:
    query = f"SELECT scene FROM {name} EXCEPT SELECT scene FROM {other} ORDER BY scene LIMIT {NAMED}"
    return tuple(scene for (scene,) in connection.execute(query).fetchall())
