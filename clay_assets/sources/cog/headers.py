"""Reads the header of a cloud-optimised GeoTIFF: all that is needed to fetch and decode its blocks later.

Tags are read by tifffile, which reads from any file-like object and so through our own transport (async-tiff has its
own transport, without signers). Georeferencing, nodata, scales and offsets are interpreted by GDAL, from a TIFF of one
pixel with the same tags.

TIFF 6.0, BigTIFF, and https://gdal.org/en/stable/drivers/raster/gtiff.html
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import MemoryFile

from clay_assets.errors import ClayError, InputError
from clay_assets.sources.cog.decoding import why_not_decoded
from clay_assets.sources.cog.ranges import Version, fetch, fetch_same
from clay_assets.sources.rasters import open_raster, side_cars
from clay_assets.transport.access import Access

if TYPE_CHECKING:
    import pyarrow as pa
    from tifffile import TiffFile, TiffPage

CHUNK = 1 << 16  # bytes fetched at once; the header of most cloud-optimised GeoTIFFs is smaller
LAYOUTS = 512  # combinations of tags whose interpretation is cached: bands of a scene share them
HEADER_MAX = 64 << 20  # bytes; a larger header means a damaged file
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Of tag 254, NewSubfileType.
REDUCED, MASK = 1, 4
# Tags that GDAL interprets, other than layout: sample format, colours, georeferencing, GDAL's own.
MEANING = (258, 262, 277, 320, 338, 339, 33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844)
YCBCR, RGB = 6, 2
READ_AS = {"complex_int16": "complex64"}  # GDAL types without a numpy type → type in rasterio
OF_MASK: dict[str, Any] = {
    **{"is_mask": True, "dtype": "uint8", "nodata": None},
    **{"scales": (1.0,), "offsets": (0.0,), "colorinterp": ("undefined",)},
}
KINDS = {1: "uint", 2: "int", 3: "float", 6: "complex"}  # values of tag 339, SampleFormat
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes by type of tag, TIFF 6.0


@dataclass(frozen=True, eq=False)
class CogHeader:
    """One image of a file: its pixels at full resolution, an overview, or a mask.

    Blocks are numbered row by row; if bands are stored separately (`planar`), band by band.

    Attributes:
        size, etag, mtime_ns: version of the file (see `ranges.Version`).
        level: None at full resolution, else the index of the overview.
        is_mask: whether it is the file's validity mask, read as uint8, 0 or 255.
        width, height: pixels.
        count: bands.
        dtype: name of the numpy type of a pixel.
        block_width, block_height: pixels; blocks at the right and bottom edge are stored whole.
        compression, predictor, photometric: values of the TIFF tags 259, 317 and 262.
        planar: whether bands are stored separately.
        bits: bits per sample.
        byte_order: "<" or ">".
        lerc: additional compression of LERC blocks (0: none, 1: deflate, 2: ZSTD).
        jpeg_tables: tables shared by all JPEG blocks.
        block_offsets, block_byte_counts: uint64, by block; a count of 0 is a sparse block, without data.
        transform: pixel column and row → x and y of the CRS, the first six numbers of `Affine`.
        crs: authority code or WKT; None if the file has none.
        nodata: nodata value; None if the file has none.
        scales, offsets: by band: physical value = pixel value · scale + offset.
        colorinterp: by band, rasterio's names, such as `alpha`.
        fallback: why blocks must be read through rasterio, or None.
        mask: the validity mask of this image, or None.
        overviews: from fine to coarse; empty for an overview.
    """

    size: int
    etag: str | None
    mtime_ns: int | None
    level: int | None
    is_mask: bool
    width: int
    height: int
    count: int
    dtype: str
    block_width: int
    block_height: int
    compression: int
    predictor: int
    photometric: int
    planar: bool
    bits: int
    byte_order: str
    lerc: int
    jpeg_tables: bytes | None
    block_offsets: NDArray[np.uint64] = field(repr=False)
    block_byte_counts: NDArray[np.uint64] = field(repr=False)
    transform: tuple[float, ...]
    crs: str | None
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    colorinterp: tuple[str, ...]
    fallback: str | None = None
    mask: CogHeader | None = None
    overviews: tuple[CogHeader, ...] = ()

    @property
    def version(self) -> Version:
        """The version of the file that the header was read from."""
        return Version(self.size, self.etag, self.mtime_ns)

    @property
    def blocks_across(self) -> int:
        """Number of blocks per row."""
        return -(-self.width // self.block_width)

    @property
    def blocks_down(self) -> int:
        """Number of rows of blocks."""
        return -(-self.height // self.block_height)

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return self.blocks_across * self.blocks_down * (self.count if self.planar else 1)

    @property
    def block_bands(self) -> int:
        """Number of bands in a block."""
        return 1 if self.planar else self.count

    @property
    def images(self) -> Iterator[CogHeader]:
        """All images of the file: this one, its mask, and the overviews with theirs."""
        yield self
        if self.mask is not None:
            yield self.mask
        for overview in self.overviews:
            yield from overview.images

    def to_records(self) -> list[dict[str, Any]]:
        """Rows of `arrow_schema()`, one per image of `images`."""
        return [{name: getattr(image, name) for name in _OF_IMAGE} for image in self.images]

    @classmethod
    def from_records(cls, records: Sequence[Mapping[str, Any]]) -> CogHeader:
        """The inverse of `to_records`; other columns are ignored."""
        full, *others = map(cls._of_record, records)
        masks = {image.level: image for image in others if image.is_mask}
        overviews = tuple(image for image in others if not image.is_mask)
        for image in (full, *overviews):
            image.__dict__["mask"] = masks.get(image.level)
        full.__dict__["overviews"] = overviews
        return full

    @classmethod
    def _of_record(cls, record: Mapping[str, Any]) -> CogHeader:
        values = {name: record[name] for name in _OF_IMAGE}
        for name in ("block_offsets", "block_byte_counts"):
            values[name] = np.asarray(values[name], np.uint64)
        for name in ("transform", "scales", "offsets", "colorinterp"):
            values[name] = tuple(values[name])
        image = cls.__new__(cls)  # a scene has dozens, and `__init__` of a frozen class takes as long as reading them
        image.__dict__.update(values, mask=None, overviews=())
        return image


_OF_IMAGE = tuple(each.name for each in fields(CogHeader) if each.name not in ("mask", "overviews"))


def arrow_schema() -> pa.Schema:
    """Columns of a table of headers, with one row per image of a file.

    No column is nested deeper than a list: Parquet takes longer to read each column than all rows of a scene.
    """
    import pyarrow as pa

    lists = {"block_offsets": pa.uint64(), "block_byte_counts": pa.uint64(), "colorinterp": pa.string()}
    lists |= dict.fromkeys(("transform", "scales", "offsets"), pa.float64())
    types = {
        **dict.fromkeys(("size", "mtime_ns"), pa.int64()),
        **dict.fromkeys(("is_mask", "planar"), pa.bool_()),
        **dict.fromkeys(("etag", "dtype", "byte_order", "crs", "fallback"), pa.string()),
        **{name: pa.list_(kind) for name, kind in lists.items()},
        "jpeg_tables": pa.binary(),
        "nodata": pa.float64(),
    }
    return pa.schema([(name, types.get(name, pa.int32())) for name in _OF_IMAGE])


def read_header(href: str, access: Access | None = None) -> CogHeader:
    """Read the header of a raster file, in one request if it is within the first 64 kB.

    Args:
        href: local path, `s3://`, `http(s)://` or `file://` address.
        access: how the file is accessed.

    Returns:
        The header of the full-resolution image. If the file is not a tiled TIFF, or cannot be decoded here, `fallback`
        says why, and it is read through rasterio.

    Raises:
        InputError: the file is missing, forbidden, or not a raster.
        SourceError: a remote file could not be read now.
    """
    access = access or Access()
    head = _Head(href, access)
    if head.beginning not in TIFF:
        return _by_rasterio(href, access, head.version, "not a TIFF")
    try:
        import tifffile

        with tifffile.TiffFile(head) as tiff:
            return _header(href, access, tiff, head)
    except ClayError:
        raise
    except Exception as error:  # tifffile raises anything on a damaged header; GDAL may still read it
        return _by_rasterio(href, access, head.version, f"a header that cannot be parsed ({error})")


class _Head(io.RawIOBase):
    """A file-like object that fetches chunks as tifffile reads them."""

    def __init__(self, href: str, access: Access) -> None:
        super().__init__()
        self._href, self._access = href, access
        first, self.version = fetch(href, access, 0, CHUNK)
        self.beginning = first[:4]
        self._chunks = {0: first}
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.version.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self.at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def at(self, start: int, size: int) -> bytes:
        """Bytes from an offset, fewer at the end of the file."""
        stop = min(start + size, self.version.size)
        if stop <= start:
            return b""
        first, last = start // CHUNK, (stop - 1) // CHUNK
        missing = [chunk for chunk in range(first, last + 1) if chunk not in self._chunks]
        if (len(self._chunks) + len(missing)) * CHUNK > HEADER_MAX:
            raise InputError(f"{self._href}: a header of more than {HEADER_MAX} bytes. Download the file again.")
        if missing:
            begin, end = missing[0] * CHUNK, (missing[-1] + 1) * CHUNK
            data = fetch_same(self._href, self._access, begin, end, self.version)
            self._chunks |= {missing[0] + at // CHUNK: data[at : at + CHUNK] for at in range(0, len(data), CHUNK)}
        found = b"".join(self._chunks[chunk] for chunk in range(first, last + 1))
        return found[start - first * CHUNK : stop - first * CHUNK]


# --- of a TIFF ------------------------------------------------------------------------------------


def _header(href: str, access: Access, tiff: TiffFile, head: _Head) -> CogHeader:
    pages = [page for page in tiff.pages if not isinstance(page, int)]
    full = pages[0].aspage()
    meaning, why_beside = _meaning(href, access, full, tiff.byteorder, head)
    shared = {**meaning, **_version_of(head.version)}
    image = _image(full, tiff.byteorder, None, shared)
    masks, reduced = [], []
    for page in (other.aspage() for other in pages[1:]):
        kind = int(page.tags.valueof(254, 0))
        if kind & MASK:
            masks.append(page)
        elif kind & REDUCED:
            reduced.append(page)
    overviews = [_image(page, tiff.byteorder, level, shared) for level, page in enumerate(reduced)]
    full_mask = _mask_of(image, masks, tiff.byteorder)
    if full_mask is None and why_beside is not None:
        full_mask = mask_by_rasterio(image, why_beside)
    overviews = [
        replace(overview, transform=_scaled(image, overview), mask=_mask_of(overview, masks, tiff.byteorder))
        for overview in overviews
    ]
    return replace(image, mask=full_mask, overviews=tuple(overviews))


def _image(page: TiffPage, byte_order: str, level: int | None, shared: Mapping[str, Any]) -> CogHeader:
    def tag(code: int, default: Any) -> Any:
        found = page.tags.valueof(code, default)
        return default if found is None else found

    bits, kinds = _uniform(tag(258, 1)), _uniform(tag(339, 1))
    stored = f"{KINDS.get(kinds or 0, 'unknown')}{bits}"
    width, height, count = int(tag(256, 0)), int(tag(257, 0)), int(tag(277, 1))
    lerc = tag(50674, (0, 0))
    tiled = 322 in page.tags
    image = CogHeader(
        level=level,
        width=width,
        height=height,
        count=count,
        block_width=int(tag(322, width)),
        block_height=int(tag(323, min(int(tag(278, height)), height))),
        compression=int(tag(259, 1)),
        predictor=int(tag(317, 1)),
        photometric=int(tag(262, 1)),
        planar=int(tag(284, 1)) == 2 and count > 1,
        bits=bits or 0,
        byte_order=byte_order,
        lerc=int(lerc[1]) if np.size(lerc) > 1 else 0,
        jpeg_tables=bytes(tag(347, b"")) or None,
        block_offsets=np.atleast_1d(np.asarray(tag(324, ()), np.uint64)),
        block_byte_counts=np.atleast_1d(np.asarray(tag(325, ()), np.uint64)),
        **shared,
    )
    whole = image.block_count == len(image.block_offsets) == len(image.block_byte_counts)
    if not tiled:
        why: str | None = "strips"
    elif int(tag(266, 1)) != 1 or int(tag(274, 1)) != 1 or int(tag(32998, 1)) != 1:
        why = "an unusual order of bits, rows or planes"
    elif not whole:
        why = "a table of blocks that does not fit the image"
    else:
        why = why_not_decoded(image, stored)
    return replace(image, fallback=why)


def _uniform(values: Any) -> int | None:
    """The common value of all bands; None if they differ."""
    found = set(np.atleast_1d(values).tolist())
    return int(found.pop()) if len(found) == 1 else None


def _mask_of(image: CogHeader, masks: list[TiffPage], byte_order: str) -> CogHeader | None:
    """The mask in the file with the size of an image, which is how GDAL finds it too."""
    for page in masks:
        if (page.imagewidth, page.imagelength) == (image.width, image.height):
            kept = ("size", "etag", "mtime_ns", "transform", "crs")
            mask = _image(page, byte_order, image.level, {**{name: getattr(image, name) for name in kept}, **OF_MASK})
            why = None if (mask.count, mask.bits) == (1, 1) else "a mask of more than one bit"
            return replace(mask, fallback=mask.fallback or why)
    return None


def _scaled(image: CogHeader, overview: CogHeader) -> tuple[float, ...]:
    scale = Affine.scale(image.width / overview.width, image.height / overview.height)
    return tuple(Affine(*image.transform) @ scale)[:6]


# --- what it means, as GDAL says ------------------------------------------------------------------


def _meaning(
    href: str, access: Access, page: TiffPage, byte_order: str, head: _Head
) -> tuple[dict[str, Any], str | None]:
    """Georeferencing, nodata, scales and colours of a file, and why its mask is read through rasterio."""
    if [beside for beside in side_cars(href) if beside.suffix != ".ovr"]:
        with open_raster(href, access) as raster:
            return _asked(raster.dataset)
    content = _one_pixel(page, byte_order, head)
    return (_meaning_of_tags if len(content) > CHUNK else _kept_meaning_of_tags)(content)


def _meaning_of_tags(content: bytes) -> tuple[dict[str, Any], str | None]:
    """GDAL's interpretation of a file in memory, cached, since it depends on the tags only."""
    with MemoryFile(content) as memory, memory.open() as dataset:
        return _asked(dataset)


