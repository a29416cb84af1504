"""Finds out whether the pixel values of a Sentinel-2 Level-2A scene include the offset of 1000.

Since processing baseline 04.00 (25 January 2022) ESA stores reflectance × 10,000 + 1000, so that slightly negative
reflectance is kept (Sentinel-2 Products Specification Document, BOA_ADD_OFFSET). Earth Search subtracts the offset
from most of its files, but some of its items have wrong metadata about it:
https://github.com/Element84/earth-search/issues/66 and 71. So pixels decide, and flags only if pixels are inconclusive.

Pixels give two kinds of evidence. Dark ones lie near 0, or near 1000: water, shadow and dense vegetation are nearly
black. And in a bright scene, shade still darkens all bands in proportion, so that lines through the dark and the
typical values of any two bands meet where reflectance is 0: at 0, or at 1000.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from clay_assets.platforms.processing import version_of
from clay_assets.platforms.properties import is_number, label_of
from clay_assets.platforms.radiometry import NODATA, Evidence, Overviews, RadiometricOffset, Radiometry
from clay_assets.stac import Item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OFFSET = 1000
OFFSET_SINCE = (4, 0)  # processing baseline
EARLIEST = (2, 0)  # of Level-2A products; a lower number is the version of something else
# If neither pixels nor flags decide: Earth Search subtracted the offset from most of its files.
DEFAULT = 0

BASELINE = ("s2:processing_baseline", "sentinel2:processing_baseline")
PRODUCT, DATATAKE = ("s2:product_uri", "sentinel:product_id"), "s2:datatake_id"
VERSION = "processing:version"  # of the STAC processing extension
APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "sentinel2:boa_offset_applied")
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
# S2B_MSIL2A_20200501T174909_N0500_R141_T13SDV_20230504T032818.SAFE: baseline, and production time
PRODUCT_ID = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{6}_N(\d{4})_R\d{3}_T\w{5}_(\d{8}T\d{6})(?:\.SAFE)?")

# The lowest valid value marks clipped pixels and detector edges, with or without the offset. It is evidence of dark
# ground only if there is more of it than at edges.
CLIPPED, EDGES = 1, 0.03  # value; share of the valid pixels
ENOUGH = 1000  # pixels of a band
# Percentiles: the darkest thousand of a tile's 470,000 pixels in an overview of factor 16; typical shade; median.
DARKEST, DARK, USUAL = 0.2, 0.5, 50
# Values without the offset reach down to 0; with it, to a few hundred below 1000, for slightly negative reflectance.
WITHOUT, WITH = 500, 650
# With the offset, something dark is near 1000 in some band, and in red and blue, in which land is darkest. Only soil
# is darker in blue than in red.
NEAR, NEAR_RED, NEAR_BLUE, SOIL = 1200, 1250, 1500, 150
PROJECTED = ("blue", "green", "red", "swir16")
APART = 700  # minimum difference in contrast of two bands, for a well-defined intersection of their lines
MEETING = 400  # maximum distance from 0 or from 1000
PAIRS = 3


def stated_baselines(item: Item) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every processing baseline that an item states: (where, version), most reliable first."""
    properties = item["properties"]
    product = product_of(item)
    told = {
        **{name: properties.get(name) for name in BASELINE},
        "product": product[1] if product else None,
        DATATAKE: label_of(properties, DATATAKE).rpartition("_")[2],  # GS2B_20200501T174909_016469_N05.00
        VERSION: properties.get(VERSION),
    }
    return ((where, version) for where, value in told.items() if (version := version_of(value)) is not None)


def product_of(item: Item) -> re.Match[str] | None:
    """The product's id, from the properties or else from the item's id: baseline and production time."""
    return PRODUCT_ID.search(label_of(item["properties"], *PRODUCT)) or PRODUCT_ID.search(str(item.get("id")))


def decide(item: Item, overviews: Overviews | Callable[[], Overviews]) -> RadiometricOffset:
    """Whether the pixel values of a scene include the offset; see `Radiometry.decide`.

    Before baseline 04.00 there is none, however bright the scene. From 04.00 on, and if an item states no baseline or
    contradictory ones, the pixels decide; if they are inconclusive, the flags; else there is none (`DEFAULT`).
    """
    stated = {where: version for where, version in stated_baselines(item) if version >= EARLIEST}
    versions = list(stated.values())
    since = {version >= OFFSET_SINCE for version in versions}
    text = "{:02}.{:02}".format(*versions[0]) if len(since) == 1 else None
    applied, noted = _applied(item["properties"]), _noted(item)
    if since == {False}:
        wrong = ["that its offset was taken away"] if applied else []
        wrong += ["that its bands hold one"] if noted else []
        doubt = f"baseline {text} has no offset, but the item tells {' and '.join(wrong)}" if wrong else None
        return RadiometricOffset(0, "baseline", text, 0 if applied else noted, contradiction=doubt)

    flagged = _flagged(applied, noted, since == {True})
    doubts = []
    if len(since) == 2:
        named = ", ".join("{} {:02}.{:02}".format(where, *version) for where, version in stated.items())
        doubts.append(f"the item states baselines before and after 04.00 ({named})")
    lows, projected, seen = _seen(overviews() if callable(overviews) else overviews)
    if seen is not None and flagged is not None and seen != flagged:
        doubts.append(f"pixels {_with(seen)} the offset, but the item's flags tell that they {_with(flagged)} it")
    doubt = "; ".join(doubts) or None
    ranked: tuple[tuple[int | None, Evidence], ...] = ((seen, "pixels"), (flagged, "flags"))
    for offset, evidence in ranked:
        if offset is not None:
            return RadiometricOffset(offset, evidence, text, flagged, lows, projected, doubt)
    return RadiometricOffset(DEFAULT, "default", text, flagged, lows, projected, doubt)


