from __future__ import annotations

import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from clay_assets.landcover.worldcover import class_shares
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets_tests.chips.factories import made_plan
from clay_assets_tests.landcover.rasters import write_cell
from clay_assets_tests.training.made_scenes import KINDS, Made, landsat, made_storage, of_platform, sentinel_2

PLAIN, RAISED, BESIDE = "S2A_32NMF_20200302_0_L2A", "S2A_32NMF_20210302_0_L2A", "S2B_32NMF_20210302_0_L2A"
TRAIN = 3  # seed of `made_plan` that puts these scenes in `train`
LANDSAT = "LC08_L2SP_188060_20200702_20200710_02_T1_SR"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three Sentinel-2 scenes over two years, one with the offset, and a Landsat scene. Read-only."""
    return made_storage(
        tmp_path_factory.mktemp("made"),
        {
            "plain": sentinel_2(PLAIN, 2020),
            "raised": sentinel_2(RAISED, 2021, offset=1000),
            "beside": sentinel_2(BESIDE, 2021, column=1),
            "landsat": landsat(LANDSAT, 2020),
        },
    )


@pytest.fixture(scope="session")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A scene of each platform in week 53 of 2020, and one more of Sentinel-2; six chips each. Read-only."""
    scenes = {key: of_platform(key, f"{key}_one", "2020-12-30T17:20:30.405Z") for key in KINDS}
    scenes["two"] = of_platform("sentinel-2-l2a", "sentinel-2-l2a_two", "2021-03-02T10:20:30Z")
    return made_storage(tmp_path_factory.mktemp("seven"), scenes)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `demo/storage` and `demo/planet` as made by `make demo`, but with only two scenes and one tile."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "demo/planet/worldcover").mkdir(parents=True)
    scenes = {"plain": sentinel_2(PLAIN, 2020), "raised": sentinel_2(RAISED, 2021, offset=1000)}
    made = made_storage(folder / "demo", scenes, plan=made_plan(TRAIN))
    items = [scene.item for scene in made.scenes if scene.year == 2020]
    made.store.write(layout.table("scene_imagery", "sentinel-2-l2a", "2020"), encode_items(items, {}))
    write_cell(folder / "demo/planet/worldcover", "N00E009", np.tile(np.arange(1, 7, dtype=np.uint8) * 10, (60, 10)))
    tiles = gpd.GeoDataFrame({"name": ["32NMF"]}, geometry=[shapely.box(9.1, 0.1, 10, 0.9)], crs="EPSG:4326")
    made.store.write(layout.table("mgrs_grid"), encode(tiles, {}))
    stats = class_shares(tiles, folder / "demo/planet/worldcover")
    made.store.write(layout.table("worldcover_stats"), encode(stats, {}))
    return folder


@pytest.fixture
def spoilt(made: Made, tmp_path: Path) -> Made:
    """A fresh storage with one Sentinel-2 scene, for tests that change files."""
    folder = tmp_path / "spoilt"
    folder.mkdir()
    return made_storage(folder, {"plain": sentinel_2(PLAIN, 2020)})


@pytest.fixture
def gone(spoilt: Made) -> Made:
    """The same storage without its image files."""
    shutil.rmtree(spoilt.folder / "plain")
    return spoilt
