"""A chain on the miniature planet, over two years, and the ways to run one. The one that was run is `built`, above."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import RECIPE, Planet
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS
from clay_assets.runs.kept_connections import NO_COMPUTE_LOGS, open_instance
from clay_assets.runs.whole_chain import Step, run_steps, steps

YEARS = (2020, 2021)
# Overrides of an instance whose runs are executed in the tests' own process.
QUIET = {"telemetry": {"enabled": False}, "compute_logs": NO_COMPUTE_LOGS}


def instance_in(folder: Path) -> dg.DagsterInstance:
    """A Dagster instance in a folder, with SQLite; its connections stay open from run to run."""
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    return open_instance(folder)


def recipe_with(folder: Path, *changes: tuple[str, str]) -> Path:
    """The demo's recipe with some of its text replaced, as a file."""
    text = RECIPE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@dataclass
class Chain:
    """Definitions, an instance, and what was run."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    storage: str

    @property
    def clay(self) -> ClayResource:
        assert self.defs.resources is not None
        clay = self.defs.resources["clay"]
        assert isinstance(clay, ClayResource)
        return clay

    def run(self, job: str, partition: str | None = None, asset: str | None = None) -> dg.ExecuteInProcessResult:
        """Run one job, or of it one asset, without raising."""
        ((_, result),) = run_steps([Step(job, partition, asset)], self.defs.resolve_job_def, self.instance, "CRITICAL")
        assert result is not None
        return result

    def run_all(self) -> None:
        """Run the whole chain; every step must succeed."""
        wanted = steps(self.clay, sorted(PLATFORMS))
        for step, result in run_steps(wanted, self.defs.resolve_job_def, self.instance, "CRITICAL"):
            assert result is not None, step
            assert result.success, step

    def metadata(self, asset: str, partition: str | None = None) -> dict[str, Any]:
        """Metadata of the latest materialisation, as plain values."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None), limit=1
        )
        materialization = records.records[0].asset_materialization
        assert materialization is not None
        return {name: value.value for name, value in materialization.metadata.items()}


def overrides(planet: Planet, recipe: Path, storage: str) -> dict[str, Any]:
    """The planet's settings as `build_definitions` takes them."""
    settings = {name.removeprefix("CLAY_").lower(): value for name, value in planet.environment().items()}
    return {**settings, "recipe": str(recipe), "storage": storage}


@pytest.fixture
def new_chain(planet: Planet, recipe: Path, tmp_path: Path) -> Iterator[Callable[..., Chain]]:
    """Makes a chain in a storage of its own; settings may be changed by keyword."""
    instances = []

    def make(**changes: str) -> Chain:
        storage = changes.pop("storage", str(tmp_path / "clay"))
        instance = instance_in(tmp_path)
        instances.append(instance)
        return Chain(build_definitions(**{**overrides(planet, recipe, storage), **changes}), instance, storage)

    yield make
    for instance in instances:
        instance.dispose()


@pytest.fixture
def shell(planet: Planet, recipe: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `dagster …` as a user would, on the planet; more environment by keyword."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        home = tmp_path / "dagster_home"
        home.mkdir(exist_ok=True)
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
        variables = {
            **os.environ,
            **planet.environment(),
            "CLAY_RECIPE": str(recipe),
            "CLAY_STORAGE": str(tmp_path / "clay"),
            "DAGSTER_HOME": str(home),
            **environment,
        }
        dagster = Path(sys.executable).with_name("dagster")
        return subprocess.run(
            [dagster, *arguments], env=variables, capture_output=True, text=True, timeout=240, check=False
        )

    return run


def said(result: subprocess.CompletedProcess[str]) -> str:
    """What a command printed, without colours, on one line."""
    return on_one_line(result.stdout + result.stderr)


def on_one_line(printed: str) -> str:
    """Text without colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", printed).split())
