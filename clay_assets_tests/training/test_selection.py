"""Selections of the merged index: their chips, their order, and their errors."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.chips.index import MERGED_SCHEMA
from clay_assets.chips.manifest import MANIFEST_VERSION, manifest_of, read_manifest
from clay_assets.errors import IndexChangedError, InputError
from clay_assets.recipes import load_recipe
from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore
from clay_assets.training.boxes import Box, bounds_touch
from clay_assets.training.counts import counted
from clay_assets.training.selection import Chips, open_chips
from clay_assets_tests.chips.factories import L2, S2, chip_table
from clay_assets_tests.training.conftest import LANDSAT, PLAIN
from clay_assets_tests.training.made_scenes import Made

REPOSITORY = Path(__file__).parents[2]
LIMIT = 0.497  # cloud share that about half of the chips exceed
BOXES = {
    "a chip": (9.01, 0.85, 9.02, 0.86),
    "all": (-180.0, -90.0, 180.0, 90.0),
    "nothing": (60.0, 60.0, 61.0, 61.0),
}


def names(chips: Chips) -> list[str]:
    return [] if not len(chips) else chips.table(["chipid"])["chipid"].to_pylist()


def test_a_selection_holds_what_was_asked_for(made: Made) -> None:
    assert len(open_chips(made.storage)) == 24
    assert len(open_chips(made.storage, S2)) == 18
    assert len(open_chips(Path(made.storage), [S2, L2], years=[2020])) == 12
    assert {name.rsplit("-", 2)[0] for name in names(open_chips(made.store, years=2020))} == {PLAIN, LANDSAT}
    cloudy = open_chips(made.storage, where=pc.field("cloud_cover_percentage") > LIMIT)
    shares = open_chips(made.storage).table(["cloud_cover_percentage"])["cloud_cover_percentage"].to_numpy()
    assert 0 < len(cloudy) == (shares > LIMIT).sum() < 24
    by_split = [open_chips(made.storage, split=name) for name in ("train", "validate", "test", "buffer")]
    assert sum(map(len, by_split)) == 24
    assert set(open_chips(made.storage, split=["train", "test"]).table(["split"])["split"].to_pylist()) <= {
        "train",
        "test",
    }


@pytest.mark.parametrize("bbox", BOXES.values(), ids=BOXES)
def test_a_box_selects_the_chips_that_touch_it(made: Made, bbox: tuple[float, float, float, float]) -> None:
    table = open_chips(made.storage).table(["chipid", "geometry"])
    touched = shapely.intersects(shapely.from_wkb(table["geometry"].to_numpy()), shapely.box(*bbox))
    assert names(open_chips(made.storage, bbox=bbox)) == table["chipid"].to_numpy()[touched].tolist()


def test_parts_outside_a_box_are_not_opened(made: Made, tmp_path: Path) -> None:
    store = LocalStore(shutil.copytree(made.storage, tmp_path / "copy"))
    first, *others = read_manifest(store)
    west, south, east, north = first.bbox
    for part in others:
        (tmp_path / "copy" / layout.MERGED / part.path).unlink()
    there = open_chips(store, first.platform, years=first.year)
    away = [replace(part, bbox=[east + 1, south, east + 2, north]) for part in others]
    store.write(layout.MANIFEST, manifest_of([first, *away], load_recipe("clay_v1")))
    assert names(open_chips(store, bbox=(west, south, east, north))) == names(there)
    beside = [replace(part, bbox=[east, north, east + 2, north + 1]) for part in others]  # at a corner of the box
    store.write(layout.MANIFEST, manifest_of([first, *beside], load_recipe("clay_v1")))
    with pytest.raises((InputError, FileNotFoundError, IndexChangedError)):
        len(open_chips(store, bbox=(west, south, east, north)))


@pytest.mark.parametrize(
    ("bounds", "bbox", "touch"),
    [
        ((0, 0, 1, 1), (1, 1, 2, 2), True),
        ((0, 0, 1, 1), (1.1, 0, 2, 1), False),
        ((0, 0, 1, 1), (0, 1.1, 1, 2), False),
        ((-180, 0, 180, 1), (40, 0, 41, 1), True),
        ((178, 0, 179, 1), (178.5, 0, -179, 1), True),
        ((-179.5, 0, -170, 1), (178.5, 0, -179, 1), True),
        ((-178, 0, 178, 1), (178.5, 0, -179, 1), False),
    ],
)
def test_bounds_that_touch_a_box(bounds: Box, bbox: Box, touch: bool) -> None:
    assert bounds_touch(bounds, bbox) is touch


def test_rows_come_in_the_order_asked(made: Made) -> None:
    chips = open_chips(made.storage)
    whole = chips.table(["chipid", "datetime"])
    asked = np.random.default_rng(1).integers(-24, 24, 60)
    assert chips.rows(asked, ["chipid", "datetime"]).equals(whole.take(pa.array(asked % 24)))
    assert chips.rows([], ["chipid"]).num_rows == 0
    assert chips.rows(3).schema.names == MERGED_SCHEMA.names
    with pytest.raises(InputError, match="indices of chips are float64, not whole numbers"):
        chips.rows([0.5])
    with pytest.raises(IndexError, match="chip -25: the selection has 24 chips"):
        chips.rows([0, -25])


def test_a_hash_tells_selections_apart(made: Made) -> None:
    one = open_chips(made.storage, S2)
    others = [
        open_chips(made.storage),
        open_chips(made.storage, S2, years=2020),
        open_chips(made.storage, S2, split="train"),
        open_chips(made.storage, S2, bbox=BOXES["all"]),
    ]
    assert open_chips(made.storage, S2).hash == one.hash
    assert len({one.hash, *(other.hash for other in others)}) == 5


def test_a_selection_is_sent_without_what_it_read(made: Made) -> None:
    chips = open_chips(made.storage, S2)
    before = len(pickle.dumps(chips))
    assert names(pickle.loads(pickle.dumps(chips))) == names(chips)
    assert len(pickle.dumps(chips)) == before < 4000


def _single(folder: Path, west: float) -> LocalStore:
    """An index of one scene of 3 × 2 chips, one row group per chip; chips across ±180 have two parts."""
    table = chip_table(S2, "S2A_01KAB", 2020, west, -17, 3, 2, 1.0)
    polygons = shapely.from_wkb(table["geometry"].to_numpy())
    west_of = shapely.bounds(polygons)[:, 0]
    polygons[west_of > 180] = shapely.transform(polygons[west_of > 180], lambda corners: corners - (360, 0))
    beyond = shapely.bounds(polygons)[:, 2] > 180
    parts = [
        shapely.MultiPolygon([shapely.box(x0, y0, 180, y1), shapely.box(-180, y0, x1 - 360, y1)])
        for x0, y0, x1, y1 in shapely.bounds(polygons[beyond])
    ]
    polygons[beyond] = parts
    bounds = shapely.bounds(polygons)
    box = pa.StructArray.from_arrays(
        [pa.array(side) for side in bounds.T], fields=list(MERGED_SCHEMA.field("bbox").type)
    )
    columns = {name: table[name] for name in table.column_names} | {
        "geometry": pa.array(shapely.to_wkb(polygons)),
        "bbox": box,
        "year": pa.array([2020] * 6, pa.int16()),
        "split": pa.array(["train"] * 6),
        **{name: pa.nulls(6, MERGED_SCHEMA.field(name).type) for name in ("landcover", "landcover_class")},
    }
    store = LocalStore(folder)
    path = folder / layout.merged_part(S2, 2020)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns).select(MERGED_SCHEMA.names).cast(MERGED_SCHEMA), path, row_group_size=1)
    from clay_assets.chips.manifest import Part

    part = Part(S2, 2020, f"{S2}/2020/part-0.parquet", 6, 1, path.stat().st_size, "i", "c")
    store.write(layout.MANIFEST, manifest_of([part], load_recipe("clay_v1")))
    return store


def test_a_box_across_180_and_chips_across_it(tmp_path: Path) -> None:
    store = _single(tmp_path, 178.5)  # columns from 178.5, 179.5 and 180.5 = -179.5

    def columns(*bbox: float) -> set[int]:
        found = open_chips(store, bbox=bbox)  # type: ignore[arg-type]
        return set(found.table(["chip_index_x"])["chip_index_x"].to_pylist()) if len(found) else set()

    table = open_chips(store).table(["bbox", "chip_index_x"])
    assert max(row["xmax"] - row["xmin"] for row in table["bbox"].to_pylist()) > 180
    assert columns(178.6, -17, 178.7, -16) == {0}
    assert columns(179.6, -17, 179.7, -16) == {1}
    assert columns(-179.9, -17, -179.8, -16) == {1}
    assert columns(179.6, -17, -179.4, -16) == {1, 2}
    assert columns(10, -17, 11, -16) == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"platform": "sentinel-3"}, "sentinel-3"),
        ({"split": "holdout"}, "split holdout: no such split. There are train"),
        ({"bbox": (0, 0, 1)}, "not west, south, east and north"),
        ({"bbox": (0, 1, 1, 0)}, "south is north of north"),
        ({"bbox": (0, 0, 190, 1)}, "lies outside -180 to 180"),
        ({"bbox": (0, 0, float("nan"), 1)}, "not west, south"),
    ],
)
def test_what_cannot_be_selected(made: Made, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_chips(made.storage, **arguments)  # type: ignore[arg-type]


def test_there_is_no_index_or_no_column(made: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"merged index not found. Materialise merged_index"):
        open_chips(tmp_path)
    with pytest.raises(InputError, match=r"altitude: no such column of the merged index. There are chipid"):
        open_chips(made.storage).table(["altitude"])
    assert MANIFEST_VERSION >= 3
    assert len(read_manifest(made.store)) == 3


@pytest.mark.slow
def test_what_trains_imports_neither_dagster_nor_boto3_nor_torch() -> None:
    code = "import sys, clay_assets.training as t; print(*sys.modules); t.open_chips, t.balanced; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    at_once, with_selections = (set(line.split()) for line in result.stdout.splitlines())
    assert not at_once & {"dagster", "boto3", "torch", "numpy", "pyarrow", "rasterio", "pandas"}
    assert not with_selections & {"dagster", "boto3", "torch", "rasterio"}
    import clay_assets.training as training

    assert {"ChipDataset", "ChipStream", "ChipSampler", "ChipLoader"} <= set(training.__all__) == set(training._NAMES)


@pytest.mark.slow
def test_without_pytorch_its_datasets_say_how_to_install_it() -> None:
    code = "import sys; sys.modules['torch'] = None; from clay_assets.training import ChipStream"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PyTorch is not installed. Run `pip install 'clay_assets[torch]'`" in result.stderr
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["torch"] == ["torch>=2.4,<3"]
    assert not any("torch" in line for line in project["optional-dependencies"]["dev"])
    assert "torch" not in (REPOSITORY / "constraints.txt").read_text()


def test_the_order_by_scenes(made: Made) -> None:
    chips = open_chips(made.storage, S2)
    places = chips.in_scenes(np.arange(18))
    assert sorted(places.tolist()) == list(range(18))
    rows = chips.rows(places, ["item_id", "chip_index_x", "chip_index_y"]).to_pylist()
    scenes = [row["item_id"] for row in rows]
    assert len(set(scenes)) == 3
    assert sum(one != other for one, other in pairwise(scenes)) == 2
    # 2 × 2 chips first, as they may be in one block, then those to the right.
    assert [(row["chip_index_x"], row["chip_index_y"]) for row in rows[:6]] == [
        *((0, 0), (1, 0), (0, 1), (1, 1)),
        *((2, 0), (2, 1)),
    ]
    np.testing.assert_array_equal(chips.in_scenes([17, 0]), places[[17, 0]])


def test_a_file_of_several_row_groups(tmp_path: Path) -> None:
    chips = open_chips(_single(tmp_path, 10))
    assert (len(chips), chips.group_count) == (6, 6)
    whole = chips.table(["chipid"])
    assert chips.rows(np.arange(6)[::-1], ["chipid"]).equals(whole.take(pa.array(np.arange(6)[::-1])))
    assert sorted(chips.in_scenes(np.arange(6)).tolist()) == list(range(6))
    assert len(open_chips(chips.store, where=pc.field("chip_index_x") > 0)) == 4


def test_an_index_that_changes_is_noticed(tmp_path: Path) -> None:
    store = _single(tmp_path, 10)
    chips, fresh = open_chips(store), open_chips(store)
    assert chips.rows([5], ["chipid"]).num_rows == 1
    assert len(fresh) == 6
    path = tmp_path / layout.merged_part(S2, 2020)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(IndexChangedError, match=r"part-0.parquet: changed since the chips were selected"):
        chips.rows([1], ["item_id"])
    path.write_bytes(content[:-4] + b"\0" * 4)
    for selection in (chips, open_chips(store)):
        with pytest.raises(InputError, match=r"part-0.parquet: (changed since|cannot be read)"):
            selection.table(["chipid"])
    path.write_bytes(content)
    assert open_chips(store).table(["chipid"]).num_rows == 6


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"platform": S2},
    {"years": 2021},
    {"split": "train"},
    {"split": ["test", "buffer"]},
    {"platform": L2, "split": ("validate", "test"), "years": [2020]},
]


@pytest.mark.parametrize("selected", SELECTIONS)
def test_the_manifest_tells_how_many_chips_there_are(made: Made, selected: dict[str, Any]) -> None:
    chips = open_chips(made.storage, **selected)
    parts = tuple(replace(part, row_groups={}) for part in chips.parts)  # as older versions wrote them
    older = replace(chips, parts=parts)
    assert (chips.is_told, older.is_told) == (True, not parts)
    wrong = [{**part.row_groups, "test": [*part.row_groups["test"], 1]} for part in chips.parts]
    edited = [replace(part, row_groups=groups) for part, groups in zip(chips.parts, wrong, strict=True)]
    assert not replace(chips, parts=tuple(edited)).is_told  # the numbers do not match its rows
    assert len(counted(chips)) == len(older)
    for name in ("part", "number", "chips"):
        np.testing.assert_array_equal(getattr(chips.groups, name), getattr(older.groups, name))
        assert getattr(chips.groups, name).dtype == np.int32
    assert not chips._opened.files  # not one footer was read
    assert chips.hash == older.hash
    assert chips.table() == older.table()
    assert not (made.store.root / layout.selection(chips.hash)).exists()


def test_other_selections_are_counted(made: Made) -> None:
    selected: dict[str, Any]
    for selected in ({"where": pc.field("chip_index_x") == 1}, {"bbox": (-180, -90, 180, 90), "split": "test"}):
        assert not open_chips(made.storage, **selected).is_told


def test_row_groups_are_counted_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _single(tmp_path / "storage", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where = pc.field("chip_index_x") == 1
    kept = tmp_path / "storage" / layout.selection(open_chips(store, where=where).hash)
    assert len(counted(open_chips(store, where=where))) == 2
    table = pq.read_table(kept)
    assert table.to_pydict() == {"part": [0, 0], "row_group": [1, 4], "chips": [1, 1]}
    # Stored counts are used; counts that do not fit are made again.
    pq.write_table(table.slice(1), kept)
    assert len(counted(open_chips(store, where=where))) == 1
    for content in (b"", b"PAR1", kept.read_bytes()[:-1]):
        kept.write_bytes(content)
        assert len(counted(open_chips(store, where=where))) == 2
    for changed in ({"part": [1]}, {"chips": [7]}, {"chips": [0]}):
        columns = {"part": [0], "row_group": [1], "chips": [1], **changed}
        pq.write_table(pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()}), kept)
        assert len(counted(open_chips(store, where=where))) == 2
    # A read-only storage.
    kept.unlink()
    shutil.rmtree(kept.parent)
    kept.parent.write_bytes(b"")
    assert len(counted(open_chips(store, where=where))) == 2
    assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 1
    assert len(counted(open_chips(store, where=where))) == 2
