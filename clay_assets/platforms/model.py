"""What Clay's model is told of a platform: its bands in order, their wavelengths, and the nominal pixel size.

The values are those of Clay v1's `configs/metadata.yaml` (Clay-foundation/model).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """One band of the model.

    Attributes:
        name: as the model calls it, such as `nir08`.
        wavelength: of its centre, µm; the model's stand-in values for radar. NaN where it is not known.
        asset: of the item, whose file holds it.
        number: in that file, from 1.
    """

    name: str
    wavelength: float
    asset: str
    number: int = 1


@dataclass(frozen=True)
class ModelInput:
    """The bands of a platform, in the model's order.

    Attributes:
        gsd: nominal pixel size of its chips, metres; NaN where it is not known.
        bands: in the model's order.
        decibels: whether files hold linear power, of which the model takes 10 · log10.
    """

    gsd: float
    bands: tuple[Band, ...]
    decibels: bool = False


def one_file_each(gsd: float, wavelengths: dict[str, float], *, decibels: bool = False) -> ModelInput:
    """Bands that lie in a file each, by the name of their asset; wavelengths in µm."""
    return ModelInput(gsd, tuple(Band(name, wavelength, name) for name, wavelength in wavelengths.items()), decibels)


def in_one_file(gsd: float, asset: str, wavelengths: dict[str, float]) -> ModelInput:
    """Bands that lie in one file, in this order; wavelengths in µm."""
    bands = enumerate(wavelengths.items(), start=1)
    return ModelInput(gsd, tuple(Band(name, wavelength, asset, number) for number, (name, wavelength) in bands))


def unknown(assets: Iterable[str]) -> ModelInput:
    """The first band of each asset, of a platform that the model was not trained on."""
    return one_file_each(float("nan"), dict.fromkeys(assets, float("nan")))
