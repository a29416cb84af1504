"""Land cover of chips: compared with exactextract on their polygons, on the planet and a real tile; and bad input."""

from __future__ import annotations

from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from clay_assets.chips.cells import MEASURED
from clay_assets.chips.index import _table
from clay_assets.chips.indexing import index_scenes
from clay_assets.chips.landcover import (
    CODES,
    SHARE_SCHEMA,
    chip_land_cover,
    land_cover_of,
    open_worldcover,
    whole_percent,
)
from clay_assets.chips.measuring import measure_land_cover
from clay_assets.chips.rules import shares_sum_to_one
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.landcover.worldcover import class_shares
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import WORLDCOVER_CLASSES, WORLDCOVER_FIELDS
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chips.factories import S2
from clay_assets_tests.landcover.rasters import file_name, plain, write_cell

FIELDS = list(WORLDCOVER_FIELDS.values())
CHIP = 256


def chips_of(epsg: int, left: float, top: float, pixel: float, columns: int, rows: int, size: int = CHIP) -> pa.Table:
    """The chip index of a scene without cloud or nodata."""
    grid = Grid(CRS.from_epsg(epsg), Affine(pixel, 0, left, 0, -pixel, top), rows * size, columns * size)
    nothing = np.zeros((rows, columns), np.float32)
    return _table("SCENE", S2, datetime(2021, 6, 1, tzinfo=UTC), grid, size, nothing, nothing, 1)


def scene_at(lon: float, lat: float, epsg: int, pixel: float, side: int, size: int = CHIP) -> pa.Table:
    """A scene of `side` × `side` chips around a place."""
    from pyproj import Transformer

    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    half = side * size * pixel / 2
    return chips_of(epsg, round(x - half), round(y + half), pixel, side, side, size)


def measured(chips: pa.Table, folder: Path, epsg: int, size: int = CHIP) -> pd.DataFrame:
    table = chip_land_cover(chips, CRS.from_epsg(epsg), size, open_worldcover(str(folder)))
    assert table.schema.equals(SHARE_SCHEMA)
    assert table["chipid"].equals(chips["chipid"])
    assert shares_sum_to_one(table).ok
    return table.to_pandas()


def exact(chips: pa.Table, files: list[Path]) -> pd.DataFrame:
    """Class shares and valid share of the chips' polygons by exactextract, on files at full resolution."""
    exactextract = pytest.importorskip("exactextract")
    polygons = gpd.GeoSeries.from_wkb(chips["geometry"].to_pylist(), crs="EPSG:4326")
    areas = np.zeros((len(polygons), 256))
    for path in files:
        with rasterio.open(path) as source:
            bounds = source.bounds
            here = shapely.intersects(polygons.to_numpy(), shapely.box(*bounds))
            if not here.any():
                continue
            values = source.read(1)
        extent = dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True))
        lat = bounds.top - (np.arange(values.shape[0]) + 0.5) * (bounds.top - bounds.bottom) / values.shape[0]
        weights = np.repeat(np.cos(np.radians(lat))[:, None], values.shape[1], axis=1)
        wkt = polygons.crs.to_wkt()
        raster = exactextract.raster.NumPyRasterSource(values, **extent, srs_wkt=wkt, name="class")
        area = exactextract.raster.NumPyRasterSource(weights, **extent, srs_wkt=wkt, name="area")
        frame = gpd.GeoDataFrame({"n": np.flatnonzero(here)}, geometry=polygons[here].to_numpy(), crs="EPSG:4326")
        found = exactextract.exact_extract(
            raster, frame, ["values", "coverage", "weights"], weights=area, include_cols=["n"], output="pandas"
        )
        for row in found.itertuples():
            areas[row.n] += np.bincount(row.values.astype(int), row.coverage * row.weights, minlength=256)
    classes = areas[:, list(WORLDCOVER_CLASSES)]
    with np.errstate(invalid="ignore"):
        shares = pd.DataFrame(classes / classes.sum(axis=1, keepdims=True), columns=FIELDS)
        return shares.assign(valid_share=np.nan_to_num(classes.sum(axis=1) / areas.sum(axis=1)))


