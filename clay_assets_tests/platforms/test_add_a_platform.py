"""An eighth platform is a single module, as in docs/add_a_platform.md, added to a copy of the package; a ninth one is
installed as a separate distribution. Both are run.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.platforms.distributions import distribution, example_entry_point, example_platform, python

KEY, INSTALLED = "sentinel-2-spring", "spring-elsewhere"  # the second with a catalogue of its own
ADDED = (KEY, INSTALLED)
FIELDS = "max_cloud_cover = 50\nyears = [2021, 2021]\nyears_per_location = 1\n"  # one year is enough
RUN = f"""
import json
import dagster as dg
from clay_assets.chips.index import open_index
from clay_assets.definitions import defs
from clay_assets.runs.whole_chain import run_steps, steps
from clay_assets.platforms import PLATFORMS
from clay_assets.storage.geoparquet import decode

added = {ADDED}
clay = defs.resources["clay"]
with dg.DagsterInstance.ephemeral() as instance:
    results = [
        (str(step), bool(result and result.success))
        for step, result in run_steps(steps(clay, added), defs.resolve_job_def, instance, "CRITICAL")
    ]
store = clay.store()
chips = open_index(store.uri("chips/merged_index")).to_table()

def of(key):
    ledgers = [decode(store.read(one), one) for one in store.list(f"scenes/ledger/{{key}}", ".parquet")]
    return {{
        "jobs": [
            name for name in ("requests", "cell")
            if any(key in one for one in defs.resolve_job_def(name).partitions_def.get_partition_keys())
        ],
        "recipe": clay.recipe().options(key).max_cloud_cover,
        "periods": sorted({{period for ledger in ledgers for period in ledger["period"]}}),
        "locations": sorted({{name for ledger in ledgers for name in ledger["location"]}}),
        "requests": sum(map(len, ledgers)),
        "picked": sorted({{name for ledger in ledgers for name in ledger["item_id"].dropna()}}),
        "clouds": max(ledger["cloud_cover"].max() for ledger in ledgers),
        "chips": chips["platform"].to_pylist().count(key),
    }}

print(json.dumps({{
    "file": __import__("clay_assets").__file__,
    "platforms": list(PLATFORMS),
    "partitions": defs.resolve_asset_graph().get(dg.AssetKey("scene_requests")).partitions_def.get_partition_keys(),
    "steps": results,
    "of": chips["platform"].unique().to_pylist(),
    **{{key: of(key) for key in added}},
}}))
"""


def add_to_a_copy_of_the_package(folder: Path) -> None:
    """Add the platform's module to a copy of `clay_assets`."""
    shutil.copytree(REPOSITORY / "clay_assets", folder / "clay_assets", ignore=shutil.ignore_patterns("__pycache__"))
    name, code = example_platform()
    (folder / name).write_text(code, encoding="utf-8")


def install_as_a_distribution(folder: Path) -> None:
    """Install the platform as a separate distribution, with another key and a new setting for its catalogue."""
    _, code = example_platform()
    changes = {
        'catalogue="stac_earth_search"': 'catalogue="stac_spring", default="https://stac.example.org/v1"',
        f'KEY = "{KEY}"': f'KEY = "{INSTALLED}"',
    }
    for ours, theirs in changes.items():
        assert code.count(ours) == 1
        code = code.replace(ours, theirs)
    entry, module = example_entry_point()
    package, _, name = module.rpartition(".")
    distribution(folder, "sentinel-2-spring", {}, {entry: module})
    (folder / package).mkdir()
    (folder / package / f"{name}.py").write_text(code, encoding="utf-8")


def test_the_page_adds_an_eighth_platform_and_nothing_else(planet: Planet, tmp_path: Path) -> None:
    path = tmp_path / "copy"
    path.mkdir()
    add_to_a_copy_of_the_package(path)
    install_as_a_distribution(path)
    recipe = tmp_path / "recipe.toml"
    written = (REPOSITORY / "clay_assets" / "recipes" / "clay_v1.toml").read_text(encoding="utf-8")
    recipe.write_text("\n".join([written, *(f"[platforms.{key}]\n{FIELDS}" for key in ADDED)]), encoding="utf-8")
    settings = planet.environment()
    settings |= {"CLAY_RECIPE": str(recipe), "CLAY_STORAGE": str(tmp_path / "storage")}
    settings["CLAY_STAC_SPRING"] = settings["CLAY_STAC_EARTH_SEARCH"]
    done = python(RUN, path, **settings, DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["file"] == str(path / "clay_assets" / "__init__.py")
    assert said["platforms"] == said["partitions"] == sorted([*PLATFORMS, *ADDED])
    assert all(success for _, success in said["steps"])
    names = [step for step, _ in said["steps"]]
    assert names[:2] == ["landcover", "mgrs_sample"]
    for key in ADDED:
        assert names.index(f"requests {key}") < names.index(f"cell {key}|2021")
        own = said[key]
        assert own["jobs"] == ["requests", "cell"]
        assert own["recipe"] == 50
        assert own["periods"] == ["Q2"]
        assert own["requests"] == len(own["locations"])
        assert own["picked"]
        assert set(own["picked"]) <= {item["id"] for item in planet.items("sentinel-2-l2a")}
        assert own["clouds"] <= 50
        assert own["chips"] > 0
    assert said["of"] == sorted(ADDED)
    assert said[KEY] == said[INSTALLED]  # their rules are the same


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
