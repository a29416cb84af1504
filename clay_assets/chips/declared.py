"""The grid that an item declares for its files, and whether the files have that grid.

If item and file contradict each other, one of them belongs to another scene or processing, and chips would be counted
on a wrong grid. Empty fields, such as `EPSG:None`, are treated as missing.

Fields: projection extension of STAC, versions 1 and 2 (https://github.com/stac-extensions/projection).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from clay_assets.chips.grid import ground_sample_distance
from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.stac import Item

CODES = ("proj:code", "proj:epsg", "proj:wkt2")
TERMS = 6  # terms of an affine transform; its last row may follow
GSD_ROUNDING = 1.5  # factor; a nominal ground sample distance is not exactly the pixel size
_NUMBER = re.compile(r"\s*(?:epsg:)?\s*(\d+)(?:\.0+)?\s*", re.IGNORECASE)
_NOTHING = re.compile(r"(?:epsg:?)?\s*(?:none|null|nan|<na>|unknown|undefined)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Declared:
    """The grid that an item declares for one asset; None for missing fields.

    Attributes:
        item_id: id of the item.
        asset: key of the asset.
        crs: CRS from `proj:code`, `proj:epsg` or `proj:wkt2`.
        shape: height and width from `proj:shape`.
        transform: transform from `proj:transform`.
        bbox: xmin, ymin, xmax, ymax in the CRS from `proj:bbox`.
        gsd: nominal ground sample distance, metres.
    """

    item_id: str
    asset: str
    crs: CRS | None = None
    shape: tuple[int, int] | None = None
    transform: Affine | None = None
    bbox: tuple[float, float, float, float] | None = None
    gsd: float | None = None

    @property
    def grid(self) -> Grid | None:
        """The grid if it is completely declared."""
        if self.crs is None or self.shape is None or self.transform is None:
            return None
        return Grid(self.crs, self.transform, *self.shape)

    @property
    def tells_extent(self) -> bool:
        """Whether the declared shape can be checked against the extent of a file."""
        return any(said is not None for said in (self.transform, self.bbox, self.gsd))

    def shape_over(self, file: Grid) -> tuple[int, int] | None:
        """Declared height and width; swapped if only [width, height] is an integer multiple of the file's shape."""
        if self.shape is None or _whole(self.shape, file) or not _whole(self.shape[::-1], file):
            return self.shape
        return self.shape[1], self.shape[0]

    def check_place(self, grid: Grid, href: str) -> None:
        """Raise InputError if a file's CRS or upper left corner differs from the item's."""
        if self.crs is not None and self.crs != grid.crs:
            raise InputError(
                f"{href}: CRS {grid.crs.to_string()}, but its item says {self.crs.to_string()}; one of them is wrong "
                f"({self._field('proj:code')})."
            )
        if self.transform is None:
            return
        x, y = grid.transform.c, grid.transform.f
        begun = [max(abs(placed.c - x), abs(placed.f - y)) for placed in _orders(self.transform)]
        if min(begun) > _pixel(grid):
            raise InputError(
                f"{href}: its corner is {begun[0]:g} m from the item's; item and file belong to different scenes "
                f"({self._field('proj:transform')})."
            )

    def check_extent(self, grid: Grid, tolerance: float, href: str) -> None:
        """Raise InputError if a grid's extent, and so its pixel size, differs from the item's.

        Args:
            grid: the file's extent with the height and width declared by the item.
            tolerance: allowed difference of the corners, in units of the CRS.
            href: the file's address.
        """
        if self.transform is not None:
            apart = min(_apart(Grid(grid.crs, t, grid.height, grid.width), grid) for t in _orders(self.transform))
            said, field = self.transform, "proj:transform"
            if apart > tolerance:
                raise InputError(
                    f"{href}: covers {_size(grid)}, but its item says {grid.height} × {grid.width} pixels of "
                    f"{abs(said.a):g} × {abs(said.e):g} m ({self._field(field)}). Correct the item, or exclude it."
                )
        elif self.bbox is not None:
            corners = _corners(grid)
            found = (*corners.min(axis=0), *corners.max(axis=0))
            if np.abs(np.subtract(found, self.bbox)).max() > tolerance:
                raise InputError(
                    f"{href}: covers {_size(grid)}, {tuple(map(float, found))}, but its item says {self.bbox} "
                    f"({self._field('proj:bbox')}). Correct the item, or exclude it."
                )
        elif self.gsd is not None:
            pixel = float(ground_sample_distance(grid, min(grid.height, grid.width)).mean())
            if not 1 / GSD_ROUNDING <= pixel / self.gsd <= GSD_ROUNDING:
                raise InputError(
                    f"{href}: covers {_size(grid)}, so {grid.height} × {grid.width} pixels are {pixel:g} m each, "
                    f"but its item says {self.gsd:g} m ({self._field('gsd')}). Correct the item, or exclude it."
                )

    def check_file(self, grid: Grid, href: str) -> None:
        """Raise InputError if the shape or extent of the asset's own file differs from the item's."""
        if self.shape is not None and (grid.height, grid.width) not in (self.shape, self.shape[::-1]):
            raise InputError(
                f"{href}: has {grid.height} × {grid.width} pixels, but its item says {self.shape[0]} × {self.shape[1]} "
                f"({self._field('proj:shape')}). Correct the item, or exclude it."
            )
        self.check_place(grid, href)
        self.check_extent(grid, _pixel(grid), href)

    def _field(self, name: str) -> str:
        return f"item {self.item_id}, asset {self.asset}, {name}"


