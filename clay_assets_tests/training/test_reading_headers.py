"""Headers of a cell's scenes: what is kept, what is read again, and what is skipped."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio

from clay_assets.chips.cells import FAILED, ChipCell
from clay_assets.errors import InputError
from clay_assets.platforms import platform_of
from clay_assets.recipes import load_recipe
from clay_assets.sources.cog import read_header
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets.training.audit import CURRENT, INDEXED_SCENES, RADIOMETRY, look_at_headers
from clay_assets.training.cells import READ, HeadersCell
from clay_assets.training.columns import COG_HEADERS, HEADERS_LEDGER
from clay_assets.training.reading_headers import LEDGER_TYPES, read_headers
from clay_assets.training.scene_files import schema, stored_scene_files
from clay_assets_tests.chips.factories import write_items
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.training.scenes_with_overviews import S2, make_scene

YEAR, SECONDS = 2020, 60
RECIPE = load_recipe("clay_v1")
ASSETS = platform_of(S2).asset_names
Read = Callable[[list[Item]], HeadersCell]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Read-only scenes: from before the offset, with it, without it, and two with wrong flags."""
    folder = tmp_path_factory.mktemp("scenes")
    return [
        make_scene(folder, 0, 0, "02.14"),
        make_scene(folder, 1, 1000, "05.09", applied=False),
        make_scene(folder, 2, 0, "05.09", applied=True),
        make_scene(folder, 3, 1000, "05.09", applied=True),
        make_scene(folder, 4, 0, "05.09", applied=False),
    ]


@pytest.fixture
def items(made: list[Item], tmp_path: Path) -> list[Item]:
    """Two of the scenes, for tests that change them."""
    return [moved(item, tmp_path / "files") for item in made[:2]]


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def read(store: LocalStore, threads: Executor) -> Read:
    return lambda items: read_headers(S2, YEAR, items, store, RECIPE, threads, 4)


def moved(item: Item, folder: Path) -> Item:
    """The item with copies of its files."""
    folder.mkdir(exist_ok=True)
    assets = {name: {**asset, "href": shutil.copy(asset["href"], folder)} for name, asset in item["assets"].items()}
    return {**copy.deepcopy(item), "assets": assets}


def path_of(item: Item, asset: str) -> Path:
    return Path(item["assets"][asset]["href"])


def times(cell: HeadersCell) -> dict[str, int]:
    assert isinstance(cell.store, LocalStore)
    return {key: (cell.store.root / key).stat().st_mtime_ns for key in cell.keys}


def row(cell: HeadersCell, item: Item) -> pd.Series[Any]:
    found = cell.ledger.set_index("item_id").loc[str(item["id"])]
    assert isinstance(found, pd.Series)
    return found


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_headers_are_those_of_each_file_and_lie_where_rasterio_says(
    made: list[Item], store: LocalStore, read: Read
) -> None:
    cell = read(made)
    assert set(cell.ledger["outcome"]) == {READ}
    for item in made:
        files = stored_scene_files(store, S2, YEAR, item["id"])
        assert tuple(files.headers) == ASSETS
        assert files.hrefs == {name: item["assets"][name]["href"] for name in ASSETS}
        for name, header in files.headers.items():
            assert repr(header) == repr(read_header(files.hrefs[name]))
            assert [image.block_offsets.tolist() for image in header.images] == [
                image.block_offsets.tolist() for image in read_header(files.hrefs[name]).images
            ]
            with rasterio.open(files.hrefs[name]) as source:
                assert header.transform == tuple(source.transform)[:6]
                assert header.crs == source.crs.to_string()
                assert (header.height, header.width, header.nodata) == (*source.shape, source.nodata)
                assert header.dtype == source.dtypes[0]


