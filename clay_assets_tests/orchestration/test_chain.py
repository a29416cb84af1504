"""The whole chain on the miniature planet in a real Dagster instance, compared with the planet's ground truth."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio

from clay_assets.chips.index import MERGED_SCHEMA, open_index
from clay_assets.demo.planet import Planet
from clay_assets.orchestration.failures import run_error
from clay_assets.platforms import PLATFORMS
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import stamp_of
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets_tests.chain import YEARS, Chain

BY_QUARTERS = ["landsat-c2l1", "landsat-c2l2-sr", "sentinel-1-rtc", "sentinel-2-l2a"]
CELLS = [(platform, year) for platform in BY_QUARTERS for year in YEARS]
STATS = layout.table("worldcover_stats")  # splits are drawn from it
RESAMPLED = {"linz", "modis"}  # their chips are not counted on the grid of the demo
STATISTICS = ["Tree cover", "Cropland", "Built-up", "valid_share"]


def files(chain: Chain) -> dict[str, bytes]:
    """Every file of a chain's storage."""
    store = chain.clay.store()
    return {key: store.read(key) for key in store.list("") if not key.startswith(".tmp")}


def cells_of(chain: Chain) -> list[tuple[str, int]]:
    """The platforms and years that have requests."""
    return [(platform, year) for platform in sorted(PLATFORMS) for year in chain.clay.requested_years(platform)]


def test_every_platform_has_the_years_that_it_should(built: Chain) -> None:
    cells = cells_of(built)
    assert set(CELLS) == {cell for cell in cells if cell[0] in BY_QUARTERS}
    years = {key: [year for platform, year in cells if platform == key] for key in ("naip", "linz", "modis")}
    assert set(years["naip"]) <= set(range(2020, 2024))
    assert len(years["naip"]) > 2
    assert years["modis"] == [2023]
    surveyed = built.clay.table("linz_sample")["start_datetime"].dt.year
    assert years["linz"] == sorted(surveyed.unique())


def test_storage_is_laid_out_as_the_contract_says(built: Chain) -> None:
    keys = set(files(built))
    assert {
        "landcover/mgrs_grid.parquet",
        "landcover/worldcover_stats.parquet",
        "landcover/worldcover_stats.fgb",
        "sampling/mgrs_sample.parquet",
        "sampling/mgrs_sample.fgb",
        "sampling/naip_sample.parquet",
        "sampling/linz_sample.parquet",
        "sampling/modis_sample.parquet",
        "scenes/search_results/naip.parquet",
        "chips/manifest.json",
    } <= keys
    for platform, year in cells_of(built):
        assert f"scenes/scene_requests/{platform}.parquet" in keys
        for folder in ("scene_picks", "ledger", "scene_imagery"):
            assert f"scenes/{folder}/{platform}/{year}.parquet" in keys


def test_land_cover_is_what_was_drawn(built: Chain, planet: Planet) -> None:
    stats = built.clay.table("worldcover_stats").set_index("name")
    truth = planet.class_shares().set_index("name").loc[stats.index]
    np.testing.assert_allclose(stats[STATISTICS], truth[STATISTICS], atol=2e-3)  # the planet's pixels are 140 m
    assert (stats["count"] == truth["count"]).all()


def test_every_chip_of_every_picked_scene_is_in_the_merged_index_with_its_true_shares(
    built: Chain, planet: Planet
) -> None:
    store = built.clay.store()
    merged = open_index(store.uri(layout.MERGED)).to_table().to_pandas().set_index("chipid")
    expected = []
    for platform, year in cells_of(built):
        if platform in RESAMPLED:
            continue
        key = layout.table("scene_picks", platform, year)
        limit = PLATFORMS[platform].rules.options().max_chip_nodata
        for item in decode_items(store.read(key), key):
            truth = planet.chip_truth(item["id"])
            kept = truth[truth["nodata_percentage"] <= limit].assign(item=item["id"], platform=platform)
            expected.append(kept)
    table = pd.concat(expected, ignore_index=True)
    table.index = pd.Index(
        [f"{row.item}-{row.chip_index_x}-{row.chip_index_y}" for row in table.itertuples()], name="chipid"
    )
    # The two Landsat levels share no item ids, so chip ids are unique over all.
    assert merged.index.is_unique
    merged = merged[~merged["platform"].isin(RESAMPLED)]
    assert set(merged["platform"]) == set(PLATFORMS) - RESAMPLED
    assert set(merged.index) == set(table.index)
    assert len(merged) > 300
    for column in ("cloud_cover_percentage", "nodata_percentage"):
        np.testing.assert_array_equal(merged[column].loc[table.index], table[column].astype(np.float32))


