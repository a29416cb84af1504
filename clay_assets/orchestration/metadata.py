"""What Dagster shows of a materialisation: counts, columns, address, recipe, a table or two, and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa

    from clay_assets.recipes import Recipe

PICTURE_BYTES = 50_000  # the event log holds the picture itself, so it has to be small
JPEG = b"\xff\xd8"  # how one begins


def table_metadata(schema: pa.Schema, rows: int, uri: str, recipe: Recipe) -> dict[str, Any]:
    """Row count, column schema, address and recipe of what was written."""
    columns = [dg.TableColumn(name=field.name, type=str(field.type)) for field in schema]
    return {
        "dagster/row_count": rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/uri": uri,
        **recipe_metadata(recipe),
    }


def recipe_metadata(recipe: Recipe) -> dict[str, Any]:
    """The recipe and the software version that it was made with."""
    stamp = recipe.stamp()
    return {
        "recipe": stamp["recipe_name"],
        "recipe_hash": stamp["recipe_hash"],
        "recipe_document": dg.MetadataValue.json(recipe.model_dump(mode="json", by_alias=True)),
        "software_version": stamp["software_version"],
    }


def picture(image: bytes) -> dg.MarkdownMetadataValue:
    """A PNG or JPEG as metadata that the UI shows; one too large is left out, since a picture never fails a run."""
    if len(image) > PICTURE_BYTES:
        return dg.MetadataValue.md(f"*the picture has {len(image):,} bytes, too many for the event log*")
    kind = "jpeg" if image.startswith(JPEG) else "png"
    return dg.MetadataValue.md(f"![picture](data:image/{kind};base64,{base64.b64encode(image).decode()})")


def table(records: Sequence[Mapping[Any, Any]], most: int = 50) -> dg.MarkdownMetadataValue:
    """A small table as Markdown."""
    if not records:
        return dg.MetadataValue.md("*nothing*")
    columns = list(records[0])
    lines = [
        columns,
        ["---"] * len(columns),
        *([_cell(record[c]) for c in columns] for record in records[:most]),
    ]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return dg.MetadataValue.md(text if len(records) <= most else f"{text}\n\n… and {len(records) - most} more")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
