"""Bar charts by year or period. Pictures of a single stage are in its `pictures` module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clay_assets.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SLOTS = 8  # bars are never wider than with this many slots
BAR = 0.7  # share of its slot


def every_year(table: pd.DataFrame) -> pd.DataFrame:
    """A table by year, with rows for the missing years in between."""
    return table.reindex(range(table.index.min(), table.index.max() + 1), fill_value=0)


def stacked(axes: Axes, labels: Sequence[str], layers: Mapping[str, Any], colours: Mapping[str, str]) -> None:
    """Stacked bars with their sum on top; never wider than with `LEAST_SLOTS` slots."""
    x, floor = np.arange(len(labels)), np.zeros(len(labels))
    for name, values in layers.items():
        axes.bar(x, values, bottom=floor, color=colours[name], width=BAR)
        floor = floor + values
    if len(labels) <= 16:  # otherwise the sums would overlap
        for across, total in zip(x, floor, strict=True):
            axes.annotate(
                style.format_count(total) if total else "",
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
    count_axis(axes)


def count_axis(axes: Axes) -> None:
    """Label the vertical axis with counts."""
    axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: style.format_count(value)))
    axes.grid(axis="y", color=style.PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
