"""Reads windows of pixels from the blocks of many files; each block is fetched and decoded once.

All blocks that a call needs are planned first. Adjacent blocks of a file are fetched in one request; each is decoded in
a thread, copied into all windows that it intersects, and kept in a bounded cache.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from clay_assets.errors import InputError, SourceError
from clay_assets.executors.turns import in_turn
from clay_assets.sources.cog.decoding import CorruptBlockError, decode, decoder
from clay_assets.sources.cog.headers import CogHeader
from clay_assets.sources.cog.ranges import Data, check_same, fetch_same, version_now
from clay_assets.sources.rasters import open_raster
from clay_assets.transport.access import Access, access_for, without_signature
from clay_assets.transport.locations import is_remote

CACHE_BYTES = 256 << 20  # of decoded blocks
IN_FLIGHT = 16  # requests to remote hosts
GAP = 1 << 14  # maximum bytes between two blocks that are fetched in one range,
GAP_SHARE = 32  # if all gaps of a range are at most this fraction (1/32) of its blocks
RANGE_BYTES = 8 << 20  # per request, so that a scene is fetched in several at once
LOCAL_RANGE_BYTES = 1 << 20  # the same for local files, so that every thread has work
WAITING_RANGES = 4  # per thread, fetched but not yet decoded, at full in-flight requests
AT_HAND = 8  # decoded blocks that a thread delivers at a time

_START_AND_SIZE = attrgetter("start", "size")

Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, eq=False)
class BlockRequest:
    """Windows of one image of one file, all of the same size.

    Attributes:
        href: address of the file.
        header: header of the image: a file's header, one of its overviews, or a mask.
        windows: windows in pixels of the image.
        bands: band indexes, from 0; None: all.
        out: output of the image's dtype: an array (windows, bands, height, width), or an array (bands, height, width)
            per window, such as views of a batch; None: a new array.
        repeat: upsampling factor: each pixel is repeated along both axes, and `out` is larger by this factor.
        change: function applied to pixels, keeping the dtype; called with parts of windows (bands, height, width) in
            any thread. The cache keeps unchanged blocks. None: no change.
    """

    href: str
    header: CogHeader
    windows: Sequence[Window]
    bands: Sequence[int] | None = None
    out: NDArray[Any] | Sequence[NDArray[Any]] | None = None
    repeat: int = 1
    change: Change | None = None


@dataclass
class Counters:
    """Statistics of a reader.

    Attributes:
        requests: number of byte ranges read, including local ones; retries are not counted.
        bytes_fetched: bytes in these ranges.
        blocks_decoded: blocks decoded here, not by rasterio.
        cache_hits: blocks found in the cache.
        fallbacks: windows read through rasterio.
    """

    requests: int = 0
    bytes_fetched: int = 0
    blocks_decoded: int = 0
    cache_hits: int = 0
    fallbacks: int = 0


# The array to write into; rows, columns and bands of the block to copy; and the change to apply.
_Target = tuple[NDArray[Any], slice, slice, list[int] | None, Change | None]
_Key = tuple[Any, ...]


@dataclass(eq=False)
class _Block:
    """A block that a call needs, and the targets of its pixels."""

    href: str
    image: CogHeader
    number: int
    targets: list[_Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = int(self.image.block_offsets[self.number])
        self.size = int(self.image.block_byte_counts[self.number])

    @property
    def nbytes(self) -> int:
        """Size of its pixels in bytes."""
        image = self.image
        return image.block_height * image.block_width * image.block_bands * np.dtype(image.dtype).itemsize

    @property
    def rows(self) -> int:
        """Number of rows, from the first, that the targets need."""
        return max(int(rows.stop) for _, rows, *_ in self.targets)

    @property
    def key(self) -> _Key:
        return *_image_key(self.href, self.image), self.number

    def deliver(self, pixels: NDArray[Any]) -> None:
        """Copy pixels (rows, columns, bands) to all targets."""
        for out, rows, columns, bands, change in self.targets:
            part = pixels[rows, columns] if bands is None else pixels[rows, columns, bands]
            part = part.transpose(2, 0, 1)
            _write(part if change is None else change(part), out)


class BlockReader:
    """Reads windows of pixels; safe to share between threads. Threads are started on first use.

    Can be pickled, and used after a fork: the other process starts with an empty cache.

    Args:
        ways: ways to access files; the first that applies is used.
        cache_bytes: size of the least-recently-used cache of decoded blocks.
        threads: number of decoding threads.
        in_flight: maximum number of concurrent requests to remote hosts.
        checksums: compare the checksum of each deflated block. If False, a block is decoded only up to its last needed
            row and not cached: faster if few windows share a block, but damage that still decodes is not detected.
    """

    def __init__(
        self,
        ways: Iterable[Access] = (),
        *,
        cache_bytes: int = CACHE_BYTES,
        threads: int = 1,
        in_flight: int = IN_FLIGHT,
        checksums: bool = True,
    ) -> None:
        if threads < 1 or in_flight < 1 or cache_bytes < 0:
            raise InputError(
                f"threads={threads}, in_flight={in_flight}, cache_bytes={cache_bytes}: out of range. Give at least one "
                "thread, one request in flight, and no negative size."
            )
        self.ways = tuple(ways)
        self.cache_bytes, self.threads, self.in_flight = cache_bytes, threads, in_flight
        self.checksums = checksums
        self._begin()

    def _begin(self) -> None:
        self.counters = Counters()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._buffers = threading.local()
        self._cache: OrderedDict[_Key, NDArray[Any]] = OrderedDict()
        self._cached_bytes = 0
        self._decoders = ThreadPoolExecutor(self.threads, "clay-decode")
        self._fetchers = ThreadPoolExecutor(self.in_flight, "clay-fetch")

    def __reduce__(self) -> tuple[Callable[..., BlockReader], tuple[Any, ...]]:
        return _reader, (self.ways, self.cache_bytes, self.threads, self.in_flight, self.checksums)

    def close(self) -> None:
        """Stop the threads and empty the cache; the next read starts them again."""
        self._decoders.shutdown()
        self._fetchers.shutdown()
        self._begin()

    def read(self, requests: Sequence[BlockRequest]) -> list[NDArray[Any]]:
        """Pixels of windows, (windows, bands, height, width) per request, or its `out`.

        Raises:
            InputError: a window beyond the edge, or of a different size than the others; an unknown band; a file that
                is missing, forbidden, or changed after its header was read; a truncated local file; a corrupt block.
            SourceError: a remote file could not be read now, or is truncated.
        """
        if self._process != os.getpid():  # threads do not survive a fork
            self._begin()
        results: list[NDArray[Any]] = []
        others = list[tuple[BlockRequest, Any]]()
        images = defaultdict[_Key, dict[int, _Block]](dict)
        for request in requests:
            windows, bands = _checked(request)
            out = _output(request, windows, bands)
            results.append(out)
            if request.header.fallback is not None:
                others.append((request, out))
            else:
                _plan(request, windows, bands, out, images[_image_key(request.href, request.header)])
        at_hand, missing = self._from_cache(block for blocks in images.values() for block in blocks.values())
        self._fetch_and_decode(missing, at_hand)
        self._through_rasterio(others)
        return results

    # --- blocks -----------------------------------------------------------------------------------

    def _from_cache(self, blocks: Iterable[_Block]) -> tuple[list[tuple[_Block, NDArray[Any]]], list[_Block]]:
        """The cached or sparse blocks with their pixels, and the remaining blocks."""
        at_hand, missing = [], []
        with self._lock:
            for block in blocks:
                pixels: NDArray[Any] | None = None
                if block.size == 0:
                    pixels = _sparse(block.image)
                elif self._cache and (pixels := self._cache.get(key := block.key)) is not None:
                    self._cache.move_to_end(key)
                    self.counters.cache_hits += 1
                if pixels is None:
                    missing.append(block)
                else:
                    at_hand.append((block, pixels))
        return at_hand, missing

    def _fetch_and_decode(self, missing: Sequence[_Block], at_hand: Sequence[tuple[_Block, NDArray[Any]]] = ()) -> None:
        """Fetch ranges, a bounded number ahead of the decoders, decode them, and deliver all blocks."""
        ranges = _ranges(missing, RANGE_BYTES if self.threads == 1 else LOCAL_RANGE_BYTES)
        local = [blocks for blocks in ranges if not is_remote(blocks[0].href)]
        remote = [blocks for blocks in ranges if is_remote(blocks[0].href)]
        if self.threads == 1:
            self._in_this_thread(local, remote, at_hand)
            return
        remote.reverse()  # taken from the end
        most = self.in_flight + WAITING_RANGES * self.threads
        # Finished futures are queued here, so that none is polled.
        done: SimpleQueue[Future[Any]] = SimpleQueue()
        decoding, fetching = set[Future[Any]](), dict[Future[Any], list[_Block]]()

        def decode(work: Callable[..., None], *arguments: Any) -> None:
            future = self._decoders.submit(work, *arguments)
            decoding.add(future)
            future.add_done_callback(done.put)

        try:
            for blocks in local:
                decode(self._fetch_decoded, blocks)
            for first in range(0, len(at_hand), AT_HAND):
                decode(_deliver, at_hand[first : first + AT_HAND])
            while remote or fetching or decoding:
                # Limited by both: the ranges that wait for a decoder would run out before the next one arrives.
                while remote and len(fetching) < self.in_flight and len(fetching) + len(decoding) < most:
                    future = self._fetchers.submit(self._fetch, remote[-1])
                    fetching[future] = remote.pop()
                    future.add_done_callback(done.put)
                future = done.get()
                result = future.result()
                if future in fetching:
                    decode(self._decode, fetching.pop(future), result)
                decoding.discard(future)
        except BaseException:
            # No thread may write into an array after the caller got the error.
            left = {*fetching, *decoding}
            for future in left:
                future.cancel()
            wait(left)
            raise

    def _in_this_thread(
        self, local: list[list[_Block]], remote: list[list[_Block]], at_hand: Sequence[tuple[_Block, NDArray[Any]]]
    ) -> None:
        """`_fetch_and_decode` with one decoding thread, the caller's, without the cost of handing blocks over."""
        most = self.in_flight + WAITING_RANGES
        done: SimpleQueue[Future[Data]] = SimpleQueue()
        fetching = dict[Future[Data], list[_Block]]()  # until decoded
        following = iter(remote if len(remote) > 1 else ())

        def fetch_ahead() -> None:
            for blocks in islice(following, most - len(fetching)):
                future = self._fetchers.submit(self._fetch, blocks)
                fetching[future] = blocks
                future.add_done_callback(done.put)

        try:
            fetch_ahead()
            _deliver(at_hand)
            for blocks in local if len(remote) > 1 else [*local, *remote]:
                data = self._fetch(blocks)
                with in_turn():
                    self._decode(blocks, data)
            while fetching:
                future = done.get()
                with in_turn():
                    self._decode(fetching.pop(future), future.result())
                fetch_ahead()
        except BaseException:
            for future in fetching:
                future.cancel()
            wait(fetching)
            raise

    def _fetch_decoded(self, blocks: list[_Block]) -> None:
        self._decode(blocks, self._fetch(blocks))

    def _fetch(self, blocks: list[_Block]) -> Data:
        """Fetch the bytes from the first of some blocks of a file to the last."""
        href, image = blocks[0].href, blocks[0].image
        start, stop = blocks[0].start, max(block.start + block.size for block in blocks)
        if stop > image.size:
            where = f"truncated: block {blocks[-1].number} ends at byte {stop}, the file at {image.size}"
            if is_remote(href):  # it may still be being written
                raise SourceError(
                    f"{without_signature(href)}: could not be read ({where}). Run again; if it persists the file is "
                    "damaged."
                )
            raise InputError(f"{without_signature(href)}: not a readable raster ({where}). Download it again.")
        data = fetch_same(href, access_for(self.ways, href), start, stop, image.version)
        self._count(requests=1, bytes_fetched=len(data))
        return data

    def _decode(self, blocks: list[_Block], data: Data) -> None:
        view, start = memoryview(data), blocks[0].start
        image = blocks[0].image
        decode_whole, buffer = decoder(image), self._buffer(blocks[0])
        for block in blocks:
            begin = block.start - start
            part = view[begin : begin + block.size]
            if block.image is not image:
                image, decode_whole, buffer = block.image, decoder(block.image), self._buffer(block)
            try:
                pixels = decode_whole(part, buffer) if self.checksums else decode(image, part, buffer, block.rows)
            except CorruptBlockError as error:
                where = "" if block.image.level is None else f" of overview {block.image.level}"
                where += " of the mask" if block.image.is_mask else ""
                raise InputError(
                    f"{without_signature(block.href)}: not a readable raster (block {block.number}{where} is corrupt: "
                    f"{error}). Download it again."
                ) from error
            block.deliver(pixels)
            if buffer is None and len(pixels) == image.block_height:
                self._keep(block.key, pixels)
        self._count(blocks_decoded=len(blocks))

    def _buffer(self, block: _Block) -> NDArray[np.uint8] | None:
        """A thread's buffer for blocks that are not cached: allocating takes half as long as decoding."""
        nbytes = block.nbytes
        if nbytes <= self.cache_bytes:
            return None
        buffer: NDArray[np.uint8] | None = getattr(self._buffers, "bytes", None)
        if buffer is None or len(buffer) < nbytes:
            buffer = self._buffers.bytes = np.empty(nbytes, np.uint8)
        return buffer

    def _keep(self, key: _Key, pixels: NDArray[Any]) -> None:
        with self._lock:
            if key not in self._cache:
                self._cache[key] = pixels
                self._cached_bytes += pixels.nbytes
            while self._cached_bytes > self.cache_bytes:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= oldest.nbytes

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + number)

    # --- what only rasterio reads -----------------------------------------------------------------

    def _through_rasterio(self, others: Sequence[tuple[BlockRequest, Any]]) -> None:
        files = defaultdict[tuple[str, int | None], list[tuple[BlockRequest, Any]]](list)
        for request, out in others:
            files[request.href, request.header.level].append((request, out))
        for (href, level), group in files.items():
            access = access_for(self.ways, href)
            for version in {request.header.version for request, _ in group}:
                check_same(href, version, version_now(href, access))
            with open_raster(href, access, overview_level=level) as raster:
                not_alpha = replace(raster, measured=tuple(raster.dataset.indexes))  # alpha is read as a band
                for request, out in group:
                    bands = range(request.header.count) if request.bands is None else request.bands
                    for window, target in zip(request.windows, out, strict=True):
                        if request.header.is_mask:
                            pixels = not_alpha.read_mask(window)[np.newaxis]
                        else:
                            pixels = raster.read([band + 1 for band in bands], window)
                        _write(pixels if request.change is None else request.change(pixels), target)
                    self._count(fallbacks=len(request.windows))


