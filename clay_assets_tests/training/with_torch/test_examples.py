"""The examples of the public names that need PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

import clay_assets
import clay_assets.training
from clay_assets_tests.examples import example_of, run
from clay_assets_tests.test_public_api import NEED_TORCH


@pytest.mark.parametrize("name", sorted(NEED_TORCH))
def test_the_example_of_a_public_name_runs(name: str, demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_folder)
    run(example_of(clay_assets.training, name))


def test_the_package_has_the_same_names() -> None:
    for name in NEED_TORCH & set(clay_assets.__all__):
        assert getattr(clay_assets, name) is getattr(clay_assets.training, name)
