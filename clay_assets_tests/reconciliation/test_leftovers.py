"""Unneeded files are found and only those are removed: locally and on S3."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from clay_assets.errors import InputError
from clay_assets.reconciliation.leftovers import Leftovers, find_leftovers, remove, totals
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode, encode_arrow
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets.storage.stores import LocalStore, Store, open_store

S2, LINZ = "sentinel-2-l2a", "linz"
DAY = 86_400
LONG = "x" * 230 + "é/y"  # split into folders, and escaped


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(tmp_path / "data")
    return open_store(f"{request.getfixturevalue('s3_bucket').url}/some/prefix")


@pytest.fixture
def folder(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "data")


def item(item_id: str, hrefs: Iterable[str]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": item_id,
        "geometry": {"type": "Point", "coordinates": [9.0, 0.9]},
        "bbox": [9.0, 0.9, 9.0, 0.9],
        "properties": {"datetime": "2020-01-02T10:20:30Z"},
        "links": [],
        "assets": {f"a{number}": {"href": href} for number, href in enumerate(hrefs)},
    }


def pick(store: Store, platform: str, year: int, *ids: str) -> None:
    items = [item(name, ["https://example.com/a.tif"]) for name in ids]
    store.write(layout.table("scene_picks", platform, year), encode_items(items, {}))


def settle(store: Store, platform: str, year: int, scenes: Mapping[str, list[str]], outcome: str = "derived") -> None:
    """Write scene_imagery and its ledger: scene → keys of its files."""
    items = [item(name, [store.uri(key) for key in keys]) for name, keys in scenes.items()]
    store.write(layout.table("scene_imagery", platform, year), encode_items(items, {}))
    ledger(store, layout.imagery_ledger(platform, year), scenes, outcome)


def ledger(store: Store, key: str, ids: Iterable[str], outcome: str) -> None:
    frame = pd.DataFrame({"item_id": list(ids)}).astype("string")
    store.write(key, encode(frame.assign(outcome=outcome), {}))


def put(store: Store, *keys: str) -> None:
    for key in keys:
        store.write(key, b"12345")


def read_headers(store: Store, platform: str, year: int, item_id: str, *keys: str) -> None:
    """Write the headers of a scene's files."""
    table = pa.table({"item_id": [item_id] * len(keys), "href": [store.uri(key) for key in keys]})
    store.write(layout.headers(platform, year, item_id), encode_arrow(table, {}))


def part(platform: str, year: int, *ids: str) -> bytes:
    """A part of the merged index with only the columns needed here."""
    table = pa.table({"platform": [platform] * len(ids), "year": [year] * len(ids), "item_id": list(ids)})
    return encode_arrow(table, {})


def of_cell(platform: str, year: int, name: str) -> list[str]:
    return [one(platform, year, name) for one in (layout.chips, layout.landcover, layout.headers)]


def look(store: Store, older_than: float = DAY, after: float = 2 * DAY) -> Leftovers:
    """Search the storage two days later."""
    return find_leftovers(store, older_than, time.time() + after)


def keys(found: Leftovers) -> set[str]:
    return {file.key for file in found.files}


@pytest.mark.slow
def test_what_no_pick_needs_is_removed_and_all_else_stays(store: Store) -> None:
    pick(store, LINZ, 2020, "kept", LONG)
    new, old = (layout.imagery(LINZ, "kept", f"visual-{name}.tif") for name in ("new", "old"))
    long = layout.imagery(LINZ, LONG, "visual.tif")
    settle(store, LINZ, 2020, {"kept": [new], LONG: [long]})
    stays = [*of_cell(LINZ, 2020, "kept"), *of_cell(LINZ, 2020, LONG), new, f"{new}.msk", long]
    goes = [
        *of_cell(LINZ, 2020, "dropped"),
        *of_cell(LINZ, 2020, LONG + "z"),
        layout.imagery(LINZ, "dropped", "visual-1.tif"),
        layout.imagery(LINZ, LONG + "z", "visual.tif"),
        old,  # of another recipe
    ]
    others = [
        "chips/releases/paper.json",
        "imagery/linz/notes.txt",
        "imagery/readme",
        "chips/chip_index/linz/2020/notes.txt",
        "chips/chip_index/linz/later/dropped.parquet",
        "training/other/linz/2020/dropped.parquet",
    ]
    put(store, *stays, *goes, *others)
    for name, file in (("kept", new), (LONG, long)):
        read_headers(store, LINZ, 2020, name, file)
    before = set(store.list(""))
    found = look(store)
    assert (keys(found), found.bytes, found.young, found.notes) == (set(goes), 5 * len(goes), 0, ())
    assert [row["kind"] for row in totals(found.files)] == ["chip index", "headers", "imagery", "land cover"]
    assert totals(found.files)[2] == {"platform": LINZ, "kind": "imagery", "scenes": 3, "files": 3, "bytes": 15}
    assert set(store.list("")) == before  # searching changes nothing
    remove(store, found)
    assert set(store.list("")) == before - set(goes)
    assert look(store).files == ()


