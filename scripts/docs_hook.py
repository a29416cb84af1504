"""What the documentation site takes from the code: a hook of MkDocs.

Pages of `docs/` may hold these comments; what they name is put in their place when the site is built:

    <!-- columns: clay_assets.chips.columns:MERGED_INDEX -->    see make_tables.py
    <!-- fields: clay_assets.recipes.loader:TileRule -->        the fields of a model
    <!-- settings -->    <!-- platforms -->    <!-- recipe: clay_v1 -->
    <!-- section: CONTRIBUTING.md: Add a platform -->           of a file of the repository

Platforms have a page each, and files of the repository that are pages as they are have one too. Nothing here names a
platform: `PLATFORMS` says which there are.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from make_tables import with_tables  # noqa: E402

from clay_assets.platforms import PLATFORMS  # noqa: E402
from clay_assets.platforms.base import AnyPlatform  # noqa: E402
from clay_assets.platforms.properties import EXPECTED  # noqa: E402
from clay_assets.recipes import load_recipe  # noqa: E402
from clay_assets.settings import PREFIX, Settings  # noqa: E402

OF_REPOSITORY = {"deploy.md": "deploy/README.md", "changelog.md": "CHANGELOG.md"}  # page → file that it is
# Where links of these files lead on the site.
LINKS = {
    "../README.md#settings": "operate.md#settings",
    "deploy/README.md": "deploy.md",
    "docs/columns.md": "columns.md",
    "CHANGELOG.md": "changelog.md",
}
COMMENT = re.compile(
    r"^<!-- (?P<what>fields|settings|platforms|recipe|section)(?:: (?P<which>.+?))? -->$", re.MULTILINE
)
RELATIVE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")
MOST_VALUES = 8  # of a list in a recipe that a table shows


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out pages that do not exist yet, and list the platforms."""
    here = Path(config.docs_dir)
    entries: list[Any] = []
    for entry in config.nav or []:
        ((title, place),) = entry.items()
        if isinstance(place, list):
            entries.append({title: [*place, *({one.title: _page(one)} for one in _platforms())]})
        elif place in OF_REPOSITORY or (here / place).is_file():
            entries.append(entry)
    config.nav = entries
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for platform in _platforms():
        files.append(File.generated(config, _page(platform), content=platform_page(platform)))
    for page, source in OF_REPOSITORY.items():
        files.append(File.generated(config, page, content=_of_repository((ROOT / source).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what the comments name in their place."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """A page with every comment replaced."""
    return COMMENT.sub(lambda found: _made(found["what"], found["which"]), with_tables(markdown))


def _made(what: str, which: str | None) -> str:
    if what == "settings":
        return settings_table()
    if what == "platforms":
        return platforms_table()
    if which is None:
        raise ValueError(f"<!-- {what} -->: names nothing. Write <!-- {what}: … -->.")
    if what == "recipe":
        text = (resources.files("clay_assets.recipes") / f"{which}.toml").read_text(encoding="utf-8")
        return f"```toml\n{text}```"
    if what == "fields":
        module, _, name = which.partition(":")
        return fields_table(getattr(import_module(module), name))
    file, _, heading = which.partition(": ")
    return _of_repository(_section((ROOT / file).read_text(encoding="utf-8"), heading))


def _section(text: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no section {heading!r}")
    return found[1].strip()


def _of_repository(text: str) -> str:
    """Text of a file of the repository, its links leading to pages, or nowhere where there is no page."""

    def link(found: re.Match[str]) -> str:
        target = LINKS.get(found[2])
        return f"[{found[1]}]({target})" if target else found[1]

    return RELATIVE.sub(link, text)


def _platforms() -> list[AnyPlatform]:
    return sorted(PLATFORMS.values(), key=lambda platform: platform.title)


def _page(platform: AnyPlatform) -> str:
    return f"platforms/{platform.key}.md"


def platforms_table() -> str:
    """All platforms, a row each; links from the page of all platforms."""
    lines = ["| platform | key | bands | pixel | made from | catalogue |", "|---|---|---|---|---|---|"]
    for one in _platforms():
        lines.append(
            f"| [{one.title}]({one.key}.md) | `{one.key}` | {len(one.model_input.bands)} | {_metres(one)} | "
            f"`{one.scenes.sample}` | `{PREFIX}{one.scenes.catalogue.upper()}` |"
        )
    return "\n".join(lines)


def platform_page(platform: AnyPlatform) -> str:
    """The page of one platform, as its object describes it."""
    return "\n\n".join(_parts(platform)) + "\n"


def _parts(platform: AnyPlatform) -> Iterator[str]:
    rules, files, quality, scenes = platform.rules, platform.files, platform.quality, platform.scenes
    yield f"# {platform.title}"
    yield f"Platform key `{platform.key}`. {_text(_module_of(platform))}"
    yield "## Bands"
    yield "Chips have these bands in this order, as the model takes them."
    yield _bands(platform)
    yield f"Chips lie in the grid of `{platform.assets.grid}`. The model is told {_metres(platform)} per pixel."
    yield "## Catalogue"
    default = scenes.default or Settings.model_fields[scenes.catalogue].default
    yield _list(
        (f"Setting `{PREFIX}{scenes.catalogue.upper()}`", f"`{default}` unless you set it"),
        ("Collection", f"`{scenes.collection}`" if scenes.collection else "any"),
        ("Places", f"asset `{scenes.sample}`{', which holds the items themselves' if scenes.sample_has_items else ''}"),
    )
    yield "## Rules"
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
        ": the mask of the file." if quality.reads == "mask" else "."
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
    return "\n".join(f"- **{name}:** {text}".replace("\n", "\n    ") for name, text in rows)


def settings_table() -> str:
    """Every variable of `Settings`."""
    lines = ["| variable | meaning | default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = (
            "number of cores" if field.default_factory else "none" if field.default is None else f"`{field.default}`"
        )
        lines.append(f"| `{PREFIX}{name.upper()}` | {field.description} | {default} |")
    return re.sub(r"`(https?://[^`]+)`", r"<\1>", "\n".join(lines))


def fields_table(model: type[BaseModel], shown: BaseModel | None = None) -> str:
    """The fields of a model of a recipe, and their values in a recipe if one is given."""
    schema = model.model_json_schema(by_alias=True)
    lines = [
        f"| field | value | default |{' clay_v1 |' if shown else ''} meaning |",
        f"|---|---|---|{'---|' if shown else ''}---|",
    ]
    values = shown.model_dump(mode="json", by_alias=True) if shown else {}
    for name, field in schema["properties"].items():
        if _is_section(field):
            continue
        default = _toml(field["default"]) if "default" in field else "required"
        value = f" {_toml(values[name])} |" if shown else ""
        lines.append(f"| `{name}` | {_kind(field)} | {default} |{value} {field.get('description', '')} |")
    return "\n".join(lines)


def _is_section(field: Mapping[str, Any]) -> bool:
    """Whether a field is a table of its own, with a place of its own on the page."""
    parts = (field, field.get("items", {}), field.get("additionalProperties") or {})
    return any("$ref" in part for part in parts if isinstance(part, Mapping))


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_kind(one) for one in field["anyOf"] if one.get("type") != "null")
    kind = field.get("type", "")
    named = {"string": "text", "array": "list", "object": "table", "boolean": "true or false"}.get(kind, kind)
    return " ".join(filter(None, [f"{named},", _range(field)])) if _range(field) else named


def _range(field: Mapping[str, Any]) -> str:
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high = field.get("maximum")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if above is not None:
        return f"above {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is not None:
        return f"at least {low:g}"
    return "" if high is None else f"at most {high:g}"


def _toml(value: Any) -> str:
    if isinstance(value, list) and len(value) > MOST_VALUES and not all(isinstance(one, int) for one in value):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{name} = {_plain(one)}" for name, one in value.items())
        return f"`{{ {inside} }}`"
    return "" if value == "" else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(_plain(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
