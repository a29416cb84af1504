"""Write the tables of columns in README.md and docs/columns.md from their descriptions in the code.

    python scripts/make_tables.py            # write them
    python scripts/make_tables.py --check    # only say which files are not up to date

A table stands between two comments, of which the first names its description:

    <!-- columns: clay_assets.chips.columns:MERGED_INDEX -->
    <!-- end of columns -->
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import import_module
from pathlib import Path

from clay_assets.storage.columns import Columns

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", ROOT / "docs" / "columns.md")
BLOCK = re.compile(r"(<!-- columns: (?P<module>[\w.]+):(?P<name>\w+) -->\n).*?(<!-- end of columns -->)", re.DOTALL)


def main() -> int:
    """Rewrite the files, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the tables of columns from their descriptions in the code.")
    parser.add_argument("files", nargs="*", type=Path, default=FILES, metavar="FILE", help="others than these two")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a file is not up to date")
    arguments = parser.parse_args()
    stale = []
    for file in arguments.files:
        before = file.read_text(encoding="utf-8")
        after = with_tables(before)
        if after != before:
            stale.append(str(file))
            if not arguments.check:
                file.write_text(after, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: {'not up to date; run scripts/make_tables.py' if arguments.check else 'written'}")
    return 1 if stale and arguments.check else 0


def with_tables(text: str) -> str:
    """The text with every table as its description makes it now."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{_table(found['module'], found['name'])}\n\n{found[4]}", text)


def _table(module: str, name: str) -> str:
    columns = getattr(import_module(module), name)
    assert isinstance(columns, Columns)
    return columns.markdown()


if __name__ == "__main__":
    sys.exit(main())
