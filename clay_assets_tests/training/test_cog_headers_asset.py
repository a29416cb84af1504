"""`cog_headers` in Dagster: materialised in a separate instance, on synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from clay_assets.chips.cells import FAILED
from clay_assets.definitions import build_definitions
from clay_assets.orchestration.failures import run_error
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets.training.cells import stored_headers
from clay_assets.training.scene_files import stored_scene_files
from clay_assets_tests.chain import Chain
from clay_assets_tests.orchestration.test_checks import evaluations_of
from clay_assets_tests.training.scenes_with_overviews import S2, make_scene

CELL, YEAR = f"{S2}|2020", 2020


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    folder = tmp_path / "scenes"
    return [
        make_scene(folder, 0, 1000, applied=False),
        make_scene(folder, 1, 1000, applied=True),  # the flag is wrong
        make_scene(folder, 2, 0, "02.14"),
    ]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    storage = str(tmp_path / "store")
    return Chain(build_definitions(storage=storage), dg.DagsterInstance.ephemeral(), storage)


def imagery(chain: Chain, items: list[Item]) -> None:
    stamp = chain.clay.recipe().stamp()
    chain.clay.store().write(layout.table("scene_imagery", S2, YEAR), encode_items(items, stamp))


@pytest.mark.slow
def test_a_cell_is_read_checked_and_read_again_where_files_changed(chain: Chain, items: list[Item]) -> None:
    imagery(chain, items)
    assert chain.run("training", CELL).success
    told = chain.metadata("cog_headers", CELL)
    assert (told["scenes"], told["scenes_read_before"], told["files"]) == (3, 0, 3 * 11)
    assert told["dagster/partition_row_count"] == 3 * 11 * 2
    assert "| pixels | 1000 | 2 | 1 |" in str(told["radiometry"])
    assert "| red | 3 | uint16 | adobe_deflate | 256 × 256 |" in str(told["assets"])
    assert str(told["sizes"]).startswith("![picture](data:image/png;base64,")
    found = {
        name: evaluations_of(chain.instance, "cog_headers", name)[CELL]
        for name in ("no_failed_scenes", "headers_of_imagery", "headers_of_indexed_scenes", "radiometry_agrees")
    }
    assert {name for name, one in found.items() if not one.passed} == {"radiometry_agrees"}
    doubtful = found["radiometry_agrees"]
    assert doubtful.severity is dg.AssetCheckSeverity.WARN
    assert items[1]["id"] in str(doubtful.metadata["rows"].value)
    assert [stored_scene_files(chain.clay.store(), S2, YEAR, item["id"]).offset for item in items] == [1000, 1000, 0]

    Path(items[0]["assets"]["red"]["href"]).write_bytes(b"damaged")
    imagery(chain, items[:2])
    again = chain.run("training", CELL)
    assert again.success  # one failure is tolerated
    ledger = stored_headers(chain.clay.store(), S2, YEAR).ledger.set_index("item_id")
    assert ledger.loc[items[0]["id"], "outcome"] == FAILED
    assert f"{items[0]['id']}, asset red: " in ledger.loc[items[0]["id"], "error"]
    assert chain.metadata("cog_headers", CELL)["scenes_read_before"] == 1
    passed = {one.check_name: one.passed for one in again.get_asset_check_evaluations()}
    assert (passed["no_failed_scenes"], passed["headers_of_imagery"]) == (False, True)
    stored = chain.clay.store().list(layout.headers_folder(S2, YEAR))
    assert list(stored) == [layout.headers(S2, YEAR, items[1]["id"])]


@pytest.mark.slow
def test_too_many_bad_scenes_stop_the_run_before_anything_is_published(chain: Chain, items: list[Item]) -> None:
    for item in items[:2]:
        Path(item["assets"]["red"]["href"]).unlink()
    imagery(chain, items)
    result = chain.run("training", CELL)
    assert not result.success
    assert "2 scenes failed, 66.7%, more than the recipe's tolerance" in run_error(result)
    assert not chain.clay.store().exists(layout.headers_ledger(S2, YEAR))


@pytest.mark.slow
def test_a_cell_without_scenes_succeeds_with_an_empty_ledger(chain: Chain) -> None:
    imagery(chain, [])
    assert chain.run("training", CELL).success
    told = chain.metadata("cog_headers", CELL)
    assert (told["scenes"], told["files"], told["dagster/partition_row_count"]) == (0, 0, 0)
    assert stored_headers(chain.clay.store(), S2, YEAR).ledger.empty
