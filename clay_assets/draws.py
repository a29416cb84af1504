"""Random draws that depend on names alone.

A draw is a function of the recipe's seed and of names (rule, tile, platform, year), never of row order, time or
process. So a re-run draws the same, and one more tile in the world changes at most one member of a draw.

`Permutation` is a random order of any length that is computed place by place, so that nobody has to hold it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # hashes are drawn where definitions load, permutations are not
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

DIGEST_BYTES = 8
ROUNDS = 6  # of the Feistel network
_MULTIPLIER = 0x9E3779B97F4A7C15  # of splitmix64, as the two shifts and the other multiplier below
_MIX = 0xBF58476D1CE4E5B9


def keyed_hash(seed: int, *names: str | int) -> int:
    """BLAKE2b of the seed and the names, as a number in 0 … 2**64 - 1."""
    text = "\x1f".join(map(str, (seed, *names)))  # unit separator: it occurs in no name, so parts cannot run together
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")


def draw(candidates: Iterable[str | int], size: int, seed: int, *names: str | int) -> list[str | int]:
    """The `size` candidates whose hash under (seed, names, candidate) is lowest, in that order.

    Fewer candidates than asked for are all drawn.
    """
    return sorted(candidates, key=lambda candidate: (keyed_hash(seed, *names, candidate), str(candidate)))[:size]


@dataclass(frozen=True)
class Permutation:
    """A random order of the numbers below `length`, the same for every process that knows its key.

    A Feistel network on the bits of the place permutes the next power of four; numbers that fall beyond the length are
    permuted again until they do not (cycle walking). https://doi.org/10.1007/3-540-45760-7_9

    Attributes:
        length: how many numbers.
        seed: of the draw.
        names: what is drawn, such as an epoch; with the seed, the key.

    Example:
        >>> sorted(Permutation(5, seed=1)(range(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    length: int
    seed: int
    names: tuple[str | int, ...] = ()

    def __call__(self, places: ArrayLike) -> NDArray[np.int64]:
        """The numbers at some places, each below `length`, in the shape of `places`.

        Raises:
            IndexError: a place lies beyond the length.
        """
        import numpy as np

        given = np.asarray(places, np.int64)
        if given.size and (given.min() < 0 or given.max() >= self.length):
            raise IndexError(f"places from {given.min()} to {given.max()} of an order of {self.length}.")
        half = max(1, (max(self.length - 1, 1).bit_length() + 1) // 2)
        keys = [np.uint64(keyed_hash(self.seed, *self.names, "round", number)) for number in range(ROUNDS)]
        found = given.ravel().astype(np.uint64)
        walking = np.arange(len(found))
        while walking.size:
            found[walking] = _permuted(found[walking], half, keys)
            walking = walking[found[walking] >= self.length]
        return found.astype(np.int64).reshape(given.shape)


def _permuted(numbers: NDArray[np.uint64], half: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """Numbers of twice `half` bits, in another order."""
    import numpy as np

    multiplier, mix = np.uint64(_MULTIPLIER), np.uint64(_MIX)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = numbers >> shift, numbers & mask
    with np.errstate(over="ignore"):
        for key in keys:
            mixed = (right + key) * multiplier
            mixed = (mixed ^ (mixed >> np.uint64(30))) * mix
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(31))) & mask)
    return (left << shift) | right
