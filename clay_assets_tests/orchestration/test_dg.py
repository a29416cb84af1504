"""Dagster's command line `dg`, configured in pyproject.toml, and `make dev`, which starts the UI with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import requests

from clay_assets.definitions import defs
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.servers.daemon import Daemon, free_port

BIN = Path(sys.executable).parent
STARTING = 240  # seconds; webserver, daemon and code server import Dagster, possibly on a busy machine
COMPLAINTS = re.compile(r"deprecat|supersed|preview|beta|does not match|warning", re.IGNORECASE)
PAGE = """{
  workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename } } } }
  assetNodeOrError(assetKey: {path: ["mgrs_grid"]}) { ... on AssetNode { assetMaterializations { runId } } }
}"""


def run_dg(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dg …` as in an activated environment."""
    return subprocess.run(
        [BIN / "dg", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "VIRTUAL_ENV": str(BIN.parent), "DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_dg_checks_the_definitions(dagster_home: Path) -> None:
    checked = run_dg(dagster_home, "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout + checked.stderr
    assert not COMPLAINTS.findall(checked.stdout + checked.stderr)


def test_dg_lists_everything(dagster_home: Path) -> None:
    listed = run_dg(dagster_home, "list", "defs", "--json")
    assert listed.returncode == 0, listed.stderr
    assert not COMPLAINTS.findall(listed.stderr)
    found = json.loads(listed.stdout)
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    assert {one["asset_key"] for one in found["assets"]} == {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {(one["asset_key"], one["name"]) for one in found["asset_checks"]} == {
        (key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys
    }
    assert all(one["owners"] == [{"team": "clay"}] and one["source"] for one in found["assets"])
    assert {one["name"] for one in found["jobs"]} == {
        job.name for job in repository.get_all_jobs() if not job.name.startswith("__")
    }
    assert {one["name"] for one in found["schedules"]} == {one.name for one in repository.schedule_defs}
    assert {one["name"] for one in found["sensors"]} == {one.name for one in repository.sensor_defs}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository's folder as left by `make demo`, with a demo in which one asset is materialised."""
    folder = tmp_path / "checkout"
    (folder / "demo").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "clay_assets"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv").symlink_to(BIN.parent)
    home = folder / "demo" / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("mgrs_grid"))
    text = f"CLAY_STORAGE={folder / 'demo' / 'storage'}\nDAGSTER_HOME={home}\n"
    (folder / "demo" / "demo.env").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def made(checkout: Path) -> Iterator[tuple[Daemon, str]]:
    """`make dev` in this folder, and the address of its UI."""
    port = free_port()
    variables = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "VIRTUAL_ENV")}
    # As if `make setup` had been run: tests do not install anything.
    command = ["make", "--old-file", ".venv/.demo", "dev", f"PORT={port}"]
    daemon = Daemon("make dev", command, checkout / "log", env=variables)
    yield daemon, f"http://127.0.0.1:{port}"
    daemon.stop()


@pytest.mark.slow
def test_make_dev_opens_the_demo_and_has_nothing_to_complain_about(made: tuple[Daemon, str]) -> None:
    daemon, url = made
    shown = {}

    def loaded() -> bool:
        shown.update(requests.post(f"{url}/graphql", json={"query": PAGE}, timeout=60).json()["data"])
        return bool(shown["workspaceOrError"]["locationEntries"][0]["loadStatus"] == "LOADED")

    daemon.wait_until(loaded, STARTING)
    (location,) = shown["workspaceOrError"]["locationEntries"]
    assert (location["name"], location["locationOrLoadError"]["__typename"]) == ("clay_assets", "RepositoryLocation")
    assert len(shown["assetNodeOrError"]["assetMaterializations"]) == 1
    log = daemon.log.read_text(encoding="utf-8")
    assert not COMPLAINTS.findall(log), log
