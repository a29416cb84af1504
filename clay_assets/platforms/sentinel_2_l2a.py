"""Sentinel-2 Level-2A from Earth Search v1: the least cloudy scene of each quarter, at the sampled MGRS tiles.

Scene classification codes: Sentinel-2 Level-2A Algorithm Theoretical Basis Document, table of SCL classes. Which of
them count as cloud follows stacchip's Sentinel2Indexer, so that the numbers stay comparable.
"""

from __future__ import annotations

import re
from functools import cache
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
from clay_assets.platforms.processing import SAME_MOMENT, Processing, Processings, catalogued, stamp_of, time_of
from clay_assets.platforms.properties import Property, label_of
from clay_assets.platforms.quarters import CloudOptions, cloud_refusal, cloud_refusals, number, quarterly_requests
from clay_assets.platforms.sentinel_2_radiometry import (
    BASELINE,
    DATATAKE,
    PRODUCT,
    RADIOMETRY,
    VERSION,
    product_of,
    stated_baselines,
)
from clay_assets.stac import Item, item_datetime
from clay_assets.transport.access import Access

if TYPE_CHECKING:
    import geopandas as gpd

KEY = "sentinel-2-l2a"
SCL_NODATA = 0
SCL_CLOUD = (1, 3, 8, 9, 10)  # saturated or defective, cloud shadow, cloud medium, cloud high, thin cirrus
SCL_CODES = 256
STAMP = "%Y%m%dT%H%M%S"  # time in a product id
NODATA_SHARE = (
    "s2:nodata_pixel_percentage",
    "sentinel2:nodata_pixel_percentage",
)  # new name, name until 2022
OTHER_TILE, NODATA_UNKNOWN = "of another tile", "nodata share unknown"
# µm, by band in the model's order.
WAVELENGTHS = {
    **{"blue": 0.493, "green": 0.56, "red": 0.665, "rededge1": 0.704, "rededge2": 0.74, "rededge3": 0.783},
    **{"nir": 0.842, "nir08": 0.865, "swir16": 1.61, "swir22": 2.19},
}

_TILE_IN_ID = re.compile(r"(?:^S2[A-D]_T?|_T)(\d{1,2}[C-X][A-Z]{2})_")
_SPACECRAFT = re.compile(r"(?:sentinel[-_ ]?|S)(2[A-D])(?![^_])", re.IGNORECASE)  # of a label, or at the start of an id
_SEQUENCE_IN_ID = re.compile(r"_(\d+)_L2A$")


class Sentinel2Options(CloudOptions):
    """Recipe options of Sentinel-2."""

    years_per_location: int = Field(default=2, ge=1, description="random years drawn for each tile")
    max_scene_nodata: float = Field(default=20, ge=0, le=100, description="maximum nodata share of a scene, percent")


def requests(sample: gpd.GeoDataFrame, options: Sentinel2Options, seed: int) -> gpd.GeoDataFrame:
    """One request per tile, drawn year and quarter."""
    return quarterly_requests(KEY, sample, options, seed, filters=grid_codes)


def grid_codes(tile: str) -> list[dict[str, str]]:
    """The spellings of a tile's `grid:code`: zones 1 to 9 occur with and without the leading zero."""
    codes = dict.fromkeys((f"MGRS-{tile.zfill(5)}", f"MGRS-{tile.lstrip('0')}"))
    return [{"grid:code": code} for code in codes]


def tile_of(item: Item) -> str | None:
    """The MGRS tile of an item, five characters, from `grid:code` or else from its id."""
    return _tile_of_code(label_of(item["properties"], "grid:code")) or _tile_of_id(item["id"])


def _tile_of_code(code: str) -> str | None:
    code = code.removeprefix("MGRS-")
    return code.zfill(5) if code else None


def _tile_of_id(item_id: str) -> str | None:
    match = _TILE_IN_ID.search(item_id)
    return match.group(1).zfill(5) if match else None


def refuse(item: Item, request: Request, options: Sentinel2Options) -> str | None:
    """Refuse scenes of other tiles, with too much cloud, or with too much nodata."""
    if tile_of(item) != request.location.zfill(5):
        return OTHER_TILE
    nodata = number(item, *NODATA_SHARE)
    if nodata is None:
        return NODATA_UNKNOWN
    return _too_empty(options) if nodata > options.max_scene_nodata else cloud_refusal(item, options)


