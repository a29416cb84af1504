"""The map of the splits: which block of the ground is for training, validation and test."""

from __future__ import annotations

import numpy as np
import shapely

from clay_assets.chips.splits import NO_LAND_COVER, SPLITS, SplitPlan
from clay_assets.pictures import style
from clay_assets.pictures.maps import HEIGHT, LEFT, TOP, coast, map_panel, shapes

COLOURS = {"train": "#bcd7ea", "validate": style.ORANGE, "test": style.VERMILION}


def split_map(plan: SplitPlan, title: str) -> bytes:
    """Where the blocks of each split lie, and how much of the land each has.

    Blocks of one split run into each other. The whole world is shown, sea and land.
    """
    figure = style.new_figure(title, TOP + HEIGHT + 62)
    corners = np.array([-180.0, 180.0]), np.array([-90.0, 90.0])
    axes = map_panel(figure, *corners)
    west, south, east, north = plan.grid.bounds().T
    for code, name in enumerate(SPLITS):
        here = plan.codes == code
        if here.any():
            blocks = shapely.union_all(shapely.box(west, south, east, north)[here])
            shapes(axes, np.array([blocks]), COLOURS[name], COLOURS[name])
    coast(axes)
    land = dict.fromkeys(SPLITS, 0)
    for block in plan.blocks:
        if block["stratum"] != NO_LAND_COVER:
            land[block["split"]] += block["land_km2"]
    whole = max(1, sum(land.values()))
    shown = {f"{name} ({100 * land[name] / whole:.1f} % of the land)": COLOURS[name] for name in SPLITS}
    style.legend(figure, TOP + HEIGHT + 34, shown, LEFT)
    return style.png(figure)
