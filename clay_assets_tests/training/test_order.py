"""The order of an epoch: every sample once, wherever it is interrupted and with any ranks and workers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from clay_assets.errors import InputError
from clay_assets.training.order import Order, Position

HASH = "a" * 32
PLATFORMS = {"sentinel-2-l2a": 1003, "linz": 37, "modis": 0, "naip": 1}
WHOLE = 72_069_364  # chips of the published index


def made(**changes: Any) -> Order:
    return Order(**{"selection": HASH, "counts": PLATFORMS, "seed": 5, "batch_size": 16, **changes})


def chips_of(order: Order, epoch: int = 0) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {key: [] for key in order.counts}
    for batch in order.shared(Position(epoch)):
        places = order.places(batch)
        assert len(places) == len(batch) > 0
        found[order.platform_of(batch)] += places.tolist()
    return found


@pytest.mark.parametrize("shuffle", ["scenes", "chips", "none"])
@pytest.mark.parametrize("batch_size", [7, 128, 5000])
@pytest.mark.parametrize("platforms", ["proportional", "equal"])
def test_an_epoch_has_every_chip(shuffle: str, batch_size: int, platforms: str) -> None:
    order = made(shuffle=shuffle, batch_size=batch_size, platforms=platforms, scenes=4)
    found = chips_of(order, epoch=3)
    assert sum(map(len, found.values())) == order.samples
    for key, count in PLATFORMS.items():
        times = np.bincount(found[key], minlength=count)
        if count:
            np.testing.assert_array_equal(times, order.times(3, key, np.arange(count)))
            whole, more = (1, 0) if platforms == "proportional" else divmod(max(PLATFORMS.values()), count)
            assert (times.min(), times.sum()) == (whole, whole * count + more)
            assert times.max() <= whole + (more > 0)


def test_epochs_seeds_and_selections_differ_and_none_is_as_the_index() -> None:
    orders = [made(batch_size=64, **one) for one in ({}, {"seed": 6}, {"selection": "b" * 32}, {"shuffle": "chips"})]
    found = [chips_of(order)["sentinel-2-l2a"] for order in orders] + [chips_of(orders[0], 1)["sentinel-2-l2a"]]
    assert len({tuple(chips) for chips in found}) == 5
    assert chips_of(made(shuffle="none"))["sentinel-2-l2a"] == list(range(1003))


def test_an_order_is_the_same_on_every_machine() -> None:
    order = made(batch_size=48)
    chips = json.dumps([order.places(batch).tolist() for batch in order.shared(Position(2))])
    assert hashlib.sha256(chips.encode()).hexdigest()[:16] == "485a6a80c3bf3751"


@pytest.mark.parametrize("platforms", ["proportional", "equal"])
def test_platforms_are_spread_evenly(platforms: str) -> None:
    order = made(counts={"sentinel-2-l2a": 6400, "linz": 1600, "naip": 800}, platforms=platforms)
    keys = np.array([order.platform_of(batch) for batch in order.shared(Position())])
    for key, batches in zip(order.keys, order.batches_of.tolist(), strict=True):
        places = np.flatnonzero(keys == key)
        assert len(places) == batches
        assert np.diff(places).max() <= 3 * len(keys) / batches
    assert order.starts(0, [0, order.batches]).tolist() == [0, order.samples]


def test_batches_of_128_mix_16_scenes_and_more() -> None:
    scenes, chips = 300, 120
    order = made(counts={"sentinel-2-l2a": scenes * chips}, batch_size=128)
    mixed = []
    for batch in order.shared(Position()):
        scene, times = np.unique(order.places(batch) // chips, return_counts=True)
        mixed.append(len(scene))
        assert times.max() <= 4 * order.run
    assert order.run == 6
    assert min(mixed[:-1]) >= 16
    assert 20 < np.mean(mixed) < 24


def broken_off(order: Order, kills: int, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The samples received in an epoch that is interrupted at random, with different ranks and workers each time."""
    draw = np.random.default_rng(seed)
    came = np.zeros(order.samples, np.bool_)
    stops = np.sort(draw.integers(0, order.samples, kills))
    layouts = [(8, 4), (5, 0), (16, 7), (1, 1)]
    position = Position()
    for life, stop in enumerate([*stops.tolist(), order.samples]):
        ranks, workers = layouts[life % len(layouts)]
        start, ends = order.at(position), order.stop(position, ranks)
        shares = [
            order.numbers(position, rank, ranks, worker, max(1, workers))
            for rank in range(ranks)
            for worker in range(max(1, workers))
        ]
        numbers = np.sort(np.concatenate([np.arange(share.start, share.stop, share.step) for share in shares]))
        np.testing.assert_array_equal(numbers, np.arange(start, ends))
        # All ranks have received the same number of batches when the run is killed; `after` is the position.
        killed = max(order.at(Position(0, stop)), start)
        steps = (killed - start) // ranks
        received = numbers[: steps * ranks] if stop < order.samples else numbers
        begun = np.maximum(order.starts(0, received), position.samples)
        ended = order.starts(0, received + 1)
        if len(received):
            assert begun[0] == position.samples
            np.testing.assert_array_equal(begun[1:], ended[:-1])
            assert not came[begun[0] : ended[-1]].any()
            came[begun[0] : ended[-1]] = True
            last = next(
                order.shared(Position(0, int(begun[-1])), 0, 1)
                if stop == order.samples
                else order.shared(Position(0, int(begun[-ranks])), ranks - 1, ranks)
            )
            assert last.after == ended[-1]
            position = order.position(json.loads(json.dumps(order.state(Position(0, last.after)))))
    return came


