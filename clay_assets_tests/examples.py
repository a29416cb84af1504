"""Examples in docstrings, run as they stand."""

from __future__ import annotations

import doctest
import importlib
from types import ModuleType
from typing import Any

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def example_of(module: ModuleType, name: str) -> doctest.DocTest:
    """The example of a public name: in its own docstring, or, of data and errors, in that of its module.

    Raises:
        LookupError: there is none, or it does not use the name.
    """
    found: Any = getattr(module, name)
    documented = found
    if not callable(found) or (isinstance(found, type) and issubclass(found, Exception)):
        documented = importlib.import_module(f"{module.__name__}.{module._NAMES[name]}")
    text = documented.__doc__ or ""
    example = doctest.DocTestParser().get_doctest(text, {}, f"{module.__name__}.{name}", None, None)
    if not any(name in step.source for step in example.examples):
        raise LookupError(f"{module.__name__}.{name}: no example in its docstring. Add one that uses it.")
    return example


def run(example: doctest.DocTest) -> None:
    """Run an example, which has to import whatever it uses.

    Raises:
        AssertionError: it gives something else than it says, or part of it is skipped.
    """
    skipped = [step.source for step in example.examples if doctest.SKIP in step.options]
    assert not skipped, f"{example.name} skips {skipped}"
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=said.append)
    assert result.failed == 0, "".join(said)
