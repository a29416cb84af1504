"""Headers of every platform's scenes on the miniature planet, and the decisions on their radiometry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.sources.cog import read_header
from clay_assets.storage.stores import LocalStore
from clay_assets.training.cells import READ, HeadersCell
from clay_assets.training.reading_headers import read_headers
from clay_assets.training.scene_files import stored_scene_files

S2 = "sentinel-2-l2a"
SOME = 4  # scenes of each other platform
EVERY = 3  # use every third Sentinel-2 scene, as there are many of each kind


@pytest.fixture(scope="module")
def cells(planet: Planet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, HeadersCell]:
    """The headers of Sentinel-2 scenes of all years, and of some scenes of each other platform, as one year each."""
    store, recipe = LocalStore(tmp_path_factory.mktemp("store")), load_recipe("clay_v1")
    found = {}
    with ThreadPoolExecutor(2) as pool:
        for key, platform in PLATFORMS.items():
            if platform.scenes.collection is None:  # LINZ, whose files are read after resampling by the pipeline
                continue
            items = planet.items(platform.scenes.collection)
            chosen = items[::EVERY] if key == S2 else items[:SOME]
            found[key] = read_headers(key, 2021, chosen, store, recipe, pool, 4)
    return found


def test_every_scene_with_all_its_files_is_read(cells: dict[str, HeadersCell]) -> None:
    for key, cell in cells.items():
        assert READ in set(cell.ledger["outcome"]), key
        lacking = cell.failures["error"].str.fullmatch(r"\S+: lacks the assets scl\. Pick another scene\.")
        assert lacking.all(), (key, cell.failures["error"].tolist())
        assert len(lacking) <= 1, key
        assert cell.fallbacks().empty, (key, cell.fallbacks())


def test_headers_are_those_of_their_files(cells: dict[str, HeadersCell]) -> None:
    for key, cell in cells.items():
        for item_id in cell.scenes["item_id"][:SOME]:
            files = stored_scene_files(cell.store, key, 2021, item_id)
            for name, header in files.headers.items():
                assert repr(header) == repr(read_header(files.hrefs[name], PLATFORMS[key].access_to(files.hrefs[name])))


def test_the_offset_of_every_sentinel_2_scene_is_told_though_flags_lie(
    planet: Planet, cells: dict[str, HeadersCell]
) -> None:
    truth = planet.radiometry().set_index("item_id")
    assert set(cells[S2].ledger["item_id"]) == {item["id"] for item in planet.items(S2)[::EVERY]} <= set(truth.index)
    told = cells[S2].scenes.set_index("item_id")
    offsets = truth["offset"].reindex(told.index)
    assert told.index[told["radiometric_offset"] != offsets].tolist() == []
    assert set(offsets) == {0, 1000}
    lies = truth["stated"].reindex(told.index) != offsets
    assert lies.any()
    doubtful = told["offset_contradiction"].notna()
    by_pixels = told["offset_evidence"] == "pixels"
    assert (doubtful[by_pixels] == lies[by_pixels]).all()
    assert set(told["offset_evidence"]) >= {"baseline", "pixels"}
