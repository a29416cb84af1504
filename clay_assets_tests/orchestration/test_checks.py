"""Asset checks on the whole chain: run with each cell, re-run at any time, failing for damaged files.

The rules themselves are tested in each stage's `test_rules`; these tests cover the reporting to Dagster.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetCheckEvaluation
from dagster._core.storage.asset_check_state import AssetCheckState, bulk_update_asset_check_state

from clay_assets.landcover.rules import shares_sum_to_one
from clay_assets.orchestration.failures import run_error
from clay_assets.orchestration.gates import stop_if_broken
from clay_assets.orchestration.partitions import cells
from clay_assets.platforms import PLATFORMS
from clay_assets.storage import layout
from clay_assets_tests.chain import Chain

KEY, YEAR = "sentinel-2-l2a", 2020
CHANGED = "its chips, their land cover or their splits have changed since they were merged"
CELL = f"{KEY}|{YEAR}"
# Asset → checks of its stored table; the second set are warnings.
HARD = {
    "worldcover_stats": {"class_shares_sum_to_1"},
    "scene_picks": {"requests_in_ledger_once", "items_of_ledger", "picks_as_requested", "some_candidate_passes"},
    "chip_index": {"chip_ids_unique", "shares_in_range", "geometry_in_scene", "rows_of_ledger"},
    "chip_landcover": {"shares_sum_to_100_percent", "rows_of_chip_index"},
    "cog_headers": {"headers_of_imagery"},
    "merged_index": {"rows_of_chip_indexes", "chip_ids_unique", "land_cover_of_cells", "splits_apart"},
}
SOFT = {
    "mgrs_sample": {"rules_have_their_count"},
    "scene_imagery": {"imagery_of_picks"},
    "cog_headers": {"headers_of_indexed_scenes", "radiometry_agrees"},
    "merged_index": {"up_to_date", "composition_of_sample", "shares_of_splits"},
}
FAILS_HERE = "shares_of_splits"  # too few scenes to fill every split
LIES = "radiometry_agrees"  # flags of half of the planet's Sentinel-2 scenes are wrong
OF_CELLS = {"scene_picks", "scene_imagery", "chip_index", "chip_landcover", "cog_headers"}
Evaluations = dict[str, AssetCheckEvaluation]


def names_of(asset: str) -> set[str]:
    return HARD.get(asset, set()) | SOFT.get(asset, set())


def run_checks(chain: Chain, asset: str, partition: str | None = None) -> Evaluations:
    """Run an asset's checks on their own, as the UI does."""
    job = chain.defs.resolve_implicit_global_asset_job_def()
    keys = {dg.AssetCheckKey(dg.AssetKey(asset), name) for name in names_of(asset)}
    result = job.get_subset(asset_selection=set(), asset_check_selection=keys).execute_in_process(
        instance=chain.instance,
        tags={"dagster/partition": partition} if partition else None,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert result.success
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def numbers(evaluation: AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def failed(evaluations: Evaluations) -> dict[str, str]:
    """The checks that failed, with the start of their message, except the one that always fails."""
    known = (FAILS_HERE, LIES)
    return {name: one.description or "" for name, one in evaluations.items() if not one.passed and name not in known}


@pytest.fixture(scope="module")
def copy(built: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The built chain on its own storage. Tests must leave it unchanged: use `damaged`."""
    storage = tmp_path_factory.mktemp("checked") / "clay"
    shutil.copytree(built.storage, storage)
    from clay_assets.definitions import build_definitions

    settings = {**built.clay.overrides, "storage": str(storage)}
    return Chain(build_definitions(**settings), built.instance, str(storage))


@pytest.fixture
def damaged(copy: Chain) -> Iterator[Callable[..., Path]]:
    """Changes or deletes one table of the copy, and restores it after the test."""
    before: dict[Path, bytes] = {}

    def damage(key: str, change: Callable[[pa.Table], pa.Table] | None) -> Path:
        path = Path(copy.storage) / key
        before.setdefault(path, path.read_bytes())
        path.unlink()
        if change is not None:
            table = pq.read_table(io.BytesIO(before[path]))
            pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)
        return path

    yield damage
    for path, content in before.items():
        path.write_bytes(content)


def with_value(table: pa.Table, name: str, value: object, row: int = 0) -> pa.Table:
    """The table with one value replaced."""
    position = table.schema.get_field_index(name)
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(position, table.schema.field(position), pa.array(values, table.schema.field(position).type))


def test_every_run_has_checked_what_it_published(built: Chain) -> None:
    every = {f"{platform}|{year}" for platform in PLATFORMS for year in built.clay.requested_years(platform)}
    for severity, declared in ((dg.AssetCheckSeverity.ERROR, HARD), (dg.AssetCheckSeverity.WARN, SOFT)):
        for asset, checks in declared.items():
            for name in checks:
                found = evaluations_of(built.instance, asset, name)
                assert set(found) == (every if asset in OF_CELLS else {None}), (asset, name)
                wrong = {cell for cell, one in found.items() if one.passed != (name != FAILS_HERE)}
                if name == LIES:
                    assert CELL in wrong
                    wrong = {cell for cell in wrong if not str(cell).startswith(KEY)}
                assert not wrong, (asset, name, found)
                assert {one.severity for one in found.values()} == {severity}
                assert all(one.target_materialization_data for one in found.values())
                assert all(one.passed == (numbers(one)["violation_count"] == 0) for one in found.values())
    store = built.clay.store()
    requests = pd.read_parquet(io.BytesIO(store.read(layout.table("scene_requests", KEY))))
    once = evaluations_of(built.instance, "scene_picks", "requests_in_ledger_once")[CELL]
    assert numbers(once)["requests"] == numbers(once)["ledger_rows"] == (requests["year"] == YEAR).sum() > 0
    ledger = pd.read_parquet(io.BytesIO(store.read(layout.chip_ledger(KEY, YEAR))))
    for name in HARD["chip_index"]:
        told = numbers(evaluations_of(built.instance, "chip_index", name)[CELL])
        assert told["chips"] == ledger["chips"].sum() > 0
        assert told.get("scenes_without_grid", 0) == 0
    merged = numbers(evaluations_of(built.instance, "merged_index", "rows_of_chip_indexes")[None])
    assert merged["chips"] == merged["chips_of_cells"] == merged["chips_of_manifest"] > 0
    sample = numbers(evaluations_of(built.instance, "mgrs_sample", "rules_have_their_count")[None])
    assert "only 7 tiles have the class" in sample["rows"]  # the planet has few, and the recipe requires many


def evaluations_of(instance: dg.DagsterInstance, asset: str, name: str) -> dict[str | None, AssetCheckEvaluation]:
    """Cell → the oldest evaluation of a check, from the run that built the chain."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    found = {}
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=1000):
        assert record.event is not None
        evaluation = record.event.get_dagster_event().event_specific_data
        assert isinstance(evaluation, AssetCheckEvaluation)
        if "cells" not in evaluation.metadata:
            found[evaluation.partition] = evaluation
    return found


@pytest.mark.parametrize(
    ("asset", "key", "change", "expected"),
    [
        (
            "worldcover_stats",
            layout.table("worldcover_stats"),
            lambda table: with_value(table, "Cropland", 3.0),
            {"class_shares_sum_to_1": "shares sum to 3"},
        ),
        (
            "mgrs_sample",
            layout.table("mgrs_sample"),
            lambda table: table.slice(1),
            {"rules_have_their_count": "rule diversity has 9 tiles, but asks for 400 of 10 candidates"},
        ),
        (
            "scene_picks",
            layout.request_ledger(KEY, YEAR),
            lambda table: table.slice(1),
            {"requests_in_ledger_once": "-Q1 is not in the ledger", "items_of_ledger": "was picked for no request"},
        ),
        (
            "scene_picks",
            layout.request_ledger(KEY, YEAR),
            lambda table: table.set_column(
                table.schema.get_field_index("outcome"), "outcome", pa.array(["none"] * len(table))
            ),
            {
                "items_of_ledger": "is picked without a scene, or has one without being picked",
                "some_candidate_passes": f"{KEY} {YEAR}: none of ",
            },
        ),
        (
            "scene_picks",
            layout.table("scene_picks", KEY, YEAR),
            lambda table: with_value(table, "eo:cloud_cover", 99.0),
            {"picks_as_requested": "is refused: cloud cover above 75 %"},
        ),
        (
            "scene_imagery",
            layout.table("scene_imagery", KEY, YEAR),
            lambda table: table.slice(1),
            {"imagery_of_picks": "was picked but has no imagery"},
        ),
        (
            "chip_index",
            layout.chip_ledger(KEY, YEAR),
            lambda table: with_value(table, "chips", 99),
            {"rows_of_ledger": "the ledger 99"},
        ),
        ("chip_index", layout.chip_ledger(KEY, YEAR), None, dict.fromkeys(HARD["chip_index"], "file not found")),
        (
            "chip_landcover",
            layout.landcover_ledger(KEY, YEAR),
            lambda table: with_value(table, "chips_fingerprint", "0" * 32),
            {"rows_of_chip_index": "no up-to-date land cover"},
        ),
        (
            "cog_headers",
            layout.headers_ledger(KEY, YEAR),
            lambda table: table.slice(1),
            {
                "headers_of_imagery": "is in scene_imagery, but was not processed",
                "headers_of_indexed_scenes": "was not processed",
            },
        ),
        (
            "merged_index",
            layout.landcover_ledger(KEY, YEAR),
            None,
            {
                "up_to_date": f"{CELL}: {CHANGED}",
                "land_cover_of_cells": f"{CELL}: ",
            },
        ),
        (
            "merged_index",
            layout.merged_part(KEY, YEAR),
            lambda table: pa.concat_tables([table, table.slice(3, 1)]),
            {"rows_of_chip_indexes": f"{CELL}: the file has ", "chip_ids_unique": "1 chip ids repeat, first S2"},
        ),
        (
            "merged_index",
            layout.chip_ledger(KEY, YEAR),
            lambda table: with_value(table, "chips", 1),
            {"up_to_date": f"{CELL}: {CHANGED}"},
        ),
    ],
)
def test_what_was_damaged_is_found_by_running_the_checks_again(
    copy: Chain,
    damaged: Callable[..., Path],
    asset: str,
    key: str,
    change: Callable[[pa.Table], pa.Table] | None,
    expected: dict[str, str],
) -> None:
    partition = CELL if asset in OF_CELLS else None
    damaged(key, change)
    evaluations = run_checks(copy, asset, partition)
    assert set(evaluations) == names_of(asset)
    said = failed(evaluations)
    assert set(said) == set(expected)
    for name, words in expected.items():
        assert words in said[name]
        assert words.replace("|", "\\|") in str(numbers(evaluations[name])["violations"])
        assert numbers(evaluations[name])["violation_count"] > 0
        assert evaluations[name].partition == partition


def test_recheck_looks_at_every_cell(copy: Chain, damaged: Callable[..., Path]) -> None:
    store = copy.clay.store()
    file = min(store.list(layout.chip_folder(KEY, YEAR)))
    scene = file.rpartition("/")[2].removesuffix(".parquet")
    damaged(file, lambda table: with_value(with_value(table, "cloud_cover_percentage", 1.5), "geometry", b"none", 1))
    damaged(layout.table("mgrs_sample"), None)
    result = copy.run("recheck")
    assert result.success
    wholes = [one for one in result.get_asset_check_evaluations() if one.partition is None]
    found = {(one.asset_key.path[0], one.check_name): one for one in wholes}
    assert len(found) == len(wholes)
    stored = {(asset, name) for checks in (HARD, SOFT) for asset in checks for name in checks[asset]}
    assert set(found) == stored | {("merged_index", "reconciled")}
    assert {key for key, one in found.items() if not one.passed} == {
        ("chip_index", "shares_in_range"),
        ("chip_index", "geometry_in_scene"),
        ("mgrs_sample", "rules_have_their_count"),
        ("merged_index", FAILS_HERE),
        ("cog_headers", LIES),
    }
    evaluations = {name: one for (asset, name), one in found.items() if asset == "chip_index"}
    said = failed(evaluations)
    assert all(text.startswith(f"{CELL}: {scene}: ") for text in said.values())
    told = numbers(evaluations["shares_in_range"])
    assert (told["violation_count"], told["outside"], told["highest_share"]) == (1, 1, 1.5)
    ledgers = store.list(layout.CHIP_LEDGERS, ".parquet")
    assert told["cells"] == len(ledgers)
    assert told["chips"] == sum(pq.read_table(Path(copy.storage) / key)["chips"].to_numpy().sum() for key in ledgers)
    assert "mgrs_sample.parquet: file not found" in str(found["mgrs_sample", "rules_have_their_count"].description)
    # And each cell separately, with the materialisation that was read; failed cells come last.
    of_cells = [one for one in result.get_asset_check_evaluations() if one.partition is not None]
    names = {(asset, name) for asset, name in stored if asset in OF_CELLS}
    every = cells_in(ledgers)
    assert sorted((one.asset_key.path[0], one.check_name, one.partition) for one in of_cells) == sorted(
        (asset, name, cell) for asset, name in names for cell in every
    )
    failing = [(one.check_name, one.partition) for one in of_cells if not one.passed]
    lying = {cell for name, cell in failing if name == LIES}
    assert lying == {cell for cell in every if cell.startswith(f"{KEY}|")}
    failing = [(name, cell) for name, cell in failing if name != LIES]
    assert sorted(failing) == [("geometry_in_scene", CELL), ("shares_in_range", CELL)]
    chip_index = [one for one in of_cells if one.asset_key == dg.AssetKey("chip_index")]
    assert [one.passed for one in chip_index[-2:]] == [False, False]
    for one in of_cells:
        assert one.partition is not None
        made = latest(copy.instance, one.asset_key.path[0], one.partition)
        assert one.target_materialization_data is not None
        assert one.target_materialization_data.storage_id == made.storage_id
        assert "cells" not in one.metadata


def cells_in(keys: Iterable[str]) -> set[str]:
    """The cells of files `…/{platform}/{year}.parquet`."""
    return {f"{Path(key).parent.name}|{Path(key).stem}" for key in keys}


def latest(instance: dg.DagsterInstance, asset: str, partition: str) -> dg.EventLogRecord:
    """The latest materialisation of a partition."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
    return instance.fetch_materializations(wanted, limit=1).records[0]


def grid(instance: dg.DagsterInstance, asset: str, name: str) -> dict[str, set[str]]:
    """Status → cells with this status, as shown by the UI's grid of a check's partitions."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    state = bulk_update_asset_check_state(instance, [(key, cells)], {key: AssetCheckState.empty()})[key]
    shown = {status.value: subset.subset_value for status, subset in state.subsets.items()}
    return {status: set(subset.get_partition_keys()) for status, subset in shown.items() if subset.get_partition_keys()}


def test_the_grid_of_partitions_shows_which_cell_fails(copy: Chain, damaged: Callable[..., Path]) -> None:
    """Run without a partition, as by *Execute all* in the UI, and then for one cell."""
    stored = copy.clay.store().list(layout.CHIP_LEDGERS, ".parquet")
    every = cells_in(stored)
    key = layout.chip_ledger(KEY, YEAR)
    before = (Path(copy.storage) / key).read_bytes()
    damaged(key, lambda table: with_value(table, "chips", 99))
    run_checks(copy, "chip_index")
    assert grid(copy.instance, "chip_index", "rows_of_ledger") == {"FAILED": {CELL}, "SUCCEEDED": every - {CELL}}
    assert grid(copy.instance, "chip_index", "chip_ids_unique") == {"SUCCEEDED": every}
    # A failed cell is shown first, although others were checked in the same run.
    (record,) = copy.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("chip_index"), "rows_of_ledger"), limit=1
    )
    assert (record.partition, record.status.value) == (CELL, "FAILED")

    (Path(copy.storage) / key).write_bytes(before)
    run_checks(copy, "chip_index", CELL)
    assert grid(copy.instance, "chip_index", "rows_of_ledger") == {"SUCCEEDED": every}


