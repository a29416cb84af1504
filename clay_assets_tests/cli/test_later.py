"""Libraries that are loaded on first use, or never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clay_assets_tests.chips.factories import S2
from clay_assets_tests.training.conftest import PLAIN
from clay_assets_tests.training.made_scenes import Made


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_a_module_is_loaded_when_it_is_first_used() -> None:
    code = """
import sys
from concurrent.futures import ThreadPoolExecutor
from clay_assets.cli.later import import_later
import_later("boto3", "no_such_module", "json")
import rasterio, boto3
before = "botocore" in sys.modules
with ThreadPoolExecutor(8) as pool:
    sessions = set(pool.map(lambda _: boto3.Session, range(64)))
from boto3.session import Session
print(before, sessions == {Session}, "no_such_module" in sys.modules, sys.modules["boto3"].__version__ != "")
"""
    assert printed(code) == "False True False True"


@pytest.mark.slow
def test_a_module_that_is_never_loaded_is_as_if_not_installed() -> None:
    code = """
import sys
from clay_assets.cli.later import never_import
never_import("pandas")
import pyarrow as pa, pyarrow.dataset
print(pa.array([1, 2]).to_pylist(), "pandas" in sys.modules)
try:
    import pandas
except ImportError as error:
    print(error)
"""
    assert printed(code) == "[1, 2] False\npandas: not loaded in this command."


@pytest.mark.slow
def test_what_is_loaded_already_stays() -> None:
    code = """
import pandas, boto3
from clay_assets.cli.later import import_later, never_import
import_later("boto3"); never_import("pandas")
import pyarrow as pa
print(len(pa.table({"a": [1]}).to_pandas()), boto3.Session.__name__)
"""
    assert printed(code) == "1 Session"


@pytest.mark.slow
def test_show_loads_neither_tables_nor_s3(chip_storage: Made, tmp_path: Path) -> None:
    code = f"""
import os, sys
os.environ["CLAY_STORAGE"] = {str(chip_storage.storage)!r}
from clay_assets.cli import main
main(["show", "{PLAIN}-1-1", "--platform", "{S2}", "--picture", {str(tmp_path / "chip.png")!r}], standalone_mode=False)
print(*sorted(set(sys.modules) & {{"pandas", "geopandas", "shapely", "matplotlib", "dagster", "botocore", "pystac"}}))
"""
    lines = printed(code).splitlines()
    assert (tmp_path / "chip.png").exists()
    assert lines[-1] == f"picture: {tmp_path / 'chip.png'}"  # and none of them is named after it
