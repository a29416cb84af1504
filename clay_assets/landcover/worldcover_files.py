"""The files of ESA WorldCover: the 3° tiling, how its files are named, and which of them exist.

A file is named by its cell's south-west corner; cells of open ocean have none. What the pixels say belongs in
`worldcover`. The document followed is the WorldCover Product User Manual v2.0 (https://esa-worldcover.org).
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import shapely

from clay_assets.access import Access
from clay_assets.errors import InputError, SourceError

TILE_DEGREES = 3

_FILE = "ESA_WorldCover_10m_2021_v200_{}_Map.tif"
_FILE_PATTERN = re.compile(r"ESA_WorldCover_10m_2021_v200_([NS]\d{2}[EW]\d{3})_Map\.tif")
_HEAD_AT_ONCE = 8  # the default of CLAY_REQUESTS_IN_FLIGHT


def cells_touched(
    polygons: npt.NDArray[np.object_],
) -> tuple[list[str], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Names of all 3° cells, and which polygon shares area with which: row of polygon, number of cell."""
    south, west = np.meshgrid(np.arange(-90, 90, TILE_DEGREES), np.arange(-180, 180, TILE_DEGREES), indexing="ij")
    names = [
        f"{'N' if lat >= 0 else 'S'}{abs(lat):02d}{'E' if lon >= 0 else 'W'}{abs(lon):03d}"
        for lat, lon in zip(south.ravel().tolist(), west.ravel().tolist(), strict=True)
    ]
    boxes = shapely.box(west, south, west + TILE_DEGREES, south + TILE_DEGREES).ravel()
    rows, cells = shapely.STRtree(boxes).query(polygons, predicate="intersects")
    overlap = ~shapely.touches(polygons[rows], boxes[cells])  # a shared edge holds no pixel
    return names, rows[overlap], cells[overlap]


def corner(cell: str) -> tuple[int, int]:
    """West and south edge of a cell, degrees."""
    south = int(cell[1:3]) * (1 if cell[0] == "N" else -1)
    west = int(cell[4:]) * (1 if cell[3] == "E" else -1)
    return west, south


def href_of(worldcover: str, cell: str) -> str:
    """Address of a cell's file."""
    return f"{worldcover.rstrip('/')}/{_FILE.format(cell)}"


def present_cells(worldcover: str, needed: list[str], access: Access) -> set[str]:
    """Cells that have a file, learnt in one listing, or by asking for each where a server cannot list."""
    scheme = urlsplit(worldcover).scheme
    if scheme in ("http", "https"):
        present = _present_https(worldcover, needed)
        asked = f"any of the {len(needed)} files that the tiles need"
        if not needed:
            return present
    else:
        names = _listed_s3(worldcover, access) if scheme == "s3" else _listed_folder(worldcover)
        present = {match[1] for name in names if (match := _FILE_PATTERN.fullmatch(name))}
        asked = f"any file named {_FILE.format('{tile}')}"
    if not present:
        raise InputError(f"WorldCover {worldcover}: does not hold {asked}. Check CLAY_WORLDCOVER.")
    return present


def _listed_folder(worldcover: str) -> list[str]:
    try:
        return os.listdir(worldcover)
    except OSError as error:
        raise InputError(f"WorldCover {worldcover}: cannot be listed ({error}). Check CLAY_WORLDCOVER.") from error


def _listed_s3(worldcover: str, access: Access) -> list[str]:
    """Names below `s3://bucket/prefix/`, not deeper; boto3 itself honours AWS_ENDPOINT_URL."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = worldcover.removeprefix("s3://").rstrip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    settings: dict[str, Any] = {"retries": {"max_attempts": 6, "mode": "standard"}, "connect_timeout": 10}
    if access.unsigned:
        settings["signature_version"] = UNSIGNED
    payer = {"RequestPayer": "requester"} if access.requester_pays else {}
    try:
        client = boto3.client("s3", config=Config(**settings))
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/", **payer)
        return [item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", ())]
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status in (400, 401, 403, 404):
            raise InputError(
                f"WorldCover {worldcover}: the bucket cannot be listed ({code or status}). "
                "Check CLAY_WORLDCOVER, and AWS_ENDPOINT_URL if it is set."
            ) from error
        raise SourceError(f"WorldCover {worldcover}: listing failed ({error}). Run again.") from error
    except BotoCoreError as error:
        raise SourceError(f"WorldCover {worldcover}: listing failed ({error}). Run again.") from error


def _present_https(worldcover: str, needed: list[str]) -> set[str]:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=5,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods={"HEAD"},
        raise_on_status=False,  # the last answer is reported below
    )
    with requests.Session() as session, ThreadPoolExecutor(_HEAD_AT_ONCE) as threads:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_HEAD_AT_ONCE, max_retries=retry))

        def exists(cell: str) -> bool:
            href = href_of(worldcover, cell)
            try:
                status = session.head(href, timeout=(10, 60), allow_redirects=True).status_code
            except requests.RequestException as error:
                raise SourceError(f"{href}: no answer ({error}). Run again, or check CLAY_WORLDCOVER.") from error
            if status not in (200, 404):
                raise SourceError(f"{href}: the server answers {status} after retries. Run again later.")
            return status == 200

        answers = [threads.submit(exists, cell) for cell in needed]
        try:
            return {cell for cell, answer in zip(needed, answers, strict=True) if answer.result()}
        finally:
            for answer in answers:
                answer.cancel()
