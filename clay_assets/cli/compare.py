"""`clay-assets compare`: an index that stacchip wrote, beside the merged index."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from clay_assets.chips.index import open_index
from clay_assets.chips.stacchip import Comparison, compare, open_stacchip_index
from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.storage import layout


@click.command("compare", help=SUBCOMMANDS["compare"])
@click.argument("index")
@click.option("--platform", required=True, help="Platform key of the chips to compare.")
@click.option("--json", "as_json", is_flag=True, help="Exact numbers, for programs.")
def command(index: str, platform: str, as_json: bool) -> None:
    """Print what is the same and what differs."""
    ours = open_index(configured_store().uri(layout.MERGED), platform)
    found = compare(open_stacchip_index(index, platform), ours)
    click.echo(json.dumps(asdict(found), indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: Comparison) -> list[str]:
    lines = [
        f"{'':<8}{'stacchip':>12}{'here':>12}{'both':>12}",
        f"{'scenes':<8}{found.scenes_theirs:>12,}{found.scenes_ours:>12,}{found.scenes_both:>12,}",
        f"{'chips':<8}{found.theirs:>12,}{found.ours:>12,}{found.both:>12,}",
        "",
    ]
    if found.both:
        lines += [
            f"Of the chips in both, {found.equal:,} have the same cloud and nodata shares.",
            f"Largest difference: cloud {found.cloud:.6f}, nodata {found.nodata:.6f}.",
        ]
    else:
        lines += ["No chip id is in both."]
    for name, scenes in (("in the stacchip index", found.only_theirs), ("here", found.only_ours)):
        if scenes:
            lines += [f"Scenes only {name}, such as: {', '.join(scenes)}"]
    return lines
