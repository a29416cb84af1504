"""Surface materials and their reflectance in every band.

A ground image is a uint8 array of codes: `material * SHADES + shade`. A sensor's band is a table of 256 numbers in
which the codes are looked up, so all bands of a place show the same ground, and drawing a band is fast.

Reflectances are rounded, typical values of the USGS Spectral Library, version 7; nothing was measured.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

SHADES = 8
EVEN = 3  # the shade with a material's nominal brightness
STEP = 0.07  # brightness step between shades
WAVELENGTHS = (0.44, 0.48, 0.56, 0.665, 0.70, 0.74, 0.80, 0.87, 1.24, 1.62, 2.20)  # µm


class Material(IntEnum):
    """Surface materials."""

    WATER = 0
    SHALLOWS = 1
    WOOD = 2
    CONIFERS = 3
    SHRUB = 4
    GRASS = 5
    DRY_GRASS = 6
    YOUNG_CROP = 7
    CROP = 8
    RIPE_CROP = 9
    SOIL = 10
    DARK_SOIL = 11
    SAND = 12
    ROCK = 13
    SNOW = 14
    ICE = 15
    WETLAND = 16
    MANGROVE = 17
    MOSS = 18
    STREET = 19
    GREY_ROOF = 20
    WHITE_ROOF = 21
    RED_ROOF = 22
    DARK_ROOF = 23
    GRAVEL = 24


# Reflectance in percent at WAVELENGTHS.
_PERCENT = {
    Material.WATER: (4.8, 4.6, 2.6, 1.1, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2),
    Material.SHALLOWS: (7.0, 8.2, 8.6, 5.0, 4.0, 3.0, 2.6, 2.2, 0.8, 0.5, 0.3),
    Material.WOOD: (1.8, 2.1, 4.6, 2.4, 4.5, 17, 29, 34, 30, 15, 6.5),
    Material.CONIFERS: (1.4, 1.7, 3.2, 1.9, 3.2, 12, 20, 23, 19, 9, 4),
    Material.SHRUB: (3.6, 4.4, 7.4, 7.0, 9.0, 16, 23, 26, 29, 24, 15),
    Material.GRASS: (3.0, 3.6, 8.6, 5.0, 8.5, 24, 36, 40, 38, 24, 12),
    Material.DRY_GRASS: (6.0, 7.5, 12.0, 13.5, 16, 22, 27, 30, 36, 33, 22),
    Material.YOUNG_CROP: (3.4, 4.2, 10.5, 5.6, 9.5, 28, 42, 47, 43, 23, 10),
    Material.CROP: (2.2, 2.7, 6.2, 3.0, 6.0, 26, 42, 48, 42, 20, 8.5),
    Material.RIPE_CROP: (6.8, 8.6, 14.5, 18.5, 21, 26, 30, 33, 40, 38, 25),
    Material.SOIL: (6.0, 7.2, 10.5, 14.5, 16, 18, 20, 23, 29, 33, 28),
    Material.DARK_SOIL: (3.8, 4.4, 6.2, 8.4, 9.3, 10.5, 12, 14, 18, 22, 19),
    Material.SAND: (13, 15.5, 21, 26.5, 28, 30, 32, 34, 39, 43, 39),
    Material.ROCK: (9.5, 10.5, 12.5, 14.2, 14.8, 15.5, 16.5, 17.5, 20, 22, 20),
    Material.SNOW: (88, 88, 87, 85, 84, 83, 81, 78, 42, 9, 7),
    Material.ICE: (62, 63, 61, 56, 54, 51, 47, 42, 16, 4, 3),
    Material.WETLAND: (2.4, 2.9, 5.4, 4.2, 6, 13, 19, 21, 17, 9.5, 5),
    Material.MANGROVE: (1.9, 2.4, 4.4, 2.2, 4, 16, 26, 30, 22, 9, 4),
    Material.MOSS: (4.4, 5.2, 8.8, 8.2, 10, 15, 20, 23, 26, 26, 18),
    Material.STREET: (10.5, 11.2, 12.2, 13, 13.4, 13.8, 14.2, 14.8, 16, 17, 16.5),
    Material.GREY_ROOF: (16, 17, 18, 18.5, 18.8, 19, 19.4, 19.8, 21, 22, 21),
    Material.WHITE_ROOF: (34, 37, 39, 40, 40, 40, 40, 40, 41, 40, 37),
    Material.RED_ROOF: (6.2, 7.0, 9.2, 18.5, 20, 21, 22, 24, 27, 29, 27),
    Material.DARK_ROOF: (6.6, 7.0, 7.4, 7.8, 8, 8.2, 8.5, 9, 11, 12, 12),
    Material.GRAVEL: (14, 15.5, 18, 20, 20.6, 21, 22, 23, 26, 27, 25),
}


def code(material: Material, shade: int = EVEN) -> int:
    """The code of a material in a given shade."""
    return material * SHADES + shade


def reflectance(wavelength: float) -> NDArray[np.float64]:
    """Reflectance of every code at a wavelength in µm, 0 to 1; unused codes are 0."""
    own = np.zeros(256 // SHADES)
    for material, percent in _PERCENT.items():
        own[material] = np.interp(wavelength, WAVELENGTHS, percent) / 100
    shades = 1 + STEP * (np.arange(SHADES) - EVEN)
    table: NDArray[np.float64] = np.minimum(own[:, None] * shades, 1).ravel()
    return table
