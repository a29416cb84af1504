"""The planet's random numbers, seeded by names rather than by order, and smooth fields made from them."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A random generator for one object on the planet; the same seed and names always give the same numbers."""
    text = "\x1f".join(map(str, (seed, *names)))
    return np.random.default_rng(int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big"))


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> NDArray[np.float32]:
    """A field that is smooth over `scale` pixels and periodic in both directions, mean 0, unit variance."""
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])[None, :]
    radius = np.hypot(fy, fx) * scale
    # A power law with a soft start gives shapes of all sizes below `scale`, like clouds and land cover.
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) / (1 + radius**2) ** 1.4
    field = np.fft.irfft2(spectrum, s=shape)
    smooth: NDArray[np.float32] = ((field - field.mean()) / field.std()).astype(np.float32)
    return smooth


def ranked(field: NDArray[np.float32]) -> NDArray[np.float64]:
    """The rank of each value as the share of smaller values, in [0, 1), same shape."""
    ranks = np.empty(field.size)
    ranks[np.argsort(field, axis=None, kind="stable")] = np.arange(field.size)
    return (ranks / field.size).reshape(field.shape)
