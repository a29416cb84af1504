"""Shared by the two Landsat platforms: Landsat 8 and 9, Collection 2, from the USGS STAC server.

QA_PIXEL bits: Landsat 8-9 Collection 2 Level 2 Science Product Guide, LSDS-1619, table 6-3. Which of them count as
cloud follows stacchip's LandsatIndexer, so that the numbers stay comparable.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

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
from clay_assets.platforms.column_rules import Candidates, Column, ColumnRules, Refusal, each, otherwise, unknown
from clay_assets.platforms.model import one_file_each
from clay_assets.platforms.processing import Processing, Processings, catalogued, stamp_of
from clay_assets.platforms.properties import Property, label_of
from clay_assets.platforms.quarters import CloudOptions, cloud_refusal, cloud_refusals, number, quarterly_requests
from clay_assets.stac import Item, item_datetime
from clay_assets.transport.access import Access

if TYPE_CHECKING:
    import geopandas as gpd
    from shapely.geometry.base import BaseGeometry

QA_FILL = 1 << 0
QA_CLOUD = (1 << 1) | (1 << 3) | (1 << 4)  # dilated cloud, cloud, cloud shadow
SPACECRAFT = ("LANDSAT_8", "LANDSAT_9")
# LC08_L2SP_047027_20201204_20210313_02_T1_SR: sensor and spacecraft, correction, path and row, date, date of
# processing, collection, tier
_PRODUCT = re.compile(r"L[A-Z](\d\d)_L\w{3}_(\d{6})_(\d{8})_(\d{8})_(\d\d)_(RT|T1|T2)(?![A-Z0-9])")
_SCENE = re.compile(r"L[A-Z](\d)(\d{6})(\d{7})")  # LC80470272020339LGN00: spacecraft, path and row, year and day
TIERS = {"RT": 0, "T2": 1, "T1": 2}  # real-time products are replaced by those of the tiers
LABELS = ("platform", "eo:platform")
OTHER_SPACECRAFT, SUN_UNKNOWN = "not Landsat 8 or 9", "sun elevation unknown"
SUN_ELEVATION = ("view:sun_elevation", "eo:sun_elevation")  # STAC 1.0, STAC 0.7
BANDS = ("red", "green", "blue", "nir08", "swir16", "swir22")

# Asset names of the server's items before STAC 1.0.
ALIASES = {
    "QA_PIXEL.TIF": "qa_pixel",
    **{
        f"{product}B{number}.TIF": name
        for product in ("SR_", "")
        for number, name in enumerate(("blue", "green", "red", "nir08", "swir16", "swir22"), start=2)
    },
}


class LandsatOptions(CloudOptions):
    """Recipe options of a Landsat level."""

    max_chip_nodata: float = Field(default=0.0, ge=0, le=1, description="chips with a larger nodata share are dropped")
    min_sun_elevation: float = Field(default=0, ge=-90, le=90, description="minimum sun elevation, degrees")


def search_point(tile: BaseGeometry) -> BaseGeometry:
    """A point inside the tile, even if the tile is in two parts at ±180."""
    return tile.representative_point()


def spacecraft_of(item: Item) -> str | None:
    """The spacecraft, such as `LANDSAT_8`, by the item's label, or by its id if there is no label."""
    return _by_label(label_of(item["properties"], *LABELS)) or _by_id(item["id"])


def _by_label(label: str) -> str | None:
    return label.upper().replace("-", "_") or None


def _by_id(item_id: str) -> str | None:
    product = _PRODUCT.match(item_id)
    return f"LANDSAT_{int(product[1])}" if product else None


def refuse(item: Item, request: Request, options: LandsatOptions) -> str | None:
    """Refuse other spacecraft, night scenes, and scenes that are too cloudy or have no cloud cover."""
    if spacecraft_of(item) not in SPACECRAFT:
        return OTHER_SPACECRAFT
    elevation = number(item, *SUN_ELEVATION)
    if elevation is None:
        return SUN_UNKNOWN
    return _too_dark(options) if elevation < options.min_sun_elevation else cloud_refusal(item, options)


