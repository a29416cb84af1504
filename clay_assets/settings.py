"""Every environment variable that we read, in one class. What a run samples is in the recipe, not here.

S3 endpoints and credentials are the AWS SDK's own variables (AWS_ENDPOINT_URL, AWS_PROFILE, …).
"""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from clay_assets.errors import InputError

# ESA's own address of the Sentinel-2 tiling grid, as the Sentinel-2 product page gives it.
OFFICIAL_GRID = (
    "https://sentinels.copernicus.eu/documents/247904/1955685/"
    "S2A_OPER_GIP_TILPAR_MPC__20151209T095117_V20150622T000000_21000101T000000_B00.kml"
)


class Settings(BaseSettings):
    """Settings of one deployment, from variables named `CLAY_…`."""

    model_config = SettingsConfigDict(env_prefix="CLAY_", env_ignore_empty=True, extra="ignore", frozen=True)

    storage: str = Field(default="data", description="folder or `s3://bucket/prefix` for everything that we write")
    recipe: str = Field(default="clay_v1", description="`clay_v1`, `clay_v0_1`, or the path of a TOML file")
    mgrs_grid: str = Field(
        default=OFFICIAL_GRID,
        description="URL or path of the Sentinel-2 tiling grid: KML (also zipped), GeoParquet, FlatGeobuf, GeoPackage",
    )
    mgrs_sample: str | None = Field(default=None, description="a published sample to take instead of drawing one")
    worldcover: str = Field(
        default="s3://esa-worldcover/v200/2021/map",
        description="folder, bucket or URL of `ESA_WorldCover_10m_2021_v200_{tile}_Map.tif`",
    )
    stac_earth_search: str = Field(
        default="https://earth-search.aws.element84.com/v1",
        description="STAC API root, or STAC-GeoParquet snapshot (file, folder or `s3://…`), for Sentinel-2",
    )
    stac_usgs: str = Field(
        default="https://landsatlook.usgs.gov/stac-server", description="the same, for both Landsat levels"
    )
    stac_planetary_computer: str = Field(
        default="https://planetarycomputer.microsoft.com/api/stac/v1",
        description="the same, for Sentinel-1, NAIP and MODIS",
    )
    natural_earth: str = Field(
        default="https://naturalearth.s3.amazonaws.com",
        description="folder, bucket or URL of Natural Earth's 1:10m layers, as zip files",
    )
    linz_catalog: str = Field(
        default="https://nz-imagery.s3.ap-southeast-2.amazonaws.com/catalog.json",
        description="path or URL of the root of the static STAC catalogue of nz-imagery",
    )
    dask_scheduler: str | None = Field(default=None, description="address of a Dask scheduler; none: a local pool")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="scenes at once")
    requests_in_flight: int = Field(default=8, ge=1, le=64, description="requests at once per host, of one run")


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with some of them replaced.

    Raises:
        InputError: names each variable that is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        wrong = (f"CLAY_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}" for e in error.errors())
        raise InputError("; ".join(wrong)) from error
