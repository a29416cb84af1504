"""NAIP aerial imagery: the latest image of each sampled location in the USA, and a random older one.

A location is searched once, over all years; the year of the image found decides on the partition.

Files on the Planetary Computer: https://planetarycomputer.microsoft.com/dataset/naip
Files on AWS: https://github.com/awslabs/open-data-docs/tree/main/docs/naip
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from clay_assets.draws import draw, keyed_hash
from clay_assets.platforms.base import (
    Assets,
    Files,
    Mask,
    Pixels,
    Platform,
    Quality,
    ReferenceOrCopy,
    Request,
    Rules,
    SceneSource,
    Typical,
)
from clay_assets.platforms.column_rules import Candidates, Column, ColumnRules, Refusal
from clay_assets.platforms.model import in_one_file
from clay_assets.platforms.planetary_computer import signed
from clay_assets.platforms.processing import Processing, Processings, catalogued, stamp_of
from clay_assets.platforms.request_table import request_table, year_bounds
from clay_assets.stac import Item, item_datetime
from clay_assets.transport.access import Access

if TYPE_CHECKING:
    import geopandas as gpd

KEY = "naip"
LATEST, OLDER = "latest", "older"
BUCKETS = {"naip-analytic": "rgbir_cog", "naip-visualization": "rgb"}  # bucket → folder of its GeoTIFFs
# …/naip/v002/al/2021/al_030cm_2021/30085/m_3008501_ne_16_030_20211103.tif; the islands have one more folder in both
_ON_AZURE = re.compile(
    r"https://naipeuwest\.blob\.core\.windows\.net/naip/v\d+/"
    r"(?P<state>\w\w)/(?P<year>\d{4})/\w\w_0*(?P<cm>\d+)cm_\d{4}/(?P<block>\d+(/\d+)?)/(?P<file>[^/]+)"
)
# al_m_3008501_ne_16_060_20191109_20200114: quad, zone and pixel size, date, and production date if known
_IMAGE = re.compile(r"(?:[a-z]{2}_)?m_(\d{7}_[a-z]{2}_\d{1,2}_[a-z0-9]+)_(\d{8})(?:_(\d{8}))?", re.IGNORECASE)


class NaipOptions(ReferenceOrCopy):
    """Recipe options of NAIP."""

    years: tuple[int, int] = Field(default=(2010, 2023), description="first and last year searched, both included")
    random_points: int = Field(
        default=4000, ge=0, strict=True, description="random locations in addition to those of Natural Earth"
    )
    source: Literal["planetary-computer", "naip-analytic", "naip-visualization"] = Field(
        default="planetary-computer",
        description="where images are read: the item's address, or a bucket of NAIP on AWS",
    )


def requests(sample: gpd.GeoDataFrame, options: NaipOptions, seed: int) -> gpd.GeoDataFrame:
    """One search per location, over all years."""
    start, end = year_bounds(options.years[0])[0], year_bounds(options.years[1])[1]
    return request_table(
        KEY,
        [
            Request(name, name, "all", start, end, point)
            for name, point in zip(sample["name"], sample.geometry, strict=True)
        ],
    )


def resolve(request: Request, items: Sequence[Item], options: NaipOptions, seed: int) -> list[Request]:
    """A request for the latest item, and one for a random older year if there is one.

    A location without items keeps its request for the latest, in the last year searched, so that a ledger records it.
    """
    years = sorted({item_datetime(item).year for item in items}) or [options.years[1]]
    chosen = [(LATEST, years[-1], 0)]
    for year in map(int, draw(years[:-1], 1, seed, KEY, request.location)):
        chosen.append((OLDER, year, keyed_hash(seed, KEY, request.location, year)))
    return [
        Request(
            f"{request.location}-{which}",
            request.location,
            which,
            *year_bounds(year),
            request.geometry,
            request.filters,
            drawn,
        )
        for which, year, drawn in chosen
    ]


def refuse(item: Item, request: Request, options: NaipOptions) -> str | None:
    """Every item is eligible."""
    return None


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """Latest first, then by id: images of neighbouring quads overlap."""
    return -item_datetime(item).timestamp(), item["id"]


def refuse_columns(candidates: Candidates, options: NaipOptions) -> list[Refusal]:
    """`refuse` over columns."""
    return []


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return [-candidates.times]


def acquisition(item_id: str) -> tuple[str, str] | None:
    """Quad, pixel size and day from an image's id; None for other ids."""
    image = _IMAGE.fullmatch(item_id)
    return (image[1].lower(), image[2]) if image else None


def processing(item: Item) -> Processing | None:
    """For one quad, pixel size and day the last production date is the newest; first deliveries often have none."""
    image = _IMAGE.fullmatch(item["id"])
    if image is None:
        return None
    return Processing((image[1].lower(), image[2]), None, (stamp_of(image[3], "%Y%m%d") or 0.0, *catalogued(item)))


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """No cloud; nodata by the file's own mask (alpha, nodata tag or internal mask); none if it has no mask.

    Many files tag near infrared, their fourth band, as alpha: dark water in it is not nodata.
    """
    import numpy as np

    mask = pixels["image"]
    return np.zeros(mask.shape, np.bool_), mask == 0


def rewrite(href: str, options: NaipOptions) -> str:
    """The address of the same image in a bucket on AWS, if the recipe says so."""
    found = _ON_AZURE.fullmatch(href) if options.source in BUCKETS else None
    if found is None:
        return href
    place = f"{found['state']}/{found['year']}/{found['cm']}cm/{BUCKETS[options.source]}/{found['block']}"
    return f"s3://{options.source}/{place}/{found['file']}"


PLATFORM = Platform(
    key=KEY,
    title="NAIP",
    scenes=SceneSource(catalogue="stac_planetary_computer", collection="naip", sample="naip_sample"),
    rules=Rules(
        options=NaipOptions,
        requests=requests,
        resolve=resolve,
        refuse=refuse,
        rank=rank,
        processings=Processings(processing, ("created", "updated"), acquisition=acquisition),
        columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank, processing)),
    ),
    assets=Assets(
        bands=("image",),  # red, green, blue and near infrared in one file
        grid="image",
        shown=(("image", 1), ("image", 2), ("image", 3)),
    ),
    quality=Quality(assets=("image",), judge=judge, reads="mask", measured=4),
    files=Files(access=(signed("naipeuwest"), Access(requester_pays=True, hosts=tuple(BUCKETS))), rewrite=rewrite),
    model=in_one_file(1.0, "image", {"red": 0.65, "green": 0.56, "blue": 0.48, "nir": 0.842}),
    typical=Typical(12500, 9600, quality_bytes=0, image_bytes=4),  # of real items at 0.6 m; most have no mask
    version="2",  # near infrared tagged as alpha is not a mask; before, its zeros were nodata
    same_without_nodata="1",
    licence="Public domain. Name the U.S. Department of Agriculture (NAIP) as the source.",
)
