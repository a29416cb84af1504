"""The snapshot catalogue: its location, its contents, and files that are not snapshots."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from clay_assets.catalogues.opening import open_catalogue
from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.platforms.request_table import quarter_bounds
from clay_assets.scenes.picks import pick_scenes
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.scenes.items import (
    LANDSAT_L1,
    LANDSAT_L2,
    SENTINEL_2,
    Properties,
    landsat_item,
    sentinel_2_item,
    snapshot,
)

TWO_PARTS = shapely.MultiPolygon([shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.9, -16)])


def request(
    year: int = 2020,
    quarter: int = 1,
    *,
    tile: str = "32NLG",
    geometry: Any = None,
    filters: tuple[dict[str, Any], ...] = (),
) -> Request:
    start, end = quarter_bounds(year, quarter)
    place = shapely.box(6.2, 0.2, 6.8, 0.8) if geometry is None else geometry
    return Request(f"{tile}-{year}-Q{quarter}", tile, f"Q{quarter}", start, end, place, filters)


def found(location: str, *requests: Request, platform: str = SENTINEL_2) -> dict[str, set[str]]:
    """Request → ids of the snapshot's candidates."""
    answers = SnapshotCatalogue(location).search(PLATFORMS[platform], requests)
    return {answer.request.id: {item["id"] for item in answer.candidates} for answer in answers}


ITEMS = [sentinel_2_item("a", "2020-02-01T10:00:00Z"), sentinel_2_item("b", "2020-05-01T10:00:00Z")]
BOTH = {"32NLG-2020-Q1": {"a"}, "32NLG-2020-Q2": {"b"}}


def test_a_file(tmp_path: Path) -> None:
    assert found(snapshot(tmp_path / "items.parquet", ITEMS), request(), request(quarter=2)) == BOTH


@pytest.mark.slow
def test_a_folder_whose_files_have_different_columns(tmp_path: Path) -> None:
    snapshot(tmp_path / "2020" / "a.parquet", ITEMS[:1])
    said = Properties({"sentinel2:nodata_pixel_percentage": 3.5})
    old = sentinel_2_item("b", "2020-05-01T10:00:00Z", nodata=None, **said)
    old["assets"]["thumbnail"] = {"href": "https://example.com/t.jpg"}
    snapshot(tmp_path / "b.parquet", [old])
    snapshot(tmp_path / "c.parquet", [])
    (tmp_path / "readme.txt").write_text("not Parquet")
    assert found(str(tmp_path), request(), request(quarter=2)) == BOTH
    platform = PLATFORMS[SENTINEL_2]
    picks = pick_scenes(
        platform, 2020, [request(), request(quarter=2)], SnapshotCatalogue(str(tmp_path)), platform.rules.options()
    )
    assert [item["id"] for item in picks.items] == ["a", "b"]
    assert picks.items[1]["properties"]["sentinel2:nodata_pixel_percentage"] == 3.5


def test_on_s3_as_a_prefix_and_as_a_key(s3_bucket: Bucket, tmp_path: Path) -> None:
    for number, item in enumerate(ITEMS):
        path = snapshot(tmp_path / f"{number}.parquet", [item])
        s3_bucket.client.upload_file(path, s3_bucket.name, f"stac/part-{number}.parquet")
    assert found(f"{s3_bucket.url}/stac", request(), request(quarter=2)) == BOTH
    assert found(f"{s3_bucket.url}/stac/", request(), request(quarter=2)) == BOTH
    one = found(f"{s3_bucket.url}/stac/part-0.parquet", request(), request(quarter=2))
    assert one == {"32NLG-2020-Q1": {"a"}, "32NLG-2020-Q2": set()}
    with pytest.raises(InputError, match=r"nothing-here: no \.parquet file here"):
        open_catalogue(f"{s3_bucket.url}/nothing-here", 8)
    with pytest.raises(ClayError, match="no-such-bucket-here"):
        open_catalogue("s3://no-such-bucket-here/stac", 8)


