"""Metadata of a platform for Clay's model: its bands in order, their wavelengths, and the nominal pixel size.

The values are those of Clay v1's `configs/metadata.yaml` (Clay-foundation/model).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """One band of the model.

    Attributes:
        name: name in the model, such as `nir08`.
        wavelength: central wavelength, µm; the model's stand-in values for radar. NaN if unknown.
        asset: the item's asset whose file holds the band.
        number: band number in that file, from 1.
    """

    name: str
    wavelength: float
    asset: str
    number: int = 1


@dataclass(frozen=True)
class ModelInput:
    """The bands of a platform, in the model's order.

    Attributes:
        gsd: nominal pixel size of its chips, metres; NaN if unknown.
        bands: the bands in the model's order.
        decibels: whether files hold linear power, which the model takes as 10 · log10.
    """

    gsd: float
    bands: tuple[Band, ...]
    decibels: bool = False


def one_file_each(gsd: float, wavelengths: dict[str, float], *, decibels: bool = False) -> ModelInput:
    """Bands in one file each, named after their assets; wavelengths in µm."""
    return ModelInput(gsd, tuple(Band(name, wavelength, name) for name, wavelength in wavelengths.items()), decibels)


def in_one_file(gsd: float, asset: str, wavelengths: dict[str, float]) -> ModelInput:
    """Bands in one file, in this order; wavelengths in µm."""
    bands = enumerate(wavelengths.items(), start=1)
    return ModelInput(gsd, tuple(Band(name, wavelength, asset, number) for number, (name, wavelength) in bands))


def unknown(assets: Iterable[str]) -> ModelInput:
    """The first band of each asset, for a platform that the model was not trained on."""
    return one_file_each(float("nan"), dict.fromkeys(assets, float("nan")))
