"""The sources of scenes: one module each, gathered here under their keys.

Any module of this package that has a `PLATFORM` is a platform.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Platform


def _gathered() -> dict[str, AnyPlatform]:
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    found = [module.PLATFORM for module in modules if hasattr(module, "PLATFORM")]
    return {platform.key: platform for platform in sorted(found, key=lambda platform: platform.key)}


# Read once per process: what a platform is never changes while it runs.
PLATFORMS: dict[str, AnyPlatform] = _gathered()


def platform_of(key: str) -> AnyPlatform:
    """The platform of a key.

    Raises:
        InputError: no platform has that key.
    """
    try:
        return PLATFORMS[key]
    except KeyError:
        raise InputError(f"unknown platform {key!r}; known: {', '.join(PLATFORMS)}.") from None


__all__ = ["PLATFORMS", "AnyPlatform", "Platform", "platform_of"]
