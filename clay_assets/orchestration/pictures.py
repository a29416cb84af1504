"""One small picture per dataset: what a person looks at first. PNG bytes, drawn without a display.

The pictures share one size and style, and stay below the size that the event log can hold.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd
    from matplotlib.axes import Axes

    from clay_assets.chips.scenes import ChipCell

SIZE = (8.0, 4.2)  # inches
DPI = 80
MOST_BYTES = 48_000
PALETTES = (96, 32, 8)  # colours; the first that is small enough
INK, SOFT, ACCENT = "#26323c", "#c9d2d8", "#c1502e"
SMALL_PART = 90  # degrees
CLOUD_BINS = np.arange(0, 101, 10)
# WorldCover's own legend: ESA WorldCover 2021 v200 product user manual, table 1.
CLASS_COLOURS = {
    "Tree cover": "#006400",
    "Shrubland": "#ffbb22",
    "Grassland": "#ffff4c",
    "Cropland": "#f096ff",
    "Built-up": "#fa0000",
    "Bare / sparse vegetation": "#b4b4b4",
    "Snow and Ice": "#f0f0f0",
    "Permanent water bodies": "#0064c8",
    "Herbaceous wetland": "#0096a0",
    "Mangroves": "#00cf75",
    "Moss and lichen": "#fae6a0",
}


def tile_map(tiles: gpd.GeoDataFrame, title: str) -> bytes:
    """Where tiles are, all in one colour."""
    figure, axes = _map(title)
    x, y = _centres(tiles)
    axes.scatter(x, y, s=_dot(len(tiles)), c=INK, linewidths=0)
    return _png(figure)


def land_cover_map(stats: gpd.GeoDataFrame) -> bytes:
    """Each tile in the colour of its largest class."""
    figure, axes = _map(f"Largest land-cover class of {len(stats):,} tiles")
    x, y = _centres(stats)
    largest = stats[list(CLASS_COLOURS)].to_numpy().argmax(axis=1)
    for number, (name, colour) in enumerate(CLASS_COLOURS.items()):
        here = largest == number
        if here.any():
            axes.scatter(x[here], y[here], s=_dot(len(stats)), c=colour, label=name, linewidths=0.2, edgecolors=SOFT)
    _legend(figure, axes)
    return _png(figure)


def sample_map(sample: gpd.GeoDataFrame) -> bytes:
    """Each sampled tile in the colour of the first rule that chose it."""
    first = [rules[0] for rules in sample["rules"]]
    return places_map(sample, first, f"{len(sample):,} sampled tiles, by the first rule that chose them")


def places_map(places: gpd.GeoDataFrame, kinds: Sequence[str], title: str) -> bytes:
    """Each place in the colour of its kind, with the number of each kind."""
    figure, axes = _map(title)
    x, y = _centres(places)
    of = np.array(kinds, dtype=object)
    counts = sorted(Counter(of).items())
    for colour, (kind, count) in zip(_colours(len(counts)), counts, strict=True):
        here = of == kind
        axes.scatter(x[here], y[here], s=_dot(len(places)), color=colour, label=f"{kind} ({count:,})", linewidths=0)
    _zoom(axes, x, y)
    if counts:
        _legend(figure, axes)
    return _png(figure)


def requests_by_period(requests: pd.DataFrame, title: str) -> bytes:
    """Searches per year and period."""
    figure, axes = _figure(title)
    table = requests.groupby(["year", "period"]).size().unstack(fill_value=0)
    _stacked(axes, [str(year) for year in table.index], {str(p): table[p].to_numpy() for p in table}, "requests")
    _legend(figure, axes)
    return _png(figure)


def picks_by_period(ledger: pd.DataFrame, title: str) -> bytes:
    """Outcome of the requests per period, and the cloud cover of the scenes that were taken."""
    figure = _empty(title)
    if ledger.empty:
        return _nothing_to_do(figure)
    picked = ledger.dropna(subset=["cloud_cover"]).drop_duplicates("item_id")
    left, right = figure.subplots(1, 2) if len(picked) else (figure.subplots(), None)  # not every platform sees clouds
    table = ledger.groupby(["period", "outcome"]).size().unstack(fill_value=0)
    _stacked(left, list(map(str, table.index)), {str(o): table[o].to_numpy() for o in table}, "requests")
    left.legend(frameon=False, fontsize=8)
    _plain(left)
    if right is not None:
        right.hist(picked["cloud_cover"], bins=CLOUD_BINS, color=INK, rwidth=0.92)
        right.set_xlabel("cloud cover of the scene, %")
        right.set_ylabel("scenes")
        _plain(right)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.12, top=0.9, wspace=0.24)
    return _png(figure)


def scene_map(items: Sequence[dict[str, Any]], title: str) -> bytes:
    """Where scenes lie, in the colour of their month."""
    from shapely.geometry import shape

    from clay_assets.storage.stac_geoparquet import item_datetime

    figure, axes = _map(title)
    if not items:
        return _nothing_to_do(figure)
    points = [shape(item["geometry"]).representative_point() for item in items]
    x, y, months = [p.x for p in points], [p.y for p in points], [item_datetime(item).month for item in items]
    dots = axes.scatter(x, y, c=months, s=_dot(len(items)), cmap="twilight", vmin=1, vmax=13, linewidths=0)
    _zoom(axes, np.array(x), np.array(y))
    figure.colorbar(dots, ax=axes, shrink=0.7, label="month")
    return _png(figure)


def cell_map(cell: ChipCell, title: str) -> bytes:
    """Chips per place, and the histograms of their shares; read column by column, not chip by chip."""
    figure = _empty(title)
    if cell.ledger.empty:
        return _nothing_to_do(figure)
    counts, shares = _scan(cell)
    places, cloud = figure.subplots(1, 2, width_ratios=[1.7, 1])
    _world(places)
    if counts:
        x, y = (np.array(axis) for axis in zip(*counts, strict=True))
        values = np.array(list(counts.values()))
        _zoom(places, x + 0.5, y + 0.5)
        dots = places.scatter(x + 0.5, y + 0.5, c=values, s=_dot(len(values)), cmap="viridis", linewidths=0)
        figure.colorbar(dots, ax=places, shrink=0.7, label="chips per square degree")
    edges = np.linspace(0, 1, 11)
    for (name, histogram), colour in zip(shares.items(), (INK, ACCENT), strict=True):
        cloud.stairs(histogram, edges, label=name, color=colour, fill=name == "cloud", alpha=0.8, linewidth=1.6)
    cloud.set_xlabel("share of the chip")
    cloud.set_ylabel("chips")
    cloud.legend(frameon=False, fontsize=8)
    _plain(cloud)
    figure.subplots_adjust(left=0.05, right=0.98, bottom=0.12, top=0.9, wspace=0.25)
    return _png(figure)


def rows_by_platform(parts: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Chips of the merged index per year and platform."""
    figure, axes = _figure(title)
    years = sorted({part["year"] for part in parts})
    rows = {
        platform: np.array(
            [sum(p["rows"] for p in parts if (p["platform"], p["year"]) == (platform, year)) for year in years]
        )
        for platform in sorted({part["platform"] for part in parts})
    }
    _stacked(axes, [str(year) for year in years], rows, "chips")
    if parts:
        _legend(figure, axes)
    return _png(figure)


