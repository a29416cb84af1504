"""Read the headers of one cell in a separate process, for tests that kill it.

python -m … ITEMS.ndjson PLATFORM YEAR STORE
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import open_store
from clay_assets.training.reading_headers import read_headers
from clay_assets_tests.chips.factories import read_items


def main(items: str, platform: str, year: str, store: str) -> None:
    """Read the headers one by one."""
    with ThreadPoolExecutor(1) as pool:
        read_headers(platform, int(year), read_items(Path(items)), open_store(store), load_recipe("clay_v1"), pool, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
