"""Estimates the cost of a platform's requests from their number alone, without searching or reading."""

from __future__ import annotations

from dataclasses import dataclass

from clay_assets.platforms.base import AnyPlatform
from clay_assets.recipes import Recipe


@dataclass(frozen=True)
class CostEstimate:
    """An upper bound of cost: every request gets its own scene, of typical size, and files are uncompressed.

    Attributes:
        scenes: one per request; in practice neighbours may share one, and some get none.
        chips: whole chips in the scenes; none is dropped for nodata.
        bytes_to_read: quality assets, and whole images if they are resampled.
        bytes_to_copy: bytes written to our storage.
    """

    scenes: int
    chips: int
    bytes_to_read: int
    bytes_to_copy: int


def estimate_cost(platform: AnyPlatform, requests: int, recipe: Recipe) -> CostEstimate:
    """Estimate the cost of a number of requests."""
    typical, imagery = platform.typical, recipe.options(platform.key).imagery
    read, copied = typical.quality_bytes, 0.0
    if imagery == "copy":
        copied = typical.image_bytes
    elif imagery == "derived":
        read, copied = read + typical.image_bytes, typical.derived_bytes
    pixels = requests * typical.height * typical.width
    return CostEstimate(
        requests, requests * typical.chips(recipe.chip_size), round(read * pixels), round(copied * pixels)
    )
