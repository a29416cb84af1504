"""The common style of all pictures: size, fonts, colours and file size.

All are as wide as the dialogue of the Dagster UI, which does not scale them. A category has the same colour in every
picture. Colours suit colour-blind readers: first those of Okabe and Ito, "Color Universal Design", 2008,
https://jfly.uni-koeln.de/color/, then those of Tol, "Colour schemes", technical note SRON/EPS/TN/09-002, 2021.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageFont

from clay_assets.platforms import PLATFORMS
from clay_assets.recipes.classes import WORLDCOVER_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTHING_TO_DO = "nothing to do in this partition"
DPI = 90
WIDTH = 720  # pixels
EDGE = 14  # pixels of margin
TITLE, TEXT, SMALL = 11, 9, 8.5  # points
MOST_BYTES = 48_000
# Resolution and number of colours of a drawing; the first that fits is used. The last is for noise, not real data.
PALETTES = ((1, 256), (1, 128), (1, 64), (1, 32), (1, 12), (0.6, 24))
QUALITIES = (88, 78, 66, 52, 38, 24)  # the same for photographs

INK, GREY, PALE = "#26323c", "#aab4bb", "#dde3e7"
LAND, SEA = "#e9ecee", "white"
GREEN, ORANGE, VERMILION, BLUE = "#009e73", "#e69f00", "#d55e00", "#0072b2"
NODATA = "#9aa3a9"  # nodata pixels in photographs
CATEGORIES = (
    BLUE,
    ORANGE,
    GREEN,
    "#cc79a7",
    "#56b4e9",
    VERMILION,
    "#332288",
    "#999933",
    "#882255",
    "#7f3b08",
    "#b2abd2",
    "#f0e442",
)
# A cyclic palette for the year, starting in January: northern winter and summer.
YEAR = LinearSegmentedColormap.from_list("year", ["#0072b2", "#44aa99", "#b6b62b", "#e69f00", "#aa4499", "#0072b2"])
# WorldCover's own legend: ESA WorldCover 2021 v200 product user manual, table 1.
CLASS_COLOURS = dict(
    zip(
        WORLDCOVER_CLASSES.values(),
        (
            "#006400",
            "#ffbb22",
            "#ffff4c",
            "#f096ff",
            "#fa0000",
            "#b4b4b4",
            "#f0f0f0",
            "#0064c8",
            "#0096a0",
            "#00cf75",
            "#fae6a0",
        ),
        strict=True,
    )
)
DIVERSE = "#54278f"  # tiles chosen for their class diversity
_PERIOD = re.compile(r"^(?P<unit>[QM])(?P<number>\d{1,2})$")
_PARTS = {"Q": 4, "M": 12}  # in a year


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Name → colour, in the given order; the palette repeats if it is too short."""
    return {name: CATEGORIES[number % len(CATEGORIES)] for number, name in enumerate(names)}


def platform_colours() -> dict[str, str]:
    """Platform key → its colour in every picture."""
    return colours_of(sorted(PLATFORMS))


def period_colours(periods: Iterable[str]) -> dict[str, str]:
    """Period → colour: quarters and months by season, others as categories."""
    names = list(periods)
    others = colours_of(name for name in names if not _PERIOD.match(name))
    found: dict[str, str] = {}
    for name in names:
        period = _PERIOD.match(name)
        found[name] = (
            to_hex(YEAR((int(period["number"]) - 0.5) / _PARTS[period["unit"]] % 1)) if period else others[name]
        )
    return found


def new_figure(title: str, height: int) -> Figure:
    """An empty picture with its title, `height` pixels high."""
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    text(figure, EDGE, 21, title, TITLE, weight="bold")
    return figure