def _with(offset: int) -> str:
    return "hold" if offset else "lack"


def _flagged(applied: bool | None, noted: int | None, since: bool) -> int | None:
    """The offset by the item's flags; the baseline says whether there ever was one.

    The applied flag outranks the offsets noted at the bands, which many items copy from the product whether they still
    hold or not. A flag that none was applied only counts if there was one.
    """
    if applied:
        return 0
    return OFFSET if applied is False and since else noted


def _applied(properties: Mapping[str, Any]) -> bool | None:
    """Whether an item says that the offset was subtracted."""
    import numpy as np

    for name in APPLIED:
        value = properties.get(name)
        text = value.strip().lower() if isinstance(value, str) else value
        if isinstance(text, (bool, np.bool_, int, float, str)) and text in (True, False, "true", "false"):
            return text in (True, "true")
    return None


def _noted(item: Item) -> int | None:
    """The offset noted at the bands of an item; None if there is none, another one, or several."""
    noted = {value for name in BANDS for value in _offsets(item["assets"].get(name))}
    # In reflectance, as in STAC, or in the product's unit; noted is the value to add.
    known = {-0.1: OFFSET, -float(OFFSET): OFFSET, 0.0: 0}
    return known.get(noted.pop()) if len(noted) == 1 else None


def _offsets(asset: Any) -> Iterator[float]:
    """Offsets of an asset by the raster extension: in `raster:bands` (1.1), or in `bands` or the asset (2.0)."""
    import numpy as np

    if not isinstance(asset, Mapping):
        return
    entries = [(asset, "raster:offset")]
    for listed, name in (("raster:bands", "offset"), ("bands", "raster:offset")):
        found = asset.get(listed)
        entries += [(one, name) for one in (found if isinstance(found, (list, tuple, np.ndarray)) else ())]
    for one, name in entries:
        value = one.get(name) if isinstance(one, Mapping) else None
        if is_number(value):
            yield round(float(value), 6) + 0.0  # no -0.0


def _seen(overviews: Overviews) -> tuple[dict[str, float], float | None, int | None]:
    """Low percentile of each band, the value at which the bands converge, and the offset by both; None if unknown."""
    import numpy as np

    levels = {name: level for name in BANDS if (level := _levels(overviews.get(name))) is not None}
    lows = {name: float(level[0]) for name, level in levels.items()}
    if not lows:
        return lows, None, None
    if min(lows.values()) < WITHOUT:
        return lows, None, 0
    met = [_meeting(levels, dark) for dark in (0, 1)]
    meetings = np.concatenate(met)
    fit = [offset for offset in (0, OFFSET) if (abs(meetings - offset) <= MEETING).all()]
    projected = float(np.median(meetings)) if min(map(len, met)) >= PAIRS else None
    by_shade = fit[0] if fit and projected is not None else None
    red, blue = lows.get("red", np.inf), lows.get("blue", lows.get("red", np.inf))
    if WITH <= min(lows.values()) <= NEAR and red <= NEAR_RED and red - SOIL <= blue <= NEAR_BLUE:
        return lows, projected, None if by_shade == 0 else OFFSET
    return lows, projected, by_shade


def _levels(pixels: Any) -> NDArray[np.float64] | None:
    """The percentiles of a band's valid pixels; None if there are too few."""
    import numpy as np

    if pixels is None:
        return None
    flat = np.ma.filled(pixels, NODATA).ravel()
    valid = flat[np.isfinite(flat) & (flat > NODATA)]
    clear = valid[valid > CLIPPED]
    valid = clear if valid.size - clear.size < EDGES * valid.size else valid
    return _percentiles(valid, (DARKEST, DARK, USUAL)) if valid.size >= ENOUGH else None


def _percentiles(values: NDArray[Any], wanted: Sequence[float]) -> NDArray[np.float64]:
    """`np.percentile`; for uint16 by counting, which takes a tenth of the time."""
    import numpy as np

    if values.dtype != np.uint16:
        exact: NDArray[np.float64] = np.percentile(values, wanted)
        return exact
    below = np.cumsum(np.bincount(values))
    places = np.asarray(wanted) / 100 * (values.size - 1)
    low = np.floor(places)
    # The values at these ranks; between two, numpy interpolates from the nearer one.
    first, second = (np.searchsorted(below, low + more, side="right").astype(np.float64) for more in (0, 1))
    part, apart = places - low, second - first
    return np.where(part < 0.5, first + apart * part, second - apart * (1 - part))


def _meeting(levels: Mapping[str, NDArray[np.float64]], dark: int) -> NDArray[np.float64]:
    """Where the lines through dark and typical values cross the diagonal, for every two bands of different contrast."""
    import numpy as np

    found = []
    for one, other in combinations([levels[name] for name in PROJECTED if name in levels], 2):
        apart = (one[dark] + other[-1]) - (other[dark] + one[-1])
        if abs(apart) >= APART:
            found.append((one[dark] * other[-1] - other[dark] * one[-1]) / apart)
    return np.array(found)


RADIOMETRY = Radiometry(BANDS, decide)
