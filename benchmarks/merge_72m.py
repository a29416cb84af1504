"""Merge the published number of chips, and query a box of 5 km: seconds, memory, bytes.

Run as `python benchmarks/merge_72m.py [--rows N | --one-cell N] [--folder FOLDER]`, by default with all 72,069,364
chips, whose inputs take 8 GB, the index 3 GB, and a quarter of an hour to make. Inputs in the folder are reused. The
merge's peer is DuckDB's `COPY (… ORDER BY …)` of the same chip indexes with as many threads: it neither reads land
cover, nor joins or checks anything. Queries read through a file system that counts bytes, including footers.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import made_cells
from harness import REPEATS, Row, alternate, child, row, table

SMALL = 400_000  # chips for the stage in `run.py`
THREADS = 2
KM = 111.2  # of a degree
BOX_KM = 5
GROUPS = 12_288  # rows of a row group
QUERIED = "sentinel-2-l2a", 2019


def rows(folder: Path) -> Iterator[Row]:
    """The merge of a small storage, compared with DuckDB's sort."""
    made_cells.make(folder / "storage", made_cells.jobs(folder / "storage", SMALL), THREADS)
    yield merging(folder / "storage", REPEATS)


def merging(storage: Path, repeats: int) -> Row:
    """Our merge and DuckDB's bare sort of the same chip indexes, in turn."""
    plan = {"storage": str(storage)}
    runs = {"ours": child(prepare_merge, plan), "DuckDB": child(prepare_duckdb, plan)}
    found = alternate(runs, repeats)
    return row("merge", "chips", found, peer="DuckDB", of_peer=0.9, note=f"{found['ours'].count:,} chips, all checked")


