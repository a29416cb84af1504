"""The expected scene of each request, derived item by item in plain Python from the rules as documented.

Independent of the pipeline: it uses none of its searching, filtering or ranking.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from clay_assets.stac import Item
from clay_assets_tests.scenes.items import LANDSAT_ASSETS, SENTINEL_2, SENTINEL_2_ASSETS

MONTHS = {"Q1": (1, 2, 3), "Q2": (4, 5, 6), "Q3": (7, 8, 9), "Q4": (10, 11, 12)}
OLD_NAMES = {"QA_PIXEL.TIF": "qa_pixel"} | {
    f"SR_B{number}.TIF": name
    for number, name in {2: "blue", 3: "green", 4: "red", 5: "nir08", 6: "swir16", 7: "swir22"}.items()
}


@dataclass(frozen=True)
class Known:
    """An item, with the values that are used repeatedly."""

    item: Item
    shape: BaseGeometry
    moment: datetime

    @classmethod
    def of(cls, item: Item) -> Known:
        text = item["properties"]["datetime"]
        moment = datetime.fromisoformat(text)
        shape = shapely.from_geojson(json.dumps(item["geometry"]))
        if shape.bounds[2] - shape.bounds[0] > 180:  # across the antimeridian: shift to longitudes above 180
            shape = shapely.transform(shape, lambda xy: xy + 360 * (xy[:, :1] < 0) * [[1, 0]])
        return cls(
            item,
            shape,
            moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC),
        )

    def touches(self, place: BaseGeometry) -> bool:
        return any(self.shape.intersects(translate(place, turn)) for turn in (0, 360))

    @property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self.item["properties"]
        return found

    @property
    def nodata(self) -> float | None:
        return self.properties.get(
            "s2:nodata_pixel_percentage", self.properties.get("sentinel2:nodata_pixel_percentage")
        )


def missing(known: Known, names: Iterable[str]) -> str | None:
    there = {OLD_NAMES.get(name, name) for name in known.item["assets"]}
    absent = [name for name in names if name not in there]
    return f"without asset {', '.join(absent)}" if absent else None


def cloud(known: Known) -> str | None:
    cover = known.properties.get("eo:cloud_cover")
    if cover is None:
        return "cloud cover unknown"
    if cover < 0:
        return "cloud cover below 0 (not assessed)"
    return "cloud cover above 75 %" if cover > 75 else None


def sentinel_2_reason(known: Known) -> str | None:
    if known.nodata is None:
        return missing(known, SENTINEL_2_ASSETS) or "nodata share unknown"
    return missing(known, SENTINEL_2_ASSETS) or ("nodata above 20 %" if known.nodata > 20 else None) or cloud(known)


def landsat_reason(known: Known) -> str | None:
    said = known.properties
    if absent := missing(known, LANDSAT_ASSETS):
        return absent
    if said.get("platform", said.get("eo:platform")) not in ("LANDSAT_8", "LANDSAT_9"):
        return "not Landsat 8 or 9"
    sun: Any = said.get("view:sun_elevation", said.get("eo:sun_elevation"))
    if sun < 0:
        return "sun below 0°"
    return cloud(known)


def older(offered: list[Known]) -> set[int]:
    """The items, by `id()`, of which a later processing exists: same tile, spacecraft and time."""

    def acquisition(one: Known) -> tuple[Any, ...]:
        return one.item["id"].split("_")[:2], one.moment.replace(microsecond=0)

    def processing(one: Known) -> tuple[Any, ...]:
        return float(one.properties.get("s2:processing_baseline", 0)), one.item["id"].split("_")[3]

    return {
        id(one)
        for one in offered
        for other in offered
        if acquisition(one) == acquisition(other) and processing(one) < processing(other)
    }


def expected(
    platform: str, items: list[Item], tiles: dict[str, BaseGeometry], requests: Iterable[tuple[str, int, str]]
) -> pd.DataFrame:
    """One row per request (tile, year, quarter), with the ledger columns that depend on the items."""
    known = [Known.of(item) for item in items]
    points = {name: tile.representative_point() for name, tile in tiles.items()}
    rows = []
    for tile, year, period in requests:
        spelt = {f"MGRS-{tile}", f"MGRS-{tile.lstrip('0')}"}
        offered = [
            one
            for one in known
            if one.moment.year == year
            and one.moment.month in MONTHS[period]
            and (
                one.properties.get("grid:code") in spelt and one.touches(tiles[tile])
                if platform == SENTINEL_2
                else one.touches(points[tile])
            )
        ]
        reason = sentinel_2_reason if platform == SENTINEL_2 else landsat_reason
        old = (
            older([one for one in offered if not missing(one, SENTINEL_2_ASSETS)]) if platform == SENTINEL_2 else set()
        )
        reasons = [
            (one, "older processing of the same acquisition" if id(one) in old else reason(one)) for one in offered
        ]
        refused = Counter(said for _, said in reasons if said)
        taken = [one for one, said in reasons if said is None]
        best = min(taken, key=lambda one: _order(platform, one), default=None)
        counted = sorted(refused.items(), key=lambda pair: (-pair[1], pair[0]))
        why = "; ".join(f"{count} × {said}" for said, count in counted) or "no item in the catalogue"
        rows.append(
            {
                "request_id": f"{tile}-{year}-{period}",
                "platform": platform,
                "location": tile,
                "year": year,
                "period": period,
                "outcome": "picked" if best else "none",
                "reason": None if best else why,
                "candidates": len(offered),
                "rejected": json.dumps(dict(sorted(refused.items())), ensure_ascii=False),
                "item_id": best.item["id"] if best else None,
                "cloud_cover": best.properties["eo:cloud_cover"] if best else None,
            }
        )
    return pd.DataFrame(rows).sort_values("request_id", ignore_index=True)


def _order(platform: str, one: Known) -> tuple[Any, ...]:
    first: tuple[Any, ...] = (one.properties["eo:cloud_cover"],)
    if platform == SENTINEL_2:
        first = (*first, one.nodata)
    return (*first, one.moment, one.item["id"])


def plain(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """A ledger's rows without column types, for comparison."""
    return [
        {str(name): None if value is pd.NA or value != value else value for name, value in row.items()}
        for row in ledger.to_dict("records")
    ]
