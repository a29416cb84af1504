"""The map of the splits: which blocks are for training, validation and test."""

from __future__ import annotations

import numpy as np
import shapely

from clay_assets.chips.blocks import NO_LAND_COVER
from clay_assets.chips.splits import SPLITS, SplitPlan
from clay_assets.pictures import style
from clay_assets.pictures.maps import HEIGHT, LEFT, TOP, coast, map_panel, shapes

COLOURS = {"train": "#9ecae1", "validate": style.ORANGE, "test": style.VERMILION}
PALE = {"train": "#eaf3f9", "validate": "#f7e3bd", "test": "#f3cfb8"}  # without land cover, such as at sea


def split_map(plan: SplitPlan, title: str) -> bytes:
    """Map of the blocks of each split, with the split's share of the land.

    Neighbouring blocks of a split merge. Blocks without land cover are pale.
    """
    figure = style.new_figure(title, TOP + HEIGHT + 62)
    corners = np.array([-180.0, 180.0]), np.array([-90.0, 90.0])
    axes = map_panel(figure, *corners)
    cells = shapely.box(*plan.ground.grid.bounds().T)
    covered = np.array([block["stratum"] != NO_LAND_COVER for block in plan.blocks])
    on_land = covered[plan.block]
    for code, name in enumerate(SPLITS):
        for colour, here in ((PALE[name], ~on_land), (COLOURS[name], on_land)):
            blocks = cells[here & (plan.ground.codes == code)]
            if len(blocks):
                shapes(axes, np.array([shapely.union_all(blocks)]), colour, colour)
    coast(axes)
    land = dict.fromkeys(SPLITS, 0)
    for block, known in zip(plan.blocks, covered, strict=True):
        land[block["split"]] += block["land_km2"] if known else 0
    whole = max(1, sum(land.values()))
    shown = {f"{name} ({100 * land[name] / whole:.1f} % of the land)": COLOURS[name] for name in SPLITS}
    shown["pale: no land cover"] = PALE["test"]
    style.legend(figure, TOP + HEIGHT + 34, shown, LEFT)
    return style.png(figure)
