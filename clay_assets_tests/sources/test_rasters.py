"""How rasters are reached, and how files that cannot be read are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rasterio.env import getenv
from rasterio.transform import from_origin

from clay_assets.chips.quality import read_shares
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.sources.rasters import gdal_options, open_raster
from clay_assets.transport.access import Access, access_for, safe_cause, without_signature
from clay_assets_tests.chips.factories import write_tiff


@pytest.mark.parametrize("name", ["LC08_L2SP_20200404_QA_PIXEL.TIF", "S2A_20200403.tif", "S2A_20200401.tif"])
def test_a_damaged_file_is_called_damaged_whatever_its_date(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"II*\x00 and then nothing")
    with pytest.raises(InputError, match="is damaged or not a raster"), open_raster(str(tmp_path / name)):
        pass


def test_a_file_that_is_not_there_is_called_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"), open_raster(str(tmp_path / "B04.tif")):
        pass


def test_an_access_holds_for_its_places_only() -> None:
    public = Access(unsigned=True, hosts=("sentinel-cogs",))
    assert public.holds_for("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/SCL.tif")
    assert public.holds_for("s3://sentinel-cogs/a/SCL.tif")
    assert not public.holds_for("s3://sentinel-cogs-inventory/a/SCL.tif")
    assert not public.holds_for("s3://our-bucket/sentinel-cogs/SCL.tif")
    assert not public.holds_for("/disk/sentinel-cogs/SCL.tif")
    assert Access(requester_pays=True).holds_for("s3://any/B2.TIF")


def test_the_first_way_that_holds_is_taken() -> None:
    here, there = Access(unsigned=True, hosts=("here",)), Access(requester_pays=True, hosts=("there", "here"))
    assert access_for((here, there), "s3://here/a.tif") == here
    assert access_for((here, there), "s3://there/a.tif") == there
    assert access_for((here, there), "s3://our-bucket/a.tif") == access_for((), "s3://here/a.tif") == Access()


def test_each_access_has_its_options_of_gdal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gdal_options(Access(unsigned=True))["AWS_NO_SIGN_REQUEST"] == "YES"
    assert gdal_options(Access(requester_pays=True))["AWS_REQUEST_PAYER"] == "requester"
    assert not [name for name in gdal_options(Access()) if name.startswith("AWS_")]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    found = gdal_options(Access())
    assert (found["AWS_S3_ENDPOINT"], found["AWS_HTTPS"], found["AWS_VIRTUAL_HOSTING"]) == (
        "127.0.0.1:9000",
        "NO",
        "FALSE",
    )


def test_the_cache_of_blocks_is_bounded_while_a_raster_is_open(tmp_path: Path) -> None:
    """GDAL's own would grow with the machine's memory; a number of bytes, not of megabytes."""
    path = write_tiff(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), from_origin(0, 0, 1, 1), "EPSG:32632")
    with open_raster(str(path)):
        assert getenv()["GDAL_CACHEMAX"] == 128 << 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'https://a.net/c/f.tif?st=1&sig=ab%2Bc%3D' is no raster", "'https://a.net/c/f.tif' is no raster"),
        ("https://a.net/c/f.tif?sig=abc: refused", "https://a.net/c/f.tif: refused"),
        ("f.tif?st=1&se=2&sig=a%3D, band 1: failed", "f.tif, band 1: failed"),
        ("url: /c/f.tif?sv=1&sig=abc&sr=c (Caused by x)", "url: /c/f.tif (Caused by x)"),
        ("https://a.net/?significant=1", "https://a.net/?significant=1"),
        ("two /a?sig=1 and /b?sig=2", "two /a and /b"),
    ],
)
def test_no_signature_is_shown(text: str, shown: str) -> None:
    assert without_signature(text) == shown


def test_an_error_that_shows_a_signature_is_no_cause_of_another() -> None:
    hidden = ValueError("see below")
    hidden.__cause__ = OSError("https://a.net/f.tif?st=1&sig=abc")
    assert safe_cause(hidden) is None
    harmless = ValueError("see below")
    harmless.__context__ = OSError("https://a.net/f.tif")
    assert safe_cause(harmless) is harmless


def test_of_several_open_files_the_one_that_is_damaged_is_named(tmp_path: Path) -> None:
    transform = from_origin(500_000, 100_000, 10, 10)
    for broken, whole in (("vv", "vh"), ("vh", "vv")):
        folder = tmp_path / broken
        for name in (broken, whole):
            write_tiff(folder / f"{name}.tif", np.ones((256, 256), np.float32), transform, "EPSG:32632", nodata=0)
        content = (folder / f"{broken}.tif").read_bytes()
        (folder / f"{broken}.tif").write_bytes(content[:5_000])
        hrefs = {name: str(folder / f"{name}.tif") for name in ("vv", "vh")}
        with pytest.raises(InputError, match=rf"^{hrefs[broken]}: is damaged"):
            read_shares(PLATFORMS["sentinel-1-rtc"], hrefs, 256, None, None)