def prepare_merge(plan: dict[str, Any]) -> Callable[[], int]:
    """Merge all cells of a storage without a merged index."""
    from clay_assets.chips.cells import stored_cells, stored_land_covers
    from clay_assets.chips.merge import merge
    from clay_assets.recipes import load_recipe
    from clay_assets.storage import layout
    from clay_assets.storage.stores import LocalStore

    store, recipe = LocalStore(plan["storage"]), load_recipe()
    store.delete([*store.list(layout.MERGED), *store.list(layout.PAINTED)])
    (Path(plan["storage"]) / layout.MANIFEST).unlink(missing_ok=True)
    cells, land_covers, splits = stored_cells(store), stored_land_covers(store), made_cells.made_plan(recipe)
    recipe.stamp()  # in a checkout, git is asked for the version once per process
    started = time.perf_counter()

    def told(done: int, of: int) -> None:
        if plan.get("tell"):
            print(f"  {done} of {of} parts, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    def work() -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            return merge(cells, land_covers, splits, store, recipe, pool, 2 * THREADS, told).rows

    return work


def prepare_duckdb(plan: dict[str, Any]) -> Callable[[], int]:
    """Copy the chip indexes of each cell with DuckDB, ordered by longitude and latitude."""
    import duckdb

    from clay_assets.chips.cells import stored_cells
    from clay_assets.storage.stores import LocalStore

    root = Path(plan["storage"])
    cells, target = stored_cells(LocalStore(root)), root / "duckdb"

    def work() -> int:
        target.mkdir(exist_ok=True)
        for cell in cells:
            settings = {"threads": str(THREADS), "memory_limit": "3GB", "temp_directory": str(target / "spill")}
            with duckdb.connect(config=settings) as connection:
                connection.execute(
                    "COPY (SELECT * FROM read_parquet(?) ORDER BY bbox.xmin, bbox.ymin) "
                    f"TO '{target}/{cell.platform}-{cell.year}.parquet' "
                    f"(FORMAT parquet, ROW_GROUP_SIZE {GROUPS}, COMPRESSION zstd)",
                    [[str(root / key) for key in cell.keys]],
                )
        rmtree(target)
        return sum(int(cell.scenes["chips"].sum()) for cell in cells)

    return work


# ---- queries ----


def prepare_query(plan: dict[str, Any]) -> Callable[[], tuple[int, dict[str, Any]]]:
    """One query of the box; counts rows and bytes read."""
    import fsspec  # type: ignore[import-untyped]
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

    class Counting(LocalFileSystem):  # type: ignore[misc]
        """Counts the bytes read from all files."""

        cachable = False
        protocol = "counting"
        read_bytes_of_all = 0

        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            file = super()._open(path, mode, **options)
            raw = file.f
            counting = self

            class Raw:
                def read(self, size: int = -1) -> bytes:
                    content: bytes = raw.read(size)
                    counting.read_bytes_of_all += len(content)
                    return content

                def __getattr__(self, name: str) -> Any:
                    return getattr(raw, name)

            file.f = Raw()
            return file

    files = Counting()
    fsspec.register_implementation("counting", Counting, clobber=True)
    run = QUERIES[plan["reader"]](files, Path(plan["storage"]), plan["bbox"], plan["platform"], plan["year"])
    return lambda: (run(), {"bytes": files.read_bytes_of_all})


def _folder(storage: Path, platform: str | None, year: int | None) -> Path:
    folder = storage / "chips/merged_index"
    return folder if platform is None else folder / platform / str(year)


def _pyarrow(files: Any, storage: Path, bbox: list[float], platform: str | None, year: int | None) -> Callable[[], int]:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    west, south, east, north = bbox
    inside = (pc.field("bbox", "xmin") <= east) & (pc.field("bbox", "xmax") >= west)
    inside &= (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)
    folder = str(_folder(storage, platform, year))
    return lambda: int(ds.dataset(folder, filesystem=files, format="parquet").to_table(filter=inside).num_rows)


def _duckdb(files: Any, storage: Path, bbox: list[float], platform: str | None, year: int | None) -> Callable[[], int]:
    import duckdb

    west, south, east, north = bbox
    connection = duckdb.connect(config={"threads": str(THREADS)})
    connection.register_filesystem(files)
    glob = f"counting://{_folder(storage, platform, year)}/**/*.parquet"
    query = (
        f"SELECT * FROM read_parquet('{glob}') WHERE bbox.xmin <= {east} AND bbox.xmax >= {west} "
        f"AND bbox.ymin <= {north} AND bbox.ymax >= {south}"
    )
    return lambda: len(connection.sql(query).fetchall())


def _geopandas(
    files: Any, storage: Path, bbox: list[float], platform: str | None, year: int | None
) -> Callable[[], int]:
    import geopandas as gpd

    folder = str(_folder(storage, platform, year))
    return lambda: len(gpd.read_parquet(folder, bbox=tuple(bbox), filesystem=files))


def _open_chips(
    files: Any, storage: Path, bbox: list[float], platform: str | None, year: int | None
) -> Callable[[], int]:
    from pyarrow import fs

    from clay_assets.storage.stores import LocalStore
    from clay_assets.training import open_chips

    class Store(LocalStore):
        def filesystem(self) -> fs.FileSystem:
            return fs.SubTreeFileSystem(str(storage), fs.PyFileSystem(fs.FSSpecHandler(files)))

    return lambda: int(
        open_chips(Store(storage), platform, years=year, bbox=(bbox[0], bbox[1], bbox[2], bbox[3])).table().num_rows
    )


def prepare_opening(plan: dict[str, Any]) -> Callable[[], int]:
    """`open_chips` up to the first chip, for one platform and year."""

    def work() -> int:
        from clay_assets.training import open_chips

        return int(open_chips(plan["storage"], plan["platform"], years=plan["year"]).rows([0], ["chipid"]).num_rows)

    return work


QUERIES = {"pyarrow": _pyarrow, "DuckDB": _duckdb, "geopandas": _geopandas, "open_chips": _open_chips}


def queries(storage: Path) -> Iterator[str]:
    """A row per reader, with and without platform and year."""
    import pyarrow.parquet as pq

    platform, year = QUERIED
    parts = sorted((storage / "chips/merged_index").rglob("*.parquet"))
    size = sum(path.stat().st_size for path in parts)
    groups = sum(pq.read_metadata(path).num_row_groups for path in parts)
    yield f"{len(parts)} parts, {size:,} bytes, {groups:,} row groups"
    with pq.ParquetFile(_folder(storage, platform, year) / "part-0.parquet") as file:
        box = file.read_row_group(file.num_row_groups // 2, columns=["bbox"])["bbox"][0].as_py()
    side = BOX_KM / KM
    bbox = [box["xmin"], box["ymin"], box["xmin"] + side, box["ymin"] + side]
    for known in (True, False):
        for reader in QUERIES:
            plan: dict[str, Any] = {
                "storage": str(storage),
                "reader": reader,
                "bbox": bbox,
                "platform": None,
                "year": None,
            }
            plan |= {"platform": platform, "year": year} if known else {}
            found = alternate({reader: child(prepare_query, plan)}, 1)[reader]
            read = found.more["bytes"]
            yield (
                f"{reader:<11} {'platform and year' if known else 'all parts':<18} {found.count:>6,} chips "
                f"{found.seconds:6.2f} s, CPU {found.cpu:5.2f} s, {found.peak_mib:5.0f} MiB, {read:>12,} bytes "
                f"({100 * read / size:.4f} % of the index)"
            )
    opening = {"storage": str(storage), "platform": platform, "year": year}
    found = alternate({"open": child(prepare_opening, opening)}, 1)["open"]
    yield f"open_chips and its first chip: {found.seconds:.2f} s, CPU {found.cpu:.2f} s, after imports"


def main() -> None:
    """Make, merge and query; see above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, help="chips, of the platforms in their shares; all by default")
    parser.add_argument(
        "--one-cell", type=int, metavar="ROWS", help="instead, one cell of that size, and one of a chip"
    )
    parser.add_argument("--folder", type=Path, help="that is kept; a temporary one by default")
    parser.add_argument("--no-peer", action="store_true", help="do not sort with DuckDB")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        storage = (options.folder or Path(temporary)) / "storage"
        if not (storage / "chips/ledger").is_dir():
            started = time.perf_counter()
            one = options.one_cell
            wanted = made_cells.jobs(storage, options.rows) if one is None else made_cells.one_cell(storage, one)
            count = made_cells.make(storage, wanted, THREADS)
            print(f"{count:,} chips made in {time.perf_counter() - started:.0f} s", flush=True)
        if options.no_peer:
            found = alternate({"ours": child(prepare_merge, {"storage": str(storage), "tell": True})}, 1)
            print(table([row("merge", "chips", found, note=f"{found['ours'].count:,} chips")]), flush=True)
        else:
            print(table([merging(storage, 1)]), flush=True)
        for line in queries(storage) if options.one_cell is None else ():
            print(line, flush=True)
    print(f"peak memory of a child {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
