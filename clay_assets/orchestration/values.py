"""The types of assets' values, by name only.

Dagster evaluates an asset's annotations when definitions load, and no geometry library should be imported by then;
so these are the real types for a type checker, and `Any` when the code runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clay_assets.platforms.base import Item

if TYPE_CHECKING:
    import geopandas as gpd

    from clay_assets.chips.scenes import ChipCell

    Tiles = gpd.GeoDataFrame
    Requests = gpd.GeoDataFrame
    Chips = ChipCell
else:
    Tiles = Requests = Chips = Any

Items = list[Item]

__all__ = ["Chips", "Items", "Requests", "Tiles"]
