"""Maps of places: tiles, samples and scenes, on plate carrée, with land and a light graticule.

Where the places are in a small part of the world, that part is shown. What is drawn on a map beside places (chips)
belongs to `chips`.
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
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from clay_assets.orchestration.pictures import style
from clay_assets.platforms.base import Item
from clay_assets.recipes.classes import DIVERSITY
from clay_assets.sampling.modis_grid import COMPLETE, FAILED, NO_ITEM, NOT_PUBLISHED, PUBLISHED, WITH_NODATA
from clay_assets.storage.stac_geoparquet import item_datetime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Numbers = NDArray[np.float64]

# Natural Earth's countries at 1:110 million, public domain, as pyogrio carries them to test itself. Without the file,
# maps have no land on them.
OUTLINES = "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp"
SIMPLIFIED = 0.1  # degrees
TOP, HEIGHT, LEFT, RIGHT = 42, 276, 46, 24  # pixels: of a map in a picture
SMALL_PART = 100  # degrees
LEAST_PART = 3  # degrees that are shown at least
LARGE = 4  # degrees; polygons that are wider are drawn as they are
CROWDED = 4000  # tiles; from there they are drawn as they are, else as dots
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
OUTCOMES = {
    COMPLETE: style.GREEN,
    PUBLISHED: style.GREEN,
    WITH_NODATA: style.ORANGE,
    NO_ITEM: style.GREY,
    NOT_PUBLISHED: style.GREY,
    FAILED: style.VERMILION,
}


def tile_map(tiles: gpd.GeoDataFrame, title: str) -> bytes:
    """Where tiles are, all in one colour."""
    x, y = centres(tiles)
    figure = style.blank(title, TOP + HEIGHT + 30)
    axes = map_panel(figure, x, y)
    if len(tiles) > CROWDED:
        shapes(axes, tiles.geometry.to_numpy(), style.BLUE, style.BLUE)
        coast(axes)
    else:
        dots(axes, x, y, style.BLUE)
    return style.png(figure)


def land_cover_map(stats: gpd.GeoDataFrame) -> bytes:
    """Each tile in the colour of its largest class."""
    classes = list(style.CLASS_COLOURS)
    largest = np.array(classes, dtype=object)[stats[classes].fillna(0).to_numpy().argmax(axis=1)]
    title = f"Largest land-cover class of {len(stats):,} tiles"
    return _map_of_kinds(stats, largest, style.CLASS_COLOURS, title, whole=len(stats) > CROWDED)


def sample_map(sample: gpd.GeoDataFrame) -> bytes:
    """Each sampled tile in the colour of the first rule that chose it, which is that of the rule's class."""
    rules = [record for record in sample.attrs.get("rules", []) if record["class"]]
    first = np.array([rules[0] for rules in sample["rules"]], dtype=object)
    title = f"{len(sample):,} sampled tiles, by the first rule that chose them"
    colours = rule_colours({record["rule"]: record["class"] for record in rules})
    colours = {**style.colours_of(sorted(set(first) - set(colours))), **colours}
    return _map_of_kinds(sample, first, colours, title)


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
    """Each place in the colour of its kind, with the number of each kind; wide polygons are drawn whole."""
    of = np.array(kinds, dtype=object)
    names = sorted(set(of))
    colours = OUTCOMES if set(names) <= set(OUTCOMES) else style.colours_of(names)
    widths = np.ptp(places.geometry.bounds.to_numpy()[:, ::2], axis=1)
    return _map_of_kinds(places, of, colours, title, whole=len(places) > 0 and float(np.median(widths)) > LARGE)


def scene_map(items: Sequence[Item], title: str) -> bytes:
    """Where scenes lie, and in which months they were taken."""
    if not items:
        return style.nothing(title)
    points = shapely.point_on_surface([shapely.geometry.shape(item["geometry"]) for item in items])
    x, y = shapely.get_x(points), shapely.get_y(points)
    below = TOP + HEIGHT + 52
    figure = style.blank(title, below + 92)
    dots(map_panel(figure, x, y), x, y, style.BLUE)
    axes = style.panel(figure, LEFT, below, style.WIDTH - LEFT - RIGHT, 64, "scenes by month")
    counts = np.bincount([item_datetime(item).month - 1 for item in items], minlength=12)
    axes.bar(MONTHS, counts, color=list(style.period_colours(f"M{n}" for n in range(1, 13)).values()), width=0.7)
    label_bars(axes, np.arange(12), counts, [f"{n:,}" if n else "" for n in counts])
    return style.png(figure)