def clumped(seed: int, size: int = 600, clump: int = 4) -> NDArray[np.uint8]:
    """Random clumps of classes, a tenth of them nodata."""
    codes = np.array([0, *WORLDCOVER_CLASSES], np.uint8)
    cells = np.random.default_rng(seed).choice(codes, (size // clump, size // clump))
    return np.kron(cells, np.ones((clump, clump), np.uint8)).astype(np.uint8)


# --- against exactextract ---------------------------------------------------------------------------------------------

# Tolerance of a share, as pixels under a chip's outline are counted whole: 16 samples per side, 64 under the outline,
# each wrong by up to half, clumped; five standard deviations.
TOLERANCE = 0.09


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epsg", "lon", "lat", "pixel", "side", "files"),
    [
        pytest.param(32632, 9.0, 1.5, 10, 6, ["N00E006", "N00E009"], id="Sentinel-2 between two files"),
        pytest.param(32632, 9.0, 3.0, 30, 5, ["N00E006", "N00E009", "N03E006", "N03E009"], id="Landsat between four"),
        pytest.param(32601, -179.95, 65.5, 10, 8, ["N63E177", "N63W180"], id="across ±180, far from its meridian"),
        pytest.param(32660, 179.99, -16.5, 30, 4, ["S18E177", "S18W180"], id="across ±180 in the south"),
        pytest.param(32633, 15.0, 82.6, 10, 6, ["N81E015", "N81E012"], id="near the pole"),
        pytest.param(3857, 13.0, 62.0, 500, 2, ["N60E009", "N60E012", "N60E015", "N63E009", "N63E012", "N63E015"],
                     id="MODIS in EPSG:3857"),
        pytest.param(26916, -86.0, 31.5, 0.6, 6, ["N30W087"], id="NAIP, whose chips have a pixel or so"),
        pytest.param(2193, 175.0, -40.0, 0.3, 4, ["S42E174"], id="LINZ, whose chips are smaller than a pixel"),
    ],
)  # fmt: skip
def test_shares_are_those_of_exactextract_on_the_chips_polygons(
    tmp_path: Path, epsg: int, lon: float, lat: float, pixel: float, side: int, files: list[str]
) -> None:
    paths = [write_cell(tmp_path, cell, clumped(seed), factors=(2, 4), shown=1) for seed, cell in enumerate(files)]
    chips = scene_at(lon, lat, epsg, pixel, side)
    ours, theirs = measured(chips, tmp_path, epsg), exact(chips, paths)
    np.testing.assert_allclose(ours["valid_share"], theirs["valid_share"], rtol=0, atol=TOLERANCE)
    known = theirs["valid_share"] > 0.3
    assert known.any()
    np.testing.assert_allclose(ours.loc[known, FIELDS], theirs.loc[known, FIELDS], rtol=0, atol=2 * TOLERANCE)
    # Errors at shared outlines cancel.
    np.testing.assert_allclose(
        ours.loc[known, FIELDS].mean(), theirs.loc[known, FIELDS].mean(), rtol=0, atol=TOLERANCE / 2
    )


def test_chips_of_a_tile_beyond_180_in_mercator_find_their_files(tmp_path: Path) -> None:
    """EPSG:3857 ends at ±180°: in a scene that crosses it, x of the two sides differs by a whole world."""
    for cell, value in (("N00E177", 10), ("N00W180", 80)):
        write_cell(tmp_path, cell, plain(value), factors=(2,), shown=1)
    width = 20_037_508.342789244
    chips = chips_of(3857, width - 2 * CHIP * 100, 3 * CHIP * 100, 100, 4, 3)
    ours = measured(chips, tmp_path, 3857)
    column = chips["chip_index_x"].to_numpy()
    assert (ours["tree_cover"][column < 2] == 1).all()
    assert (ours["permanent_water_bodies"][column >= 2] == 1).all()
    assert (ours["valid_share"] == 1).all()


@pytest.mark.slow
def test_pixels_weigh_their_true_area(tmp_path: Path) -> None:
    """Two classes in the northern and southern half of a chip that is 2.2° high: the southern half is larger."""
    values = np.repeat(np.array([10, 40], np.uint8), 1500)[:, None] * np.ones(3000, np.uint8)
    write_cell(tmp_path, "N60E012", values.astype(np.uint8), factors=(2,), shown=1)
    chips = scene_at(13.5, 61.5, 3857, 1900, 1)
    ours = measured(chips, tmp_path, 3857)
    _, south, _, north = shapely.from_wkb(chips["geometry"][0].as_py()).bounds
    sines = np.sin(np.radians([south, 61.5, north]))
    true = (sines[1] - sines[0]) / (sines[2] - sines[0])
    assert ours["cropland"][0] == pytest.approx(true, abs=1e-3)
    assert (61.5 - south) / (north - south) != pytest.approx(true, abs=5e-3)


# --- the planet and a real tile ---------------------------------------------------------------------------------------


def test_shares_of_the_planets_chips_are_true(
    planet: Planet, store: LocalStore, recipe: Recipe, threads: Executor
) -> None:
    """Compared with exactextract on the files at full resolution, which repeat the planet's cells."""
    items = [item for item in planet.items(S2) if item["properties"]["datetime"].startswith("2021")]
    by_tile = {item["id"].split("_")[1]: item for item in items}
    cell = index_scenes(S2, 2021, list(by_tile.values()), store, recipe, threads, 4)
    found = measure_land_cover(
        cell, list(by_tile.values()), open_worldcover(str(planet.worldcover)), store, recipe, threads, 4
    )
    assert set(found.ledger["outcome"]) == {MEASURED}
    assert len(by_tile) >= 8
    files = sorted(planet.worldcover.glob("*.tif"))
    for scene, key, chips_key in zip(found.scenes.itertuples(), found.keys, cell.keys, strict=True):
        chips = pq.read_table(store.root / chips_key)
        ours, theirs = pq.read_table(store.root / key).to_pandas(), exact(chips, files)
        assert len(ours) == scene.chips == len(chips)
        # Cells of 5.6 km under chips of 2.6 km: at most a few borders, each off by half of 18 pixels' width.
        np.testing.assert_allclose(ours["valid_share"], theirs["valid_share"], rtol=0, atol=0.05)
        known = theirs["valid_share"] > 0.1
        np.testing.assert_allclose(ours.loc[known, FIELDS], theirs.loc[known, FIELDS], rtol=0, atol=0.06)


@pytest.mark.slow
def test_the_real_tile_32nlg(real_data: Path) -> None:
    """The chips of a real Sentinel-2 grid compared with exactextract, and in total with the tile's shares."""
    folder = real_data / "worldcover"
    grid = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet")
    tile = grid[grid["name"] == "32NLG"].iloc[[0]]
    left, _, _, top = shapely.from_wkt(tile["utm_wkt"].iloc[0]).bounds
    chips = chips_of(32632, left, top, 10, 42, 42)
    ours = measured(chips, folder, 32632)
    # Full resolution under the chips with most of the land.
    some = np.argsort(-ours["tree_cover"].fillna(0).to_numpy(), kind="stable")[::40][:12]
    with rasterio.open(folder / file_name("N00E006"), overview_level=3) as source:  # 160 m, the level that is read
        values, transform = source.read(1), source.transform
    inside = np.zeros((len(some), 256))
    lon = transform.c + transform.a * (np.arange(values.shape[1]) + 0.5)
    lat = transform.f + transform.e * (np.arange(values.shape[0]) + 0.5)
    polygons = shapely.from_wkb(chips["geometry"].to_numpy(zero_copy_only=False))
    for row, polygon in enumerate(polygons[some]):
        west, south, east, north = polygon.bounds
        across, down = (lon > west) & (lon < east), (lat > south) & (lat < north)
        x, y = np.meshgrid(lon[across], lat[down])
        part = values[np.ix_(down, across)]
        inside[row] = np.bincount(part[shapely.contains_xy(polygon, x, y)], minlength=256)
    classes = inside[:, list(WORLDCOVER_CLASSES)]
    np.testing.assert_allclose(
        ours.loc[some, FIELDS].fillna(0), classes / np.maximum(classes.sum(axis=1, keepdims=True), 1), rtol=0, atol=0.01
    )
    tiles = gpd.GeoDataFrame({"name": ["32NLG"]}, geometry=[polygons_union(chips)], crs="EPSG:4326")
    whole = class_shares(tiles, folder)
    weights = ours["valid_share"].to_numpy()
    together = np.nansum(ours[FIELDS].to_numpy() * weights[:, None], axis=0) / weights.sum()
    np.testing.assert_allclose(together, whole[list(WORLDCOVER_CLASSES.values())].iloc[0], rtol=0, atol=1e-3)


def polygons_union(chips: pa.Table) -> Any:
    return shapely.coverage_union_all(shapely.from_wkb(chips["geometry"].to_numpy(zero_copy_only=False)))


# --- which level is read ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixel", "epsg", "factor"),
    [
        pytest.param(10, 32632, 16, id="Sentinel-2 at 160 m"),
        pytest.param(30, 32632, 32, id="Landsat at 320 m"),
        pytest.param(500, 3857, 64, id="MODIS at the coarsest"),
        pytest.param(1.0, 32632, 1, id="NAIP of 1 m at 10 m"),
        pytest.param(0.3, 32632, 1, id="LINZ at 10 m"),
    ],
)
def test_the_coarsest_level_with_16_pixels_a_side_is_read(
    levels: tuple[Path, dict[int, int]], pixel: float, epsg: int, factor: int
) -> None:
    folder, codes = levels
    chips = scene_at(7.5, 1.5, epsg, pixel, 1)
    ours = measured(chips, folder, epsg)
    assert ours[WORLDCOVER_FIELDS[codes[factor]]][0] == 1


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, int]]:
    """A folder with a file whose levels each have a different class, and these classes by factor."""
    folder = tmp_path_factory.mktemp("levels")
    path = folder / file_name("N00E006")
    size = 36000  # as large as real files, so sparse
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8", "nodata": 0}
    transform = rasterio.transform.from_origin(6, 3, 3 / size, 3 / size)
    with rasterio.open(
        path, "w", **profile, crs="EPSG:4326", transform=transform, tiled=True, sparse_ok=True, compress="deflate"
    ) as sink:
        window = rasterio.windows.Window(17000, 17000, 2048, 2048)
        sink.write(np.full((2048, 2048), 10, np.uint8), 1, window=window)
    factors = [2, 4, 8, 16, 32, 64]
    with rasterio.open(path, "r+") as sink:
        sink.build_overviews(factors, rasterio.enums.Resampling.nearest)
    codes = {1: 10, **dict(zip(factors, (20, 30, 40, 50, 60, 70), strict=True))}
    for level, one in enumerate(factors):
        with rasterio.open(path, "r+", overview_level=level) as sink:
            reach = 2048 // one + 8
            top = sink.height // 2 - reach // 2
            window = rasterio.windows.Window(top, top, reach, reach)
            sink.write(np.full((reach, reach), codes[one], np.uint8), 1, window=window)
    return folder, codes


