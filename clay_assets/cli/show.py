"""`clay-assets show`: a chip's provenance and picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from clay_assets.cli import SUBCOMMANDS
from clay_assets.cli.settings import configured_store
from clay_assets.errors import ClayError
from clay_assets.reconciliation.provenance import FileUse, Provenance, provenance
from clay_assets.storage.layout import file_name
from clay_assets.storage.stores import Store

RANGES = 3  # byte ranges listed per file


@click.command("show", help=SUBCOMMANDS["show"])
@click.argument("chipid")
@click.option("--platform", help="Platform key, if several platforms have a chip with this id.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Path of the picture.  [default: ./CHIPID.png]"
)
@click.option("--no-picture", is_flag=True, help="Read no pixels.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(chipid: str, platform: str | None, picture: Path | None, no_picture: bool, as_json: bool) -> None:
    """Print where a chip comes from, and write its picture."""
    store = configured_store()
    told = provenance(store, chipid, platform)
    if not as_json:
        click.echo("\n".join(_lines(told)))  # first, as reading pixels may take a while
    target, problem = (None, None) if no_picture else _draw(store, told, picture)
    if as_json:
        document = {**asdict(told), "picture": None if target is None else str(target), "problem": problem}
        click.echo(json.dumps(document, indent=2, default=str, ensure_ascii=False))
        return
    if target is not None:
        click.echo(f"\npicture: {target}")
    if problem is not None:
        click.echo(f"\nno picture: {problem}", err=True)


def _draw(store: Store, told: Provenance, picture: Path | None) -> tuple[Path | None, str | None]:
    """Write the picture; returns its path, or the reason why it was not written."""
    from clay_assets.training.one_chip import read_chip  # here, because importing it takes 0.2 s

    chip = told.chip
    target = picture or Path(f"{file_name(chip['chipid']).replace('/', '')}.png")
    try:
        target.write_bytes(read_chip(store, {**chip, "platform": told.platform, "year": told.year}).to_png())
    except (ClayError, OSError) as error:
        return None, str(error)
    return target, None


def _lines(told: Provenance) -> Iterable[str]:
    chip = told.chip
    yield f"{chip['chipid']}, {told.platform} {told.year}"
    yield from _section("provenance", _reasons(told))
    west, south, east, north = (chip["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax"))
    yield from _section(
        "chip",
        {
            "acquired": f"{chip['datetime']:%Y-%m-%d %H:%M} UTC",
            "position in the scene": f"column {chip['chip_index_x']}, row {chip['chip_index_y']}",
            "longitude": f"{west:.5f} to {east:.5f}",
            "latitude": f"{south:.5f} to {north:.5f}",
            "pixel size on the ground": f"{chip['gsd']:.4g} m",
            "cloud": f"{chip['cloud_cover_percentage']:.1%}",
            "nodata": f"{chip['nodata_percentage']:.1%}",
        },
    )
    merged = told.merged
    if merged:
        cover = {name: share for name, share in (merged["landcover"] or {}).items() if share}
        parts = sorted(cover.items(), key=lambda one: -one[1])
        listed = ", ".join(f"{name.replace('_', ' ')} {share} %" for name, share in parts)
        values = {"land cover": listed or "unknown", "split": merged["split"], "file": merged["part"]}
        yield from _section("merged index", values)
    yield from _section("scene", {"item": chip["item_id"], **_without(told.imagery, "item_id")})
    if told.files:
        yield from _section("files", {use.asset: _file(use) for use in told.files})
    for note in told.notes:
        yield f"\nnote: {note}"


def _reasons(told: Provenance) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, request in enumerate(told.requests):
        mark = f" {number + 1}" if len(told.requests) > 1 else ""
        start, end = request.get("start"), request.get("end")
        when = f", {start:%Y-%m-%d} to {end:%Y-%m-%d}" if start and end else ""
        found[f"request{mark}"] = f"{request['request_id']}: place {request['location']}, {request['period']}{when}"
        if request.get("filters") not in (None, "", "[]"):
            found[f"filters{mark}"] = request["filters"]
        if request.get("draw"):
            found[f"draw{mark}"] = f"{request['draw']} (keyed hash of the recipe's seed and the request's names)"
        found[f"candidates{mark}"] = f"{request.get('candidates')}, of which this scene ranked first"
        if request.get("rejected") not in (None, "", "{}"):
            found[f"rejected{mark}"] = request["rejected"]
    for number, place in enumerate(told.sample):
        mark = f" {number + 1}" if len(told.sample) > 1 else ""
        found[f"place{mark}"] = place.get("name") or place.get("id")
        shares = []
        for key, value in place.items():
            if isinstance(value, list):
                found[f"  {key}{mark}"] = ", ".join(map(str, value))
            elif isinstance(value, float):
                shares += [f"{key} {value:.3g}"] if value else []
            elif key not in ("name", "id") and value is not None and not isinstance(value, dict):
                found[f"  {key}{mark}"] = value
        if shares:
            found[f"  statistics{mark}"] = ", ".join(shares)
    return found


def _file(use: FileUse) -> str:
    listed = ", ".join(f"{start}+{size}" for start, size in use.ranges[:RANGES])
    more = f" and {len(use.ranges) - RANGES} more" if len(use.ranges) > RANGES else ""
    total = sum(size for _, size in use.ranges)
    blocks = "1 block" if len(use.ranges) == 1 else f"{len(use.ranges)} blocks"
    where = f"{total:,} bytes in {blocks}: {listed}{more}" if use.ranges else "no block of this chip has data"
    return f"{use.href}\n{use.format}; {where}"


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names and value is not None}


def _section(title: str, values: Mapping[str, Any]) -> Iterable[str]:
    yield f"\n{title}"
    width = max(map(len, values), default=0)
    for name, value in values.items():
        first, *others = str(value).splitlines() or [""]
        yield f"  {name:<{width}}  {first}"
        yield from (f"  {'':<{width}}  {line}" for line in others)
