"""Which bands of a file are measurements, by an item's band list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.bands import measured_bands
from clay_assets_tests.scenes.items import NAIP, real_items

RGBN = [{"name": name} for name in ("Red", "Green", "Blue", "NIR")]


@pytest.mark.parametrize(
    ("asset", "properties", "known", "measured"),
    [
        ({}, {}, 0, ()),
        ({}, {}, 4, (1, 2, 3, 4)),
        ({"eo:bands": RGBN}, {}, 0, (1, 2, 3, 4)),
        ({"eo:bands": RGBN[:3]}, {}, 4, (1, 2, 3)),
        ({"eo:bands": RGBN[:3]}, {"eo:bands": RGBN}, 4, (1, 2, 3)),  # the asset's own
        ({"eo:bands": None, "bands": []}, {"bands": RGBN}, 0, (1, 2, 3, 4)),
        ({"eo:bands": [3, 0]}, {"eo:bands": RGBN}, 0, (1, 2)),
        ({"eo:bands": [7]}, {"eo:bands": RGBN}, 0, (1, 2, 3, 4)),
        ({"bands": ["red", "green", "blue", "alpha"]}, {}, 4, (1, 2, 3)),
        ({"bands": [*RGBN, {"name": "Alpha band"}]}, {}, 0, (1, 2, 3, 4)),
        ({"bands": [{"data_type": "uint8"}] * 4}, {}, 3, (1, 2, 3)),
        ({"bands": [*RGBN[:3], {}]}, {}, 4, (1, 2, 3, 4)),
        ({"bands": [*RGBN[:3], {}]}, {}, 0, (1, 2, 3)),
        ({"bands": "RGBN", "eo:bands": {"name": "red"}}, {}, 1, (1,)),
        ({"bands": [{"name": None, "eo:common_name": "nir"}]}, {}, 0, (1,)),
    ],
)
def test_the_first_list_that_names_bands_decides(
    asset: dict[str, Any], properties: dict[str, Any], known: int, measured: tuple[int, ...]
) -> None:
    assert measured_bands({"properties": properties, "assets": {"image": asset}}, "image", known) == measured


@pytest.mark.slow
def test_every_real_naip_item_names_four_bands(real_data: Path) -> None:
    platform = PLATFORMS[NAIP]
    items = [platform.read_item(item) for item in real_items(real_data, NAIP)]
    assert Counter(platform.measured(item, "image") for item in items) == {(1, 2, 3, 4): 716}
