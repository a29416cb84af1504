"""An eighth platform is one module: the one that CONTRIBUTING.md shows, added to a copy of the package and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets_tests.conftest import REPOSITORY

KEY = "sentinel-2-spring"
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


def test_the_page_adds_an_eighth_platform_and_nothing_else(planet: Planet, tmp_path: Path) -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = r"save this as `(clay_assets/platforms/\w+\.py)`.*?^```python\n(.*?)^```$"
    found = re.search(example, page, re.DOTALL | re.MULTILINE)
    assert found is not None
    name, code = found.groups()
    package = tmp_path / "copy" / "clay_assets"
    shutil.copytree(REPOSITORY / "clay_assets", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package.parent / name).write_text(code, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    written = (REPOSITORY / "clay_assets" / "recipes" / "clay_v1.toml").read_text(encoding="utf-8")
    recipe.write_text(f"{written}\n[platforms.{KEY}]\nmax_cloud_cover = 50\n", encoding="utf-8")
    environment = {
        **os.environ,
        **planet.environment(),
        "CLAY_RECIPE": str(recipe),
        "CLAY_STORAGE": str(tmp_path / "storage"),
        "PYTHONPATH": str(package.parent),
        "DAGSTER_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["file"] == str(package / "__init__.py")
    assert said["platforms"] == sorted([*PLATFORMS, KEY])
    assert all(success for _, success in said["steps"])
    assert [step for step, _ in said["steps"]][:4] == [
        "landcover",
        "mgrs_sample",
        f"requests {KEY}",
        f"cell {KEY}|2018",
    ]
    assert said["periods"] == ["Q2"]
    assert said["requests"] == 3 * len(said["locations"])
    quarters = planet.quarters()
    assert said["picked"]
    assert set(said["picked"]) <= {item["id"] for item in planet.items("sentinel-2-l2a")}
    assert len(quarters)
    assert said["clouds"] <= 50
    assert said["chips"] > 0
    assert said["of"] == [KEY]


def test_no_other_code_knows_a_platform_by_its_name() -> None:
    """Only its module, the sampling of its places, and the demo, which generates its catalogue, may name a platform."""
    knowing = ("platforms", "sampling", "demo")
    named = re.compile("|".join(rf'["\']{re.escape(key)}["\']' for key in PLATFORMS))
    found = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in sorted((REPOSITORY / "clay_assets").rglob("*.py"))
        if path.relative_to(REPOSITORY).parts[1] not in knowing
        for line in path.read_text(encoding="utf-8").splitlines()
        if named.search(line)
    ]
    assert found == []
