"""Draws the scenes of Sentinel-2 and Landsat: a quality raster per scene, and bands once per place.

Cloudy scenes have their own visible bands, so that pictures show the clouds flagged in the quality raster.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.demo import items
from clay_assets.demo.calendar import Scene, quarter_kinds, scenes
from clay_assets.demo.imagery import (
    detail_step,
    draw_ground,
    under,
    write_landsat_bands,
    write_raster,
    write_sentinel_2_bands,
    write_visible,
)
from clay_assets.demo.landcover import LandCover
from clay_assets.demo.radiometry import Numbers, numbers
from clay_assets.demo.sites import LANDSAT_L1, LANDSAT_L2, SENTINEL_2, Site, landsat_sites, sentinel_2_sites
from clay_assets.demo.truth import ChipCounts, Made
from clay_assets.demo.weather import QA_PIXEL, SCL, Weather

S2_CHIP, LANDSAT_CHIP = (
    128,
    256,
)  # quality-raster pixels across a chip of 256 pixels of the finest grid


@dataclass(frozen=True)
class Place:
    """What all scenes of a site share.

    Attributes:
        folder: the planet's folder.
        weather: the sensor's weather.
        ground: the landscape as codes of `materials`.
        surface: codes of the quality raster without clouds.
    """

    folder: Path
    weather: Weather
    ground: NDArray[np.uint8]
    surface: NDArray[Any]

    def seen(self, scene: Scene) -> NDArray[np.uint16]:
        """The landscape below the sky of a scene."""
        return under(self.weather.sky(scene, detail_step(scene.site)), self.ground)


def draw_optical(folder: Path, seed: int, pool: Executor, cover: LandCover) -> list[Future[list[Made]]]:
    """Draw every scene of Sentinel-2 and of both Landsat levels."""
    drawings: list[Future[list[Made]]] = []
    scl, qa_pixel = Weather(seed, SCL, S2_CHIP), Weather(seed, QA_PIXEL, LANDSAT_CHIP)
    for index, site in enumerate(sentinel_2_sites()):
        place = Place(folder, scl, draw_ground(seed, site, scl, cover), scl.surface(site))
        drawings.append(pool.submit(_bands, write_sentinel_2_bands, folder, site, place.ground))
        found = scenes(seed, "sentinel-2", site)
        without_scl = _ordinary(found, 1, 1) if index == 0 else None
        for scene in found:
            oddities = {"code": scene is _ordinary(found, 0, 0), "without_scl": scene is without_scl}
            drawings.append(pool.submit(_sentinel_2, place, scene, numbers(seed, scene), oddities))
    for site in landsat_sites():
        place = Place(folder, qa_pixel, draw_ground(seed, site, qa_pixel, cover), qa_pixel.surface(site))
        drawings.append(pool.submit(_bands, write_landsat_bands, folder, site, place.ground))
        found = scenes(seed, "landsat", site)
        for scene in found:
            drawings.append(pool.submit(_landsat, place, scene, scene is _ordinary(found, 0, 0)))
    return drawings


def optical_quarters(seed: int) -> list[dict[str, Any]]:
    """Rows of `Planet.quarters`."""
    families = {"sentinel-2": sentinel_2_sites(), "landsat": landsat_sites()}
    return [row for family, sites in families.items() for site in sites for row in _quarter_rows(seed, family, site)]


def sentinel_2_radiometry(seed: int) -> list[dict[str, Any]]:
    """Rows of `Planet.radiometry`."""
    found = [scene for site in sentinel_2_sites() for scene in scenes(seed, "sentinel-2", site)]
    return [{"item_id": items.sentinel_2_id(scene), **numbers(seed, scene).truth} for scene in found]


def _bands(
    write: Callable[[Path, Site, NDArray[np.uint8]], None], folder: Path, site: Site, ground: NDArray[np.uint8]
) -> list[Made]:
    write(folder, site, ground)
    return []


def _sentinel_2(place: Place, scene: Scene, scaled: Numbers, oddities: dict[str, bool]) -> list[Made]:
    drawing = place.weather.draw(scene, place.surface)
    item = items.sentinel_2(scene, drawing, scaled, place.folder, **oddities)
    path = items.quality_file(place.folder, SENTINEL_2, item["id"])
    site = scene.site
    write_raster(path, drawing.codes, site.epsg, site.left, site.top, site.pixel, nodata=SCL.nodata)
    if scene.shows_clouds:
        write_visible(place.folder, site, item["id"], SENTINEL_2, place.seen(scene), scaled.offset)
    return [(item, ChipCounts(drawing.cloud, drawing.nodata, site.chip**2))]


def _landsat(place: Place, scene: Scene, code: bool) -> list[Made]:
    """Both levels of an acquisition; they share the quality band, and night scenes have no level 2."""
    drawing = place.weather.draw(scene, place.surface)
    site = scene.site
    seen = place.seen(scene) if scene.shows_clouds else None
    made: list[Made] = []
    written: Path | None = None
    for collection in (LANDSAT_L1,) if scene.is_night else (LANDSAT_L1, LANDSAT_L2):
        item = items.landsat(scene, drawing, place.folder, collection, code=code)
        path = items.quality_file(place.folder, collection, item["id"])
        if written is None:
            write_raster(path, drawing.codes, site.epsg, site.left, site.top, site.pixel)
        else:
            path.parent.mkdir(parents=True)
            shutil.copyfile(written, path)
        written = path
        if seen is not None:
            write_visible(place.folder, site, item["id"], collection, seen)
        made.append((item, ChipCounts(drawing.cloud, drawing.nodata, site.chip**2)))
    return made


def _ordinary(found: list[Scene], nth: int, number: int) -> Scene:
    """The date with this number in the nth ordinary quarter of a place; 0 is the least cloudy one."""
    return [one for one in found if one.quarter_kind == "ordinary" and one.number == number][nth]


def _quarter_rows(seed: int, family: str, site: Site) -> list[dict[str, Any]]:
    return [
        {
            "family": family,
            "site": site.name,
            "tiles": list(site.tiles),
            "year": year,
            "quarter": quarter,
            "kind": kind,
        }
        for (year, quarter), kind in quarter_kinds(seed, family, site).items()
    ]
