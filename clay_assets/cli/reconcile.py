"""`clay-assets reconcile`: print the accounts of all platforms."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_recipe, configured_store
from clay_assets.reconciliation.accounts import disagreements, reconcile, records
from clay_assets.reconciliation.effort import Effort, Machine, efforts


@click.command("reconcile", help=SUBCOMMANDS["reconcile"])
@click.option("--json", "as_json", is_flag=True, help="Print JSON with exact numbers.")
def command(as_json: bool) -> None:
    """Print the accounts."""
    store, recipe = configured_store(), configured_recipe()
    accounts = reconcile(store, recipe)
    differing = disagreements(accounts, recipe.tolerance.published)
    machine = Machine()
    taken = efforts(accounts, recipe, machine=machine)
    if as_json:
        document = {
            "accounts": [asdict(account) for account in accounts],
            "differing": differing,
            "efforts": [asdict(effort) for effort in taken],
            "machine": asdict(machine),
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{store.uri()}, recipe {recipe.name} ({recipe.hash})\n")
    click.echo(_columns(records(accounts)))
    click.echo(
        "\nPlanned scenes, chips and bytes are upper bounds: one scene of typical size per request, uncompressed."
    )
    if taken:
        click.echo(f"\nUpper bounds of the cost of a run on one AWS {machine.name} in us-west-2:\n")
        click.echo(_effort(taken))
        click.echo("\nCounts are requested ones, or else published ones. docs/scale.md describes the measurements.")
    if differing:
        click.echo("\n".join(["", *differing]))
    elif all(account["requests"].planned is None for account in accounts):
        click.echo("\nNothing is planned yet. Materialise scene_requests of the platforms you need.")
    else:
        click.echo("\nEverything planned is present.")


def _effort(taken: list[Effort]) -> str:
    names = ["platform", "searches", "scenes", "GB read", "GB stored", "core-hours", "hours", "USD", "USD a month"]
    rows = [
        [effort.platform, f"{effort.searches:,}", f"{effort.scenes:,}"]
        + [_short(number, 0) for number in (effort.gigabytes_to_read, effort.gigabytes_to_store)]
        + [_short(number, 1) for number in (effort.core_hours, effort.hours, effort.dollars, effort.dollars_a_month)]
        for effort in taken
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    aligned = [[f"{row[0]:<{widths[0]}}", *map(str.rjust, row[1:], widths[1:])] for row in [names, *rows]]
    return "\n".join("  ".join(row) for row in aligned)


def _short(number: float, digits: int) -> str:
    least = 10**-digits
    return f"<{least:g}" if 0 < number < least else f"{number:,.{digits}f}"


def _columns(rows: list[dict[str, str]]) -> str:
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines, before = [], ""
    for row in [{name: name for name in widths}, *rows]:
        if row["platform"] != before:
            lines.append("")
        cells = {**row, "platform": row["platform"] if row["platform"] != before else ""}
        before = row["platform"]
        left = f"{cells['platform']:<{widths['platform']}}  {cells['quantity']:<{widths['quantity']}}"
        right = "  ".join(f"{cells[name]:>{widths[name]}}" for name in ("published", "planned", "present"))
        lines.append(f"{left}  {right}")
    return "\n".join(lines[1:])