def _deliver(blocks: Sequence[tuple[_Block, NDArray[Any]]]) -> None:
    for block, pixels in blocks:
        block.deliver(pixels)


def _write(pixels: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy pixels (bands, height, width), each repeated along both axes to fill the output."""
    bands, height, width = pixels.shape
    times = out.shape[-1] // width
    if times == 1:
        out[...] = pixels
        return
    wide = np.empty((bands, height, width, times), pixels.dtype)
    for place in range(times):
        wide[..., place] = pixels
    wide = wide.reshape(bands, height, width * times)
    for place in range(times):
        out[:, place::times] = wide


def _reader(ways: tuple[Access, ...], cache_bytes: int, threads: int, in_flight: int, checksums: bool) -> BlockReader:
    return BlockReader(ways, cache_bytes=cache_bytes, threads=threads, in_flight=in_flight, checksums=checksums)


def ranges_of(header: CogHeader, window: Window) -> list[tuple[int, int]]:
    """Offset and size in bytes of each block that a window intersects, in the order of the file.

    Sparse blocks have no bytes and are skipped; an image that is read through rasterio has no ranges.
    """
    if header.fallback is not None:
        return []
    rows, columns = (
        np.arange(start // side, (start + size - 1) // side + 1)
        for start, size, side in (
            (int(window.row_off), int(window.height), header.block_height),
            (int(window.col_off), int(window.width), header.block_width),
        )
    )
    numbers = (rows[:, None] * header.blocks_across + columns).ravel()
    planes = np.arange(header.count if header.planar else 1) * header.blocks_across * header.blocks_down
    blocks = (planes[:, None] + numbers).ravel()
    found = zip(header.block_offsets[blocks].tolist(), header.block_byte_counts[blocks].tolist(), strict=True)
    return sorted((offset, size) for offset, size in found if size)


# --- the plan -------------------------------------------------------------------------------------


def _checked(request: BlockRequest) -> tuple[NDArray[np.int64], list[int]]:
    """Windows as rows of (column, row, width, height), and bands."""
    header, href = request.header, without_signature(request.href)
    told = [(window.col_off, window.row_off, window.width, window.height) for window in request.windows]
    if request.repeat < 1:
        raise InputError(f"{href}: cannot repeat pixels {request.repeat} times. Repeat them once or more.")
    numbers = np.array(told, np.float64).reshape(-1, 4)
    windows = numbers.astype(np.int64)
    sizes = windows[:, 2:]
    if (windows != numbers).any() or (sizes != sizes[:1]).any() or (sizes < 1).any():
        raise InputError(
            f"{href}: windows of one request must be whole pixels and of one size. Request them separately."
        )
    beyond = (windows[:, :2] < 0).any(axis=1) | (windows[:, :2] + sizes > (header.width, header.height)).any(axis=1)
    if beyond.any():
        column, row, width, height = windows[beyond][0].tolist()
        raise InputError(
            f"{href}: a window of {height} × {width} pixels at row {row}, column {column} reaches beyond the image of "
            f"{header.height} × {header.width}. Request windows inside it."
        )
    bands = list(range(header.count) if request.bands is None else request.bands)
    if not bands or min(bands) < 0 or max(bands) >= header.count:
        raise InputError(f"{href}: no bands {bands} in a file of {header.count}. Count them from 0.")
    return windows, bands


def _output(request: BlockRequest, windows: NDArray[np.int64], bands: list[int]) -> Any:
    width, height = windows[0, 2:].tolist() if len(windows) else (0, 0)
    shape = len(windows), len(bands), height * request.repeat, width * request.repeat
    out = request.out
    if out is None:
        return np.empty(shape, request.header.dtype)
    whole = isinstance(out, np.ndarray)
    given = {(out.shape, out.dtype)} if isinstance(out, np.ndarray) else {(one.shape, one.dtype) for one in out}
    if given - {(shape if whole else shape[1:], np.dtype(request.header.dtype))} or len(out) != len(windows):
        listed = ", ".join(f"{dtype} of shape {size}" for size, dtype in given)
        raise InputError(
            f"{without_signature(request.href)}: cannot be read into {len(out)} × {listed}. Give an array of "
            f"{request.header.dtype} of shape {shape}, or one for each window."
        )
    return out


def _plan(
    request: BlockRequest,
    windows: NDArray[np.int64],
    bands: list[int],
    out: NDArray[Any] | Sequence[NDArray[Any]],
    blocks: dict[int, _Block],
) -> None:
    """Add the targets of a request to every block that its windows intersect."""
    image, times = request.header, request.repeat
    plane = image.blocks_across * image.blocks_down
    inside = None if bands == list(range(image.count)) else bands  # of a block that holds all bands
    along = {
        axis: _overlaps(windows[:, axis], int(windows[0, axis + 2]), side, times)
        for axis, side in ((0, image.block_width), (1, image.block_height))
        if len(windows)
    }
    for place, target in enumerate(out):
        for down, rows, to_rows in along[1][place]:
            for across, columns, to_columns in along[0][place]:
                number = down * image.blocks_across + across
                part = target[:, to_rows, to_columns]
                if not image.planar:
                    _targets(request, number, blocks).append((part, rows, columns, inside, request.change))
                    continue
                for row, band in enumerate(bands):
                    targets = _targets(request, band * plane + number, blocks)
                    targets.append((part[row : row + 1], rows, columns, None, request.change))


def _targets(request: BlockRequest, number: int, blocks: dict[int, _Block]) -> list[_Target]:
    block = blocks.get(number)
    if block is None:
        block = blocks[number] = _Block(request.href, request.header, number)
    return block.targets


def _image_key(href: str, image: CogHeader) -> _Key:
    return href, image.size, image.etag, image.mtime_ns, image.level, image.is_mask


def _overlaps(starts: NDArray[np.int64], size: int, side: int, times: int) -> list[list[tuple[int, slice, slice]]]:
    """The overlaps of each window with blocks along one axis: block number, slice of the block, slice of the output."""
    known: dict[int, list[tuple[int, slice, slice]]] = {}
    for start in set(starts.tolist()):
        known[start] = []
        for number in range(start // side, (start + size - 1) // side + 1):
            first, last = max(start, number * side), min(start + size, (number + 1) * side)
            inside = slice(first - number * side, last - number * side)
            known[start].append((number, inside, slice((first - start) * times, (last - start) * times)))
    return [known[start] for start in starts.tolist()]


def _ranges(missing: Sequence[_Block], local_bytes: int) -> list[list[_Block]]:
    """The blocks of each request: adjacent in a file, in file order."""
    files = defaultdict[_Key, list[_Block]](list)
    for block in missing:
        image = block.image
        files[block.href, image.size, image.etag, image.mtime_ns].append(block)
    ranges: list[list[_Block]] = []
    for (href, *_), blocks in files.items():
        most = RANGE_BYTES if is_remote(href) else local_bytes
        blocks.sort(key=_START_AND_SIZE)
        begin = stop = useful = 0
        for block in blocks:
            start, size = block.start, block.size
            end, gap = start + size, start - stop
            wasted = start - begin - useful
            if useful and gap <= GAP and wasted <= (useful + size) // GAP_SHARE and end - begin <= most:
                ranges[-1].append(block)
                useful += size if gap >= 0 else max(end - stop, 0)
                stop = max(stop, end)
            else:
                ranges.append([block])
                begin, stop, useful = start, end, size
    return ranges


def _sparse(image: CogHeader) -> NDArray[Any]:
    """The pixels of a sparse block, as in GDAL: nodata, clamped to the dtype, else 0."""
    dtype = np.dtype(image.dtype)
    value = 0.0 if image.nodata is None or image.is_mask else image.nodata
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        value = 0 if np.isnan(value) else int(min(max(round(value), int(limits.min)), int(limits.max)))
    pixel = np.array(value, dtype)
    return np.broadcast_to(pixel, (image.block_height, image.block_width, image.block_bands))
