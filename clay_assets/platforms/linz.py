"""Aerial imagery of New Zealand, by Land Information New Zealand: random sheets of the latest surveys.

The sample is drawn from the static STAC catalogue of the bucket nz-imagery and holds the items themselves, so that each
sheet is a request for its own item. https://github.com/linz/imagery
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from clay_assets.draws import keyed_hash
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
from clay_assets.platforms.column_rules import Candidates, Column, ColumnRules, Refusal
from clay_assets.platforms.model import in_one_file
from clay_assets.platforms.request_table import request_table, year_bounds
from clay_assets.stac import Item
from clay_assets.transport.access import Access

if TYPE_CHECKING:
    import geopandas as gpd

KEY = "linz"
OTHER_SHEET = "another sheet"
SURVEY = r"^[a-z0-9-]+/[A-Za-z0-9_.-]+$"


class LinzOptions(Options):
    """Recipe options of LINZ."""

    years: tuple[int, int] = Field(default=(2010, 2024), description="first and last year of the sheets")
    surveys: Literal["latest"] | tuple[Annotated[str, StringConstraints(pattern=SURVEY)], ...] = Field(
        default="latest", description="the latest survey of each region, or a list of `region/survey`"
    )
    share: float = Field(default=0.5, gt=0, le=1, description="share of a collection's sheets to draw")
    min_scenes: int = Field(default=10, ge=1, strict=True, description="minimum number of sheets, or all if fewer")
    max_scenes: int = Field(default=2000, ge=1, strict=True, description="maximum number of sheets")
    gsd: float = Field(
        default=0.3, gt=0, allow_inf_nan=False, description="pixel size that images are resampled to, metres"
    )
    imagery: Literal["derived"] = Field(default="derived", description="images are resampled into our storage")

    @model_validator(mode="after")
    def _least_is_not_above_most(self) -> LinzOptions:
        if self.min_scenes > self.max_scenes:
            raise ValueError(f"min_scenes {self.min_scenes} is more than max_scenes {self.max_scenes}")
        if not self.surveys:
            raise ValueError('surveys: empty list; name some as region/survey, or write "latest"')
        if isinstance(self.surveys, tuple) and len(set(self.surveys)) != len(self.surveys):
            raise ValueError("surveys: one is repeated")
        return self


def requests(sample: gpd.GeoDataFrame, options: LinzOptions, seed: int) -> gpd.GeoDataFrame:
    """One request per drawn sheet, in the year of its item."""
    years = sample["datetime"].fillna(sample["start_datetime"]) if "start_datetime" in sample else sample["datetime"]
    return request_table(
        KEY,
        [
            Request(
                id=name,
                location=name,
                period="survey",
                start=year_bounds(moment.year)[0],
                end=year_bounds(moment.year)[1],
                geometry=polygon.representative_point(),
                draw=keyed_hash(seed, KEY, name),
            )
            for name, polygon, moment in zip(sample["id"], sample.geometry, years, strict=True)
            if options.years[0] <= moment.year <= options.years[1]
        ],
    )


def refuse(item: Item, request: Request, options: LinzOptions) -> str | None:
    """Refuse sheets of other surveys at the same location."""
    return None if item["id"] == request.location else OTHER_SHEET


def refuse_columns(candidates: Candidates, options: LinzOptions) -> list[Refusal]:
    """`refuse` over columns."""
    return [(candidates.ids != candidates.of_request(lambda request: request.location), OTHER_SHEET)]


def rank(item: Item, request: Request) -> tuple[Any, ...]:
    """By id; there is only one item."""
    return (item["id"],)


def rank_columns(candidates: Candidates) -> list[Column]:
    """`rank` over columns."""
    return []


def judge(pixels: Pixels) -> tuple[Mask, Mask]:
    """No cloud; nodata by the mask of the derived image, which comes from alpha, or else from black pixels."""
    import numpy as np

    mask = pixels["visual"]
    return np.zeros(mask.shape, np.bool_), mask == 0


PLATFORM = Platform(
    key=KEY,
    title="LINZ",
    scenes=SceneSource(
        catalogue="linz_catalog",
        collection=None,  # each survey is a collection
        sample="linz_sample",
        sample_has_items=True,
    ),
    rules=Rules(
        options=LinzOptions,
        requests=requests,
        refuse=refuse,
        rank=rank,
        columns=ColumnRules(refuse_columns, rank_columns, (refuse, rank)),
    ),
    assets=Assets(
        bands=("visual",),  # red, green and blue in one file
        grid="visual",
        shown=(("visual", 1), ("visual", 2), ("visual", 3)),
    ),
    quality=Quality(assets=("visual",), judge=judge, reads="mask"),
    files=Files(
        access=(Access(unsigned=True, hosts=("nz-imagery",)),),
        derivation=Derivation(gsd=lambda options: float(options.gsd), resampling="bilinear", bands=3, masked=True),
    ),
    model=in_one_file(0.5, "visual", {"red": 0.635, "green": 0.555, "blue": 0.465}),
    # A sheet of the 1:1,000 series, 480 m × 720 m, at 0.3 m; one bit of mask; RGBA at 0.1 m before, RGB after.
    typical=Typical(2400, 1600, quality_bytes=1 / 8, image_bytes=36, derived_bytes=3),
    licence="CC BY 4.0. Name the owner of each survey: the provider with the role licensor in its STAC collection.",
)
