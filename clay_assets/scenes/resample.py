"""Resamples a raster to another grid, as a cloud-optimized GeoTIFF.

Sources are read in strips of whole rows, so that memory does not grow with their height, and always at full resolution:
the overviews of many aerial archives are lossy, and blend masked pixels into valid ones.

Format: https://gdal.org/en/stable/drivers/raster/cog.html
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.dtypes import in_dtype_range
from rasterio.enums import Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.warp import calculate_default_transform, reproject, transform
from rasterio.windows import Window

from clay_assets.errors import InputError, StorageError
from clay_assets.grids import MODIS_RADIUS, Grid
from clay_assets.sources.rasters import Raster

STRIP_PIXELS = 8_000_000  # held at a time, of the source or the new grid, whichever has more
EQUAL = 1e-6  # relative tolerance of lengths
COARSENED_MAX = 10.0  # times; in EPSG:3857 the published MODIS tiles reach 5.6, and those at a pole 85
SAMPLES = 65, 9  # points across and down a strip, to find the source rows under it
VALID = 1  # value of valid pixels in the mask band

# Every reader of GeoTIFF supports Deflate. With the predictor, aerial imagery is as small as with zstd (24 MB of 26),
# and without it a third larger; zstd would halve the time to write 26 MB (1.2 s) and to read them (0.16 s).
COG = {"driver": "COG", "blocksize": 512, "compress": "DEFLATE", "predictor": "YES", "bigtiff": "IF_SAFER"}
# Temporary file that exists for seconds, possibly in memory.
SCRATCH = {"driver": "GTiff", "tiled": True, "compress": "ZSTD", "zstd_level": 1, "bigtiff": "IF_SAFER"}

# As in `landcover.spans`: rasterio warns of the in-memory rasters of `reproject`, although they are given a transform.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.warp")

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ResampleSpec:
    """How one raster is resampled.

    Attributes:
        crs: CRS of the new grid, in metres; None: that of the source.
        gsd: pixel size of the new grid in metres, never finer than the source's; None: the source's size, or with
            another CRS the size that keeps the number of pixels on the diagonal.
        resampling: of the bands; their mask is always nearest.
        bands: number of bands to keep, from the first; None: all.
        fill: value of pixels without source data, declared as the file's nodata value; None: 0.
        masked: write an internal mask: from alpha, else from the file's own mask, else 0 where all bands are 0. Masked
            pixels are 0 in all bands, and there is no nodata value.
    """

    crs: str | None
    gsd: float | None
    resampling: Literal["nearest", "bilinear"]
    bands: int | None
    fill: float | None
    masked: bool


# --- grids ------------------------------------------------------------------------------------------


def grid_of(source: Raster) -> Grid:
    """The grid of an open raster.

    Raises:
        InputError: the raster has no CRS, or is not north up.
    """
    dataset, t = source.dataset, source.dataset.transform
    if dataset.crs is None:
        raise InputError(
            f"{source.href}: no CRS in the file, so it cannot be georeferenced. Add one to the file, such as with "
            "`rio edit-info --crs`; sidecar files are only read for local files."
        )
    if t.b or t.d or t.a <= 0 or t.e >= 0:
        raise InputError(f"{source.href}: not north up ({tuple(t)[:6]}). Only north-up images can be resampled.")
    return Grid(dataset.crs, t, *source.shape)


def check_same_grid(grid: Grid, first: Grid, href: str, first_asset: str) -> None:
    """Raise InputError if the files of one scene are not all on one grid."""
    same = grid.crs == first.crs and (grid.height, grid.width) == (first.height, first.width)
    if not same or not grid.transform.almost_equals(first.transform, precision=EQUAL * max(first.pixel)):
        raise InputError(
            f"{href}: not on the grid of asset {first_asset} ({grid} in {grid.crs.to_string()}, not {first} in "
            f"{first.crs.to_string()}). All files of a resampled scene must be on one grid."
        )


def is_coarser(grid: Grid, gsd: float) -> bool:
    """Whether a grid's pixels are larger than `gsd`."""
    return max(grid.pixel) > gsd * (1 + EQUAL)


