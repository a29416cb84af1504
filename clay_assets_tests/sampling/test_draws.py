"""Draws depend on the seed and the names only."""

from __future__ import annotations

import hashlib
import itertools
import random
import subprocess
import sys

import pytest

from clay_assets.draws import draw, keyed_hash

TILES = [f"{zone:02}C{column}{row}" for zone in range(1, 21) for column in "ABCDE" for row in "FGH"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("built_up", "32NLG"), b"42\x1fbuilt_up\x1f32NLG"),
        (("sentinel-2-l2a", "32NLG", 2020), b"42\x1fsentinel-2-l2a\x1f32NLG\x1f2020"),
        ((), b"42"),
        (("ä",), b"42\x1f\xc3\xa4"),
    ],
)
def test_it_is_blake2b_of_seed_and_names(names: tuple[str | int, ...], text: bytes) -> None:
    assert keyed_hash(42, *names) == int(hashlib.blake2b(text, digest_size=8).hexdigest(), 16)


def test_a_value_for_ever() -> None:
    # printf '42\x1fbuilt_up\x1f32NLG' | b2sum -l 64
    assert keyed_hash(42, "built_up", "32NLG") == 0x7A07C3B6FE360FD1


def test_names_do_not_run_together() -> None:
    assert keyed_hash(1, "ab", "c") != keyed_hash(1, "a", "bc")
    assert keyed_hash(1, "1", "2") != keyed_hash(11, "2")


def test_the_lowest_hashes_are_drawn_whatever_the_order() -> None:
    lowest = sorted(TILES, key=lambda name: hashlib.blake2b(f"7\x1fr\x1f{name}".encode(), digest_size=8).digest())[:20]
    shuffled = random.Random(0).sample(TILES, len(TILES))
    assert draw(TILES, 20, 7, "r") == lowest
    assert draw(shuffled, 20, 7, "r") == lowest
    assert draw(iter(TILES), 20, 7, "r") == lowest


def test_fewer_candidates_than_asked_for_are_all_drawn() -> None:
    assert sorted(draw(["a", "b"], 5, 1, "r")) == ["a", "b"]
    assert draw([], 5, 1, "r") == []


def test_one_more_candidate_changes_at_most_one_member() -> None:
    before = set(draw(TILES, 20, 7, "r"))
    changed = 0
    for number in range(300):
        after = set(draw([*TILES, f"new-{number}"], 20, 7, "r"))
        assert len(before - after) <= 1
        changed += before != after
    assert 5 < changed < 60  # 300 added names, each with a chance of 20 in 301


def test_one_less_candidate_changes_at_most_one_member() -> None:
    before = set(draw(TILES, 20, 7, "r"))
    for name in TILES:
        after = set(draw([other for other in TILES if other != name], 20, 7, "r"))
        assert len(before - after) == (name in before)


def test_rules_and_seeds_draw_independently() -> None:
    draws = [set(draw(TILES, 60, seed, rule)) for seed, rule in itertools.product((1, 2, 3), ("a", "b", "c"))]
    for one, other in itertools.combinations(draws, 2):
        assert 2 <= len(one & other) <= 24  # two draws of 60 of 300: 12 in common, standard deviation 2.8


def test_years_are_drawn_evenly() -> None:
    counts = dict.fromkeys(range(2018, 2024), 0)
    for tile in TILES:
        for year in draw(range(2018, 2024), 2, 42, "sentinel-2-l2a", tile):
            counts[int(year)] += 1
    assert sum(counts.values()) == 600
    assert all(70 <= count <= 130 for count in counts.values())  # 100 each, standard deviation 8


def test_another_process_draws_the_same() -> None:
    code = "from clay_assets.draws import draw; print(draw(['a','b','c','d','e','f'], 3, 42, 'r'))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {str(draw("abcdef", 3, 42, "r"))}