def test_checks_have_the_partitions_of_their_assets_but_the_job_recheck_has_none(built: Chain) -> None:
    graph = built.defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        # `no_partition_failed` covers all partitions.
        expected = None if key.name == "no_partition_failed" else graph.get(key.asset_key).partitions_def
        assert graph.get_check_spec(key).partitions_def == expected, key
    assert built.defs.resolve_job_def("recheck").partitions_def is None


def test_what_an_asset_returns_is_of_its_partition_too(built: Chain) -> None:
    for asset, name in (("scene_picks", "no_failed_requests"), ("scene_requests", "no_failed_searches")):
        partitions = set(evaluations_of(built.instance, asset, name))
        assert partitions == set(built.instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_what_was_never_made_is_not_missed(new_chain: Callable[..., Chain]) -> None:
    """A platform that does not need land cover runs without it."""
    result = new_chain().run("recheck")
    assert result.success
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) == sum(map(len, (*HARD.values(), *SOFT.values()))) + 1  # and `reconciled`
    assert all(one.passed for one in evaluations)


def test_a_cell_that_is_made_anew_is_told_with_its_age(copy: Chain, damaged: Callable[..., Path]) -> None:
    made = {
        asset: copy.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=partitions), limit=1
        ).records[0]
        for asset, partitions in (("chip_index", [CELL]), ("merged_index", None))
    }
    damaged(layout.chip_ledger(KEY, YEAR), lambda table: with_value(table, "fingerprint", "0" * 32))
    evaluation = run_checks(copy, "merged_index")["up_to_date"]
    hours = round((made["chip_index"].timestamp - made["merged_index"].timestamp) / 3600, 1)
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.description == (f"{CELL}: {CHANGED}, {hours:g} h later")
    assert numbers(evaluation)["cells_behind"] == 1


