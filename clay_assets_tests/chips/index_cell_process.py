"""Index one cell in a separate process, for tests that kill it.

python -m … ITEMS.ndjson PLATFORM YEAR STORE             index its scenes
python -m … ITEMS.ndjson PLATFORM YEAR STORE WORLDCOVER  measure the land cover of its chips; needs a stored ledger
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clay_assets.chips.cells import stored_cell
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.landcover import open_worldcover
from clay_assets.chips.measuring import measure_land_cover
from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import open_store
from clay_assets_tests.chips.factories import read_items


def main(items: str, platform: str, year: str, store: str, worldcover: str = "") -> None:
    """Index or measure, then print how many scenes failed and how many already existed."""
    if worldcover:
        opened = open_store(store)
        with ThreadPoolExecutor(1) as pool:
            measure_land_cover(
                stored_cell(opened, platform, int(year)),
                read_items(Path(items)),
                open_worldcover(worldcover),
                opened,
                load_recipe("clay_v1"),
                pool,
                1,
            )
        return
    with ThreadPoolExecutor(2) as pool:
        cell = index_scenes(
            platform, int(year), read_items(Path(items)), open_store(store), load_recipe("clay_v1"), pool, 4
        )
    print(len(cell.ledger) - len(cell.scenes), cell.kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
