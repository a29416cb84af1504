"""Land cover shares against independent answers: exactextract, and plain numpy over pixel centres."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from shapely import box

from clay_assets.landcover.grid import read_grid
from clay_assets.landcover.worldcover import CLASSES, class_shares, spherical_area
from clay_assets_tests.landcover.rasters import corner, file_name, write_cell

exactextract = pytest.importorskip("exactextract")

SHARES = list(CLASSES.values())


def exact_shares(values: np.ndarray, cell: str, tiles: gpd.GeoDataFrame) -> pd.DataFrame:
    """Class shares by exactextract, one row per tile: covered fraction of each pixel times cos(latitude)."""
    west, south = corner(cell)
    extent = {"xmin": west, "ymin": south, "xmax": west + 3, "ymax": south + 3}
    size = len(values)
    latitude = south + 3 - (np.arange(size) + 0.5) * 3 / size
    weights = np.repeat(np.cos(np.radians(latitude))[:, None], size, axis=1)
    wkt = tiles.crs.to_wkt()
    raster = exactextract.raster.NumPyRasterSource(values, **extent, nodata=0, srs_wkt=wkt, name="class")
    areas = exactextract.raster.NumPyRasterSource(weights, **extent, srs_wkt=wkt, name="area")
    found = exactextract.exact_extract(
        raster, tiles, ["unique", "weighted_frac"], weights=areas, include_cols=["name"], output="pandas"
    )
    rows = [
        dict(zip(codes.astype(int), shares, strict=True))
        for codes, shares in zip(found["unique"], found["weighted_frac"], strict=True)
    ]
    return pd.DataFrame(rows, index=found["name"]).reindex(columns=list(CLASSES)).fillna(0).set_axis(SHARES, axis=1)


def centre_shares(values: np.ndarray, cell: str, polygon: shapely.Geometry) -> np.ndarray:
    """Class shares by the definition: pixels whose centre is inside, weighted by cos(latitude)."""
    west, south = corner(cell)
    size = len(values)
    offset = (np.arange(size) + 0.5) * 3 / size
    lon, lat = west + offset, south + 3 - offset
    bounds = polygon.bounds
    column = slice(*np.searchsorted(lon, [bounds[0], bounds[2]]))
    row = slice(*(size - np.searchsorted(lat[::-1], [bounds[3], bounds[1]])))
    inside = shapely.contains_xy(polygon, *np.meshgrid(lon[column], lat[row]))
    part, weights = values[row, column], np.cos(np.radians(lat[row]))
    areas = np.array([((inside & (part == code)).sum(axis=1) * weights).sum() for code in CLASSES])
    return areas / areas.sum()


def edge_tolerance(pixels_per_side: float, clumping: float = 1) -> float:
    """Five standard deviations of the change in a share from counting whole pixels instead of covered fractions.

    Only the pixels on the outline differ, about 4 sides of them, each by a uniform error of -0.5..0.5
    (deviation 0.29) of a pixel; the errors of neighbours of the same class in clumps add up.
    """
    return float(5 * 0.29 * np.sqrt(4 * pixels_per_side * clumping) / pixels_per_side**2)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["N00E006", "N72W120", "S51E168"])
def test_random_classes_against_exactextract(tmp_path: Path, cell: str) -> None:
    generator = np.random.default_rng(3)
    size = 300
    # Different classes in the north and south, so that ignoring the true area of pixels would show.
    values = np.where(
        np.arange(size)[:, None] < size // 2,
        generator.choice([0, 10, 20, 30, 40, 50, 60], size=(size, size)),
        generator.choice([0, 60, 70, 80, 90, 95, 100], size=(size, size)),
    ).astype(np.uint8)
    write_cell(tmp_path, cell, values, factors=(2, 4, 8, 16))
    west, south = corner(cell)
    polygons = [
        shapely.affinity.rotate(box(west + 0.8, south + 0.8, west + 2.2, south + 2.2), angle) for angle in (3, 20, 40)
    ]
    tiles = gpd.GeoDataFrame({"name": ["a", "b", "c"]}, geometry=polygons, crs="EPSG:4326")
    ours = class_shares(tiles, tmp_path).set_index("name")[SHARES]
    theirs = exact_shares(values, cell, tiles)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=edge_tolerance(140))
    ours_by_definition = [centre_shares(values, cell, polygon) for polygon in polygons]
    # cos at the middle of a row differs from the exact integral by (0.01°)² / 24.
    np.testing.assert_allclose(ours, ours_by_definition, rtol=1e-7)


@pytest.mark.slow
def test_the_real_worldcover_tile(real_data: Path) -> None:
    cell, folder = "N00E006", real_data / "worldcover"
    grid = read_grid(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet").set_index("name", drop=False)
    # 32NLG and 32NLH lie inside the file; 32NKF begins south of the equator, where the file is missing.
    tiles = grid.loc[["32NLG", "32NLH", "32NKF", "31NHA"]].reset_index(drop=True)
    with rasterio.open(folder / file_name(cell)) as src:
        level = src.overviews(1).index(8)
    with rasterio.open(folder / file_name(cell), overview_level=level) as src:
        assert src.shape == (4500, 4500)
        values = src.read(1)

    shares = class_shares(tiles, folder)
    assert shares["name"].tolist() == ["32NLG", "32NKF", "31NHA"]  # 32NLH is only water
    assert shares.attrs["only_water"] == 1
    land = tiles.set_index("name").loc[shares["name"]]
    theirs = exact_shares(values, cell, tiles).loc[shares["name"]]
    # Tiles of 1480 pixels a side; land cover comes in clumps of tens of pixels.
    np.testing.assert_allclose(shares[SHARES], theirs, rtol=0, atol=edge_tolerance(1480, clumping=30))
    by_definition = [centre_shares(values, cell, polygon) for polygon in land.geometry]
    np.testing.assert_allclose(shares[SHARES], by_definition, rtol=1e-6, atol=1e-9)
    assert (shares["count"].to_numpy() == (np.array(by_definition) > 0).sum(axis=1)).all()
    assert exact_shares(values, cell, tiles).loc["32NLH", "Permanent water bodies"] == 1

    # Valid share: valid pixels by numpy over the tile's area by pyproj, on a sphere and with dense edges.
    sphere = pyproj.Geod(a=1, b=1)
    for row in shares.itertuples():
        polygon = land.geometry[row.name]
        lon = 6 + (np.arange(4500) + 0.5) / 1500
        lat = 3 - (np.arange(4500) + 0.5) / 1500
        inside = shapely.contains_xy(polygon, *np.meshgrid(lon, lat)) & (values > 0)
        valid = (inside.sum(axis=1) * np.cos(np.radians(lat))).sum() * np.radians(1 / 1500) ** 2
        area, _ = sphere.geometry_area_perimeter(shapely.orient_polygons(polygon.segmentize(0.01)))
        assert spherical_area(np.array([polygon]))[0] == pytest.approx(area, rel=1e-7)
        # Near the equator a tile's sides run along the pixels: half a pixel of 1480 on each of the four.
        assert row.valid_share == pytest.approx(valid / area, rel=4 * 0.5 / 1480)
