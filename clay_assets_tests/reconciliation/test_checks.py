"""The check `reconciled` on the merged index, and its numbers on the whole chain of the miniature planet."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest

from clay_assets.platforms import PLATFORMS
from clay_assets.reconciliation.accounts import Account, disagreements, reconcile, records
from clay_assets.reconciliation.checks import reconciled
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chain import Chain

KEY = "sentinel-2-l2a"
TOLD = (
    "scenes/scene_requests/",
    "scenes/ledger/",
    "scenes/imagery_ledger/",
    "chips/ledger/",
    "chips/landcover_ledger/",
    layout.MANIFEST,
)


def tables(chain: Chain, folder: str) -> pd.DataFrame:
    """All tables of a folder, read without our code."""
    store = chain.clay.store()
    found = [pd.read_parquet(io.BytesIO(store.read(key))) for key in store.list(folder, ".parquet")]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def told(chain: Chain, folder: Path) -> LocalStore:
    """A store with a copy of every table that an account is made from."""
    source, store = chain.clay.store(), LocalStore(folder / "copy")
    for key in source.list(""):
        if key.startswith(TOLD):
            store.write(key, source.read(key))
    return store


@pytest.fixture
def accounts(built: Chain) -> dict[str, Account]:
    return {account.platform: account for account in reconcile(built.clay.store(), built.clay.recipe())}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_numbers_are_those_of_the_tables(built: Chain, accounts: dict[str, Account], platform: str) -> None:
    account = accounts[platform]
    store = built.clay.store()
    requests = pd.read_parquet(io.BytesIO(store.read(layout.table("scene_requests", platform))))
    ledger = tables(built, f"scenes/ledger/{platform}")
    imagery = tables(built, f"scenes/imagery_ledger/{platform}")
    indexed = tables(built, f"chips/ledger/{platform}").query("outcome == 'indexed'")
    assert len(requests) == len(ledger) > 0
    assert account["requests"].planned == account["requests"].present == len(requests)
    assert account["locations"].planned == requests["location"].nunique()
    assert account["scenes"].present == len(indexed) == account.picked == ledger["item_id"].nunique() > 0
    assert account["scenes"].planned == len(requests)
    assert account["chips"].present == indexed["chips"].sum() == account.merged > 0
    assert account["bytes to copy"].present == imagery["bytes"].sum()
    merged = sum(
        pq.read_metadata(io.BytesIO(store.read(key))).num_rows
        for key in store.list(f"{layout.MERGED}/{platform}", ".parquet")
    )
    assert merged == account.merged
    files = store.list(f"imagery/{platform}")
    assert (sum(files.values()) > 0) == (platform in ("linz", "modis"))  # resampled images
    assert sum(files.values()) == account["bytes to copy"].present


def test_the_check_passes_where_all_is_done(built: Chain, new_chain: Callable[..., Chain]) -> None:
    chain = new_chain(storage=built.storage)
    result = chain.run("merge")
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "reconciled"]
    assert (check.check_name, check.asset_key) == ("reconciled", dg.AssetKey("merged_index"))
    assert check.passed
    assert check.metadata["differing"].value == "*nothing*"
    shown = str(check.metadata["accounts"].value)
    rows = records(reconcile(built.clay.store(), built.clay.recipe()))
    assert "| platform | quantity | published | planned | present |" in shown
    for row in rows:
        assert (
            f"| {row['platform']} | {row['quantity']} | {row['published']} | {row['planned']} | {row['present']} |"
            in shown
        )


def test_the_check_warns_of_what_is_not_done(built: Chain, new_chain: Callable[..., Chain]) -> None:
    chain = new_chain()
    key = layout.table("scene_requests", KEY)
    for needed in (key, layout.table("worldcover_stats")):
        chain.clay.store().write(needed, built.clay.store().read(needed))
    result = chain.run("merge")
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "reconciled"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    planned = len(pd.read_parquet(io.BytesIO(built.clay.store().read(key))))
    assert f"{KEY}: 0 of {planned} requests were answered" in str(check.metadata["differing"].value)


def test_a_cell_that_was_not_made_is_told(built: Chain, tmp_path: Path) -> None:
    store = told(built, tmp_path)
    recipe = built.clay.recipe()
    assert disagreements(reconcile(store, recipe), 0.1) == []
    ledger, chips = layout.request_ledger(KEY, 2020), layout.chip_ledger(KEY, 2020)
    requests, scenes = (pd.read_parquet(io.BytesIO(store.read(key))) for key in (ledger, chips))
    store.delete([ledger, chips])
    (account,) = [account for account in reconcile(store, recipe) if account.platform == KEY]
    planned, there = account["requests"].planned or 0, account["requests"].present or 0
    assert planned - there == len(requests) > 0
    assert account.merged - (account["chips"].present or 0) == scenes["chips"].sum() > 0
    assert disagreements(reconcile(store, recipe), 0.1) == [
        f"{KEY}: {there:,} of {planned:,} requests were answered",
        f"{KEY}: {account.merged:,} of {account['chips'].present:,} chips are in the merged index",
    ]


def test_a_merged_index_of_before_is_told(built: Chain, accounts: dict[str, Account], tmp_path: Path) -> None:
    store = told(built, tmp_path)
    key = layout.chip_ledger(KEY, 2021)
    ledger = pd.read_parquet(io.BytesIO(store.read(key)))
    ledger.loc[0, "chips"] = ledger["chips"][0] + 5
    store.write(key, ledger.to_parquet())
    merged = accounts[KEY].merged
    assert disagreements(reconcile(store, built.clay.recipe()), 0.1) == [
        f"{KEY}: land cover computed for {merged:,} of {merged + 5:,} chips",
        f"{KEY}: {merged:,} of {merged + 5:,} chips are in the merged index",
    ]


@pytest.mark.parametrize(("share", "passed"), [(1.05, True), (1.2, False)])
def test_the_check_compares_with_the_counts_of_the_recipe(
    built: Chain,
    new_chain: Callable[..., Chain],
    accounts: dict[str, Account],
    tmp_path: Path,
    share: float,
    passed: bool,
) -> None:
    chips = accounts[KEY]["chips"].present or 0
    text = Path(built.clay.settings.recipe).read_text(encoding="utf-8")
    path = tmp_path / "compared.toml"
    path.write_text(f"{text}\n[published.{KEY}]\nchips = {round(chips * share)}\n", encoding="utf-8")
    chain = new_chain(storage=built.storage, recipe=str(path))
    result = reconciled(chain.clay)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.passed == passed
    said = str(result.metadata["differing"].value)
    assert said == "*nothing*" if passed else f"{KEY}: {chips:,} chips, -16.7% against the published set" in said
    assert f"| {KEY} | chips | {round(chips * share):,} |" in str(result.metadata["accounts"].value)
