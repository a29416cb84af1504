"""The stated land cover matches a simple count of the rasters' pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from clay_assets.demo.grid import OCEAN_TILE, TILES, WATER_TILE, tile, tiles
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.planet import Planet
from clay_assets.recipes.classes import WORLDCOVER_CLASSES


def _read_share(planet: Planet, name: str) -> tuple[Any, Any]:
    """Area per class and area of the polygon, from pixel centres at full resolution."""
    polygon = tile(name).polygon
    area = np.zeros(256)
    for path in planet.worldcover.iterdir():
        with rasterio.open(path) as src:
            if not shapely.box(*src.bounds).intersects(polygon):
                continue
            codes = src.read(1)
            lon = src.bounds.left + (np.arange(src.width) + 0.5) * src.res[0]
            lat = src.bounds.top - (np.arange(src.height) + 0.5) * src.res[1]
            inside = shapely.contains_xy(polygon, lon[None, :], lat[:, None])
            weight = np.cos(np.radians(lat))[:, None] * src.res[0] * src.res[1]
            area += np.bincount(codes[inside], np.broadcast_to(weight, inside.shape)[inside], minlength=256)
    # Longitude and sine of latitude: an equal-area projection (Lambert cylindrical).
    dense = shapely.segmentize(polygon, 0.01)
    flat = shapely.transform(dense, lambda xy: np.column_stack([xy[:, 0], np.degrees(np.sin(np.radians(xy[:, 1])))]))
    return area, flat.area


@pytest.mark.parametrize("name", TILES)
def test_shares_are_those_of_the_rasters(planet: Planet, name: Any) -> None:
    truth = planet.class_shares().set_index("name").loc[name]
    area, whole = _read_share(planet, name)
    valid = area[1:].sum()
    assert truth["valid_share"] == pytest.approx(valid / whole, abs=1e-3)
    if name == OCEAN_TILE:
        assert valid == 0
        assert truth[list(WORLDCOVER_CLASSES.values())].isna().all()
        return
    read = [area[code] / valid for code in WORLDCOVER_CLASSES]
    stated = truth[list(WORLDCOVER_CLASSES.values())].to_numpy(float)
    np.testing.assert_allclose(stated, read, atol=1e-3)
    assert truth["count"] == np.count_nonzero(read)


def test_shares_sum_to_one_and_no_class_is_marginal(planet: Planet) -> None:
    shares = planet.class_shares().set_index("name").drop(index=OCEAN_TILE)[list(WORLDCOVER_CLASSES.values())]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    present = shares.to_numpy()[shares.to_numpy() > 0]
    assert present.min() >= 0.005


def test_every_class_occurs(planet: Planet) -> None:
    shares = planet.class_shares()[list(WORLDCOVER_CLASSES.values())]
    assert (shares.max() > 0).all()


@pytest.mark.slow
def test_every_class_occurs_with_a_seed_whose_first_drawing_lacks_one() -> None:
    shares = LandCover(7, tiles()).shares()[list(WORLDCOVER_CLASSES.values())]
    assert (shares.max() > 0).all()


def test_water_tile_has_water_alone(planet: Planet) -> None:
    row = planet.class_shares().set_index("name").loc[WATER_TILE]
    assert row["Permanent water bodies"] == 1
    assert row["count"] == 1


def test_files_are_named_and_laid_out_as_worldcover(planet: Planet) -> None:
    paths = sorted(planet.worldcover.iterdir())
    assert "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif" in {path.name for path in paths}
    assert "ESA_WorldCover_10m_2021_v200_S18W180_Map.tif" in {path.name for path in paths}
    for path in paths:
        with rasterio.open(path) as src:
            west, south, east, north = src.bounds
            name = f"{'S' if south < 0 else 'N'}{abs(south):02.0f}{'W' if west < 0 else 'E'}{abs(west):03.0f}"
            assert path.name == f"ESA_WorldCover_10m_2021_v200_{name}_Map.tif"
            assert (east - west, north - south) == pytest.approx((3, 3))
            assert (src.crs.to_epsg(), src.dtypes[0], src.nodata) == (4326, "uint8", 0)
            assert src.overviews(1) == [2, 4, 8, 16]
            assert src.profile["tiled"]
            assert set(np.unique(src.read(1))) <= {0, *WORLDCOVER_CLASSES}


def test_overviews_repeat_the_full_resolution(planet: Planet) -> None:
    path = planet.worldcover / "ESA_WorldCover_10m_2021_v200_N51E012_Map.tif"
    with rasterio.open(path) as src:
        full = src.read(1)
    with rasterio.open(path, overview_level=2) as src:
        assert src.shape == (300, 300)
        np.testing.assert_array_equal(src.read(1), full[::8, ::8])
