"""Decodes the bytes of a block to pixels, bit for bit as GDAL does.

Decoded by imagecodecs, which releases the GIL. Formats in which it differs from libtiff, or that were not compared, are
refused by `why_not_decoded`, and read through rasterio instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.errors import InputError

if TYPE_CHECKING:
    from clay_assets.sources.cog.headers import CogHeader

# Values of the TIFF tag 259.
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
LERC, LZMA, ZSTD, WEBP = 34887, 34925, 50000, 50001
BYTE_CODECS = {NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD}
# Names of imagecodecs; its deflate is libdeflate, twice as fast as zlib, which GDAL uses too.
_CODECS = {DEFLATE: "deflate", OLD_DEFLATE: "deflate", LZW: "lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}
NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3
WITH_PREDICTOR = {LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD}
# Values of the TIFF tag 262; GDAL returns the samples of some as stored, and converts others to RGB.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, TRANSPARENCY = range(5)
AS_STORED = {WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE}
NATIVE = "<" if sys.byteorder == "little" else ">"
INTEGERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
FLOATS = {"float32", "float64"}
COMPLEX = {"complex64", "complex128"}
_DAMAGED = (RuntimeError, ValueError, TypeError, IndexError, MemoryError)  # what codecs raise
LERC_DTYPES = {"int8", "uint8", "int16", "uint16", "int32", "uint32", *FLOATS}


class CorruptBlockError(InputError):
    """The bytes of a block cannot be decoded."""


def why_not_decoded(image: CogHeader, dtype: str) -> str | None:
    """Why an image with samples of a dtype is read through rasterio; None if its blocks are decoded here."""
    codec, mask = image.compression, image.bits == 1
    if not mask and (dtype not in INTEGERS | FLOATS | COMPLEX or dtype != image.dtype):
        return f"samples of type {dtype}"
    if codec == JPEG:
        return _why_no_jpeg(image, dtype)
    if not mask and image.photometric not in AS_STORED:
        return f"photometric interpretation {image.photometric}"
    if mask and (image.photometric != TRANSPARENCY or image.predictor != NO_PREDICTOR or codec not in BYTE_CODECS):
        return "samples of one bit"
    if codec == WEBP:
        return None if dtype == "uint8" and image.block_bands in (3, 4) else f"WebP of {image.block_bands} {dtype}"
    if codec == LERC:
        # libtiff reads LERC in the file's byte order, and has its own layout for several bands.
        foreign = image.byte_order != NATIVE and np.dtype(dtype).itemsize > 1
        if dtype not in LERC_DTYPES or image.lerc not in (0, 1, 2) or image.block_bands > 1 or foreign:
            return f"LERC of {image.block_bands} {dtype}{', in foreign byte order' if foreign else ''}"
        return None
    if codec not in BYTE_CODECS:
        return f"compression {codec}"
    if image.predictor == NO_PREDICTOR or codec not in WITH_PREDICTOR:
        return None
    if image.predictor == HORIZONTAL and dtype not in COMPLEX:
        return None
    if image.predictor == FLOATING_POINT and dtype in FLOATS:
        return None
    return f"predictor {image.predictor} of {dtype}"


def _why_no_jpeg(image: CogHeader, dtype: str) -> str | None:
    # imagecodecs interpolates the subsampled colours of YCbCr differently from libtiff.
    known = {1: (BLACK_IS_ZERO, RGB), 3: (RGB,)}.get(image.block_bands, ())
    if dtype != "uint8" or image.photometric not in known:
        return f"JPEG of {image.block_bands} {dtype}, photometric interpretation {image.photometric}"
    return None


def decode(
    image: CogHeader, data: bytes | memoryview, buffer: NDArray[np.uint8] | None = None, rows: int | None = None
) -> NDArray[Any]:
    """The pixels of a block, (block_height, block_width, block_bands), in the byte order of this machine.

    Args:
        image: header of the block's image.
        data: bytes of the block.
        rows: number of rows needed, from the first; a deflated block is decoded only so far, without comparing its
            checksum. None: all.
        buffer: memory to decode into, at least as large as a block; None: allocate. Some codecs always allocate.

    Raises:
        CorruptBlockError: the bytes are damaged; the message does not name the file.
    """
    try:
        return _decoded(image, data, buffer, rows)
    except _DAMAGED as error:
        raise CorruptBlockError(str(error)) from error


def decoder(image: CogHeader) -> Callable[[bytes | memoryview, NDArray[np.uint8] | None], NDArray[Any]]:
    """`decode` for many whole blocks of one image: the common layout is interpreted once, not for each block."""
    dtype = np.dtype(image.dtype)
    foreign = image.byte_order != NATIVE and dtype.itemsize > 1
    predicted = image.predictor != NO_PREDICTOR and image.compression in WITH_PREDICTOR
    if image.compression not in _CODECS or image.bits == 1 or foreign or predicted:
        return partial(decode, image)
    codec, shape = _codec(image.compression), (image.block_height, image.block_width, image.block_bands)
    size = prod(shape) * dtype.itemsize

    def plainly(data: bytes | memoryview, buffer: NDArray[np.uint8] | None) -> NDArray[Any]:
        try:
            raw = codec(data, out=np.empty(size, np.uint8) if buffer is None else buffer[:size])
            if len(raw) == size:
                return raw.view(dtype).reshape(shape)
        except _DAMAGED as error:
            raise CorruptBlockError(str(error)) from error
        raise CorruptBlockError(f"{len(raw)} bytes where {size} are expected")

    return plainly


def _decoded(
    image: CogHeader, data: bytes | memoryview, buffer: NDArray[np.uint8] | None, rows: int | None
) -> NDArray[Any]:
    import imagecodecs

    shape = image.block_height, image.block_width, image.block_bands
    if image.compression == JPEG:
        space = "rgb" if shape[2] == 3 else None
        decoded = imagecodecs.jpeg8_decode(data, tables=image.jpeg_tables, colorspace=space, outcolorspace=space)
        return _shaped(decoded, shape, image.dtype)
    if image.compression == WEBP:
        return _shaped(imagecodecs.webp_decode(data, hasalpha=shape[2] == 4), shape, image.dtype)
    if image.compression == LERC:
        return _lerc(image, data, shape)
    row = -(-image.block_width * image.block_bands * image.bits // 8)  # bytes
    if rows is not None and rows < shape[0] and image.compression in (DEFLATE, OLD_DEFLATE) and image.bits != 1:
        shape = rows, *shape[1:]
        raw = _leading_bytes(data, row * rows)
    else:
        raw = _bytes(image.compression, data, row * shape[0], buffer)
    if image.bits == 1:
        bits = np.unpackbits(raw.reshape(image.block_height, row), axis=1, count=image.block_width)
        np.multiply(bits, 255, out=bits)
        return bits[:, :, np.newaxis]
    dtype = np.dtype(image.dtype).newbyteorder("<" if image.byte_order == "<" else ">")
    stored = raw.view(dtype).reshape(shape)
    predictor = image.predictor if image.compression in WITH_PREDICTOR else NO_PREDICTOR
    if predictor == FLOATING_POINT:
        return _native(imagecodecs.floatpred_decode(stored, axis=-2))
    pixels = _native(stored)
    if predictor == HORIZONTAL:
        # libtiff adds samples as integers, even if they are floating-point numbers.
        words = pixels.view(f"u{pixels.dtype.itemsize}")
        if words.shape[2] == 1:  # twice as fast along the last axis
            imagecodecs.delta_decode(words[:, :, 0], axis=-1, out=words[:, :, 0])
        else:
            imagecodecs.delta_decode(words, axis=-2, out=words)
        return words.view(image.dtype)
    return pixels


def _bytes(
    compression: int, data: bytes | memoryview, size: int, buffer: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Decompress to `size` bytes, into the buffer or a new array."""
    out = np.empty(size, np.uint8) if buffer is None else buffer[:size]
    if compression == NONE:
        # A copy, since a view would keep the bytes of the whole range.
        stored = np.frombuffer(data, np.uint8, min(size, len(data)))
        raw = out[: len(stored)]
        raw[:] = stored
    else:
        raw = np.asarray(_codec(compression)(data, out=out))
    if len(raw) != size:
        raise CorruptBlockError(f"{len(raw)} bytes where {size} are expected")
    return raw


