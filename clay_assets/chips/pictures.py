"""Maps and counts of chips: of one platform and year, and of the merged index.

Chips are counted by column or by scene, and never drawn individually.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from clay_assets.chips.cells import ChipCell
from clay_assets.pictures import style
from clay_assets.pictures.bars import every_year, stacked
from clay_assets.pictures.maps import HEIGHT, LEFT, TOP, label_bars, map_panel
from clay_assets.recipes.classes import WORLDCOVER_CLASSES
from clay_assets.storage import layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FINE = 0.1  # degrees; squares in which chips are counted while reading
STEPS = (0.1, 0.2, 0.5, 1, 2, 3)  # degrees; sizes of drawn squares
SQUARES = 130  # at most, across a map
BINS = 10  # of shares above 0
STRETCH = 20  # ratio of the largest to the smallest count above which colours are logarithmic
BAR_ROW = 27  # height in pixels of a bar and the gap above it
LEAST_SHARE = 0.002  # classes below this share in every bar are not drawn
TOLD = 4  # minimum percent with room for a number
NO_LAND_COVER = "No land cover"
DARK = ("Tree cover", "Built-up", "Permanent water bodies", "Herbaceous wetland")  # white numbers are readable on them
DENSITY = LinearSegmentedColormap.from_list("density", ["#9ecae1", "#4292c6", "#08519c", "#3f007d", "#1a0033"])


@dataclass(frozen=True)
class Tally:
    """Counts of the chips of a cell.

    Attributes:
        x, y: centres of squares of `FINE` degrees that contain chips; squares may repeat.
        chips: number of chips in each square.
        shares: name → histogram of chips by that share: first those with 0, then tenths of the rest.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    chips: NDArray[np.int64]
    shares: dict[str, NDArray[np.int64]]


def tally(cell: ChipCell) -> Tally:
    """Count the chips of a cell by position, cloud and nodata."""
    columns = {
        "x": pc.field("bbox", "xmin"),
        "y": pc.field("bbox", "ymin"),
        "cloud": pc.field("cloud_cover_percentage"),
        "nodata": pc.field("nodata_percentage"),
    }
    shares = {name: np.zeros(BINS + 1, np.int64) for name in ("cloud", "nodata")}
    places: list[NDArray[Any]] = []
    for batch in cell.dataset().to_batches(columns=columns) if cell.keys else ():
        squares = np.floor(np.stack([batch["x"].to_numpy(), batch["y"].to_numpy()]) / FINE)
        places.append(np.vstack(np.unique(squares, axis=1, return_counts=True)))
        for name in shares:
            bins = np.ceil(batch[name].to_numpy() * BINS).astype(int)
            shares[name] += np.bincount(bins, minlength=BINS + 1)
    found = np.concatenate(places, axis=1) if places else np.empty((3, 0))
    return Tally((found[0] + 0.5) * FINE, (found[1] + 0.5) * FINE, found[2].astype(np.int64), shares)


def cell_map(cell: ChipCell, title: str) -> bytes:
    """Chips of a cell by position, and by cloud and nodata."""
    counted = tally(cell)
    if not counted.chips.sum():
        return style.empty_picture(
            title, "nothing to do in this partition" if cell.ledger.empty else "no chips in any scene"
        )
    below = TOP + HEIGHT + 52
    figure = style.new_figure(title, below + 98)
    density_map(figure, counted.x, counted.y, counted.chips)
    width = (style.WIDTH - 2 * style.EDGE - 30) / 2
    for name, left, colour in (("cloud", style.EDGE, style.BLUE), ("nodata", style.EDGE + width + 30, style.VERMILION)):
        axes = style.axes_at(figure, left, below, width, 66, f"% of chips by share of {name}, %")
        _share_bars(axes, counted.shares[name], colour)
    return style.png(figure)


def scene_places(cells: Sequence[ChipCell]) -> pd.DataFrame:
    """Positions of the indexed scenes of some cells, and the number of chips of each, from `scene_imagery`.

    Only two columns are read; scenes that are no longer in the table are omitted.

    Returns:
        Columns `x`, `y` (degrees, a point in the scene) and `chips`.
    """
    places = [pd.DataFrame({"x": [], "y": [], "chips": []}, dtype=float)]
    for cell in cells:
        key = layout.table("scene_imagery", cell.platform, cell.year)
        scenes = cell.scenes[cell.scenes["chips"] > 0]
        if scenes.empty:
            continue
        try:
            table = pq.read_table(key, filesystem=cell.store.filesystem(), columns=["id", "geometry"])
        except (FileNotFoundError, pa.ArrowInvalid):  # removed from the storage
            continue
        points = shapely.point_on_surface(shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False)))
        known = pd.DataFrame({"id": table["id"].to_pylist(), "x": shapely.get_x(points), "y": shapely.get_y(points)})
        places.append(scenes.merge(known, left_on="item_id", right_on="id")[["x", "y", "chips"]])
    return pd.concat(places, ignore_index=True)


