"""Land cover shares: rasters whose answer is known by arithmetic, and unusable inputs."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from shapely import box

from clay_assets.errors import InputError
from clay_assets.landcover.worldcover import CLASSES, class_shares, spherical_area
from clay_assets.sources.rasters import Access
from clay_assets_tests.landcover.rasters import corner, file_name, plain, write_cell

SHARES = list(CLASSES.values())


def tiles(**polygons: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"name": list(polygons)}, geometry=list(polygons.values()), crs="EPSG:4326")


def split_columns(west: int, east: int) -> np.ndarray:
    values = plain(west)
    values[:, 30:] = east
    return values


def test_the_columns_are_those_of_the_published_sample(real_data: Path, tmp_path: Path) -> None:
    published = gpd.read_file(real_data / "mgrs_sample" / "mgrs_sample_v0.gpkg", rows=1)
    write_cell(tmp_path, "N00E006", plain(10))
    shares = class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path)
    assert set(published.columns) <= set(shares.columns)
    assert shares.columns.tolist() == ["name", *SHARES, "count", "valid_share", "diversity", "geometry"]
    assert shares["count"].dtype == np.int64


def test_half_and_half(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", split_columns(10, 50))  # the border is at 7.5° east
    shares = class_shares(tiles(half=box(7, 1, 8, 2), fifth=box(6.5, 1, 7.75, 2), one=box(6, 1, 7, 2)), tmp_path)
    assert shares["name"].tolist() == ["half", "fifth", "one"]
    np.testing.assert_allclose(shares["Tree cover"], [0.5, 0.8, 1], rtol=1e-12)
    np.testing.assert_allclose(shares["Built-up"], [0.5, 0.2, 0], rtol=1e-12)
    assert shares["count"].tolist() == [2, 2, 1]
    assert shares["valid_share"].tolist() == [1, 1, 1]
    fifth = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    np.testing.assert_allclose(shares["diversity"], [math.log(2), fifth, 0], rtol=1e-12)
    np.testing.assert_array_equal(shares.drop(columns=["geometry", "name"]).filter(["Mangroves"]).to_numpy(), 0)
    assert shares.attrs == {
        "considered": 3,
        "only_water": 0,
        "no_valid_pixels": 0,
        "worldcover_tiles_read": 1,
        "worldcover_tiles_absent": 0,
        "decimation": 8,
    }


def test_pixels_weigh_their_true_area(tmp_path: Path) -> None:
    # Between 60° and 62° north the half south of 61° is larger: its share of the area is
    # (sin 61 - sin 60) / (sin 62 - sin 60) = (0.8746197 - 0.8660254) / (0.8829476 - 0.8660254) = 0.507872.
    values = plain(30)
    values[40:] = 40  # rows 40..59 are 60°..61°
    write_cell(tmp_path, "N60E006", values)
    shares = class_shares(tiles(high=box(6.5, 60, 8, 62)), tmp_path)
    assert shares["Cropland"][0] == pytest.approx(0.507872, abs=5e-7)
    assert shares["Grassland"][0] == pytest.approx(1 - 0.507872, abs=5e-7)


def test_a_pixel_counts_when_its_centre_is_inside(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", split_columns(10, 50))
    # Pixels are 0.05° wide. 0.03° east of the border holds one pixel's centre, 0.02° none.
    shares = class_shares(tiles(in_=box(7, 1, 7.53, 2), out=box(7, 1, 7.52, 2)), tmp_path)
    np.testing.assert_allclose(shares["Built-up"], [1 / 11, 0], rtol=1e-12)


def test_a_tile_over_four_files_adds_them_up(tmp_path: Path) -> None:
    for cell, value in {"N00E006": 10, "N00E009": 20, "S03E006": 95, "S03E009": 100}.items():
        write_cell(tmp_path, cell, plain(value))
    shares = class_shares(tiles(corner=box(8, -1, 10, 1), uneven=box(8.5, -0.5, 10, 1)), tmp_path)
    columns = ["Tree cover", "Shrubland", "Mangroves", "Moss and lichen"]
    north = math.sin(math.radians(1)) / (math.sin(math.radians(1)) + math.sin(math.radians(0.5)))
    expected = [[0.25] * 4, [north / 3, north * 2 / 3, (1 - north) / 3, (1 - north) * 2 / 3]]
    np.testing.assert_allclose(shares[columns], expected, rtol=1e-12)
    assert shares.attrs["worldcover_tiles_read"] == 4


def test_a_file_that_does_not_exist_is_open_ocean(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", split_columns(10, 0))  # nodata east of 7.5°
    shares = class_shares(tiles(coast=box(7, 1, 10, 2), sea=box(9.5, 1, 10, 2), none=box(8, 1, 10, 2)), tmp_path)
    assert shares["name"].tolist() == ["coast"]
    assert shares["Tree cover"][0] == 1
    assert shares["valid_share"][0] == pytest.approx(1 / 6, rel=1e-9)  # 0.5° of 3°
    assert shares.attrs["no_valid_pixels"] == 2
    assert shares.attrs["worldcover_tiles_absent"] == 1


def test_two_parts_at_the_antimeridian(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E177", plain(60))
    write_cell(tmp_path, "N00W180", plain(90))
    two = shapely.MultiPolygon([box(179, 1, 180, 2), box(-180, 1, -177.5, 2)])
    shares = class_shares(tiles(fiji=two), tmp_path)  # 1° of one, 2.5° of the other, none in W177
    assert shares["Bare / sparse vegetation"][0] == pytest.approx(2 / 7, rel=1e-12)
    assert shares["Herbaceous wetland"][0] == pytest.approx(5 / 7, rel=1e-12)
    assert shares["valid_share"][0] == 1
    assert shares.attrs["worldcover_tiles_absent"] == 0


def test_tiles_of_water_or_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    values = plain(80)
    values[:20] = 0  # nodata in the northern degree
    values[40:, :20] = 70  # snow in the south-western corner
    write_cell(tmp_path, "N00E006", values)
    world = tiles(nothing=box(6, 2, 7, 3), lake=box(8, 0, 9, 1), shore=box(8, 1, 9, 3), snow=box(6, 0, 8, 1))
    shares = class_shares(world, tmp_path)
    assert shares["name"].tolist() == ["snow"]
    assert shares["Permanent water bodies"][0] == pytest.approx(0.5)
    assert (shares.attrs["considered"], shares.attrs["only_water"], shares.attrs["no_valid_pixels"]) == (
        4,
        2,
        1,
    )


@pytest.mark.parametrize("factors", [(2, 4, 8, 16), (8, 16), (16, 8)])
def test_the_overview_is_found_by_its_decimation(tmp_path: Path, factors: tuple[int, ...]) -> None:
    # Full resolution has class 10; each overview gets its own class, and only the right one has 40.
    path = write_cell(tmp_path, "N00E006", plain(10), factors=factors)
    with rasterio.open(path) as src:
        order = src.overviews(1)
    for level, factor in enumerate(order):
        with rasterio.open(path, "r+", overview_level=level) as dst:
            dst.write(np.full(dst.shape, 40 if factor == 8 else 50, dtype=np.uint8), 1)
    world = tiles(a=box(6, 0, 7, 1))
    assert class_shares(world, tmp_path)["Cropland"][0] == 1
    assert class_shares(world, tmp_path, decimation=16)["Built-up"][0] == 1
    assert class_shares(world, tmp_path, decimation=1)["Tree cover"][0] == 1
    assert class_shares(world, tmp_path, decimation=16).attrs["decimation"] == 16


@pytest.fixture
def varied(tmp_path: Path) -> tuple[Path, gpd.GeoDataFrame]:
    """Nine files of random classes with nodata, and 40 slanted tiles across them."""
    generator = np.random.default_rng(7)
    for lat in ("S03", "N00", "N03"):
        for lon in ("W003", "E000", "E003"):
            write_cell(tmp_path, lat + lon, generator.choice([0, *CLASSES], size=(60, 60)).astype(np.uint8))
    x, y = generator.uniform(-4, 6.5, 40), generator.uniform(-4, 6.5, 40)
    slanted = [
        shapely.affinity.rotate(box(a, b, a + 1, b + 1), 7 * n) for n, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    return tmp_path, tiles(**{f"T{n:02d}": polygon for n, polygon in enumerate(slanted)})


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "processes", "dask"])
def test_the_executor_does_not_change_the_result(varied: tuple[Path, gpd.GeoDataFrame], pool: str) -> None:
    folder, world = varied
    inline = class_shares(world, folder)
    assert inline.attrs["worldcover_tiles_read"] == 9
    if pool == "dask":
        distributed = pytest.importorskip("distributed")
        with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
            other = class_shares(world, folder, executor=client.get_executor())
    else:
        with {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}[pool](2) as executor:
            other = class_shares(world, folder, executor=executor)
    assert inline.attrs == other.attrs
    assert inline.geometry.geom_equals_exact(other.geometry, 0).all()
    for column in inline.columns.drop("geometry"):
        np.testing.assert_array_equal(inline[column], other[column])  # to the last bit


def test_shares_sum_to_one_and_stay_within_range(varied: tuple[Path, gpd.GeoDataFrame]) -> None:
    folder, world = varied
    shares = class_shares(world, folder)
    assert len(shares) > 30
    np.testing.assert_allclose(shares[SHARES].sum(axis=1), 1, rtol=0, atol=1e-12)
    assert shares[SHARES].to_numpy().min() >= 0
    assert shares["valid_share"].between(0, 1).all()
    assert (shares["count"] == (shares[SHARES] > 0).sum(axis=1)).all()


def test_the_order_of_the_tiles_is_kept_and_changes_nothing(varied: tuple[Path, gpd.GeoDataFrame]) -> None:
    folder, world = varied
    forward = class_shares(world, folder)
    backward = class_shares(world.iloc[::-1], folder)
    assert backward["name"].tolist() == forward["name"].tolist()[::-1]
    np.testing.assert_array_equal(backward[SHARES].to_numpy()[::-1], forward[SHARES].to_numpy())


class _Counting(ThreadPoolExecutor):
    """A thread pool that records the largest number of its unfinished jobs."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.unfinished = self.most = 0
        self.lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self.lock:
            self.unfinished += 1
            self.most = max(self.most, self.unfinished)
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[Any]) -> None:
        with self.lock:
            self.unfinished -= 1