def test_what_is_young_stays(store: Store) -> None:
    pick(store, S2, 2020, "kept")
    put(store, *of_cell(S2, 2020, "dropped"))
    found = look(store, after=DAY - 600)
    assert (found.files, found.young) == ((), 3)
    assert len(look(store, older_than=0, after=5).files) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        layout.request_ledger(S2, 2020),
        layout.imagery_ledger(S2, 2020),
        layout.chip_ledger(S2, 2020),
        layout.landcover_ledger(S2, 2020),
        layout.headers_ledger(S2, 2020),
    ],
)
def test_what_a_ledger_names_stays(folder: LocalStore, key: str) -> None:
    """The picks have changed, and the tables downstream have not been re-materialised yet."""
    pick(folder, S2, 2020, "new")
    put(folder, *of_cell(S2, 2020, "old"), layout.imagery(S2, "old", "B04.tif"))
    assert len(look(folder).files) == 4
    ledger(folder, key, ["old"], "indexed")
    assert look(folder).files == ()


@pytest.mark.slow
def test_what_the_merged_index_has_stays(store: Store) -> None:
    pick(store, S2, 2020, "new")
    put(store, *of_cell(S2, 2020, "old"), *of_cell(S2, 2020, "older"), layout.imagery(S2, "old", "B04.tif"))
    store.write(f"{layout.MERGED}/{S2}/2020/part-0.parquet", part(S2, 2020, "old", "new"))
    assert keys(look(store)) == set(of_cell(S2, 2020, "older"))
    released = "chips/releases/parts/0123.parquet"
    store.write(released, part(S2, 2020, "older"))
    assert look(store).files == ()
    assert store.exists(released)


def test_imagery_of_a_scene_that_is_not_settled_stays(folder: LocalStore) -> None:
    """A run of scene_imagery may take days, and resumes from the files that exist."""
    pick(folder, LINZ, 2020, "settled", "waiting", "failed")
    files = {name: layout.imagery(LINZ, name, "visual-1.tif") for name in ("settled", "waiting", "failed")}
    put(folder, *files.values(), layout.imagery(LINZ, "settled", "other.tif"))
    settle(folder, LINZ, 2020, {"settled": [files["settled"]]})
    assert keys(look(folder)) == {layout.imagery(LINZ, "settled", "other.tif")}
    ledger(folder, layout.imagery_ledger(LINZ, 2020), ["settled", "failed"], "failed")
    assert look(folder).files == ()


@pytest.mark.slow
def test_copies_go_once_scenes_are_referenced_and_no_header_tells_of_them(folder: LocalStore) -> None:
    pick(folder, S2, 2020, "a")
    copy = layout.imagery(S2, "a", "B04.tif")
    put(folder, copy)
    settle(folder, S2, 2020, {"a": [copy]}, "copied")
    assert look(folder).files == ()
    items = [item("a", ["https://example.com/B04.tif"])]
    folder.write(layout.table("scene_imagery", S2, 2020), encode_items(items, {}))
    read_headers(folder, S2, 2020, "a", copy)
    assert look(folder).files == ()  # chips are read with the headers
    put(folder, layout.headers(S2, 2020, "a"))
    assert look(folder).files == ()  # they are damaged, so it is unknown
    folder.delete([layout.headers(S2, 2020, "a")])
    assert keys(look(folder)) == {copy}


def test_a_storage_that_was_moved_needs_its_files(folder: LocalStore, tmp_path: Path) -> None:
    pick(folder, LINZ, 2020, "a")
    copy = layout.imagery(LINZ, "a", "visual-1.tif")
    put(folder, copy)
    settle(folder, LINZ, 2020, {"a": [copy]})
    folder.root.rename(tmp_path / "moved")
    assert look(LocalStore(tmp_path / "moved")).files == ()


def test_cells_that_were_never_picked_are_left_alone(store: Store) -> None:
    files = [*of_cell(S2, 2019, "a"), *of_cell(LINZ, 2020, "a"), layout.imagery(LINZ, "a", "visual.tif")]
    put(store, *files)
    found = look(store)
    assert (found.files, found.looked_at) == ((), 7)
    assert found.notes == (
        f"{store.uri('scenes/scene_picks')}: no scenes picked yet, so unneeded files cannot be identified",
    )
    pick(store, S2, 2020)
    found = look(store)
    assert found.files == ()
    assert set(found.notes) == {
        f"{cell}: scene_picks is missing, so its {count} files are kept"
        for cell, count in {"sentinel-2-l2a|2019": 3, "linz|2020": 3, "linz": 1}.items()
    }


def test_a_storage_that_is_not_there_has_nothing_left_over(folder: LocalStore) -> None:
    assert (look(folder).files, look(folder).looked_at) == ((), 0)
    assert not folder.root.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    [
        layout.table("scene_picks", S2, 2020),
        layout.chip_ledger(S2, 2020),
        f"{layout.MERGED}/{S2}/2020/part-0.parquet",
        layout.table("scene_imagery", S2, 2021),
    ],
)
def test_where_it_cannot_be_told_what_is_needed_nothing_is_found(folder: LocalStore, key: str) -> None:
    pick(folder, S2, 2020, "new")
    put(folder, *of_cell(S2, 2020, "old"), layout.imagery(S2, "old", "B04.tif"), key)
    with pytest.raises(InputError, match=r"cannot be read .* Nothing was removed") as caught:
        look(folder)
    assert str(caught.value).startswith(folder.uri(key))


def test_entries_tell_size_and_time(store: Store) -> None:
    before = time.time()
    put(store, "a/b")
    (entry,) = store.entries("a").values()
    assert entry.size == 5
    assert before - 2 <= entry.modified <= time.time() + 2
    if isinstance(store, LocalStore):
        os.utime(store.root / "a/b", (1e9, 1e9))
        assert store.entries("a")["a/b"].modified == 1e9