@pytest.mark.slow
def test_the_ledger_and_the_summary_count_files_blocks_and_bytes(
    made: list[Item], store: LocalStore, read: Read
) -> None:
    cell = read(made)
    assert list(cell.ledger) == list(LEDGER_TYPES) == [column.name for column in HEADERS_LEDGER.described]
    assert schema().names == [column.name for column in COG_HEADERS.described]
    count = len(ASSETS)
    for item in made:
        told = row(cell, item)
        assert (told["files"], told["images"], told["blocks"]) == (count, 2 * count, 9 * count)
        assert told["bytes"] == sum(path_of(item, name).stat().st_size for name in ASSETS)
        assert told["header_bytes"] == (store.root / layout.headers(S2, YEAR, item["id"])).stat().st_size
    assert cell.fallbacks().empty
    assert cell.assets["asset"].tolist() == list(ASSETS)
    assert set(cell.assets["compression"]) == {"adobe_deflate"}
    assert cell.assets["bytes"].sum() == cell.ledger["bytes"].sum()
    rows = pq.read_table(store.root / cell.keys[0])
    assert rows.num_rows == row(cell, made[0])["images"]


def test_files_that_rasterio_has_to_read_are_counted_with_their_reason(tmp_path: Path, read: Read) -> None:
    item = make_scene(tmp_path / "strips", tiled=False)
    cell = read([item])
    assert json.loads(row(cell, item)["fallbacks"]) == {"strips": len(ASSETS)}
    assert cell.fallbacks().to_dict("records") == [{"reason": "strips", "files": len(ASSETS), "scenes": 1}]
    assert set(cell.assets["compression"]) == {"read through rasterio"}


def test_a_scene_without_headers_is_told_what_to_do(store: LocalStore, read: Read, items: list[Item]) -> None:
    with pytest.raises(
        InputError, match=r"x\.parquet: has no headers\. Materialise cog_headers for sentinel-2-l2a\|2020\.$"
    ):
        stored_scene_files(store, S2, YEAR, "x")
    cell = read(items)
    for damage in (b"half", pa.table({"a": [1]})):
        path = store.root / cell.keys[0]
        pq.write_table(damage, path) if isinstance(damage, pa.Table) else path.write_bytes(damage)
        with pytest.raises(InputError, match=r"cannot be read .*Materialise cog_headers for .* again\.$"):
            stored_scene_files(store, S2, YEAR, items[0]["id"])
    assert read(items).kept == 1
    assert stored_scene_files(store, S2, YEAR, items[0]["id"]).headers


def test_a_cell_without_scenes_has_an_empty_ledger(read: Read) -> None:
    cell = read([])
    assert (len(cell.ledger), list(cell.ledger)) == (0, list(LEDGER_TYPES))
    assert cell.assets.empty
    assert cell.fallbacks().empty
    assert cell.radiometry().empty
    assert cell.prune() == 0


# --- resumed ----------------------------------------------------------------------------------------------------------


def test_a_second_run_keeps_every_scene_and_says_the_same(items: list[Item], read: Read) -> None:
    first = read(items)
    before = times(first)
    again = read(items)
    assert (first.kept, again.kept) == (0, len(items))
    assert times(again) == before
    pd.testing.assert_frame_equal(first.ledger, again.ledger)
    pd.testing.assert_frame_equal(first.assets, again.assets)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["pixels", "time", "mask beside", "href", "properties"])
def test_what_changed_is_read_again(
    change: str, items: list[Item], store: LocalStore, read: Read, tmp_path: Path
) -> None:
    first, path = read(items), path_of(items[0], "red")
    if change == "pixels":
        with rasterio.open(path, "r+") as sink:
            sink.write(sink.read()[:, ::-1])
    elif change == "time":
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    elif change == "mask beside":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as sink:
            state = path.stat()
            sink.write_mask(sink.read(1) > 100)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "href":
        items[0]["assets"]["red"]["href"] = str(shutil.copy(path, tmp_path / "red.tif"))
    else:
        items[0]["properties"]["s2:processing_baseline"] = "05.10"  # which may affect the offset
    again = read(items)
    assert again.kept == 1
    assert times(again)[again.keys[1]] == times(first)[first.keys[1]]
    now = stored_scene_files(store, S2, YEAR, items[0]["id"])
    assert repr(now.headers["red"]) == repr(read_header(items[0]["assets"]["red"]["href"]))
    assert (now.headers["red"].mask is not None) is (change == "mask beside")
    assert row(again, items[0])["fingerprint"] != row(first, items[0])["fingerprint"]


