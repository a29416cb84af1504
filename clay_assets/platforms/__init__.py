"""The sources of scenes, by key.

Every module of this package with a `PLATFORM` is a platform, and so is every entry point that other installed
distributions declare in the group `clay_assets.platforms`.

Examples:
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


@cache  # once per process: platforms do not change while it runs
def _gathered() -> dict[str, AnyPlatform]:
    return gather(__path__)


def __getattr__(name: str) -> dict[str, AnyPlatform]:
    # On first use: the module of another distribution imports this package for `platforms.base`, and cannot be loaded
    # as an entry point while it is being imported itself.
    if name == "PLATFORMS":
        return _gathered()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def platform_of(key: str) -> AnyPlatform:
    """The platform with a key.

    Raises:
        InputError: unknown key.
    """
    try:
        return _gathered()[key]
    except KeyError:
        raise InputError(f"unknown platform {key!r}; known: {', '.join(_gathered())}.") from None


__all__ = ["PLATFORMS", "AnyPlatform", "Platform", "platform_of"]
