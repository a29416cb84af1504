"""A sample is checked against the rules that should have drawn it."""

from __future__ import annotations

import geopandas as gpd
import pandas as pd
import pytest

from clay_assets.sampling.rules import rules_have_their_count
from clay_assets.sampling.tiles import PUBLISHED, sample_tiles
from clay_assets_tests.sampling.test_tiles import recipe, stats

# Of eight tiles, three have mangroves: a rule that asks for five gets three.
RECIPE = recipe(("mangroves", "Mangroves", 5, 6), ("water", "Permanent water bodies", 2, 4))
TILES = stats({f"T{number}": {"Mangroves": 0.1 * (number < 3), "Permanent water bodies": 0.05} for number in range(8)})


def drawn() -> gpd.GeoDataFrame:
    return sample_tiles(TILES, RECIPE)


def test_a_sample_as_it_is_drawn_says_why_a_rule_is_short() -> None:
    found = rules_have_their_count(drawn(), RECIPE, lambda: TILES)
    assert found.ok
    assert found.numbers == {"tiles": len(drawn()), "rules": 2, "asked": 7, "drawn": 5, "rules_short": 1}
    assert found.rows == (
        {"rule": "mangroves", "asked": 5, "candidates": 3, "drawn": 3, "why": "only 3 tiles have the class"},
        {"rule": "water", "asked": 2, "candidates": 8, "drawn": 2, "why": ""},
    )


def test_a_sample_that_lost_a_tile_is_found() -> None:
    sample = drawn()
    lost = sample[[("mangroves" in rules) for rules in sample["rules"]]].index[0]
    found = rules_have_their_count(sample.drop(index=lost), RECIPE, lambda: TILES)
    assert "rule mangroves has 2 tiles, but asks for 5 of 3 candidates" in found.violations
    assert found.rows[0]["why"] == "3 expected"


def test_a_sample_of_other_rules_or_other_tiles_is_found() -> None:
    sample = drawn()
    sample.at[0, "rules"] = [*sample.at[0, "rules"], "deserts"]
    sample.loc[len(sample)] = {**sample.iloc[1], "name": "T9", "rules": []}
    sample.loc[len(sample)] = {**sample.iloc[1], "rules": []}
    found = rules_have_their_count(sample, RECIPE, lambda: TILES)
    assert found.violations == (
        f"tile {sample['name'][1]} is in the sample twice",
        "tile T9 has no land-cover statistics",
        "rule deserts is not in the recipe test",
    )
    assert found.violation_count == 3


def test_a_published_sample_says_so_and_needs_no_land_cover() -> None:
    sample = pd.DataFrame({"name": ["T1", "T2"], "rules": [[PUBLISHED], [PUBLISHED]]})
    found = rules_have_their_count(sample, RECIPE, lambda: pytest.fail("land cover was asked for"))
    assert found.ok
    assert found.rows[0]["why"] == "taken as published"
    assert found.numbers["drawn"] == 2
    twice = rules_have_their_count(pd.concat([sample, sample.head(1)]), RECIPE, lambda: TILES)
    assert twice.violations == ("tile T1 is in the sample twice",)
