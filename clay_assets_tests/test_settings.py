"""Invalid, misspelt and unknown settings are named, wherever they are given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from clay_assets.cli import main
from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
from clay_assets.orchestration.failures import run_error
from clay_assets.orchestration.resources import ClayResource
from clay_assets.settings import RESERVED, Settings, check_keywords, read_settings
from clay_assets_tests.conftest import REPOSITORY

STORGE = "CLAY_STORGE: unknown setting. Did you mean CLAY_STORAGE?"
KEYWORD = "storge: unknown setting. Did you mean storage?"


def said(**overrides: Any) -> list[str]:
    """The lines of the error."""
    with pytest.raises(InputError) as raised:
        read_settings(**overrides)
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("CLAY_STORGE", STORGE),
        ("CLAY_WORKER", "CLAY_WORKER: unknown setting. Did you mean CLAY_WORKERS?"),
        ("CLAY_LINZ_CATALOGUE", "CLAY_LINZ_CATALOGUE: unknown setting. Did you mean CLAY_LINZ_CATALOG?"),
        ("CLAY_EARTH_SEARCH", "CLAY_EARTH_SEARCH: unknown setting. Did you mean CLAY_STAC_EARTH_SEARCH?"),
        ("clay_storge", "clay_storge: unknown setting. Did you mean CLAY_STORAGE?"),
        ("Clay_Storge", "Clay_Storge: unknown setting. Did you mean CLAY_STORAGE?"),
        ("CLAY_SEED", "CLAY_SEED: unknown setting. Remove it, or see docs/operate.md for the known settings."),
        ("CLAY_STAC_PC", "CLAY_STAC_PC: unknown setting. Remove it, or see docs/operate.md for the known settings."),
        ("CLAY_", "CLAY_: unknown setting. Remove it, or see docs/operate.md for the known settings."),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known(
    monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "s3://bucket/clay")
    assert said() == [message]


@pytest.mark.parametrize("name", ["CLAY_STORAGE", "clay_storage", "Clay_Storage"])
def test_a_known_variable_counts_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "elsewhere")
    assert read_settings().storage == "elsewhere"


@pytest.mark.parametrize("name", ["CLAYS_STORAGE", "MY_CLAY_STORGE", "CLAY"])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    assert read_settings().storage == "data"


def test_empty_variables_are_as_if_they_were_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAY_STORAGE", "")
    monkeypatch.setenv("CLAY_STORGE", "")
    assert read_settings().storage == "data"


def test_variables_of_tests_and_deployment_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RESERVED:
        monkeypatch.setenv(name, "x")
    assert read_settings().storage == "data"
    monkeypatch.setenv("clay_real_data", "x")  # not read: the tests use the exact name
    assert said() == ["clay_real_data: unknown setting. Did you mean CLAY_REAL_DATA?"]


def test_every_clay_variable_of_the_repository_is_known() -> None:
    """Every variable named in documents, tests, tools and deployment can be set without an error."""
    known = {*(f"CLAY_{name.upper()}" for name in Settings.model_fields), *RESERVED}
    files = [
        path
        for folder in ("deploy", "benchmarks", "scripts", "clay_assets", "docs")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".example", ".toml", ".sh") or path.name == "Dockerfile"
    ]
    named = {
        name
        for path in [*files, REPOSITORY / "README.md", REPOSITORY / "Makefile", REPOSITORY / "dagster_cloud.yaml"]
        for name in re.findall(r"\bCLAY_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8"))
    }
    wrong_on_purpose = {
        "CLAY_STAC",
        "CLAY_STAC_MY_CATALOGUE",
    }  # `CLAY_STAC_…`, and the example for a platform's own setting
    assert named - wrong_on_purpose <= known
    assert {f"CLAY_{name.upper()}" for name in Settings.model_fields} <= named


def test_the_planet_s_settings_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planet = Planet(tmp_path, seed=1)
    for name, value in planet.environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings().stac_usgs == str(planet.usgs)


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("storge", KEYWORD),
        ("STORGE", "STORGE: unknown setting. Did you mean storage?"),
        ("CLAY_STORAGE", "CLAY_STORAGE: unknown setting. Did you mean storage?"),
        ("_env_file", "_env_file: unknown setting. Remove it, or see docs/operate.md for the known settings."),
    ],
)
def test_an_unknown_keyword_is_named_with_the_nearest_known(keyword: str, message: str) -> None:
    assert said(**{keyword: "x"}) == [message]
    with pytest.raises(InputError, match=re.escape(message)):
        check_keywords([keyword])
    unknown: dict[str, Any] = {keyword.lstrip("_"): "x"}
    with pytest.raises(ValidationError):
        Settings(**unknown)


def test_everything_that_is_wrong_is_named_at_once_and_no_unknown_value_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLAY_STORGE", "hunter2")
    monkeypatch.setenv("CLAY_RECIPEE", "hunter2")
    monkeypatch.setenv("CLAY_WORKERS", "many")
    lines = said(storge="hunter2", requests_in_flight=0)
    assert lines[:3] == ["CLAY_RECIPEE: unknown setting. Did you mean CLAY_RECIPE?", STORGE, KEYWORD]
    assert sorted(line.partition(":")[0] for line in lines[3:]) == ["CLAY_REQUESTS_IN_FLIGHT=0", "CLAY_WORKERS='many'"]
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize("keyword", ["storage", "STORAGE"])
def test_a_keyword_counts_over_the_environment_in_any_case(monkeypatch: pytest.MonkeyPatch, keyword: str) -> None:
    monkeypatch.setenv("CLAY_STORAGE", "there")
    assert read_settings(**{keyword: "here"}).storage == "here"
    check_keywords([keyword])


# --- in Dagster and in a shell ----------------------------------------------------------------------


def test_definitions_with_an_unknown_keyword_are_not_built() -> None:
    with pytest.raises(InputError, match=re.escape(KEYWORD)):
        build_definitions(storge="s3://bucket/clay")
    with pytest.raises(InputError, match=re.escape(KEYWORD)):
        build_definitions(resources={"clay": ClayResource(overrides={"storge": "s3://bucket/clay"})})


def test_a_resource_with_an_unknown_keyword_gives_no_settings() -> None:
    with pytest.raises(InputError, match=re.escape(KEYWORD)):
        _ = ClayResource(overrides={"storge": "s3://bucket/clay"}).settings


def test_an_unknown_variable_fails_the_run_and_not_the_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLAY_STORGE", str(tmp_path / "clay"))
    job = build_definitions().resolve_job_def("landcover")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(raise_on_error=False, instance=instance)
    assert not result.success
    assert run_error(result) == f"mgrs_grid: {STORGE}"
    assert not (tmp_path / "data").exists()


def test_the_command_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAY_STORGE", str(tmp_path))
    result = CliRunner().invoke(main, ["reconcile"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert STORGE in result.stderr
