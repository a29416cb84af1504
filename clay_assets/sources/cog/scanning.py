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

    def __init__(
        self, request: BlockRequest, number: int, row: int, column: int, inside: tuple[Any, ...], visit: Visit
    ) -> None:
        super().__init__(request.href, request.header, number)
        self._row, self._column, self._inside, self._visit = row, column, inside, visit

    def deliver(self, pixels: NDArray[Any]) -> None:
        """Pass on pixels (rows, columns, bands)."""
        self._visit(self._row, self._column, pixels[self._inside])


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
    bands = list(range(image.count) if request.bands is None else request.bands)
    plane = bands[0] * image.blocks_across * image.blocks_down if image.planar else 0
    inside: slice | list[int] = bands if len(bands) > 1 else slice(bands[0], bands[0] + 1)
    if image.planar or len(bands) == image.count:
        inside = slice(None)

    def overlaps(start: int, stop: int, side: int) -> list[tuple[int, int, slice]]:
        """Blocks along one axis: number, place of the first pixel in the window, and slice of the block."""
        firsts = ((number, max(number * side, start)) for number in range(start // side, -(-stop // side)))
        return [
            (number, first - start, slice(first - number * side, min(side, stop - number * side)))
            for number, first in firsts
        ]

    columns, across = overlaps(left, right, image.block_width), image.blocks_across
    blocks = (
        _Visited(request, plane + down * across + number, row, column, (rows, part, inside), visit)
        for down, row, rows in overlaps(top, bottom, image.block_height)
        for number, column, part in columns
    )
    at_hand, missing = reader._from_cache(blocks)
    reader._fetch_and_decode(missing, at_hand)
