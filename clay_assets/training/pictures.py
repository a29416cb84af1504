"""Pictures of the training stage."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from clay_assets.pictures import style

ROW, TOP, LEFT, BELOW = 18, 44, 130, 44  # pixels
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def sizes_picture(assets: pd.DataFrame, title: str) -> bytes:
    """A bar chart of the total file size of each asset.

    Args:
        assets: `asset`, `compression` and `bytes`; see `HeadersCell.assets`.
        title: the picture's title.
    """
    if assets.empty:
        return style.empty_picture(title)
    colours = style.colours_of(assets["compression"].unique())
    legend, high = style.legend_height(list(colours)), ROW * len(assets)
    figure = style.new_figure(title, round(TOP + high + BELOW + legend))
    axes = style.axes_at(figure, LEFT, TOP, style.WIDTH - LEFT - style.EDGE - 50, high)
    sizes, y = assets["bytes"].to_numpy(np.float64), np.arange(len(assets))
    axes.barh(y, sizes, height=0.7, color=assets["compression"].map(colours))
    for row, size in zip(y, sizes, strict=True):
        axes.annotate(
            format_bytes(size),
            (size, row),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=style.SMALL,
            color=style.INK,
        )
    axes.set_yticks(y, assets["asset"])
    axes.set_ylim(len(assets) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    style.legend(figure, TOP + high + BELOW - 10, colours)
    return style.png(figure)


def format_bytes(number: float) -> str:
    """A human-readable number of bytes, such as `1.4 GB`."""
    power = 0
    while number >= 999.5 and power < len(UNITS) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {UNITS[power]}"
