"""The command `clay-assets`. Each subcommand is a module of its own name, imported when it is called.

`dagster` and `dg` remain the way to materialise assets.
"""

from __future__ import annotations

import gc
import importlib

import click

from clay_assets import __version__
from clay_assets.cli.later import import_later, never_import
from clay_assets.errors import ClayError

# Subcommand → its module; the first line of the help is kept here so that `--help` imports none of them.
SUBCOMMANDS = {
    "compare": "Compare an index that stacchip wrote with the merged index.",
    "doctor": "Look at settings, storage, sources, rights, room and versions before a long run.",
    "export": "Write chips of a place as GeoTIFF or npz files.",
    "prune": "List files in the storage that no pick needs any more, and remove them with --yes.",
    "reconcile": "Print what was published, is planned, and is present, per platform.",
    "release": "Keep the state of the merged index under a name; without one, list the releases.",
    "show": "Print why one chip is here and where it lies, and write its picture.",
}
WITHOUT_PANDAS = {"release", "show"}  # pyarrow imports it wherever it makes an array, in case the values are of pandas


class _Lazy(click.Group):
    """A group that imports a subcommand when it is called, and prints our errors without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        import_later("boto3")
        if cmd_name in WITHOUT_PANDAS:
            never_import("pandas")
        gc.disable()  # modules leave no garbage, and to look for it takes a tenth of the time of importing them
        try:
            command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        finally:
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(SUBCOMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ClayError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clay-assets")
def main() -> None:
    """Look into a training set. Where it lies is said by CLAY_STORAGE, what it should be by CLAY_RECIPE."""
