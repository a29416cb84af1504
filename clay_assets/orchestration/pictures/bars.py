"""Bars: land cover of the sample against the world, requests, picks. Bars beside maps of chips belong to `chips`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clay_assets.orchestration.pictures import style
from clay_assets.scenes.picks import FAILED, NONE, PICKED

if TYPE_CHECKING:
    import geopandas as gpd
    from matplotlib.axes import Axes

LEAST_SLOTS = 8  # a bar is never wider than one of so many
BAR = 0.7  # of its slot
CLOUD_STEP = 5  # percent
OUTCOMES = {PICKED: style.GREEN, NONE: style.GREY, FAILED: style.VERMILION}
ROW = 30  # pixels of a land-cover class


def composition(sample: gpd.GeoDataFrame, world: gpd.GeoDataFrame) -> pd.DataFrame:
    """Share of each land-cover class in the area of the sampled tiles, and of all.

    Args:
        sample: `mgrs_sample`: class shares of each tile's valid area, 0 to 1, and `valid_share`.
        world: `worldcover_stats`, with the same columns.

    Returns:
        A row per class, in WorldCover's order; columns `sample` and `world`, 0 to 1. Tiles count by their valid area,
        all being of one size.
    """
    return pd.DataFrame({"sample": _shares(sample), "world": _shares(world)})


def composition_bars(sample: gpd.GeoDataFrame, world: gpd.GeoDataFrame | None) -> bytes:
    """Land cover of the sampled tiles against that of all tiles; None where the sample was not drawn from it."""
    if world is None:
        return style.nothing("Land cover of the sampled tiles", "the sample was taken as published")
    shares = composition(sample, world) * 100
    title = f"Land cover of the {len(sample):,} sampled tiles, and of all {len(world):,}"
    top, tall = 62, ROW * len(shares)
    figure = style.blank(title, top + tall + 12)
    axes = style.panel(figure, 190, top, style.WIDTH - 190 - 70, tall)
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
    style.write(figure, 190, 44, "coloured: the sample     grey: all tiles     % of their valid area")
    return style.png(figure)


def requests_by_period(requests: pd.DataFrame, title: str) -> bytes:
    """Searches per year and period."""
    if requests.empty:
        return style.nothing(title, "no requests")
    table = requests.groupby(["year", "period"]).size().unstack(fill_value=0)
    table = every_year(table)
    colours = style.period_colours(map(str, table))
    figure = style.blank(title, round(350 + style.legend_height(list(colours))))
    axes = style.panel(figure, 70, 66, style.WIDTH - 70 - style.EDGE, 248, "requests by year and period")
    stacked(axes, [str(year) for year in table.index], {str(p): table[p].to_numpy() for p in table}, colours)
    style.legend(figure, 342, colours, 70)
    return style.png(figure)


def picks_by_period(ledger: pd.DataFrame, title: str) -> bytes:
    """Outcome of the requests per period, and the cloud cover of the scenes that were taken, where it is known."""
    if ledger.empty:
        return style.nothing(title)
    picked = ledger.dropna(subset=["cloud_cover"]).drop_duplicates("item_id")
    table = ledger.groupby(["period", "outcome"]).size().unstack(fill_value=0)
    counts = {f"{name} ({table[name].sum():,})": table[name].to_numpy() for name in OUTCOMES if name in table}
    colours = dict(zip(counts, [OUTCOMES[name] for name in OUTCOMES if name in table], strict=True))
    figure = style.blank(title, 372)
    width = 300 if len(picked) else style.WIDTH - 52 - style.EDGE  # not every platform sees clouds
    left = style.panel(figure, 52, 66, width, 248, "requests by period and outcome")
    stacked(left, list(map(str, table.index)), counts, colours)
    style.legend(figure, 346, colours, 52, max(width, 360))
    if len(picked):
        periods = sorted(picked["period"].unique())
        right = style.panel(figure, 420, 66, style.WIDTH - 420 - style.EDGE, 248, "scenes by cloud cover, %")
        shades = style.period_colours(periods)
        most = max(20.0, float(np.ceil(picked["cloud_cover"].max() / 10) * 10))
        right.hist(
            [picked.loc[picked["period"] == period, "cloud_cover"] for period in periods],
            bins=np.arange(0, most + CLOUD_STEP, CLOUD_STEP).tolist(),
            stacked=True,
            color=list(shades.values()),
            rwidth=0.9,
        )
        _counts(right)
        style.legend(figure, 346, shades, 420)
    return style.png(figure)


def every_year(table: pd.DataFrame) -> pd.DataFrame:
    """A table by year, with the years between that it has nothing of."""
    return table.reindex(range(table.index.min(), table.index.max() + 1), fill_value=0)


def stacked(axes: Axes, labels: Sequence[str], layers: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Bars of several layers, with their sum on top; never wider than one of `LEAST_SLOTS`."""
    x, floor = np.arange(len(labels)), np.zeros(len(labels))
    for name, values in layers.items():
        axes.bar(x, values, bottom=floor, color=colours[name], width=BAR)
        floor = floor + values
    if len(labels) <= 16:  # else the sums would run together
        for across, total in zip(x, floor, strict=True):
            axes.annotate(
                style.short(total) if total else "",
                (across, total),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=style.SMALL,
                color=style.INK,
            )
    slots = max(len(labels), LEAST_SLOTS)
    middle = (len(labels) - 1) / 2
    axes.set_xlim(middle - slots / 2, middle + slots / 2)
    axes.set_xticks(x, labels)
    _counts(axes)


def _counts(axes: Axes) -> None:
    axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.short(value)))
    axes.grid(axis="y", color=style.PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _shares(tiles: gpd.GeoDataFrame) -> pd.Series:
    classes = list(style.CLASS_COLOURS)
    valid = tiles["valid_share"].fillna(0).to_numpy(dtype=float)
    area = tiles[classes].fillna(0).to_numpy(dtype=float).T @ valid
    return pd.Series(area / valid.sum() if valid.sum() else 0 * area, index=classes)


def _percent(share: float) -> str:
    if share == 0:
        return "none"
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %" if share >= 0.095 else "below 0.1 %"