def refuse_columns(candidates: Candidates, options: LandsatOptions) -> list[Refusal]:
    """`refuse` over columns."""
    spacecraft = otherwise(each(_by_label, candidates.texts(*LABELS)), None, _by_id, candidates.ids)
    elevation = candidates.numbers(*SUN_ELEVATION)
    return [
        (each(lambda one: one not in SPACECRAFT, spacecraft).astype(bool), OTHER_SPACECRAFT),
        (unknown(elevation), SUN_UNKNOWN),
        (elevation < options.min_sun_elevation, _too_dark(options)),
        *cloud_refusals(candidates, options),
    ]


def _too_dark(options: LandsatOptions) -> str:
    return f"sun below {options.min_sun_elevation:g}°"


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """Least cloud first, then earliest, then by id."""
    return number(item, "eo:cloud_cover"), item_datetime(item), item["id"]


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return [candidates.numbers("eo:cloud_cover"), candidates.times]


def acquisition(item_id: str) -> tuple[int, str, float | None] | None:
    """Spacecraft, path and row, and day from a product id; None for other ids."""
    product = _PRODUCT.match(item_id)
    return (int(product[1]), product[2], stamp_of(product[3], "%Y%m%d")) if product else None


def processing(item: Item) -> Processing | None:
    """For one spacecraft, path, row and day, real-time products are the oldest; else the processing date decides.

    Items without a product id are identified by `landsat:scene_id`, and ordered by `created` and `updated`.
    """
    product = _PRODUCT.match(item["id"])
    if product:
        day = stamp_of(product[3], "%Y%m%d")
        made: tuple[float | int | None, ...] = (
            int(product[5]),
            int(TIERS[product[6]] > TIERS["RT"]),
            stamp_of(product[4], "%Y%m%d"),
            TIERS[product[6]],
        )
        return Processing((int(product[1]), product[2], day), None, (*made, *catalogued(item)))
    scene = _SCENE.match(label_of(item["properties"], "landsat:scene_id"))
    if scene is None:
        return None
    return Processing(
        (int(scene[1]), scene[2], stamp_of(scene[3], "%Y%j")), None, (None, None, None, None, *catalogued(item))
    )


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """Cloud and nodata masks from QA_PIXEL, uint16.

    Cloud is bit 1 (dilated cloud), 3 (cloud) or 4 (cloud shadow); nodata is bit 0 (fill).
    """
    import numpy as np

    qa = pixels["qa_pixel"]
    return (qa & QA_CLOUD).astype(np.bool_), (qa & QA_FILL).astype(np.bool_)


def landsat(key: str, title: str) -> Platform[LandsatOptions]:
    """The platform of a processing level; `key` is also its collection id."""

    def requests(sample: gpd.GeoDataFrame, options: LandsatOptions, seed: int) -> gpd.GeoDataFrame:
        """One request per tile, drawn year and quarter, at a point in the tile."""
        return quarterly_requests(key, sample, options, seed, search_geometry=search_point)

    return Platform(
        key=key,
        title=title,
        scenes=SceneSource(catalogue="stac_usgs", collection=key, sample="mgrs_sample"),
        rules=Rules(
            options=LandsatOptions,
            requests=requests,
            refuse=refuse,
            rank=rank,
            properties=(
                Property("eo:cloud_cover", float),
                Property(LABELS, str),
                Property(SUN_ELEVATION, float),
            ),
            processings=Processings(processing, ("landsat:scene_id", "created", "updated"), acquisition=acquisition),
            columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank, processing)),
        ),
        assets=Assets(bands=BANDS, grid="qa_pixel", aliases=ALIASES, shown=(("red", 1), ("green", 1), ("blue", 1))),
        quality=Quality(assets=("qa_pixel",), judge=judge),
        files=Files(access=(Access(requester_pays=True, hosts=("usgs-landsat",)),), alternate="s3"),
        model=one_file_each(30, dict(zip(BANDS, (0.65, 0.56, 0.48, 0.86, 1.6, 2.2), strict=True))),
        typical=Typical(7800, 7700, quality_bytes=2, image_bytes=14),  # of real items of the USGS server; uint16
        licence="Public domain. Name the U.S. Geological Survey as the source.",
    )
