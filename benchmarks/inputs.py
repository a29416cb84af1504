"""Scenes of real size and real texture: patches of all sizes with ragged edges, and single odd pixels between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EPSG, LEFT, TOP = 32632, 399_960, 5_300_040
SCALES = (600, 150, 40, 12, 4)  # pixels of the patches that are added up
ODD = 0.004  # share of pixels that are unlike their neighbours


@dataclass(frozen=True)
class Scene:
    """What a quality band of a platform is like.

    Attributes:
        platform: key.
        asset: name of the band.
        codes: its values, and the shares of the scene that they have.
        dtype: of the band.
        finest, size: pixels of a side of the finest band and of this one.
        gsd: metres of a pixel of this one.
        indexer: class of stacchip.
    """

    platform: str
    asset: str
    codes: dict[int, float]
    dtype: str
    finest: int
    size: int
    gsd: int
    indexer: str


SENTINEL_2 = Scene(
    "sentinel-2-l2a",
    "scl",
    # Desert, vegetation, water, shadow, cloud of two kinds, cirrus; nodata is a wedge.
    {5: 0.45, 4: 0.22, 6: 0.06, 7: 0.03, 3: 0.02, 8: 0.07, 9: 0.10, 10: 0.05},
    *("uint8", 10_980, 5_490, 20, "Sentinel2Indexer"),
)
LANDSAT = Scene(
    "landsat-c2l2-sr",
    "qa_pixel",
    {21824: 0.6, 21952: 0.08, 22280: 0.22, 23888: 0.06, 55052: 0.04},
    *("uint16", 7_800, 7_800, 30, "LandsatIndexer"),
)
WEDGE = {"scl": 0, "qa_pixel": 1}  # nodata


def texture(size: int, seed: int) -> NDArray[np.float32]:
    """A field of patches of several sizes, (size, size)."""
    draw = np.random.default_rng(seed)
    field = np.zeros((size, size), np.float32)
    for scale in SCALES:
        coarse = draw.normal(size=(size // scale + 2,) * 2).astype(np.float32)
        smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        field += np.asarray(smooth) * np.float32(scale**0.5)
    return field


def classes(scene: Scene, seed: int = 0) -> NDArray[Any]:
    """The band: classes as the field is high, odd pixels, and a wedge without data."""
    field = texture(scene.size, seed)
    some = np.sort(field[::13, ::13], axis=None)
    ends = np.cumsum(list(scene.codes.values()))[:-1]
    limits = some[(ends * len(some)).astype(int)]
    codes = np.array(list(scene.codes), scene.dtype)
    band = codes[np.searchsorted(limits, field)]
    draw = np.random.default_rng(seed + 1)
    odd = draw.integers(0, band.size, int(ODD * band.size))
    band.ravel()[odd] = draw.choice(codes, len(odd))
    column = np.arange(scene.size)
    for row in range(scene.size):
        band[row, column > 1.35 * scene.size - 0.5 * row] = WEDGE[scene.asset]
    return band


def scene_of(scene: Scene, folder: Path) -> dict[str, Any]:
    """Write the band as a COG, and return the scene's item, which stacchip can read too."""
    import rasterio
    from rasterio.transform import from_origin

    path = folder / f"{scene.asset}.tif"
    layout = {"driver": "COG", "blocksize": 512, "compress": "deflate", "overviews": "none"}
    profile = {"width": scene.size, "height": scene.size, "count": 1, "dtype": scene.dtype, "crs": f"EPSG:{EPSG}"}
    with rasterio.open(path, "w", **profile, **layout, transform=from_origin(LEFT, TOP, scene.gsd, scene.gsd)) as sink:
        sink.write(classes(scene), 1)
    fine = scene.gsd * scene.size // scene.finest
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
        "id": f"{scene.platform}-full-size",
        "geometry": {"type": "Point", "coordinates": [8.0, 47.5]},
        "bbox": [8.0, 47.5, 8.0, 47.5],
        "properties": {
            **{"datetime": "2020-06-15T10:00:00Z", "proj:epsg": EPSG, "proj:shape": [scene.finest] * 2},
            "proj:transform": [fine, 0, LEFT, 0, -fine, TOP],
        },
        "links": [],
        "assets": {scene.asset: {"href": str(path), "alternate": {"s3": {"href": str(path)}}}},
    }
