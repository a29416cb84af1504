"""An eighth platform is a single module, as in docs/add_a_platform.md: added to a copy of the package, or installed as
a separate distribution, and run.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.platforms.distributions import distribution, example_entry_point, example_platform, python

KEY = "sentinel-2-spring"
FIELDS = "max_cloud_cover = 50\nyears = [2021, 2021]\nyears_per_location = 1\n"  # one year is enough
RUN = f"""
import json
import dagster as dg
from clay_assets.chips.index import open_index
from clay_assets.definitions import defs
from clay_assets.runs.whole_chain import run_steps, steps
from clay_assets.platforms import PLATFORMS
from clay_assets.storage.geoparquet import decode

clay = defs.resources["clay"]
with dg.DagsterInstance.ephemeral() as instance:
    results = [
        (str(step), bool(result and result.success))
        for step, result in run_steps(steps(clay, ["{KEY}"]), defs.resolve_job_def, instance, "CRITICAL")
    ]
store = clay.store()
ledgers = [decode(store.read(key), key) for key in store.list("scenes/ledger/{KEY}", ".parquet")]
chips = open_index(store.uri("chips/merged_index")).to_table()
print(json.dumps({{
    "file": __import__("clay_assets").__file__,
    "platforms": list(PLATFORMS),
    "partitions": defs.resolve_asset_graph().get(dg.AssetKey("scene_requests")).partitions_def.get_partition_keys(),
    "jobs": [
        name for name in ("requests", "cell")
        if any("{KEY}" in key for key in defs.resolve_job_def(name).partitions_def.get_partition_keys())
    ],
    "recipe": clay.recipe().options("{KEY}").max_cloud_cover,
    "steps": results,
    "periods": sorted({{period for ledger in ledgers for period in ledger["period"]}}),
    "locations": sorted({{name for ledger in ledgers for name in ledger["location"]}}),
    "requests": sum(map(len, ledgers)),
    "picked": sorted({{name for ledger in ledgers for name in ledger["item_id"].dropna()}}),
    "clouds": max(ledger["cloud_cover"].max() for ledger in ledgers),
    "chips": chips.num_rows,
    "of": chips["platform"].unique().to_pylist(),
}}))
"""


def in_a_copy_of_the_package(folder: Path) -> Path:
    """Add the platform's module to a copy of `clay_assets`."""
    shutil.copytree(REPOSITORY / "clay_assets", folder / "clay_assets", ignore=shutil.ignore_patterns("__pycache__"))
    name, code = example_platform()
    (folder / name).write_text(code, encoding="utf-8")
    return folder


def as_a_distribution(folder: Path) -> Path:
    """Install the platform as a separate distribution, with a new setting for its catalogue."""
    _, code = example_platform()
    ours = 'catalogue="stac_earth_search"'
    assert ours in code
    entry, module = example_entry_point()
    package, _, name = module.rpartition(".")
    distribution(folder, "sentinel-2-spring", {}, {entry: module})
    (folder / package).mkdir()
    (folder / package / f"{name}.py").write_text(
        code.replace(ours, 'catalogue="stac_spring", default="https://stac.example.org/v1"'), encoding="utf-8"
    )
    return folder


@pytest.mark.parametrize(
    ("added", "variable", "package"),
    [
        (in_a_copy_of_the_package, "CLAY_STAC_EARTH_SEARCH", "copy"),
        (as_a_distribution, "CLAY_STAC_SPRING", None),
    ],
    ids=["module", "distribution"],
)
def test_the_page_adds_an_eighth_platform_and_nothing_else(
    planet: Planet, tmp_path: Path, added: Callable[[Path], Path], variable: str, package: str | None
) -> None:
    path = tmp_path / "copy"
    path.mkdir()
    added(path)
    recipe = tmp_path / "recipe.toml"
    written = (REPOSITORY / "clay_assets" / "recipes" / "clay_v1.toml").read_text(encoding="utf-8")
    recipe.write_text(f"{written}\n[platforms.{KEY}]\n{FIELDS}", encoding="utf-8")
    settings = planet.environment()
    catalogue = settings.pop("CLAY_STAC_EARTH_SEARCH")
    settings |= {"CLAY_RECIPE": str(recipe), "CLAY_STORAGE": str(tmp_path / "storage"), variable: catalogue}
    done = python(RUN, path, **settings, DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["file"] == str((tmp_path / package if package else REPOSITORY) / "clay_assets" / "__init__.py")
    assert said["platforms"] == said["partitions"] == sorted([*PLATFORMS, KEY])
    assert said["jobs"] == ["requests", "cell"]
    assert said["recipe"] == 50
    assert all(success for _, success in said["steps"])
    assert [step for step, _ in said["steps"]][:4] == [
        "landcover",
        "mgrs_sample",
        f"requests {KEY}",
        f"cell {KEY}|2021",
    ]
    assert said["periods"] == ["Q2"]
    assert said["requests"] == len(said["locations"])
    quarters = planet.quarters()
    assert said["picked"]
    assert set(said["picked"]) <= {item["id"] for item in planet.items("sentinel-2-l2a")}
    assert len(quarters)
    assert said["clouds"] <= 50
    assert said["chips"] > 0
    assert said["of"] == [KEY]


def test_no_other_code_knows_a_platform_by_its_name() -> None:
    """Only its module, its sampling, and the demo, which generates its catalogue, may name a platform."""
    knowing = ("platforms", "sampling", "demo")
    named = re.compile("|".join(rf'["\']{re.escape(key)}["\']' for key in PLATFORMS))
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in sorted((REPOSITORY / "clay_assets").rglob("*.py"))
        if path.relative_to(REPOSITORY).parts[1] not in knowing
        for line in path.read_text(encoding="utf-8").splitlines()
        if named.search(line) and not line.lstrip().startswith((">>> ", "... "))  # examples in docstrings
    ]
    assert found == []
