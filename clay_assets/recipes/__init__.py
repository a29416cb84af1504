"""The built-in recipes (Clay v1 and v0.1, as TOML) and their loader."""

from clay_assets.recipes.loader import Recipe, load_recipe

__all__ = ["Recipe", "load_recipe"]