def test_what_is_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.parquet: file not found"):
        open_catalogue(str(tmp_path / "nowhere.parquet"), 8)
    with pytest.raises(InputError, match=r"no \.parquet file here"):
        open_catalogue(str(tmp_path), 8)
    for name, content in (("text", b"this is no Parquet"), ("empty", b"")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.parquet: cannot be read as STAC-GeoParquet"):
            open_catalogue(str(path), 8)
        path.unlink()
    gpd.GeoDataFrame({"name": ["x"]}, geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet is not STAC-GeoParquet \(no column id, assets, datetime"):
        open_catalogue(str(tmp_path), 8)


def test_a_file_cut_short_and_one_damaged_inside(tmp_path: Path) -> None:
    path = Path(snapshot(tmp_path / "items.parquet", ITEMS))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as STAC-GeoParquet"):
        open_catalogue(str(path), 8)
    path.write_bytes(content[:100] + bytes(3000) + content[3100:])
    catalogue = open_catalogue(str(path), 8)
    with pytest.raises(SourceError, match=r"items\.parquet: the snapshot could not be read"):
        list(catalogue.search(PLATFORMS[SENTINEL_2], [request()]))


def test_without_a_collection_column_everything_is_of_the_collection(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "items.parquet", ITEMS)
    pq.write_table(pq.read_table(path).drop_columns("collection"), path)
    assert found(path, request(), request(quarter=2)) == BOTH
    platform = PLATFORMS[SENTINEL_2]
    picks = pick_scenes(platform, 2020, [request()], SnapshotCatalogue(path), platform.rules.options())
    assert [item["id"] for item in picks.items] == ["a"]


def test_other_collections_are_left_out(tmp_path: Path) -> None:
    level_1 = landsat_item("one", "2020-02-01T10:00:00Z", collection=LANDSAT_L1)
    level_2 = landsat_item("two", "2020-02-01T10:00:00Z")
    path = snapshot(tmp_path / "items.parquet", [level_1, level_2])
    assert found(path, request(), platform=LANDSAT_L1) == {"32NLG-2020-Q1": {"one"}}
    assert found(path, request(), platform=LANDSAT_L2) == {"32NLG-2020-Q1": {"two"}}


def test_quarters_are_half_open(tmp_path: Path) -> None:
    moments = {
        "last of Q1": "2020-03-31T23:59:59.999999Z",
        "first of Q2": "2020-04-01T00:00:00Z",
        "last of the year": "2020-12-31T23:59:59.999999Z",
        "first of the next": "2021-01-01T00:00:00Z",
    }
    path = snapshot(tmp_path / "items.parquet", [sentinel_2_item(name, when) for name, when in moments.items()])
    asked = [request(quarter=1), request(quarter=2), request(quarter=4), request(2021, 1), request(2019, 4)]
    assert found(path, *asked) == {
        "32NLG-2020-Q1": {"last of Q1"},
        "32NLG-2020-Q2": {"first of Q2"},
        "32NLG-2020-Q4": {"last of the year"},
        "32NLG-2021-Q1": {"first of the next"},
        "32NLG-2019-Q4": set(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_in_any_unit(tmp_path: Path, unit: str) -> None:
    path = snapshot(tmp_path / "items.parquet", ITEMS)
    table = pq.read_table(path)
    index = table.schema.get_field_index("datetime")
    pq.write_table(table.set_column(index, "datetime", table["datetime"].cast(pa.timestamp(unit, "UTC"))), path)
    assert found(path, request(), request(quarter=2)) == BOTH


def test_items_with_an_interval_count_from_its_start(tmp_path: Path) -> None:
    item = sentinel_2_item(
        "a",
        "2020-01-01T00:00:00Z",
        start_datetime="2020-03-31T12:00:00Z",
        end_datetime="2020-04-02T00:00:00Z",
    )
    item["properties"]["datetime"] = None
    path = snapshot(tmp_path / "items.parquet", [item, *ITEMS])
    assert found(path, request(), request(quarter=2)) == {"32NLG-2020-Q1": {"a"}, "32NLG-2020-Q2": {"b"}}


def test_across_the_antimeridian(tmp_path: Path) -> None:
    when = "2020-02-01T10:00:00Z"
    places = {
        "both sides": TWO_PARTS,
        "east of it": shapely.box(-179.95, -17, -179, -16),
        "west of it": shapely.box(179, -17, 179.6, -16),
        "far away": shapely.box(0, -17, 1, -16),
        "further east": shapely.box(-179, -17, -178, -16),
    }
    items = [sentinel_2_item(name, when, geometry=shape) for name, shape in places.items()]
    assert items[0]["bbox"] == [179.5, -17, -179.9, -16]
    path = snapshot(tmp_path / "items.parquet", items)
    assert found(path, request(geometry=TWO_PARTS)) == {"32NLG-2020-Q1": {"both sides", "east of it", "west of it"}}
    points = {"a": (179.9, -16.5), "b": (-179.92, -16.5), "c": (0.5, -16.5)}
    asked = [request(tile=name, geometry=shapely.Point(point)) for name, point in points.items()]
    assert found(path, *asked) == {
        "a-2020-Q1": {"both sides"},
        "b-2020-Q1": {"both sides", "east of it"},
        "c-2020-Q1": {"far away"},
    }


def test_the_exact_shape_decides_not_the_box(tmp_path: Path) -> None:
    triangle = shapely.Polygon([(6, 0), (7, 0), (6, 1)])
    path = snapshot(tmp_path / "items.parquet", [sentinel_2_item("a", "2020-02-01T10:00:00Z", geometry=triangle)])
    asked = [
        request(tile="inside", geometry=shapely.Point(6.2, 0.2)),
        request(tile="in its box", geometry=shapely.Point(6.9, 0.9)),
        request(tile="touching", geometry=shapely.Point(6, 0)),
    ]
    assert found(path, *asked) == {"inside-2020-Q1": {"a"}, "in its box-2020-Q1": set(), "touching-2020-Q1": {"a"}}


def test_alternatives_of_properties(tmp_path: Path) -> None:
    when = "2020-02-01T10:00:00Z"
    codes = {"padded": "MGRS-09VWK", "unpadded": "MGRS-9VWK", "other": "MGRS-08VWK", "none": None}
    path = snapshot(
        tmp_path / "items.parquet",
        [sentinel_2_item(name, when, **Properties({"grid:code": code})) for name, code in codes.items()],
    )
    both = ({"grid:code": "MGRS-09VWK"}, {"grid:code": "MGRS-9VWK"})
    asked = [
        request(tile="both", filters=both),
        request(tile="one", filters=both[:1]),
        request(tile="any"),
        request(tile="two at once", filters=({"grid:code": "MGRS-09VWK", "proj:epsg": 1},)),
    ]
    answers = found(path, *asked)
    assert answers["both-2020-Q1"] == {"padded", "unpadded"}
    assert answers["one-2020-Q1"] == {"padded"}
    assert answers["any-2020-Q1"] == set(codes)


@pytest.mark.slow
def test_an_item_in_two_files_is_one_and_the_first_counts(tmp_path: Path) -> None:
    first = sentinel_2_item("a", "2020-02-01T10:00:00Z", 10.0)
    later = sentinel_2_item("a", "2020-02-01T10:00:00Z", 20.0)
    snapshot(tmp_path / "1.parquet", [first])
    snapshot(tmp_path / "2.parquet", [later])
    platform = PLATFORMS[SENTINEL_2]
    picks = pick_scenes(platform, 2020, [request()], SnapshotCatalogue(str(tmp_path)), platform.rules.options())
    assert picks.ledger["candidates"].tolist() == [1]
    assert picks.ledger["cloud_cover"].tolist() == [10.0]
    assert [item["properties"]["eo:cloud_cover"] for item in picks.items] == [10.0]


def test_items_without_the_quality_asset_are_refused_and_counted(tmp_path: Path) -> None:
    when = "2020-02-01T10:00:00Z"
    items = [sentinel_2_item("a", when, 1.0, without=("scl",)), sentinel_2_item("b", when, 5.0)]
    platform = PLATFORMS[SENTINEL_2]
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "items.parquet", items))
    picks = pick_scenes(platform, 2020, [request()], catalogue, platform.rules.options())
    row = picks.ledger.iloc[0]
    assert (row["outcome"], row["item_id"], row["rejected"]) == ("picked", "b", '{"without asset scl": 1}')


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"scl": {}}, {"scl": {"href": ""}}, {"scl": {"href": "x.tif"}}, {"scl": None}])
def test_statistics_tell_no_asset_that_an_item_lacks(tmp_path: Path, given: dict[str, Any]) -> None:
    when = "2020-02-01T10:00:00Z"
    items = [sentinel_2_item("a", when, 1.0, without=("scl",)), sentinel_2_item("b", when, 5.0)]
    path = Path(snapshot(tmp_path / "items.parquet", items))
    table = pq.read_table(path)
    rows = table["assets"].to_pylist()
    rows[0].pop("scl")
    rows[0] |= given
    kind = table.schema.field("assets").type
    table = table.set_column(table.schema.get_field_index("assets"), "assets", pa.array(rows, kind))
    pq.write_table(table, path)
    platform = PLATFORMS[SENTINEL_2]
    picks = pick_scenes(platform, 2020, [request()], SnapshotCatalogue(str(path)), platform.rules.options())
    has = given == {"scl": {"href": "x.tif"}}
    assert picks.ledger["item_id"].tolist() == ["a" if has else "b"]