def test_a_deleted_file_is_read_again_and_files_of_scenes_that_are_gone_are_removed(
    items: list[Item], store: LocalStore, read: Read
) -> None:
    cell = read(items)
    (store.root / cell.keys[0]).unlink()
    assert read(items).kept == 1
    fewer = read(items[1:])
    assert set(store.list(layout.headers_folder(S2, YEAR))) == set(cell.keys)  # until the ledger is written
    assert fewer.prune() == 1
    assert list(store.list(layout.headers_folder(S2, YEAR))) == fewer.keys


def test_remote_files_that_were_read_are_not_asked_for_again(
    items: list[Item], read: Read, file_server: Callable[[Path], FileServer]
) -> None:
    server = file_server(path_of(items[0], "red").parent)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = f"{server.url}/{Path(asset['href']).name}"
    first = read(items)
    assert set(first.ledger["outcome"]) == {READ}, first.ledger["error"].tolist()
    asked = len(server.requests)
    assert asked
    assert read(items).kept == len(items)
    assert len(server.requests) == asked


@pytest.mark.slow
def test_killed_and_resumed(items: list[Item], store: LocalStore, read: Read, tmp_path: Path) -> None:
    copies = [{**items[n % 2], "id": f"{items[n % 2]['id']}_{n}"} for n in range(12)]
    path = write_items(tmp_path / "items.ndjson", copies)
    folder = store.root / layout.headers_folder(S2, YEAR)
    process = subprocess.Popen(
        [sys.executable, "-m", "clay_assets_tests.training.read_headers_process", path, S2, str(YEAR), store.root],
        cwd=REPOSITORY,
    )
    end = time.monotonic() + SECONDS
    while not any(folder.glob("*.parquet")) and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.wait(SECONDS)
    there = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 0 < len(there) < len(copies)
    resumed = read(copies)
    assert resumed.kept == len(there)
    assert {name: (folder / name).stat().st_mtime_ns for name in there} == there
    assert set(resumed.ledger["outcome"]) == {READ}


# --- set aside --------------------------------------------------------------------------------------------------------


def absent(item: Item) -> None:
    path_of(item, "red").unlink()


def truncated(item: Item) -> None:
    path_of(item, "red").write_bytes(path_of(item, "red").read_bytes()[:100])


def empty(item: Item) -> None:
    path_of(item, "red").write_bytes(b"")


def text(item: Item) -> None:
    path_of(item, "red").write_text("<html>come back later</html>")


def no_asset(item: Item) -> None:
    del item["assets"]["red"]


def no_href(item: Item) -> None:
    item["assets"]["red"]["href"] = None


def relative(item: Item) -> None:
    item["assets"]["red"]["href"] = "red.tif"


def not_properties(item: Item) -> None:
    item["properties"] = None


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [absent, truncated, empty, text, no_asset, no_href, relative, not_properties], ids=lambda f: f.__name__
)
def test_a_bad_scene_is_set_aside_with_its_reason_and_the_other_is_read(
    damage: Callable[[Item], None], items: list[Item], store: LocalStore, read: Read
) -> None:
    cell = read(items)
    damage(items[0])
    again = read(items)
    told = row(again, items[0])
    assert told["outcome"] == FAILED
    assert items[0]["id"] in told["error"]
    assert ("red" in told["error"]) is (damage is not not_properties)
    assert row(again, items[1])["outcome"] == READ
    assert again.kept == 1
    assert again.keys == cell.keys[1:]
    assert again.prune() == 1  # headers of missing files are useless
    with pytest.raises(InputError, match="has no headers"):
        stored_scene_files(store, S2, YEAR, items[0]["id"])


