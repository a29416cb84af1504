"""The examples of the README and of the documentation's pages: fenced blocks and their languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clay_assets_tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
WITH_TORCH = DOCS / "train.md"  # its examples need PyTorch, and are tested where that is
PAGES = [REPOSITORY / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page != WITH_TORCH)]
BLOCK = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: file that it is in.
        language: `python`, `sh`, `sql`, `toml`, or empty for what is not code.
        text: of the block.
        run: marked `<!-- run -->`; a test runs it in a shell.
    """

    page: Path
    language: str
    text: str
    run: bool


def blocks(*languages: str) -> Iterator[Block]:
    """The blocks in these languages, page by page."""
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if found["language"] in languages:
                yield Block(page, found["language"], found["text"], found["run"] is not None)


def commands(text: str) -> list[str]:
    """The commands of a shell block, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [said for line in lines if (said := re.sub(r"(^|\s)#.*", "", line).strip())]
