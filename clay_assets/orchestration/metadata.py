"""Metadata of materialisations: counts, columns, address, recipe, small tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.storage.columns import type_name

if TYPE_CHECKING:
    import pyarrow as pa

    from clay_assets.recipes import Recipe
    from clay_assets.storage.columns import Columns

COLUMN_SCHEMA, OUR_COLUMN_SCHEMA = "dagster/column_schema", "clay/column_schema"  # metadata keys

PICTURE_BYTES = 50_000  # the event log contains the picture, so it has to be small
JPEG = b"\xff\xd8"  # its first bytes
# Dagster's UI (1.13) shows Markdown next to its key and cuts off what is wider than the column; from this many
# characters on, it shows a link that opens a dialogue.
IN_A_DIALOGUE = 1000
BESIDE = 290  # largest width in pixels of a table next to its key
LETTER, HEADING, GAP = 8.5, 7, 18  # pixels per character of a cell and of a heading, and padding of a column


def table_metadata(
    schema: pa.Schema, rows: int, uri: str, recipe: Recipe, meanings: Mapping[str, str], *, partition: bool = False
) -> dict[str, Any]:
    """Row count, column schema, address and recipe of a written table.

    Args:
        schema: the table's schema.
        rows: number of rows.
        uri: address of the file.
        recipe: the recipe that it was made with.
        meanings: column → its meaning.
        partition: whether the table belongs to one partition.
    """
    columns = [
        dg.TableColumn(name=field.name, type=type_name(field.type, field.name), description=meanings.get(field.name))
        for field in schema
    ]
    # The catalogue shows the latest `row_count` as that of the whole asset. For a partitioned asset it would be the
    # count of the last cell, and a sum over all cells would have to be read from storage in every run, so it is
    # omitted. `partition_row_count` is shown on each partition's page.
    return {
        "dagster/partition_row_count" if partition else "dagster/row_count": rows,
        COLUMN_SCHEMA: dg.TableSchema(columns=columns),
        "dagster/uri": uri,
        **recipe_metadata(recipe),
    }


def column_metadata(columns: Columns) -> dict[str, dg.TableSchema]:
    """Column metadata for an asset's definition; `meanings_in` reads it when the asset is materialised."""
    # If definition and materialisation both have `column_schema`, the UI shows column names in lower case. Tables whose
    # names contain capitals therefore only have it on the materialisation.
    lower = all(column.name.islower() for column in columns.described)
    return {COLUMN_SCHEMA if lower else OUR_COLUMN_SCHEMA: table_schema(columns)}


def table_schema(columns: Columns) -> dg.TableSchema:
    """A table's columns in Dagster's form."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=column.name, type=column.type, description=column.meaning)
            for column in columns.described
        ]
    )


def meanings_in(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Column → its meaning, from the metadata of an asset's definition."""
    given = metadata or {}
    schema = given.get(COLUMN_SCHEMA) or given.get(OUR_COLUMN_SCHEMA)
    columns = schema.columns if isinstance(schema, dg.TableSchema) else []
    return {column.name: column.description for column in columns if column.description}


def recipe_metadata(recipe: Recipe) -> dict[str, Any]:
    """Metadata of the recipe and the software version."""
    stamp = recipe.stamp()
    return {
        "recipe": stamp["recipe_name"],
        "recipe_hash": stamp["recipe_hash"],
        "recipe_document": dg.MetadataValue.json(recipe.model_dump(mode="json", by_alias=True)),
        "software_version": stamp["software_version"],
    }


def picture(image: bytes) -> dg.MarkdownMetadataValue:
    """A PNG or JPEG as metadata that the UI shows; too large a picture is omitted, as a picture must not fail a run."""
    if len(image) > PICTURE_BYTES:
        return dg.MetadataValue.md(f"*the picture has {len(image):,} bytes, too many for the event log*")
    kind = "jpeg" if image.startswith(JPEG) else "png"
    return dg.MetadataValue.md(f"![picture](data:image/{kind};base64,{base64.b64encode(image).decode()})")


def table(records: Sequence[Mapping[Any, Any]], most: int = 50) -> dg.MarkdownMetadataValue:
    """A small table as Markdown. The UI shows a narrow one next to its key, and wider ones in a dialogue."""
    if not records:
        return dg.MetadataValue.md("*nothing*")
    columns = list(records[0])
    names = [str(c).replace("_", " ") for c in columns]  # spaces allow line breaks in narrow columns
    rows = [[_cell(record[c]) for c in columns] for record in records[:most]]
    lines = [names, [_rule(records[0][c]) for c in columns], *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if len(records) > most:
        text += f"\n\n… and {len(records) - most} more"
    widths = [
        max(LETTER * max(map(len, cells)), HEADING * len(str(c))) for c, *cells in zip(columns, *rows, strict=True)
    ]
    # Padding only changes where the UI shows the table.
    return dg.MetadataValue.md(text if sum(widths) + GAP * len(columns) <= BESIDE else text.ljust(IN_A_DIALOGUE))


def _rule(value: Any) -> str:
    """The rule below a column's heading: numbers are right-aligned."""
    return "---:" if isinstance(value, (int, float)) and not isinstance(value, bool) else "---"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
