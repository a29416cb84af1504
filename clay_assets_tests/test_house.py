"""The rooms of the package: imports only go down the list, and stages are free of Dagster except for three modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import clay_assets
from clay_assets.stages import ASSETS
from clay_assets.storage import layout

PACKAGE = Path(clay_assets.__file__).parent
# From the top of the house to its foundations; a module imports only from its own room and from later ones.
ROOMS = (
    "cli",
    "demo",
    "definitions",
    "runs",
    "stages",
    "reconciliation",
    "training",
    "chips",
    "scenes",
    "sampling",
    "landcover",
    "orchestration",
    "pictures",
    "catalogues",
    "recipes",
    "platforms",
    "sources",
    "storage",
    "transport",
    "settings",
    "findings",
    "executors",
    "progress",
    "stac",
    "footprints",
    "grids",
    "draws",
    "version",
    "errors",
    "__init__",
)
STAGES = ("training", "chips", "scenes", "sampling", "landcover")
MAY_IMPORT_DAGSTER = {
    *(f"{stage}/{name}.py" for stage in STAGES for name in ("assets", "checks", "io_manager")),
    "reconciliation/checks.py",
    "demo/run.py",
    "definitions.py",
    "stages.py",
}


@dataclass(frozen=True)
class Import:
    """One import: path of the importing module in the package, line, and imported module."""

    path: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports_of(package: Path) -> Iterator[Import]:
    """Every import of `clay_assets` in a package, at any depth: also in functions and under TYPE_CHECKING."""
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        inside = ("clay_assets", *path.parts[:-1])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(path.as_posix(), node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(inside[: len(inside) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, [base, node.module]))
                # `from clay_assets import stages` imports a module, `from clay_assets import __version__` does not.
                for alias in node.names:
                    within = package.joinpath(*module.split(".")[1:], alias.name)
                    found = within.is_dir() or within.with_suffix(".py").is_file()
                    named = module.split(".")[0] == "clay_assets" and found
                    yield Import(path.as_posix(), node.lineno, f"{module}.{alias.name}" if named else module)


def room_of(module: str) -> str:
    """The room of a module, such as `chips` for `clay_assets.chips.merge`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def upward(package: Path) -> list[str]:
    """The imports that go up the list; `clay_assets/__init__.py` only names what it hands over, for type checkers."""
    found = []
    for entry in imports_of(package):
        if entry.module.split(".")[0] != "clay_assets" or entry.path == "__init__.py":
            continue
        importing = Path(entry.path).with_suffix("").parts[0]
        if ROOMS.index(room_of(entry.module)) < ROOMS.index(importing):
            found.append(str(entry))
    return found


def dagster_in_libraries(package: Path) -> list[str]:
    """Imports of Dagster by modules that should work in a notebook."""
    return [
        str(entry)
        for entry in imports_of(package)
        if entry.module.split(".")[0] in ("dagster", "dagster_aws")
        and entry.path.split("/")[0] not in ("orchestration", "runs")
        and entry.path not in MAY_IMPORT_DAGSTER
    ]


def test_every_room_is_on_the_list() -> None:
    found = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if path.suffix in ("", ".py")}
    assert found - {"__pycache__"} == set(ROOMS)


@pytest.mark.slow
def test_imports_only_go_down() -> None:
    assert upward(PACKAGE) == []


@pytest.mark.slow
def test_stages_are_libraries() -> None:
    assert dagster_in_libraries(PACKAGE) == []


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        pytest.param("storage/a.py", "import clay_assets.chips.merge", "clay_assets.chips.merge", id="plain"),
        pytest.param("storage/a.py", "from clay_assets.chips.merge import merge", "clay_assets.chips.merge", id="from"),
        pytest.param("storage/a.py", "from clay_assets import stages", "clay_assets.stages", id="of a module"),
        pytest.param("storage/a.py", "from ..chips import merge", "clay_assets.chips.merge", id="relative"),
        pytest.param(
            "errors.py", "from . import settings", "clay_assets.settings", id="relative from the ground floor"
        ),
        pytest.param(
            "storage/a.py", "def f():\n    from clay_assets.chips import merge", "clay_assets.chips.merge", id="lazy"
        ),
        pytest.param(
            "storage/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from clay_assets.chips.cells import ChipCell",
            "clay_assets.chips.cells",
            id="for types alone",
        ),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, path: str, line: str, expected: str) -> None:
    for module in ("chips/merge.py", "chips/cells.py", "stages.py", "settings.py", path):
        file = tmp_path / module
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line if module == path else "")
    (found,) = upward(tmp_path)
    assert found.startswith(f"{path}:")
    assert found.endswith(f" imports {expected}")


def test_planted_dagster_in_a_library_is_found(tmp_path: Path) -> None:
    for module in ("chips/merge.py", "chips/assets.py"):
        (tmp_path / module).parent.mkdir(exist_ok=True)
        (tmp_path / module).write_text("def f():\n    import dagster as dg")
    assert dagster_in_libraries(tmp_path) == ["chips/merge.py:2 imports dagster"]


def test_every_asset_has_its_place_in_storage() -> None:
    assert [asset.key.to_user_string() for asset in ASSETS] == list(layout.FOLDERS)