def _leading_bytes(data: bytes | memoryview, size: int) -> NDArray[np.uint8]:
    """Inflate the first `size` bytes."""
    from isal import isal_zlib

    raw = isal_zlib.decompressobj().decompress(data, size)
    if len(raw) != size:
        raise CorruptBlockError(f"{len(raw)} bytes where {size} are expected")
    return np.frombuffer(bytearray(raw), np.uint8)


def _codec(compression: int) -> Callable[..., NDArray[np.uint8]]:
    import imagecodecs

    found: Callable[..., NDArray[np.uint8]] = getattr(imagecodecs, f"{_CODECS[compression]}_decode")
    return found


def _lerc(image: CogHeader, data: bytes | memoryview, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Decode a LERC blob; invalid pixels are NaN, or 0 for integers, as in libtiff."""
    import imagecodecs

    if image.lerc:
        data = (imagecodecs.deflate_decode if image.lerc == 1 else imagecodecs.zstd_decode)(data)
    decoded, valid = imagecodecs.lerc_decode(data, masks=True)
    pixels = _shaped(decoded, shape, image.dtype)
    if valid is not None:
        outside = ~np.asarray(valid, bool).reshape(shape)
        pixels = pixels.copy()
        pixels[outside] = np.nan if pixels.dtype.kind == "f" else 0
    return pixels


def _shaped(pixels: NDArray[Any], shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    if pixels.size != np.prod(shape) or pixels.dtype != dtype or pixels.shape[:2] != shape[:2]:
        raise CorruptBlockError(f"{pixels.shape} {pixels.dtype} where {shape} {dtype} are expected")
    return pixels.reshape(shape)


def _native(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