def test_manifest_tells_the_state(built: Chain) -> None:
    import hashlib

    store = built.clay.store()
    manifest = json.loads(store.read(layout.MANIFEST))
    assert manifest["recipe_hash"] == built.clay.recipe().hash
    assert manifest["rows"] == sum(part["rows"] for part in manifest["partitions"])
    for part in manifest["partitions"]:
        content = store.read(f"{layout.MERGED}/{part['path']}")
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == part["content"]
        assert pq.ParquetFile(io.BytesIO(content)).metadata.num_rows == part["rows"]


def test_every_request_is_in_the_ledger_exactly_once(built: Chain) -> None:
    store = built.clay.store()
    for platform in PLATFORMS:
        requests = gpd.read_parquet(io.BytesIO(store.read(layout.table("scene_requests", platform))))
        years = [year for key, year in cells_of(built) if key == platform]
        assert years
        ledgers = [pd.read_parquet(io.BytesIO(store.read(layout.request_ledger(platform, year)))) for year in years]
        assert sorted(pd.concat(ledgers)["request_id"]) == sorted(requests["request_id"])


def test_every_file_carries_the_recipe(built: Chain) -> None:
    hashed = built.clay.recipe().hash
    tables = {key: content for key, content in files(built).items() if key.endswith(".parquet")}
    for key, content in tables.items():
        stamp = stamp_of(pq.read_schema(io.BytesIO(content)))
        stamp |= {
            name.decode().removeprefix("clay:"): value.decode()
            for name, value in (pq.read_metadata(io.BytesIO(content)).metadata or {}).items()
            if name.startswith(b"clay:")
        }
        assert stamp["recipe_hash"] == hashed, key
        assert json.loads(stamp["recipe"])["name"] == "demo", key
        assert stamp["software_version"], key


def test_running_again_writes_the_same_bytes(built: Chain, new_chain: Callable[..., Chain]) -> None:
    again = new_chain(storage=built.storage)
    before = files(built)
    again.run("sampling")
    again.run("requests", "sentinel-2-l2a")
    assert again.run("cell", "sentinel-2-l2a|2020").success
    assert again.run("merge").success
    assert files(built) == before
    assert (
        again.metadata("chip_index", "sentinel-2-l2a|2020")["scenes_indexed_before"]
        == again.metadata("chip_index", "sentinel-2-l2a|2020")["scenes"]
    )
    assert again.metadata("merged_index")["partitions_written_now"] == 0


@pytest.mark.parametrize(
    "asset",
    ["mgrs_grid", "worldcover_stats", "mgrs_sample", "naip_sample", "linz_sample", "modis_sample", "merged_index"],
)
def test_materialisations_show_rows_columns_address_recipe_and_a_picture(built: Chain, asset: str) -> None:
    check_metadata(built, asset, None)


@pytest.mark.parametrize("asset", ["scene_picks", "scene_imagery", "chip_index", "chip_landcover", "cog_headers"])
def test_materialisations_of_cells_show_the_same(built: Chain, asset: str) -> None:
    check_metadata(built, asset, "sentinel-2-l2a|2020")


def test_materialisations_of_requests_show_the_same(built: Chain) -> None:
    check_metadata(built, "scene_requests", "sentinel-2-l2a")


