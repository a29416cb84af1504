"""Deferred imports of libraries that others import eagerly but that a command may never use.

rasterio imports boto3, and pyarrow pandas, which together take longer than showing a chip. `importlib.util.LazyLoader`
would do the same, but before Python 3.12.3 it exposes partially loaded modules to other threads.
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
    """A placeholder that loads the module on first attribute access."""

    def __getattr__(self, name: str) -> Any:
        with _loading:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
                import_module(self.__name__)
        return getattr(sys.modules[self.__name__], name)


def import_later(*names: str) -> None:
    """Load top-level modules on first use; modules that are already loaded, or not installed, are not affected."""
    for name in names:
        spec = None if name in sys.modules else PathFinder.find_spec(name)
        if spec is not None:
            module = _Later(name)
            module.__spec__ = spec
            sys.modules[name] = module


class _Absent:
    """A finder that makes modules appear as not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.name:
            raise ModuleNotFoundError(f"{name}: not loaded in this command.", name=name)


def never_import(name: str) -> None:
    """Make optional modules unavailable to libraries that do not require them, unless they are loaded."""
    if name not in sys.modules:
        sys.meta_path.insert(0, _Absent(name))
