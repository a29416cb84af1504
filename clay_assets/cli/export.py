"""`clay-assets export`: write chips as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.errors import InputError
from clay_assets.progress import ProgressReporter
from clay_assets.training.chipper import Chipper, Radiometry
from clay_assets.training.export import EXPORTS, export_chips
from clay_assets.training.selection import SPLITS, open_chips


@click.command("export", help=SUBCOMMANDS["export"])
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--bbox", help="West,south,east,north in degrees; west > east across ±180.")
@click.option("--platform", "platforms", multiple=True, help="Platform key; repeatable.  [default: all]")
@click.option("--year", "years", type=int, multiple=True, help="Year of acquisition; repeatable.")
@click.option("--split", "splits", type=click.Choice(SPLITS), multiple=True, help="Repeatable.")
@click.option("--release", help="Name of a release.  [default: the current merged index]")
@click.option("--band", "bands", multiple=True, help="Band name; repeatable, in order of output.  [default: all]")
@click.option("--format", "kind", type=click.Choice(sorted(EXPORTS)), default="geotiff", show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Largest number of chips to write.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Decoding threads.")
@click.option("--stored", is_flag=True, help="Write digital numbers as stored, including Sentinel-2's offset.")
def command(
    out: Path,
    bbox: str | None,
    platforms: Sequence[str],
    years: Sequence[int],
    splits: Sequence[str],
    release: str | None,
    bands: Sequence[str],
    kind: str,
    limit: int | None,
    threads: int,
    stored: bool,
) -> None:
    """Write chips into a folder per platform."""
    chips = open_chips(
        configured_store(),
        platforms or None,
        release=release,
        bbox=_box(bbox),
        years=years or None,
        split=splits or None,
    )
    radiometry: Radiometry = "stored" if stored else "harmonised"
    chipper = Chipper(chips, bands=bands or None, radiometry=radiometry, threads=threads)
    if not len(chipper):
        raise InputError(f"{out}: no chips selected, so nothing is written. Select another area, year or split.")
    with ProgressReporter(_Log(), "chips") as progress:
        written = export_chips(chipper, out, kind, limit=limit, progress=progress)
    click.echo(f"{written:,} chips in {out}")


class _Log:
    """Progress lines are written to stderr, separate from the result."""

    def info(self, message: str) -> None:
        click.echo(message, err=True)


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError as error:
        raise InputError(
            f"--bbox {text}: not four numbers. Write west,south,east,north, such as 9.5,3.1,9.6,3.2."
        ) from error
    return west, south, east, north