def check_metadata(chain: Chain, asset: str, partition: str | None) -> None:
    metadata = chain.metadata(asset, partition)
    # The catalogue shows `row_count` as that of the whole asset, so a partition must not report it.
    counted, other = ("dagster/partition_row_count", "dagster/row_count")[:: 1 if partition else -1]
    assert isinstance(metadata[counted], int)
    assert metadata[counted] > 0
    assert other not in metadata
    columns = metadata["dagster/column_schema"]
    assert isinstance(columns, dg.TableSchema)
    assert columns.columns
    assert str(metadata["dagster/uri"]).startswith(chain.storage)
    assert metadata["recipe_hash"] == chain.clay.recipe().hash
    pictures = [value for value in metadata.values() if str(value).startswith("![picture](data:image/png;base64,")]
    assert pictures
    assert max(len(str(shown)) for shown in pictures) < 50_000 * 4 / 3 + 100


def test_rows_of_the_partitions_are_those_of_the_whole(built: Chain) -> None:
    cells = built.instance.get_materialized_partitions(dg.AssetKey("chip_index"))
    rows = [built.metadata("chip_index", cell)["dagster/partition_row_count"] for cell in sorted(cells)]
    assert sum(int(str(count)) for count in rows) == built.metadata("merged_index")["dagster/row_count"]


def test_a_cell_without_anything_to_do_succeeds_with_empty_valid_tables(
    built: Chain, new_chain: Callable[..., Chain]
) -> None:
    chain = new_chain(storage=built.storage)
    assert chain.run("cell", "landsat-c2l1|2012").success
    store = chain.clay.store()
    for asset in ("scene_picks", "scene_imagery"):
        key = layout.table(asset, "landsat-c2l1", 2012)
        assert len(gpd.read_parquet(io.BytesIO(store.read(key)))) == 0
        assert decode_items(store.read(key), key) == []
        store.delete([key])
    assert chain.metadata("scene_picks", "landsat-c2l1|2012")["nothing_to_do"] is True
    assert chain.metadata("chip_index", "landsat-c2l1|2012")["chips"] == 0
    assert chain.metadata("cog_headers", "landsat-c2l1|2012")["files"] == 0
    ledgers = layout.request_ledger, layout.imagery_ledger, layout.chip_ledger, layout.landcover_ledger
    store.delete([key("landsat-c2l1", 2012) for key in (*ledgers, layout.headers_ledger)])


def test_the_merged_index_can_be_built_from_a_single_cell(new_chain: Callable[..., Chain], built: Chain) -> None:
    # A fan-in over one key passes a bare object by default; ours always passes a list.
    chain = new_chain()
    source, target = built.clay.store(), chain.clay.store()
    target.write(STATS, source.read(STATS))
    wanted = "landsat-c2l2-sr/2020"
    for key, content in files(built).items():
        if key.startswith(
            tuple(
                f"chips/{name}/{wanted}{end}"
                for name, end in (
                    ("chip_index", "/"),
                    ("ledger", "."),
                    ("chip_landcover", "/"),
                    ("landcover_ledger", "."),
                )
            )
        ):
            target.write(key, content)
    assert chain.run("merge").success
    assert (
        open_index(target.uri(layout.MERGED)).count_rows()
        == open_index(f"{source.uri(layout.MERGED)}", "landsat-c2l2-sr", 2020).count_rows()
    )


def test_a_merge_without_any_cell_is_an_empty_index(new_chain: Callable[..., Chain], built: Chain) -> None:
    chain = new_chain()
    result = chain.run("merge")
    assert not result.success  # nothing to draw splits from
    assert "worldcover_stats.parquet: file not found. Materialise worldcover_stats first." in run_error(result)
    chain.clay.store().write(STATS, built.clay.store().read(STATS))
    assert chain.run("merge").success
    assert chain.metadata("merged_index")["dagster/row_count"] == 0


