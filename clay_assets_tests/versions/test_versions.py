"""An asset whose values change needs another version: the values on the miniature planet are stored with it.

There is one set per minor version of GDAL, which resamples a little differently. `make expected` records the set of the
GDAL at hand, once versions were raised.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import rasterio

from clay_assets.definitions import defs
from clay_assets_tests.chain import Chain
from clay_assets_tests.conftest import RECORD, not_run
from clay_assets_tests.versions.values import VALUES, Values, differences, load, save

GDAL = ".".join(rasterio.__gdal_version__.split(".")[:2])
EXPECTED = Path(__file__).with_name(f"gdal-{GDAL}.json.gz")


def version_of(asset: str) -> str:
    version = defs.resolve_asset_graph().get(dg.AssetKey(asset)).code_version
    assert version is not None
    return version


@pytest.fixture(scope="module")
def expected(built: Chain, pytestconfig: pytest.Config) -> dict[str, dict[str, Any]]:
    if pytestconfig.getoption(RECORD):
        store = built.clay.store()
        save(EXPECTED, {asset: {"version": version_of(asset), "values": VALUES[asset](store)} for asset in VALUES})
    if not EXPECTED.exists():
        not_run("comparison with stored values", f"there are none for GDAL {GDAL}; make expected records them")
    return load(EXPECTED)


@pytest.mark.slow
def test_every_asset_has_stored_values() -> None:
    assert set(VALUES) == {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}


@pytest.mark.parametrize("asset", VALUES)
def test_values_change_only_with_the_version(built: Chain, expected: dict[str, dict[str, Any]], asset: str) -> None:
    before, version = expected[asset], version_of(asset)
    found = differences(before["values"], VALUES[asset](built.clay.store()))
    if before["version"] == version:
        assert not found, f"Raise the version of {asset}, then run make expected. Changed: {'; '.join(found)}"
    else:
        pytest.fail(f"{asset} has version {version}, its stored values {before['version']}. Run make expected.")


CHIPS: Values = {"chipid": ["a-0-0", "a-1-0"], "cloud_cover_percentage": [0.25, 0.5], "west": [6.5, 6.6]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value", "noticed"),
    [
        pytest.param("chipid", "a-2-0", True, id="an id"),
        pytest.param("cloud_cover_percentage", 0.50002, True, id="a share"),
        pytest.param("cloud_cover_percentage", 0.500005, False, id="rounding of a share"),
        pytest.param("west", 6.6000002, True, id="a place"),
        pytest.param("west", 6.60000005, False, id="rounding of a place"),
    ],
)
def test_what_differs_is_noticed(column: str, value: Any, noticed: bool) -> None:
    changed = deepcopy(CHIPS)
    changed[column][1] = value
    assert bool(differences(CHIPS, changed)) == noticed
    assert differences(CHIPS, {**changed, "chipid": ["a-0-0"]}) != []
