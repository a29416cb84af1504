"""Tables of settings and of the fields of recipes, from the pydantic models that read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from clay_assets.settings import PREFIX, Settings

MOST_VALUES = 8  # of a list in a recipe that a table shows


def settings_table() -> str:
    """Every variable of `Settings`."""
    lines = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = (
            "number of cores" if field.default_factory else "none" if field.default is None else f"`{field.default}`"
        )
        lines.append(f"| `{PREFIX}{name.upper()}` | {field.description} | {default} |")
    return re.sub(r"`(https?://[^`]+)`", r"<\1>", "\n".join(lines))


def fields_table(model: type[BaseModel], shown: BaseModel | None = None) -> str:
    """The fields of a model of a recipe, and their values in a recipe if one is given."""
    schema = model.model_json_schema(by_alias=True)
    lines = [
        f"| field | value | default |{' clay_v1 |' if shown else ''} meaning |",
        f"|---|---|---|{'---|' if shown else ''}---|",
    ]
    values = shown.model_dump(mode="json", by_alias=True) if shown else {}
    for name, field in schema["properties"].items():
        if _is_section(field):
            continue
        default = _toml(field["default"]) if "default" in field else "required"
        value = f" {_toml(values[name])} |" if shown else ""
        lines.append(f"| `{name}` | {_kind(field)} | {default} |{value} {field.get('description', '')} |")
    return "\n".join(lines)


def _is_section(field: Mapping[str, Any]) -> bool:
    """Whether a field is a table of its own, with a place of its own on the page."""
    parts = (field, field.get("items", {}), field.get("additionalProperties") or {})
    return any("$ref" in part for part in parts if isinstance(part, Mapping))


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    kind = field.get("type", "")
    named = {"string": "text", "array": "list", "object": "table", "boolean": "true or false"}.get(kind, kind)
    return " ".join(filter(None, [f"{named},", _range(field)])) if _range(field) else named


def _range(field: Mapping[str, Any]) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high = field.get("maximum")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if above is not None:
        return f"above {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is not None:
        return f"at least {low:g}"
    return "" if high is None else f"at most {high:g}"


def _toml(value: Any) -> str:
    if isinstance(value, list) and len(value) > MOST_VALUES and not all(isinstance(one, int) for one in value):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {_plain(one)}" for name, one in value.items())
        return f"`{{ {inside} }}`"
    if value is None:
        return "none"
    return "" if value == "" else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_plain(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
