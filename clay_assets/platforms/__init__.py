"""The sources of scenes, gathered under their keys.

Any module of this package that has a `PLATFORM` is a platform, and so are those that other installed distributions name
as entry points in the group `clay_assets.platforms`.

Example:
    >>> from clay_assets import PLATFORMS
    >>> PLATFORMS["sentinel-2-l2a"].title
    'Sentinel-2 L2A'
"""

from __future__ import annotations

from functools import cache

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Platform
from clay_assets.platforms.gathering import gather

PLATFORMS: dict[str, AnyPlatform]  # see `__getattr__`


@cache  # once per process: what a platform is never changes while it runs
def _gathered() -> dict[str, AnyPlatform]:
    return gather(__path__)


def __getattr__(name: str) -> dict[str, AnyPlatform]:
    # On first use: a distribution's module, while it is being imported, imports this package for `platforms.base`, and
    # could not be loaded as an entry point then.
    if name == "PLATFORMS":
        return _gathered()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def platform_of(key: str) -> AnyPlatform:
    """The platform of a key.

    Raises:
        InputError: no platform has that key.
    """
    try:
        return _gathered()[key]
    except KeyError:
        raise InputError(f"unknown platform {key!r}; known: {', '.join(_gathered())}.") from None


__all__ = ["PLATFORMS", "AnyPlatform", "Platform", "platform_of"]
