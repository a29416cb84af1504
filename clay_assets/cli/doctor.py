"""`clay-assets doctor`: checks before a long run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.runs.doctor import TIMEOUT, examine


@click.command("doctor", help=SUBCOMMANDS["doctor"])
@click.option("--platform", "platforms", multiple=True, help="Only check sources of this platform; repeatable.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=TIMEOUT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, platforms: Sequence[str], timeout: float, as_json: bool) -> None:
    """Print one line per check; exit status 1 if any failed."""
    lines = examine(platforms, timeout)
    failed = sum(line.status == "failed" for line in lines)
    if as_json:
        document = {"lines": [asdict(line) for line in lines], "failed": failed}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(str(line))
    ctx.exit(1 if failed else 0)
