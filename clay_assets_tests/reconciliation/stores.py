"""Storages with hand-made tables, so that every number is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely

from clay_assets.chips.manifest import Part
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.reconciliation.accounts import Account, disagreements, reconcile
from clay_assets.scenes.requests import make_requests
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stores import LocalStore

S1, S2, MODIS = "sentinel-1-rtc", "sentinel-2-l2a", "modis"
TILES = ("32NLG", "32NLH", "32NKG")
RECIPE = """
name = "small"
seed = 7

[[tile_rules]]
rule = "built_up"
class = "Built-up"
tiles = 3
from_highest = 3

[platforms.sentinel-2-l2a]
years = [2020, 2021]
years_per_location = 2

[platforms.sentinel-1-rtc]
years = [2020, 2020]
"""


def tiles(names: tuple[str, ...]) -> gpd.GeoDataFrame:
    """A sample of MGRS tiles with these names, all in the same place."""
    return gpd.GeoDataFrame({"name": list(names)}, geometry=[shapely.box(6, 0, 7, 1)] * len(names), crs="EPSG:4326")


@dataclass
class Made:
    """A store with hand-made tables, and a recipe."""

    folder: Path
    recipe_file: Path

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder)

    @property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.recipe_file))

    def change(self, *changes: tuple[str, str], published: str = "") -> None:
        """Rewrite the recipe."""
        text = self.recipe_file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.recipe_file.write_text(text + published)

    def request(self, platform: str, sample: gpd.GeoDataFrame | None = None) -> pd.DataFrame:
        """Write a platform's requests, and return them."""
        table = make_requests(PLATFORMS[platform], tiles(TILES) if sample is None else sample, self.recipe)
        self.store.write(layout.table("scene_requests", platform), encode(table, {}))
        return table

    def answer(self, platform: str, year: int, scenes: Mapping[str, str | None], failed: tuple[str, ...] = ()) -> None:
        """Write a ledger: request → the scene it found, or None, and the requests that failed."""
        rows = [(name, "picked" if item else "none", item) for name, item in scenes.items()]
        rows += [(name, "failed", None) for name in failed]
        frame = pd.DataFrame(rows, columns=["request_id", "outcome", "item_id"]).astype("string")
        self.store.write(layout.request_ledger(platform, year), encode(frame, {}))

    def copy(self, platform: str, year: int, sizes: Mapping[str, int]) -> None:
        """Write an imagery ledger: scene → bytes in our storage."""
        frame = pd.DataFrame({"item_id": list(sizes), "bytes": list(sizes.values())})
        self.store.write(layout.imagery_ledger(platform, year), encode(frame, {}))

    def index(self, platform: str, year: int, chips: Mapping[str, int], failed: tuple[str, ...] = ()) -> None:
        """Write a chip ledger: scene → chips, and scenes that failed."""
        rows = [(name, "indexed", count) for name, count in chips.items()] + [(name, "failed", 0) for name in failed]
        frame = pd.DataFrame(rows, columns=["item_id", "outcome", "chips"])
        self.store.write(layout.chip_ledger(platform, year), encode(frame, {}))
        measured = frame.assign(outcome=frame["outcome"].replace("indexed", "measured"))
        self.store.write(layout.landcover_ledger(platform, year), encode(measured, {}))

    def merge(self, rows: Mapping[tuple[str, int], int]) -> None:
        """Write the manifest of a merged index: platform and year → chips."""
        parts = [asdict(Part(key, year, "", count, 1, 1, "", "")) for (key, year), count in rows.items()]
        self.store.write(layout.MANIFEST, json.dumps({"partitions": parts}).encode())

    def accounts(self) -> dict[str, Account]:
        return {account.platform: account for account in reconcile(self.store, self.recipe)}

    def said(self) -> list[str]:
        return disagreements(reconcile(self.store, self.recipe), self.recipe.tolerance.published)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return Made(tmp_path / "clay", path)


@pytest.fixture
def done(made: Made) -> Made:
    """Sentinel-2 from the requests to the merged index: 12 requests and 2 scenes in each of two years."""
    year: Any
    for year, requests in made.request(S2).groupby("year"):
        names = requests["request_id"].tolist()
        assert len(names) == 12
        scenes = {name: f"{year}-{'a' if number < 3 else 'b'}" for number, name in enumerate(names[:5])}
        made.answer(S2, int(year), {**scenes, **dict.fromkeys(names[5:])})
        made.copy(S2, int(year), {f"{year}-a": 700, f"{year}-b": 900})
        made.index(S2, int(year), {f"{year}-a": 1000, f"{year}-b": 500})
    made.merge({(S2, 2020): 1500, (S2, 2021): 1500})
    return made


def numbers(account: Account) -> dict[str, tuple[int | None, int | None, int | None]]:
    return {count.quantity: (count.published, count.planned, count.present) for count in account.counts}
