"""Positions on a Hilbert curve over the world, by which chips are sorted, so that neighbours are close in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HILBERT_LEVEL = 16  # bits per axis: cells of 0.005° of longitude, smaller than chips of any platform except NAIP
WORLD = (-180.0, -90.0, 180.0, 90.0)

Keys = NDArray[np.uint32]


def keys_of(bounds: NDArray[np.float64]) -> Keys:
    """Position on the curve of the centre of each bounding box.

    Args:
        bounds: west, south, east and north, degrees; (n, 4). A chip split at the antimeridian spans the world; its
            position is the antimeridian.
    """
    west, south, east, north = bounds.T
    return hilbert_distance(np.where(east - west > WORLD[2], WORLD[2], (west + east) / 2), (south + north) / 2)


def hilbert_distance(x: NDArray[np.float64], y: NDArray[np.float64]) -> Keys:
    """Distance of each position along a Hilbert curve over the world, equal to geopandas' `hilbert_distance`.

    The algorithm is Rawrunprotected's (http://threadlocalmutex.com/, public domain), which geopandas also uses.
    """
    side = (1 << HILBERT_LEVEL) - 1
    places: list[Any] = [
        np.clip((values - low) * (side / (high - low)), 0, side).astype(np.uint32)
        for values, low, high in ((x, WORLD[0], WORLD[2]), (y, WORLD[1], WORLD[3]))
    ]
    along, across = places
    whole = np.uint32(side)
    a, b = along ^ across, whole ^ along ^ across
    c, d = whole ^ (along | across), along & (across ^ whole)
    e, f = a | (b >> 1), (a >> 1) ^ a
    g, h = ((c >> 1) ^ (b & (d >> 1))) ^ c, ((a & (c >> 1)) ^ (d >> 1)) ^ d
    for shift in (2, 4):
        a, b, c, d = e, f, g, h
        e, f = (a & (a >> shift)) ^ (b & (b >> shift)), (a & (b >> shift)) ^ (b & ((a ^ b) >> shift))
        g = g ^ ((a & (c >> shift)) ^ (b & (d >> shift)))
        h = h ^ ((b & (c >> shift)) ^ ((a ^ b) & (d >> shift)))
    a, b, c, d = e, f, g, h
    g = g ^ ((a & (c >> 8)) ^ (b & (d >> 8)))
    h = h ^ ((b & (c >> 8)) ^ ((a ^ b) & (d >> 8)))
    a, b = g ^ (g >> 1), h ^ (h >> 1)
    low = along ^ across
    high = b | (whole ^ (low | a))
    return np.asarray((_spread(high) << 1) | _spread(low))


def _spread(bits: Keys) -> Keys:
    """Spread sixteen bits, with a gap between neighbours."""
    found: Any = bits
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        found = (found | (found << shift)) & np.uint32(mask)
    return np.asarray(found)