@pytest.mark.slow
def test_thousands_of_requests_in_one_pass(tmp_path: Path) -> None:
    """2,000 requests and 20,000 items; one by one this would take minutes."""
    item = sentinel_2_item("x", "2020-01-01T00:00:00Z")
    small = pq.read_table(snapshot(tmp_path / "one.parquet", [item]))
    count, rng = 20_000, np.random.default_rng(0)
    west, south = rng.uniform(-179, 178, count), rng.uniform(-60, 60, count)
    shapes = shapely.box(west, south, west + 1, south + 1)
    table = pa.concat_tables([small] * 1).take(pa.array(np.zeros(count, int)))
    days = rng.integers(0, 366, count).astype("timedelta64[D]")
    sides = {"xmin": west, "ymin": south, "xmax": west + 1, "ymax": south + 1}
    columns = {
        "id": pa.array([f"item-{number}" for number in range(count)]),
        "geometry": pa.array(shapely.to_wkb(shapes)),
        "bbox": pa.StructArray.from_arrays([pa.array(v) for v in sides.values()], names=list(sides)),
        "datetime": pa.array(np.datetime64("2020-01-01", "us") + days).cast(pa.timestamp("us", "UTC")),
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, tmp_path / "many.parquet")
    points = shapely.points(rng.uniform(-179, 179, 500), rng.uniform(-60, 60, 500))
    asked = [request(quarter=q, tile=f"p{n}", geometry=point) for n, point in enumerate(points) for q in range(1, 5)]
    started = time.monotonic()
    answers = found(str(tmp_path / "many.parquet"), *asked)
    assert time.monotonic() - started < 15
    assert len(answers) == 2000
    quarter_of = ((np.datetime64("2020-01-01", "us") + days).astype("datetime64[M]").astype(int) % 12) // 3 + 1
    for number in range(0, 500, 50):
        hits = shapely.intersects(shapes, points[number])
        for quarter in range(1, 5):
            right = {f"item-{row}" for row in np.flatnonzero(hits & (quarter_of == quarter))}
            assert answers[f"p{number}-2020-Q{quarter}"] == right