def label_bars(axes: Axes, x: Any, heights: Any, texts: Sequence[str]) -> None:
    """Write on every bar what it says, instead of a vertical axis."""
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
    """A point in each place; a centroid of a tile in two parts at ±180 would lie at 0."""
    points = tiles.geometry.representative_point()
    return points.x.to_numpy(), points.y.to_numpy()


def map_panel(figure: Any, x: Numbers, y: Numbers, width: float = style.WIDTH - LEFT - RIGHT) -> Axes:
    """The map of a picture, `width` pixels wide, with land, showing the part of the world where the places are."""
    axes = style.panel(figure, LEFT, TOP, width, HEIGHT)
    axes.set_facecolor(style.SEA)
    axes.add_collection(PolyCollection(_land(), facecolors=style.LAND, edgecolors=style.LAND, linewidths=0.5))
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
    """Places as dots, the smaller the more there are; `of`: how many there are on the whole map."""
    side = _dot(of or len(x)) * (1 if np.ptp(axes.get_xlim()) >= 360 else 1.15)
    edge = 0.3 if side > 4 else 0
    area = (side * 72 / style.DPI) ** 2
    axes.scatter(x, y, s=area, c=colour, linewidths=edge, edgecolors=style.INK, clip_on=False, zorder=2)


def shapes(axes: Axes, polygons: Any, colour: str, edge: str) -> None:
    """Places as they are; where edges have the same colour, neighbours run into each other."""
    drawn = PolyCollection(_rings(polygons), facecolors=colour, edgecolors=edge, linewidths=0.5, zorder=2)
    drawn.set_antialiased(edge != colour)  # mixed colours along the edges of many tiles would take many bytes
    axes.add_collection(drawn)


def coast(axes: Axes) -> None:
    """The coast, above what is on a map."""
    axes.add_collection(PolyCollection(_land(), facecolors="none", edgecolors=style.INK, linewidths=0.4, zorder=3))


def _map_of_kinds(
    places: gpd.GeoDataFrame, kinds: NDArray[Any], colours: Mapping[str, str], title: str, *, whole: bool = False
) -> bytes:
    counts = Counter(kinds)
    shown = {f"{kind} ({counts[kind]:,})": colour for kind, colour in colours.items() if counts[kind]}
    below = TOP + HEIGHT + 34
    figure = style.blank(title, round(below + style.legend_height(list(shown)) + 8))
    x, y = centres(places)
    axes = map_panel(figure, x, y)
    polygons = places.geometry.to_numpy()
    # The many first, so that the few lie on top.
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


def _rings(polygons: Any) -> list[NDArray[Any]]:
    return [shapely.get_coordinates(ring) for ring in shapely.get_exterior_ring(shapely.get_parts(polygons))]


@lru_cache(maxsize=1)
def _land() -> list[NDArray[Any]]:
    file = files("pyogrio") / OUTLINES
    if not file.is_file():
        return []
    countries = gpd.read_file(str(file)).geometry.to_numpy()
    return _rings(shapely.simplify(shapely.union_all(shapely.make_valid(countries)), SIMPLIFIED))


def _extent(x: Numbers, y: Numbers, shape: float) -> tuple[float, float, float, float, float]:
    """West, east, south, north and the aspect of a map whose panel is `shape` times as wide as high."""
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
    """Pixels."""
    return float(np.interp(np.log10(max(count, 1)), [1.7, 3, 4, 4.5], [8, 5, 2.2, 2]))


def _degrees(value: float, negative: str, positive: str) -> str:
    value = round((value + 180) % 360 - 180, 6) if positive == "E" else value  # a map may reach beyond 180°
    if value in (0, -180):
        return f"{abs(value):g}°"
    return f"{abs(value):g}°{negative if value < 0 else positive}"
