"""The example of every public name, on a small storage laid out like the demo's. For PyTorch, see `with_torch`."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import clay_assets
import clay_assets.training
from clay_assets_tests.examples import example_of, run
from clay_assets_tests.test_public_api import NEED_TORCH

NAMES = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package in (clay_assets, clay_assets.training)
    for name in package.__all__
    if name not in NEED_TORCH
]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), NAMES)
def test_the_example_of_a_public_name_runs(
    package: object, name: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_folder)
    assert package in (clay_assets, clay_assets.training)
    run(example_of(clay_assets if package is clay_assets else clay_assets.training, name))


@pytest.mark.slow
def test_the_example_of_the_package_runs(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_folder)
    run(doctest.DocTestParser().get_doctest(clay_assets.__doc__ or "", {}, "clay_assets", None, None))


def test_a_name_without_an_example_and_one_that_is_skipped_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clay_assets.load_recipe, "__doc__", "Load a recipe.")
    with pytest.raises(LookupError, match="load_recipe: no example"):
        example_of(clay_assets, "load_recipe")
    monkeypatch.setattr(clay_assets.load_recipe, "__doc__", ">>> load_recipe()  # doctest: +SKIP\n")
    with pytest.raises(AssertionError, match="skips"):
        run(example_of(clay_assets, "load_recipe"))
    monkeypatch.setattr(clay_assets.load_recipe, "__doc__", ">>> load_recipe = 1; load_recipe\n2\n")
    with pytest.raises(AssertionError, match="Expected"):
        run(example_of(clay_assets, "load_recipe"))
