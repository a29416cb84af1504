"""The places, periods and filters of requests, compared with whole batches of a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from clay_assets.catalogues.candidate_rows import PROPERTY
from clay_assets.catalogues.snapshot_types import footprints, moments
from clay_assets.footprints import meant_and_unchanged
from clay_assets.platforms.base import Request


class Places:
    """The places, periods and filters of some requests, arranged for comparison with whole batches."""

    def __init__(self, requests: Sequence[Request]) -> None:
        # Requests at one place, such as the quarters of a tile, have the same geometry.
        geometries = np.array([*(request.geometry for request in requests), None], dtype=object)[:-1]
        places: dict[bytes, int] = {}
        self._place = np.array([places.setdefault(wkb, len(places)) for wkb in shapely.to_wkb(geometries)])
        self._shapes = geometries[np.unique(self._place, return_index=True)[1]]
        shapely.prepare(self._shapes)
        self._tree = shapely.STRtree(self._shapes)
        order = np.argsort(self._place, kind="stable")
        self._of_place = order, np.searchsorted(self._place[order], np.arange(len(places) + 1))
        self._starts = np.array([_milliseconds(request.start) for request in requests])
        self._ends = np.array([_milliseconds(request.end) for request in requests])
        self._alternatives = _Alternatives(requests)
        self.bounds = shapely.total_bounds(self._shapes)
        self.first, self.last = int(self._starts.min()), int(self._ends.max())

    def pairs(
        self, batch: pa.RecordBatch
    ) -> tuple[NDArray[np.int64], NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        """Acquisition times of a batch's rows, and pairs of rows and numbers of the requests that they may answer.

        Also returns which footprints need no normalising.

        Args:
            batch: a batch with times, `geometry`, and the properties that requests filter by.
        """
        shapes, unchanged = meant_and_unchanged(footprints(batch["geometry"]))
        rows, places = self._tree.query(shapes)
        order, edges = self._of_place
        counts = edges[places + 1] - edges[places]
        pair = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = order[edges[places][pair] + within]
        rows = rows[pair]
        times = moments(batch)
        taken = times[rows]
        inside = (taken >= self._starts[numbers]) & (taken < self._ends[numbers])
        rows, numbers, pair = rows[inside], numbers[inside], pair[inside]
        matched = self._alternatives.match(batch, rows, numbers)
        rows, numbers, pair = rows[matched], numbers[matched], pair[matched]
        once, back = np.unique(pair, return_inverse=True)  # pairs of an item and a place
        first = np.zeros(len(once), np.intp)
        first[back] = np.arange(len(pair))
        touches = shapely.intersects(self._shapes[self._place[numbers[first]]], shapes[rows[first]])[back]
        return times, rows[touches], numbers[touches], unchanged


class _Alternatives:
    """The property filters of all requests, arranged for comparison with whole columns."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.layers: list[dict[str, NDArray[Any]]] = []
        self.given: list[NDArray[np.bool_]] = []
        for layer in range(max((len(request.filters) for request in requests), default=0)):
            here = [request.filters[layer] if layer < len(request.filters) else None for request in requests]
            names = sorted({name for wanted in here if wanted for name in wanted})
            self.layers.append({name: np.array([(w or {}).get(name) for w in here], dtype=object) for name in names})
            self.given.append(np.array([wanted is not None for wanted in here]))
        self.free = np.array([not request.filters for request in requests])

    def match(self, batch: pa.RecordBatch, rows: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether item `rows[i]` satisfies one of the alternatives of request `numbers[i]`.

        If the file lacks the column, any item may: the platform's rules decide, as the value may follow from the id.
        """
        matched = self.free[numbers]
        for layer, given in zip(self.layers, self.given, strict=True):
            fulfilled = given[numbers]
            for name, wanted in layer.items():
                column = PROPERTY + name
                if column not in batch.schema.names:
                    continue
                fulfilled &= self._equal(batch[column], rows, wanted, numbers)
            matched = matched | fulfilled
        return matched

    def _equal(
        self, column: pa.Array, rows: NDArray[np.intp], wanted: NDArray[Any], numbers: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Whether item `rows[i]` has the value that request `numbers[i]` requires, if any."""
        if pa.types.is_string(column.type):  # text never equals a number
            texts = pa.array([value if isinstance(value, str) else None for value in wanted], pa.string())
            codes = texts.unique().drop_null()
            values, asked = (pc.index_in(one, codes).fill_null(-1).to_numpy() for one in (column, texts))
            return np.asarray((values[rows] == asked[numbers]) & (asked[numbers] >= 0) | (wanted == None)[numbers])  # noqa: E711
        values, asked = np.array(column.to_pylist(), dtype=object)[rows], wanted[numbers]
        return np.asarray((values == asked) | (asked == None))  # noqa: E711 — elementwise


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
