"""The ground seen from an aircraft: houses and gardens, single trees, furrows, and a stream.

Drawn like `ground`, from the same materials. Everything is a function of ground coordinates in metres, so that
neighbouring images match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clay_assets.demo.ground import Codes, Numbers, chosen, scatter, shaded
from clay_assets.demo.materials import EVEN, SHADES, Material, code, reflectance
from clay_assets.demo.noise import generator, smooth_field

GRAIN = 64  # period of the fine texture, in spots
BRIGHTEST = 0.55  # reflectance that is shown as white
CONTRAST = 0.12  # brightness step between shades
WAVELENGTHS = (0.65, 0.56, 0.48, 0.83)  # µm: red, green, blue, near infrared
SUN = (0.6, 0.8)  # shadow length to the north and the west, as a share of height
STREET, PAVEMENT, LOT, FRONT, HOUSE = 8.0, 1.8, 17.0, 32.0, 5.0  # m: widths; for a house, half of the smallest
BLOCKS = (4 * LOT + STREET, 2 * FRONT + STREET)  # along and across
PARCEL = (170.0, 95.0)
FURROW = 2.6


@dataclass(frozen=True)
class View:
    """Spots to draw, as arrays of the same shape.

    Attributes:
        salt: the place's salt for all hashes.
        x, y: metres to the east and to the south.
        grain: texture that varies from spot to spot, −2 to 2.
    """

    salt: int
    x: Numbers
    y: Numbers
    grain: NDArray[np.int8]

    def where(self, mask: NDArray[np.bool_]) -> View:
        """A subset of the spots."""
        return View(self.salt, self.x[mask], self.y[mask], self.grain[mask])

    def rolling(self, salt: int, length: float) -> Numbers:
        """A smooth field that varies over the given number of metres, −2 to 2."""
        a, b, c, d = 6.3 * scatter(self.salt + salt, np.arange(4))
        x, y = self.x * np.float32(4 / length), self.y * np.float32(4 / length)
        rolling: Numbers = np.sin(x + a + 1.2 * np.sin(0.7 * y + b)) + np.sin(0.8 * y + c + 1.1 * np.sin(0.9 * x + d))
        return rolling


@lru_cache(maxsize=1)
def _grain(seed: int) -> NDArray[np.int8]:
    field = smooth_field(generator(seed, "aerial"), (GRAIN, GRAIN), 1.2)
    return np.clip(np.round(field), -2, 2).astype(np.int8)


def _trees(
    view: View, salt: int, apart: float, share: float
) -> tuple[NDArray[np.bool_], NDArray[np.int8], NDArray[np.bool_]]:
    """Trees in the cells of a grid: masks of crowns and shadows, and the brightness of crowns."""
    salt += view.salt
    angle = 0.3 + scatter(salt, np.zeros(1))[0]  # each grid has its own orientation
    across, down = _turned(view, angle)
    row = np.floor(down / apart)
    across += apart * scatter(salt + 4, row)
    column = np.floor(across / apart)
    there = scatter(salt, column, row) < share
    radius = apart * (0.26 + 0.16 * scatter(salt + 1, column, row))
    room = apart - 2 * radius
    across -= column * apart + radius + room * scatter(salt + 2, column, row)
    down -= row * apart + radius + room * scatter(salt + 3, column, row)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    east, south = across * cos - down * sin, across * sin + down * cos
    crown = there & (east**2 + south**2 < radius**2)
    light = np.round(1.8 * (east + south) / radius).astype(np.int8)
    shadow = there & ((east + SUN[0] * radius) ** 2 + (south + SUN[1] * radius) ** 2 < radius**2)
    return crown, light, shadow & ~crown


def _planted(view: View, codes: Codes, salt: int, apart: float, share: float, kind: Material = Material.WOOD) -> Codes:
    """Add trees to the ground."""
    crown, light, shadow = _trees(view, salt, apart, share)
    return np.where(crown, shaded(kind, light + view.grain // 2), np.where(shadow, _darker(codes), codes))


def _darker(codes: Codes) -> Codes:
    """Shadowed ground: the same material in its darkest shade."""
    return codes // np.uint8(SHADES) * np.uint8(SHADES)


def _turned(view: View, angle: float) -> tuple[Numbers, Numbers]:
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return view.x * cos + view.y * sin, view.y * cos - view.x * sin


def _woods(view: View) -> Codes:
    floor = shaded(Material.CONIFERS, view.grain - 2)
    below = _planted(view, floor, 30, 6, 0.95)
    return _planted(view, below, 40, 10, 0.9)


def _meadow(view: View) -> Codes:
    dry = view.rolling(50, 160) + 0.25 * view.grain > 0.9
    ground = shaded(np.where(dry, Material.DRY_GRASS, Material.GRASS), view.grain // 2)
    return _planted(view, ground, 52, 14, 0.14)


def _scrub(view: View) -> Codes:
    bare = np.where(view.rolling(60, 120) > 0.5, Material.SAND, Material.SOIL)
    return _planted(view, shaded(bare, view.grain // 2), 62, 4.5, 0.55, Material.SHRUB)


def _farmland(view: View) -> Codes:
    """Parcels with furrows, tree hedges along one side and tracks along another."""
    along, across = _turned(view, 0.3)
    row = np.floor(across / PARCEL[1])
    along = along + PARCEL[0] * scatter(view.salt + 70, row)
    column = np.floor(along / PARCEL[0])
    number = scatter(view.salt + 71, column, row)
    material = chosen(
        number,
        (Material.CROP, 0.22),
        (Material.YOUNG_CROP, 0.22),
        (Material.RIPE_CROP, 0.2),
        (Material.SOIL, 0.16),
        (Material.DARK_SOIL, 0.08),
        (Material.GRASS, 0.12),
    )
    lengthwise = scatter(view.salt + 72, column, row) < 0.6
    furrow = np.floor(np.where(lengthwise, across, along) / (FURROW / 2)) % 2
    shade = np.floor(3 * scatter(view.salt + 73, column, row)) - 1 - furrow * (material != Material.GRASS)
    codes = shaded(material, shade.astype(np.int8))
    side, end = across - row * PARCEL[1], along - column * PARCEL[0]
    codes = np.where(end < 3.5, shaded(Material.GRAVEL, view.grain // 2), codes)
    hedge = (side < 9) & (scatter(view.salt + 74, row) < 0.6)
    return np.where(hedge, _planted(view, shaded(Material.GRASS, view.grain // 2), 76, 8, 0.8), codes)


def _town(view: View) -> Codes:
    """Streets, and houses with gardens along them."""
    along, across = _turned(view, 0.16)
    street = np.floor(across / BLOCKS[1])
    crossing = np.floor(along / BLOCKS[0])
    side, end = across - street * BLOCKS[1] - STREET, along - crossing * BLOCKS[0] - STREET
    lot = np.floor(end / LOT) + 4 * crossing
    back = side > FRONT  # lots at the back face the next street
    row = 2 * street + back
    east = end % LOT - LOT / 2
    south = np.where(back, 2 * FRONT - side, side)  # distance from its own street
    salt = view.salt + 80

    def number(which: int) -> Numbers:
        return scatter(salt + which, lot, row)

    yard = shaded(chosen(number(0), (Material.GRASS, 0.8), (Material.DRY_GRASS, 0.2)), view.grain // 2)
    yard = _planted(view, yard, 90, 7.5, 0.4)
    drive = (np.abs(east - 0.3 * LOT) < 1.6) & (south < 14)
    codes = np.where(drive, shaded(Material.GRAVEL, view.grain // 2), yard)
    wide, deep = HOUSE + 1.6 * number(1), HOUSE + 3 * number(2)
    middle = 8 + deep + 4 * number(3)
    roofs = chosen(
        number(4),
        (Material.GREY_ROOF, 0.32),
        (Material.RED_ROOF, 0.34),
        (Material.DARK_ROOF, 0.24),
        (Material.WHITE_ROOF, 0.1),
    )
    over, along_roof = east + 0.08 * LOT, south - middle
    house = (np.abs(over) < wide) & (np.abs(along_roof) < deep)
    fall = np.where(back, -3.0, 3.0).astype(np.float32)
    shadow = (np.abs(over + 2.4) < wide) & (np.abs(along_roof + fall) < deep)
    codes = np.where(shadow, _darker(codes), codes)
    ridge = np.where(number(5) < 0.5, over > 0, (along_roof > 0) != back)
    codes = np.where(house, shaded(roofs, np.where(ridge, 1, -1)), codes)
    codes = np.where((side < PAVEMENT) | (end < PAVEMENT), code(Material.GREY_ROOF), codes)
    return np.where((side < 0) | (end < 0), shaded(Material.STREET, view.grain // 2), codes)


_LOOKS: dict[str, Callable[[View], Codes]] = {
    "woods": _woods,
    "meadow": _meadow,
    "scrub": _scrub,
    "farmland": _farmland,
    "town": _town,
}


def aerial(
    seed: int,
    name: str,
    kinds: Sequence[str],
    shape: tuple[int, int],
    spot: float,
    origin: tuple[float, float] = (0, 0),
    stream: float = 0,
) -> Codes:
    """The ground of an image, as codes of `materials`.

    Args:
        seed: the planet's seed.
        name: the place's name; images of one place match.
        kinds: surface types, from the lowest ground to the highest: `woods`, `meadow`, `scrub`, `farmland`, `town`.
        shape: height and width, spots.
        spot: size of a spot, m.
        origin: the image's origin, m to the east and to the south.
        stream: width of the stream through the image, m; 0: no stream.
    """
    salt = int(generator(seed, "aerial", name).integers(2**31))
    x, y = (
        np.broadcast_to((start + spot * np.arange(count, dtype=np.float32)).reshape(form), shape)
        for start, count, form in zip(origin, shape[::-1], ((1, -1), (-1, 1)), strict=True)
    )
    grain = _grain(seed)
    columns, rows = (
        (np.arange(count) + round(start / spot)) % GRAIN for start, count in zip(origin, shape[::-1], strict=True)
    )
    view = View(salt, x, y, grain[rows[:, None], columns])
    high = view.rolling(0, 420)
    kind = np.digitize(high, np.linspace(-1.1, 1.1, len(kinds) + 1)[1:-1])
    codes = np.empty(shape, np.uint8)
    for number in np.unique(kind).tolist():
        here = kind == number
        codes[here] = _LOOKS[kinds[number]](view.where(here))
    if stream:
        bank = np.abs(view.y - view.x * 0.35 - 30 * view.rolling(3, 300)) % 700 - stream / 2
        codes = np.where(bank < 5, shaded(Material.SAND, view.grain // 2), codes)
        codes = np.where(bank < 2, shaded(Material.SHALLOWS, view.grain // 2), codes)
        codes = np.where(bank < -2, code(Material.WATER), codes)
    return codes


@lru_cache(maxsize=1)
def colours() -> NDArray[np.uint8]:
    """Red, green, blue and near infrared of every code, (4, 256), 1 to 255, as a camera stores them."""
    light = np.array([np.repeat(reflectance(wave).reshape(-1, SHADES)[:, EVEN], SHADES) for wave in WAVELENGTHS])
    shade = 1 + CONTRAST * (np.arange(light.shape[1]) % SHADES - EVEN)
    stored: NDArray[np.uint8] = np.clip(np.round(255 * np.sqrt(light / BRIGHTEST) * shade), 1, 255).astype(np.uint8)
    return stored
