"""`clay-assets release`: named states of the merged index."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import PurePosixPath

import click

from clay_assets.chips.manifest import read_manifest, state_hash
from clay_assets.chips.releases import (
    Release,
    faults_of_index,
    faults_of_release,
    names_of_releases,
    read_release,
    release_index,
)
from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.errors import InputError
from clay_assets.storage import layout
from clay_assets.storage.stores import Store


@click.command("release", help=SUBCOMMANDS["release"])
@click.argument("name", required=False)
@click.option(
    "--verify", is_flag=True, help="Compare the files with their checksums; without NAME, all, unreleased too."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def command(ctx: click.Context, name: str | None, verify: bool, as_json: bool) -> None:
    """Save the state of the merged index under a name; without a name, list the releases."""
    store = configured_store()
    if verify:
        ctx.exit(_verify(store, name, as_json))
    if name is None:
        _list(store, as_json)
        return
    release = release_index(store, name, datetime.now(UTC).date())
    if as_json:
        click.echo(json.dumps(asdict(release), indent=2))
        return
    width = max(len(f"{part.platform} {part.year}") for part in release.partitions)
    for part in release.partitions:
        click.echo(f"{f'{part.platform} {part.year}':<{width}}  {part.rows:>12,} chips  {part.content}")
    click.echo(f"\n{release.citation}\n")
    click.echo(f'Open it with open_chips("{store.uri()}", release="{release.name}").')
    checksums = PurePosixPath(layout.release_checksums(release.name))
    click.echo(f"Check a copy with: cd {store.uri(str(checksums.parent))} && sha256sum --check {checksums.name}")


def _verify(store: Store, name: str | None, as_json: bool) -> int:
    """Compare a release, or all and the merged index, with the checksums; status 1 if any file differs."""
    faults: dict[str, list[str]] = {} if name else {"merged index": faults_of_index(store)}
    for one in [name] if name else names_of_releases(store):
        try:
            faults[f"release {one}"] = faults_of_release(store, one)
        except InputError as error:  # continue with the others
            faults[f"release {one}"] = [str(error)]
    if as_json:
        click.echo(json.dumps(faults, indent=2))
    for what, of_one in {} if as_json else faults.items():
        click.echo(f"{what}: {'; '.join(of_one) or 'every file has its checksum'}.")
    if not any(faults.values()):
        return 0
    if not as_json:
        click.echo("Restore files of a release from a copy. Materialise merged_index to write its parts again.")
    return 1


def _list(store: Store, as_json: bool) -> None:
    found: list[Release] = []
    for name in names_of_releases(store):
        try:
            found.append(read_release(store, name))
        except InputError as error:  # continue with the others
            click.echo(str(error), err=True)
    if as_json:
        click.echo(json.dumps([asdict(release) for release in found], indent=2))
        return
    if not found:
        click.echo("There are no releases. `clay-assets release NAME` creates one from the current merged index.")
        return
    click.echo("\n".join(_table(found, state_hash(read_manifest(store)))))


def _table(releases: list[Release], now: str) -> Iterable[str]:
    head = ("release", "of", "chips", "parts", "hash", "recipe", "software", "")
    rows = [
        (
            release.name,
            release.released,
            f"{release.rows:,}",
            str(len(release.partitions)),
            release.hash,
            f"{release.recipe_name} {release.recipe_hash}",
            release.software_version,
            "as it is now" if release.hash == now else "",
        )
        for release in sorted(releases, key=lambda release: (release.released, release.name))
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