@pytest.mark.slow
@pytest.mark.parametrize(("in_flight", "most"), [(None, 4), (3, 3)])
def test_jobs_in_flight_are_bounded(varied: tuple[Path, gpd.GeoDataFrame], in_flight: int | None, most: int) -> None:
    folder, world = varied
    with _Counting(2) as executor:
        class_shares(world, folder, executor=executor, in_flight=in_flight)
        assert executor.most == most


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_progress_counts_up_to_the_number_of_files(varied: tuple[Path, gpd.GeoDataFrame], workers: int) -> None:
    folder, world = varied
    seen: list[tuple[int, int]] = []
    executor: Executor | None = ThreadPoolExecutor(workers) if workers else None
    class_shares(world, folder, executor=executor, progress=lambda done, total: seen.append((done, total)))
    if executor:
        executor.shutdown()
    assert seen == [(done, 9) for done in range(1, 10)]


def test_spherical_area() -> None:
    octant = box(0, 0, 90, 90)
    holed = box(0, 0, 90, 90).difference(box(10, 0.5, 20, 30))
    slanted = shapely.Polygon([(0, 0), (90, 0), (0, 90)])
    both = shapely.MultiPolygon([box(-180, -90, -170, 0), box(170, -90, 180, 0)])
    hole = math.radians(10) * (math.sin(math.radians(30)) - math.sin(math.radians(0.5)))
    # Under the diagonal: integral over longitude of sin(90° - longitude) from 0 to 90° = 1.
    expected = [math.pi / 2, math.pi / 2 - hole, 1, 2 * math.radians(10), 0]
    clockwise = shapely.orient_polygons(np.array([octant, holed, slanted, both, shapely.Polygon()]), exterior_cw=True)
    np.testing.assert_allclose(spherical_area(clockwise), expected, rtol=1e-12)


