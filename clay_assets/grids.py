"""The pixel grid of a raster, and shared constants of Earth geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.crs import CRS

HALF_TURN = 180.0  # degrees; a wider polygon crosses the antimeridian
MODIS_RADIUS = 6_371_007.181  # m, sphere of the MODIS sinusoidal grid (MODLAND)


@dataclass(frozen=True)
class Grid:
    """The position of a raster's pixels.

    Attributes:
        crs: CRS of the pixels.
        transform: pixel column and row → x and y of `crs`.
        height: rows.
        width: columns.
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel of a north-up grid, in units of the CRS."""
        return self.transform.a, -self.transform.e

    def __str__(self) -> str:
        t = self.transform
        return f"{self.height} × {self.width} pixels of {t.a:g} × {-t.e:g} from ({t.c:.3f}, {t.f:.3f})"
