"""Workflows of continuous integration and the citation file, by their schemas and by a linter of workflows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from clay_assets_tests.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
CITATION = REPOSITORY / "CITATION.cff"


def run(tool: str, *arguments: str | Path) -> None:
    found = shutil.which(tool, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    assert found is not None, f"{tool} is not installed (make test installs it)"
    done = subprocess.run([found, *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def loaded(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # or `on` is a boolean
    return document


@pytest.mark.slow
def test_workflows_follow_their_schema() -> None:
    assert [path.name for path in WORKFLOWS] == ["docs.yml", "release.yml", "tests.yml"]
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


@pytest.mark.slow
def test_workflows_have_no_fault_that_a_linter_knows() -> None:
    run("zizmor", "--offline", "--no-progress", "--min-severity", "medium", *WORKFLOWS)


@pytest.mark.slow
def test_the_citation_file_follows_its_schema() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.citation-file-format", CITATION)


def test_the_citation_says_what_the_project_says() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
    assert citation["title"] == project["name"]
    assert citation["abstract"] == project["description"]
    assert citation["license"] == project["license"]
    assert citation["keywords"] == project["keywords"]
    assert citation["authors"] == project["authors"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_jobs_end(path: Path) -> None:
    for name, job in loaded(path)["jobs"].items():
        assert "timeout-minutes" in job or "uses" in job, name
    for used in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
        assert used.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_only_the_job_that_publishes_may_ask_for_an_identity_and_no_secret_is_stored() -> None:
    for path in WORKFLOWS:
        document = loaded(path)
        assert document["permissions"] == {"contents": "read"}
        asking = [name for name, job in document["jobs"].items() if "id-token" in job.get("permissions", {})]
        assert asking == ([] if path.stem == "tests" else ["publish"])
        assert "secrets." not in path.read_text(encoding="utf-8")


def test_the_commands_of_the_workflows_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8")))
    lines = [line for name in ("tests", "release") for line in _commands(REPOSITORY / f".github/workflows/{name}.yml")]
    made = {line.split()[1] for line in lines if line.startswith("make ")}
    assert {"check", "try-wheel"} <= made <= targets
    assert any(".ci/run" in line for line in lines)


def _commands(path: Path) -> list[str]:
    return [step["run"] for job in loaded(path)["jobs"].values() for step in job.get("steps", []) if "run" in step]
