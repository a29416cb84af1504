"""The pages of platforms, as their objects and docstrings describe them; no platform is named here."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from field_tables import fields_table

from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.properties import EXPECTED
from clay_assets.recipes import load_recipe
from clay_assets.settings import PREFIX, Settings


def platforms_table() -> str:
    """All platforms, a row each; links from the page of all platforms."""
    lines = ["| platform | key | scenes | bands | pixel size | catalogue |", "|---|---|---|---|---|---|"]
    for one in _platforms():
        scenes = _text(_module_of(one)).partition("\n\n")[0].replace("\n", " ")
        lines.append(
            f"| [{one.title}]({one.key}.md) | `{one.key}` | {scenes} | {len(one.model_input.bands)} | {_metres(one)} | "
            f"`{PREFIX}{one.scenes.catalogue.upper()}` |"
        )
    return "\n".join(lines)


def platform_page(platform: AnyPlatform) -> str:
    """The page of one platform below its title, as its object describes it."""
    return "\n\n".join(_parts(platform))


def _platforms() -> list[AnyPlatform]:
    return sorted(PLATFORMS.values(), key=lambda platform: platform.title)


def _parts(platform: AnyPlatform) -> Iterator[str]:
    rules, files, quality, scenes = platform.rules, platform.files, platform.quality, platform.scenes
    yield f"Platform key `{platform.key}`. {_text(_module_of(platform))}"
    yield "## Bands"
    yield "Chips have these bands, in the order in which the model takes them."
    yield _bands(platform)
    if platform.model_input.decibels:
        yield (
            "Radar wavelengths are nominal numbers from Clay's metadata. "
            "Files hold linear power; the model takes decibels."
        )
    yield (
        f"The grid of chips is that of the asset `{platform.assets.grid}`. "
        f"The model's nominal pixel size is {_metres(platform)}."
    )
    yield "## Catalogue"
    default = scenes.default or Settings.model_fields[scenes.catalogue].default
    yield _list(
        (f"Setting `{PREFIX}{scenes.catalogue.upper()}`", f"`{default}` by default"),
        ("Collection", f"`{scenes.collection}`" if scenes.collection else "any"),
        ("Places", f"asset `{scenes.sample}`{', which holds the items themselves' if scenes.sample_has_items else ''}"),
    )
    yield "## Rules"
    rows: list[tuple[str, Callable[..., Any] | None]]
    rows = [("Searches", rules.requests), ("Years", rules.resolve), ("Refused", rules.refuse), ("Taken", rules.rank)]
    if rules.processings:
        rows.append(("Versions of one scene", rules.processings.tell))
    yield _list(*((name, _text(rule)) for name, rule in rows if rule is not None and _text(rule)))
    if rules.properties:
        yield "Item properties that the rules read. An item whose value has another type is refused."
        yield "\n".join(
            [
                "| property | type | required |",
                "|---|---|---|",
                *(
                    f"| {' or '.join(f'`{name}`' for name in one.names)} | {EXPECTED[one.type]} | "
                    f"{'yes' if one.required else 'no'} |"
                    for one in rules.properties
                ),
            ]
        )
    yield "## Cloud and nodata"
    yield f"Read from {', '.join(f'`{name}`' for name in quality.assets)}" + (
        ", by the mask of the file." if quality.reads == "mask" else "."
    )
    yield _text(quality.judge)
    if platform.radiometry:
        yield "## Radiometry"
        names = ", ".join(f"`{name}`" for name in platform.radiometry.bands)
        yield f"{_text(platform.radiometry.decide)}\n\nPixels are those of the overviews of {names}."
    yield "## Files"
    yield _list(*_ways(platform))
    if files.derivation:
        yield _derivation(platform)
    size = platform.typical
    yield f"A typical scene has {size.height:,} × {size.width:,} pixels; cost estimates assume this size."
    yield "## Recipe fields"
    yield f"In `[platforms.{platform.key}]`."
    yield fields_table(rules.options, load_recipe().options(platform.key))
    yield "## Licence"
    yield platform.licence or "The platform names none."


def _module_of(platform: AnyPlatform) -> Any:
    """The module that a platform is defined in, or that of its rules where it is found in none."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("clay_assets.platforms.") and vars(module).get("PLATFORM") is platform:
            return module
    return inspect.getmodule(platform.rules.requests)


def _text(thing: Any) -> str:
    """A docstring as one text; sections such as Args are left out."""
    text = inspect.getdoc(thing) or ""
    text = re.split(r"\n\n(?:Args|Returns|Raises|Attributes):\n", text)[0]
    text = re.sub(r"(?<![<(`])(https?://[^\s,)]+[^\s,.)])", r"<\1>", text)
    text = re.sub(r">\n(?=\S)", ">  \n", text)  # a list of addresses keeps its lines
    return text.strip()


def _bands(platform: AnyPlatform) -> str:
    lines = ["| band | wavelength, µm | asset | band of the file |", "|---|---|---|---|"]
    for band in platform.model_input.bands:
        wavelength = "" if math.isnan(band.wavelength) else f"{band.wavelength:g}"
        lines.append(f"| `{band.name}` | {wavelength} | `{band.asset}` | {band.number} |")
    return "\n".join(lines)


def _metres(platform: AnyPlatform) -> str:
    gsd = platform.model_input.gsd
    return "unknown" if math.isnan(gsd) else f"{gsd:g} m"


def _ways(platform: AnyPlatform) -> Iterator[tuple[str, str]]:
    for way in platform.files.access:
        said = [
            *(["without credentials"] if way.unsigned else []),
            *(["the reader's account is billed (requester pays)"] if way.requester_pays else []),
            *(["signed when read; the signature is not stored"] if way.signer else []),
            *([f"with the header {', '.join(one.name for one in way.headers)}"] if way.headers else []),
            *(["with keys of the bucket"] if way.keys else []),
        ]
        yield ", ".join(f"`{host}`" for host in way.hosts) or "Any host", ", ".join(said) or "as it is"
    if platform.files.alternate:
        yield "Alternate href", f"`{platform.files.alternate}` of the item is read where the item has it"


def _derivation(platform: AnyPlatform) -> str:
    made = platform.files.derivation
    assert made is not None
    said = [f"with {made.resampling} resampling"]
    if made.crs:
        said.insert(0, f"in {made.crs}")
    if made.gsd:
        said.append("with the pixel size of the recipe; a coarser image keeps its own")
    if made.masked:
        said.append("with an internal mask")
    return f"Images are written to the storage as cloud-optimized GeoTIFFs, {', '.join(said)}."


def _list(*rows: tuple[str, str]) -> str:
    items = [re.sub(r"\n(?=.)", "\n    ", f"- **{name}:** {text}") for name, text in rows]
    return ("\n\n" if any("\n\n" in item for item in items) else "\n").join(items)
