"""Scans the blocks of an image: each is passed on as it is decoded, so that the image is never held whole.

For reductions to a few numbers: filling an array of the size of a scene takes longer than decoding it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from clay_assets.sources.cog.reader import BlockReader, BlockRequest, _Block

Visit = Callable[[int, int, NDArray[Any]], None]


class _Visited(_Block):
    """A block that is passed to a function instead of being copied."""

    def __init__(self, request: BlockRequest, number: int, hand_over: Callable[[int, NDArray[Any]], None]) -> None:
        super().__init__(request.href, request.header, number)
        self._hand_over = hand_over

    def deliver(self, pixels: NDArray[Any]) -> None:
        """Pass on pixels (rows, columns, bands)."""
        self._hand_over(self.number, pixels)


def can_scan(request: BlockRequest) -> bool:
    """Whether the blocks of a request are decoded here, and hold all its bands."""
    header = request.header
    bands = header.count if request.bands is None else len(request.bands)
    return header.fallback is None and (bands == 1 or not header.planar)


def scan(reader: BlockReader, request: BlockRequest, visit: Visit) -> None:
    """Decode each block that the window of a request intersects, once.

    Args:
        reader: fetches and decodes the blocks.
        request: a request of one window for which `can_scan` is true, without `out`, `repeat` or `change`.
        visit: called as `visit(row, column, pixels)` for each block, with the part in the window: row and column of
            its upper left pixel in the window, and an array (height, width, bands) that is overwritten after the
            call. Called from the threads of the reader, in any order.

    Raises:
        InputError, SourceError: as `BlockReader.read`; also any error of `visit`.
    """
    image, (window,) = request.header, request.windows
    (top, bottom), (left, right) = ((int(start), int(stop)) for start, stop in window.toranges())
    height, width = bottom - top, right - left
    bands = list(range(image.count) if request.bands is None else request.bands)
    plane = bands[0] * image.blocks_across * image.blocks_down if image.planar else 0
    inside: slice | list[int] = bands if len(bands) > 1 else slice(bands[0], bands[0] + 1)
    if image.planar or len(bands) == image.count:
        inside = slice(None)

    def hand_over(number: int, pixels: NDArray[Any]) -> None:
        down, across = divmod(number - plane, image.blocks_across)
        row, column = down * image.block_height - top, across * image.block_width - left
        first, begin = max(0, -row), max(0, -column)
        part = pixels[first : height - row, begin : width - column, inside]
        visit(row + first, column + begin, part)

    numbers = (
        plane + down * image.blocks_across + across
        for down in range(top // image.block_height, -(-bottom // image.block_height))
        for across in range(left // image.block_width, -(-right // image.block_width))
    )
    at_hand, missing = reader._from_cache(_Visited(request, number, hand_over) for number in numbers)
    reader._fetch_and_decode(missing, at_hand)
