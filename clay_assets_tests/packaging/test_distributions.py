"""The wheel and the sdist as they are built from a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

from clay_assets_tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
PACKAGE = REPOSITORY / "clay_assets"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both, built as `make dist` does."""
    folder = tmp_path_factory.mktemp("dist")
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    assert uv is not None
    subprocess.run([uv, "build", "--quiet", "--out-dir", folder, REPOSITORY], check=True, timeout=500)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")  # uv builds it from the sdist, so the sdist is enough to build it
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return HeaderParser().parsestr(wheel.read(name).decode())


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).exists()}


def test_the_wheel_has_the_package_with_its_types_and_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == tracked("clay_assets")
    assert {
        "clay_assets/py.typed",
        "clay_assets/recipes/clay_v1.toml",
        "clay_assets/demo/recipe.toml",
        "clay_assets/pictures/land_110m.geojson",
        "clay_assets/training/metadata.yaml",
    } <= files


def test_the_sdist_has_all_that_is_tracked(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    assert tracked() <= files
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "constraints.txt", "docs/scale.md", "Makefile"} <= files
    assert "clay_assets_tests/conftest.py" in files


def test_the_metadata_says_who_where_and_what(metadata: Message) -> None:
    assert metadata["Author"] == "the clay_assets developers"
    addresses = dict(entry.split(", ", 1) for entry in metadata.get_all("Project-URL", []))
    assert set(addresses) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert len({address.split("/clay_assets")[0] for address in addresses.values()}) == 1  # one place to change
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["Requires-Python"] == ">=3.11"
