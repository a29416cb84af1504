"""One bad scene or request never fails a year; too many stop it before anything is published."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from clay_assets.demo.planet import Planet
from clay_assets.orchestration.failures import outcomes, run_error
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import decode_items, encode_items
from clay_assets_tests.chain import YEARS, Chain, recipe_with
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.stac_api import StacApi

KEY, YEAR = "sentinel-2-l2a", 2020
CELL = f"{KEY}|{YEAR}"


def tolerant(folder: Path, failed_scenes: float) -> Path:
    return recipe_with(
        folder,
        ("years = [2021, 2023]", f"years = {list(YEARS)}"),
        ("failed_scenes = 0.01", f"failed_scenes = {failed_scenes}"),
    )


def with_a_truncated_scene(built: Chain, chain: Chain, folder: Path) -> str:
    """Give a chain the imagery table of the built one, with one scene's quality band truncated."""
    key = layout.table("scene_imagery", KEY, YEAR)
    items = decode_items(built.clay.store().read(key), key)
    asset = items[0]["assets"]["scl"]
    damaged = folder / "damaged.tif"
    damaged.write_bytes(Path(asset["href"]).read_bytes()[:900])
    asset["href"] = str(damaged)
    chain.clay.store().write(key, encode_items(items, {}))
    return str(items[0]["id"])


def test_a_truncated_scene_is_set_aside_and_the_others_are_indexed(
    built: Chain, new_chain: Callable[..., Chain], tmp_path: Path
) -> None:
    chain = new_chain()  # clay_v1 tolerates 1 % of a few dozen scenes: one failure never fails a year
    bad = with_a_truncated_scene(built, chain, tmp_path)
    result = chain.run("chips", CELL)
    assert result.success
    store = chain.clay.store()
    ledger = pd.read_parquet(io.BytesIO(store.read(layout.chip_ledger(KEY, YEAR)))).set_index("item_id")
    assert ledger.loc[bad, "outcome"] == "failed"
    assert "damaged.tif" in ledger["error"][bad]
    assert (ledger.drop(bad)["outcome"] == "indexed").all()
    assert len(store.list(layout.chip_folder(KEY, YEAR))) == len(ledger) - 1
    (check,) = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert check.check_name == "no_failed_scenes"
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["failed"].value == 1
    assert bad in str(check.metadata["failures"].value)
    told = str(chain.metadata("chip_index", CELL)["outcomes"])
    assert f"| indexed |  | {len(ledger) - 1} | " in told
    assert f"| 1 | {bad} |" in told


def test_more_failures_than_the_recipe_tolerates_stop_the_run_and_publish_nothing(
    built: Chain, new_chain: Callable[..., Chain], tmp_path: Path
) -> None:
    chain = new_chain(recipe=str(tolerant(tmp_path, failed_scenes=0)))
    bad = with_a_truncated_scene(built, chain, tmp_path)
    result = chain.run("chips", CELL)
    assert not result.success
    message = run_error(result)
    assert message.startswith(f"chip_index: chip_index {CELL}: 1 scenes failed")
    assert "damaged.tif" in message
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data
    assert failure.user_failure_data is not None
    assert f"First: {bad}: " in (failure.user_failure_data.description or "")
    assert bad in str(failure.user_failure_data.metadata["failures"].value)
    store = chain.clay.store()
    assert not store.exists(layout.chip_ledger(KEY, YEAR))
    done = store.list(layout.chip_folder(KEY, YEAR))
    assert done  # completed work is kept, and the next run resumes from it
    before = {key: store.read(key) for key in done}
    key = layout.table("scene_imagery", KEY, YEAR)
    store.write(key, built.clay.store().read(key))
    assert chain.run("chips", CELL).success
    assert chain.metadata("chip_index", CELL)["scenes_indexed_before"] == len(before)
    assert {key: store.read(key) for key in before} == before


def test_a_failing_search_is_a_row_of_the_ledger(
    built: Chain,
    new_chain: Callable[..., Chain],
    stac_api: StacApi,
    fault_proxy: Callable[[str], FaultProxy],
    planet: Planet,
    tmp_path: Path,
) -> None:
    stac_api.clear()
    stac_api.load(planet.collections(), planet.items(KEY))
    proxy = fault_proxy(stac_api.url)
    # A search of several quarters uses up its five attempts, and then the search of one quarter does.
    proxy.answer(500, times=10, path="/search")
    chain = new_chain(stac_earth_search=proxy.url, requests_in_flight="1")
    source = built.clay.store()
    requests = layout.table("scene_requests", KEY)
    chain.clay.store().write(requests, source.read(requests))
    result = chain.run("scenes", CELL)
    assert result.success, run_error(result)
    ledger = pd.read_parquet(io.BytesIO(chain.clay.store().read(layout.request_ledger(KEY, YEAR))))
    expected = pd.read_parquet(io.BytesIO(source.read(layout.request_ledger(KEY, YEAR))))
    failed = ledger["outcome"] == "failed"
    assert failed.sum() == 1
    assert ledger.loc[failed, "reason"].str.contains("500").all()
    pd.testing.assert_frame_equal(ledger[~failed], expected[~failed])


