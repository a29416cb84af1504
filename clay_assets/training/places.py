"""Indices in a selection: integers; negative ones count from the end."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clay_assets.errors import InputError


def places_of(indices: ArrayLike, count: int) -> NDArray[np.int64]:
    """Indices as non-negative integers, (n,).

    Raises:
        InputError: an index is not an integer.
        IndexError: an index is out of range.
    """
    given = np.atleast_1d(np.asarray(indices)).ravel()
    if given.size and given.dtype.kind not in "iu":
        raise InputError(f"indices of chips are {given.dtype}, not whole numbers. Pass integers.")
    places = given.astype(np.int64)
    places = np.where(places < 0, places + count, places)
    beyond = (places < 0) | (places >= count)
    if beyond.any():
        raise IndexError(f"chip {given[beyond][0]}: the selection has {count:,} chips.")
    return places
