"""Dagster pipeline for the training-chip index of an Earth-observation foundation model.

The names in `__all__` are the public API. Each is imported on first use, so `import clay_assets` takes no time and
loads neither Dagster nor any raster, geometry or S3 library. `ChipDataset` and `ChipStream` need PyTorch
(`pip install 'clay_assets[torch]'`). More of what training needs is in `clay_assets.training`.

Examples:
    >>> import clay_assets
    >>> chips = clay_assets.open_chips("demo/storage", platform="sentinel-2-l2a")
    >>> clay_assets.Chipper(chips)[0].pixels.shape
    (10, 256, 256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_assets.chips.index import index_scene, open_index
    from clay_assets.errors import ClayError, IndexChangedError, InputError, SourceError, StorageError
    from clay_assets.landcover.worldcover import class_shares
    from clay_assets.platforms import PLATFORMS
    from clay_assets.recipes.loader import load_recipe
    from clay_assets.sampling.tiles import sample_tiles
    from clay_assets.training.chipper import Chipper
    from clay_assets.training.dataset import ChipDataset, ChipStream
    from clay_assets.training.selection import open_chips

    __version__: str

# Public name → the module that has it.
_NAMES = {
    "PLATFORMS": "platforms",
    "ChipDataset": "training.dataset",
    "ChipStream": "training.dataset",
    "Chipper": "training.chipper",
    "ClayError": "errors",
    "IndexChangedError": "errors",
    "InputError": "errors",
    "SourceError": "errors",
    "StorageError": "errors",
    "class_shares": "landcover.worldcover",
    "index_scene": "chips.index",
    "load_recipe": "recipes.loader",
    "open_chips": "training.selection",
    "open_index": "chips.index",
    "sample_tiles": "sampling.tiles",
}

__all__ = [
    "PLATFORMS",
    "ChipDataset",
    "ChipStream",
    "Chipper",
    "ClayError",
    "IndexChangedError",
    "InputError",
    "SourceError",
    "StorageError",
    "class_shares",
    "index_scene",
    "load_recipe",
    "open_chips",
    "open_index",
    "sample_tiles",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    """The version, as installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:
        return "0+unknown"  # a source tree that was never installed
