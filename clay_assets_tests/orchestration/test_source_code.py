"""The UI's links to an asset's code, depending on how the package was installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import clay_assets
from clay_assets.definitions import defs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFERENCES = """
import json
from clay_assets.definitions import defs
graph = defs.resolve_asset_graph()
found = {}
for key in graph.materializable_asset_keys:
    value = graph.get(key).metadata.get("dagster/code_references")
    found[key.to_user_string()] = [one.source for one in value.code_references] if value else []
print(json.dumps(found))
"""
# Reads one document after the other, as left by installers next to the package.
REPOSITORIES = """
import json, pathlib, sys
from clay_assets.orchestration.source_code import repository
record, documents = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
found = []
for document in documents:
    record.write_text(json.dumps(document))
    repository.cache_clear()
    one = repository()
    found.append([one.url, one.commit, one.host] if one else None)
print(json.dumps(found))
"""


def run(program: str, *arguments: str, cwd: Path, python: str = sys.executable) -> Any:
    """Parse a program's output as JSON; packages in its working directory take precedence."""
    done = subprocess.run(
        [python, "-c", program, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Write the origin of a distribution as pip and uv record it (PEP 610); found before this environment's."""
    folder = tmp_path / "clay_assets-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: clay_assets\nVersion: 9.9\n", encoding="utf-8")
    return folder / "direct_url.json"


def from_git(url: str) -> dict[str, Any]:
    return {"url": url, "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"}}


def test_in_a_checkout_references_lead_to_the_bodies_of_the_assets() -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        value = graph.get(key).metadata["dagster/code_references"]
        assert isinstance(value, dg.CodeReferencesMetadataValue)
        (place,) = value.code_references
        assert isinstance(place, dg.LocalFileCodeReference)
        group = graph.get(key).group_name
        assert (place.label, Path(place.file_path).parent.name) == (f"{group}/assets.py", group)
        lines = Path(place.file_path).read_text(encoding="utf-8").splitlines()
        assert place.line_number is not None
        body = lines[place.line_number - 1 :]
        assert body[0].startswith("@asset(")
        assert next(line for line in body if line.startswith("def ")).startswith(f"def {key.to_user_string()}(")


@pytest.mark.slow
def test_the_repository_is_the_one_that_the_package_was_installed_from(record: Path) -> None:
    documents = {
        "https://github.com/org/clay.git": ["https://github.com/org/clay", COMMIT, "github"],
        "https://somebody:secret@github.com/org/clay": ["https://github.com/org/clay", COMMIT, "github"],
        "ssh://git@gitlab.example.org/group/clay.git": ["https://gitlab.example.org/group/clay", COMMIT, "gitlab"],
        "https://codeberg.org/org/clay.git": None,  # Dagster cannot build addresses for it
        "file:///home/somebody/github/clay": None,
    }
    others = [
        {"url": "file:///home/somebody/clay", "dir_info": {"editable": True}},
        {"url": "https://github.com/a.whl"},
        {},
    ]
    found = run(
        REPOSITORIES,
        str(record),
        json.dumps([*map(from_git, documents), *others]),
        cwd=record.parents[1],
    )
    assert found == [*documents.values(), None, None, None]


@pytest.mark.slow
def test_installed_from_git_references_lead_to_the_commit(record: Path) -> None:
    record.write_text(json.dumps(from_git("https://github.com/org/clay.git")), encoding="utf-8")
    found = run(REFERENCES, cwd=record.parents[1])
    for asset, (reference,) in found.items():
        group = defs.resolve_asset_graph().get(dg.AssetKey(asset)).group_name
        address, _, line = reference.partition("#L")
        assert address == f"https://github.com/org/clay/tree/{COMMIT}/clay_assets/{group}/assets.py"
        assert line.isdigit()


@pytest.mark.slow
def test_an_installed_copy_has_no_references_that_lead_nowhere(tmp_path: Path) -> None:
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    site = next(home.glob("lib/python*/site-packages"))
    shutil.copytree(Path(clay_assets.__file__).parent, site / "clay_assets")  # compiled, as installers leave it
    (site / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    found = run(REFERENCES, cwd=tmp_path, python=str(home / "bin" / "python"))
    assert len(found) == len(defs.resolve_asset_graph().materializable_asset_keys)
    assert set(map(tuple, found.values())) == {()}
