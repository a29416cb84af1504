"""Pictures of requests and picks: bars by year, period and outcome."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clay_assets.pictures import style
from clay_assets.pictures.bars import count_axis, every_year, stacked
from clay_assets.scenes.picks import FAILED, NONE, PICKED

CLOUD_STEP = 5  # percent
OUTCOMES = {PICKED: style.GREEN, NONE: style.GREY, FAILED: style.VERMILION}


def requests_by_period(requests: pd.DataFrame, title: str) -> bytes:
    """Bars of searches by year and period."""
    if requests.empty:
        return style.empty_picture(title, "no requests")
    table = requests.groupby(["year", "period"]).size().unstack(fill_value=0)
    table = every_year(table)
    colours = style.period_colours(map(str, table))
    figure = style.new_figure(title, round(350 + style.legend_height(list(colours))))
    axes = style.axes_at(figure, 70, 66, style.WIDTH - 70 - style.EDGE, 248, "requests by year and period")
    stacked(axes, [str(year) for year in table.index], {str(p): table[p].to_numpy() for p in table}, colours)
    style.legend(figure, 342, colours, 70)
    return style.png(figure)


def picks_by_period(ledger: pd.DataFrame, title: str) -> bytes:
    """Bars of requests by period and outcome, and of picked scenes by cloud cover if known."""
    if ledger.empty:
        return style.empty_picture(title)
    picked = ledger.dropna(subset=["cloud_cover"]).drop_duplicates("item_id")
    table = ledger.groupby(["period", "outcome"]).size().unstack(fill_value=0)
    counts = {f"{name} ({table[name].sum():,})": table[name].to_numpy() for name in OUTCOMES if name in table}
    colours = dict(zip(counts, [OUTCOMES[name] for name in OUTCOMES if name in table], strict=True))
    figure = style.new_figure(title, 372)
    width = 300 if len(picked) else style.WIDTH - 52 - style.EDGE  # not every platform has cloud cover
    left = style.axes_at(figure, 52, 66, width, 248, "requests by period and outcome")
    stacked(left, list(map(str, table.index)), counts, colours)
    style.legend(figure, 346, colours, 52, max(width, 360))
    if len(picked):
        periods = sorted(picked["period"].unique())
        right = style.axes_at(figure, 420, 66, style.WIDTH - 420 - style.EDGE, 248, "scenes by cloud cover, %")
        shades = style.period_colours(periods)
        most = max(20.0, float(np.ceil(picked["cloud_cover"].max() / 10) * 10))
        right.hist(
            [picked.loc[picked["period"] == period, "cloud_cover"] for period in periods],
            bins=np.arange(0, most + CLOUD_STEP, CLOUD_STEP).tolist(),
            stacked=True,
            color=list(shades.values()),
            rwidth=0.9,
        )
        count_axis(right)
        style.legend(figure, 346, shades, 420)
    return style.png(figure)
