"""Random draws that depend only on names.

A draw is a function of the recipe's seed and of names (rule, tile, platform, year), never of row order, time or
process. A re-run gives the same draw, and adding one tile to the world changes at most one member of it.

`Permutation` is a random order of any length that is computed position by position, without storing it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # definitions need hashes when they load, but no permutations
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

DIGEST_BYTES = 8
ROUNDS = 6  # rounds of the Feistel network
_MULTIPLIER = 0x9E3779B97F4A7C15  # from splitmix64, like the two shifts and the other multiplier below
_MIX = 0xBF58476D1CE4E5B9


def keyed_hash(seed: int, *names: str | int) -> int:
    """BLAKE2b hash of the seed and the names, as an integer in 0 … 2**64 - 1."""
    text = "\x1f".join(map(str, (seed, *names)))  # unit separator: names never contain it, so parts stay distinct
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")


def draw(candidates: Iterable[str | int], size: int, seed: int, *names: str | int) -> list[str | int]:
    """The `size` candidates with the lowest hash of (seed, names, candidate), in that order.

    If there are fewer candidates, all are drawn.
    """
    return sorted(candidates, key=lambda candidate: (keyed_hash(seed, *names, candidate), str(candidate)))[:size]


@dataclass(frozen=True)
class Permutation:
    """A random order of the numbers below `length`, the same in every process with the same key.

    A Feistel network on the bits of the position permutes the next power of four; results beyond the length are
    permuted again until they are below it (cycle walking). https://doi.org/10.1007/3-540-45760-7_9

    Attributes:
        length: how many numbers.
        seed: the draw's seed.
        names: names that identify the draw, such as an epoch; together with the seed, they are the key.

    Examples:
        >>> sorted(Permutation(5, seed=1)(range(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    length: int
    seed: int
    names: tuple[str | int, ...] = ()

    def __call__(self, places: ArrayLike) -> NDArray[np.int64]:
        """The numbers at the given positions, each below `length`, in the shape of `places`.

        Raises:
            IndexError: a position is beyond the length.
        """
        import numpy as np

        given = np.asarray(places, np.int64)
        if given.size and (given.min() < 0 or given.max() >= self.length):
            raise IndexError(
                f"positions {given.min()} to {given.max()}: outside the permutation of length {self.length}."
            )
        half = max(1, (max(self.length - 1, 1).bit_length() + 1) // 2)
        keys = [np.uint64(keyed_hash(self.seed, *self.names, "round", number)) for number in range(ROUNDS)]
        found = given.ravel().astype(np.uint64)
        walking = np.arange(len(found))
        while walking.size:
            found[walking] = _permuted(found[walking], half, keys)
            walking = walking[found[walking] >= self.length]
        return found.astype(np.int64).reshape(given.shape)


def _permuted(numbers: NDArray[np.uint64], half: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """Permute numbers of twice `half` bits."""
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
