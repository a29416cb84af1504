"""Paths of all tables and files in `CLAY_STORAGE`. Names only; nothing is read or written here.

Item ids and file names come from catalogues, and may contain anything. `file_name` encodes them reversibly.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

PART_BYTES = 200  # per part of a name; file systems allow 255, and writers add suffixes
MORE = "+"  # ends a folder that holds the rest of a long name; escaped within names

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
    "chip_landcover": "chips",
    "merged_index": "chips",
    "cog_headers": "training",
}

CHIP_LEDGERS = "chips/ledger"
LANDCOVER_LEDGERS = "chips/landcover_ledger"
HEADER_LEDGERS = "training/headers_ledger"
MERGED = "chips/merged_index"  # nothing but Parquet lies in it
MANIFEST = "chips/manifest.json"
PAINTED = "chips/painted"
SPLITS = "chips/splits.parquet"  # the split of each place on the ground
RELEASES = "chips/releases"


def file_name(name: str) -> str:
    """Encode an external name, such as an item id, as a path that stays in its folder.

    Letters, digits and `._-` are kept; everything else is percent-encoded, as is a leading dot. A long name is split
    into folders. Different names have different paths, and `name_of_file` is the inverse.
    """
    escaped = quote(name, safe="", errors="surrogatepass").replace("~", "%7E")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    parts = [escaped[start : start + PART_BYTES] for start in range(0, len(escaped), PART_BYTES)] or ["%"]
    return f"{MORE}/".join(parts)


def name_of_file(path: str) -> str:
    """The inverse of `file_name`."""
    return "" if path == "%" else unquote(path.replace(f"{MORE}/", ""), errors="surrogatepass")


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
    """Key of the items found by one search per location, for platforms that are searched when requests are made."""
    return f"scenes/search_results/{platform}.parquet"


def search_results_keys(platform: str) -> list[str]:
    """Current key of the search results, and the key in storages written by version 0.1."""
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
    return f"imagery/{platform}/{file_name(item_id)}/{file_name(name)}"


def imagery_folder(platform: str, item_id: str) -> str:
    """Folder of a scene's copied or derived image files."""
    return f"imagery/{platform}/{file_name(item_id)}"


def chip_folder(platform: str, year: int | str) -> str:
    """Folder of one cell's chip indexes."""
    return f"{folder_of('chip_index')}/{platform}/{year}"


def chips(platform: str, year: int | str, item_id: str) -> str:
    """Key of the chip index of one scene."""
    return f"{chip_folder(platform, year)}/{file_name(item_id)}.parquet"


def landcover_ledger(platform: str, year: int | str) -> str:
    """Key of the ledger of one cell's land cover: one row per scene."""
    return f"{LANDCOVER_LEDGERS}/{platform}/{year}.parquet"


def landcover_folder(platform: str, year: int | str) -> str:
    """Folder of the land cover of one cell's chips."""
    return f"{folder_of('chip_landcover')}/{platform}/{year}"


def landcover(platform: str, year: int | str, item_id: str) -> str:
    """Key of the land cover of one scene's chips."""
    return f"{landcover_folder(platform, year)}/{file_name(item_id)}.parquet"


def headers_ledger(platform: str, year: int | str) -> str:
    """Key of the ledger of one cell's headers: one row per scene."""
    return f"{HEADER_LEDGERS}/{platform}/{year}.parquet"


def headers_folder(platform: str, year: int | str) -> str:
    """Folder of the headers of one cell's files."""
    return f"{folder_of('cog_headers')}/{platform}/{year}"


def headers(platform: str, year: int | str, item_id: str) -> str:
    """Key of the headers of one scene's files."""
    return f"{headers_folder(platform, year)}/{file_name(item_id)}.parquet"


def painted(platform: str, year: int) -> str:
    """Key of the cached results of the leak check for a part of the merged index."""
    return f"{PAINTED}/{platform}/{year}.parquet"


def release(name: str) -> str:
    """Key of a release of the merged index."""
    return f"{RELEASES}/{name}.json"


def release_checksums(name: str) -> str:
    """Key of the checksums of a release's files, as `sha256sum --check` reads them."""
    return f"{RELEASES}/{name}.sha256"


def released_part(content: str) -> str:
    """Key of a part kept by releases, by the hash of its content."""
    return f"{RELEASES}/parts/{content}.parquet"


def selection(selected: str) -> str:
    """Key of the chip counts per row group of a selection, by the hash of the selection."""
    return f"training/selections/{selected}.parquet"


def merged_part(platform: str, year: int | str) -> str:
    """Key of one partition of the merged index."""
    return f"{MERGED}/{platform}/{year}/part-0.parquet"