# ---- unusable inputs ----


def test_a_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    values = plain(10)
    values[50, 5] = 77
    path = write_cell(tmp_path, "N00E006", values)
    assert class_shares(tiles(a=box(7, 0, 8, 1)), tmp_path)["Tree cover"][0] == 1  # the tile is elsewhere
    with pytest.raises(InputError, match="pixel value 77 is neither") as caught:
        class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_file_is_named(tmp_path: Path, workers: int) -> None:
    generator = np.random.default_rng(1)
    path = write_cell(tmp_path, "N00E006", generator.choice(list(CLASSES), size=(120, 120)).astype(np.uint8))
    write_cell(tmp_path, "N00E009", plain(10))
    path.write_bytes(path.read_bytes()[:-2000])  # overviews are at the end of this file
    executor = ProcessPoolExecutor(workers) if workers else None
    with pytest.raises(InputError, match="N00E006"):
        class_shares(tiles(a=box(6, 0, 10, 3)), tmp_path, executor=executor)
    if executor:
        executor.shutdown()


def test_a_file_without_the_overview_is_refused(tmp_path: Path) -> None:
    path = write_cell(tmp_path, "N00E006", plain(10), factors=(2, 4))
    with pytest.raises(InputError, match=r"no overview of factor 8 in the file, found \[2, 4\].*gdaladdo") as caught:
        class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path)
    assert str(path) in str(caught.value)


