"""Clay's metadata.yaml, and pixels normalised with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.training.metadata import PUBLISHED, check_radar, decibels, normalised, read_metadata, sensor_of


def test_it_agrees_with_what_platforms_tell() -> None:
    metadata = read_metadata()
    assert set(metadata) <= set(PLATFORMS)
    assert len(metadata) == 7
    for key, sensor in metadata.items():
        model = PLATFORMS[key].model_input
        assert sensor.gsd == model.gsd
        assert list(sensor.waves.items()) == [(band.name, band.wavelength) for band in model.bands]
        assert list(sensor.mean) == list(sensor.std) == list(sensor.waves)
        assert model.decibels == (min(sensor.mean.values()) < 0)


def test_radar_and_modis_are_as_clay_published_them() -> None:
    """Earlier versions of Clay's file had other values: linear radar, and MODIS wavelengths in nm."""
    metadata = read_metadata()
    radar, modis = metadata["sentinel-1-rtc"], metadata["modis"]
    assert (list(radar.mean.values()), list(radar.std.values())) == ([-12.113, -18.673], [8.314, 8.017])
    assert list(radar.waves.values()) == [3.5, 4.0]
    assert list(modis.mean.values()) == [1072, 1624, 931, 1023, 1599, 1404, 1051]
    assert list(modis.std.values()) == [1643, 1878, 1449, 1538, 1763, 1618, 1396]
    assert list(modis.waves.values()) == [0.645, 0.858, 0.469, 0.555, 1.24, 1.64, 2.13]
    assert (radar.gsd, modis.gsd) == (10, 500)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "cannot be read"),
        ("a", "is not a table of platforms"),
        ("naip: 1", "needs gsd and, for each band, numbers under bands"),
        ("naip: {gsd: 1}", "needs gsd"),
        ("naip: {gsd: 1, bands: {mean: {red: 1}, std: {red: 1}}}", "needs gsd"),
        ("naip: {gsd: 1, bands: {mean: {red: one}, std: {red: 1}, wavelength: {red: 1}}}", "needs gsd"),
        ("naip: {gsd: 0, bands: {mean: {red: 1}, std: {red: 1}, wavelength: {red: 1}}}", "gsd 0 is not a size"),
        ("naip: {gsd: yes, bands: {mean: {red: 1}, std: {red: 1}, wavelength: {red: 1}}}", "gsd True is not a size"),
        ("naip: {gsd: 1, bands: {mean: {red: .nan}, std: {red: 1}, wavelength: {red: 1}}}", "mean red nan is invalid"),
        ("naip: {gsd: 1, bands: {mean: {red: 1}, std: {red: 0}, wavelength: {red: 1}}}", "std red 0.0 is invalid"),
    ],
)
def test_what_is_not_one(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "metadata.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_metadata(path)


def test_what_it_does_not_tell() -> None:
    metadata = read_metadata()
    with pytest.raises(InputError, match="has no sentinel-3, only sentinel-2-l2a, "):
        sensor_of(metadata, "sentinel-3", [], "here")
    with pytest.raises(InputError, match="here, naip: no metadata of swir16, thermal"):
        sensor_of(metadata, "naip", ["red", "swir16", "thermal"], "here")
    with pytest.raises(InputError, match=r"radar 'power': not known\. Say 'db' or 'clay' or 'linear'"):
        check_radar("power")
    assert PUBLISHED.is_file()


def test_decibels() -> None:
    power = np.array([1, 0.1, 0, -32768, np.nan, np.inf], np.float32).reshape(1, 1, 2, 3)
    np.testing.assert_array_equal(
        decibels(power, "db", [-12]).ravel(), np.array([0, -10, -12, -12, -12, -12], np.float32)
    )
    clay = decibels(power, "clay", [-12]).ravel()
    np.testing.assert_array_equal(clay, np.array([0, -10, -100, -100, np.nan, np.inf], np.float32))
    linear = decibels(power, "linear", [-12])
    np.testing.assert_array_equal(linear, power)
    assert linear is not power


def test_normalised_is_exact_to_a_millionth() -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (2, 2, 64, 64)).astype(np.uint16)
    mean, std = [110.16, 10678.0], [47.23, 6025.0]
    exact = (pixels - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(normalised(pixels.astype(np.float32), mean, std), exact, rtol=1e-6, atol=1e-6)