@pytest.mark.slow
@pytest.mark.parametrize(("shuffle", "part"), [("scenes", 1), ("chips", 8)])  # the default on the whole index
def test_the_whole_index_comes_once_however_often_it_is_broken_off(shuffle: str, part: int) -> None:
    counts = {"sentinel-2-l2a": 40_000_001, "landsat-c2l1": 22_000_000, "naip": 10_000_000, "modis": 69_363}
    assert sum(counts.values()) == WHOLE
    counts = {key: count // part for key, count in counts.items()}
    order = made(counts=counts, batch_size=128, shuffle=shuffle, seed=11)
    assert broken_off(order, 20, 1).all()
    # Samples are chips here, so each platform's samples are all its chips.
    for key, count in counts.items():
        came = np.zeros(count, np.bool_)
        for start in range(0, count, 1 << 18):
            came[order.places_of(0, key, np.arange(start, min(start + (1 << 18), count)))] = True
        assert came.all()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("platforms", ["proportional", "equal"])
def test_small_epochs_come_once_however_often_they_are_broken_off(batch_size: int, platforms: str) -> None:
    assert broken_off(made(batch_size=batch_size, platforms=platforms), 6, 2).all()


def test_a_position_may_lie_within_a_batch() -> None:
    order = made()
    whole = [order.places(batch).tolist() for batch in order.shared(Position())]
    flat = [chip for batch in whole for chip in batch]
    for samples in (0, 1, 15, 16, 700, order.samples - 1, order.samples):
        left = [chip for batch in order.shared(Position(0, samples)) for chip in order.places(batch).tolist()]
        assert left == flat[samples:]


def test_fewer_batches_than_ranks() -> None:
    order = made(counts={"naip": 3}, batch_size=2)
    lengths = [[len(batch) for batch in order.shared(Position(), rank, 5)] for rank in range(5)]
    assert lengths == [[2], [1], [], [], []]
    assert [batch.after for rank in range(2) for batch in order.shared(Position(), rank, 5)] == [3, 3]
    assert made(counts={"naip": 1}).samples == 1


def test_what_is_not_full_can_be_left_out() -> None:
    order = made(drop_last=True)
    assert (order.samples_of.tolist(), order.samples) == ([992, 32, 0], 1024)
    steps = [[len(batch) for batch in order.shared(Position(), rank, 5)] for rank in range(5)]
    assert steps == [[16] * 12] * 5
    assert order.stop(Position(), 100) == 0


def test_a_state_is_small_and_fits_its_order_alone() -> None:
    order = made(seed=2**63, counts={"sentinel-2-l2a": WHOLE}, platforms="proportional")
    state = order.state(Position(123_456, WHOLE))
    assert len(json.dumps(state).encode()) <= 200
    assert order.position(json.loads(json.dumps(state))) == Position(123_456, WHOLE)
    again = made(seed=2**63, counts={"sentinel-2-l2a": WHOLE}, batch_size=32)
    for changed, words in (
        ({**state, "version": 0}, r"its version is 0, not 1: it is of another version of clay_assets"),
        ({**state, "selection": "b" * 32}, "its selection is 'b.*the index was merged again"),
        ({**state, "seed": 1}, "its seed is 1, not 9223372036854775808: it is of another seed. Pass the same"),
        ({**state, "position": WHOLE + 1}, "is not in an epoch of 72,069,364 samples"),
        ({**state, "position": -1}, "position -1 is not in an epoch"),
        ({**state, "position": 1.5}, r"position 1.5 is not in an epoch"),
        ({**state, "epoch": -1}, "epoch -1"),
        ({}, "not one of `state_dict`"),
        (None, "not one of `state_dict`"),
        ({**state, "more": 1}, "not one of `state_dict`"),
    ):
        with pytest.raises(InputError, match=words):
            order.position(changed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"its order is '16 proportional scenes 16', not '32 .*same batch size"):
        again.position(state)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size 0: not a whole number from 1"),
        ({"batch_size": 2.0}, "batch_size 2.0: not a whole number"),
        ({"batch_size": True}, "batch_size True: not a whole number"),
        ({"scenes": 0}, "scenes 0"),
        ({"seed": "1"}, "seed '1': not a whole number"),
        ({"seed": 2**64}, "longer than 64 bits"),
        ({"platforms": "even"}, "platforms 'even': not known. Say 'proportional' or 'equal'"),
        ({"shuffle": True}, "shuffle True: not known. Say 'scenes' or 'chips' or 'none'"),
        ({"counts": {"naip": 0}}, "no chip is selected"),
        ({"counts": {}}, "no chip is selected"),
    ],
)
def test_what_is_no_order(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        made(**changes)
