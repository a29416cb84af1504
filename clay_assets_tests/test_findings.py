"""Findings: summaries of many violations, and of several places combined."""

from __future__ import annotations

import pytest

from clay_assets.errors import InputError
from clay_assets.findings import SHOWN, combined, make_finding


def test_a_finding_tells_the_first_violations_and_counts_all() -> None:
    many = make_finding([f"tile {number}" for number in range(SHOWN + 3)], tiles=40)
    assert not many.ok
    assert many.violation_count == SHOWN + 3
    assert len(many.violations) == SHOWN
    assert many.summary.startswith("tile 0; tile 1; ")
    assert many.summary.endswith("; and 3 more")
    with pytest.raises(InputError, match=r"^worldcover_stats: tile 0; .*; and 3 more\. Make it again\.$"):
        many.raise_if_violated("worldcover_stats", "Make it again.")
    sound = make_finding([], tiles=40)
    assert sound.ok
    assert sound.summary == ""
    sound.raise_if_violated("worldcover_stats", "Make it again.")


def test_findings_of_several_places_add_up_and_name_their_places() -> None:
    whole = combined(
        {
            "naip|2020": make_finding([], chips=3, highest_share=0.4, lowest_share=0.2, worst="none"),
            "naip|2021": make_finding(
                ["it lies elsewhere"], violation_count=5, chips=4, highest_share=0.9, lowest_share=0.3
            ),
            "": make_finding(["a fault of all"] * (SHOWN + 1), chips=1),
        }
    )
    assert whole.numbers == {"chips": 8, "highest_share": 0.9, "lowest_share": 0.2}
    assert whole.violations == ("naip|2021: it lies elsewhere", *["a fault of all"] * (SHOWN - 1))
    assert whole.violation_count == 5 + SHOWN + 1
    assert whole.omitted == 2
