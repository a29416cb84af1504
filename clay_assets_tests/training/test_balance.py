"""Class-balanced selections, and the random permutations used to draw them."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from clay_assets.draws import Permutation
from clay_assets.errors import InputError
from clay_assets.training.balance import balanced
from clay_assets.training.chipper import Chipper
from clay_assets.training.selection import open_chips
from clay_assets_tests.chips.factories import S2
from clay_assets_tests.training.made_scenes import Made


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 17, 1000, 4097])
def test_an_order_has_every_number_once(length: int) -> None:
    order = Permutation(length, 7)
    whole = order(np.arange(length))
    assert sorted(whole.tolist()) == list(range(length))
    np.testing.assert_array_equal(order([length - 1, 0]), whole[[length - 1, 0]])
    np.testing.assert_array_equal(Permutation(length, 7)(np.arange(length)), whole)


def test_orders_of_other_seeds_and_names_differ_and_are_random() -> None:
    length = 1 << 15
    orders = [Permutation(length, 1), Permutation(length, 2), Permutation(length, 1, ("epoch", 2))]
    places = np.arange(length)
    found = [order(places) for order in orders]
    for one in range(3):
        for other in range(one):
            assert (found[one] == found[other]).mean() < 0.01
        assert abs(np.corrcoef(places, found[one])[0, 1]) < 0.03
        assert abs(np.corrcoef(found[one][:-1], found[one][1:])[0, 1]) < 0.03


def test_an_order_of_the_whole_index_is_computed_place_by_place() -> None:
    length = 72_069_364
    order = Permutation(length, 0)
    found = order(np.arange(200_000) * 360)
    assert len(np.unique(found)) == 200_000
    assert (found.min() >= 0) & (found.max() < length)
    assert abs(found.mean() / length - 0.5) < 0.005
    with pytest.raises(IndexError, match="permutation of length 72069364"):
        order([length])


@pytest.mark.slow
def test_every_class_occurs_equally_often(made: Made) -> None:
    chips = open_chips(made.storage, S2)
    known = Counter(chips.table(["landcover_class"])["landcover_class"].to_pylist())
    known.pop(None, None)
    even = balanced(chips, seed=3)
    least = min(known.values())
    assert dict(zip(even.classes, even.counts.tolist(), strict=True)) == dict(known)
    assert (len(even), set(even.taken.tolist())) == (least * len(known), {least})
    rows = even.rows(np.arange(len(even)), ["chipid", "landcover_class"])
    assert Counter(rows["landcover_class"].to_pylist()) == dict.fromkeys(known, least)
    assert len(set(rows["chipid"].to_pylist())) == len(even)
    of_class = np.array(even.classes)[even.class_of(np.arange(len(even)))]
    np.testing.assert_array_equal(of_class, rows["landcover_class"].to_numpy())
    # A loss with these weights equals that of all chips that have a class.
    np.testing.assert_allclose(even.weights * even.taken / even.taken.sum(), even.counts / even.counts.sum())
    assert pickle.loads(pickle.dumps(even)).rows([4, 2], ["chipid"]) == rows.select(["chipid"]).take([4, 2])


@pytest.mark.slow
def test_rare_classes_are_taken_whole(made: Made) -> None:
    chips = open_chips(made.storage, S2)
    even = balanced(chips, per_class=2)
    np.testing.assert_array_equal(even.taken, np.minimum(even.counts, 2))
    assert balanced(chips, per_class=100).taken.tolist() == even.counts.tolist()
    assert len({balanced(chips, seed=seed).hash for seed in range(3)}) == 3
    assert {balanced(chips, by=name).by for name in ("split", "year", "item_id")} == {"split", "year", "item_id"}


def test_a_chipper_reads_a_balanced_selection(made: Made) -> None:
    even = balanced(open_chips(made.storage, S2))
    batch = Chipper(even).batch(range(len(even)))
    assert [chip.chipid for chip in batch] == even.rows(range(len(even)), ["chipid"])["chipid"].to_pylist()


def test_what_cannot_be_balanced(made: Made) -> None:
    chips = open_chips(made.storage, S2)
    with pytest.raises(InputError, match="biome: no such column"):
        balanced(chips, by="biome")
    with pytest.raises(InputError, match="per_class 0: too few"):
        balanced(chips, per_class=0)
    with pytest.raises(InputError, match="no chip"):
        balanced(open_chips(made.storage, S2, bbox=(60, 60, 61, 61)))
