"""The command `clay-assets`. Each subcommand is a module of the same name, imported when it is called.

Assets are materialised with `dagster` or `dg`.
"""

from __future__ import annotations

import gc
import importlib

import click

from clay_assets import __version__
from clay_assets.cli.later import import_later, never_import
from clay_assets.errors import ClayError

# Subcommand → its help, kept here so that `--help` does not import their modules.
SUBCOMMANDS = {
    "compare": "Compare an index written by stacchip with the merged index.",
    "doctor": "Check settings, storage, sources, permissions, free space and versions before a long run.",
    "export": "Write chips of an area as GeoTIFF or npz files.",
    "prune": "List files in the storage that no pick needs any more; --yes removes them.",
    "reconcile": "Print published, planned and present counts per platform.",
    "release": "Save the state of the merged index under a name; without a name, list the releases.",
    "show": "Print a chip's provenance and location, and write its picture.",
}
WITHOUT_PANDAS = {"release", "show"}  # pyarrow imports it to create any array, in case the values are from pandas


class _Lazy(click.Group):
    """A group that imports a subcommand when it is called, and prints a ClayError without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        import_later("boto3")
        if cmd_name in WITHOUT_PANDAS:
            never_import("pandas")
        gc.disable()  # imports create no garbage, and looking for it takes a tenth of their time
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
    """Inspect a training set. CLAY_STORAGE is its location, CLAY_RECIPE its recipe."""
