"""The files of ESA WorldCover: the 3° tiling, how its files are named, and which of them exist.

A file is named after the south-west corner of its cell; cells of open ocean have no file. The pixels are read in
`worldcover`. Reference: the WorldCover Product User Manual v2.0 (https://esa-worldcover.org).
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt
import shapely

from clay_assets.errors import InputError
from clay_assets.sources.downloads import exists_on_web, names_in
from clay_assets.transport.access import Access
from clay_assets.transport.locations import is_http, join

TILE_DEGREES = 3

_FILE = "ESA_WorldCover_10m_2021_v200_{}_Map.tif"
_FILE_PATTERN = re.compile(r"ESA_WorldCover_10m_2021_v200_([NS]\d{2}[EW]\d{3})_Map\.tif")
_OTHER_PATTERN = re.compile(r"ESA_WorldCover_10m_(\d{4})_(v\d+)_[NS]\d{2}[EW]\d{3}_Map\.tif")  # of any edition
EDITION = "2021 v200"
_HEAD_AT_ONCE = 12  # the default of CLAY_REQUESTS_IN_FLIGHT


def cells_touched(
    polygons: npt.NDArray[np.object_],
) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Names of all 3° cells, and the pairs of polygon and cell that overlap: row of polygon, number of cell."""
    names, boxes, tree = _all_cells()
    rows, cells = tree.query(polygons, predicate="intersects")
    overlap = ~shapely.touches(polygons[rows], boxes[cells])  # no pixels lie in a shared edge
    return names, rows[overlap], cells[overlap]


@cache
def _all_cells() -> tuple[list[str], npt.NDArray[np.object_], shapely.STRtree]:
    """Names and boxes of all 3° cells, and a spatial index of the boxes."""
    south, west = np.meshgrid(np.arange(-90, 90, TILE_DEGREES), np.arange(-180, 180, TILE_DEGREES), indexing="ij")
    names = [
        f"{'N' if lat >= 0 else 'S'}{abs(lat):02d}{'E' if lon >= 0 else 'W'}{abs(lon):03d}"
        for lat, lon in zip(south.ravel().tolist(), west.ravel().tolist(), strict=True)
    ]
    boxes = shapely.box(west, south, west + TILE_DEGREES, south + TILE_DEGREES).ravel()
    return names, boxes, shapely.STRtree(boxes)


def corner(cell: str) -> tuple[int, int]:
    """West and south edge of a cell, degrees."""
    south = int(cell[1:3]) * (1 if cell[0] == "N" else -1)
    west = int(cell[4:]) * (1 if cell[3] == "E" else -1)
    return west, south


def href_of(worldcover: str, cell: str) -> str:
    """Address of a cell's file."""
    return join(worldcover, _FILE.format(cell))


def present_cells(worldcover: str, needed: list[str], access: Access) -> set[str]:
    """Cells that have a file, from one listing, or from one request each on a web server, which cannot list.

    Raises:
        InputError: no cell has a file, or the folder cannot be listed.
        SourceError: the source did not answer.
    """
    try:
        if is_http(worldcover):
            present = _present_on_web(worldcover, needed, access)
            asked = f"none of the {len(needed)} files needed by the tiles found"
            if not needed:
                return present
        else:
            names = names_in(worldcover, access)
            present = {match[1] for name in names if (match := _FILE_PATTERN.fullmatch(name))}
            asked = f"no file named {_FILE.format('{tile}')} found"
            others = sorted(name for name in names if _OTHER_PATTERN.fullmatch(name))
            if others and not present:
                year, version = _OTHER_PATTERN.fullmatch(others[0]).groups()  # type: ignore[union-attr]
                asked += f", but {others[0]} of the edition {year} {version} instead of {EDITION}"
    except InputError as error:
        raise InputError(f"WorldCover {error} Check CLAY_WORLDCOVER.") from error
    if not present:
        raise InputError(f"WorldCover {worldcover}: {asked}. Check CLAY_WORLDCOVER.")
    return present


def stored_cells_of(worldcover: str, access: Access) -> set[str] | None:
    """All cells that have a file, from one listing; None for a web server, which cannot list.

    Raises:
        InputError: no cell has a file, or the folder cannot be listed.
        SourceError: the source did not answer.
    """
    return None if is_http(worldcover) else present_cells(worldcover, [], access)


def cells_on_web(worldcover: str, needed: list[str], access: Access) -> set[str]:
    """The needed cells that have a file on a web server; may be empty.

    Raises:
        SourceError: the server did not answer.
    """
    return _present_on_web(worldcover, needed, access)


def _present_on_web(worldcover: str, needed: list[str], access: Access) -> set[str]:
    with ThreadPoolExecutor(_HEAD_AT_ONCE, thread_name_prefix="clay-head") as threads:
        answers = [threads.submit(exists_on_web, href_of(worldcover, cell), access) for cell in needed]
        try:
            return {cell for cell, answer in zip(needed, answers, strict=True) if answer.result()}
        finally:
            for answer in answers:
                answer.cancel()
