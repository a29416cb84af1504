"""The names that the package offers: where they are from, that they are cheap to have, and that they are documented."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import clay_assets
import clay_assets.training
from clay_assets_tests.conftest import REPOSITORY

# As the design lists them.
NAMES = {
    *("class_shares", "sample_tiles", "index_scene", "open_index", "open_chips", "load_recipe", "PLATFORMS"),
    *("Chipper", "ChipDataset", "ChipStream"),
    *("ClayError", "InputError", "IndexChangedError", "SourceError", "StorageError"),
}
NEED_TORCH = {"ChipDataset", "ChipLoader", "ChipSampler", "ChipStream", "Tensors"}
# None of these is needed to import the package, to complete its names, or to read a recipe's name.
HEAVY = ("dagster", "rasterio", "shapely", "geopandas", "pandas", "numpy", "pyarrow", "boto3", "pyproj", "pydantic")
PUBLIC_MODULES = (
    *("clay_assets", "clay_assets.training", "clay_assets.definitions", "clay_assets.errors", "clay_assets.platforms"),
    *("clay_assets.platforms.base", "clay_assets.recipes", "clay_assets.chips.index", "clay_assets.sampling.tiles"),
    *("clay_assets.sampling.natural_earth", "clay_assets.landcover.worldcover", "clay_assets.settings"),
)


def test_the_names_are_those_of_the_design() -> None:
    assert set(clay_assets.__all__) == NAMES
    assert {*NAMES, "__version__"} <= set(dir(clay_assets))


@pytest.mark.parametrize("package", [clay_assets, clay_assets.training], ids=["clay_assets", "training"])
def test_type_checkers_see_the_names_that_are_there(package: ModuleType) -> None:
    tree = ast.parse(Path(package.__file__ or "").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: f"{package.__name__}.{module}" for name, module in package._NAMES.items()}
    assert sorted(seen) == sorted(package.__all__)
    for name in set(seen) - NEED_TORCH:
        assert getattr(package, name) is getattr(importlib.import_module(str(seen[name])), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'clay_assets' has no attribute 'open_chip'"):
        _ = clay_assets.open_chip


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert clay_assets.__version__ == version("clay_assets")


def test_types_are_those_of_the_modules() -> None:
    """Checked by mypy: the package is typed, its lazy names too."""
    from clay_assets.recipes import Recipe

    recipe: Recipe = clay_assets.load_recipe("clay_v1")
    error: type[ValueError] = clay_assets.InputError
    assert recipe.name == "clay_v1"
    assert issubclass(error, clay_assets.ClayError)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["clay_assets", "clay_assets.training"])
def test_importing_a_package_loads_nothing(package: str) -> None:
    code = f"import sys, {package} as p; dir(p); print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    loaded = set(done.stdout.split())
    assert not loaded & set(HEAVY)
    assert "clay_assets" in loaded


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_modules_list_their_names(module: str) -> None:
    imported = importlib.import_module(module)
    listed = imported.__all__
    assert len(listed) == len(set(listed))
    for name in set(listed) - NEED_TORCH:
        assert getattr(imported, name) is not None
        assert not name.startswith("_")


def test_the_package_says_that_it_is_typed() -> None:
    assert (REPOSITORY / "clay_assets/py.typed").read_bytes() == b""
