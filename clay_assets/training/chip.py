"""One chip, and a batch of chips of one platform: pixels and the metadata that Clay's model takes.

Both are made by a `Chipper`. Masks are read on first use.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Pixels = NDArray[Any]
Mask = NDArray[np.bool_]
Affine6 = tuple[float, float, float, float, float, float]

WEEKS, HOURS = 52, 24  # Clay divides a year and a day into this many
GREY = 128  # colour of pixels without data


@dataclass(frozen=True, eq=False)
class ChipBatch:
    """Chips of one platform, in the order in which they were requested.

    Attributes:
        platform: platform key.
        bands: band names, in the order of `pixels`.
        pixels: (chips, bands, 256, 256), in the files' own dtype.
        item_id: scene of each chip.
        x, y: column and row of each chip in its scene; (chips,).
        datetime: time of acquisition, UTC, datetime64[ms]; (chips,).
        gsd: nominal pixel size that the model takes, metres; NaN for a platform that it was not trained on.
        gsd_true: size of a pixel on the ground at the chip's centre, metres; (chips,).
        bounds: west, south, east and north in the CRS of the scene; (chips, 4).
        crs: CRS of each chip's scene, as an authority code or WKT.
        transforms: pixel column and row → x and y of the CRS, the six numbers of `Affine`; (chips, 6).
        latlon: sine and cosine of the latitude and of the longitude of the chip's centre, float32; (chips, 4).
        waves: wavelengths of the bands, µm, float32; (bands,).

    Examples:
        >>> from clay_assets.training import ChipBatch, Chipper, open_chips
        >>> batch = Chipper(open_chips("demo/storage", "sentinel-2-l2a")).batch([2, 0, 1])
        >>> isinstance(batch, ChipBatch)
        True
        >>> batch.pixels.shape, batch.valid.shape, batch.time.shape, batch.latlon.shape, batch.waves.shape
        ((3, 10, 256, 256), (3, 256, 256), (3, 4), (3, 4), (10,))
    """

    platform: str
    bands: tuple[str, ...]
    pixels: Pixels
    item_id: tuple[str, ...]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    datetime: NDArray[np.datetime64]
    gsd: float
    gsd_true: NDArray[np.float32]
    bounds: NDArray[np.float64]
    crs: tuple[str, ...]
    transforms: NDArray[np.float64]
    latlon: NDArray[np.float32]
    waves: NDArray[np.float32]
    read_masks: Callable[[], tuple[Mask, Mask]] = field(repr=False)
    rgb: tuple[int, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.pixels)

    def __getitem__(self, number: int) -> Chip:
        """One chip; its pixels are a view of the batch's."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"chip {number}: the batch has {len(self)} chips.")
        return Chip(self, number % len(self))

    def __iter__(self) -> Iterator[Chip]:
        """Every chip in turn."""
        return (Chip(self, number) for number in range(len(self)))

    @cached_property
    def _masks(self) -> tuple[Mask, Mask]:
        return self.read_masks()

    @property
    def valid(self) -> Mask:
        """True where pixels have data, by the platform's own rule; (chips, 256, 256)."""
        return self._masks[0]

    @property
    def cloud(self) -> Mask:
        """True where pixels are cloudy, by the platform's own rule; (chips, 256, 256)."""
        return self._masks[1]

    @cached_property
    def time(self) -> NDArray[np.float32]:
        """Sine and cosine of the ISO week of 52, and of the hour (UTC) of 24; float32, (chips, 4)."""
        moments = [moment.astype("datetime64[ms]").item() for moment in self.datetime]
        weeks = np.array([moment.isocalendar().week for moment in moments], np.float64) * 2 * np.pi / WEEKS
        hours = np.array([moment.hour for moment in moments], np.float64) * 2 * np.pi / HOURS
        return sines(weeks, hours)


def no_chips(platform: str, bands: Sequence[str], dtype: str, gsd: float, waves: Sequence[float]) -> ChipBatch:
    """An empty batch of a platform."""
    side = 256
    masks = np.empty((0, side, side), np.bool_)
    whole, size, moments = np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, "datetime64[ms]")
    return ChipBatch(
        platform=platform,
        bands=tuple(bands),
        pixels=np.empty((0, len(bands), side, side), dtype),
        item_id=(),
        x=whole,
        y=whole,
        datetime=moments,
        gsd=gsd,
        gsd_true=size,
        bounds=np.empty((0, 4)),
        crs=(),
        transforms=np.empty((0, 6)),
        latlon=np.empty((0, 4), np.float32),
        waves=np.array(waves, np.float32),
        read_masks=lambda: (masks, masks),
    )


