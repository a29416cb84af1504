"""The README: short, and its links work in the repository and on a package index."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from clay_assets_tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TARGETS = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, re.MULTILINE))
MOST_LINES = 110  # two screens
URL = "https://git.example.org/clay_assets"


@pytest.fixture(scope="module")
def make_tables() -> ModuleType:
    """The script that writes the targets."""
    folder = REPOSITORY / "scripts"
    spec = importlib.util.spec_from_file_location("make_tables", folder / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_every_target_exists_and_is_used() -> None:
    assert TARGETS
    for label, target in TARGETS.items():
        path = re.sub(r"^https://\S+/(?:blob|raw)/main/", "", target)
        assert (REPOSITORY / path).is_file(), target
        assert f"][{label}]" in README
    assert set(re.findall(r"\]\[([^\]]+)\]", README)) == set(TARGETS)


def test_no_other_link_is_relative() -> None:
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]+)\)", README))


def test_with_a_repository_targets_are_its_urls(make_tables: ModuleType) -> None:
    paths = "[picture]: docs/images/a.png\n[start]: docs/index.md"
    urls = f"[picture]: {URL}/raw/main/docs/images/a.png\n[start]: {URL}/blob/main/docs/index.md"
    assert make_tables.links(paths, URL) == urls
    assert make_tables.links(urls, URL + "/") == urls
    assert make_tables.links(urls, "https://moved.example.org/a") == urls.replace(URL, "https://moved.example.org/a")
    assert make_tables.links(urls, None) == paths
