"""A hook of MkDocs: pages that are files of the repository, links between the two, and tables that fit a phone.

Pages link to files of the repository by their paths, so that they can be read there too. On the site these links lead
to the page of the file; if it has none, only the text of the link is left.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OF_REPOSITORY = {"deploy.md": "deploy/README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?!https?:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out pages that do not exist yet, and list the pages of a folder after its own."""
    docs = Path(config.docs_dir)
    entries: list[Any] = []
    for entry in config.nav or []:
        ((title, place),) = entry.items()
        if isinstance(place, list):
            folder = (docs / place[0]).parent
            pages = sorted(page.relative_to(docs).as_posix() for page in folder.glob("*.md"))
            entries.append({title: [*place, *(page for page in pages if page not in place)]})
        elif place in OF_REPOSITORY or (docs / place).is_file():
            entries.append(entry)
    config.nav = entries
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files of the repository."""
    for page, source in OF_REPOSITORY.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages."""
    name = page.file.src_uri
    source = OF_REPOSITORY.get(name, f"docs/{name}")
    pages = {path: one for one, path in OF_REPOSITORY.items()}

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["path"]))
        target = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if target is None:
            return found["text"]
        return f"[{found['text']}]({posixpath.relpath(target, posixpath.dirname(name) or '.')}{found['anchor'] or ''})"

    return LINK.sub(link, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Give each cell of a table the head of its column, which site.css shows where the table is stacked."""
    return TABLE.sub(lambda found: _labelled(found[0]), html)


def _labelled(table: str) -> str:
    heads = [re.sub(r"<[^>]+>", "", head) for head in re.findall(r"<th[^>]*>(.*?)</th>", table)]

    def row(found: re.Match[str]) -> str:
        labels = iter(heads)
        return re.sub("<td", lambda _: f'<td data-head="{next(labels, "")}"', found[0])

    return ROW.sub(row, table)