def index_map(places: pd.DataFrame, parts: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Chips of the merged index by position, and by year and platform.

    Args:
        places: the result of `scene_places`.
        parts: `platform`, `year` and `rows` of each partition.
        title: the picture's title.
    """
    if not parts:
        return style.empty_picture(title, "no chips yet")
    rows = pd.DataFrame(parts).pivot_table(index="year", columns="platform", values="rows", aggfunc="sum", fill_value=0)
    rows = every_year(rows)
    colours = {
        f"{name} ({rows[name].sum():,})": colour for name, colour in style.platform_colours().items() if name in rows
    }
    layers = dict(
        zip(colours, [rows[name].to_numpy() for name in style.platform_colours() if name in rows], strict=True)
    )
    drawn = len(places) > 0
    below = TOP + HEIGHT + 52 if drawn else 66
    figure = style.new_figure(
        title, round(below + 156 + style.legend_height(list(colours), style.WIDTH - 70 - style.EDGE))
    )
    if drawn:
        density_map(figure, places["x"].to_numpy(), places["y"].to_numpy(), places["chips"].to_numpy())
    axes = style.axes_at(figure, 70, below, style.WIDTH - 70 - style.EDGE, 118, "chips by year and platform")
    stacked(axes, [str(year) for year in rows.index], layers, colours)
    style.legend(figure, below + 146, colours, 70)
    return style.png(figure)


def composition_picture(rows: Mapping[str, NDArray[np.float64]], title: str) -> bytes:
    """Land cover of several sets, each drawn as a bar of classes in WorldCover's colours.

    Args:
        rows: name → share of each class, shape (11,); the rest to 1 has no land cover.
        title: the picture's title.
    """
    rows = {name: shares for name, shares in rows.items() if shares.sum() > 0}
    if not rows:
        return style.empty_picture(title, "no WorldCover under these chips")
    classes = list(WORLDCOVER_CLASSES.values())
    table = np.array(list(rows.values()))
    lacking = np.clip(1 - table.sum(axis=1), 0, 1)
    drawn = {
        name: colour
        for number, (name, colour) in enumerate(style.CLASS_COLOURS.items())
        if table[:, number].max() >= LEAST_SHARE
    }
    if lacking.max() >= LEAST_SHARE:
        drawn[NO_LAND_COVER] = "white"
    left, high = 150, BAR_ROW * len(rows)
    legend = style.legend_height(list(drawn))
    figure = style.new_figure(title, round(60 + high + 34 + legend))
    axes = style.axes_at(figure, left, 44, style.WIDTH - left - style.EDGE - 8, high)
    y, start = np.arange(len(rows)), np.zeros(len(rows))
    for name, colour in drawn.items():
        shares = 100 * (lacking if name == NO_LAND_COVER else table[:, classes.index(name)])
        axes.barh(y, shares, left=start, height=0.72, color=colour, edgecolor=style.INK, linewidth=0.3)
        ink = "white" if name in DARK else style.INK
        for row, share in enumerate(shares):
            if share >= TOLD:
                middle, number = start[row] + share / 2, f"{share:.0f}"
                axes.text(middle, row, number, ha="center", va="center", fontsize=style.SMALL, color=ink)
        start = start + shares
    axes.set_yticks(y, list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.spines[["top", "right", "left"]].set_visible(False)
    style.text(figure, left, 44 + high + 26, "% of the area", style.SMALL)
    style.legend(figure, 44 + high + 42, drawn)
    return style.png(figure)


def density_map(figure: Any, x: NDArray[Any], y: NDArray[Any], chips: NDArray[Any]) -> None:
    """Squares coloured by their number of chips, with a colour scale."""
    axes = map_panel(figure, x, y, style.WIDTH - LEFT - 84)
    west, east = axes.get_xlim()
    south, north = axes.get_ylim()
    step = next((step for step in STEPS if (east - west) / step <= SQUARES), STEPS[-1])
    edges = [
        np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step for low, high in ((west, east), (south, north))
    ]
    counts, *_ = np.histogram2d(x, y, bins=edges, weights=chips)
    filled = np.ma.masked_equal(counts.T, 0)
    least, most = float(filled.min()), float(filled.max())
    norm = LogNorm(least, most) if most > STRETCH * least else Normalize(0, most)
    squares = axes.pcolormesh(*edges, filled, cmap=DENSITY, norm=norm, zorder=2)
    side = style.axes_at(figure, style.WIDTH - 66, TOP + 40, 12, HEIGHT - 80)
    scale = figure.colorbar(squares, cax=side)
    scale.ax.tick_params(labelsize=style.SMALL, colors=style.INK, length=0)
    scale.outline.set_visible(False)
    if isinstance(norm, LogNorm):
        scale.minorlocator = NullLocator()
    else:
        scale.locator = MaxNLocator(5, integer=True)
    scale.formatter = FuncFormatter(lambda value, _: style.format_count(value))
    scale.update_ticks()
    style.text(figure, style.WIDTH - 76, TOP + 18, f"chips in\n{step:g}° × {step:g}°", style.SMALL)


def _share_bars(axes: Axes, counts: NDArray[np.int64], colour: str) -> None:
    percent = 100 * counts / max(1, counts.sum())
    x = np.arange(len(percent))
    axes.bar(x, percent, width=0.82, color=[style.GREY, *[colour] * BINS])
    axes.set_xticks(x, ["none", *(f"≤{100 * n // BINS}" for n in range(1, BINS + 1))])
    axes.set_xlim(-0.6, len(x) - 0.4)
    texts = ["" if p == 0 else "<1" if p < 0.5 else f"{p:.0f}" for p in percent]
    label_bars(axes, x, percent, texts)
