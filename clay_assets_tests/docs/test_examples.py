"""Every command and example of the documentation works: run, or held against what there is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import click
import dagster as dg
import pyarrow.parquet as pq
import pystac
import pytest

from clay_assets.chips.stacchip import STACCHIP_SCHEMA
from clay_assets.cli import main
from clay_assets.definitions import defs
from clay_assets.platforms.gathering import GROUP
from clay_assets.recipes import load_recipe
from clay_assets.settings import Settings
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.docs.blocks import PAGES, Block, blocks, commands
from clay_assets_tests.training.conftest import made
from clay_assets_tests.training.made_scenes import Made

__all__ = ["made"]

SCENES = ("sentinel-2-l2a", 2020)
WITH_PYTHON = sorted({block.page for block in blocks("python")})
SHELL = [(command, block) for block in blocks("sh") for command in commands(block.text)]


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    """What Dagster loads."""
    return defs.get_repository_def()


@pytest.fixture
def demo(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout after `make demo`, and an index of stacchip in it."""
    shutil.copytree(made.storage, tmp_path / "demo" / "storage")
    shutil.rmtree(tmp_path / "demo" / "storage" / "chips" / "ledger")  # of made scenes it is empty files
    for scene in (one for one in made.scenes if (one.platform, one.year) == SCENES):
        chips = pq.read_table(
            made.folder / f"storage/chips/chip_index/{scene.platform}/{scene.year}/{scene.id}.parquet"
        )
        place = tmp_path / "stacchip" / "index" / scene.platform / scene.id / f"index_{scene.id}.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(chips.select(STACCHIP_SCHEMA.names).replace_schema_metadata(None), place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLAY_STORAGE", "demo/storage")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, demo: Path, made: Made) -> None:
    names = {"item": pystac.Item.from_dict(made.scenes[0].item)}  # what a page says it has at hand
    for block in (one for one in blocks("python") if one.page == page):
        exec(compile(block.text, str(page), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("block", list(blocks("sql")), ids=lambda one: one.page.name)
def test_a_query_runs(block: Block, demo: Path) -> None:
    import duckdb

    assert duckdb.sql(block.text).columns


@pytest.mark.parametrize("block", list(blocks("toml")), ids=lambda one: one.page.name)
def test_toml_is_a_recipe_a_part_of_one_or_an_entry_point(block: Block, tmp_path: Path) -> None:
    tables = tomllib.loads(block.text)
    if "project" in tables:
        assert set(tables["project"]["entry-points"]) == {GROUP}
        return
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(block.text if "name" in tables else f"{_clay_v1()}\n{block.text}", encoding="utf-8")
    assert load_recipe(str(recipe))


def _clay_v1() -> str:
    return (resources.files("clay_assets.recipes") / "clay_v1.toml").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("block", [one for one in blocks("sh") if one.run], ids=lambda one: one.text.splitlines()[0])
def test_a_shell_block_that_is_marked_runs(block: Block, demo: Path) -> None:
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        env={**os.environ, "PATH": paths, "PYTHONPATH": python},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", [command for command, _ in SHELL if command.startswith("dagster ")])
def test_a_command_of_dagster_names_what_there_is(command: str, repository: dg.RepositoryDefinition) -> None:
    words = shlex.split(command)
    if "--select" in words:
        keys = [dg.AssetKey(name) for name in words[words.index("--select") + 1].split(",")]
        nodes = [repository.asset_graph.get(key) for key in keys]
        if "--partition" in words:
            key = words[words.index("--partition") + 1]
            assert all(node.partitions_def and _has(node.partitions_def, key) for node in nodes)
        else:
            assert not any(node.partitions_def for node in nodes)
    elif words[1] == "job":
        job = repository.get_job(words[words.index("-j") + 1])
        for key in words[words.index("--partitions") + 1].split(",") if "--partitions" in words else ():
            assert job.partitions_def is not None
            assert _has(job.partitions_def, key)
    elif words[1] in ("schedule", "sensor"):
        assert words[2] == "start"
        assert repository.has_schedule_def(words[3]) or repository.has_sensor_def(words[3])
    else:
        assert words[1:4] == ["instance", "concurrency", "set"]
        pools = {pool for node in repository.asset_graph.asset_nodes for pool in node.pools or ()}
        assert words[4] in pools
        assert int(words[5]) > 0


def _has(partitions: dg.PartitionsDefinition[str], key: str) -> bool:
    return partitions.has_partition_key(dg.MultiPartitionKey(_named(partitions, key)) if "|" in key else key)


def _named(partitions: dg.PartitionsDefinition[str], key: str) -> dict[str, str]:
    assert isinstance(partitions, dg.MultiPartitionsDefinition)
    names = [one.name for one in partitions.partitions_defs]
    return dict(zip(names, key.split("|"), strict=True))


@pytest.mark.parametrize("command", [command for command, _ in SHELL if command.startswith("clay-assets ")])
def test_a_command_of_ours_has_these_options(command: str) -> None:
    _, name, *words = shlex.split(command)
    subcommand = main.get_command(click.Context(main), name)
    assert subcommand is not None
    assert subcommand.make_context(name, words, resilient_parsing=False)


@pytest.mark.parametrize("command", [command for command, _ in SHELL if command.startswith("make ")])
def test_a_command_of_make_has_a_target(command: str) -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(command.split()[1])}:.*##", text, re.MULTILINE)


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    known = ("dagster ", "clay-assets ", "make ")
    settings = [". .venv/bin/activate", "set -a; . demo/demo.env; set +a"]  # `make demo` makes both files
    others = {command for command, block in SHELL if not block.run and not command.startswith((*known, "export "))}
    assert others == set(settings)
    exported = {command.split()[1].partition("=")[0] for command, _ in SHELL if command.startswith("export ")}
    assert exported <= {f"CLAY_{name.upper()}" for name in Settings.model_fields}


def test_every_block_has_a_language_that_is_tested() -> None:
    languages = {block.language for block in blocks("", "python", "sh", "toml", "sql", "bash", "shell", "console")}
    assert languages <= {"", "python", "sh", "sql", "toml"}
    assert len(PAGES) > 8
