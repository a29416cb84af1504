"""The accounts of a training set: published, planned and present counts per platform.

Published counts come from the recipe. Planned counts only need the request tables, so the cost of a full run is known
before anything is downloaded. Present counts are read from the ledgers and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pandas as pd

from clay_assets.chips.cells import EXCLUDED, INDEXED, MEASURED, ChipCell, cells_with_chips, stored_cell
from clay_assets.chips.manifest import read_manifest
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform
from clay_assets.recipes import Recipe
from clay_assets.recipes.loader import Published
from clay_assets.scenes.cost import estimate_cost
from clay_assets.scenes.picks import FAILED
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stores import Store

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
THOUSAND = 1000


@dataclass(frozen=True)
class Count:
    """One quantity of one platform; None where it is not known.

    Attributes:
        quantity: `locations`, `requests`, `scenes`, `chips`, `land cover`, `bytes to read` or `bytes to copy`.
        published: count given in the recipe.
        planned: count from the requests; an upper bound for scenes, chips and bytes.
        present: planned requests answered, scenes and chips indexed, chips with land cover computed, bytes copied.
    """

    quantity: str
    published: int | None = None
    planned: int | None = None
    present: int | None = None


@dataclass(frozen=True)
class Account:
    """The counts of one platform.

    Attributes:
        platform: platform key.
        counts: counts by quantity.
        picked: scenes picked, indexed or not, except those that the recipe now excludes.
        unplanned: requests in the ledgers that are no longer planned.
        merged: chips in the merged index.
        other_exclusions: partitions indexed with exclusions that differ from the recipe's current ones.
    """

    platform: str
    counts: tuple[Count, ...]
    picked: int
    unplanned: int
    merged: int
    other_exclusions: tuple[str, ...] = ()

    def __getitem__(self, quantity: str) -> Count:
        return next(count for count in self.counts if count.quantity == quantity)


def reconcile(store: Store, recipe: Recipe) -> list[Account]:
    """Compile the account of every platform.

    Args:
        store: the pipeline's storage.
        recipe: the recipe; its published counts, chip size and imagery options are used.

    Raises:
        InputError: a table cannot be read; names the table.
        StorageError: the store cannot be read.
    """
    merged: dict[str, int] = {}
    for part in read_manifest(store):
        merged[part.platform] = merged.get(part.platform, 0) + part.rows
    return [_account(store, recipe, platform, merged.get(key, 0)) for key, platform in PLATFORMS.items()]


def disagreements(accounts: list[Account], tolerance: float) -> list[str]:
    """Messages about unfinished work, and about counts that deviate too much from the published ones."""
    said = []
    for account in accounts:
        requests, scenes, chips = account["requests"], account["scenes"], account["chips"]
        if requests.planned is not None and requests.present != requests.planned:
            said.append(f"{account.platform}: {requests.present or 0:,} of {requests.planned:,} requests were answered")
        if account.unplanned:
            said.append(
                f"{account.platform}: {account.unplanned:,} requests in the ledgers are no longer planned; "
                "re-materialise scene_picks of their years"
            )
        if account.picked != (scenes.present or 0):
            said.append(f"{account.platform}: {scenes.present or 0:,} of {account.picked:,} picked scenes are indexed")
        if account.other_exclusions:
            said.append(
                f"{account.platform}: indexed with exclusions that differ from the recipe's: "
                f"{', '.join(account.other_exclusions)}; re-materialise scene_picks and everything downstream"
            )
        land_cover = account["land cover"].present or 0
        if land_cover < (chips.present or 0):
            said.append(f"{account.platform}: land cover computed for {land_cover:,} of {chips.present or 0:,} chips")
        if account.merged != (chips.present or 0):
            said.append(
                f"{account.platform}: {account.merged:,} of {chips.present or 0:,} chips are in the merged index"
            )
        for quantity, ours in (
            ("locations", account["locations"].planned),
            ("requests", requests.planned),
            ("chips", chips.present or None),
        ):
            published = account[quantity].published
            if ours is not None and published and abs(ours - published) > tolerance * published:
                said.append(
                    f"{account.platform}: {ours:,} {quantity}, {ours / published - 1:+.1%} against the published set"
                )
    return said


def records(accounts: list[Account]) -> list[dict[str, str]]:
    """The accounts as a table of formatted text."""
    return [
        {
            "platform": account.platform,
            "quantity": count.quantity,
            "published": _shown(count.quantity, count.published),
            "planned": _shown(count.quantity, count.planned),
            "present": _shown(count.quantity, count.present),
        }
        for account in accounts
        for count in account.counts
    ]


def _account(store: Store, recipe: Recipe, platform: AnyPlatform, merged: int) -> Account:
    published = recipe.published.get(platform.key, Published())
    requests = _table(store, layout.table("scene_requests", platform.key), "request_id", "location")
    planned: dict[str, int] = {}
    if requests is not None:
        cost = estimate_cost(platform, len(requests), recipe)
        planned = {"locations": int(requests["location"].nunique()), "requests": len(requests), **asdict(cost)}
    answered = unplanned = picked = 0
    for ledger in _tables(store, f"scenes/ledger/{platform.key}", "request_id", "outcome", "item_id"):
        known = ledger["request_id"].isin(ledger["request_id"] if requests is None else requests["request_id"])
        answered += int((known & (ledger["outcome"] != FAILED)).sum())
        unplanned += int((~known).sum())
        picked += int(ledger["item_id"].nunique())  # a scene shared by several requests counts once
    of_images = _tables(store, f"scenes/imagery_ledger/{platform.key}", "bytes")
    copied = sum(int(ledger["bytes"].sum()) for ledger in of_images)
    indexed, others = [], []
    for cell in (stored_cell(store, *one) for one in cells_with_chips(store) if one[0] == platform.key):
        indexed.append(cell.scenes)
        picked -= int((cell.ledger["outcome"] == EXCLUDED).sum())
        if _other_exclusions(cell, recipe):
            others.append(f"{cell.platform}|{cell.year}")
    chips = sum(int(ledger["chips"].sum()) for ledger in indexed)
    of_land_cover = _tables(store, f"{layout.LANDCOVER_LEDGERS}/{platform.key}", "outcome", "chips")
    measured = [ledger[ledger["outcome"] == MEASURED] for ledger in of_land_cover]
    land_cover = sum(int(ledger["chips"].sum()) for ledger in measured)
    counts = (
        Count("locations", published.locations, planned.get("locations")),
        Count("requests", published.requests, planned.get("requests"), answered),
        Count("scenes", published.requests, planned.get("scenes"), sum(map(len, indexed))),
        Count("chips", published.chips, planned.get("chips"), chips),
        Count("land cover", None, planned.get("chips"), land_cover),
        Count("bytes to read", None, planned.get("bytes_to_read")),
        Count("bytes to copy", None, planned.get("bytes_to_copy"), copied),
    )
    return Account(platform.key, counts, picked, unplanned, merged, tuple(others))


def _other_exclusions(cell: ChipCell, recipe: Recipe) -> bool:
    """Whether a cell was indexed with exclusions that differ from the recipe's."""
    scenes, chips = recipe.excluded_scenes(cell.platform), recipe.excluded_chips(cell.platform)
    told = cell.ledger.get("exclusions", pd.Series(None, cell.ledger.index, dtype="string"))  # older ledgers lack it
    for name, outcome, text in zip(cell.ledger["item_id"], cell.ledger["outcome"], told, strict=True):
        wanted = {name} if name in scenes else set(chips.get(name, ()))
        if outcome in (INDEXED, EXCLUDED) and (set() if pd.isna(text) else set(json.loads(text))) != wanted:
            return True
    return False


def _table(store: Store, key: str, *columns: str) -> pd.DataFrame | None:
    try:
        return decode(store.read(key), store.uri(key), columns)
    except FileNotFoundError:
        return None


def _tables(store: Store, folder: str, *columns: str) -> Iterator[pd.DataFrame]:
    for key in store.list(folder, ".parquet"):
        yield decode(store.read(key), store.uri(key), columns)


def _shown(quantity: str, number: int | None) -> str:
    if number is None:
        return "—"
    return shown_bytes(number) if quantity.startswith("bytes") else f"{number:,}"


def shown_bytes(number: int) -> str:
    """A human-readable number of bytes, such as `1.2 GB`."""
    size, unit = float(number), 0
    while size >= THOUSAND and unit < len(UNITS) - 1:
        size, unit = size / THOUSAND, unit + 1
    return f"{size:,.{1 if unit else 0}f} {UNITS[unit]}"
