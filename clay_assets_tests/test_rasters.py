"""How files that cannot be opened are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from clay_assets.access import Access
from clay_assets.errors import InputError
from clay_assets.rasters import open_raster


@pytest.mark.parametrize("name", ["LC08_L2SP_20200404_QA_PIXEL.TIF", "S2A_20200403.tif", "S2A_20200401.tif"])
def test_a_damaged_file_is_called_damaged_whatever_its_date(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"II*\x00 and then nothing")
    with pytest.raises(InputError, match="is damaged or not a raster"), open_raster(str(tmp_path / name)):
        pass


def test_a_file_that_is_not_there_is_called_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"), open_raster(str(tmp_path / "B04.tif")):
        pass


def test_access_holds_for_its_places_only() -> None:
    public = Access(unsigned=True, places=("sentinel-cogs",))
    assert public.to("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/SCL.tif") == public
    assert public.to("s3://sentinel-cogs/a/SCL.tif") == public
    assert public.to("s3://our-bucket/imagery/SCL.tif") == Access()
    assert public.to("/disk/SCL.tif") == Access()
    assert Access(requester_pays=True).to("s3://any/B2.TIF").requester_pays
