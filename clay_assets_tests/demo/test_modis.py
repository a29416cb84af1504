"""The planet's MODIS composites start on the real days, are on the real grid, and contain every quality code."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from numpy.typing import NDArray
from pyproj import CRS

from clay_assets.demo.modis import FILL, ONCE, PUBLISHED, QC_FILL, REFERENCE, SIZE, TILES
from clay_assets.demo.planet import Planet
from clay_assets.demo.sites import MODIS
from clay_assets.stac import Item

BANDS = [f"sur_refl_b0{number}" for number in range(1, 8)]
QC, STATE = "sur_refl_qc_500m", "sur_refl_state_500m"


@pytest.fixture(scope="module")
def items(planet: Planet) -> list[dict[str, Any]]:
    return planet.items(MODIS)


@pytest.fixture(scope="module")
def table(items: list[Item]) -> pd.DataFrame:
    """One row per item."""
    rows = [
        {
            "tile": (i["properties"]["modis:vertical-tile"], i["properties"]["modis:horizontal-tile"]),
            "platform": i["properties"]["platform"],
            "start": date.fromisoformat(i["properties"]["start_datetime"][:10]),
            "end": date.fromisoformat(i["properties"]["end_datetime"][:10]),
            "id": i["id"],
            "b01": i["assets"]["sur_refl_b01"]["href"],
        }
        for i in items
    ]
    return pd.DataFrame(rows)


def _read(href: str) -> NDArray[Any]:
    with rasterio.open(href) as src:
        return src.read(1)


def test_composites_start_every_eighth_day_of_the_year(table: pd.DataFrame) -> None:
    assert {(start.timetuple().tm_yday - 1) % 8 for start in table["start"]} == {0}
    assert {(end - start).days for start, end in zip(table["start"], table["end"], strict=True)} == {7}
    assert all(name.startswith(("MOD09A1.A", "MYD09A1.A")) for name in table["id"])


def test_every_month_has_its_first_composite_and_one_from_the_month_before(table: pd.DataFrame) -> None:
    months = [(year, month) for year in (2022, 2023) for month in range(1, 13)]
    across = 0
    for tile in TILES:
        starts = sorted(set(table.loc[table["tile"] == (tile.vertical, tile.horizontal), "start"]))
        for year, month in months:
            inside = [day for day in starts if (day.year, day.month) == (year, month)]
            if (year, month) == tile.empty_month:
                assert not inside
                continue
            assert inside[0].day <= 8
            across += any(day < date(year, month, 1) and (date(year, month, 1) - day).days < 8 for day in starts)
    assert across > 80


def test_one_month_of_one_tile_has_no_item(table: pd.DataFrame) -> None:
    tile = next(one for one in TILES if one.empty_month)
    first, last = date(2022, 6, 1), date(2022, 6, 30)
    touching = (table["start"] <= last) & (table["end"] >= first)
    assert not (touching & (table["tile"] == (tile.vertical, tile.horizontal))).any()
    assert (touching & (table["tile"] == (4, 18))).any()


def test_all_tiles_have_the_reference_and_one_has_aqua_alone(table: pd.DataFrame) -> None:
    tiles = {(tile.vertical, tile.horizontal) for tile in TILES}
    assert set(table.loc[table["start"] == REFERENCE, "tile"]) == tiles
    platforms = table.groupby("tile")["platform"].agg(set)
    assert [tile for tile, offered in platforms.items() if offered == {"aqua"}] == [(9, 26)]


def test_tiles_without_nodata_at_the_reference_are_known(table: pd.DataFrame) -> None:
    terra = table[(table["platform"] == "terra") & (table["start"] == REFERENCE)]
    whole = {tile for tile, href in zip(terra["tile"], terra["b01"], strict=True) if not (_read(href) == FILL).any()}
    assert whole == {*PUBLISHED, (8, 17)}
    partly = table[(table["tile"] == (8, 17)) & (table["platform"] == "terra")]
    assert set(partly.loc[partly["b01"].str.contains("partly"), "start"]) == {ONCE}
    assert (_read(partly.loc[partly["start"] == ONCE, "b01"].item()) == FILL).any()


def test_published_tiles_are_of_the_published_list(real_data: Path) -> None:
    listed = pd.read_csv(real_data / "published" / "modis_sin_tiles.csv")
    known = set(zip(listed["vertical"], listed["horizontal"], strict=True))
    assert {(tile.vertical, tile.horizontal) for tile in TILES} & known == set(PUBLISHED)


def test_grid_is_that_of_the_real_items(items: list[Item]) -> None:
    for item in items[::20]:
        properties = item["properties"]
        assert properties["proj:epsg"] is None
        crs = CRS.from_wkt(properties["proj:wkt2"])
        assert crs.ellipsoid is not None
        assert crs.ellipsoid.semi_major_metre == crs.ellipsoid.semi_minor_metre == 6371007.181
        assert crs.coordinate_operation is not None
        assert crs.coordinate_operation.method_name == "Sinusoidal"
        size, _, left, _, _, top = properties["proj:transform"]
        assert size == pytest.approx(463.3127165274999, abs=1e-6)
        assert left == pytest.approx((properties["modis:horizontal-tile"] - 18) * 1111950.519667, abs=0.01)
        assert top == pytest.approx((9 - properties["modis:vertical-tile"]) * 1111950.519667, abs=0.01)
        for key, asset in item["assets"].items():
            with rasterio.open(asset["href"]) as src:
                assert list(src.transform)[:6] == pytest.approx(properties["proj:transform"], abs=1e-6)
                assert src.shape == (SIZE, SIZE)
                assert CRS(src.crs.to_wkt()).equals(crs)
                assert src.dtypes[0] == {QC: "uint32", STATE: "uint16"}.get(key, "int16")


def test_footprint_has_its_corner_where_real_tiles_have_it(items: list[Item]) -> None:
    """The upper left of tile h11v11 is at 20° S, 74.5° W on the sphere (70° / cos 20°)."""
    item = next(one for one in items if ".h11v11." in one["id"])
    corners = np.array(item["geometry"]["coordinates"][0])
    assert np.abs(corners - (-70 / np.cos(np.radians(20)), -20)).sum(axis=1).min() < 1e-9


def test_every_state_meets_every_qc(items: list[Item]) -> None:
    seen = set()
    for item in {i["assets"][STATE]["href"]: i for i in items if ".h18v04." in i["id"]}.values():
        state, qc = (_read(item["assets"][key]["href"]) for key in (STATE, QC))
        for array in (state, qc):
            blocks = array.reshape(60, 10, 60, 10)
            assert (blocks == blocks[:, :1, :, :1]).all()
        seen |= {
            ("fill" if s == 65535 else int(s & 3), int(q & 3)) for s, q in set(zip(state.flat, qc.flat, strict=True))
        }
    assert seen == {(s, q) for s in (0, 1, 2, 3, "fill") for q in range(4)}


def test_fill_is_the_same_in_all_rasters(items: list[Item]) -> None:
    item = next(one for one in items if ".h18v10." in one["id"])
    empty = _read(item["assets"]["sur_refl_b01"]["href"]) == FILL
    assert 0.1 < empty.mean() < 0.3
    for band in BANDS:
        assert ((_read(item["assets"][band]["href"]) == FILL) == empty).all()
    assert (_read(item["assets"][STATE]["href"])[empty] == 65535).all()
    assert ((_read(item["assets"][QC]["href"]) == QC_FILL) == empty).all()


def test_items_are_plain_json(items: list[Item]) -> None:
    assert json.loads(json.dumps(items[0])) == items[0]
