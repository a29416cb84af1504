"""What those who train import: chips of the merged index, without Dagster and without credentials of its own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clay_assets.training.selection import Chips, open_chips

__all__ = ["Chips", "open_chips"]

_MODULES = {"Chips": "selection", "open_chips": "selection"}  # imported when asked for: definitions load without them


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
