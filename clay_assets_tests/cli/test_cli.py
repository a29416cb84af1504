"""`clay-assets`: its subcommands, their errors, and what they import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clay_assets.cli import SUBCOMMANDS
from clay_assets.storage import layout
from clay_assets_tests.cli.conftest import Command
from clay_assets_tests.reconciliation.stores import S2, Made, numbers


def test_reconcile_prints_a_table(done: Made, command: Command) -> None:
    result = command("reconcile", storage=done.folder, recipe=done.recipe_file)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{done.folder}, recipe small ({done.recipe.hash})"
    cells = [line.split() for line in lines]
    assert ["platform", "quantity", "published", "planned", "present"] in cells
    first = cells.index([S2, "locations", "—", "3", "—"])  # a platform's name is printed once
    assert cells[first + 1 : first + 7] == [
        ["requests", "—", "24", "24"],
        ["scenes", "—", "24", "4"],
        ["chips", "—", "42,336", "3,000"],
        ["land", "cover", "—", "42,336", "3,000"],
        ["bytes", "to", "read", "—", "723.4", "MB", "—"],
        ["bytes", "to", "copy", "—", "0", "B", "3.2", "kB"],
    ]
    effort = next(number for number, line in enumerate(lines) if line.startswith("Upper bounds of the cost"))
    for table in (lines[:effort], lines[effort:]):
        assert len({len(line) for line in table if "  " in line}) == 1
    (row,) = [line.split() for line in lines[effort:] if line.startswith(S2)]
    assert row == [S2, "24", "24", "<1", "0", "<0.1", "<0.1", "<0.1", "0.0"]
    assert lines[-1] == "Everything planned is present."


def test_reconcile_says_what_is_missing(done: Made, command: Command) -> None:
    done.store.delete([layout.MANIFEST])
    result = command("reconcile", storage=done.folder, recipe=done.recipe_file)
    assert result.exit_code == 0
    out = result.stdout
    assert out.endswith("\n\nsentinel-2-l2a: 0 of 3,000 chips are in the merged index\n")
    assert "Everything planned" not in out


def test_reconcile_on_an_empty_storage(made: Made, command: Command) -> None:
    result = command("reconcile", storage=made.folder, recipe="clay_v1")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "Nothing is planned yet. Materialise scene_requests of the platforms you need."
    assert ["modis", "locations", "233", "—", "—"] in [line.split() for line in lines]
    assert not made.folder.exists()  # the command writes nothing


def test_reconcile_for_programs(done: Made, command: Command) -> None:
    done.index(S2, 2021, {"2021-a": 1000})
    result = command("reconcile", "--json", storage=done.folder, recipe=done.recipe_file)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["differing"] == done.said()
    assert len(document["differing"]) == 2
    account = {account["platform"]: account for account in document["accounts"]}[S2]
    assert (account["picked"], account["merged"]) == (4, 3000)
    assert {count.pop("quantity"): tuple(count.values()) for count in account["counts"]} == numbers(done.accounts()[S2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("recipe", "clay_v2", "CLAY_RECIPE='clay_v2' is neither clay_v1 nor clay_v0_1 nor a readable file"),
        ("storage", "gs://bucket", "CLAY_STORAGE: unsupported location 'gs://bucket'"),
        ("workers", "none", "CLAY_WORKERS='none'"),
    ],
)
def test_reconcile_names_a_wrong_setting(done: Made, command: Command, setting: str, value: str, words: str) -> None:
    result = command("reconcile", **{"storage": done.folder, "recipe": done.recipe_file, setting: value})
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_reconcile_names_what_it_cannot_read(done: Made, command: Command) -> None:
    done.store.write(layout.MANIFEST, b"{")
    result = command("reconcile", storage=done.folder, recipe=done.recipe_file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{done.folder}/{layout.MANIFEST}: cannot be understood" in result.stderr


@pytest.mark.slow
def test_reconcile_runs_from_a_shell(done: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, recipe: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("CLAY_STORAGE", str(done.folder))
        monkeypatch.setenv("CLAY_RECIPE", recipe)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    installed = str(Path(sys.executable).parent / "clay-assets")
    result = run(installed, "reconcile", "--json", recipe=str(done.recipe_file))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["differing"] == []
    result = run(sys.executable, "-m", "clay_assets.cli", "reconcile", recipe="no/such/recipe.toml")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no/such/recipe.toml" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_lists_the_subcommands_and_imports_none_of_them(command: Command) -> None:
    code = "import sys; from clay_assets.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(
        name in result.stdout and help_text in " ".join(result.stdout.split())
        for name, help_text in SUBCOMMANDS.items()
    )
    imported = set(result.stdout.splitlines()[-1].split())
    assert not imported & {"dagster", "pandas", "geopandas", "pyarrow", "rasterio", "boto3", "clay_assets.cli.show"}
