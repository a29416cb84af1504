"""`clay-assets show` and `clay-assets export`, on the miniature planet and on scenes of known pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from clay_assets.platforms import PLATFORMS, platform_of
from clay_assets.sources.cog import read_header
from clay_assets.storage import layout
from clay_assets.storage.stores import open_store
from clay_assets.training.selection import open_chips
from clay_assets_tests.chain import Chain
from clay_assets_tests.chips.factories import L2, S2
from clay_assets_tests.cli.conftest import Command
from clay_assets_tests.training.conftest import PLAIN
from clay_assets_tests.training.made_scenes import Made, made_storage, sentinel_2


@pytest.mark.parametrize("key", sorted(PLATFORMS))
def test_show_says_why_a_chip_of_each_platform_is_here(
    built: Chain, tmp_path: Path, command: Command, key: str
) -> None:
    row = open_chips(built.storage, key).rows([0]).to_pylist()[0]
    picture = tmp_path / "chip.png"
    result = command("show", row["chipid"], "--picture", str(picture), storage=built.storage)
    assert result.exit_code == 0, result.output
    platform, lines = platform_of(key), result.stdout.splitlines()
    assert lines[0] == f"{row['chipid']}, {key} {row['year']}"
    for title in ("provenance", "chip", "merged index", "scene", "files"):
        assert title in lines
    told = {line.strip().split("  ")[0]: line for line in lines}
    assert {"split", "item", "acquired"} <= set(told)
    assert {"request", "request 1"} & set(told)
    assert {"place", "place 1"} & set(told)
    assert row["split"] in told["split"]
    assert set(platform.assets.bands) <= set(told)
    assert Image.open(picture).size == (256, 256)
    document = json.loads(command("show", row["chipid"], "--json", "--no-picture", storage=built.storage).stdout)
    assert document["chip"]["chipid"] == row["chipid"]
    assert document["merged"]["landcover_class"] == row["landcover_class"]
    requests, places = document["requests"], document["sample"]
    assert requests  # the same scene can be picked for several places
    assert {(request["item_id"], request["platform"]) for request in requests} == {(row["item_id"], key)}
    # MODIS requests involve no draw.
    assert bool({"draw", "draw 1"} & set(told)) == any(request["draw"] > 0 for request in requests)
    assert {request["location"] for request in requests} == {place.get("name") or place["id"] for place in places}
    for use in document["files"]:
        header = read_header(use["href"])
        stored = set(zip(header.block_offsets.tolist(), header.block_byte_counts.tolist(), strict=True))
        assert {(start, size) for start, size in use["ranges"]} <= stored, use["asset"]
        assert use["ranges"]


@pytest.mark.slow
def test_show_lists_the_blocks_that_the_chip_lies_in(chip_storage: Made, command: Command) -> None:
    document = json.loads(
        command("show", f"{PLAIN}-2-1", "--json", "--no-picture", storage=chip_storage.storage).stdout
    )
    for use in document["files"]:
        header = read_header(use["href"])
        side = header.width * 256 // 800
        columns, rows = (np.arange(index * side // 128, -(-(index + 1) * side // 128)) for index in (2, 1))
        blocks = (rows[:, None] * header.blocks_across + columns).ravel()
        assert [start for start, _ in use["ranges"]] == sorted(header.block_offsets[blocks].tolist()), use["asset"]
    assert document["notes"] == [f"no request in the ledger of {S2}|2020 names this scene: the picks have changed"]


def test_show_asks_for_the_platform_where_two_match(tmp_path: Path, command: Command) -> None:
    made = made_storage(tmp_path, {"plain": sentinel_2(PLAIN, 2020)})
    store = open_store(made.storage)
    store.write(layout.chips(L2, 2020, PLAIN), store.read(layout.chips(S2, 2020, PLAIN)))
    store.write(layout.chip_ledger(L2, 2020), b"")
    result = command("show", f"{PLAIN}-1-1", "--no-picture", storage=made.storage)
    assert result.exit_code == 1
    assert f"found for platforms {L2} and {S2}. Choose one with --platform." in result.stderr
    result = command("show", f"{PLAIN}-1-1", "--no-picture", "--platform", S2, storage=made.storage)
    assert result.stdout.startswith(f"{PLAIN}-1-1, {S2} 2020")


@pytest.mark.parametrize(
    ("indexed", "chipid", "words"),
    [
        pytest.param(False, "a-0-0", "chip index not found. Materialise chip_index.", id="nothing indexed"),
        pytest.param(True, "S2A_NO_SUCH-0-0", "S2A_NO_SUCH-0-0: chip not found", id="unknown scene"),
        pytest.param(True, f"{PLAIN}-40-0", "chips with too much nodata are not indexed", id="unknown place"),
        pytest.param(True, PLAIN, "not a chip id. Give {item_id}-{x}-{y}", id="a scene"),
        pytest.param(True, "../../etc-0-0", "chip not found", id="a path"),
    ],
)
def test_show_says_what_is_missing(
    chip_storage: Made, tmp_path: Path, command: Command, indexed: bool, chipid: str, words: str
) -> None:
    result = command("show", chipid, storage=chip_storage.storage if indexed else tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_show_tells_all_it_can_where_pixels_are_gone(tmp_path: Path, command: Command) -> None:
    made = made_storage(tmp_path, {"plain": sentinel_2(PLAIN, 2020)})
    shutil.rmtree(tmp_path / "plain")
    result = command("show", f"{PLAIN}-1-1", "--picture", str(tmp_path / "x.png"), storage=made.storage)
    assert result.exit_code == 0
    assert "provenance" in result.stdout
    assert "no picture: " in result.stderr
    made.store.delete([layout.headers(S2, 2020, PLAIN), layout.merged_part(S2, 2020)])
    result = command("show", f"{PLAIN}-1-1", "--no-picture", storage=made.storage)
    assert "Materialise merged_index" in result.stdout
    assert "has no headers. Materialise cog_headers" in result.stdout


def test_export_writes_the_chips_of_a_box(chip_storage: Made, tmp_path: Path, command: Command) -> None:
    west, south, east, north = 9.0, 0.85, 9.03, 0.9
    chips = open_chips(chip_storage.storage, S2, bbox=(west, south, east, north), years=2020)
    arguments = ["--platform", S2, "--year", "2020", "--bbox", f"{west},{south},{east},{north}", "--band", "red"]
    result = command("export", *arguments, "--out", str(tmp_path), storage=chip_storage.storage)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{len(chips)} chips in {tmp_path}\n"
    names = set(chips.table(["chipid"])["chipid"].to_pylist())
    assert {path.stem for path in (tmp_path / S2).iterdir()} == names
    with rasterio.open(tmp_path / S2 / f"{PLAIN}-1-1.tif") as file:
        np.testing.assert_array_equal(file.read(1), chip_storage.scene(PLAIN).window("red", 1, 1))
    result = command("export", *arguments, "--out", str(tmp_path / "npz"), "--format", "npz", "--limit", "1")
    assert [path.suffix for path in (tmp_path / "npz" / S2).iterdir()] == [".npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bbox", "1,2,3"], "--bbox 1,2,3: not four numbers"),
        (["--bbox", "60,60,61,61"], "no chips selected, so nothing is written"),
        (["--platform", "sentinel-3"], "sentinel-3"),
        (["--platform", L2, "--band", "vv"], "bands vv: not bands of Landsat"),
    ],
)
def test_export_says_what_cannot_be(
    chip_storage: Made, tmp_path: Path, command: Command, arguments: list[str], words: str
) -> None:
    result = command("export", *arguments, "--out", str(tmp_path / "out"), storage=chip_storage.storage)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert not (tmp_path / "out").exists()
