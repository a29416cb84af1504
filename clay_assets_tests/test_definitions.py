"""The definitions that Dagster sees: the names fixed by the design, and the cost of loading them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from clay_assets.definitions import defs

ROOT = Path(__file__).parents[1]
GROUPS = {
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
CELLS = ["scene_picks", "scene_imagery", "chip_index", "chip_landcover", "cog_headers"]


def test_assets_have_the_names_and_groups_of_the_design() -> None:
    graph = defs.resolve_asset_graph()
    found = {key.to_user_string(): graph.get(key).group_name for key in graph.materializable_asset_keys}
    assert found == GROUPS


def test_each_asset_says_what_it_is() -> None:
    graph = defs.resolve_asset_graph()
    for name in GROUPS:
        node = graph.get(dg.AssetKey(name))
        assert len(node.description or "") > 100, name
        assert node.code_version, name
        assert node.kinds, name
        assert node.tags["stage"] in "12345", name
        assert node.owners == ["team:clay"], name


def test_partitions_are_platform_and_platform_by_year() -> None:
    graph = defs.resolve_asset_graph()
    for name in CELLS:
        definition = graph.get(dg.AssetKey(name)).partitions_def
        assert isinstance(definition, dg.MultiPartitionsDefinition)
        assert "sentinel-2-l2a|2020" in definition.get_partition_keys()
    requests = graph.get(dg.AssetKey("scene_requests")).partitions_def
    assert requests is not None
    assert requests.get_partition_keys() == [
        "landsat-c2l1",
        "landsat-c2l2-sr",
        "linz",
        "modis",
        "naip",
        "sentinel-1-rtc",
        "sentinel-2-l2a",
    ]
    samples = {"mgrs_sample", "naip_sample", "linz_sample", "modis_sample"}
    assert {key.to_user_string() for key in graph.get(dg.AssetKey("scene_requests")).parent_keys} == samples
    for name in ("mgrs_grid", "worldcover_stats", "merged_index", *samples):
        assert graph.get(dg.AssetKey(name)).partitions_def is None


def test_there_is_a_job_for_each_group_and_one_for_all() -> None:
    names = {job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert names == {
        "landcover",
        "sampling",
        "requests",
        "scenes",
        "chips",
        "training",
        "cell",
        "merge",
        "daily_checks",
        "recheck",
        "all",
    }


def test_one_name_for_the_code_location_everywhere() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    cloud = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
    assert project["project"]["name"] == "clay_assets"
    assert project["tool"]["dagster"]["code_location_name"] == "clay_assets"
    assert project["tool"]["dg"]["project"]["code_location_name"] == "clay_assets"
    assert project["tool"]["dg"]["project"]["code_location_target_module"] == project["tool"]["dagster"]["module_name"]
    assert workspace["load_from"][0]["python_module"]["location_name"] == "clay_assets"
    deployed = yaml.safe_load((ROOT / "deploy" / "workspace.yaml").read_text())
    assert deployed["load_from"][0]["grpc_server"]["location_name"] == "clay_assets"
    assert [location["location_name"] for location in cloud["locations"]] == ["clay_assets"]


def test_dagster_cloud_yaml_is_valid_by_the_schema_of_its_cli() -> None:
    from dagster_cloud_cli.config import models

    document = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
    locations = models.ProcessedDagsterCloudConfig.model_validate(document).locations
    assert [location.location_name for location in locations] == ["clay_assets"]
    with pytest.raises(ValueError, match="location_nam"):
        models.ProcessedDagsterCloudConfig.model_validate({"locations": [{"location_nam": "clay_assets"}]})


# What loading the definitions may import besides Dagster and the standard library. Libraries for arrays, rasters,
# geometries, tables, plots and file systems are excluded: they are imported when an asset runs.
MAY_BE_IMPORTED = {
    *("clay_assets", "tqdm"),
    *("dotenv", "pydantic", "pydantic_settings"),
}
LOADING = """
import json, os, sys
import dagster
before = set(sys.modules)
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind"):
        seen.append(f"{event} {arguments}")
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen.append(f"write {arguments[0]}")
sys.addaudithook(watch)
import clay_assets.definitions
names = {name.partition(".")[0] for name in set(sys.modules) - before}
ours = sorted(n for n in names if n not in sys.stdlib_module_names and not n.startswith(("_", "dagster")))
print(json.dumps({"imported": ours, "seen": seen}))
"""


@pytest.mark.slow
def test_definitions_load_without_environment_network_or_storage_and_import_little(tmp_path: Path) -> None:
    loaded = subprocess.run(
        [sys.executable, "-B", "-c", LOADING],
        env={"PATH": "/usr/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert loaded.returncode == 0, loaded.stderr
    found = json.loads(loaded.stdout)
    assert found["seen"] == []  # no network access, nothing written
    assert "clay_assets" in found["imported"]
    assert set(found["imported"]) <= MAY_BE_IMPORTED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_loading_them_gives_no_warning(tmp_path: Path) -> None:
    """Not even about Dagster's preview and beta features, which are not the user's choice."""
    program = "from clay_assets.definitions import defs; defs.get_repository_def()"
    loaded = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert "Warning" not in loaded.stderr
