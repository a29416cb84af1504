"""Chips at labelled points."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely

from clay_assets.errors import InputError
from clay_assets.training.chipper import Chipper
from clay_assets.training.selection import open_chips
from clay_assets_tests.chips.factories import EPSG, L2, LEFT, S2, TOP
from clay_assets_tests.training.conftest import BESIDE, PLAIN, RAISED
from clay_assets_tests.training.made_scenes import Made

# Metres of the scenes' zone: in chip 1-0 at row 100 and column 30, in chip 2-1, in the adjacent scene, and in no scene.
OFFSETS = np.array([(2560 + 305, -1005), (2 * 2560 + 5, -2565), (8000 + 15, -15), (50_000, 50_000)])
METRES = OFFSETS + np.array([LEFT, TOP])


@pytest.fixture
def points() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"label": list("abcd")}, geometry=gpd.points_from_xy(*METRES.T), crs=EPSG)


def test_a_point_gets_the_chip_that_holds_it(made: Made, points: gpd.GeoDataFrame) -> None:
    at = Chipper(open_chips(made.storage, S2)).at(
        points, dates=["2020-03-01", "2021-03-05", "2020-01-01", "2020-01-01"]
    )
    assert [chip and chip.chipid for chip in at] == [f"{PLAIN}-1-0", f"{RAISED}-2-1", f"{BESIDE}-0-0", None]
    np.testing.assert_allclose(at.days[:3], [1.43, -2.57, 426.43], atol=0.01)
    assert np.isnan(at.days[3])
    assert (len(at), at.candidates.tolist(), at.found.tolist()) == (4, [2, 2, 1, 0], [0, 1, 2])
    batch = at.batch()
    assert at.pixels_of(batch).tolist() == [[100, 30], [0, 0], [1, 1]]
    assert at.pixels_of(at.batch([2]), [2]).tolist() == [[1, 1]]
    with pytest.raises(InputError, match="point 3: no chip contains it"):
        at.batch([0, 3])


def test_without_a_date_the_clearest_chip_is_taken(made: Made, points: gpd.GeoDataFrame) -> None:
    chips = open_chips(made.storage, S2)
    table = chips.table(["chipid", "cloud_cover_percentage", "nodata_percentage"]).to_pandas().set_index("chipid")
    covered = table.sum(axis=1)
    clearest = min((f"{PLAIN}-1-0", f"{RAISED}-1-0"), key=lambda name: covered[name])
    chip = Chipper(chips).at(points.iloc[:1])[0]
    assert chip is not None
    assert chip.chipid == clearest


def test_points_may_come_in_several_forms(made: Made, points: gpd.GeoDataFrame) -> None:
    chipper = Chipper(open_chips(made.storage))
    lonlat = np.array(pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True).transform(*METRES.T)).T
    expected = chipper.at(points, S2).places
    for given in (points.geometry, lonlat, lonlat.tolist(), shapely.points(lonlat)):
        np.testing.assert_array_equal(chipper.at(given, S2).places, expected)
    assert chipper.at(shapely.Point(lonlat[0]), S2).places.tolist() == expected[:1].tolist()
    moment = pd.Timestamp("2021-01-01", tz="Europe/Berlin")
    assert len(chipper.at(lonlat, L2, moment)) == 4


def test_what_is_not_a_point_or_a_date(made: Made, points: gpd.GeoDataFrame) -> None:
    chipper = Chipper(open_chips(made.storage))
    with pytest.raises(InputError, match=f"at: chips of {L2}, {S2}. Say which platform"):
        chipper.at(points)
    for wrong, words in (
        (METRES, "is not a point on the Earth"),
        (points.set_crs(None, allow_override=True), "have no CRS"),
        (points.buffer(5), "is not a point on the Earth"),
        ([1.0, 2.0, 3.0], "Pass longitudes and latitudes"),
        ([[np.nan, 0.0]], "is not a point on the Earth"),
    ):
        with pytest.raises(InputError, match=words):
            chipper.at(wrong, S2)
    for dates, words in (
        ("soon", "not understood"),
        (["2020-01-01"] * 3, "3 dates for 4 points"),
        ([None] * 4, "missing"),
    ):
        with pytest.raises(InputError, match=words):
            chipper.at(points, S2, dates)