def refuse_columns(candidates: Candidates, options: Sentinel2Options) -> list[Refusal]:
    """`refuse` over columns."""
    tiles = otherwise(each(_tile_of_code, candidates.texts("grid:code")), None, _tile_of_id, candidates.ids)
    nodata = candidates.numbers(*NODATA_SHARE)
    return [
        (tiles != candidates.of_request(lambda request: request.location.zfill(5)), OTHER_TILE),
        (unknown(nodata), NODATA_UNKNOWN),
        (nodata > options.max_scene_nodata, _too_empty(options)),
        *cloud_refusals(candidates, options),
    ]


def _too_empty(options: Sentinel2Options) -> str:
    return f"nodata above {options.max_scene_nodata:g} %"


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """Least cloud first, then least nodata, then earliest, then by id."""
    cover, nodata = number(item, "eo:cloud_cover"), number(item, *NODATA_SHARE)
    return cover, nodata, item_datetime(item), item["id"]


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return [candidates.numbers("eo:cloud_cover"), candidates.numbers(*NODATA_SHARE), candidates.times]


def processing(item: Item) -> Processing | None:
    """For one spacecraft, tile and sensing time the highest baseline is the newest, then the last production time.

    Two datastrips of a tile are sensed seconds apart, and so are two acquisitions.
    """
    properties = item["properties"]
    spacecraft = _SPACECRAFT.match(label_of(properties, "platform")) or _SPACECRAFT.match(item["id"])
    tile = tile_of(item)
    if spacecraft is None or tile is None:
        return None
    product = product_of(item)
    sequence = _SEQUENCE_IN_ID.search(item["id"])
    return Processing(
        (spacecraft[1].upper(), tile),
        item_datetime(item),
        (
            next((version for _, version in stated_baselines(item)), None),
            time_of(properties.get("s2:generation_time")) or (stamp_of(product[2], STAMP) if product else None),
            *catalogued(item),
            int(sequence[1]) if sequence else None,
        ),
    )


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """Cloud and nodata masks from the scene classification layer, uint8.

    Cloud is 1 (saturated or defective), 3 (cloud shadow), 8 and 9 (cloud, medium and high) and 10 (thin cirrus); nodata
    is 0.
    """
    scl = pixels["scl"]
    return _is_cloud().take(scl), scl == SCL_NODATA


@cache
def _is_cloud() -> Mask:
    """Mask of the codes that count as cloud."""
    import numpy as np

    return np.isin(np.arange(SCL_CODES), SCL_CLOUD)


PLATFORM = Platform(
    key=KEY,
    title="Sentinel-2 L2A",
    scenes=SceneSource(catalogue="stac_earth_search", collection="sentinel-2-l2a", sample="mgrs_sample"),
    rules=Rules(
        options=Sentinel2Options,
        requests=requests,
        refuse=refuse,
        rank=rank,
        properties=(
            Property("eo:cloud_cover", float),
            Property("grid:code", str),
            Property(NODATA_SHARE, float),
        ),
        processings=Processings(
            processing,
            ("platform", *BASELINE, *PRODUCT, DATATAKE, VERSION, "s2:generation_time", "created", "updated"),
            apart=SAME_MOMENT,
        ),
        columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank, processing)),
    ),
    assets=Assets(
        bands=tuple(WAVELENGTHS),
        grid="red",
        shown=(("red", 1), ("green", 1), ("blue", 1)),
    ),
    quality=Quality(assets=("scl",), judge=judge),
    files=Files(access=(Access(unsigned=True, hosts=("sentinel-cogs",)),)),
    # 109.8 km at 10 m; SCL uint8 at 20 m; four bands uint16 at 10 m, six at 20 m.
    typical=Typical(10980, 10980, quality_bytes=0.25, image_bytes=11.25),
    radiometry=RADIOMETRY,
    model=one_file_each(10, WAVELENGTHS),
    licence="Free and open under the Copernicus terms. Credit “Contains modified Copernicus Sentinel data [year]”.",
)
