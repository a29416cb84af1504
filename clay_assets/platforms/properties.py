"""Declares the item properties that the rules of a platform use, and their types.

Catalogues return items unchecked. An item that violates a declaration is refused before any rule runs, so a rule that
still fails has a bug.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

PropertyType: TypeAlias = type[float] | type[int] | type[str] | type[bool] | type[list[str]]

# Type → its name in reasons.
EXPECTED: dict[PropertyType, str] = {
    float: "a number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    list[str]: "a list of text",
}


@dataclass(frozen=True)
class Property:
    """An item property that the rules of a platform use.

    Attributes:
        name: name in catalogues, or several alternative names, of which an item needs one. A picked item is checked
            again after its migration to STAC 1.1, which renames a few, such as `proj:epsg`.
        type: `float` (any finite number), `int` (a whole number), `str`, `bool` or `list[str]`.
        required: whether an item without it is refused. Null and empty values count as missing: catalogues write `""`
            and `[]` for unknown values.
    """

    name: str | tuple[str, ...]
    type: PropertyType
    required: bool = False

    def __post_init__(self) -> None:
        if self.type not in EXPECTED:
            listed = ", ".join(str(getattr(one, "__name__", one)) for one in EXPECTED)
            raise TypeError(f"property {self.name}: type {self.type!r} is not one of {listed}")

    @property
    def names(self) -> tuple[str, ...]:
        """All alternative names."""
        return (self.name,) if isinstance(self.name, str) else self.name

    def problem(self, properties: Mapping[str, Any]) -> str | None:
        """Why properties violate the declaration, or None; the same text for all items with the same fault."""
        given = False
        for name in self.names:
            value = properties.get(name)
            if value is None or not is_given(value):
                continue
            given = True
            if not _fits(value, self.type):
                return f"property {name}: {_described(value)}, expected {EXPECTED[self.type]}"
        return f"property {' or '.join(self.names)}: missing" if self.required and not given else None


def is_given(value: Any) -> bool:
    """Whether a value is given: neither null, empty nor blank."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and not (isinstance(value, (list, tuple, dict)) and not value)


def label_of(properties: Mapping[str, Any], *names: str) -> str:
    """The first of these properties that is non-blank text, stripped; else empty."""
    for name in names:
        value = properties.get(name)
        if isinstance(value, str) and (text := value.strip()):
            return text
    return ""


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number, not a boolean."""
    # Not `math.isfinite`, which fails on integers beyond the range of floats, which JSON allows.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _fits(value: Any, wanted: PropertyType) -> bool:
    if wanted is float:
        return is_number(value)
    if wanted is int:
        return is_number(value) and value == int(value)  # tables store integers as floats if some are null
    if wanted is str or wanted is bool:
        return isinstance(value, wanted)
    return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)


def _described(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number" if is_number(value) else "not finite"
    if isinstance(value, (list, tuple)):
        return "a list of text" if all(isinstance(entry, str) for entry in value) else "a list of other values"
    if isinstance(value, dict):
        return "an object"
    return "text" if isinstance(value, str) else type(value).__name__