# --- radiometry -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pixels_decide_and_flags_that_lie_are_reported(
    made: list[Item], threads: Executor, store: LocalStore, read: Read
) -> None:
    cell = read(made)
    assert cell.ledger["radiometric_offset"].tolist() == [0, 1000, 0, 1000, 0]
    assert cell.ledger["offset_evidence"].tolist() == ["baseline", *["pixels"] * 4]
    assert cell.ledger["offset_contradiction"].notna().tolist() == [False, False, False, True, True]
    assert cell.radiometry().to_dict("records") == [
        {"evidence": "baseline", "offset": 0, "scenes": 1, "contradictions": 0},
        {"evidence": "pixels", "offset": 0, "scenes": 2, "contradictions": 1},
        {"evidence": "pixels", "offset": 1000, "scenes": 2, "contradictions": 1},
    ]
    for item, offset in zip(made, cell.ledger["radiometric_offset"], strict=True):
        assert stored_scene_files(store, S2, YEAR, item["id"]).offset == offset
    found = look_at_headers(cell, made, None, threads, 4)
    assert found[CURRENT].ok
    assert (found[RADIOMETRY].violation_count, found[RADIOMETRY].numbers["scenes_decided"]) == (2, 5)
    assert [told["item_id"] for told in found[RADIOMETRY].rows] == [made[3]["id"], made[4]["id"]]


@pytest.mark.slow
def test_other_platforms_have_no_radiometry(made: list[Item], store: LocalStore, threads: Executor) -> None:
    item = {**made[0], "id": "naip_a", "assets": {"image": made[0]["assets"]["red"]}}
    cell = read_headers("naip", YEAR, [item], store, RECIPE, threads, 1)
    assert set(cell.ledger["outcome"]) == {READ}, cell.ledger["error"].tolist()
    assert cell.ledger["offset_evidence"].isna().all()
    assert stored_scene_files(store, "naip", YEAR, "naip_a").radiometry is None
    assert look_at_headers(cell, [item], None, threads, 1)[RADIOMETRY].numbers == {"scenes_decided": 0}


# --- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stored_headers_are_checked_against_ledger_imagery_and_chips(
    made: list[Item], items: list[Item], store: LocalStore, threads: Executor, read: Read
) -> None:
    cell = read(items)
    chips = ChipCell(S2, YEAR, store, pd.DataFrame({"item_id": [item["id"] for item in made], "outcome": "indexed"}))
    good = look_at_headers(cell, items, chips, threads, 2)
    assert all(found.ok for found in good.values())
    assert good[INDEXED_SCENES].numbers["indexed_scenes"] == 2  # an older index has scenes since removed
    fewer = look_at_headers(read(items[:1]), items, chips, threads, 2)
    assert fewer[CURRENT].numbers["scenes_not_looked_at"] == fewer[CURRENT].numbers["files_not_in_ledger"] == 1
    assert f"{items[1]['id']}: was not processed" in fewer[INDEXED_SCENES].summary

    other = cell.ledger.assign(fingerprint=["0" * 32, *cell.ledger["fingerprint"][1:]])
    found = look_at_headers(HeadersCell(S2, YEAR, store, other), items, chips, threads, 2)[CURRENT]
    assert found.numbers["files_of_another_run"] == found.violation_count == 1
    os.utime(path_of(items[0], "red"), ns=(0, 0))
    assert look_at_headers(cell, items, chips, threads, 2)[CURRENT].numbers["scenes_changed"] == 1
    (store.root / cell.keys[1]).unlink()
    assert look_at_headers(cell, items, chips, threads, 2)[CURRENT].numbers["files_missing"] == 1
    path_of(items[1], "red").unlink()
    failed = look_at_headers(read(items), items, chips, threads, 2)
    assert "red.tif: file not found" in failed[INDEXED_SCENES].summary
    assert failed[CURRENT].ok
