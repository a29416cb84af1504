"""Chips as tensors in the form that Clay's model takes. Needs PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.training.chip import ChipBatch, no_chips
from clay_assets.training.metadata import (
    PUBLISHED,
    Radar,
    Sensor,
    check_radar,
    decibels,
    normalised,
    read_metadata,
    sensor_of,
)
from clay_assets.training.pytorch import torch

Values = Literal["normalised", "raw"]
SHARED = ("waves", "gsd", "platform")  # one value per batch; the others have one per chip


@dataclass(frozen=True)
class Tensors:
    """How chips become tensors.

    Attributes:
        pixels: "normalised": (number - mean) / std of each band, by `metadata`. "raw": the numbers.
        radar: how to convert linear power (Sentinel-1). "db": decibels; where there is no power, the band's mean, which
            is 0 once normalised: use `valid` to leave these pixels out of the loss. "clay": as Clay's own loader does,
            with -100 dB there. "linear": the numbers in the files.
        metadata: a `metadata.yaml` laid out as Clay's; None: the values that Clay v1 was trained with.
        masks: add `valid` and `cloud`, which may mean reading a quality file as well.

    Examples:
        >>> from clay_assets.training import Chipper, Tensors, open_chips
        >>> chips = Chipper(open_chips("demo/storage", "sentinel-2-l2a")).batch([0, 1], masks=True)
        >>> tuple(Tensors(pixels="raw").of(chips)["pixels"].shape)
        (2, 10, 256, 256)
    """

    pixels: Values = "normalised"
    radar: Radar = "db"
    metadata: str | Path | None = None
    masks: bool = True

    def __post_init__(self) -> None:
        if self.pixels not in get_args(Values):
            raise InputError(f"pixels {self.pixels!r}: not known. Say {' or '.join(map(repr, get_args(Values)))}.")
        check_radar(self.radar)
        _ = self.sensors

    @property
    def where(self) -> str:
        """Name of the metadata in messages."""
        return str(self.metadata or "Clay's metadata.yaml")

    @cached_property
    def sensors(self) -> Mapping[str, Sensor]:
        """Platform key → its metadata for the model."""
        return read_metadata(PUBLISHED if self.metadata is None else Path(self.metadata))

    def check(self, platform: str, bands: Sequence[str] | None) -> None:
        """Raise an error for a platform that these options do not fit.

        Raises:
            InputError: the reason.
        """
        model = platform_of(platform).model_input
        names = [band.name for band in model.bands] if bands is None else bands
        if self.pixels == "normalised":
            sensor_of(self.sensors, platform, names, self.where)
            if model.decibels and self.radar == "linear" and self.metadata is None:
                raise InputError(
                    f'radar "linear": Clay\'s mean and std of {platform} are in dB. Ask for pixels="raw", or pass a '
                    "metadata of linear power."
                )

    def of(self, batch: ChipBatch) -> dict[str, Any]:
        """The tensors of a batch, in the form that Clay's model takes.

        Returns:
            pixels: float32, (chips, bands, 256, 256).
            platform: its key, for each chip.
            time: sine and cosine of the week of 52 and of the hour of 24; float32, (chips, 4).
            latlon: sine and cosine of the latitude and of the longitude of the centre; float32, (chips, 4).
            waves: µm, float32, (bands,).
            gsd: nominal pixel size in metres, a scalar.
            valid, cloud: bool, (chips, 256, 256), if asked for.
        """
        model = platform_of(batch.platform).model_input
        sensor = self.sensors.get(batch.platform)
        told = sensor is not None and all(band in sensor.waves for band in batch.bands)
        mean = [sensor.mean.get(band, 0.0) for band in batch.bands] if sensor else [0.0] * len(batch.bands)
        std = None
        if self.pixels == "normalised":
            sensor = sensor_of(self.sensors, batch.platform, batch.bands, self.where)
            std = [sensor.std[band] for band in batch.bands]
        pixels = _empty(batch.pixels.shape)
        for numbers, out in zip(batch.pixels, pixels.numpy(), strict=True):  # one chip at a time fits the CPU cache
            values = decibels(numbers, self.radar, mean) if model.decibels else numbers
            if std is None:
                out[...] = values
            else:
                normalised(values, mean, std, out)
        waves = [sensor.waves[band] for band in batch.bands] if sensor and told else batch.waves.tolist()
        found: dict[str, Any] = {
            "pixels": pixels,
            "platform": [batch.platform] * len(batch),
            "time": torch.from_numpy(batch.time),
            "latlon": torch.from_numpy(batch.latlon),
            "waves": torch.tensor(waves, dtype=torch.float32),
            "gsd": torch.tensor(sensor.gsd if sensor else batch.gsd),
        }
        if self.masks:
            found |= {"valid": torch.from_numpy(batch.valid), "cloud": torch.from_numpy(batch.cloud)}
        return found

    def none_of(self, platform: str, bands: Sequence[str] | None) -> dict[str, Any]:
        """The tensors of an empty batch of a platform: as usual, but with a first dimension of 0."""
        model = platform_of(platform).model_input
        waves = {band.name: band.wavelength for band in model.bands}
        names = list(waves) if bands is None else list(bands)
        return self.of(no_chips(platform, names, "float32", model.gsd, [waves[name] for name in names]))


def _empty(shape: Sequence[int]) -> Any:
    """An uninitialised float32 tensor, in a worker in shared memory, so that handing it over does not copy."""
    if torch.utils.data.get_worker_info() is None or not math.prod(shape):
        return torch.empty(tuple(shape), dtype=torch.float32)
    like = torch.empty(0, dtype=torch.float32)
    storage = like._typed_storage()._new_shared(math.prod(shape), device=like.device)  # as in PyTorch's own collate
    return like.new(storage).resize_(*shape)


@dataclass(frozen=True)
class Samples(Sequence[dict[str, Any]]):
    """The chips of a batch, and the batch itself, so that collating does not copy."""

    batch: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.batch["platform"])

    def __getitem__(self, number: Any) -> Any:
        """One chip: tensors are views of the batch's."""
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number}: there are {len(self)}.")
        chip = {name: value for name, value in self.batch.items() if name in SHARED or torch.is_tensor(value)}
        return {name: value if name in ("waves", "gsd") else value[number] for name, value in chip.items()}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collate chips of one platform to a batch, as Clay's `batch_collate` does, with `waves` and `gsd` once.

    Raises:
        InputError: the chips are of several platforms.
    """
    if isinstance(samples, Samples):
        return samples.batch
    keys = sorted({sample["platform"] for sample in samples})
    if len(keys) != 1:
        raise InputError(
            f"a batch of {', '.join(keys)}: chips of one platform belong in a batch. Use a ChipSampler as "
            "batch_sampler, or select one platform."
        )
    batch = {
        name: torch.stack([sample[name] for sample in samples])
        for name, value in samples[0].items()
        if name not in SHARED and torch.is_tensor(value)
    }
    return {**batch, "platform": [sample["platform"] for sample in samples]} | {
        name: samples[0][name] for name in ("waves", "gsd")
    }
