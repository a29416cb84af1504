"""The `metadata.yaml` that Clay's model and loader read, and pixels prepared as they expect.

The default is the values that Clay v1 was trained with; your own file with the same layout may replace them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from clay_assets.errors import InputError

PUBLISHED = Path(__file__).with_name("metadata.yaml")
LEAST_POWER = np.float32(1e-10)  # Clay's loader uses this, -100 dB, where linear power is not above 0

Radar = Literal["db", "clay", "linear"]


@dataclass(frozen=True)
class Sensor:
    """A platform's band metadata for the model.

    Attributes:
        gsd: nominal pixel size, metres; an int or a float, as in the file.
        waves, mean, std: band → wavelength in µm, mean and standard deviation.
    """

    gsd: int | float
    waves: Mapping[str, float] = field(default_factory=dict)
    mean: Mapping[str, float] = field(default_factory=dict)
    std: Mapping[str, float] = field(default_factory=dict)


@cache
def read_metadata(path: Path = PUBLISHED) -> Mapping[str, Sensor]:
    """Platform key → its metadata for the model.

    Raises:
        InputError: the file is missing, or does not have the layout of Clay's.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Pass a metadata.yaml like Clay's.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: is not a table of platforms. Pass a metadata.yaml like Clay's.")
    return {str(key): _sensor(f"{path}, {key}", entry) for key, entry in document.items()}


def _sensor(where: str, entry: Any) -> Sensor:
    try:
        bands = entry["bands"]
        found = {name: {str(band): float(value) for band, value in bands[name].items()} for name in FIELDS}
        gsd = entry["gsd"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: needs gsd and, for each band, numbers under bands: mean, std, wavelength ({error!r}). Add them."
        ) from error
    if isinstance(gsd, bool) or not isinstance(gsd, (int, float)) or not gsd > 0:
        raise InputError(f"{where}: gsd {gsd!r} is not a size in metres. Write a number above 0.")
    wrong = [
        f"{name} {band} {value}"
        for name, values in found.items()
        for band, value in values.items()
        if not np.isfinite(value) or (name != "mean" and value <= 0)
    ]
    if wrong:
        raise InputError(f"{where}: {wrong[0]} is invalid. Write a finite number, above 0 except for a mean.")
    return Sensor(gsd, found["wavelength"], found["mean"], found["std"])


FIELDS = ("mean", "std", "wavelength")


def sensor_of(metadata: Mapping[str, Sensor], platform: str, bands: Iterable[str], where: str) -> Sensor:
    """The model's metadata of some bands of a platform.

    Raises:
        InputError: the platform or a band is not in the metadata.
    """
    sensor = metadata.get(platform)
    if sensor is None:
        known = ", ".join(metadata)
        raise InputError(f'{where}: has no {platform}, only {known}. Pass a metadata with it, or pixels="raw".')
    missing = [band for band in bands if not all(band in values for values in (sensor.waves, sensor.mean, sensor.std))]
    if missing:
        raise InputError(
            f'{where}, {platform}: no metadata of {", ".join(missing)}. Add these bands, or ask for pixels="raw".'
        )
    return sensor


def check_radar(radar: str) -> None:
    """Raise an error for an unknown way to convert radar.

    Raises:
        InputError: names the valid ones.
    """
    if radar not in get_args(Radar):
        raise InputError(f"radar {radar!r}: not known. Say {' or '.join(map(repr, get_args(Radar)))}.")


def decibels(power: NDArray[Any], radar: Radar, fill: Sequence[float]) -> NDArray[np.float32]:
    """Linear power as the model takes it.

    Args:
        power: linear power, (…, bands, rows, columns); nodata is NaN or not above 0.
        radar: "db": 10 · log10, and `fill` where there is no power. "clay": as Clay's loader does, bit for bit: -100 dB
            where power is not above 0. "linear": unchanged.
        fill: fill value of each band.
    """
    found = power.astype(np.float32)
    if radar == "linear":
        return found
    empty = ~((found > 0) & np.isfinite(found)) if radar == "db" else found <= 0
    found[empty] = LEAST_POWER
    found = 10 * np.log10(found)
    if radar == "db":
        np.copyto(found, np.asarray(fill, np.float32)[:, None, None], where=empty)
    return found


def normalised(
    pixels: NDArray[Any], mean: Sequence[float], std: Sequence[float], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(pixels - mean) / std of each band, as float32; (…, bands, rows, columns).

    Args:
        pixels: float32, or numbers that float32 holds exactly.
        mean: mean of each band.
        std: standard deviation of each band.
        out: array to write to.
    """
    means = np.asarray(mean, np.float32)[:, None, None]
    found: NDArray[np.float32] = np.subtract(pixels, means, out=out, dtype=np.float32)
    found /= np.asarray(std, np.float32)[:, None, None]
    return found
