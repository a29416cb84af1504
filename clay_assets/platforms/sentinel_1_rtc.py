"""Sentinel-1 RTC from the Planetary Computer: one scene in one random quarter, at the sampled MGRS tiles.

Gamma nought, radiometrically terrain corrected, linear, float32, VV and VH at 10 m:
https://planetarycomputer.microsoft.com/dataset/sentinel-1-rtc
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from clay_assets.platforms.base import (
    Assets,
    Files,
    Mask,
    Pixels,
    Platform,
    Quality,
    Request,
    Rules,
    SceneSource,
    Typical,
)
from clay_assets.platforms.column_rules import Candidates, Column, ColumnRules, Refusal, each, otherwise
from clay_assets.platforms.model import one_file_each
from clay_assets.platforms.planetary_computer import signed
from clay_assets.platforms.processing import SAME_MOMENT, Processing, Processings, catalogued
from clay_assets.platforms.properties import Property, is_number, label_of
from clay_assets.platforms.quarters import QuarterlyOptions, quarterly_requests
from clay_assets.stac import Item, item_datetime

if TYPE_CHECKING:
    import geopandas as gpd

KEY = "sentinel-1-rtc"
POLARIZATIONS = {"VV", "VH"}
MODE, LISTED = "sar:instrument_mode", "sar:polarizations"
OTHER_MODE, OTHER_POLARIZATIONS, BESIDE = "not in IW mode", "not both VV and VH", "does not overlap the tile"
# S1A_IW_GRDH_1SDV_20240419T045749_…: spacecraft, mode, polarizations
_PRODUCT = re.compile(r"S(1[A-D])_([A-Z0-9]{2})_[A-Z]{3}[A-Z_]_\d[A-Z](SV|SH|DV|DH)_")
POLARIZATIONS_OF = {"SV": {"VV"}, "SH": {"HH"}, "DV": {"VV", "VH"}, "DH": {"HH", "HV"}}
# Predicted, restituted and precise orbits: products are reprocessed with better ones.
ORBITS = {"PREORB": 0, "RESORB": 1, "POEORB": 2}
OVERLAP_DIGITS = 6  # of a share; overlaps that differ by less are equal, and time decides


class Sentinel1Options(QuarterlyOptions):
    """Recipe options of Sentinel-1."""

    quarters_per_year: int = Field(default=1, ge=1, le=4, description="random quarters drawn for each drawn year")

    @model_validator(mode="after")
    def _quarters_suffice(self) -> Sentinel1Options:
        if self.quarters_per_year > len(self.quarters):
            raise ValueError(
                f"quarters_per_year {self.quarters_per_year} is more than the {len(self.quarters)} quarters of "
                f"{list(self.quarters)}"
            )
        return self


def requests(sample: gpd.GeoDataFrame, options: Sentinel1Options, seed: int) -> gpd.GeoDataFrame:
    """One request per tile, drawn year and drawn quarter."""
    return quarterly_requests(KEY, sample, options, seed, quarters_per_year=options.quarters_per_year)


def mode_of(item: Item) -> str | None:
    """The instrument mode, by the item's label, or by its id if there is no label."""
    return label_of(item["properties"], MODE).upper() or _mode_of_id(item["id"])


def _mode_of_id(item_id: str) -> str | None:
    product = _PRODUCT.match(item_id)
    return product[2] if product else None


def polarizations_of(item: Item) -> set[str]:
    """The polarizations, by the item's list, or by its id if there is no list."""
    return _listed(item["properties"].get(LISTED) or ()) or _polarizations_of_id(item["id"])


def _listed(names: Sequence[str]) -> set[str]:
    return {name.strip().upper() for name in names} - {""}


def _polarizations_of_id(item_id: str) -> set[str]:
    product = _PRODUCT.match(item_id)
    return POLARIZATIONS_OF[product[3]] if product else set()


def refuse(item: Item, request: Request, options: Sentinel1Options) -> str | None:
    """Refuse other modes and polarizations, and scenes that touch the tile without overlapping it."""
    if mode_of(item) != "IW":
        return OTHER_MODE
    if not polarizations_of(item) >= POLARIZATIONS:
        return OTHER_POLARIZATIONS
    return None if overlap(item, request) else BESIDE