# --- bad input --------------------------------------------------------------------------------------------------------


def test_chips_without_worldcover_have_no_land_cover(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", plain(10), factors=(2,), shown=1)
    ocean = measured(scene_at(-30.0, 1.5, 32626, 10, 3), tmp_path, 32626)
    assert (ocean["valid_share"] == 0).all()
    assert ocean[FIELDS].isna().all(axis=None)
    # Half of a chip row is in a cell without a file, and counts as not covered.
    coast = measured(scene_at(9.0, 1.5, 32632, 30, 3), tmp_path, 32632)
    assert sorted(coast["valid_share"].round(1).unique()) == [0.0, 0.5, 1.0]
    assert (coast.loc[coast["valid_share"] > 0, "tree_cover"] == 1).all()


def test_near_the_poles_there_is_none(tmp_path: Path) -> None:
    write_cell(tmp_path, "N81E015", plain(70), factors=(2,), shown=1)
    for epsg, lat in ((3413, 89.97), (3031, -89.97)):
        ours = measured(scene_at(15, lat, epsg, 30, 4), tmp_path, epsg)
        assert len(ours) == 16
        assert (ours["valid_share"] == 0).all()


def test_nodata_alone_is_no_land_cover(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", plain(0), factors=(2,), shown=1)
    ours = measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)
    assert (ours["valid_share"] == 0).all()


def test_an_unknown_value_names_the_file(tmp_path: Path) -> None:
    path = write_cell(tmp_path, "N00E006", plain(77), factors=(2,), shown=1)
    with pytest.raises(InputError, match=r"N00E006_Map\.tif: pixel value 77 is neither a WorldCover class"):
        measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)
    assert path.exists()
    # Elsewhere in the file it has no effect.
    values = plain(10)
    values[0, 0] = 77
    write_cell(tmp_path, "N00E006", values, factors=(2,), shown=1)
    assert (measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)["tree_cover"] == 1).all()


