"""MODIS surface reflectance, 8-day composites at 500 m, from the Planetary Computer: Terra, the first of each month.

Images are reprojected from the sinusoidal grid to EPSG:3857. Quality bits: MODIS Surface Reflectance User's Guide,
Collection 6.1, tables 10 (500 m QA) and 13 (state QA). https://planetarycomputer.microsoft.com/dataset/modis-09A1-061
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from math import cos, radians
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from clay_assets.platforms.base import (
    Assets,
    Derivation,
    Files,
    Mask,
    Options,
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
from clay_assets.platforms.processing import Processing, Processings, catalogued, stamp_of
from clay_assets.platforms.properties import Property, is_number, label_of
from clay_assets.platforms.request_table import month_bounds, request_table
from clay_assets.stac import Item, item_datetime

if TYPE_CHECKING:
    import geopandas as gpd

KEY = "modis"
BANDS = tuple(f"sur_refl_b{number:02d}" for number in (1, 2, 3, 4, 5, 6, 7))
QC, STATE = "sur_refl_qc_500m", "sur_refl_state_500m"
FILL, QC_FILL, STATE_FILL = -28672, 787410671, 65535
LOW_BITS = 0b11
STATE_CLOUDY, STATE_MIXED = 1, 2  # bits 0-1 of the state
QC_CLOUD, QC_NOT_PRODUCED = 2, 3  # bits 0-1 of the QC: not produced for clouds, for other reasons
ROWS, COLUMNS = 18, 36  # of the sinusoidal tile grid
# MOD09A1.A2022033.h19v10.061.2022042043514: satellite, tile, collection, production time
_PRODUCT = re.compile(r"(MOD|MYD)\w*\.A\d{7}\.h(\d\d)v(\d\d)\.(\d{3})(?:\.(\d{13}))?(?!\w)")
SATELLITES = {"MOD": "terra", "MYD": "aqua"}
TILE = ("modis:vertical-tile", "modis:horizontal-tile")
OTHER_SATELLITE, OTHER_TILE = "not Terra", "of another tile"
TOUCHING = 1e-9  # degrees; at 60° latitude the Earth's edge meets the corners of tiles


class ModisOptions(Options):
    """Recipe options of MODIS."""

    months: tuple[int, ...] = Field(default=tuple(range(1, 13)), min_length=1, description="months to search")
    # Near an equinox, when both hemispheres are lit.
    reference_date: date = Field(default=date(2023, 9, 22), description="tiles are tested on the composite of this day")
    reference_band: Literal[BANDS] = Field(  # type: ignore[valid-type]
        default=BANDS[0], description="and on this band, which must not have any nodata pixel"
    )
    tiles: Literal["computed", "published"] = Field(
        default="computed", description="sample the tiles without nodata, or `published_tiles`"
    )
    published_tiles: tuple[tuple[int, int], ...] = Field(
        default=(), description="[vertical, horizontal] of the tiles that a published set used"
    )
    imagery: Literal["derived"] = Field(default="derived", description="images are resampled into our storage")

    @model_validator(mode="after")
    def _months_and_tiles(self) -> ModisOptions:
        if set(self.months) - set(range(1, 13)) or len(set(self.months)) != len(self.months):
            raise ValueError(f"months {list(self.months)}: only 1 to 12, each once")
        outside = [tile_name(*tile) for tile in self.published_tiles if not on_earth(*tile)]
        if outside:
            raise ValueError(
                f"published_tiles {', '.join(outside)}: not on the Earth, whose tiles are in rows 0 to {ROWS - 1} and "
                f"columns 0 to {COLUMNS - 1} of the sinusoidal grid; write [vertical, horizontal]"
            )
        if len(set(self.published_tiles)) != len(self.published_tiles):
            raise ValueError("published_tiles: one is repeated")
        if self.tiles == "published" and not self.published_tiles:
            raise ValueError('tiles = "published": published_tiles is empty; list them there')
        return self


def tile_name(vertical: int, horizontal: int) -> str:
    """Name of a tile in product ids, such as `h19v10`."""
    return f"h{horizontal:02d}v{vertical:02d}"


def on_earth(vertical: int, horizontal: int) -> bool:
    """Whether a tile of the sinusoidal grid covers some of the Earth, and does not just touch its edge."""
    if not (0 <= vertical < ROWS and 0 <= horizontal < COLUMNS):
        return False
    # The Earth is widest at the side nearest to the equator: 180° × cos(latitude) each way, on a grid of 10°.
    latitude = min(abs(90 - 10 * vertical), abs(80 - 10 * vertical))
    nearest = min(abs(10 * horizontal - 180), abs(10 * horizontal - 170))
    return nearest < 180 * cos(radians(latitude)) - TOUCHING


def tile_filter(vertical: int, horizontal: int) -> dict[str, int]:
    """The property filter for the items of a tile."""
    return dict(zip(TILE, (vertical, horizontal), strict=True))


def requests(sample: gpd.GeoDataFrame, options: ModisOptions, seed: int) -> gpd.GeoDataFrame:
    """One request per tile, year and month."""
    first, last = options.years
    return request_table(
        KEY,
        [
            Request(
                f"{tile.name}-{year}-M{month:02d}",
                tile.name,
                f"M{month:02d}",
                *month_bounds(year, month),
                tile.geometry,
                (tile_filter(int(tile.vertical), int(tile.horizontal)),),
            )
            for tile in sample.itertuples(index=False)
            for year in range(first, last + 1)
            for month in sorted(options.months)
        ],
    )


def satellite_of(item: Item) -> str | None:
    """`terra` or `aqua`, by the item's label, or by its id if there is no label: the Planetary Computer's items have
    none from day 2024065 on.

    https://github.com/microsoft/PlanetaryComputer/issues/380
    """
    return label_of(item["properties"], "platform").lower() or _satellite_of_id(item["id"])


def _satellite_of_id(item_id: str) -> str | None:
    product = _PRODUCT.match(item_id)
    return SATELLITES[product[1]] if product else None


def tile_of(item: Item) -> dict[str, int]:
    """The tile of an item in the form of `tile_filter`, by its properties, or else by its id; empty if unknown."""
    vertical, horizontal = (item["properties"].get(name) for name in TILE)
    return _tile(vertical, horizontal, item["id"])


def _tile(vertical: Any, horizontal: Any, item_id: str) -> dict[str, int]:
    if is_number(vertical) and is_number(horizontal):
        return tile_filter(int(vertical), int(horizontal))
    product = _PRODUCT.match(item_id)
    return tile_filter(int(product[3]), int(product[2])) if product else {}


def refuse(item: Item, request: Request, options: ModisOptions) -> str | None:
    """Refuse Aqua, which is in the same collection, and neighbouring tiles, which touch this one."""
    if satellite_of(item) != "terra":
        return OTHER_SATELLITE
    return None if _is_asked(tile_of(item), request.filters) else OTHER_TILE


def _is_asked(tile: Mapping[str, int], filters: Sequence[Mapping[str, Any]]) -> bool:
    return any(wanted.items() <= tile.items() for wanted in filters or ({},))


def refuse_columns(candidates: Candidates, options: ModisOptions) -> list[Refusal]:
    """`refuse` over columns."""
    satellites = otherwise(each(str.lower, candidates.texts("platform")), "", _satellite_of_id, candidates.ids)
    columns = (*(candidates.numbers(name) for name in TILE), candidates.ids, candidates.numbers_of_requests)
    other = each(
        lambda v, h, name, number: not _is_asked(_tile(v, h, name), candidates.asked[number].filters), *columns
    )
    return [(satellites != "terra", OTHER_SATELLITE), (other.astype(bool), OTHER_TILE)]


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """By time, which is the start of the composite, then by id."""
    return item_datetime(item), item["id"]


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return [candidates.times]


def processing(item: Item) -> Processing | None:
    """For one satellite, tile and composite the highest collection is the newest, then the last production time."""
    satellite, tile = satellite_of(item), tile_of(item)
    if satellite is None or not tile:
        return None
    product = _PRODUCT.match(item["id"])
    created, updated = catalogued(item)  # NASA's time of production is what the Planetary Computer calls created
    made = stamp_of(product[5], "%Y%j%H%M%S") if product else None
    return Processing(
        (satellite, *tile.values(), item_datetime(item).date()),
        None,
        (int(product[4]) if product else None, created if made is None else made, updated),
    )


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """Cloud by the state (cloudy or mixed), or by the QC if the state has no value; nodata by QC and fill value.

    Red is int16, the QC uint32, the state uint16; an item may lack the state.
    """
    import numpy as np

    qc = pixels[QC] & LOW_BITS
    state = pixels.get(STATE)
    cloud = qc == QC_CLOUD
    if state is not None:
        by_state = np.isin(state & LOW_BITS, (STATE_CLOUDY, STATE_MIXED))
        cloud = np.where(state == STATE_FILL, cloud, by_state)
    return cloud, (qc == QC_NOT_PRODUCED) | (pixels[BANDS[0]] == FILL)


PLATFORM = Platform(
    key=KEY,
    title="MODIS 09A1",
    scenes=SceneSource(catalogue="stac_planetary_computer", collection="modis-09A1-061", sample="modis_sample"),
    rules=Rules(
        options=ModisOptions,
        requests=requests,
        refuse=refuse,
        rank=rank,
        properties=(
            Property("platform", str),
            *(Property(name, int) for name in TILE),
        ),
        # Composites of one day are one acquisition.
        processings=Processings(processing, ("created", "updated"), apart=timedelta(days=1)),
        columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank, processing)),
    ),
    assets=Assets(
        bands=BANDS,
        grid=BANDS[0],
        optional=(STATE,),
        shown=((BANDS[0], 1), (BANDS[3], 1), (BANDS[2], 1)),  # red, green, blue
    ),
    quality=Quality(assets=(STATE, QC, BANDS[0]), judge=judge),
    files=Files(
        access=(signed("modiseuwest"),),
        derivation=Derivation(crs="EPSG:3857", fill={**dict.fromkeys(BANDS, FILL), QC: QC_FILL, STATE: STATE_FILL}),
    ),
    model=one_file_each(500, dict(zip(BANDS, (0.645, 0.858, 0.469, 0.555, 1.24, 1.64, 2.13), strict=True))),
    # A tile in EPSG:3857 keeps about its 2,400² pixels; int16 bands, uint32 QC, uint16 state.
    typical=Typical(2400, 2400, quality_bytes=8, image_bytes=20, derived_bytes=20),
    licence="Public domain. Name NASA LP DAAC and MOD09A1 version 6.1, doi:10.5067/MODIS/MOD09A1.061.",
)
