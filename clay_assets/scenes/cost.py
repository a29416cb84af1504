"""An estimate of what a platform's requests will cost, from the requests alone: nothing is searched or read for it."""

from __future__ import annotations

from dataclasses import dataclass

from clay_assets.platforms.base import AnyPlatform
from clay_assets.recipes import Recipe


@dataclass(frozen=True)
class CostEstimate:
    """The cost of some requests, at most: each gets a scene of its own, of usual size, and files are not compressed.

    Attributes:
        scenes: one per request; neighbours may share one, and some get none.
        chips: whole chips of the scenes, without any left out for nodata.
        bytes_to_read: of quality assets, and of whole images that are made anew.
        bytes_to_copy: written to our storage.
    """

    scenes: int
    chips: int
    bytes_to_read: int
    bytes_to_copy: int


def estimate_cost(platform: AnyPlatform, requests: int, recipe: Recipe) -> CostEstimate:
    """The cost of a number of requests."""
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
