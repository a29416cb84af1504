"""Conversions of a chip: to a picture, an xarray array, a file."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from clay_assets.errors import InputError, StorageError
from clay_assets.training.chip import Chip
from clay_assets.training.chipper import Chipper
from clay_assets.training.export import export_chips
from clay_assets.training.selection import open_chips
from clay_assets_tests.chips.factories import EPSG, L2, S2
from clay_assets_tests.training.conftest import PLAIN
from clay_assets_tests.training.made_scenes import Made


@pytest.fixture
def chip(made: Made) -> Chip:
    return Chipper(open_chips(made.storage, S2)).chip(PLAIN, 0, 0)


@pytest.mark.slow
def test_a_notebook_shows_the_chip(chip: Chip) -> None:
    shown = chip._repr_html_()
    assert f"<td>{PLAIN}-0-0</td>" in shown
    match = re.search(r"data:image/png;base64,([^\"]+)", shown)
    assert match
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(match[1]))))
    np.testing.assert_array_equal(picture, chip.rgb())
    assert (picture[~chip.valid] == 128).all()
    for colour, band in enumerate(("red", "green", "blue")):
        held = chip.pixels[chip.bands.index(band)][chip.valid].astype(float)
        assert np.corrcoef(held, picture[..., colour][chip.valid])[0, 1] > 0.7
    assert repr(chip) == f"Chip('{PLAIN}-0-0', {S2}, 2020-03-02, 10 bands of 256 × 256, uint16)"


def test_bands_that_make_no_picture_are_shown_in_grey(made: Made) -> None:
    picture = Chipper(open_chips(made.storage, S2), bands=["swir16"])[0].rgb()
    assert picture.shape == (256, 256, 3)
    assert (picture == picture[..., :1]).all()


@pytest.mark.slow
def test_xarray_has_coordinates_and_crs(chip: Chip) -> None:
    array = chip.to_xarray()
    np.testing.assert_array_equal(array.to_numpy(), chip.pixels)
    west, south, east, north = chip.bounds
    assert array.sel(band="red").shape == (256, 256)
    assert (float(array.x[0]), float(array.x[-1])) == (west + 5, east - 5)
    assert (float(array.y[0]), float(array.y[-1])) == (north - 5, south + 5)
    assert 'AUTHORITY["EPSG"' in array.spatial_ref.attrs["crs_wkt"] or "32632" in array.spatial_ref.attrs["crs_wkt"]
    assert [float(number) for number in array.spatial_ref.attrs["GeoTransform"].split()] == [west, 10, 0, north, 0, -10]


def test_a_geotiff_holds_bands_place_and_mask(chip: Chip, tmp_path: Path) -> None:
    path = chip.to_geotiff(tmp_path / "chip.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), chip.pixels)
        np.testing.assert_array_equal(file.dataset_mask() > 0, chip.valid)
        assert (file.descriptions, tuple(file.bounds)) == (chip.bands, chip.bounds)
        assert (file.crs.to_epsg(), file.tags()["chipid"]) == (EPSG, chip.chipid)
    assert [path.name for path in tmp_path.iterdir()] == ["chip.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["geotiff", "npz"])
def test_chips_are_exported_one_file_each(made: Made, tmp_path: Path, kind: str) -> None:
    chipper = Chipper(open_chips(made.storage, years=2020), bands=["red", "nir08"])
    seen: list[tuple[int, int]] = []
    assert export_chips(chipper, tmp_path, kind, progress=lambda *counts: seen.append(counts)) == 12
    assert seen[-1] == (12, 12)
    for chip in chipper:
        path = tmp_path / chip.platform / f"{chip.chipid}.{'tif' if kind == 'geotiff' else 'npz'}"
        if kind == "geotiff":
            with rasterio.open(path) as file:
                np.testing.assert_array_equal(file.read(), chip.pixels)
            continue
        with np.load(path, allow_pickle=False) as file:
            for name in ("pixels", "valid", "cloud", "time", "latlon", "waves"):
                np.testing.assert_array_equal(file[name], getattr(chip, name))
            assert (str(file["chipid"]), str(file["crs"]), file["bands"].tolist()) == (
                chip.chipid,
                chip.crs,
                ["red", "nir08"],
            )
    assert len(list(tmp_path.rglob("*.*"))) == 12
    assert export_chips(chipper, tmp_path / "few", kind, limit=5) == 5


def test_what_cannot_be_exported(made: Made, tmp_path: Path) -> None:
    chipper = Chipper(open_chips(made.storage, L2))
    with pytest.raises(InputError, match=r"jpeg: not a kind of file\. There are geotiff, npz"):
        export_chips(chipper, tmp_path, "jpeg")
    (tmp_path / L2).write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"cannot be written .* Check the folder"):
        export_chips(chipper, tmp_path)