@dataclass(frozen=True, eq=False, repr=False)
class Chip:
    """One chip of a batch; it keeps the whole batch alive, so copy `pixels` to keep many single chips.

    A notebook shows it as a picture.

    Attributes:
        batch: the batch that the chip belongs to.
        number: its index in the batch.

    Examples:
        >>> from clay_assets.training import Chip, Chipper, open_chips
        >>> chip = Chipper(open_chips("demo/storage", "sentinel-2-l2a"))[0]
        >>> isinstance(chip, Chip)
        True
        >>> chip.pixels.dtype, chip.bands[:3]
        (dtype('uint16'), ('blue', 'green', 'red'))
        >>> chip.to_geotiff("demo/chip.tif").name
        'chip.tif'
    """

    batch: ChipBatch
    number: int

    def __repr__(self) -> str:
        count, height, width = self.pixels.shape
        return (
            f"Chip({self.chipid!r}, {self.platform}, {self.datetime:%Y-%m-%d}, {count} bands of {height} × {width}, "
            f"{self.pixels.dtype})"
        )

    @property
    def chipid(self) -> str:
        """`{item_id}-{x}-{y}`, as in the index."""
        return f"{self.item_id}-{self.x}-{self.y}"

    @property
    def platform(self) -> str:
        """Platform key."""
        return self.batch.platform

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the model's order."""
        return self.batch.bands

    @property
    def pixels(self) -> Pixels:
        """(bands, 256, 256), in the file's own dtype."""
        pixels: Pixels = self.batch.pixels[self.number]
        return pixels

    @property
    def valid(self) -> Mask:
        """True where pixels have data, by the platform's own rule; (256, 256)."""
        valid: Mask = self.batch.valid[self.number]
        return valid

    @property
    def cloud(self) -> Mask:
        """True where pixels are cloudy, by the platform's own rule; (256, 256)."""
        cloud: Mask = self.batch.cloud[self.number]
        return cloud

    @property
    def item_id(self) -> str:
        """Id of the scene."""
        return self.batch.item_id[self.number]

    @property
    def x(self) -> int:
        """Column of the chip in its scene."""
        return int(self.batch.x[self.number])

    @property
    def y(self) -> int:
        """Row of the chip in its scene."""
        return int(self.batch.y[self.number])

    @property
    def datetime(self) -> datetime:
        """Time of acquisition, UTC."""
        moment: datetime = self.batch.datetime[self.number].astype("datetime64[ms]").item()
        return moment.replace(tzinfo=UTC)

    @property
    def gsd(self) -> float:
        """Nominal pixel size that the model takes, metres."""
        return self.batch.gsd

    @property
    def gsd_true(self) -> float:
        """Size of a pixel on the ground at the centre, metres."""
        return float(self.batch.gsd_true[self.number])

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north in `crs`."""
        west, south, east, north = self.batch.bounds[self.number].tolist()
        return west, south, east, north

    @property
    def crs(self) -> str:
        """CRS of the scene, as an authority code or WKT."""
        return self.batch.crs[self.number]

    @property
    def transform(self) -> Affine6:
        """Pixel column and row → x and y of `crs`, the six numbers of `Affine`."""
        a, b, c, d, e, f = self.batch.transforms[self.number].tolist()
        return a, b, c, d, e, f

    @property
    def time(self) -> NDArray[np.float32]:
        """See `ChipBatch`; (4,)."""
        time: NDArray[np.float32] = self.batch.time[self.number]
        return time

    @property
    def latlon(self) -> NDArray[np.float32]:
        """See `ChipBatch`; (4,)."""
        latlon: NDArray[np.float32] = self.batch.latlon[self.number]
        return latlon

    @property
    def waves(self) -> NDArray[np.float32]:
        """Wavelengths of the bands, µm; (bands,)."""
        return self.batch.waves

    def rgb(self) -> NDArray[np.uint8]:
        """The chip in approximate true colour, (256, 256, 3); grey where there is no data.

        If its bands cannot be shown in colour, as with backscatter, the first is shown in grey.
        """
        from clay_assets.pictures.stretch import Stretch

        shown = self.pixels[list(self.batch.rgb or (0,))].astype(np.float32)
        valid = self.valid & np.isfinite(shown).all(axis=0)
        clear = valid & ~self.cloud
        stretch = Stretch.of(shown[:, clear if clear.any() else valid], shown[:, valid])
        colours = np.where(valid, stretch.applied(np.nan_to_num(shown)) * 255, GREY)
        image = np.broadcast_to(np.rint(colours).astype(np.uint8), (3, *colours.shape[1:]))
        return np.ascontiguousarray(image.transpose(1, 2, 0))

    def to_png(self) -> bytes:
        """`rgb()` as a PNG file."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.rgb()).save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """The picture and metadata that a notebook shows."""
        picture = base64.b64encode(self.to_png()).decode()
        lines = {
            "chip": self.chipid,
            "platform": self.platform,
            "acquired": f"{self.datetime:%Y-%m-%d %H:%M} UTC",
            "bands": ", ".join(self.bands),
            "pixels": f"{self.pixels.dtype}, {self.gsd_true:.4g} m on the ground",
            "valid": f"{self.valid.mean():.0%}",
            "cloud": f"{self.cloud.mean():.0%}",
        }
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in lines.items())
        image = f'<img alt="{html.escape(self.chipid)}" width="256" src="data:image/png;base64,{picture}">'
        return f'<div style="display:flex;gap:1em">{image}<table>{rows}</table></div>'

    def to_xarray(self) -> xr.DataArray:
        """The chip as an `xarray.DataArray` (band, y, x), with coordinates of pixel centres and the CRS.

        `spatial_ref` is laid out as rioxarray reads it.

        Raises:
            InputError: xarray is not installed.
        """
        try:
            import xarray as xr
        except ImportError as error:
            raise InputError("to_xarray: xarray is not installed. Run `pip install xarray`.") from error
        from pyproj import CRS

        a, b, c, d, e, f = self.transform
        if b or d:
            raise InputError(f"{self.chipid}: lies on a rotated grid, which has no x and y axes. Use `to_geotiff`.")
        height, width = self.pixels.shape[1:]
        coordinates: dict[str, Any] = {
            "band": list(self.bands),
            "y": f + e * (np.arange(height) + 0.5),
            "x": c + a * (np.arange(width) + 0.5),
            "time": np.datetime64(self.datetime.replace(tzinfo=None), "ns"),
            "spatial_ref": ((), 0, {**CRS(self.crs).to_cf(), "GeoTransform": f"{c} {a} {b} {f} {d} {e}"}),
        }
        attributes = {"chipid": self.chipid, "platform": self.platform, "gsd": self.gsd, "gsd_true": self.gsd_true}
        if self.batch.pixels.dtype.kind in "ui" and not self.valid.all():
            attributes["valid_share"] = float(self.valid.mean())
        return xr.DataArray(self.pixels, coordinates, ("band", "y", "x"), "pixels", attributes)

    def to_geotiff(self, path: str | Path) -> Path:
        """Write the chip as a tiled, deflated GeoTIFF, with band names, and its `valid` pixels as internal mask."""
        import rasterio
        from affine import Affine

        count, height, width = self.pixels.shape
        target = Path(path)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                target,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=count,
                dtype=self.pixels.dtype,
                crs=self.crs,
                transform=Affine(*self.transform),
                tiled=True,
                blockxsize=width,
                blockysize=height,
                compress="deflate",
                predictor=3 if self.pixels.dtype.kind == "f" else 2,
                photometric="MINISBLACK",
            ) as file,
        ):
            file.write(self.pixels)
            file.write_mask(self.valid)
            file.descriptions = self.bands
            file.update_tags(
                chipid=self.chipid,
                platform=self.platform,
                TIFFTAG_DATETIME=f"{self.datetime:%Y:%m:%d %H:%M:%S}",
                gsd_true=f"{self.gsd_true:.6g}",
            )
        return target


def sines(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sine and cosine of two angles in radians, as Clay's model takes them; float32, (n, 4)."""
    return np.stack([np.sin(first), np.cos(first), np.sin(second), np.cos(second)], axis=1).astype(np.float32)