def target_grid(source: Grid, spec: ResampleSpec, href: str) -> Grid:
    """The grid that a source is resampled to: its own if it is already at or above the target pixel size.

    In the CRS of the source, the upper left corner is kept, and the grid has as many whole pixels as the source covers.
    In another CRS it is the grid that GDAL suggests, as for the published training set (stacchip's MODIS processor).

    Raises:
        InputError: the source's CRS is not in metres, or the source cannot be reprojected to the new CRS.
    """
    if spec.crs is not None:
        return _reprojected(source, spec, href)
    if spec.gsd is None or is_coarser(source, spec.gsd):
        return source
    if not source.crs.is_projected or source.crs.linear_units_factor[1] != 1.0:
        raise InputError(f"{href}: {source.crs.to_string()} is not a projected CRS in metres. Check the item's hrefs.")
    if min(source.pixel) > spec.gsd * (1 - EQUAL):
        return source
    across, down = source.pixel
    height = max(1, floor(source.height * down / spec.gsd * (1 + EQUAL)))
    width = max(1, floor(source.width * across / spec.gsd * (1 + EQUAL)))
    placed = Affine(spec.gsd, 0, source.transform.c, 0, -spec.gsd, source.transform.f)
    return Grid(source.crs, placed, height, width)


def _reprojected(source: Grid, spec: ResampleSpec, href: str) -> Grid:
    (across, down), left, top = source.pixel, source.transform.c, source.transform.f
    edges = left, top - down * source.height, left + across * source.width, top
    place = source.crs, spec.crs, source.width, source.height, *edges
    try:
        placed, width, height = calculate_default_transform(*place)
        if spec.gsd is not None and max(placed.a, -placed.e) < spec.gsd * (1 - EQUAL):
            placed, width, height = calculate_default_transform(*place, resolution=spec.gsd)
        new = Grid(CRS.from_user_input(spec.crs), placed, height, width)
        finest = max(max(source.pixel) * _metres(source.crs), spec.gsd or 0)
        coarsened = max(new.pixel) * _metres(new.crs) / finest
    except (RasterioError, CRSError) as error:
        raise InputError(f"{href}: cannot be reprojected to {spec.crs} ({error}). Exclude the scene.") from error
    more = height * width / (source.height * source.width)
    if max(coarsened, more) > COARSENED_MAX:
        raise InputError(
            f"{href}: cannot be reprojected to {spec.crs}: pixels would be {coarsened:.3g} times as large, or "
            f"{more:.3g} times as many. It reaches a pole or the antimeridian. Exclude the scene."
        )
    return new


def _metres(crs: CRS) -> float:
    """Metres per unit of a CRS; for degrees, at the equator."""
    factor = float(crs.units_factor[1])
    return factor * MODIS_RADIUS if crs.is_geographic else factor


# --- pixels -----------------------------------------------------------------------------------------