def text(figure: Figure, left: float, middle: float, text: str, points: float = TEXT, **more: Any) -> None:
    """Write text in a picture; x is its left edge and y its vertical centre, in pixels from the upper left corner."""
    tall = figure.get_figheight() * DPI
    figure.text(left / WIDTH, 1 - middle / tall, text, **{"fontsize": points, "color": INK, "va": "center", **more})


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, title: str = "") -> Axes:
    """Add axes to a picture, in pixels from its upper left corner; the title is above them."""
    tall = figure.get_figheight() * DPI
    axes: Axes = figure.add_axes((left / WIDTH, 1 - (top + height) / tall, width / WIDTH, height / tall))
    axes.tick_params(labelsize=SMALL, colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_color(PALE)
    if title:
        text(figure, left, top - 13, title)
    return axes


def photograph(figure: Figure, left: float, top: float, side: int, image: NDArray[np.uint8] | None) -> None:
    """Add a square image, (side, side, 3), to a picture; None: an empty frame.

    Axes would take longer than the rest of the picture.
    """
    tall = figure.get_figheight() * DPI
    if image is not None:
        figure.figimage(image, round(left), round(tall - top - side), origin="upper")
    corner, shape = (left / WIDTH, 1 - (top + side) / tall), (side / WIDTH, side / tall)
    face = LAND if image is None else "none"
    frame = Rectangle(corner, *shape, facecolor=face, edgecolor=PALE, linewidth=0.8, transform=figure.transFigure)
    figure.add_artist(frame)


def legend(figure: Figure, top: float, colours: Mapping[str, str], left: float = EDGE, width: float = 0) -> float:
    """Draw a legend in as many columns as fit; returns its height in pixels."""
    if not colours:
        return 0
    room = width or WIDTH - left - EDGE
    columns, _ = _columns(list(colours), room)
    patches = [Patch(facecolor=c, edgecolor=INK, linewidth=0.3, label=name) for name, c in colours.items()]
    tall = figure.get_figheight() * DPI
    figure.legend(
        handles=patches,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, 1 - top / tall),
        ncols=columns,
        fontsize=TEXT,
        labelcolor=INK,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1,
        handleheight=1,
        handletextpad=0.5,
        columnspacing=1.4,
        labelspacing=0.35,
    )
    return legend_height(list(colours), room)


def legend_height(names: Sequence[str], room: float = WIDTH - 2 * EDGE) -> float:
    """Height in pixels of a legend of these names."""
    return 17 * _columns(names, room)[1] + 4


def _columns(names: Sequence[str], room: float) -> tuple[int, int]:
    """Number of columns and rows."""
    letters = ImageFont.truetype(findfont("DejaVu Sans"), TEXT * DPI / 72)
    entry = 35 + max(map(letters.getlength, names), default=0)  # pixels
    columns = max(1, min(len(names), int(room // entry)))
    rows = -(-len(names) // columns)
    return -(-len(names) // max(1, rows)), rows


def format_count(number: float) -> str:
    """A count in short form."""
    return (
        f"{number / 1e6:,.1f} M" if number >= 1e6 else f"{number / 1e3:,.0f} k" if number >= 1e5 else f"{number:,.0f}"
    )


def empty_picture(title: str, why: str = NOTHING_TO_DO) -> bytes:
    """A picture that says why there is nothing to draw."""
    figure = new_figure(title, 120)
    text(figure, WIDTH / 2, 70, why, ha="center")
    return png(figure)


def png(figure: Figure) -> bytes:
    """Encode a drawing as a PNG with few colours; thousands of coloured dots would otherwise not fit the event log."""
    drawn = _rendered(figure)
    for scale, colours in PALETTES:
        if scale < 1:
            drawn = drawn.resize((round(drawn.width * scale), round(drawn.height * scale)), Image.Resampling.BOX)
        buffer = io.BytesIO()
        _of_few_colours(drawn, colours).save(buffer, format="png")
        if len(buffer.getvalue()) <= MOST_BYTES:
            break
    return buffer.getvalue()


def jpeg(figure: Figure) -> bytes:
    """Encode a picture with photographs as JPEG."""
    drawn = _rendered(figure)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        drawn.save(buffer, format="jpeg", quality=quality, optimize=True)
        if len(buffer.getvalue()) <= MOST_BYTES:
            break
    return buffer.getvalue()


def _of_few_colours(drawn: Image.Image, count: int) -> Image.Image:
    """Reduce the drawing to a palette; half of it are the exact most frequent colours.

    Pillow's own palettes blend rare colours, so that a category would no longer match its legend.
    """
    pixels = np.asarray(drawn)
    packed = pixels[..., 0] * np.uint32(1 << 16) + pixels[..., 1] * np.uint32(1 << 8) + pixels[..., 2]
    found: Any = drawn.getcolors(drawn.width * drawn.height)
    counted = sorted(found, key=lambda one: (-one[0], one[1]))
    colours = np.array([colour for _, colour in counted])
    exact = colours[: count // 2]
    mixed = np.array(drawn.quantize(count - len(exact)).getpalette()).reshape(-1, 3)[: count - len(exact)]
    palette = np.concatenate([exact, mixed])
    nearest = ((colours[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
    # A table of all possible colours, few pages of which are touched: ten times as fast as sorting pixels.
    table = np.empty(1 << 24, np.uint8)
    table[colours @ (1 << 16, 1 << 8, 1)] = nearest
    image = Image.fromarray(table[packed])
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    return image


def _rendered(figure: Figure) -> Image.Image:
    canvas: Any = figure.canvas  # from Agg, see `new_figure`
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
