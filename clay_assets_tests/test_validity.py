"""Findings: what is told of many violations, and of several places together."""

from __future__ import annotations

import pytest

from clay_assets.errors import InputError
from clay_assets.validity import SHOWN, finding, together


def test_a_finding_tells_the_first_violations_and_counts_all() -> None:
    many = finding([f"tile {number}" for number in range(SHOWN + 3)], tiles=40)
    assert not many.holds
    assert many.violated == SHOWN + 3
    assert len(many.violations) == SHOWN
    assert many.told.startswith("tile 0; tile 1; ")
    assert many.told.endswith("; and 3 more")
    with pytest.raises(InputError, match=r"^worldcover_stats: tile 0; .*; and 3 more\. Make it again\.$"):
        many.demand("worldcover_stats", "Make it again.")
    sound = finding([], tiles=40)
    assert sound.holds
    assert sound.told == ""
    sound.demand("worldcover_stats", "Make it again.")


def test_findings_of_several_places_add_up_and_name_their_places() -> None:
    whole = together(
        {
            "naip|2020": finding([], chips=3, highest_share=0.4, lowest_share=0.2, worst="none"),
            "naip|2021": finding(["it lies elsewhere"], violated=5, chips=4, highest_share=0.9, lowest_share=0.3),
            "": finding(["a fault of all"] * (SHOWN + 1), chips=1),
        }
    )
    assert whole.numbers == {"chips": 8, "highest_share": 0.9, "lowest_share": 0.2}
    assert whole.violations == ("naip|2021: it lies elsewhere", *["a fault of all"] * (SHOWN - 1))
    assert whole.violated == 5 + SHOWN + 1
    assert whole.untold == 2
