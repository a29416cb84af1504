"""A contact sheet: some chips of one scene with their cloud and nodata shares, from the clearest to the most covered.

Only one scene of a cell and at most `CHIPS` windows of it are read, as reads may be billed. The scene and its chips are
drawn by keyed hash, so a re-run shows the same. Unreadable chips are empty frames with a note, as a picture must not
fail a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from clay_assets.chips.cells import ChipCell
from clay_assets.chips.index import dataset_of
from clay_assets.chips.quality import read_windows, source_of
from clay_assets.draws import keyed_hash
from clay_assets.errors import ClayError, InputError
from clay_assets.pictures import style
from clay_assets.pictures.stretch import Stretch
from clay_assets.platforms import platform_of
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.offsets import radiometric_offset
from clay_assets.platforms.radiometry import harmonise
from clay_assets.sources.cog import BlockReader
from clay_assets.stac import Item
from clay_assets.storage import layout
from clay_assets.transport.access import without_signature

CHIPS, COLUMNS = 8, 4
FRAME, GAP = 160, 17  # pixels
TOP, LABEL = 70, 46  # pixels
LETTERS = 110  # characters of a line that are shown
MEASURED = 2  # every n-th pixel in both directions is used to derive the stretch
DRAW = "contact_sheet"


@dataclass(frozen=True)
class Frame:
    """One chip of a sheet.

    Attributes:
        x, y: column and row of the chip in its scene.
        cloud, nodata: shares, 0 to 1.
        pixels: float32, (bands, size, size); None if they could not be read.
        valid: mask of valid pixels, (size, size).
        clear: mask of valid pixels without cloud.
    """

    x: int
    y: int
    cloud: float
    nodata: float
    pixels: NDArray[np.float32] | None = None
    valid: NDArray[np.bool_] | None = None
    clear: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Sheet:
    """The content of a contact sheet: a scene, its chips, and why some could not be read."""

    item_id: str
    frames: list[Frame]
    note: str = ""


def contact_sheet(cell: ChipCell, items: Sequence[Item], seed: int, size: int, title: str) -> bytes:
    """Draw a contact sheet of one scene of a cell.

    Args:
        cell: the cell to show.
        items: the cell's scenes, with readable hrefs.
        seed: the recipe's seed.
        size: side length of a chip in pixels of the finest grid.
        title: the picture's title; the scene is named below it.
    """
    sheet = read_sheet(cell, items, seed, size)
    if sheet is None:
        return style.empty_picture(
            title, "nothing to do in this partition" if cell.ledger.empty else "no chips in any scene"
        )
    rows = -(-len(sheet.frames) // COLUMNS)
    tall = TOP + rows * (FRAME + LABEL) + 4
    figure = style.new_figure(title, tall)
    told = f"not read: {sheet.note}" if sheet.note else "from the clearest to the most covered; grey: nodata"
    for number, text in enumerate((f"scene {sheet.item_id}", told)):
        style.text(figure, style.EDGE, 40 + 16 * number, shorten(text, LETTERS, placeholder=" …"))
    for number, (frame, image) in enumerate(zip(sheet.frames, images(sheet.frames), strict=True)):
        row, column = divmod(number, COLUMNS)
        left, top = style.EDGE + column * (FRAME + GAP), TOP + row * (FRAME + LABEL)
        style.photograph(figure, left, top, FRAME, image)
        if image is None:
            style.text(figure, left + FRAME / 2, top + FRAME / 2, "not read", ha="center")
        label = f"{frame.x}-{frame.y}\ncloud {frame.cloud:.0%}, nodata {frame.nodata:.0%}".replace("%", " %")
        style.text(figure, left, top + FRAME + 4, label, style.SMALL, va="top")
    return style.jpeg(figure)


def read_sheet(cell: ChipCell, items: Sequence[Item], seed: int, size: int) -> Sheet | None:
    """Select a scene and some of its chips, and read them; None if the cell has no chips."""
    item_id = draw_scene(cell, seed)
    if item_id is None:
        return None
    key = layout.chips(cell.platform, cell.year, item_id)
    columns = ["chip_index_x", "chip_index_y", "cloud_cover_percentage", "nodata_percentage"]
    chips = dataset_of(cell.store, [key]).to_table(columns=columns).to_pandas()
    chips.columns = ["x", "y", "cloud", "nodata"]
    drawn = [Frame(*chip) for chip in draw_chips(chips, item_id, seed).itertuples(index=False)]
    item = next((item for item in items if item["id"] == item_id), None)
    if item is None:
        return Sheet(item_id, drawn, "the scene is no longer among the items")
    return _read(platform_of(cell.platform).with_access(cell.store.access), item, drawn, size)


def draw_scene(cell: ChipCell, seed: int) -> str | None:
    """Select the scene with the lowest hash among those with `CHIPS` chips, or else among those with the most."""
    scenes = cell.scenes[cell.scenes["chips"] > 0]
    if scenes.empty:
        return None
    enough = scenes[scenes["chips"] >= min(CHIPS, scenes["chips"].max())]
    return min(map(str, enough["item_id"]), key=lambda name: keyed_hash(seed, DRAW, cell.platform, cell.year, name))


def draw_chips(chips: pd.DataFrame, item_id: str, seed: int) -> pd.DataFrame:
    """Select the chip with the lowest hash in each group, from the clearest to the most covered.

    Args:
        chips: `x`, `y`, `cloud` and `nodata` of all chips of the scene.
        item_id: the scene.
        seed: the recipe's seed.
    """
    hashes = [keyed_hash(seed, DRAW, item_id, x, y) for x, y in zip(chips["x"], chips["y"], strict=True)]
    ordered = chips.assign(covered=chips["cloud"] + chips["nodata"], hash=hashes).sort_values(["covered", "hash"])
    groups = np.arange(len(ordered)) * min(CHIPS, len(ordered)) // max(1, len(ordered))
    return ordered.assign(group=groups).sort_values("hash").drop_duplicates("group").sort_values("group")[list(chips)]


def images(frames: Sequence[Frame]) -> list[NDArray[np.uint8] | None]:
    """The frames in natural colours, (FRAME, FRAME, 3); nodata is grey.

    The stretch is derived from clear pixels, so that clouds are white.
    """
    valid, clear = _measured(frames, "valid"), _measured(frames, "clear")
    stretch = Stretch.of(clear if clear.size else valid, valid)
    return [_image(frame, stretch) for frame in frames]


def _measured(frames: Sequence[Frame], where: Literal["clear", "valid"]) -> NDArray[np.float32]:
    """A subsample of the clear or the valid pixel values of all frames: (bands, pixels)."""
    some = np.s_[..., ::MEASURED, ::MEASURED]
    found = [frame.pixels[some][:, getattr(frame, where)[some]] for frame in frames if frame.pixels is not None]
    return np.concatenate(found, axis=1) if found else np.empty((1, 0), np.float32)


def _image(frame: Frame, stretch: Stretch) -> NDArray[np.uint8] | None:
    if frame.pixels is None or frame.valid is None:
        return None
    shown = stretch.applied(np.nan_to_num(frame.pixels))
    colours = np.broadcast_to(shown, (3, *shown.shape[1:])).transpose(1, 2, 0) * 255
    colours = np.where(frame.valid[:, :, None], colours, np.array(to_rgb(style.NODATA)) * 255)
    image = Image.fromarray(np.rint(colours).astype(np.uint8))
    return np.asarray(image.resize((FRAME, FRAME), Image.Resampling.BOX))


def _read(platform: AnyPlatform, item: Item, drawn: Sequence[Frame], size: int) -> Sheet:
    frames = list(drawn)
    try:
        assets = [asset for asset, _ in platform.assets.view]
        judged = [name for name in platform.quality.assets if name in item["assets"]]
        missing = platform.missing(item, [*assets, *platform.quality.assets])
        if missing:
            raise InputError(f"{item['id']}: no asset {', '.join(missing)}")
        sources = {name: source_of(platform, item, name) for name in dict.fromkeys([*assets, *judged])}
        finest = sources[assets[0]].header.width
        sides = {name: size * source.header.width // finest for name, source in sources.items()}
        measure = None if platform.quality.reads == "mask" else 1
        shown = [(name, band, size) for name, band in platform.assets.view]
        wanted = [*shown, *((name, measure, sides[name]) for name in judged)]
        with closing(BlockReader(platform.files.access)) as reader:
            headers = {name: source.header for name, source in sources.items()}
            radiometric = radiometric_offset(platform, item, headers, reader)
            for number, frame in enumerate(frames):
                found = read_windows(
                    reader,
                    [
                        (sources[name], band, Window(frame.x * side, frame.y * side, side, side))
                        for name, band, side in wanted
                    ],
                )
                pixels = harmonise(np.stack(found[: len(shown)]), radiometric.offset)
                repeated = (
                    part.repeat(size // side, axis=0).repeat(size // side, axis=1)
                    for part, (_, _, side) in zip(found, wanted, strict=True)
                )
                cloud, nodata = platform.quality.judge(dict(zip(judged, [*repeated][len(shown) :], strict=True)))
                valid = ~nodata & np.isfinite(pixels).all(axis=0)
                frames[number] = replace(frame, pixels=pixels.astype(np.float32), valid=valid, clear=valid & ~cloud)
    except ClayError as error:
        return Sheet(item["id"], frames, without_signature(str(error)))
    return Sheet(item["id"], frames)
