"""The configured storage and recipe, for all subcommands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clay_assets.errors import InputError
from clay_assets.settings import read_settings
from clay_assets.storage.stores import Store, open_store

if TYPE_CHECKING:
    from clay_assets.recipes import Recipe


def configured_store() -> Store:
    """The store of CLAY_STORAGE.

    Raises:
        InputError: neither a folder nor `s3://bucket/prefix`.
    """
    location = read_settings().storage
    try:
        return open_store(location)
    except InputError as error:
        raise InputError(f"CLAY_STORAGE: {error}") from error


def configured_recipe() -> Recipe:
    """The recipe of CLAY_RECIPE.

    Raises:
        InputError: the recipe is unknown or invalid.
    """
    from clay_assets.recipes import load_recipe

    return load_recipe(read_settings().recipe)