def test_a_file_under_the_wrong_name_or_type_is_refused(tmp_path: Path) -> None:
    write_cell(tmp_path, "N00E006", plain(10)).rename(tmp_path / file_name("N00E009"))
    with pytest.raises(InputError, match=r"N00E009_Map\.tif: bounds .* as named"):
        class_shares(tiles(a=box(9, 0, 10, 1)), tmp_path)
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "int16", "crs": "EPSG:4326"}
    west, south = corner("N00E012")
    with rasterio.open(
        tmp_path / file_name("N00E012"), "w", **profile, transform=from_origin(west, south + 3, 3 / 8, 3 / 8)
    ) as dst:
        dst.write(np.full((1, 8, 8), 10, dtype=np.int16))
    with pytest.raises(InputError, match="int16 in EPSG:4326 instead of uint8"):
        class_shares(tiles(a=box(12, 0, 13, 1)), tmp_path, decimation=1)


@pytest.mark.parametrize(("crs", "dtype"), [("EPSG:3857", "uint8"), (None, "uint8"), ("EPSG:4326", "uint16")])
@pytest.mark.parametrize("decimation", [1, 8])
def test_another_raster_is_told_for_what_it_is_not_for_its_overviews(
    tmp_path: Path, crs: str | None, dtype: str, decimation: int
) -> None:
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": dtype, "crs": crs}
    with rasterio.open(
        tmp_path / file_name("N00E006"), "w", **profile, transform=from_origin(6, 3, 3 / 8, 3 / 8)
    ) as dst:
        dst.write(np.full((1, 8, 8), 10, dtype=dtype))
    with pytest.raises(
        InputError, match=rf"{dtype} in {crs or 'no CRS'} instead of uint8 in EPSG:4326\. Use the file as"
    ):
        class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path, decimation=decimation)


def test_a_folder_without_worldcover_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme_Map.tif").touch()
    with pytest.raises(InputError, match="no file named ESA_WorldCover"):
        class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path)
    with pytest.raises(InputError, match="absent: cannot be listed"):
        class_shares(tiles(a=box(6, 0, 7, 1)), tmp_path / "absent")