def _scan(cell: ChipCell) -> tuple[Counter[tuple[int, int]], dict[str, Any]]:
    import pyarrow.compute as pc

    counts: Counter[tuple[int, int]] = Counter()
    edges = np.linspace(0, 1, 11)
    shares = {"cloud": np.zeros(10), "nodata": np.zeros(10)}
    columns = {
        "x": pc.field("bbox", "xmin"),
        "y": pc.field("bbox", "ymin"),
        "cloud": pc.field("cloud_cover_percentage"),
        "nodata": pc.field("nodata_percentage"),
    }
    for batch in cell.dataset().to_batches(columns=columns) if cell.keys else ():
        squares = np.floor([batch["x"].to_numpy(), batch["y"].to_numpy()]).astype(int)
        found, number = np.unique(squares, axis=1, return_counts=True)
        counts.update(dict(zip(zip(*found.tolist(), strict=True), number.tolist(), strict=True)))
        for name in shares:
            shares[name] += np.histogram(batch[name].to_numpy(), bins=edges)[0]
    return counts, shares


def rejections(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """Reason → candidates refused for it and requests that got nothing, most first."""
    refused: Counter[str] = Counter()
    for text in ledger["rejected"]:
        refused.update(json.loads(text))
    nothing = Counter(ledger.loc[ledger["outcome"] != "picked", "reason"])
    rows = [
        {"reason": reason, "candidates refused": count, "requests without a scene": 0}
        for reason, count in refused.items()
    ]
    rows += [
        {"reason": reason, "candidates refused": 0, "requests without a scene": count}
        for reason, count in nothing.items()
    ]
    return sorted(rows, key=lambda row: (-row["requests without a scene"], -row["candidates refused"], row["reason"]))


def _centres(tiles: gpd.GeoDataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    points = tiles.geometry.representative_point()  # a centroid of a tile in two parts at ±180 lies at 0
    return points.x.to_numpy(), points.y.to_numpy()


def _empty(title: str) -> Figure:
    figure = Figure(figsize=SIZE, dpi=DPI)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _nothing_to_do(figure: Figure) -> bytes:
    figure.text(0.5, 0.5, "nothing to do in this partition", ha="center", color=INK)
    return _png(figure)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = _empty(title)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _map(title: str) -> tuple[Figure, Axes]:
    figure = _empty(title)
    axes = figure.subplots()
    _world(axes)
    return figure, axes


def _world(axes: Axes) -> None:
    axes.set_xlim(-180, 180)
    axes.set_ylim(-90, 90)
    axes.set_aspect("equal")
    axes.set_xticks(range(-180, 181, 60))
    axes.set_yticks(range(-90, 91, 30))
    axes.grid(color=SOFT, linewidth=0.4)
    axes.tick_params(labelsize=7, colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_color(SOFT)


def _zoom(axes: Axes, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> None:
    """Show the part of the world where the points are, if it is a small part."""
    if len(x) == 0 or max(np.ptp(x), np.ptp(y)) > SMALL_PART:
        return
    west, east, south, north = x.min(), x.max(), y.min(), y.max()
    margin = max(1.0, 0.08 * max(east - west, north - south))
    axes.set_xlim(max(west - margin, -180), min(east + margin, 180))
    axes.set_ylim(max(south - margin, -90), min(north + margin, 90))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_aspect(1 / np.cos(np.radians((south + north) / 2)), adjustable="box")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.locator_params(axis="y", integer=True, nbins=6)


def _stacked(axes: Axes, labels: list[str], layers: Mapping[str, Any], unit: str) -> None:
    floor = np.zeros(len(labels))
    for colour, (name, values) in zip(_colours(len(layers)), layers.items(), strict=True):
        axes.bar(labels, values, bottom=floor, label=name, color=colour, width=0.7)
        floor = floor + values
    axes.set_ylabel(unit)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab20"](number % 20) for number in range(count)]


def _dot(count: int) -> float:
    return float(np.clip(40_000 / max(count, 1), 0.6, 30))


def _legend(figure: Figure, axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, markerscale=1.2)
    figure.subplots_adjust(left=0.09, right=0.76, bottom=0.08, top=0.91)


def _png(figure: Figure) -> bytes:
    """The drawing as a PNG of few colours: many thousand coloured dots would otherwise not fit the event log."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    for colours in PALETTES:
        small = io.BytesIO()
        with Image.open(buffer) as image:
            image.convert("RGB").quantize(colours).save(small, format="png", optimize=True)
        if len(small.getvalue()) <= MOST_BYTES:
            break
    return small.getvalue()
