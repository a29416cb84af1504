"""The gate finds every pair of chips that is too close, regardless of how they were split, and no other pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from clay_assets.chips import leaks
from clay_assets.chips.leaks import Leaks
from clay_assets.errors import InputError
from clay_assets_tests.chips.made_world import made_chips, nearest_km

DISTANCE = 5.0  # km


def found(*chips: tuple[Any, str], distance: float = DISTANCE) -> bool:
    """Whether the gate finds a leak among chips that are added one by one."""
    gate = Leaks(distance)
    for polygon, split in chips:
        gate.add(np.array([polygon]), np.array([split]))
    return not gate.finding().ok


def box(longitude: float, latitude: float, km: float = 2.56) -> Any:
    """A chip with this lower left corner."""
    tall = km / 111.2
    wide = tall / np.cos(np.radians(latitude))
    parts = [shapely.box(longitude, latitude, min(longitude + wide, 180), latitude + tall)]
    if longitude + wide > 180:
        parts.append(shapely.box(-180, latitude, longitude + wide - 360, latitude + tall))
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def moved(longitude: float, latitude: float, azimuth: float, km: float) -> tuple[float, float]:
    x, y, _ = Geod(ellps="WGS84").fwd(longitude, latitude, azimuth, km * 1000)
    return x, y


LATITUDES, LONGITUDES, AZIMUTHS = (-83.5, -43.0, 0.0, 12.3, 50.0, 66.6, 79.0, 83.9), (-180.0, 5.0, 179.99), (0, 45, 90)
# All pairs of latitude, longitude and azimuth occur.
PLACES = [
    (latitude, longitude, AZIMUTHS[(row + column) % len(AZIMUTHS)])
    for row, latitude in enumerate(LATITUDES)
    for column, longitude in enumerate(LONGITUDES)
]


@pytest.mark.slow
@pytest.mark.parametrize(("latitude", "longitude", "azimuth"), PLACES)
def test_chips_too_near_are_found_and_others_not(latitude: float, longitude: float, azimuth: float) -> None:
    chip = box(longitude, latitude)
    cell = max(np.cos(np.radians(30)) / np.cos(np.radians(latitude)), 1.2)  # km, the longer side
    for first, second in (("train", "test"), ("test", "train"), ("validate", "test")):
        near = box(*moved(longitude, latitude, azimuth, 2.56 + DISTANCE - 0.1), km=0.1)
        assert found((chip, first), (near, second))
        far = box(*moved(longitude, latitude, azimuth, 1.5 * (2.56 + DISTANCE + 2.5 * cell)), km=0.1)
        assert not found((chip, first), (far, second))
    assert not found((chip, "train"), (chip, "train"), (chip, "buffer"))


@pytest.mark.parametrize(("longitude", "latitude"), [(0.0, 0.0), (179.9, -17.0), (10.0, 52.0), (-60.0, 83.0)])
def test_a_leak_across_platforms_is_found(longitude: float, latitude: float) -> None:
    modis = box(longitude, latitude, km=128)
    inside = box(*moved(longitude, latitude, 45, 40), km=0.08)
    beside = box(*moved(longitude, latitude, 270, 4), km=0.15)
    beyond = box(*moved(longitude, latitude, 270, 40), km=0.15)
    assert found((modis, "train"), (inside, "validate"))
    assert found((beside, "test"), (modis, "train"))
    assert not found((modis, "train"), (beyond, "validate"))


@pytest.mark.slow
def test_a_leak_is_found_among_many_chips_whatever_the_order() -> None:
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(0, 8, 0.025), np.arange(40, 46, 0.025)))
    chips = shapely.box(x, y, x + 0.023, y + 0.023)
    splits = np.where(x < 4, "train", np.where(x < 4.3, "buffer", "test")).astype("U8")
    planted, at = splits.copy(), np.flatnonzero(x > 5)[777]
    planted[at] = "validate"
    for order in (slice(None), slice(None, None, -1)):
        gates = {name: Leaks(DISTANCE) for name in ("sound", "planted")}
        for part in np.array_split(np.arange(len(x))[order], 9):
            gates["sound"].add(chips[part], splits[part])
            gates["planted"].add(chips[part], planted[part])
        assert gates["sound"].finding().ok
        finding = gates["planted"].finding()
        assert not finding.ok
        assert "validate chip" in finding.summary
        assert f"latitude {y[at]:.1f}" in finding.summary
        assert finding.numbers["painted_km2"] > 100_000
        assert finding.numbers["leaking_km2"] == finding.violation_count > 0


@pytest.mark.slow
def test_random_splits_leak_where_brute_force_says_so() -> None:
    polygons, _, places = made_chips(60, seed=5)
    rng = np.random.default_rng(6)
    agreed: list[bool] = []
    while len(agreed) < 60:
        one, other = rng.choice(len(polygons), 2, replace=False)
        apart = nearest_km(places[one], places[other])
        for distance in (apart + 1, 0.5 * apart - 40):  # boxes are closer than rotated chips
            if 0 < distance < 300:
                leaks_there = found((polygons[one], "train"), (polygons[other], "test"), distance=distance)
                agreed.append(leaks_there == (apart < distance))
    assert all(agreed)


def test_at_the_poles_and_without_a_distance() -> None:
    cap = shapely.box(-180, 89.5, 180, 90)
    assert found((cap, "train"), (shapely.box(10, 89.45, 11, 89.46), "test"))
    assert not found((cap, "train"), (shapely.box(10, 85, 11, 85.1), "test"))
    assert found((shapely.box(0, 89.9, 1, 89.95), "train"), (shapely.box(179, 89.9, 180, 89.95), "test"))
    assert found((box(3, 3), "train"), (box(3.01, 3), "test"), distance=0)
    assert not found((box(3, 3), "train"), (box(3.1, 3), "test"), distance=0)


def test_the_grid_is_that_of_ease_2() -> None:
    latitude = np.linspace(-90, 90, 1801)
    longitude = np.linspace(-180, 180, 1801)
    x, y = Transformer.from_crs(4326, 6933, always_xy=True).transform(longitude[1:-1], latitude[1:-1])
    assert np.abs(leaks._column_at(longitude[1:-1]) - (x / 1000 + leaks.COLUMNS / 2)).max() < 1.3
    assert np.abs(leaks._row_at(latitude[1:-1]) - (y / 1000 + leaks.ROWS / 2)).max() < 1.3
    rows: NDArray[Any] = leaks._row_at(latitude)
    assert (rows[0], rows[-1]) == (0, leaks.ROWS - 1)


def test_bad_input_is_refused() -> None:
    gate = Leaks(DISTANCE)
    with pytest.raises(InputError, match=r"'dev': unknown split\. Known: train, validate, test, buffer\."):
        gate.add(np.array([box(0, 0)]), np.array(["dev"]))
    with pytest.raises(InputError, match="chips have no geometry"):
        gate.add(np.array([shapely.Polygon()]), np.array(["train"]))
    gate.add(np.array([], dtype=object), np.array([], dtype=str))
    finding = gate.finding()
    assert finding.ok
    assert finding.numbers == {"painted_km2": 0, "leaking_km2": 0}
    with pytest.raises(InputError, match="chips have no geometry"):
        gate.add(np.array([None, box(0, 0)]), np.array(["train", "train"]))


def test_a_look_at_what_is_new_finds_what_is_too_near_to_the_old() -> None:
    chip = box(10, 50)
    near = box(*moved(10, 50, 90, 2.56 + DISTANCE - 1), km=0.1)
    gate = Leaks(DISTANCE)
    gate.add(np.array([chip, box(60, 50)]), np.array(["train", "test"]))
    assert gate.finding(fresh=True).ok
    gate.add(np.array([near]), np.array(["validate"]))
    assert not gate.finding(fresh=True).ok
    assert gate.finding(fresh=True).ok  # nothing added since
    assert not gate.finding().ok
