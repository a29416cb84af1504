"""Write the generated parts of README.md and docs/: tables, the pages of platforms, and link targets.

    python scripts/make_tables.py            # write them
    python scripts/make_tables.py --check    # only say which files are not up to date

A generated part stands between two comments, of which the first names it:

    <!-- columns: clay_assets.chips.columns:MERGED_INDEX -->
    <!-- end of columns -->

`columns` are those of a table, `fields` those of a pydantic model, `settings` are all variables, `recipe` is a recipe's
file, `platforms` is the list of platforms, and `platform` the page of one. `links` are link targets: paths in the
repository, or URLs if `[project.urls]` in pyproject.toml has a `Repository`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module, resources
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from field_tables import fields_table, settings_table  # noqa: E402
from platform_pages import platform_page, platforms_table  # noqa: E402

from clay_assets.platforms import PLATFORMS, platform_of  # noqa: E402
from clay_assets.storage.columns import Columns  # noqa: E402

DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<what>columns|fields|settings|recipe|platforms|platform|links)(?:: (?P<which>.+?))? -->\n)"
    r"(?P<now>.*?)(?P<end><!-- end of (?P=what) -->)",
    re.DOTALL,
)
TARGET = re.compile(r"^(\[[^\]]+\]): (?:https://\S+?/(?:blob|raw)/main/)?(\S+)$", re.MULTILINE)
PICTURES = (".png", ".svg")


def main() -> int:
    """Rewrite the files, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write what documents take from the code.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="these instead of README.md and docs/")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a file is not up to date")
    arguments = parser.parse_args()
    stale = []
    for file in arguments.files or _documents():
        before = file.read_text(encoding="utf-8") if file.exists() else _new_page(file)
        after = with_tables(before)
        if after != before or not file.exists():
            stale.append(str(file))
            if not arguments.check:
                file.write_text(after, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: {'not up to date; run scripts/make_tables.py' if arguments.check else 'written'}")
    return 1 if stale and arguments.check else 0


def with_tables(text: str) -> str:
    """A document with every table as the code has it now."""
    return BLOCK.sub(lambda found: f"{found['begin']}\n{_made(found)}\n\n{found['end']}", text)


def _made(found: re.Match[str]) -> str:
    what, which = found["what"], found["which"]
    if what == "links":
        return links(found["now"].strip(), _repository())
    return MAKERS[what](which)


def _documents() -> list[Path]:
    pages = {*DOCS.rglob("*.md"), *(DOCS / "platforms" / f"{key}.md" for key in PLATFORMS)}
    return [ROOT / "README.md", *sorted(pages)]


def _new_page(file: Path) -> str:
    return f"# {platform_of(file.stem).title}\n\n<!-- platform: {file.stem} -->\n<!-- end of platform -->\n"


def _columns(which: str) -> str:
    columns = _named(which)
    assert isinstance(columns, Columns)
    return columns.markdown()


def _recipe(which: str) -> str:
    text = (resources.files("clay_assets.recipes") / f"{which}.toml").read_text(encoding="utf-8")
    return f"```toml\n{text}```"


def _named(which: str) -> object:
    module, _, name = which.partition(":")
    return getattr(import_module(module), name)


def _repository() -> str | None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        urls: dict[str, str] = tomllib.load(file)["project"].get("urls", {})
    return urls.get("Repository")


def links(targets: str, repository: str | None) -> str:
    """Link targets as paths in the repository, or as URLs if its URL is given.

    A package index shows the README without the repository, so paths lead nowhere there.
    """

    def target(found: re.Match[str]) -> str:
        label, path = found.groups()
        if repository is None or path.startswith("https://"):
            return f"{label}: {path}"
        return f"{label}: {repository.rstrip('/')}/{'raw' if path.endswith(PICTURES) else 'blob'}/main/{path}"

    return TARGET.sub(target, targets)


MAKERS: dict[str, Callable[[str], str]] = {
    "columns": _columns,
    "fields": lambda which: fields_table(_named(which)),  # type: ignore[arg-type]
    "settings": lambda _: settings_table(),
    "recipe": _recipe,
    "platforms": lambda _: platforms_table(),
    "platform": lambda which: platform_page(platform_of(which)),
}

if __name__ == "__main__":
    sys.exit(main())