@pytest.mark.parametrize(
    ("failed", "of", "tolerance", "stops"),
    [
        (0, 50, 0.01, False),
        (1, 50, 0.01, False),
        (2, 50, 0.01, True),
        (3, 300, 0.01, False),
        (4, 300, 0.01, True),
        (1, 50, 0.0, True),
        (0, 0, 0.0, False),
        (1, 0, 0.01, True),  # failed before there was anything to try
        (7, 0, 0.01, True),
        (7, 0, 1.0, False),
        (7, 3, 0.01, True),
    ],
)
def test_tolerance_is_a_share_and_always_lets_one_through(failed: int, of: int, tolerance: float, stops: bool) -> None:
    failures = pd.DataFrame({"item_id": [f"S{n}" for n in range(failed)], "error": ["truncated"] * failed})
    with pytest.raises(dg.Failure, match="First: S0: truncated") if stops else nullcontext():
        stop_if_too_many_failed("scenes", failures, of, tolerance, "chip_index sentinel-2-l2a|2020")


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("storage", "/proc/clay", "cannot write /proc/clay/landcover/mgrs_grid.parquet"),
        ("storage", "/dev/null/clay", "Check that CLAY_STORAGE is a writable folder"),
        ("storage", "gs://bucket", "CLAY_STORAGE: unsupported location 'gs://bucket'"),
        ("mgrs_grid", "/no/such/grid.kml", "/no/such/grid.kml: file not found"),
        ("recipe", "clay_v2", "CLAY_RECIPE='clay_v2' is neither clay_v1 nor clay_v0_1 nor a readable file"),
    ],
)
def test_a_wrong_setting_is_named(new_chain: Callable[..., Chain], setting: str, value: str, words: str) -> None:
    result = new_chain(**{setting: value}).run("landcover")
    assert not result.success
    assert words in run_error(result)


def test_a_bucket_that_does_not_exist_is_named(new_chain: Callable[..., Chain], s3_bucket: Bucket) -> None:
    result = new_chain(storage="s3://no-such-bucket-here/clay").run("landcover")
    assert not result.success
    assert "cannot write s3://no-such-bucket-here/clay/landcover/mgrs_grid.parquet" in run_error(result)
    assert "NoSuchBucket" in run_error(result)


def test_a_recipe_with_a_typo_is_named_with_file_rule_and_field(
    new_chain: Callable[..., Chain], tmp_path: Path
) -> None:
    recipe = recipe_with(tmp_path, ("from_highest = 3600", "from_higest = 3600"))
    result = new_chain(recipe=str(recipe)).run("landcover")
    assert not result.success
    assert f"recipe {recipe}" in run_error(result)
    assert "tile rule 7 (cropland), from_higest: no such field; check the spelling" in run_error(result)


def test_a_sample_that_was_not_made_is_named(new_chain: Callable[..., Chain]) -> None:
    result = new_chain().run("requests", KEY)
    assert not result.success
    assert "sampling/mgrs_sample.parquet: file not found. Materialise mgrs_sample first" in run_error(result)


def test_a_wrong_setting_is_what_a_failed_run_says_first(new_chain: Callable[..., Chain]) -> None:
    result = new_chain(workers="many").run("scenes", CELL)
    assert not result.success
    assert run_error(result).startswith("scene_picks: CLAY_WORKERS='many': Input should be a valid integer")


def test_errors_that_differ_by_their_scene_are_one_reason() -> None:
    ledger = pd.DataFrame(
        [
            ("S1", "indexed", None),
            ("S2", "failed", "s3://bucket/S2.tif: truncated"),
            ("S3", "failed", "s3://bucket/S3.tif: truncated"),
            ("S4", "failed", "S4 has no asset 'scl'"),
            ("S5", "failed", "s3://bucket/S5.tif: truncated"),
        ],
        columns=["item_id", "outcome", "error"],
    )
    assert outcomes(ledger) == [
        {"outcome": "failed", "reason": "… truncated", "scenes": 3, "such as": "S2"},
        {"outcome": "failed", "reason": "… has no asset 'scl'", "scenes": 1, "such as": "S4"},
        {"outcome": "indexed", "reason": "", "scenes": 1, "such as": "S1"},
    ]
