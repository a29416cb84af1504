"""Maps of tiles, samples and scenes in plate carrée, with land and a light graticule.

Maps of a small region have a larger scale. Pictures of a single stage are in its `pictures` module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from clay_assets.footprints import footprint_of
from clay_assets.pictures import style
from clay_assets.stac import Item, item_datetime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Numbers = NDArray[np.float64]

# Natural Earth 4.1, land at 1:110 million (https://www.naturalearthdata.com, public domain), as published in the npm
# package world-atlas 2.0.2, whose outlines extend beyond ±180°; split there, and rounded to 0.01°.
LAND = "land_110m.geojson"
TOP, HEIGHT, LEFT, RIGHT = 42, 276, 46, 24  # pixels: position and size of a map in a picture
SMALL_PART = 100  # degrees
LEAST_PART = 3  # minimum extent in degrees
CROWDED = 4000  # tiles; from this number on they are drawn as polygons, fewer as dots
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def tile_map(tiles: gpd.GeoDataFrame, title: str) -> bytes:
    """A map of tiles in a single colour."""
    x, y = centres(tiles)
    figure = style.new_figure(title, TOP + HEIGHT + 30)
    axes = map_panel(figure, x, y)
    if len(tiles) > CROWDED:
        shapes(axes, tiles.geometry.to_numpy(), style.BLUE, style.BLUE)
        coast(axes)
    else:
        dots(axes, x, y, style.BLUE)
    return style.png(figure)


def scene_map(items: Sequence[Item], title: str) -> bytes:
    """A map of scenes, coloured by month of acquisition."""
    if not items:
        return style.empty_picture(title)
    x, y = _footprint_points(items)
    below = TOP + HEIGHT + 52
    figure = style.new_figure(title, below + 92)
    dots(map_panel(figure, x, y), x, y, style.BLUE)
    axes = style.axes_at(figure, LEFT, below, style.WIDTH - LEFT - RIGHT, 64, "scenes by month")
    counts = np.bincount([item_datetime(item).month - 1 for item in items], minlength=12)
    axes.bar(MONTHS, counts, color=list(style.period_colours(f"M{n}" for n in range(1, 13)).values()), width=0.7)
    label_bars(axes, np.arange(12), counts, [f"{n:,}" if n else "" for n in counts])
    return style.png(figure)


def label_bars(axes: Axes, x: Any, heights: Any, texts: Sequence[str]) -> None:
    """Label every bar with its value, instead of a vertical axis."""
    for across, height, text in zip(x, heights, texts, strict=True):
        axes.annotate(
            text,
            (across, height),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
            color=style.INK,
        )
    axes.set_yticks([])
    axes.set_ylim(0, max(1e-9, float(np.max(heights, initial=0))) * 1.25)
    axes.spines[["top", "right", "left"]].set_visible(False)


def centres(tiles: gpd.GeoDataFrame) -> tuple[Numbers, Numbers]:
    """A point inside each place; the centroid of a tile split at ±180 would be at 0."""
    points = tiles.geometry.representative_point()
    return points.x.to_numpy(), points.y.to_numpy()


def map_panel(figure: Any, x: Numbers, y: Numbers, width: float = style.WIDTH - LEFT - RIGHT) -> Axes:
    """Draw a map with land, `width` pixels wide, of the region that contains the places."""
    axes = style.axes_at(figure, LEFT, TOP, width, HEIGHT)
    axes.set_facecolor(style.SEA)
    land, seas = _land()
    axes.add_collection(PolyCollection(land, facecolors=style.LAND, edgecolors=style.LAND, linewidths=0.5))
    axes.add_collection(PolyCollection(seas, facecolors=style.SEA, edgecolors=style.SEA, linewidths=0.5))
    west, east, south, north, stretch = _extent(x, y, width / HEIGHT)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(stretch, adjustable="box")
    whole = east - west >= 360
    axes.xaxis.set_major_locator(FixedLocator(range(-120, 121, 60)) if whole else MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(FixedLocator(range(-60, 61, 30)) if whole else MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "W", "E")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "S", "N")))
    axes.grid(color=style.PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    return axes


def dots(axes: Axes, x: Numbers, y: Numbers, colour: Any, of: int | None = None) -> None:
    """Draw places as dots, smaller for larger numbers; `of`: number of dots on the whole map."""
    side = _dot(of or len(x)) * (1 if np.ptp(axes.get_xlim()) >= 360 else 1.15)
    edge = 0.3 if side > 4 else 0
    area = (side * 72 / style.DPI) ** 2
    axes.scatter(x, y, s=area, c=colour, linewidths=edge, edgecolors=style.INK, clip_on=False, zorder=2)


def shapes(axes: Axes, polygons: Any, colour: str, edge: str) -> None:
    """Draw places as polygons; neighbours merge if edges have the same colour."""
    drawn = PolyCollection(_rings(polygons), facecolors=colour, edgecolors=edge, linewidths=0.5, zorder=2)
    drawn.set_antialiased(edge != colour)  # blended colours along the edges of many tiles would take many bytes
    axes.add_collection(drawn)


def coast(axes: Axes) -> None:
    """Draw the coast on top of a map."""
    shores = [ring for rings in _land() for ring in rings]
    axes.add_collection(PolyCollection(shores, facecolors="none", edgecolors=style.INK, linewidths=0.4, zorder=3))


def map_of_kinds(
    places: gpd.GeoDataFrame, kinds: NDArray[Any], colours: Mapping[str, str], title: str, *, whole: bool = False
) -> bytes:
    """Draw each place in the colour of its kind, with the number of each kind in the legend.

    Args:
        places: polygons or points, EPSG:4326.
        kinds: kind of each place.
        colours: kind → colour, in the order of the legend.
        title: the picture's title.
        whole: draw polygons, not dots.
    """
    counts = Counter(kinds)
    shown = {f"{kind} ({counts[kind]:,})": colour for kind, colour in colours.items() if counts[kind]}
    below = TOP + HEIGHT + 34
    figure = style.new_figure(title, round(below + style.legend_height(list(shown)) + 8))
    x, y = centres(places)
    axes = map_panel(figure, x, y)
    polygons = places.geometry.to_numpy()
    # The most frequent kinds first, so that rare ones are on top.
    for kind in sorted(counts, key=lambda kind: -counts[kind]):
        here = kinds == kind
        if whole:
            shapes(axes, polygons[here], colours[kind], colours[kind] if len(x) > CROWDED else "white")
        else:
            dots(axes, x[here], y[here], colours[kind], len(x))
    if whole:
        coast(axes)
    style.legend(figure, below, shown, LEFT)
    return style.png(figure)


def _footprint_points(items: Sequence[Item]) -> tuple[Numbers, Numbers]:
    """A point in each footprint; scenes without a usable footprint are not shown."""
    shapes = [footprint_of(item.get("geometry")) for item in items]
    found = shapely.point_on_surface([shape for shape in shapes if shape is not None])
    points = np.array([[point.x, point.y] for point in found if not point.is_empty], dtype=float).reshape(-1, 2)
    x, y = points[np.isfinite(points).all(axis=1)].T
    return x, y


def _rings(polygons: Any) -> list[NDArray[Any]]:
    return [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(shapely.get_parts(polygons))]


@lru_cache(maxsize=1)  # read once per process, as package data do not change
def _land() -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Outlines of land and of inland seas."""
    content = (files("clay_assets.pictures") / LAND).read_text(encoding="utf-8")
    land = shapely.get_parts(shapely.get_parts(shapely.from_geojson(content)))
    return _rings(land), [shapely.get_coordinates(ring) for one in land for ring in one.interiors]