@pytest.mark.parametrize(
    ("world", "says"),
    [
        (gpd.GeoDataFrame({"tile": ["a"]}, geometry=[box(6, 0, 7, 1)], crs=4326), "column name is missing"),
        (
            gpd.GeoDataFrame({"name": ["a", "a"]}, geometry=[box(6, 0, 7, 1)] * 2, crs=4326),
            r"repeated \(a\)",
        ),
        (tiles(a=box(6, 0, 7, 1)).to_crs(32632), "EPSG:32632 instead of EPSG:4326"),
        (tiles(a=box(6, 0, 7, 1), wide=box(179, 0, 181, 1)), "Tile wide: not a polygon within"),
        (tiles(dot=shapely.Point(6, 0)), "Tile dot: not a polygon"),
    ],
)
def test_tiles_that_cannot_be_used_are_named(tmp_path: Path, world: gpd.GeoDataFrame, says: str) -> None:
    write_cell(tmp_path, "N00E006", plain(10))
    with pytest.raises(InputError, match=says):
        class_shares(world, tmp_path)


# ---- over HTTP and S3 ----


def same(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> bool:
    return bool(one.attrs == other.attrs and one.drop(columns="geometry").equals(other.drop(columns="geometry")))


COAST = tiles(a=box(7, 0, 10, 1), b=box(6, 0, 7, 1))


@pytest.fixture
def coast(tmp_path: Path) -> Path:
    """One file; the rest of COAST is ocean."""
    write_cell(tmp_path, "N00E006", split_columns(10, 50))
    return tmp_path


def test_http_folders_are_asked_file_by_file(
    coast: Path, file_server: Callable[[Path], Any], fault_proxy: Callable[[str], Any]
) -> None:
    proxy = fault_proxy(file_server(coast).url)
    proxy.answer(503, method="HEAD", path="N00E006")  # retried
    proxy.answer(500, method="HEAD", path="N00E009")
    remote = class_shares(COAST, proxy.url + "/")
    assert same(remote, class_shares(COAST, coast))
    assert remote.attrs["worldcover_tiles_absent"] == 1


def test_http_answers_that_are_not_an_answer(
    coast: Path, file_server: Callable[[Path], Any], fault_proxy: Callable[[str], Any]
) -> None:
    proxy = fault_proxy(file_server(coast).url)
    proxy.answer(403, times=None, method="HEAD", path="N00E009")
    with pytest.raises(InputError, match=r"N00E009_Map\.tif: access refused \(403"):
        class_shares(COAST, proxy.url)
    with pytest.raises(InputError, match="none of the 1 files needed by the tiles found"):
        class_shares(tiles(a=box(40, 0, 41, 1)), proxy.url)


def test_a_public_bucket_is_listed_once_and_read_without_credentials(
    coast: Path, s3_bucket: Any, fault_proxy: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = s3_bucket.server.new_bucket(s3_bucket.name + "-public", public_read=True)
    s3_bucket.client.upload_file(str(coast / file_name("N00E006")), name, f"v200/map/{file_name('N00E006')}")
    s3_bucket.client.upload_file(str(coast / file_name("N00E006")), name, f"v100/map/{file_name('N00E009')}")
    proxy = fault_proxy(s3_bucket.server.env["AWS_ENDPOINT_URL"])
    proxy.answer(503, path="list-type")  # retried
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    remote = class_shares(COAST, f"s3://{name}/v200/map")
    assert same(remote, class_shares(COAST, coast))
    assert not any("authorization" in seen.headers for seen in proxy.seen)
    assert sum("list-type" in seen.path for seen in proxy.seen) == 2  # the one that failed and its retry
    with pytest.raises(InputError, match="no file named"):
        class_shares(COAST, f"s3://{name}/v300")
    with pytest.raises(InputError, match=r"-nowhere/v200/map: file not found \(NoSuchBucket\)"):
        class_shares(COAST, f"s3://{name}-nowhere/v200/map")


def test_a_private_bucket_needs_signed_access(coast: Path, s3_bucket: Any) -> None:
    s3_bucket.client.upload_file(str(coast / file_name("N00E006")), s3_bucket.name, file_name("N00E006"))
    with pytest.raises(InputError, match=r"access refused \(AccessDenied\)"):
        class_shares(COAST, s3_bucket.url)
    assert same(class_shares(COAST, s3_bucket.url, access=Access()), class_shares(COAST, coast))
