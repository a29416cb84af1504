"""A new stage is one folder and one line in `stages.py`; everything that lists stages finds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clay_assets

ASSETS = '''"""A small stage."""

from __future__ import annotations

import dagster as dg

from clay_assets.orchestration.checks import Check, checks_of
from clay_assets.orchestration.partitions import cells
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.stage import stage_asset


@stage_asset(group="soil", number=9, version="1", partitions_def=cells, deps=["scene_imagery"])
def soil_moisture(context: dg.AssetExecutionContext, clay: ClayResource) -> dg.MaterializeResult[None]:
    """Soil moisture of each scene."""
    return dg.MaterializeResult(metadata={"storage": clay.settings.storage})


@stage_asset(group="soil", number=9, version="1", job="soil_overview", deps=["merged_index"])
def soil_map(clay: ClayResource) -> dg.MaterializeResult[None]:
    """One map of them all."""
    return dg.MaterializeResult()


@checks_of("soil_map", [Check("soil_is_wet", "Soil moisture is above 0.")], daily=True)
def soil_checks(context, clay):
    """Look at nothing."""
    from clay_assets.findings import make_finding

    return {"soil_is_wet": make_finding([])}


ASSETS = [soil_moisture, soil_map]
CHECKS = [soil_checks]
RESOURCES = {}
'''
LOOK = """
import json
import dagster as dg
from clay_assets.definitions import defs
from clay_assets.runs import automation

repository = defs.get_repository_def()
jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
def assets(name):
    return sorted(key.to_user_string() for key in jobs[name].asset_layer.selected_asset_keys) if name in jobs else None
def checks(name):
    graph = jobs[name].asset_layer.asset_graph
    return sorted(f"{key.asset_key.to_user_string()}.{key.name}" for key in graph.asset_check_keys)
print(json.dumps({
    "assets": sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
    "soil": assets("soil"),
    "soil_overview": assets("soil_overview"),
    "cell": assets("cell"),
    "recheck": checks("recheck"),
    "daily_checks": checks("daily_checks"),
    "retried_by": automation._JOB_OF,
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a copy of the package with an additional stage lists."""
    folder = tmp_path_factory.mktemp("house")
    package = folder / "clay_assets"
    shutil.copytree(Path(clay_assets.__file__).parent, package)
    (package / "soil").mkdir()
    (package / "soil" / "assets.py").write_text(ASSETS, encoding="utf-8")
    stages = (package / "stages.py").read_text(encoding="utf-8")
    line = '    "clay_assets.chips.assets",\n'
    assert stages.count(line) == 1
    added = stages.replace(line, f'{line}    "clay_assets.soil.assets",\n')
    (package / "stages.py").write_text(added, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    listed: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return listed


@pytest.mark.slow
def test_definitions_have_its_assets(found: dict[str, list[str]]) -> None:
    assert {"soil_moisture", "soil_map"} <= set(found["assets"])


@pytest.mark.slow
def test_jobs_follow_from_group_and_partitions(found: dict[str, list[str]]) -> None:
    assert found["soil"] == ["soil_moisture"]
    assert found["soil_overview"] == ["soil_map"]


def test_a_cell_holds_what_is_partitioned_like_it_and_nothing_after_the_merge(found: dict[str, list[str]]) -> None:
    assert found["cell"] == [
        *("chip_index", "chip_landcover", "cog_headers", "scene_imagery", "scene_picks", "soil_moisture")
    ]


def test_recheck_and_daily_checks_run_its_checks(found: dict[str, list[str]]) -> None:
    assert "soil_map.soil_is_wet" in found["recheck"]
    assert "soil_map.soil_is_wet" in found["daily_checks"]


def test_its_partitions_are_checked_and_retried(found: dict[str, dict[str, str]]) -> None:
    assert "soil_moisture.no_partition_failed" in found["daily_checks"]
    assert found["retried_by"]["soil_moisture"] == "cell"
    assert "soil_map" not in found["retried_by"]