def test_what_breaks_a_hard_rule_is_never_published(copy: Chain, damaged: Callable[..., Path]) -> None:
    """A request table with rows of the wrong year, and one with a duplicate request."""
    store = copy.clay.store()
    keys = [layout.table("scene_picks", KEY, YEAR), layout.request_ledger(KEY, YEAR)]
    before = [store.read(key) for key in keys]
    table = layout.table("scene_requests", KEY)
    others = pq.read_table(Path(copy.storage) / table)["year"].to_pylist().index(YEAR + 1)
    for change, words in (
        (lambda rows: with_value(rows, "year", YEAR, others), f"is of {YEAR + 1} instead of {YEAR}. Nothing was"),
        (lambda rows: pa.concat_tables([rows, rows.filter(pa.compute.equal(rows["year"], YEAR)).slice(2, 1)]),
         "is in the ledger more than once. Nothing was published"),
    ):  # fmt: skip
        damaged(table, change)
        result = copy.run("scenes", CELL)
        assert not result.success
        assert run_error(result).startswith(f"scene_picks: scene_picks {CELL}: request ")
        assert words in run_error(result)
        assert [store.read(key) for key in keys] == before


def test_a_gate_raises_with_the_numbers() -> None:
    stats = pd.DataFrame({column: [0.0, 0.0] for column in ("name", *_classes())}).assign(name=["31UFU", "33UUU"])
    stats["Cropland"] = [1.0, 0.75]
    with pytest.raises(dg.Failure) as caught:
        stop_if_broken("worldcover_stats", shares_sum_to_one(stats.head(1)), shares_sum_to_one(stats))
    assert str(caught.value.description).startswith(
        "worldcover_stats: 33UUU: shares sum to 0.75. Nothing was published"
    )
    assert caught.value.metadata["tiles_off"].value == 1
    stop_if_broken("worldcover_stats", shares_sum_to_one(stats.head(1)))


def _classes() -> list[str]:
    from clay_assets.landcover.rules import CLASS_COLUMNS

    return CLASS_COLUMNS


def test_the_merged_index_has_to_be_fresh(built: Chain) -> None:
    policy = built.defs.resolve_asset_graph().get(dg.AssetKey("merged_index")).freshness_policy
    assert policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(days=35))
