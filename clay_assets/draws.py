"""Random draws that depend on names alone.

A draw is a function of the recipe's seed and of names (rule, tile, platform, year), never of row order, time or
process. So a re-run draws the same, and one more tile in the world changes at most one member of a draw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

DIGEST_BYTES = 8


def keyed_hash(seed: int, *names: str | int) -> int:
    """BLAKE2b of the seed and the names, as a number in 0 … 2**64 - 1."""
    text = "\x1f".join(map(str, (seed, *names)))  # unit separator: it occurs in no name, so parts cannot run together
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")


def draw(candidates: Iterable[str | int], size: int, seed: int, *names: str | int) -> list[str | int]:
    """The `size` candidates whose hash under (seed, names, candidate) is lowest, in that order.

    Fewer candidates than asked for are all drawn.
    """
    return sorted(candidates, key=lambda candidate: (keyed_hash(seed, *names, candidate), str(candidate)))[:size]
