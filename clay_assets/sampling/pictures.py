"""Pictures of the samples: tiles by rule, locations by kind, and land cover compared with all tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from clay_assets.pictures import style
from clay_assets.pictures.maps import map_of_kinds
from clay_assets.recipes.classes import DIVERSITY
from clay_assets.sampling.modis_grid import COMPLETE, FAILED, NO_ITEM, NOT_PUBLISHED, PUBLISHED, WITH_NODATA

if TYPE_CHECKING:
    import geopandas as gpd

ROW = 30  # pixels per land-cover class
LARGE = 4  # degrees; wider polygons are drawn as such, others as points
OUTCOMES = {
    COMPLETE: style.GREEN,
    PUBLISHED: style.GREEN,
    WITH_NODATA: style.ORANGE,
    NO_ITEM: style.GREY,
    NOT_PUBLISHED: style.GREY,
    FAILED: style.VERMILION,
}


def sample_map(sample: gpd.GeoDataFrame) -> bytes:
    """Map of the sampled tiles, each in the colour of the land-cover class of the first rule that chose it."""
    rules = [record for record in sample.attrs.get("rules", []) if record["class"]]
    first = np.array([rules[0] for rules in sample["rules"]], dtype=object)
    title = f"{len(sample):,} sampled tiles, by the first rule that chose them"
    colours = rule_colours({record["rule"]: record["class"] for record in rules})
    colours = {**style.colours_of(sorted(set(first) - set(colours))), **colours}
    return map_of_kinds(sample, first, colours, title)


def rule_colours(rules: Mapping[str, str]) -> dict[str, str]:
    """Rule → colour of its land-cover class; the second rule of a class is drawn darker, and so on."""
    seen: Counter[str] = Counter()
    found = {}
    for rule, name in rules.items():
        red, green, blue = to_rgb(style.DIVERSE if name == DIVERSITY else style.CLASS_COLOURS[name])
        shade = 0.55 ** seen[name]
        found[rule] = to_hex((red * shade, green * shade, blue * shade))
        seen[name] += 1
    return found


def places_map(places: gpd.GeoDataFrame, kinds: Sequence[str], title: str) -> bytes:
    """Map of places coloured by kind, with the count of each kind; wide polygons are drawn as such."""
    of = np.array(kinds, dtype=object)
    names = sorted(set(of))
    colours = OUTCOMES if set(names) <= set(OUTCOMES) else style.colours_of(names)
    widths = np.ptp(places.geometry.bounds.to_numpy()[:, ::2], axis=1)
    return map_of_kinds(places, of, colours, title, whole=len(places) > 0 and float(np.median(widths)) > LARGE)


def composition(sample: gpd.GeoDataFrame, world: gpd.GeoDataFrame) -> pd.DataFrame:
    """Share of each land-cover class in the area of the sampled tiles and of all tiles.

    Args:
        sample: `mgrs_sample`: class shares of each tile's valid area, 0 to 1, and `valid_share`.
        world: `worldcover_stats`, with the same columns.

    Returns:
        A row per class, in WorldCover's order; columns `sample` and `world`, 0 to 1. Tiles are weighted by valid area,
        and are taken to be of equal size.
    """
    return pd.DataFrame({"sample": _shares(sample), "world": _shares(world)})


def composition_bars(sample: gpd.GeoDataFrame, world: gpd.GeoDataFrame | None) -> bytes:
    """Bars of the land cover of the sampled tiles and of all tiles; `world` is None for a published sample."""
    if world is None:
        return style.empty_picture("Land cover of the sampled tiles", "a published sample is used")
    shares = composition(sample, world) * 100
    title = f"Land cover of the {len(sample):,} sampled tiles and of all {len(world):,}"
    top, tall = 62, ROW * len(shares)
    figure = style.new_figure(title, top + tall + 12)
    axes = style.axes_at(figure, 190, top, style.WIDTH - 190 - 70, tall)
    rows = np.arange(len(shares))
    colours = [style.CLASS_COLOURS[name] for name in shares.index]
    for column, offset, colour in (("sample", -0.2, colours), ("world", 0.2, style.GREY)):
        axes.barh(rows + offset, shares[column], height=0.38, color=colour, edgecolor=style.INK, linewidth=0.4)
        for row, share in zip(rows, shares[column], strict=True):
            axes.annotate(
                _percent(share),
                (share, row + offset),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=style.SMALL,
                color=style.INK,
            )
    axes.set_yticks(rows, shares.index, fontsize=style.TEXT)
    axes.set_ylim(len(shares) - 0.45, -0.55)
    axes.set_xlim(0, max(1.0, float(shares.max().max())))
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    style.text(figure, 190, 44, "coloured: the sample     grey: all tiles     % of their valid area")
    return style.png(figure)


def _shares(tiles: gpd.GeoDataFrame) -> pd.Series:
    classes = list(style.CLASS_COLOURS)
    valid = tiles["valid_share"].fillna(0).to_numpy(dtype=float)
    area = tiles[classes].fillna(0).to_numpy(dtype=float).T @ valid
    return pd.Series(area / valid.sum() if valid.sum() else 0 * area, index=classes)


def _percent(share: float) -> str:
    if share == 0:
        return "none"
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %" if share >= 0.095 else "below 0.1 %"
