"""`clay-assets reconcile`: the accounts of all platforms."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_recipe, configured_store
from clay_assets.reconciliation.accounts import disagreements, reconcile, records


@click.command("reconcile", help=SUBCOMMANDS["reconcile"])
@click.option("--json", "as_json", is_flag=True, help="Exact numbers, for programs.")
def command(as_json: bool) -> None:
    """Print the accounts."""
    store, recipe = configured_store(), configured_recipe()
    accounts = reconcile(store, recipe)
    differing = disagreements(accounts, recipe.tolerance.published)
    if as_json:
        document = {"accounts": [asdict(account) for account in accounts], "differing": differing}
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{store.uri()}, recipe {recipe.name} ({recipe.hash})\n")
    click.echo(_columns(records(accounts)))
    click.echo(
        "\nPlanned scenes, chips and bytes are upper bounds: one scene of typical size per request, uncompressed."
    )
    if differing:
        click.echo("\n".join(["", *differing]))
    elif all(account["requests"].planned is None for account in accounts):
        click.echo("\nNothing is planned yet. Materialise scene_requests of the platforms that you want.")
    else:
        click.echo("\nEverything planned is present.")


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
