"""All the ways in which the pipeline reads a file, so that a test can go through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clay_assets.sources.downloads import fetch, read_bytes, size_of
from clay_assets.sources.rasters import open_raster
from clay_assets.transport.access import Access

NAME = "image.tif"
# Incompressible, and more than GDAL reads to open it.
PIXELS: NDArray[Any] = np.random.default_rng(1).integers(0, 60_000, (512, 512), dtype=np.uint16)

Reader = Callable[[str, Access | None, Path], None]


def by_bytes(href: str, access: Access | None, folder: Path) -> None:
    assert read_bytes(href, access)[:2] == b"II"


def by_fetch(href: str, access: Access | None, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    fetch(href, folder / "fetched", access)
    assert (folder / "fetched").stat().st_size > PIXELS.nbytes


def by_size(href: str, access: Access | None, folder: Path) -> None:
    assert size_of(href, access) > PIXELS.nbytes


def by_raster(href: str, access: Access | None, folder: Path) -> None:
    with open_raster(href, access) as source:
        assert (source.read(1) == PIXELS).all()


READERS = {"read_bytes": by_bytes, "fetch": by_fetch, "size_of": by_size, "open_raster": by_raster}
every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