_kept_meaning_of_tags = lru_cache(maxsize=LAYOUTS)(_meaning_of_tags)


def _asked(dataset: rasterio.DatasetReader) -> tuple[dict[str, Any], str | None]:
    return _meaning_of(dataset), _why_masked(dataset, "a mask in a sidecar file")


def _one_pixel(page: TiffPage, byte_order: str, head: _Head) -> bytes:
    """A TIFF of one pixel with the same tags in `MEANING`."""
    tags: dict[int, tuple[int, int, bytes]] = {}
    for code in MEANING:
        tag = page.tags.get(code)
        if tag is not None and int(tag.dtype) in _SIZES:
            kind = int(tag.dtype)
            tags[code] = kind, tag.count, head.at(tag.valueoffset, tag.count * _SIZES[kind])
    short, long = f"{byte_order}H", f"{byte_order}I"
    pixel = bytes(-(-int(np.sum(page.tags.valueof(258, 1)) * _once_each(page)) // 8))
    tags |= {code: (3, 1, struct.pack(short, 1)) for code in (256, 257, 259, 278, 284)}
    if page.tags.valueof(262, 1) == YCBCR:
        tags[262] = 3, 1, struct.pack(short, RGB)
    tags |= {273: (4, 1, b""), 279: (4, 1, struct.pack(long, len(pixel)))}
    place = 8 + 2 + 12 * len(tags) + 4  # offset of values that do not fit into the directory
    tags[273] = 4, 1, struct.pack(long, place)
    place += len(pixel)
    entries, rest = [], [pixel]
    for code, (kind, count, value) in sorted(tags.items()):
        if len(value) > 4:
            where = struct.pack(long, place)
            rest.append(value + bytes(len(value) % 2))
            place += len(rest[-1])
        else:
            where = value.ljust(4, b"\0")
        entries.append(struct.pack(f"{byte_order}HHI", code, kind, count) + where)
    mark = b"II" if byte_order == "<" else b"MM"
    start = mark + struct.pack(f"{byte_order}HI", 42, 8) + struct.pack(short, len(entries))
    return b"".join([start, *entries, bytes(4), *rest])


def _once_each(page: TiffPage) -> int:
    """Number of samples per value of BitsPerSample; some writers give one value for all."""
    return int(page.tags.valueof(277, 1)) if np.size(page.tags.valueof(258, 1)) == 1 else 1


def _meaning_of(dataset: rasterio.DatasetReader) -> dict[str, Any]:
    dtype = dataset.dtypes[0]
    return {
        "is_mask": False,
        "dtype": READ_AS.get(dtype, dtype),
        "transform": tuple(dataset.transform)[:6],
        "crs": dataset.crs.to_string() if dataset.crs else None,
        "nodata": None if dataset.nodata is None else float(dataset.nodata),
        "scales": tuple(map(float, dataset.scales)),
        "offsets": tuple(map(float, dataset.offsets)),
        "colorinterp": tuple(meaning.name for meaning in dataset.colorinterp),
    }


def _version_of(version: Version) -> dict[str, Any]:
    return {"size": version.size, "etag": version.etag, "mtime_ns": version.mtime_ns}


# --- of what only rasterio reads ------------------------------------------------------------------


def _by_rasterio(href: str, access: Access, version: Version, why: str) -> CogHeader:
    with open_raster(href, access) as raster:
        full = _image_by_rasterio(raster.dataset, None, version, why)
        levels = len(raster.dataset.overviews(1))
    overviews = []
    for level in range(levels):
        with open_raster(href, access, overview_level=level) as raster:
            overviews.append(_image_by_rasterio(raster.dataset, level, version, why))
    return replace(full, overviews=tuple(overviews))


def _image_by_rasterio(dataset: rasterio.DatasetReader, level: int | None, version: Version, why: str) -> CogHeader:
    height, width = dataset.block_shapes[0]
    none = np.empty(0, np.uint64)
    image = CogHeader(
        level=level,
        width=dataset.width,
        height=dataset.height,
        count=dataset.count,
        block_width=width,
        block_height=height,
        compression=0,
        predictor=1,
        photometric=0,
        planar=False,
        bits=0,
        byte_order="<",
        lerc=0,
        jpeg_tables=None,
        block_offsets=none,
        block_byte_counts=none,
        fallback=why,
        **_meaning_of(dataset),
        **_version_of(version),
    )
    why_masked = _why_masked(dataset, why)
    return image if why_masked is None else replace(image, mask=mask_by_rasterio(image, why_masked))


def _why_masked(dataset: rasterio.DatasetReader, why: str) -> str | None:
    """Why a mask is read through rasterio; None: alpha is a band, and nodata that all bands share is in the header."""
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        return why
    return None if len(set(map(str, dataset.nodatavals))) == 1 else "nodata that differs by band"


def mask_by_rasterio(image: CogHeader, why: str) -> CogHeader:
    """The header of an image's mask, to be read through rasterio: may be derived from nodata, never from alpha."""
    none = np.empty(0, np.uint64)
    return replace(
        image,
        count=1,
        block_offsets=none,
        block_byte_counts=none,
        fallback=why,
        mask=None,
        overviews=(),
        **OF_MASK,
    )
