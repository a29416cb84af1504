"""Libraries that other libraries import at once, and that a command may never use.

rasterio imports boto3, and pyarrow pandas, which together take longer than to show a chip.
`importlib.util.LazyLoader` would do the same, but before Python 3.12.3 hands half-loaded modules to other threads.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

_loading = threading.RLock()


class _Later(ModuleType):
    """Stands for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        with _loading:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
                import_module(self.__name__)
        return getattr(sys.modules[self.__name__], name)


def import_later(*names: str) -> None:
    """Have top-level modules loaded on first use; those that are loaded, or not installed, are left alone."""
    for name in names:
        spec = None if name in sys.modules else PathFinder.find_spec(name)
        if spec is not None:
            module = _Later(name)
            module.__spec__ = spec
            sys.modules[name] = module


class _Absent:
    """Finds nothing of some modules, so that they are as if not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.name:
            raise ModuleNotFoundError(f"{name}: is not loaded in this command.", name=name)


def never_import(name: str) -> None:
    """Have libraries that can do without a module go without it, unless it is loaded."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _Absent(name))
