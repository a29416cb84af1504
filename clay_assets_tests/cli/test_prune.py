"""`clay-assets prune`: lists unneeded files, and removes them on request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.cli.conftest import Command
from clay_assets_tests.reconciliation.test_leftovers import LINZ, S2, of_cell, pick, put


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A storage with a needed scene, one dropped ten days ago, and one dropped just now."""
    store = LocalStore(tmp_path / "clay")
    pick(store, S2, 2020, "kept")
    pick(store, LINZ, 2020)
    put(store, *of_cell(S2, 2020, "kept"), *of_cell(S2, 2020, "dropped"), layout.imagery(LINZ, "sheet", "visual.tif"))
    put(store, layout.imagery(LINZ, "sheet", "other.tif"))
    for key in store.list(""):
        os.utime(store.root / key, (1e9, 1e9))
    put(store, layout.chips(S2, 2020, "being_made"))
    return store


def test_it_lists_and_changes_nothing(store: LocalStore, command: Command) -> None:
    before = store.list("")
    result = command("prune", storage=store.root)
    assert (result.exit_code, store.list("")) == (0, before)
    assert result.stdout.splitlines() == [
        "linz  imagery  sheet  10 B  2 files",
        "sentinel-2-l2a  chip index  dropped  5 B  chips/chip_index/sentinel-2-l2a/2020/dropped.parquet",
        "sentinel-2-l2a  headers  dropped  5 B  training/cog_headers/sentinel-2-l2a/2020/dropped.parquet",
        "sentinel-2-l2a  land cover  dropped  5 B  chips/chip_landcover/sentinel-2-l2a/2020/dropped.parquet",
        "note: 1 unneeded files are younger than --older-than and are kept",
        f"{store.root}: 9 files of imagery, chip indexes, land cover and headers",
        "",
        "platform        kind        scenes  files  bytes",
        "linz            imagery          1      2   10 B",
        "sentinel-2-l2a  chip index       1      1    5 B",
        "sentinel-2-l2a  headers          1      1    5 B",
        "sentinel-2-l2a  land cover       1      1    5 B",
        "all                              2      5   25 B",
        "",
        "Nothing was removed. Run with --yes to remove the files.",
    ]


def test_it_removes_when_told_to(store: LocalStore, command: Command) -> None:
    result = command("prune", "--yes", storage=store.root)
    assert result.stdout.endswith("\nThe files were removed.\n")
    assert not [key for key in store.list("") if "dropped" in key or "sheet" in key]
    assert store.exists(layout.chips(S2, 2020, "being_made"))
    assert len([key for key in store.list("") if "kept" in key]) == 3
    again = command("prune", "--yes", "--older-than", "0", "--json", storage=store.root)
    document = json.loads(again.stdout)
    assert [file["item_id"] for file in document["files"]] == ["being_made"]
    assert (document["bytes"], document["removed"], document["totals"][0]["files"]) == (5, True, 1)
    assert command("prune", storage=store.root).stdout.endswith("No unneeded files found. Nothing is removed.\n")


@pytest.mark.slow
@pytest.mark.parametrize("age", ["soon", "3", "-1d", "1w", ""])
def test_an_age_that_is_none(store: LocalStore, command: Command, age: str) -> None:
    result = command("prune", "--older-than", age, storage=store.root)
    assert result.exit_code == 2
    assert "is not an age. Write 30m, 12h or 2d." in result.stderr


def test_a_storage_without_picks(tmp_path: Path, command: Command) -> None:
    put(LocalStore(tmp_path), layout.chips(S2, 2020, "a"))
    result = command("prune", "--yes", "--older-than", "0", storage=tmp_path)
    assert result.exit_code == 0
    assert "no scenes picked yet, so unneeded files cannot be identified" in result.stdout
    assert "No unneeded files found. Nothing is removed." in result.stdout
    assert list(LocalStore(tmp_path).list("")) == [layout.chips(S2, 2020, "a")]