def write_resampled(path: Path, source: Raster, grid: Grid, new: Grid, spec: ResampleSpec) -> None:
    """Write a raster on its new grid.

    Args:
        path: path of the GeoTIFF; a temporary file is written next to it.
        source: the open raster.
        grid: the raster's grid.
        new: the grid to write, from `target_grid`.
        spec: how to resample.

    Raises:
        InputError: too few bands, a fill value out of range of the dtype, or a location outside the new CRS.
        StorageError: the file cannot be written.
        SourceError: the source could not be read to the end.
    """
    href, dataset = source.href, source.dataset
    bands = [band for band in dataset.indexes if not (spec.masked and band in source.alpha)]
    if spec.bands is not None and len(bands) < spec.bands:
        raise InputError(f"{href}: {len(bands)} bands besides alpha, expected {spec.bands}. Check the item's hrefs.")
    if spec.fill is not None and not in_dtype_range(spec.fill, dataset.dtypes[0]):
        raise InputError(
            f"{href}: dtype {dataset.dtypes[0]} cannot hold the fill value {spec.fill:g}. Check the item's hrefs."
        )
    bands = bands[: spec.bands]
    profile = {
        "dtype": dataset.dtypes[0],
        "count": len(bands),
        "height": new.height,
        "width": new.width,
        "crs": new.crs,
        "transform": new.transform,
        "nodata": None if spec.masked else spec.fill,
    }
    scratch = path.with_name(f"{path.name}.strips.tif")
    try:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), ExitStack() as stack:
            with _storing(path):
                sink = stack.enter_context(rasterio.open(scratch, "w", **SCRATCH, **profile))
                sink.colorinterp = [dataset.colorinterp[band - 1] for band in bands]
                sink.scales = [dataset.scales[band - 1] for band in bands]
                sink.offsets = [dataset.offsets[band - 1] for band in bands]
            for top, pixels, valid in _strips(source, bands, grid, new, spec):
                window = Window(0, top, new.width, len(valid))
                with _storing(path):
                    sink.write(pixels, window=window)
                    if spec.masked:
                        sink.write_mask(valid, window=window)
            with _storing(path):
                stack.close()
                rasterio.shutil.copy(scratch, path, **COG, overview_resampling=spec.resampling.upper())
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _storing(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # errors of GDAL have no public base class
        raise StorageError(f"cannot write {path}: {error}. Check that there is space left.") from error


def _strips(
    source: Raster, bands: list[int], grid: Grid, new: Grid, spec: ResampleSpec
) -> Iterator[tuple[int, Pixels, Mask]]:
    """Strips of the new raster from the top: first row, pixels (band, row, column), and valid mask (row, column)."""
    widest = max(new.width, grid.width * grid.height / new.height)
    step = max(1, int(STRIP_PIXELS / widest))
    for top in range(0, new.height, step):
        bottom = min(top + step, new.height)
        if new == grid:
            part = _read(source, bands, spec, top, bottom)
        else:
            part = _resampled(source, bands, grid, new, spec, top, bottom)
        pixels, valid = part[:-1], part[-1] == VALID
        pixels[:, ~valid] = 0 if spec.masked or spec.fill is None else spec.fill
        yield top, pixels, valid


def _read(source: Raster, bands: list[int], spec: ResampleSpec, first: int, last: int) -> Pixels:
    """Rows of the source: the bands, and the mask band."""
    width = source.shape[1]
    window = Window(0, first, width, last - first)
    part = np.full((len(bands) + 1, last - first, width), VALID, source.dataset.dtypes[0])
    source.read(bands, window, out=part[:-1])
    if spec.masked:
        if source.has_mask:
            part[-1] = source.read_mask(window) != 0
        elif len(bands) == source.dataset.count:
            part[-1] = part[:-1].any(axis=0)
        else:
            part[-1] = source.read(window=window).any(axis=0)
    return part


def _resampled(
    source: Raster,
    bands: list[int],
    grid: Grid,
    new: Grid,
    spec: ResampleSpec,
    top: int,
    bottom: int,
) -> Pixels:
    """Rows of the new grid, as from `_read`; the mask band is 0 outside the source."""
    options: dict[str, Any] = {"src_crs": grid.crs, "dst_crs": new.crs, "resampling": Resampling[spec.resampling]}
    if spec.crs is None:
        # In pixels of the source, so that rounding is the same everywhere in the world and in every strip.
        # They begin at 1, since GDAL treats an identity as no transform.
        across, down = (round(n / o, 9) for n, o in zip(new.pixel, grid.pixel, strict=True))
        margin = ceil(down) + 2  # reach of the kernel
        first, last = floor(top * down) - margin, ceil(bottom * down) + margin
        placed, made = Affine(1, 0, 1, 0, 1, 0), Affine(across, 0, 1, 0, down, 0)
        options |= {"XSCALE": 1 / across, "YSCALE": 1 / down}  # by default taken from each strip's size
    else:
        first, last = _rows_under(grid, new, top, bottom)
        placed, made = grid.transform, new.transform
    first = min(max(first, 0), grid.height - 1)
    part = _read(source, bands, spec, first, max(first + 1, min(last, grid.height)))
    pixels = np.zeros((len(part), bottom - top, new.width), part.dtype)
    # GDAL takes the last band as alpha: masked pixels have no weight, and a pixel is valid if the nearest one of the
    # source is. No nodata value is passed, since GDAL alters valid pixels that happen to have it.
    try:
        reproject(
            part,
            pixels,
            src_transform=_from_row(placed, first),
            dst_transform=_from_row(made, top),
            src_alpha=len(part),
            SRC_ALPHA_MAX=VALID,
            init_dest_nodata=False,
            **options,
        )
    except (RasterioError, CRSError) as error:
        raise InputError(
            f"{source.href}: cannot be reprojected to {new.crs.to_string()} ({error}). Exclude the scene."
        ) from error
    return pixels


def _from_row(t: Affine, row: int) -> Affine:
    return Affine(t.a, t.b, t.c + t.b * row, t.d, t.e, t.f + t.e * row)


def _rows_under(grid: Grid, new: Grid, top: int, bottom: int) -> tuple[int, int]:
    """Source rows under rows of the new grid, with a margin; all rows if the strip reaches the Earth's edge."""
    across, down = SAMPLES
    column, row = np.meshgrid(np.linspace(0, new.width, across), np.linspace(top, bottom, down))
    t = new.transform
    _, northing = transform(new.crs, grid.crs, (t.a * column + t.c).ravel(), (t.e * row + t.f).ravel())
    rows = (grid.transform.f - np.asarray(northing)) / grid.pixel[1]
    if not np.isfinite(rows).all():
        return 0, grid.height
    margin = 16 + np.ptp(rows) / 16  # rows bend between the samples
    return floor(rows.min() - margin), ceil(rows.max() + margin)