def test_files_of_another_edition_are_named(tmp_path: Path) -> None:
    path = write_cell(tmp_path, "N00E006", plain(10), factors=(2,), shown=1)
    older = path.with_name(path.name.replace("2021_v200", "2020_v100"))
    path.rename(older)
    with pytest.raises(InputError, match=rf"but {older.name} of the edition 2020 v100.*Check CLAY_WORLDCOVER"):
        open_worldcover(str(tmp_path))
    write_cell(tmp_path, "N00E006", plain(40), factors=(2,), shown=1)  # next to it, the right one is read
    assert (measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)["cropland"] == 1).all()


def test_a_file_of_another_place_or_kind_is_named(tmp_path: Path) -> None:
    path = write_cell(tmp_path, "N00E009", plain(10), factors=(2,), shown=1)
    path.rename(tmp_path / file_name("N00E006"))
    with pytest.raises(InputError, match=r"N00E006_Map\.tif: bounds .* as named"):
        measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)
    (tmp_path / file_name("N00E006")).write_bytes(b"none")
    with pytest.raises(InputError, match=r"N00E006_Map\.tif: not a readable raster"):
        measured(scene_at(7.5, 1.5, 32632, 10, 2), tmp_path, 32632)


def test_chips_of_another_crs_are_refused(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", plain(10), factors=(2,), shown=1)
    with pytest.raises(InputError, match=r"its chips are not on a grid of EPSG:32633.*Materialise chip_index"):
        measured(scene_at(7.5, 1.5, 32632, 10, 30), tmp_path, 32633)


# --- percent ----------------------------------------------------------------------------------------------------------


def test_whole_percent_sum_to_100_and_keep_the_order_of_classes() -> None:
    shares = np.random.default_rng(1).dirichlet(np.full(11, 0.3), 20_000)
    percent = whole_percent(shares.T).T
    assert percent.dtype == np.uint8
    assert (percent.sum(axis=1, dtype=int) == 100).all()
    assert np.abs(percent - 100 * shares).max() < 1
    order = np.argsort(-shares, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(percent, order, 1).astype(int), axis=1) <= 0).all()
    hundredths = 100 * shares / shares.sum(axis=1, keepdims=True)
    left = hundredths - np.floor(hundredths)
    place = np.argsort(np.argsort(-left, axis=1, kind="stable"), axis=1, kind="stable")
    missing = 100 - np.floor(hundredths).sum(axis=1, keepdims=True)
    assert (percent == np.floor(hundredths) + (place < missing)).all()
    thirds = whole_percent(np.array([[1 / 3, 1 / 3, 1 / 3, *[0] * 8], [1, *[0] * 10], [0.005] * 10 + [0.95]]).T).T
    assert thirds[0].tolist()[:4] == [34, 33, 33, 0]
    assert thirds[1].tolist()[0] == 100
    assert thirds.sum(axis=1).tolist() == [100, 100, 100]


def test_columns_of_the_merged_index_are_null_below_the_recipes_share() -> None:
    shares = np.zeros((len(FIELDS), 4), np.float32)
    shares[list(FIELDS).index("cropland")], shares[list(FIELDS).index("built_up")] = (
        [0.6, 0.6, 0, 0.5],
        [0.4, 0.4, 0, 0.5],
    )
    shares[:, 2] = np.nan
    covered = np.array([0.5, 0.49, 0.0, 1.0], np.float32)
    landcover, largest = land_cover_of(shares, covered, 0.5)
    assert largest.tolist() == [40, 0, 0, 40]
    assert landcover[list(FIELDS).index("cropland")].tolist() == [60, 0, 0, 50]
    assert landcover.sum(axis=0).tolist() == [100, 0, 0, 100]
    assert land_cover_of(shares, covered, 0)[1].tolist() == [40, 40, 0, 40]
    assert set(CODES.tolist()) == set(WORLDCOVER_CLASSES)