def refuse_columns(candidates: Candidates, options: Sentinel1Options) -> list[Refusal]:
    """`refuse` over columns."""
    modes = otherwise(each(str.upper, candidates.texts(MODE)), "", _mode_of_id, candidates.ids)
    single = each(
        lambda names, item_id: not (_listed(names) or _polarizations_of_id(item_id)) >= POLARIZATIONS,
        candidates.lists(LISTED),
        candidates.ids,
    )
    shares, unknown = _overlaps(candidates)
    return [
        (modes != "IW", OTHER_MODE),
        (single.astype(bool), OTHER_POLARIZATIONS),
        (unknown, None),
        (shares == 0, BESIDE),
    ]


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return [-_overlaps(candidates)[0], candidates.times]


def _overlaps(candidates: Candidates) -> tuple[Column, Column]:
    """`overlap` over columns, and where it is unknown."""
    import numpy as np
    import shapely

    places = candidates.of_request(lambda request: request.geometry)
    areas = shapely.area(places)
    covered = shapely.area(shapely.intersection(shapely.make_valid(candidates.footprints), places))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = covered / areas
    # Python's rounding; numpy's differs in the last digit.
    told = [round(share, OVERLAP_DIGITS) if is_number(share) else 0.0 for share in shares.tolist()]
    return np.array(told, np.float64), areas == 0


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """Largest overlap with the tile first, then earliest, then by id."""
    return -overlap(item, request), item_datetime(item), item["id"]


def overlap(item: Item, request: Request) -> float:
    """Share of the tile that an item's footprint covers, 0 to 1, computed in degrees."""
    import shapely  # here, so that definitions load without a geometry library

    footprint = shapely.make_valid(shapely.geometry.shape(item["geometry"]))
    share = float(footprint.intersection(request.geometry).area / request.geometry.area)
    return round(share, OVERLAP_DIGITS) if is_number(share) else 0.0


def processing(item: Item) -> Processing | None:
    """For one spacecraft, sensing time and set of polarizations the newest is the one catalogued last, or else the one
    with the better orbit.
    """
    label = re.fullmatch(r"sentinel-?(1[A-D])", label_of(item["properties"], "platform"), re.IGNORECASE)
    spacecraft = label or _PRODUCT.match(item["id"])
    if spacecraft is None:
        return None
    orbit = ORBITS.get(label_of(item["properties"], "s1:orbit_source").upper())
    polarizations = "-".join(sorted(polarizations_of(item)))
    return Processing((spacecraft[1].upper(), polarizations), item_datetime(item), (*catalogued(item), orbit))


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """No cloud; nodata where VV or VH is nodata (-32768), not a number, or not above 0. Float32, linear."""
    import numpy as np

    vv, vh = pixels["vv"], pixels["vh"]
    return np.zeros(vv.shape, np.bool_), ~((vv > 0) & (vh > 0))


PLATFORM = Platform(
    key=KEY,
    title="Sentinel-1 RTC",
    scenes=SceneSource(catalogue="stac_planetary_computer", collection="sentinel-1-rtc", sample="mgrs_sample"),
    rules=Rules(
        options=Sentinel1Options,
        requests=requests,
        refuse=refuse,
        rank=rank,
        properties=(Property(MODE, str), Property(LISTED, list[str])),
        processings=Processings(processing, ("platform", "s1:orbit_source", "created", "updated"), apart=SAME_MOMENT),
        columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank, processing)),
    ),
    assets=Assets(bands=("vv", "vh"), grid="vv", shown=(("vv", 1),)),
    quality=Quality(assets=("vv", "vh"), judge=judge),
    files=Files(access=(signed("sentinel1euwestrtc"),)),
    model=one_file_each(10, {"vv": 3.5, "vh": 4.0}, decibels=True),
    typical=Typical(21200, 28900, quality_bytes=8, image_bytes=8),  # of real items; two bands float32
    licence=(
        "The terms of the Planetary Computer's collection `sentinel-1-rtc` apply. "
        "Credit “Contains modified Copernicus Sentinel data [year]”."
    ),
)
