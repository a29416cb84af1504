"""Indexes that stacchip wrote: opened, compared with ours, and refused where they are something else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clay_assets.chips.index import CHIP_SCHEMA, open_index
from clay_assets.chips.stacchip import STACCHIP_SCHEMA, compare, open_stacchip_index
from clay_assets.errors import InputError
from clay_assets_tests.chips.factories import S2


def ours_of(scenes: dict[str, list[float]]) -> pa.Table:
    """An index of ours: scene → cloud share of each of its chips, all in the first row."""
    rows = [(scene, x, cloud) for scene, shares in scenes.items() for x, cloud in enumerate(shares)]
    columns = {
        "chipid": [f"{scene}-{x}-0" for scene, x, _ in rows],
        "platform": [S2] * len(rows),
        "item_id": [scene for scene, _, _ in rows],
        "chip_index_x": [x for _, x, _ in rows],
        "cloud_cover_percentage": [cloud for *_, cloud in rows],
        "nodata_percentage": [0.0] * len(rows),
    }
    empty = [None] * len(rows)
    return pa.Table.from_pydict({name: columns.get(name, empty) for name in CHIP_SCHEMA.names}, schema=CHIP_SCHEMA)


def write_theirs(folder: Path, scenes: dict[str, list[float]], platform: str = S2) -> Path:
    """The files of stacchip's processors."""
    for scene, shares in scenes.items():
        file = folder / "index" / platform / scene / f"index_{scene}.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(ours_of({scene: shares}).select(STACCHIP_SCHEMA.names), file)
    return folder / "index"


def write_ours(folder: Path, scenes: dict[str, list[float]]) -> Path:
    file = folder / "ours.parquet"
    pq.write_table(ours_of(scenes), file)
    return file


def test_what_is_the_same_and_what_differs(tmp_path: Path) -> None:
    theirs = write_theirs(tmp_path, {"A-1": [0.1, 0.2, 0.3], "B": [0.5]})
    ours = write_ours(tmp_path, {"A-1": [0.1, 0.25, 0.3], "C": [0.5, 0.5]})
    found = compare(open_stacchip_index(theirs), open_index(ours))
    assert (found.theirs, found.ours, found.both, found.equal) == (4, 5, 3, 2)
    assert found.cloud == pytest.approx(0.05)
    assert found.nodata == 0
    assert (found.scenes_theirs, found.scenes_ours, found.scenes_both) == (2, 2, 1)
    assert (found.only_theirs, found.only_ours) == (("B",), ("C",))


def test_indexes_without_a_common_chip(tmp_path: Path) -> None:
    found = compare(open_stacchip_index(write_theirs(tmp_path, {"A": [0.1]})), open_index(write_ours(tmp_path, {})))
    assert (found.both, found.equal, found.cloud, found.nodata) == (0, 0, 0, 0)


@pytest.mark.parametrize("inside", ["", S2])
def test_a_platform_is_the_name_of_a_folder(tmp_path: Path, inside: str) -> None:
    index = write_theirs(tmp_path, {"A": [0.1, 0.2]})
    write_theirs(tmp_path, {"L": [0.3]}, platform="landsat-c2l2-sr")
    table = open_stacchip_index(index / inside, S2).to_table()
    assert table["chipid"].to_pylist() == ["A-0-0", "A-1-0"]
    assert open_stacchip_index(index).count_rows() == 3


def test_no_file_of_the_platform_is_said(tmp_path: Path) -> None:
    index = write_theirs(tmp_path, {"A": [0.1]})
    with pytest.raises(InputError, match="no Parquet file of naip at this place"):
        open_stacchip_index(index, "naip")


@pytest.mark.parametrize("place", ["nowhere", "nowhere.parquet"])
def test_an_address_without_an_index_is_said(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match=r"nowhere.*: no Parquet file at this place\. Check the address"):
        open_stacchip_index(tmp_path / place)


def test_another_table_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"chipid": ["a"], "date": [None]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: no column chip_index_x, .*geometry\. Give an index that"):
        open_stacchip_index(tmp_path)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bad\.parquet: not a readable Parquet file"):
        open_stacchip_index(tmp_path)


@pytest.mark.parametrize("chosen", [{"platform": S2}, {"year": 2020}])
def test_our_reader_does_not_answer_with_nothing(tmp_path: Path, chosen: dict[str, object]) -> None:
    index = write_theirs(tmp_path, {"A": [0.1]})
    with pytest.raises(InputError, match=r"no column platform or datetime, as in indexes of stacchip\. Open it with"):
        open_index(index, **chosen)  # type: ignore[arg-type]
    assert pc.all(pc.is_null(open_index(index).to_table()["platform"])).as_py()
