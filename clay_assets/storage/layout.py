"""Where each table and file lies below `CLAY_STORAGE`. Names only; nothing is read or written here."""

from __future__ import annotations

FOLDERS = {
    "mgrs_grid": "landcover",
    "worldcover_stats": "landcover",
    "mgrs_sample": "sampling",
    "naip_sample": "sampling",
    "linz_sample": "sampling",
    "modis_sample": "sampling",
    "scene_requests": "scenes",
    "scene_picks": "scenes",
    "scene_imagery": "scenes",
    "chip_index": "chips",
    "merged_index": "chips",
}

CHIP_LEDGERS = "chips/ledger"
MERGED = "chips/merged_index"
MANIFEST = f"{MERGED}/_manifest.json"


def folder_of(asset: str) -> str:
    """Folder of an asset, such as `scenes/scene_picks`."""
    return f"{FOLDERS[asset]}/{asset}"


def table(asset: str, *partition: str | int) -> str:
    """Key of an asset's table, such as `scenes/scene_picks/sentinel-2-l2a/2020.parquet`."""
    return "/".join([folder_of(asset), *map(str, partition)]) + ".parquet"


def flatgeobuf(asset: str) -> str:
    """Key of the FlatGeobuf copy of a table."""
    return folder_of(asset) + ".fgb"


def search_results(platform: str) -> str:
    """Key of what one search per place found, for platforms that are searched when requests are made."""
    return f"scenes/search_results/{platform}.parquet"


def search_results_keys(platform: str) -> list[str]:
    """Keys under which the same may lie: today's, and the one of storages written by version 0.1."""
    return [search_results(platform), f"scenes/found/{platform}.parquet"]


def request_ledger(platform: str, year: int | str) -> str:
    """Key of the ledger of one cell: one row per request."""
    return f"scenes/ledger/{platform}/{year}.parquet"


def imagery_ledger(platform: str, year: int | str) -> str:
    """Key of the ledger of one cell's imagery: one row per scene."""
    return f"scenes/imagery_ledger/{platform}/{year}.parquet"


def chip_ledger(platform: str, year: int | str) -> str:
    """Key of the ledger of one cell's chip index: one row per scene."""
    return f"{CHIP_LEDGERS}/{platform}/{year}.parquet"


def imagery(platform: str, item_id: str, name: str) -> str:
    """Key of one copied or derived image file."""
    return f"imagery/{platform}/{item_id}/{name}"


def chip_folder(platform: str, year: int | str) -> str:
    """Folder of one cell's chip indexes."""
    return f"{folder_of('chip_index')}/{platform}/{year}"


def chips(platform: str, year: int | str, item_id: str) -> str:
    """Key of the chip index of one scene."""
    return f"{chip_folder(platform, year)}/{item_id}.parquet"


def merged_part(platform: str, year: int | str) -> str:
    """Key of one partition of the merged index."""
    return f"{MERGED}/platform={platform}/year={year}/part-0.parquet"