def declared(item: Item, asset: str, *, own: bool = False) -> Declared:
    """Read the grid that an item declares for an asset.

    Args:
        item: an item read by its platform.
        asset: key of the asset, which may be missing.
        own: only use fields of the asset, without `gsd`; otherwise fall back to the item's fields.

    Raises:
        InputError: a field is invalid; names item and field.
    """
    fields = {
        name: value
        for holder in ({} if own else item["properties"], item["assets"].get(asset) or {})
        for name, value in holder.items()
        if _given(value)
    }
    gsd = _numbers([] if own else [fields.get("gsd")])
    return Declared(
        item_id=item["id"],
        asset=asset,
        crs=_crs(item["id"], fields),
        shape=_shape(item["id"], fields.get("proj:shape")),
        transform=_transform(item["id"], fields.get("proj:transform")),
        bbox=_bbox(fields.get("proj:bbox")),
        gsd=gsd[0] if gsd and gsd[0] > 0 else None,
    )


def check_same_extent(grid: Grid, finest: Grid, href: str, first: str) -> None:
    """Raise InputError if the files of a scene do not cover the same area."""
    if grid.crs != finest.crs:
        raise InputError(f"{href}: CRS {grid.crs.to_string()}, but {finest.crs.to_string()} in {first}.")
    apart = _apart(grid, finest)
    if apart > max(_pixel(grid), _pixel(finest)):
        raise InputError(
            f"{href}: covers {_size(grid)}, but {first} {_size(finest)}; their corners are {apart:g} m apart. "
            "They belong to different scenes. Check the item's hrefs."
        )


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same pixels, within rounding."""
    same = one.crs == other.crs and (one.height, one.width) == (other.height, other.width)
    return same and _apart(one, other) <= _pixel(one)


def _crs(item_id: str, fields: Mapping[str, Any]) -> CRS | None:
    wrong = None
    for name in CODES:
        code = fields.get(name)
        if not code:
            continue
        try:
            return CRS.from_user_input(_epsg(code))
        except (CRSError, TypeError, ValueError) as error:
            wrong = wrong or _not_understood(item_id, name, code, error)
    if wrong:
        raise wrong
    return None


def _epsg(code: Any) -> Any:
    """An EPSG code in rasterio's form; tables may have converted the number to text or to a float."""
    found = _NUMBER.fullmatch(str(code))
    return int(found[1]) if found else code


def _shape(item_id: str, shape: Any) -> tuple[int, int] | None:
    if shape is None:
        return None
    try:
        height, width = (int(side) for side in shape)
        if min(height, width) < 1:
            raise ValueError("a side without pixels")
    except (TypeError, ValueError, OverflowError) as error:
        raise _not_understood(item_id, "proj:shape", shape, error) from error
    return height, width


def _transform(item_id: str, transform: Any) -> Affine | None:
    if transform is None:
        return None
    try:
        terms = [float(term) for term in transform[:TERMS]]
        if not all(map(isfinite, terms)):
            raise ValueError("a term that is not finite")
        return Affine(*terms)
    except (TypeError, ValueError) as error:
        raise _not_understood(item_id, "proj:transform", transform, error) from error


def _not_understood(item_id: str, field: str, value: Any, error: Exception) -> InputError:
    return InputError(f"{item_id}: invalid proj: fields ({field} {value!r}: {error}). Correct the item, or exclude it.")


def _given(value: Any) -> bool:
    if value is None or (isinstance(value, float) and isnan(value)):
        return False
    if isinstance(value, str):
        return _NOTHING.fullmatch(value) is None
    return any(map(_given, value)) if isinstance(value, list | tuple) else True


def _bbox(values: Any) -> tuple[float, float, float, float] | None:
    """West, south, east and north; with six numbers, the third and the last are heights."""
    numbers = _numbers(values)
    if len(numbers) not in (4, 6):
        return None
    half = len(numbers) // 2
    return numbers[0], numbers[1], numbers[half], numbers[half + 1]


def _numbers(values: Any) -> list[float]:
    """Finite numbers; empty if any value is something else."""
    try:
        numbers = [float(value) for value in values or ()]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(isfinite, numbers)) else []


def _whole(shape: Sequence[int], file: Grid) -> bool:
    (height, width) = shape
    down, beyond = divmod(height, file.height)
    across, beside = divmod(width, file.width)
    return down == across > 0 == beyond == beside


def _orders(transform: Affine) -> tuple[Affine, ...]:
    """The transform, and its interpretation in GDAL's order of terms, which some items use."""
    return transform, Affine.from_gdal(*tuple(transform)[:TERMS])


def _corners(grid: Grid) -> NDArray[np.float64]:
    """The four corners of a grid as x and y, (4, 2)."""
    t, column, row = grid.transform, np.array([0, 1, 1, 0]) * grid.width, np.array([0, 0, 1, 1]) * grid.height
    return np.column_stack([t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f])


def _apart(one: Grid, other: Grid) -> float:
    return float(np.abs(_corners(one) - _corners(other)).max())


def _pixel(grid: Grid) -> float:
    t = grid.transform
    return float(max(np.hypot(t.a, t.d), np.hypot(t.b, t.e)))


def _size(grid: Grid) -> str:
    t = grid.transform
    return f"{np.hypot(t.b, t.e) * grid.height:g} × {np.hypot(t.a, t.d) * grid.width:g} m"
