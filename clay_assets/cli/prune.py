"""`clay-assets prune`: files in the storage that no pick needs any more."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.reconciliation.accounts import shown_bytes
from clay_assets.reconciliation.leftovers import Leftover, find_leftovers, remove, totals

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Parse a number of seconds, minutes, hours or days to seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
    if found is None or (not found[2] and float(found[1])):
        raise click.BadParameter(f"{value!r} is not an age. Write 30m, 12h or 2d.", ctx, param)
    return float(found[1]) * UNITS[found[2] or "s"]


@click.command("prune", help=SUBCOMMANDS["prune"])
@click.option("--yes", is_flag=True, help="Remove the files. Otherwise nothing is changed.")
@click.option(
    "--older-than",
    callback=_seconds,
    default="1d",
    show_default=True,
    help="Keep younger files, which a run in progress may need: 30m, 12h, 2d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with exact numbers and keys.")
def command(yes: bool, older_than: float, as_json: bool) -> None:
    """List unneeded files, and remove them on request."""
    store = configured_store()
    found = find_leftovers(store, older_than, time.time())
    if yes:
        remove(store, found)
    if as_json:
        document = {**asdict(found), "bytes": found.bytes, "totals": totals(found.files), "removed": yes}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(_scenes(found.files)))
    for note in found.notes:
        click.echo(f"note: {note}")
    if found.young:
        click.echo(f"note: {found.young:,} unneeded files are younger than --older-than and are kept")
    click.echo(f"{store.uri()}: {found.looked_at:,} files of imagery, chip indexes, land cover and headers")
    if not found.files:
        click.echo("No unneeded files found. Nothing is removed.")
        return
    rows = totals(found.files)
    scenes = len({(one.platform, one.item_id) for one in found.files})
    whole: dict[str, str | int] = {
        "platform": "all",
        "kind": "",
        "scenes": scenes,
        "files": len(found.files),
        "bytes": found.bytes,
    }
    click.echo("\n".join(["", *_columns([*rows, whole]), ""]))
    click.echo("The files were removed." if yes else "Nothing was removed. Run with --yes to remove the files.")


def _scenes(files: Sequence[Leftover]) -> Iterable[str]:
    """One line per scene and kind."""
    grouped: dict[tuple[str, str, str], list[Leftover]] = {}
    for file in files:
        grouped.setdefault((file.platform, file.kind, file.item_id), []).append(file)
    for (platform, kind, item_id), of_scene in sorted(grouped.items()):
        size = shown_bytes(sum(file.bytes for file in of_scene))
        where = of_scene[0].key if len(of_scene) == 1 else f"{len(of_scene)} files"
        yield f"{platform}  {kind}  {item_id}  {size}  {where}"


def _columns(rows: Sequence[Mapping[str, str | int]]) -> Iterable[str]:
    table = [list(rows[0])]
    for row in rows:
        counts = [f"{row['scenes']:,}", f"{row['files']:,}", shown_bytes(int(row["bytes"]))]
        table.append([str(row["platform"]), str(row["kind"]), *counts])
    widths = [max(len(line[n]) for line in table) for n in range(len(table[0]))]
    for line in table:
        names = (text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True))
        numbers = (text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True))
        yield "  ".join((*names, *numbers))