def test_no_requests_read_nothing(tmp_path: Path) -> None:
    catalogue = SnapshotCatalogue(snapshot(tmp_path / "items.parquet", ITEMS))
    assert list(catalogue.search(PLATFORMS[SENTINEL_2], [])) == []
    assert catalogue.complete(PLATFORMS[SENTINEL_2], []) == []


def test_the_snapshot_s_own_items_are_what_is_read_back(tmp_path: Path) -> None:
    path = snapshot(tmp_path / "items.parquet", ITEMS)
    assert [item["id"] for item in decode_items(Path(path).read_bytes(), path)] == ["a", "b"]
    assert request().start == datetime(2020, 1, 1, tzinfo=UTC)


CODES = ({"grid:code": "MGRS-32NLG"},)


def doubts(location: str, asked: Request, platform: str = SENTINEL_2) -> list[str]:
    return SnapshotCatalogue(location).doubts(PLATFORMS[platform], [asked], 0)


def test_a_snapshot_of_the_platform_leaves_no_doubt(tmp_path: Path) -> None:
    assert doubts(snapshot(tmp_path / "items.parquet", ITEMS), request(filters=CODES)) == []


def test_a_snapshot_of_other_collections_says_which(tmp_path: Path) -> None:
    location = snapshot(tmp_path / "items.parquet", [*ITEMS, landsat_item("l", "2020-02-01T10:00:00Z")])
    assert doubts(location, request(), LANDSAT_L1) == [
        f"{location}: holds no item of collection landsat-c2l1, but of landsat-c2l2-sr, sentinel-2-l2a. "
        "Check the address."
    ]


def test_a_snapshot_without_items_says_so(tmp_path: Path) -> None:
    assert "holds no item." in doubts(snapshot(tmp_path / "items.parquet", []), request())[0]


def test_without_a_column_of_the_filters_the_id_tells_the_tile(tmp_path: Path) -> None:
    names = ["S2A_32NLG_20200201_0_L2A", "S2A_32NLH_20200201_0_L2A"]
    path = snapshot(tmp_path / "items.parquet", [sentinel_2_item(name, "2020-02-01T10:00:00Z") for name in names])
    pq.write_table(pq.read_table(path).drop_columns("grid:code"), path)
    asked, platform = request(filters=CODES), PLATFORMS[SENTINEL_2]
    found = pick_scenes(platform, 2020, [asked], SnapshotCatalogue(path), platform.rules.options())
    assert [item["id"] for item in found.items] == names[:1]
    (doubt,) = doubts(path, asked)
    assert "no column grid:code, which searches of sentinel-2-l2a filter by" in doubt