def _extent(x: Numbers, y: Numbers, shape: float) -> tuple[float, float, float, float, float]:
    """West, east, south, north and the aspect of a map whose panel has the given ratio of width to height."""
    if len(x) and max(np.ptp(x), np.ptp(y)) <= SMALL_PART:
        middle_x, middle_y = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
        stretch = 1 / np.cos(np.radians(np.clip(middle_y, -80, 80)))
        tall = max(1.16 * np.ptp(y), 1.16 * np.ptp(x) / stretch / shape, LEAST_PART)
        wide = tall * stretch * shape
        if wide <= 2 * SMALL_PART:
            south, north = middle_y - tall / 2, middle_y + tall / 2
            return middle_x - wide / 2, middle_x + wide / 2, max(south, -90), min(north, 90), stretch
    if len(y) and y.min() < -60:
        return -180, 180, -90, 90, 1
    return -180, 180, 85 - 360 / shape, 85, 1


def _dot(count: int) -> float:
    """Diameter of a dot in pixels."""
    return float(np.interp(np.log10(max(count, 1)), [1.7, 3, 4, 4.5], [8, 5, 2.2, 2]))


def _degrees(value: float, negative: str, positive: str) -> str:
    value = round((value + 180) % 360 - 180, 6) if positive == "E" else value  # a map may extend beyond 180°
    if value in (0, -180):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{negative if value < 0 else positive}"
