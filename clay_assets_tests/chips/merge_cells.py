"""Merge synthetic cells in a separate process, for tests that kill or measure it.

python -m … kill STORE          merge what `make_cells` wrote there
python -m … "full spill" STORE  the same where no file may be large, sorted on disk; or "full part", in memory
python -m … measure STORE ROWS  write a cell of so many rows, merge it with little memory to sort in, and print
                                rows and peak memory
"""

import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clay_assets.chips import sorting
from clay_assets.chips.cells import ChipCell, LandCoverCell
from clay_assets.chips.merge import merge
from clay_assets.recipes import load_recipe
from clay_assets.storage.stores import LocalStore, Store
from clay_assets_tests.chips.factories import S2, land_cover_ledger, ledger_of, made_plan, write_cell, write_land_cover

YEARS = (2018, 2019, 2020)
SCENES, COLUMNS, ROWS = 10, 40, 40
SORT_MEMORY = 64 << 20  # so that the rows of a test do not fit
CHIPS_OF_A_LARGE_SCENE = (100, 100)
LARGEST_FILE = 100_000  # bytes; a full file system fails like one with a file size limit
PLACE = (10.0, 10.0)  # of all scenes, so that they cover the same area for any number


def make_cells(store: Store) -> list[ChipCell]:
    """Make three cells of some ten thousand chips each."""
    recipe = load_recipe("clay_v1")
    cells = [
        write_cell(store, recipe, S2, year, [f"S2A_{year}_{n:03d}" for n in range(SCENES)], COLUMNS, ROWS)
        for year in YEARS
    ]
    for cell in cells:
        write_land_cover(cell)
    return cells


def standing_cells(store: Store) -> list[ChipCell]:
    """Load the cells that `make_cells` wrote."""
    chips = COLUMNS * ROWS
    return [
        ChipCell(S2, year, store, ledger_of({f"S2A_{year}_{n:03d}": chips for n in range(SCENES)})) for year in YEARS
    ]


def standing_land_cover(cells: list[ChipCell]) -> list[LandCoverCell]:
    """Load the land cover that `write_land_cover` wrote for some cells."""
    return [LandCoverCell(cell.platform, cell.year, cell.store, land_cover_ledger(cell)) for cell in cells]


def run(cells: list[ChipCell], store: Store) -> int:
    """Merge and return the rows."""
    with ThreadPoolExecutor(2) as pool:
        return merge(cells, standing_land_cover(cells), made_plan(), store, load_recipe("clay_v1"), pool, 4).rows


def main(what: str, folder: str, rows: str = "0") -> None:
    """See above."""
    store = LocalStore(Path(folder))
    if what.startswith("full"):
        sorting.SORT_MEMORY = 0 if what.endswith("spill") else sorting.SORT_MEMORY
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        run(standing_cells(store), store)
        return
    if what == "kill":
        run(standing_cells(store), store)
        return
    sorting.SORT_MEMORY = SORT_MEMORY
    columns, down = CHIPS_OF_A_LARGE_SCENE
    scenes = [f"S2A_{number:04d}" for number in range(int(rows) // (columns * down))]
    cell = write_cell(store, load_recipe("clay_v1"), S2, 2020, scenes, columns, down, PLACE)
    write_land_cover(cell)
    merged = run([cell], store)
    print(merged, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
