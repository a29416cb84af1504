"""All environment variables that clay_assets reads, in one class. What a run samples is defined in the recipe.

An unknown `CLAY_…` variable or keyword is an error: a misspelt CLAY_STORAGE would otherwise write to the default
folder. S3 endpoints and credentials use the AWS SDK's own variables (AWS_ENDPOINT_URL, AWS_PROFILE, …).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from pydantic import Field, SecretStr, ValidationError, create_model
from pydantic_settings import BaseSettings, SettingsConfigDict

from clay_assets.errors import InputError

__all__ = ["Settings", "check_keywords", "declare", "read_settings"]

# ESA's address of the Sentinel-2 tiling grid, as given on the Sentinel-2 product page.
OFFICIAL_GRID = (
    "https://sentinels.copernicus.eu/documents/247904/1955685/"
    "S2A_OPER_GIP_TILPAR_MPC__20151209T095117_V20150622T000000_21000101T000000_B00.kml"
)

PREFIX = "CLAY_"
# Not settings, but also set where the pipeline runs: by tests (screenshots, real data) and deploy/compose.yaml (image).
RESERVED = ("CLAY_ARTIFACTS", "CLAY_REAL_DATA", "CLAY_IMAGE")
SIMILAR = 0.7  # difflib ratio; with its default of 0.6 all catalogues resemble each other, as they share `stac_`


class Settings(BaseSettings):
    """Settings of one deployment, from variables named `CLAY_…` (case-insensitive)."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    storage: str = Field(default="data", description="folder or `s3://bucket/prefix` for everything that is written")
    recipe: str = Field(default="clay_v1", description="`clay_v1`, `clay_v0_1`, or the path of a TOML file")
    mgrs_grid: str = Field(
        default=OFFICIAL_GRID,
        description="URL or path of the Sentinel-2 tiling grid: KML (also zipped), GeoParquet, FlatGeobuf, GeoPackage",
    )
    mgrs_sample: str | None = Field(default=None, description="a published sample to use instead of drawing one")
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
    dask_scheduler: str | None = Field(default=None, description="address of a Dask scheduler; none: use a local pool")
    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, description="scenes computed at once")
    requests_in_flight: int = Field(default=12, ge=1, le=64, description="parallel requests per host and run")
    alert_webhook: SecretStr | None = Field(
        default=None, description="URL of a Slack-compatible webhook that is called when a partition is left failed"
    )
    alert_email: str | None = Field(default=None, description="the same by e-mail: one or more addresses with commas")
    alert_smtp: SecretStr = Field(
        default=SecretStr("smtp://localhost"), description="mail server, `smtp[s]://[user:password@]host[:port]`"
    )
    alert_from: str | None = Field(default=None, description="sender of the e-mail; none: clay_assets@ this machine")
    dagster_url: str | None = Field(default=None, description="address of the Dagster UI, for links to runs")


# Settings and variables that platforms add. Platforms import this module, so they declare them here: setting → default.
_catalogues: dict[str, str] = {}
_variables: set[str] = set()


def declare(catalogues: Mapping[str, str], variables: Iterable[str]) -> None:
    """Register the settings of platforms.

    Args:
        catalogues: name of a setting, such as `stac_my_catalogue` → default address of that catalogue.
        variables: environment variables with secrets; they are read when a file is accessed.
    """
    _catalogues.update(catalogues)
    _variables.update(variables)


def read_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment, some of them overridden.

    Raises:
        InputError: names every variable and keyword that is unknown or has an invalid value.
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
    """Check the names of settings given as keywords, without reading the environment.

    Raises:
        InputError: names each unknown setting.
    """
    wrong = list(_unknown_keywords(names, _model(tuple(sorted(_catalogues.items())))))
    if wrong:
        raise InputError("\n".join(wrong))


@cache  # settings are read often, and those of platforms do not change
def _model(catalogues: tuple[tuple[str, str], ...]) -> type[Settings]:
    """The settings class including the settings of platforms: (setting, default)."""
    said = "STAC API root or snapshot; setting added by a platform"
    fields: dict[str, Any] = {name: (str, Field(default=default, description=said)) for name, default in catalogues}
    return create_model("Settings", __base__=Settings, **fields) if fields else Settings


def _unknown_variables(environment: Mapping[str, str], model: type[Settings]) -> Iterator[str]:
    """A message for each unknown variable. As in `Settings`, case is ignored and empty variables do not count."""
    exact = {*RESERVED, *_variables}  # case-sensitive
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
        f"Did you mean {spelt[nearest[0]]}?" if nearest else "Remove it, or see docs/operate.md for the known settings."
    )
    return f"{name}: unknown setting. {advice}"


def _plain(name: str) -> str:
    return name.lower().removeprefix(PREFIX.lower())
