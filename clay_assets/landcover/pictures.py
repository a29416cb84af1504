"""The picture of `worldcover_stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clay_assets.pictures import style
from clay_assets.pictures.maps import CROWDED, map_of_kinds

if TYPE_CHECKING:
    import geopandas as gpd


def land_cover_map(stats: gpd.GeoDataFrame) -> bytes:
    """Map of the tiles, each in the colour of its largest class."""
    classes = list(style.CLASS_COLOURS)
    largest = np.array(classes, dtype=object)[stats[classes].fillna(0).to_numpy().argmax(axis=1)]
    title = f"Largest land-cover class of {len(stats):,} tiles"
    return map_of_kinds(stats, largest, style.CLASS_COLOURS, title, whole=len(stats) > CROWDED)
