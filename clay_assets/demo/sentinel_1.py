"""Sentinel-1 scenes and items in the form of the Planetary Computer's `sentinel-1-rtc`.

Each place has two footprints: one well inside its MGRS tile and one across the tile's eastern edge. Scenes of a place
share a few files: float32 gamma nought, linear power, nodata tag −32768, 10 m, in the tile's UTM zone. Items keep the
catalogue's quirks: `start_datetime` and `end_datetime` with a space instead of the T, a transform of nine numbers.

Properties: STAC extensions SAR 1.0 and Satellite 1.0. Names: Sentinel-1 Product Specification, S1-RS-MDA-52-7441.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from clay_assets.demo.calendar import FIRST_DAY, LAST_DAY, QUARTERS, YEARS
from clay_assets.demo.grid import TILE_SIZE, tile, to_lonlat
from clay_assets.demo.imagery import write_raster
from clay_assets.demo.noise import generator, ranked, smooth_field
from clay_assets.demo.sites import SENTINEL_1, Site, wedge_widths
from clay_assets.demo.stac import GEOTIFF, RASTER, Json, item, stamp
from clay_assets.demo.truth import ChipCounts, Made

TILES = ("01KAB", "06VUP", "32NLG", "33UUU", "33UVU", "34HBH")
WIDTH, HEIGHT, PIXEL, CHIP = 900, 700, 10, 256
INSIDE_SHARE = 0.4  # share of the width of a scene at the tile's edge that is inside the tile
PATCH = 10  # width of a patch of equal backscatter, pixels
SPECK = 5  # width of a speck without backscatter, pixels
NODATA = -32768
BORDER = 40  # pixels of NaN around a scene
SLICE = timedelta(seconds=25)  # duration of a product
EXTENSIONS = [
    "https://stac-extensions.github.io/sar/v1.0.0/schema.json",
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
    "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.0.0/schema.json",
    RASTER,
]
_WAY = {"V": "vertical", "H": "horizontal"}

# Nodata pixels at the left, at the top and at the bottom of the scene.
WEDGES = {"wedge": (350, 90), "strip": (128, 128)}  # a strip half a chip wide


@dataclass(frozen=True)
class Draft:
    """The properties of one acquisition in a kind of quarter.

    Attributes:
        where: `inside` the tile or at its `edge`.
        pixels: `plain`, `wedge`, `strip`, `speckle` (some VV, elsewhere some VH not above 0) or `nan` (its border).
        mode: `IW`, or `EW` with HH and HV.
        polarizations: polarizations of its assets.
    """

    where: str
    pixels: str = "plain"
    mode: str = "IW"
    polarizations: tuple[str, ...] = ("VV", "VH")


EDGE = Draft("edge")
ONLY_VV = Draft("inside", polarizations=("VV",))
EXTRA_WIDE = Draft("inside", mode="EW", polarizations=("HH", "HV"))

# Kind of quarter → (number among the 24 quarters, its acquisitions ordered by time).
SENTINEL_1_QUARTERS: dict[str, tuple[int, tuple[Draft, ...]]] = {
    "empty": (2, ()),
    "edge_first": (4, (EDGE, Draft("inside"))),
    "inside_first": (4, (Draft("inside", "wedge"), EDGE)),
    "equal_overlap": (4, (Draft("inside", "speckle"), Draft("inside", "nan"), EDGE)),
    "single_polarization": (3, (ONLY_VV, EDGE)),
    "only_single_polarization": (1, (ONLY_VV,)),
    "extra_wide": (2, (EXTRA_WIDE, EDGE)),
    "only_extra_wide": (1, (EXTRA_WIDE,)),
    "strip": (3, (Draft("inside", "strip"), EDGE)),
}


def sentinel_1_site(name: str, where: str) -> Site:
    """The grid of one footprint of a tile: `inside` it (across ±180 if the tile is) or at its eastern `edge`."""
    one = tile(name)
    x, y = one.left + TILE_SIZE / 2, one.top - TILE_SIZE / 2
    if where == "edge":
        x = one.left + TILE_SIZE + (0.5 - INSIDE_SHARE) * WIDTH * PIXEL
    elif one.polygon.geom_type == "MultiPolygon":
        latitude = to_lonlat(one.epsg).transform(x, y)[1]
        x = Transformer.from_crs(4326, one.epsg, always_xy=True).transform(180, latitude)[0]
    left, top = (round(v / PIXEL) * PIXEL for v in (x - WIDTH * PIXEL / 2, y + HEIGHT * PIXEL / 2))
    return Site(name, (name,), one.epsg, left, top, WIDTH, HEIGHT, PIXEL, CHIP)


def sentinel_1_kinds(seed: int, name: str) -> dict[tuple[int, int], str]:
    """The kind of each (year, quarter) of a tile: a key of `SENTINEL_1_QUARTERS`."""
    kinds = [kind for kind, (times, _) in SENTINEL_1_QUARTERS.items() for _ in range(times)]
    order = generator(seed, "sentinel-1", name, "quarters").permutation(len(kinds))
    quarters = [(year, quarter) for year in YEARS for quarter in QUARTERS]
    return {when: kinds[index] for when, index in zip(quarters, order, strict=True)}


def sentinel_1_quarters(seed: int) -> list[dict[str, Any]]:
    """Rows of `Planet.quarters`."""
    return [
        {"family": "sentinel-1", "site": name, "tiles": [name], "year": year, "quarter": quarter, "kind": kind}
        for name in TILES
        for (year, quarter), kind in sentinel_1_kinds(seed, name).items()
    ]


def draw_sentinel_1(folder: Path, seed: int, pool: Executor) -> list[Future[list[Made]]]:
    """Draw every scene of `sentinel-1-rtc`."""
    return [pool.submit(_place, folder, seed, name) for name in TILES]


def _place(folder: Path, seed: int, name: str) -> list[Made]:
    sites = {where: sentinel_1_site(name, where) for where in ("inside", "edge")}
    grounds = {where: _backscatter(seed, site, where) for where, site in sites.items()}
    drafts = sorted({draft for _, of_kind in SENTINEL_1_QUARTERS.values() for draft in of_kind}, key=repr)
    truth, written = {}, set()
    for draft in drafts:
        site = sites[draft.where]
        bands = dict(zip(("VV", "VH"), _pixels(seed, site, draft.pixels, grounds[draft.where]), strict=True))
        empty = np.zeros((HEIGHT, WIDTH), bool)
        for polarization in draft.polarizations:
            # HH is drawn like VV (co-polarized) and HV like VH (cross-polarized).
            like = "VV" if polarization in ("VV", "HH") else "VH"
            empty |= ~(bands[like] > 0)
            path = _file(folder, name, draft, polarization)
            if path not in written:
                write_raster(path, bands[like], site.epsg, site.left, site.top, PIXEL, nodata=NODATA)
                written.add(path)
        truth[draft] = ChipCounts.of_mask(empty, CHIP)
    made: list[Made] = []
    for (year, quarter), kind in sentinel_1_kinds(seed, name).items():
        rng = generator(seed, "sentinel-1", name, year, quarter)
        of_kind = SENTINEL_1_QUARTERS[kind][1]
        days = np.sort(rng.choice(np.arange(FIRST_DAY, LAST_DAY + 1), len(of_kind), replace=False))
        for draft, day in zip(of_kind, days, strict=True):
            start = datetime(year, 3 * quarter - 2, 1, tzinfo=UTC) + timedelta(
                days=int(day),
                hours=6 - sites["inside"].middle[0] / 15,
                seconds=int(rng.integers(-900, 900)),
                microseconds=int(rng.integers(1_000_000)),
            )
            start = start.replace(microsecond=start.microsecond or 1)
            made.append((_item(folder, sites[draft.where], draft, start, int(rng.integers(2**24))), truth[draft]))
    return made


def _file(folder: Path, name: str, draft: Draft, polarization: str) -> Path:
    place = folder / "imagery" / SENTINEL_1 / f"{name}_{draft.where}_{draft.pixels}"
    return place / f"{draft.mode.lower()}-{polarization.lower()}.rtc.tiff"


def _backscatter(seed: int, site: Site, where: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """VV and VH of a place, linear gamma nought around −9 dB and −16 dB, in patches."""
    shape = (HEIGHT // PATCH, WIDTH // PATCH)
    field = smooth_field(generator(seed, "backscatter", site.name, where), shape, 20)
    return tuple(  # type: ignore[return-value]
        (10 ** ((middle + 2 * field) / 10)).astype(np.float32).repeat(PATCH, axis=0).repeat(PATCH, axis=1)
        for middle in (-9, -16)
    )


def _pixels(
    seed: int, site: Site, kind: str, ground: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """VV and VH pixels of one draft."""
    vv, vh = (band.copy() for band in ground)
    if kind in WEDGES:
        mask = np.arange(WIDTH) < wedge_widths(site, WEDGES[kind])[:, None]
        vv[mask] = vh[mask] = NODATA
    elif kind == "nan":
        for band in (vv, vh):
            band[:BORDER] = band[-BORDER:] = np.nan
            band[:, :BORDER] = band[:, -BORDER:] = np.nan
    elif kind == "speckle":
        field = smooth_field(generator(seed, "speckle", site.name), (HEIGHT // SPECK, WIDTH // SPECK), 12)
        rank = ranked(field).repeat(SPECK, axis=0).repeat(SPECK, axis=1)
        vv[rank < 0.1] = 0
        vv[rank < 0.05] = -0.001
        vh[rank > 0.7] = 0
        vh[rank > 0.85] = -0.0001
    return vv, vh


def _item(folder: Path, site: Site, draft: Draft, start: datetime, number: int) -> Json:
    end = start + SLICE
    orbit, letter = 10_000 + number % 40_000, "AB"[number % 2]
    kind = {("VV", "VH"): "DV", ("VV",): "SV", ("HH", "HV"): "DH"}[draft.polarizations]
    product = f"{draft.mode}_GRD{'H' if draft.mode == 'IW' else 'M'}_1S{kind}"
    name = f"S1{letter}_{product}_{start:%Y%m%dT%H%M%S}_{end:%Y%m%dT%H%M%S}_{orbit:06d}_{number:06X}_rtc"
    right, bottom = site.left + WIDTH * PIXEL, site.top - HEIGHT * PIXEL
    assets = {
        polarization.lower(): {
            "href": str(_file(folder, site.name, draft, polarization)),
            "type": GEOTIFF,
            "roles": ["data"],
            "title": f"{polarization}: {_WAY[polarization[0]]} transmit, {_WAY[polarization[1]]} receive",
            "description": "Gamma nought, radiometrically terrain corrected, linear power (made up).",
            "raster:bands": [{"nodata": NODATA, "data_type": "float32", "spatial_resolution": 10.0}],
        }
        for polarization in draft.polarizations
    }
    properties = {
        "datetime": stamp(start + SLICE / 2),
        "start_datetime": str(start),
        "end_datetime": str(end),
        "platform": f"SENTINEL-1{letter}",
        "constellation": "Sentinel-1",
        "proj:epsg": site.epsg,
        "proj:shape": [HEIGHT, WIDTH],
        "proj:bbox": [float(v) for v in (site.left, bottom, right, site.top)],
        "proj:transform": [10.0, 0.0, float(site.left), 0.0, -10.0, float(site.top), 0.0, 0.0, 1.0],
        "s1:shape": [WIDTH, HEIGHT],
        "s1:resolution": "high" if draft.mode == "IW" else "medium",
        "s1:datatake_id": str(number),
        "s1:orbit_source": "RESORB",
        "s1:processing_level": "1",
        "s1:product_timeliness": "Fast-24h",
        "sar:product_type": "GRD",
        "sar:polarizations": list(draft.polarizations),
        "sar:frequency_band": "C",
        "sar:instrument_mode": draft.mode,
        "sar:center_frequency": 5.405,
        "sar:looks_range": 5,
        "sar:looks_azimuth": 1,
        "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10,
        "sar:observation_direction": "right",
        "sat:orbit_state": "descending",
        "sat:absolute_orbit": orbit,
        "sat:relative_orbit": 1 + number % 175,
    }
    footprint = site.footprint(WEDGES.get(draft.pixels, (0, 0)))
    return item(name, SENTINEL_1, footprint, properties, assets, list(EXTENSIONS))
