"""A storage that version 0.1 wrote (commit b169085): kept where it is still right, and moved to today's layout.

`storage_0_1.zip` is of the demo: the scenes and chips of two cells, their merged index, and what NAIP's searches found.
"""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.chips import indexing
from clay_assets.chips.cells import FAILED, ChipCell, stored_cells
from clay_assets.chips.index import CHIP_SCHEMA, MERGED_SCHEMA, open_index
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.landcover import open_worldcover
from clay_assets.chips.manifest import read_manifest
from clay_assets.chips.measuring import measure_land_cover
from clay_assets.chips.merge import Merged, merge
from clay_assets.errors import InputError
from clay_assets.orchestration.resources import ClayResource
from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import made_plan
from clay_assets_tests.landcover.rasters import plain, write_cell

ARCHIVE = Path(__file__).with_name("storage_0_1.zip")
WRITTEN_AT = "/tmp/cmp/demo/storage"  # where the storage lay; derived images have hrefs below it
CELLS = {("modis", 2023): 54, ("naip", 2021): 36}  # cell → chips
OLD_PARTS = [f"{layout.MERGED}/platform={platform}/year={year}/part-0.parquet" for platform, year in CELLS]
OLD_MANIFEST = f"{layout.MERGED}/_manifest.json"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path / "clay")
    return LocalStore(tmp_path / "clay")


@pytest.fixture
def recipe(store: LocalStore) -> Recipe:
    return load_recipe(store.root / "recipe.toml")


def below(store: LocalStore, value: Any) -> Any:
    """A JSON value whose addresses below the storage are those of where it lies now."""
    if isinstance(value, dict):
        return {name: below(store, entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [below(store, entry) for entry in value]
    return value.replace(WRITTEN_AT, store.uri()) if isinstance(value, str) else value


def items_of(store: LocalStore, platform: str, year: int) -> list[Item]:
    key = layout.table("scene_imagery", platform, year)
    return [below(store, item) for item in decode_items(store.read(key), key)]


def index(store: LocalStore, recipe: Recipe, platform: str, year: int) -> ChipCell:
    with ThreadPoolExecutor(2) as pool:
        return index_scenes(platform, year, items_of(store, platform, year), store, recipe, pool, 4)


def merge_all(store: LocalStore, recipe: Recipe, *, land_cover: bool = True) -> Merged:
    cells, folder = stored_cells(store), store.root.parent / "worldcover"
    folder.mkdir(exist_ok=True)
    write_cell(folder, "N00E006", plain(10))
    with ThreadPoolExecutor(2) as pool:
        worldcover = open_worldcover(str(folder))
        found = [
            measure_land_cover(cell, items_of(store, cell.platform, cell.year), worldcover, store, recipe, pool, 4)
            for cell in cells
        ]
        return merge(cells, found if land_cover else [], made_plan(), store, recipe, pool, 4)


def contents(store: LocalStore, folder: str) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list(folder)}


@pytest.mark.parametrize(("platform", "year"), CELLS)
def test_its_scenes_are_not_indexed_again(store: LocalStore, recipe: Recipe, platform: str, year: int) -> None:
    before = contents(store, layout.chip_folder(platform, year))
    cell = index(store, recipe, platform, year)
    assert cell.kept == len(cell.scenes) == len(before)
    assert cell.scenes["chips"].sum() == CELLS[platform, year]
    assert contents(store, layout.chip_folder(platform, year)) == before


@pytest.mark.parametrize("change", ["platform", "index"])
def test_its_scenes_are_indexed_again_once_their_index_would_be_another(
    store: LocalStore, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    if change == "platform":
        monkeypatch.setitem(PLATFORMS, "modis", replace(platform_of("modis"), version="2"))
    else:
        monkeypatch.setattr(indexing, "INDEX_VERSION", "4")
    cell = index(store, recipe, "modis", 2023)
    assert set(cell.ledger["outcome"]) == {FAILED}  # their images are not in the archive
    assert cell.ledger["error"].str.contains("file not found").all()
    if change == "platform":
        assert index(store, recipe, "naip", 2021).kept == 3


def test_its_merged_index_can_be_opened(store: LocalStore) -> None:
    location = store.root / layout.MERGED
    assert open_index(location).count_rows() == sum(CELLS.values())
    assert open_index(location, "naip", 2021).count_rows() == CELLS["naip", 2021]


@pytest.mark.slow
def test_its_merged_index_is_replaced(store: LocalStore, recipe: Recipe) -> None:
    old = [row for key in OLD_PARTS for row in pq.read_table(store.root / key, partitioning=None).to_pylist()]
    merged = merge_all(store, recipe)
    assert (merged.rows, merged.written) == (sum(CELLS.values()), 2)
    assert list(store.list(layout.MERGED)) == [layout.merged_part(platform, year) for platform, year in CELLS]
    assert not list((store.root / layout.MERGED).glob("platform=*"))
    new = open_index(store.root / layout.MERGED).to_table()
    assert new.schema.equals(MERGED_SCHEMA)
    assert new.column("year").to_pylist() == [row["datetime"].year for row in new.to_pylist()]
    values = new.drop_columns(["year", "landcover", "landcover_class", "split"]).to_pylist()
    assert sorted(values, key=lambda row: row["chipid"]) == sorted(old, key=lambda row: row["chipid"])
    assert read_manifest(store) == merged.parts
    assert merge_all(store, recipe).written == 0


def test_its_merged_index_stays_until_its_chips_have_land_cover(store: LocalStore, recipe: Recipe) -> None:
    before = contents(store, layout.MERGED)
    with pytest.raises(
        InputError, match=r"merged without land cover.*Materialise chip_landcover .* first.*modis\|2023, naip\|2021"
    ):
        merge_all(store, recipe, land_cover=False)
    assert contents(store, layout.MERGED) == before
    table = open_index(store.root / layout.MERGED).to_table()
    assert table.schema.equals(CHIP_SCHEMA)


@pytest.mark.slow
def test_its_files_stay_until_the_new_manifest_is_written(
    store: LocalStore, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store, layout.MERGED)
    write = LocalStore.write

    def killed_at_the_manifest(self: LocalStore, key: str, content: bytes) -> None:
        if key == layout.MANIFEST:
            raise KeyboardInterrupt
        write(self, key, content)

    monkeypatch.setattr(LocalStore, "write", killed_at_the_manifest)
    with pytest.raises(KeyboardInterrupt):
        merge_all(store, recipe)
    monkeypatch.undo()
    half = contents(store, layout.MERGED)
    assert {key: half[key] for key in before} == before
    assert set(half) - set(before) == {layout.merged_part(platform, year) for platform, year in CELLS}
    resumed = merge_all(store, recipe)
    assert (resumed.rows, resumed.written) == (sum(CELLS.values()), 0)
    assert set(store.list(layout.MERGED)) == set(half) - set(before)


def test_what_its_searches_found_is_found(store: LocalStore) -> None:
    clay = ClayResource(overrides={"storage": str(store.root)})
    catalogue = clay.scenes_of(platform_of("naip"))
    assert isinstance(catalogue, SnapshotCatalogue)
    (naip,) = catalogue.files
    assert naip.dataset.count_rows() > 0
    clay.write_items(layout.search_results("naip"), items_of(store, "naip", 2021))
    catalogue = clay.scenes_of(platform_of("naip"))
    assert isinstance(catalogue, SnapshotCatalogue)
    (newer,) = catalogue.files
    assert newer.dataset.count_rows() == 3
