"""Running the pipeline from a shell as described in docs/operate.md, and what a user sees for invalid input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster._cli import cli as dagster_cli

from clay_assets.chips.index import open_index
from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chain import Chain, on_one_line, said
from clay_assets_tests.conftest import Bucket

Shell = Callable[..., subprocess.CompletedProcess[str]]
CELL = "sentinel-2-l2a|2020"
TWICE = "landsat-c2l1"  # run by two processes at once; its cells are the cheapest
THERE = ["naip"]  # built on S3: searched once, and read in place
MATERIALIZE = ("asset", "materialize", "-m", "clay_assets.definitions")


def test_definitions_validate(shell: Shell) -> None:
    result = shell("definitions", "validate", "-m", "clay_assets.definitions")
    assert result.returncode == 0, said(result)
    assert "All code locations passed validation" in said(result)


@pytest.fixture
def refused(
    planet: Planet, recipe: Path, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs `dagster …`, which must fail, in this process, which has imported Dagster; returns what a shell shows."""
    for name, value in planet.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLAY_RECIPE", str(recipe))
    monkeypatch.setenv("CLAY_STORAGE", str(tmp_path / "clay"))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(dagster_cli, list(arguments))
        assert result.exit_code == 1, result.output
        return on_one_line(f"{result.output} {result.exception}")

    return run


def test_a_partition_key_that_does_not_exist_is_named(refused: Callable[..., str]) -> None:
    assert "sentinel-9|2020" in refused(*MATERIALIZE, "--select", "scene_picks", "--partition", "sentinel-9|2020")


def test_an_upstream_that_is_missing_is_named(refused: Callable[..., str]) -> None:
    told = refused(*MATERIALIZE, "--select", "chip_index", "--partition", CELL)
    missing = "scenes/scene_imagery/sentinel-2-l2a/2020.parquet: file not found. Materialise scene_imagery first"
    assert missing in told


def start(planet: Planet, storage: str, home: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """A run in the background, in its own process group."""
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    variables = {
        **os.environ,
        **planet.environment(),
        "CLAY_STORAGE": storage,
        "DAGSTER_HOME": str(home),
        **environment,
    }
    dagster = str(Path(sys.executable).with_name("dagster"))
    return subprocess.Popen(
        [dagster, *arguments],
        env=variables,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def files(folder: Path) -> dict[str, bytes]:
    store = LocalStore(folder)
    return {key: store.read(key) for key in store.list("") if not key.startswith(".tmp")}


def inputs(built: Chain, storage: Path, *prefixes: str) -> None:
    """Copy a part of the built chain's storage."""
    source, target = built.clay.store(), LocalStore(storage)
    for key in source.list(""):
        if key.startswith(prefixes):
            target.write(key, source.read(key))


def test_two_runs_of_one_partition_at_once_agree(built: Chain, planet: Planet, recipe: Path, tmp_path: Path) -> None:
    storage = tmp_path / "clay"
    inputs(built, storage, "scenes/scene_requests/")
    # The module is given by environment variable for one, by `-m` for the other: Dagster reads both.
    ways: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (MATERIALIZE, {}),
        (("asset", "materialize"), {"DAGSTER_MODULE_NAME": "clay_assets.definitions"}),
    ]
    runs = [
        start(
            planet, str(storage), tmp_path / f"home{number}", *command,
            "--select", "scene_picks,scene_imagery,chip_index,chip_landcover,cog_headers",
            "--partition", f"{TWICE}|2020", CLAY_RECIPE=str(recipe), **module,
        )
        for number, (command, module) in enumerate(ways)
    ]  # fmt: skip
    assert [run.wait(timeout=240) for run in runs] == [0, 0]
    mine = files(storage)
    theirs = {key: content for key, content in files(Path(built.storage)).items() if TWICE in key}
    of_cell = {key for key in theirs if "2020" in key and "merged_index/" not in key and "painted/" not in key}
    assert {key for key in mine if "2020" in key} == of_cell
    assert [key for key, content in mine.items() if TWICE in key and theirs[key] != content] == []


def elsewhere(key: str) -> bool:
    """Whether a key belongs to a platform that was not built on S3."""
    samples = {platform.scenes.sample for platform in PLATFORMS.values()} - {
        PLATFORMS[key].scenes.sample for key in THERE
    }
    others = [*(set(PLATFORMS) - set(THERE)), *samples]
    return any(f"{before}{name}{end}" in key for name in others for before in "/=" for end in "/.")


def test_with_storage_on_s3_everything_is_there_and_nothing_on_disk(
    s3_bucket: Bucket, built: Chain, planet: Planet, recipe: Path, tmp_path: Path, shell: Shell
) -> None:
    home, empty = tmp_path / "dagster_home", tmp_path / "empty"
    empty.mkdir()
    location = f"{s3_bucket.url}/clay"
    program = (
        "import dagster as dg\n"
        "from clay_assets.definitions import defs\n"
        "from clay_assets.runs.whole_chain import run_steps, steps\n"
        "clay = defs.resources['clay']\n"
        f"for step, result in run_steps(steps(clay, {THERE}), defs.resolve_job_def,\n"
        "                              dg.DagsterInstance.ephemeral(), 'ERROR'):\n"
        "    assert result is not None and result.success, step\n"
    )
    environment = {**os.environ, **planet.environment(), "CLAY_RECIPE": str(recipe), "CLAY_STORAGE": location}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=empty,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(empty.iterdir()) == []
    on_s3 = {key.removeprefix("clay/"): None for key in s3_bucket.keys("clay/")}
    expected = {key: content for key, content in files(Path(built.storage)).items() if not elsewhere(key)}
    assert sorted(on_s3) == sorted(expected)
    for key, content in expected.items():
        if key.startswith(("chips/", "sampling/")) and key.endswith(".parquet"):
            body = s3_bucket.client.get_object(Bucket=s3_bucket.name, Key=f"clay/{key}")["Body"].read()
            assert body == content, key
    for platform in THERE:
        count = open_index(f"{location}/{layout.MERGED}", platform).count_rows()
        assert count == open_index(f"{built.storage}/{layout.MERGED}", platform).count_rows() > 0
    result = shell(*MATERIALIZE, "--select", "scene_picks", "--partition", "naip|2021", CLAY_STORAGE=location)
    assert result.returncode == 0, said(result)
    assert not (tmp_path / "clay").exists()
    assert home.exists()