def test_a_published_sample_is_taken_without_any_land_cover(
    new_chain: Callable[..., Chain], built: Chain, tmp_path: Path
) -> None:
    sample = built.clay.table("mgrs_grid").iloc[[2, 5]][["name", "geometry"]]
    path = tmp_path / "sample.fgb"
    sample.to_file(path, driver="FlatGeobuf", engine="pyogrio")
    chain = new_chain(mgrs_sample=str(path))
    grid = layout.table("mgrs_grid")
    chain.clay.store().write(grid, built.clay.store().read(grid))  # worldcover_stats was never made
    assert chain.run("sampling").success
    taken = chain.clay.table("mgrs_sample")
    assert taken["name"].tolist() == sample["name"].tolist()
    assert [list(rules) for rules in taken["rules"]] == [["published"], ["published"]]
    assert chain.metadata("mgrs_sample")["taken_from"] == str(path)


def test_index_has_the_columns_of_the_contract(built: Chain) -> None:
    assert open_index(built.clay.store().uri(layout.MERGED)).schema.equals(MERGED_SCHEMA)


def test_chips_of_modis_are_what_lies_under_them_in_the_sinusoidal_source(built: Chain) -> None:
    """Each pixel of a chip is mapped back to the source with pyproj, and classified here by its bits."""
    store = built.clay.store()
    key = layout.table("scene_picks", "modis", 2023)
    item = decode_items(store.read(key), key)[0]
    source = {}
    for name in ("sur_refl_state_500m", "sur_refl_qc_500m", "sur_refl_b01"):
        with rasterio.open(item["assets"][name]["href"]) as raster:
            source[name], transform, crs = raster.read(1), raster.transform, raster.crs
    key = layout.table("scene_imagery", "modis", 2023)
    derived = next(one for one in decode_items(store.read(key), key) if one["id"] == item["id"])
    grid = rasterio.Affine(*derived["properties"]["proj:transform"][:6])
    back = pyproj.Transformer.from_crs(3857, crs.to_wkt(), always_xy=True)
    index = open_index(store.uri(layout.MERGED), "modis", 2023).to_table().to_pandas()
    chips = index[index["item_id"] == item["id"]]
    assert len(chips)
    for chip in chips.itertuples():
        column, row = np.meshgrid(
            np.arange(256) + 256 * int(chip.chip_index_x) + 0.5, np.arange(256) + 256 * int(chip.chip_index_y) + 0.5
        )
        x, y = back.transform(grid.a * column + grid.c, grid.e * row + grid.f)
        across = np.floor((x - transform.c) / transform.a).astype(int)
        down = np.floor((y - transform.f) / transform.e).astype(int)
        height, width = source["sur_refl_b01"].shape
        inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
        state, qc, red = (values[down.clip(0, height - 1), across.clip(0, width - 1)] for values in source.values())
        nodata = ~inside | (qc & 3 == 3) | (red == -28672)
        cloud = inside & np.where(state == 65535, qc & 3 == 2, np.isin(state & 3, (1, 2)))
        # GDAL approximates positions to 1/8 of a pixel.
        assert chip.nodata_percentage == pytest.approx(nodata.mean(), abs=2e-3)
        assert chip.cloud_cover_percentage == pytest.approx(cloud.mean(), abs=2e-3)
        latitude = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(
            0, grid.e * (256 * int(chip.chip_index_y) + 128) + grid.f
        )[1]
        assert chip.gsd == pytest.approx(grid.a * np.cos(np.radians(latitude)), rel=7e-3)  # the Earth is not a sphere


def test_chips_of_linz_are_of_0_3_m_or_of_their_coarser_source(built: Chain) -> None:
    store = built.clay.store()
    surveys = built.clay.table("linz_sample").set_index("id")["linz:survey"]
    index = open_index(store.uri(layout.MERGED), "linz").to_table(columns=["item_id", "gsd"]).to_pandas()
    by_survey = index.groupby(index["item_id"].astype(str).map(surveys))["gsd"].median()
    assert set(by_survey.index) == set(surveys)
    for survey, gsd in by_survey.items():
        # NZTM is not equidistant.
        assert gsd == pytest.approx(0.4 if survey == "southland_2016_0.4m" else 0.3, rel=3e-3)
    notes = built.metadata("scene_imagery", "linz|2016")["notes"]
    assert "kept at 0.4 m, coarser than 0.3 m" in str(notes)
