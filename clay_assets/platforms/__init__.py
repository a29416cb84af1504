"""The sources of scenes: one module each, gathered here under their keys."""

from __future__ import annotations

from clay_assets.errors import InputError
from clay_assets.platforms import landsat_c2l1, landsat_c2l2_sr, sentinel_2_l2a
from clay_assets.platforms.base import Platform

PLATFORMS: dict[str, Platform] = {
    module.PLATFORM.key: module.PLATFORM for module in (landsat_c2l1, landsat_c2l2_sr, sentinel_2_l2a)
}


def platform(key: str) -> Platform:
    """The platform of a key.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return PLATFORMS[key]
    except KeyError:
        raise InputError(f"{key!r} is no platform; there are {', '.join(sorted(PLATFORMS))}.") from None


__all__ = ["PLATFORMS", "Platform", "platform"]
