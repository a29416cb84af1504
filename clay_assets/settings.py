"""Every environment variable that we read, in one class. What a run samples is in the recipe, not here.

A `CLAY_…` variable, or a keyword, that nobody reads is an error: a misspelt CLAY_STORAGE would otherwise write to the
default folder. S3 endpoints and credentials are the AWS SDK's own variables (AWS_ENDPOINT_URL, AWS_PROFILE, …).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from clay_assets.errors import InputError

# ESA's own address of the Sentinel-2 tiling grid, as the Sentinel-2 product page gives it.
OFFICIAL_GRID = (
    "https://sentinels.copernicus.eu/documents/247904/1955685/"
    "S2A_OPER_GIP_TILPAR_MPC__20151209T095117_V20150622T000000_21000101T000000_B00.kml"
)

PREFIX = "CLAY_"
# Not settings, but set where the pipeline runs too: by tests (screenshots, real data) and deploy/compose.yaml (image).
RESERVED = ("CLAY_ARTIFACTS", "CLAY_REAL_DATA", "CLAY_IMAGE")
SIMILAR = 0.7  # of 1, by difflib; at its default of 0.6 any catalogue resembles every other, by the common `stac_`


class Settings(BaseSettings):
    """Settings of one deployment, from variables named `CLAY_…`, in any case."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

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
    requests_in_flight: int = Field(default=12, ge=1, le=64, description="requests at once per host, of one run")


# What platforms bring. They are gathered above this module, so they declare it: setting → default, and variables.
_catalogues: dict[str, str] = {}
_variables: set[str] = set()


def declare(catalogues: Mapping[str, str], variables: Iterable[str]) -> None:
    """Make the settings of platforms known.

    Args:
        catalogues: name of a setting, such as `stac_my_catalogue` → the default address of that catalogue.
        variables: environment variables that hold secrets; they are read where a file is accessed.
    """
    _catalogues.update(catalogues)
    _variables.update(variables)


def read_settings(**overrides: Any) -> Settings:
    """The settings of the environment, with some of them replaced.

    Raises:
        InputError: names every variable and keyword that is unknown or has a wrong value.
    """
    model = _model(tuple(sorted(_catalogues.items())))
    wrong = [*_unknown_variables(os.environ, model), *_unknown_keywords(overrides, model)]
    try:
        settings = model(**{name: value for name, value in overrides.items() if name.lower() in model.model_fields})
    except ValidationError as error:
        values = (f"{PREFIX}{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}" for e in error.errors())
        raise InputError("\n".join([*wrong, *values])) from error
    if wrong:
        raise InputError("\n".join(wrong))
    return settings


def check_keywords(names: Iterable[str]) -> None:
    """Check the names of settings that are given as keywords, without reading the environment.

    Raises:
        InputError: names each that is unknown.
    """
    wrong = list(_unknown_keywords(names, _model(tuple(sorted(_catalogues.items())))))
    if wrong:
        raise InputError("\n".join(wrong))


@cache  # settings are read again and again, and what platforms bring does not change
def _model(catalogues: tuple[tuple[str, str], ...]) -> type[Settings]:
    """The class of settings with those that platforms bring: setting, default."""
    said = "STAC API root or snapshot; a platform brings this setting"
    fields: dict[str, Any] = {name: (str, Field(default=default, description=said)) for name, default in catalogues}
    return create_model("Settings", __base__=Settings, **fields) if fields else Settings


def _unknown_variables(environment: Mapping[str, str], model: type[Settings]) -> Iterator[str]:
    """What an error says of each unknown variable. As in `Settings`, those of any case count, and empty ones do not."""
    exact = {*RESERVED, *_variables}  # read under exactly this name
    known = [*(f"{PREFIX}{field.upper()}" for field in model.model_fields), *sorted(exact)]
    for name, value in sorted(environment.items()):
        ours = value and name.upper().startswith(PREFIX)
        if ours and name not in exact and _plain(name) not in model.model_fields:
            yield _unknown(name, known)


def _unknown_keywords(names: Iterable[str], model: type[Settings]) -> Iterator[str]:
    return (_unknown(name, model.model_fields) for name in sorted(names) if name.lower() not in model.model_fields)


def _unknown(name: str, known: Iterable[str]) -> str:
    spelt = {_plain(one): one for one in known}
    nearest = get_close_matches(_plain(name), spelt, n=1, cutoff=SIMILAR)
    advice = (
        f"Did you mean {spelt[nearest[0]]}?" if nearest else "Remove it, or see docs/operate.md for those that exist."
    )
    return f"{name}: unknown setting. {advice}"


def _plain(name: str) -> str:
    return name.lower().removeprefix(PREFIX.lower())
