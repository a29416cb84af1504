"""The rule that `mgrs_sample` must satisfy. The draw itself is in `tiles`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pandas as pd

from clay_assets.findings import Finding, make_finding, names
from clay_assets.recipes import Recipe
from clay_assets.sampling.tiles import PUBLISHED, candidates_of


def rules_have_their_count(sample: pd.DataFrame, recipe: Recipe, land_cover: Callable[[], pd.DataFrame]) -> Finding:
    """Every rule of the recipe drew as many tiles as it asks for, or all candidates if there are fewer.

    For a published sample, which was not drawn by rules, only the names are checked.

    Args:
        sample: `name` and `rules`, the names of the rules that chose each tile.
        recipe: the recipe with the rules.
        land_cover: returns the statistics that the sample was drawn from; not called for a published sample.

    Returns:
        `tiles`, `rules`, `asked`, `drawn`, and `rules_short`, the number of rules with fewer candidates than they ask
        for; one row per rule.
    """
    drawn = Counter(rule for rules in sample["rules"] for rule in rules)
    repeated = names(sample["name"][sample["name"].duplicated()])
    violations = [f"tile {name} is in the sample twice" for name in repeated]
    if set(drawn) == {PUBLISHED}:
        count = drawn[PUBLISHED]
        row = {"rule": PUBLISHED, "asked": "all", "candidates": count, "drawn": count, "why": "taken as published"}
        return make_finding(violations, [row], tiles=len(sample), rules=0, asked=count, drawn=count, rules_short=0)
    stats = land_cover()
    foreign = names(set(sample["name"]) - set(stats["name"]))
    violations += [f"tile {name} has no land-cover statistics" for name in foreign]
    known = {rule.rule for rule in recipe.tile_rules}
    violations += [f"rule {rule} is not in the recipe {recipe.name}" for rule in names(set(drawn) - known)]
    rows, short = [], 0
    for rule in recipe.tile_rules:
        candidates = candidates_of(stats, rule)
        expected = min(rule.tiles, candidates)  # recipes are validated: a pool is at least as large as its draw
        short += expected < rule.tiles
        why = f"only {candidates} tiles have the class" if expected < rule.tiles else ""
        if drawn[rule.rule] != expected:
            why = f"{expected} expected"
            violations.append(
                f"rule {rule.rule} has {drawn[rule.rule]} tiles, but asks for {rule.tiles} of {candidates} candidates"
            )
        rows.append(
            {
                "rule": rule.rule,
                "asked": rule.tiles,
                "candidates": candidates,
                "drawn": drawn[rule.rule],
                "why": why,
            }
        )
    return make_finding(
        violations,
        rows,
        tiles=len(sample),
        rules=len(rows),
        asked=sum(rule.tiles for rule in recipe.tile_rules),
        drawn=sum(drawn.values()),
        rules_short=short,
    )
