"""The ground seen from above: woods, fields, towns and water, as codes of `materials`.

Nothing is drawn pixel by pixel: every pattern is a vectorised function of the coordinates, and random choices are
hashed from the number of a parcel, a house or a tree. Periods are powers of two where possible, which keeps the files
small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clay_assets.demo.materials import EVEN, SHADES, Material, code
from clay_assets.demo.noise import generator, smooth_field

T = TypeVar("T", bound=np.generic)
Codes = NDArray[np.uint8]
Numbers = NDArray[np.float32]

CROPS, TOWN, SNOW, WATER = 40, 50, 70, 80  # WorldCover codes
SHALLOWS = 81  # an additional code
SHORE = 0.82  # share of sea level above which water is shallow
TEXTURE = 512  # period of textures in pixels
GRAIN = 64  # period of the pixel-to-pixel texture
SQRT2 = 2**0.5


def scatter(salt: int, *numbers: Any) -> Numbers:
    """A hashed number in [0, 1) for each position given as integers."""
    mixed = np.full(np.broadcast_shapes(*(np.shape(one) for one in numbers)), salt * 2654435761 % 2**32, np.uint32)
    for one in numbers:
        mixed = (mixed ^ np.asarray(one).astype(np.int64).astype(np.uint32)) * np.uint32(0x9E3779B1)
        mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x85EBCA77)
    mixed ^= mixed >> np.uint32(13)
    spread: Numbers = (mixed >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)
    return spread


def enlarge(field: NDArray[Any], shape: tuple[int, int], factor: float) -> Numbers:
    """Upsample a field bilinearly: pixel i of the result is at (i + 0.5) / factor − 0.5."""
    larger: Numbers = np.asarray(field, np.float32)
    for axis, count in enumerate(shape):
        size = larger.shape[axis]
        place = np.clip((np.arange(count, dtype=np.float32) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(place.astype(int), size - 2)
        weight = np.expand_dims(place - low, 1 - axis).astype(np.float32)
        larger = larger.take(low, axis) * (1 - weight) + larger.take(low + 1, axis) * weight
    return larger


def shaded(material: Any, shade: Any) -> Codes:
    """Codes of materials in a given shade; shades are clipped to the darkest and the brightest."""
    codes: Codes = (np.asarray(material) * SHADES + np.clip(EVEN + np.asarray(shade), 0, SHADES - 1)).astype(np.uint8)
    return codes


def chosen(number: Numbers, *among: tuple[Material, float]) -> Codes:
    """A material for each number from 0 to 1, chosen by share; the last one takes the rest."""
    materials, shares = zip(*among, strict=True)
    return np.array(materials, np.uint8)[np.searchsorted(np.cumsum(shares[:-1]), number, side="right")]


@lru_cache(maxsize=1)
def _textures(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]:
    """Periodic textures with short and long wavelengths, and from pixel to pixel."""
    rng = generator(seed, "ground")
    grain = smooth_field(rng, (GRAIN, GRAIN), 1.5)
    near, far = (smooth_field(rng, (TEXTURE, TEXTURE), scale) for scale in (10, 90))
    return near, far, np.clip(np.round(grain * 0.9), -2, 2).astype(np.int8)


@dataclass(frozen=True)
class Spots:
    """Pixels of a landscape, as arrays of the same shape.

    Attributes:
        salt: of the place, for all that is hashed.
        pixel: pixel size, m.
        x, y: column and row.
        near, far: textures that vary over few and many pixels, mean 0, unit variance.
        grain: texture that varies from pixel to pixel, −2 to 2.
    """

    salt: int
    pixel: float
    x: Numbers
    y: Numbers
    near: Numbers
    far: Numbers
    grain: NDArray[np.int8]

    @classmethod
    def of(cls, seed: int, name: str, shape: tuple[int, int], pixel: float) -> Spots:
        """All pixels of a place, (height, width)."""
        rng = generator(seed, "ground", name)
        salt, *shift = (int(n) for n in rng.integers([2**31, TEXTURE, TEXTURE]))
        y, x = (np.arange(count, dtype=np.float32) for count in shape)
        near, far, grain = _textures(seed)
        return cls(
            salt,
            pixel,
            np.broadcast_to(x, shape),
            np.broadcast_to(y[:, None], shape),
            _covered(near, shape, shift),
            _covered(far, shape, shift),
            _covered(grain, shape, shift),
        )

    def where(self, mask: NDArray[np.bool_]) -> Spots:
        """A subset of the pixels."""
        x, y, near, far = (one[mask] for one in (self.x, self.y, self.near, self.far))
        return Spots(self.salt, self.pixel, x, y, near, far, self.grain[mask])


def _covered(tile: NDArray[T], shape: tuple[int, int], shift: list[int]) -> NDArray[T]:
    """Repeat a periodic tile over a grid."""
    rows, columns = ((np.arange(count) + move) % len(tile) for count, move in zip(shape, shift, strict=True))
    return tile.take(rows, axis=0).take(columns, axis=1)


def _parcels(spots: Spots, salt: int, width: float, length: float, uneven: float) -> tuple[Any, ...]:
    """Strips of land, divided into parcels: numbers of district, strip and parcel, and distances to two edges."""
    salt += spots.salt
    district = np.digitize(spots.far, (-0.45, 0.5))
    angle = np.array([0.2, -0.5, 0.9], np.float32) + 0.4 * scatter(salt, np.arange(3))
    cos, sin = np.cos(angle)[district], np.sin(angle)[district]
    across, along = spots.x * cos + spots.y * sin, spots.y * cos - spots.x * sin
    across /= width
    if uneven:
        across += uneven * np.sin(1.9 * across)
    strip = np.floor(across)
    size = length * (0.6 + 0.9 * scatter(salt + 1, strip, district))
    along = along / size + 9 * scatter(salt + 2, strip, district)
    parcel = np.floor(along)
    return district, strip, parcel, (across - strip) * width, (along - parcel) * size


def _woods(spots: Spots) -> Codes:
    shade = spots.grain + np.round(0.35 * spots.far).astype(np.int8)
    return shaded(np.where(spots.far + spots.near > 1.6, Material.CONIFERS, Material.WOOD), shade)


def _patches(spots: Spots, field: Numbers, *among: tuple[Material, float], rough: float = 1) -> Codes:
    """Materials by the height of a field of unit variance; `rough`: how much each material varies."""
    edges = [NormalDist().inv_cdf(share) for share in accumulate(share for _, share in among[:-1])]
    material = np.array([one for one, _ in among], np.uint8)[np.digitize(field, edges)]
    return shaded(material, np.round(rough * spots.grain).astype(np.int8))


def _fields(spots: Spots) -> Codes:
    """Parcels of crops, meadows and bare soil, with hedges, tracks and a few woods."""
    width = max(7, 320 / spots.pixel)
    district, strip, parcel, side, end = _parcels(spots, 10, width, 1.6 * width, 0.35)
    material = chosen(
        scatter(spots.salt + 13, strip, parcel, district),
        (Material.CROP, 0.22),
        (Material.YOUNG_CROP, 0.2),
        (Material.RIPE_CROP, 0.2),
        (Material.SOIL, 0.14),
        (Material.DARK_SOIL, 0.08),
        (Material.GRASS, 0.1),
        (Material.DRY_GRASS, 0.06),
    )
    codes = shaded(material, np.floor(5 * scatter(spots.salt + 14, strip, parcel, district)).astype(np.int8) - 2)
    codes[end < 1] = code(Material.DRY_GRASS, 2)
    codes[(side < 1) & (scatter(spots.salt + 15, strip) < 0.6)] = code(Material.WOOD, 2)
    return np.where(spots.near + spots.far > 2.4, _woods(spots), codes)


def _town(spots: Spots) -> Codes:
    """Blocks of houses with streets, and occasional parks and halls."""
    width = max(7, 140 / spots.pixel)
    district, strip, block, side, end = _parcels(spots, 20, width, 1.5 * width, 0)
    kind = scatter(spots.salt + 23, strip, block, district)
    house = scatter(spots.salt + 24, spots.x // 2, spots.y // 2)
    # Half of the houses of a block are alike; a hall is one roof over the whole block.
    house = np.where((house < 0.5) | (kind < 0.12), kind * 7 % 1, house * 2 - 1)
    material = chosen(
        house,
        (Material.GREY_ROOF, 0.4),
        (Material.RED_ROOF, 0.18),
        (Material.DARK_ROOF, 0.16),
        (Material.WHITE_ROOF, 0.05),
        (Material.GRASS, 0.09),
        (Material.WOOD, 0.12),
    )
    material = np.where(kind > 0.92, np.where(spots.grain > 0, Material.WOOD, Material.GRASS), material)
    codes = shaded(material, np.floor(house * 97 % 1 * 3).astype(np.int8) - 1)
    codes[(side < 1) | (end < 1)] = code(Material.DARK_ROOF)
    codes[(side < 2) & (strip % 5 == 0)] = code(Material.STREET)
    return codes


# WorldCover code → function that draws it.
_LOOKS: dict[int, Callable[[Spots], Codes]] = {
    10: lambda s: np.where(s.near > 1.9, code(Material.GRASS, 2), _woods(s)),
    20: lambda s: _patches(s, s.near, (Material.SOIL, 0.16), (Material.SHRUB, 0.6), (Material.DRY_GRASS, 0.24)),
    30: lambda s: np.where(
        s.near > 1.5,
        _woods(s),
        _patches(s, s.far, (Material.GRASS, 0.7), (Material.DRY_GRASS, 0.3), rough=0.5),
    ),
    CROPS: _fields,
    TOWN: _town,
    60: lambda s: _patches(
        s, (s.near + s.far) / SQRT2, (Material.ROCK, 0.3), (Material.SOIL, 0.3), (Material.SAND, 0.4)
    ),
    SNOW: lambda s: _patches(
        s, s.far + 0.4 * s.near, (Material.ROCK, 0.08), (Material.ICE, 0.2), (Material.SNOW, 0.72), rough=0.4
    ),
    WATER: lambda s: shaded(Material.WATER, np.round(0.3 * s.far).astype(np.int8)),
    90: lambda s: _patches(s, s.near, (Material.WATER, 0.2), (Material.WETLAND, 0.55), (Material.SHRUB, 0.25)),
    95: lambda s: np.where(np.abs(s.near) < 0.12, code(Material.SHALLOWS, 2), shaded(Material.MANGROVE, s.grain)),
    100: lambda s: _patches(s, (s.near + s.far) / SQRT2, (Material.MOSS, 0.75), (Material.ROCK, 0.25)),
    SHALLOWS: lambda s: shaded(Material.SHALLOWS, s.grain),
}


def landscape(spots: Spots, cover: NDArray[np.uint8], heights: Numbers, sea: float, snow: float) -> Codes:
    """A landscape as seen by a satellite.

    Args:
        spots: all pixels of the landscape.
        cover: WorldCover code of each pixel.
        heights: height rank of each pixel, 0 to 1.
        sea: height below which water is drawn.
        snow: height above which snow is drawn.
    """
    village = (cover == CROPS) & (spots.near + 0.5 * spots.far > 2.3)
    kinds = np.where(village, np.uint8(TOWN), cover)
    kinds[(heights >= snow) & (cover != WATER)] = SNOW
    kinds[heights < sea] = WATER
    kinds[(heights < sea) & (heights > SHORE * sea) & (cover != WATER)] = SHALLOWS
    codes = np.empty(kinds.shape, np.uint8)
    for kind in np.unique(kinds).tolist():
        here = kinds == kind
        codes[here] = _LOOKS[kind](spots.where(here))
    return codes
