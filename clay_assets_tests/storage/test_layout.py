"""Names of files from names that others gave: they stay in their folder, and can be read back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clay_assets.storage import layout
from clay_assets.storage.stores import LocalStore

ORDINARY = ["S2A_32NLG_20200102_0_L2A", "LC08_L2SP_001062_20200105_20200823_02_T1", "al_m_3108654_ne_16_060_20211103"]
ODD = [
    "../" * 6 + "etc/passwd",
    "..",
    ".",
    ".hidden",
    "/absolute",
    "a/b",
    "a%2Fb",
    "%2E",
    "a b",
    "a+b",
    "a~b",
    "a\\b",
    "a:b",
    "a?b#c",
    "CON",
    "línea-ñandú-海",
    "line\nbreak",
    "nul\x00byte",
    "\udcff",
    "",
    "x" * 199,
    "x" * 200,
    "x" * 201,
    "x" * 240,
    "x" * 200 + "/y",
    "x" * 192 + ".parquet",
    "x" * 192 + ".parquety",
    "é" * 200,
]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert layout.file_name(name) == name


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_odd_names_stay_in_their_folder_and_come_back(tmp_path: Path, name: str) -> None:
    store = LocalStore(tmp_path / "clay")
    key = layout.chips("naip", 2020, name)
    store.write(key, b"chips")
    assert store.read(key) == b"chips"
    folder = tmp_path / "clay" / layout.chip_folder("naip", 2020)
    (written,) = (path for path in folder.rglob("*") if path.is_file())
    assert list(store.list(layout.chip_folder("naip", 2020), ".parquet")) == [key]
    assert written.relative_to(folder).as_posix() == f"{layout.file_name(name)}.parquet"
    assert all(len(os.fsencode(part)) < 255 for part in written.parts)
    assert layout.name_of_file(layout.file_name(name)) == name
    assert [path.name for path in tmp_path.iterdir()] == ["clay"]


def test_no_two_names_share_a_file_or_need_a_file_for_a_folder() -> None:
    names = sorted({*ORDINARY, *ODD})
    keys = [layout.chips("naip", 2020, name) for name in names]
    assert len(set(keys)) == len(names)
    folders = {key[:position] for key in keys for position, letter in enumerate(key) if letter == "/"}
    assert not folders & set(keys)


def test_images_of_odd_items_and_files_stay_in_their_folder() -> None:
    key = layout.imagery("naip", "../../x", "../y.tif")
    assert ".." not in key.split("/")
    assert key.startswith(f"{layout.imagery_folder('naip', '../../x')}/")
