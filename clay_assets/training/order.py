"""The order of an epoch: the chips of each batch, and the rank and worker that make it, as functions of its number.

Nothing is stored or iterated: any batch of any epoch is computed on its own, with integers only, so an epoch is the
same on every machine and for any number of ranks and workers. A position in an epoch is one number: the samples
received.

Samples are counted in the order of batches. A batch holds chips of one platform, and the batches of the platforms are
spread evenly over the epoch. Nothing is read here: chips are numbered within their platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clay_assets.draws import Permutation, keyed_hash
from clay_assets.errors import InputError

STATE_VERSION = 1  # increase when the same seed would give a different order
MARGIN = 1.25  # runs in a batch per scene to mix, since two runs may be of one scene

Mixing = Literal["proportional", "equal"]
Shuffle = Literal["scenes", "chips", "none"]


@dataclass(frozen=True)
class Batch:
    """One batch: samples `first` to `last` of an epoch, of one platform.

    Attributes:
        epoch: from 0.
        number: number of the batch in the epoch.
        first, last: range of its samples; `last` is excluded.
        after: samples of the epoch that all ranks together have received after this batch and those that other ranks
            receive in the same step.
    """

    epoch: int
    number: int
    first: int
    last: int
    after: int

    def __len__(self) -> int:
        """Number of samples."""
        return self.last - self.first


@dataclass(frozen=True)
class Position:
    """Position of a run: the epoch and the number of its samples received."""

    epoch: int = 0
    samples: int = 0


@dataclass(frozen=True)
class Order:
    """The order of some chips in every epoch.

    Attributes:
        selection: hash of the selection.
        counts: platform key → number of chips; platforms without chips are left out.
        seed: the order's seed.
        batch_size: chips in a batch; the last batch of a platform may have fewer.
        platforms: "proportional": each chip once in an epoch. "equal": as many samples of each platform as the largest
            has chips, repeating the others' chips equally often, give or take one, as Clay does.
        shuffle: "scenes": a batch takes a few neighbouring chips from each of many scenes, so that blocks and headers
            are fetched for several chips at once. "chips": chips are shuffled individually. "none": the order of the
            index.
        scenes: number of scenes to mix in a batch, if batch and platform are large enough; for "scenes".
        drop_last: leave out incomplete batches, and batches at the end that not every rank would get.
    """

    selection: str
    counts: Mapping[str, int]
    seed: int = 0
    batch_size: int = 128
    platforms: Mixing = "proportional"
    shuffle: Shuffle = "scenes"
    scenes: int = 16
    drop_last: bool = False
    keys: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        _check(self)
        for name in ("seed", "batch_size", "scenes"):  # NumPy's integers do not serialise to JSON
            object.__setattr__(self, name, int(getattr(self, name)))
        object.__setattr__(self, "keys", tuple(key for key, count in self.counts.items() if count))

    # --- how much there is -----------------------------------------------------------------------

    @cached_property
    def chips(self) -> NDArray[np.int64]:
        """Number of chips of each platform that has any; (platforms,)."""
        return np.array([self.counts[key] for key in self.keys], np.int64)

    @cached_property
    def samples_of(self) -> NDArray[np.int64]:
        """Number of samples of each platform in an epoch; (platforms,)."""
        wanted = self.chips if self.platforms == "proportional" else np.full_like(self.chips, self.chips.max())
        return wanted // self.batch_size * self.batch_size if self.drop_last else wanted

    @cached_property
    def samples(self) -> int:
        """Number of samples in an epoch, over all ranks."""
        return int(self.samples_of.sum())

    @cached_property
    def batches_of(self) -> NDArray[np.int64]:
        """Number of batches of each platform in an epoch; (platforms,)."""
        return -(-self.samples_of // self.batch_size)

    @cached_property
    def batches(self) -> int:
        """Number of batches in an epoch, over all ranks."""
        return int(self.batches_of.sum())

    @property
    def run(self) -> int:
        """Number of neighbouring chips of a scene taken together."""
        return max(1, int(self.batch_size / (self.scenes * MARGIN))) if self.shuffle == "scenes" else 1

    def times(self, epoch: int, platform: str, chips: ArrayLike) -> NDArray[np.int64]:
        """How often some chips of a platform occur in an epoch; (n,)."""
        place = self.keys.index(platform)
        rounds, rest = divmod(int(self.samples_of[place]), int(self.chips[place]))
        again = self._places(epoch, place, rounds, np.arange(rest))
        return rounds + np.isin(np.asarray(chips, np.int64), again)

    # --- which batch is which --------------------------------------------------------------------

    def before(self, epoch: int, numbers: ArrayLike) -> NDArray[np.int64]:
        """Number of batches of each platform before given batches of an epoch (0 to `batches`); (platforms, n).

        Each platform's share of the remaining batches is rounded down, from a random start, so its batches are spaced
        as evenly as possible.
        """
        rest, left = np.atleast_1d(np.asarray(numbers, np.int64)), self.batches
        found = np.empty((len(self.keys), len(rest)), np.int64)
        for place, key in enumerate(self.keys):
            batches = int(self.batches_of[place])
            start = keyed_hash(self.seed, self.selection, epoch, "start", key) % max(left, 1)
            found[place] = (rest * batches + start) // max(left, 1)
            rest, left = rest - found[place], left - batches
        return found

    def starts(self, epoch: int, numbers: ArrayLike) -> NDArray[np.int64]:
        """Number of samples before given batches of an epoch (0 to `batches`); (n,)."""
        begun = self.before(epoch, numbers) * self.batch_size
        starts: NDArray[np.int64] = np.minimum(begun, self.samples_of[:, None]).sum(axis=0)
        return starts

    def at(self, position: Position) -> int:
        """The batch that contains the next sample after a position; `batches` at the end."""
        low, high = 0, self.batches
        while low < high:  # find the first batch that ends after the position
            middle = (low + high) // 2
            if self.starts(position.epoch, middle + 1)[0] <= position.samples:
                low = middle + 1
            else:
                high = middle
        return low

    def platform_of(self, batch: Batch) -> str:
        """Key of the platform of a batch."""
        return self.keys[int(self._which(batch.epoch, np.array([batch.number]))[0][0])]

    def _which(self, epoch: int, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index of the platform of some batches, and their numbers among its batches."""
        before = self.before(epoch, np.concatenate([numbers, numbers + 1])).reshape(len(self.keys), 2, -1)
        place = (before[:, 1] > before[:, 0]).argmax(axis=0)
        return place, before[place, 0, np.arange(len(numbers))]

    # --- which chips it holds --------------------------------------------------------------------

    def places(self, batch: Batch) -> NDArray[np.int64]:
        """The chips of a batch, numbered within its platform; for "scenes" in scene order; (n,)."""
        (place,), (number,) = (found.tolist() for found in self._which(batch.epoch, np.array([batch.number])))
        start = int(self.starts(batch.epoch, batch.number)[0])
        samples = number * self.batch_size + np.arange(batch.first - start, batch.last - start)
        return self.places_of(batch.epoch, self.keys[place], samples)

    def places_of(self, epoch: int, platform: str, samples: ArrayLike) -> NDArray[np.int64]:
        """The chips of some samples of a platform in an epoch, numbered as in `places`; (n,)."""
        place = self.keys.index(platform)
        given = np.asarray(samples, np.int64)
        rounds, within = np.divmod(given, self.chips[place])
        found = np.empty_like(given)
        for number in np.unique(rounds).tolist():
            here = rounds == number
            found[here] = self._places(epoch, place, number, within[here])
        return found

    def _places(self, epoch: int, place: int, number: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same within one pass over all chips of a platform."""
        count, run = int(self.chips[place]), self.run
        if self.shuffle == "none":
            return samples
        names = self.selection, epoch, self.keys[place], number
        if run == 1:
            return Permutation(count, self.seed, names)(samples)
        # Runs start at a different offset in each pass, so that different chips are grouped and left over at the end.
        start = keyed_hash(self.seed, *names, "start") % count
        runs = count // run
        whole = samples < runs * run
        found = samples.copy()
        of_run, within = np.divmod(samples[whole], run)
        found[whole] = Permutation(runs, self.seed, names)(of_run) * run + within
        return (found + start) % count

    # --- who makes it ----------------------------------------------------------------------------

    def stop(self, begin: Position, ranks: int = 1) -> int:
        """The batch before which iteration stops."""
        if not self.drop_last:
            return self.batches
        start = self.at(begin)
        return start + (self.batches - start) // ranks * ranks

    def numbers(self, begin: Position, rank: int = 0, ranks: int = 1, worker: int = 0, workers: int = 1) -> range:
        """The batches that a worker of a rank makes when iteration starts at a position.

        Counted from the first batch of the iteration, batch n goes to rank n mod ranks, and there to worker n // ranks
        mod workers. A DataLoader asks its workers in turn, so each rank receives its batches in order.
        """
        start = self.at(begin)
        return range(start + rank + worker * ranks, self.stop(begin, ranks), ranks * workers)

    def shared(
        self, begin: Position, rank: int = 0, ranks: int = 1, worker: int = 0, workers: int = 1
    ) -> Iterator[Batch]:
        """The batches themselves; the first is shortened if the position lies within it."""
        start, stop = self.at(begin), self.stop(begin, ranks)
        for number in self.numbers(begin, rank, ranks, worker, workers):
            step_ends = min(stop, number + ranks - (number - start) % ranks)
            first, last, after = self.starts(begin.epoch, [number, number + 1, step_ends]).tolist()
            yield Batch(begin.epoch, number, max(first, begin.samples), last, after)

    # --- what is kept of it ----------------------------------------------------------------------

    @property
    def made(self) -> str:
        """What the order depends on, besides selection, seed and epoch."""
        dropped = " drop" if self.drop_last else ""
        return f"{self.batch_size} {self.platforms} {self.shuffle} {self.scenes}{dropped}"

    def state(self, position: Position) -> dict[str, Any]:
        """What a run must save to be resumed: at most 200 bytes as JSON."""
        return {
            "version": STATE_VERSION,
            "selection": self.selection,
            "order": self.made,
            "seed": self.seed,
            "epoch": position.epoch,
            "position": position.samples,
        }

    def position(self, state: Mapping[str, Any]) -> Position:
        """The position saved in a state.

        Raises:
            InputError: not a valid state, or one of other chips, another seed, order or version.
        """
        expected = self.state(Position())
        if not isinstance(state, Mapping) or set(state) != set(expected):
            raise InputError(f"state {state!r}: not one of `state_dict`. Load what `state_dict` gave.")
        says = {
            "version": "another version of clay_assets, whose order differs. Begin an epoch",
            "selection": "other chips, or the index was merged again. Open those chips, or start over",
            "order": "another order. Pass the same batch size, platforms, shuffle, scenes and drop_last",
            "seed": "another seed. Pass the same",
        }
        for name, words in says.items():
            if state[name] != expected[name]:
                raise InputError(f"state: its {name} is {state[name]!r}, not {expected[name]!r}: it is of {words}.")
        epoch, samples = state["epoch"], state["position"]
        if not (_whole(epoch) and _whole(samples) and 0 <= samples <= self.samples and epoch >= 0):
            raise InputError(
                f"state: epoch {epoch!r}, position {samples!r} is not in an epoch of {self.samples:,} samples. Load "
                "what `state_dict` gave."
            )
        return Position(epoch, samples)


def _check(order: Order) -> None:
    for name in ("batch_size", "scenes"):
        value = getattr(order, name)
        if not _whole(value) or value < 1:
            raise InputError(f"{name} {value!r}: not a whole number from 1. Ask for at least 1.")
    if not _whole(order.seed):
        raise InputError(f"seed {order.seed!r}: not a whole number. Pass an integer.")
    if order.seed.bit_length() > 64:
        raise InputError(f"seed {order.seed}: longer than 64 bits. Pass a smaller number.")
    for name, kind in (("platforms", Mixing), ("shuffle", Shuffle)):
        if getattr(order, name) not in get_args(kind):
            known = " or ".join(map(repr, get_args(kind)))
            raise InputError(f"{name} {getattr(order, name)!r}: not known. Say {known}.")
    if not any(order.counts.values()):
        raise InputError("no chip is selected. Select another platform, year, split or place.")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def hash_of(hashes: list[str]) -> str:
    """The combined hash of several selections."""
    return hashes[0] if len(hashes) == 1 else hashlib.blake2b(" ".join(hashes).encode(), digest_size=16).hexdigest()
