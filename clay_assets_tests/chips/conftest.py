from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from clay_assets.recipes import Recipe, load_recipe
from clay_assets.storage.stores import LocalStore


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_recipe("clay_v1")


@pytest.fixture(scope="session")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")
