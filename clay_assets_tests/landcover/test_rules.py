"""Impossible land-cover shares are found, and their tile is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clay_assets.landcover.rules import CLASS_COLUMNS, shares_sum_to_one


def stats() -> pd.DataFrame:
    """Four tiles with random shares that sum to 1."""
    shares = np.random.default_rng(7).dirichlet(np.ones(len(CLASS_COLUMNS)), 4)
    return pd.DataFrame(shares, columns=CLASS_COLUMNS).assign(name=["01KAB", "31UFU", "60KXF", "33UUU"])


def test_shares_as_they_are_made_hold() -> None:
    found = shares_sum_to_one(stats())
    assert found.ok
    assert found.numbers["tiles"] == 4
    assert found.numbers["tiles_off"] == 0
    assert 0 <= found.numbers["highest_deviation"] < 1e-12
    nothing = shares_sum_to_one(stats().head(0))
    assert nothing.ok
    assert nothing.numbers["tiles"] == 0


@pytest.mark.parametrize(
    ("damage", "deviation", "said"),
    [
        ({"Cropland": 0.25}, 0.25, "31UFU: shares sum to 1.25"),
        ({"Cropland": -1e-6}, 1e-6, "31UFU: shares sum to 0.999999"),
        ({"Cropland": float("nan")}, float("inf"), "31UFU: shares sum to nan, and not all are between 0 and 1"),
        ({"Cropland": -2, "Grassland": 2}, 0, "31UFU: shares sum to 1, and not all are between 0 and 1"),
    ],
)
def test_the_tile_that_is_off_is_named(damage: dict[str, float], deviation: float, said: str) -> None:
    table = stats()
    for column, more in damage.items():
        table.loc[1, column] = table[column][1] + more
    found = shares_sum_to_one(table)
    assert found.violations == (said,)
    assert found.numbers["tiles_off"] == found.violation_count == 1
    assert found.numbers["highest_deviation"] == pytest.approx(deviation, abs=1e-12)


def test_the_worst_tile_comes_first() -> None:
    table = stats()
    table.loc[[1, 3], "Shrubland"] += [0.1, 0.3]
    found = shares_sum_to_one(table)
    assert [said.partition(":")[0] for said in found.violations] == ["33UUU", "31UFU"]
    assert found.numbers["worst_tile"] == "33UUU"
    assert found.numbers["tiles_off"] == 2
