"""Gathers the platforms from the modules of this package and the entry points of other distributions.

A distribution declares each of its platforms in the group `clay_assets.platforms`; the entry point is a `Platform`, or
a module that has one as `PLATFORM`. An invalid platform is an error: if it were skipped, it would be missing from
partitions and recipes silently.

https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from clay_assets import settings
from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Platform

GROUP = "clay_assets.platforms"
KEY = re.compile(r"[a-z0-9][a-z0-9._-]*")  # used in partition keys, which contain `|`, and in paths
SETTING = re.compile(r"[a-z][a-z0-9_]*")

Found = tuple[str, AnyPlatform]  # origin of a platform, for messages; and the platform


def gather(paths: Iterable[str]) -> dict[str, AnyPlatform]:
    """All platforms by key, in order; also declares their settings.

    Args:
        paths: folders with the modules of this package.

    Raises:
        InputError: an invalid platform; names its origin.
    """
    platforms: dict[str, Found] = {}
    for origin, platform in (*_of_this_package(paths), *_of_other_distributions()):
        if not (isinstance(platform.key, str) and KEY.fullmatch(platform.key)):
            raise InputError(
                f"{origin}: invalid platform key {platform.key!r}. Use lower-case letters, digits, '.', '_' and '-'."
            )
        if platform.key in platforms:
            other = platforms[platform.key][0]
            raise InputError(f"{origin}: platform {platform.key} is also in {other}. Uninstall one, or rename its key.")
        platforms[platform.key] = origin, platform
    found = list(platforms.values())
    settings.declare(_catalogues(found), {name for _, platform in found for name in _secrets(platform)})
    return {key: platform for key, (_, platform) in sorted(platforms.items())}


def _of_this_package(paths: Iterable[str]) -> Iterator[Found]:
    for found in pkgutil.iter_modules(paths):
        module = import_module(f"{__package__}.{found.name}")
        if hasattr(module, "PLATFORM"):
            yield f"clay_assets (module {found.name})", module.PLATFORM


def _of_other_distributions() -> Iterator[Found]:
    for entry in sorted(entry_points(group=GROUP), key=_origin):
        yield _origin(entry), _loaded(entry)


def _origin(entry: EntryPoint) -> str:
    distribution = entry.dist.name if entry.dist else None  # the name is None too if its metadata is incomplete
    return f"{distribution or 'unknown distribution'} (entry point {entry.name})"


def _loaded(entry: EntryPoint) -> AnyPlatform:
    try:
        found = entry.load()
        found = found.PLATFORM if isinstance(found, ModuleType) else found
    except Exception as error:  # foreign code can raise anything on import
        raise InputError(
            f"{_origin(entry)}: {entry.value} cannot be loaded ({type(error).__name__}: {error}). "
            "Repair or uninstall the distribution."
        ) from error
    if not isinstance(found, Platform):
        raise InputError(
            f"{_origin(entry)}: {entry.value} is of type {type(found).__name__}. "
            "Name a Platform, or a module that has one as PLATFORM."
        )
    return found


def _catalogues(found: Sequence[Found]) -> dict[str, str]:
    """Setting → default address of the catalogues that platforms declare."""
    brought: dict[str, str] = {}
    for origin, platform in found:
        name, default = platform.scenes.catalogue, platform.scenes.default
        if default is None:
            continue
        if not SETTING.fullmatch(name):
            raise InputError(
                f"{origin}: invalid setting {name!r}. Name the catalogue in lower case, such as 'stac_my_catalogue'."
            )
        if name in settings.Settings.model_fields or brought.get(name, default) != default:
            raise InputError(f"{origin}: setting {name} has another default. Leave `default` out, or rename it.")
        brought[name] = default
    for origin, platform in found:
        name = platform.scenes.catalogue
        if name not in brought and name not in settings.Settings.model_fields:
            raise InputError(f"{origin}: unknown setting {name}. Give its address as `default` of SceneSource.")
    return brought


def _secrets(platform: AnyPlatform) -> Iterator[str]:
    """The environment variables with the tokens and keys of a platform."""
    for way in platform.files.access:
        yield from (header.variable for header in way.headers)
        if way.keys is not None:
            names = (way.keys.access_key, way.keys.secret_key, way.keys.session_token)
            yield from (name for name in names if name is not None)
