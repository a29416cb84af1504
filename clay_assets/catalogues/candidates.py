"""Tables of a snapshot's candidates: collected while it is read, and returned by groups of requests.

A table has one row per item, with the requests that it may match. Candidates are kept in memory up to a limit, beyond
that in files by groups of requests, so that memory does not grow with the snapshot. Files of a snapshot are read in
`snapshot`; eligibility is decided in `eligibility`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection as Sized
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clay_assets.catalogues.base import Answer, answer_of
from clay_assets.catalogues.candidate_rows import Part
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.platforms.column_rules import Candidates
from clay_assets.stac import Item

ASKED = "requests"  # a column in addition to the snapshot's
IN_MEMORY = 64 * 2**20  # bytes of candidates; beyond that they are kept in files
GROUPS = 64  # groups of requests in files
ROWS = 1_024  # candidates whose documents are made together
CLOUD_COVER = "eo:cloud_cover"


class Collection:
    """Collects candidates, and returns them by groups of requests. A context manager: its files are removed at the end.

    Args:
        platform: the candidates' platform.
        requests: all requests.
        limit: bytes to keep in memory; by default `IN_MEMORY`.
    """

    def __init__(self, platform: AnyPlatform, requests: Sequence[Request], limit: int | None = None) -> None:
        self.platform, self.requests = platform, requests
        self.limit = IN_MEMORY if limit is None else limit
        self._tables: list[pa.Table] = []
        self._bytes = 0
        self._files: _Files | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, batch: pa.RecordBatch, found: Mapping[str, NDArray[Any]], pairs: tuple[NDArray[Any], ...]) -> None:
        """Add the rows of a batch that requests may use.

        Args:
            batch: a batch of the snapshot.
            found: `moment` and `unchanged` for its rows.
            pairs: rows, and the numbers of the requests that may use them; each pair once.
        """
        rows, numbers = pairs
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        unique, counts = np.unique(rows, return_counts=True)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        asked = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers[order], pa.int32()))
        kept = batch if len(unique) == batch.num_rows else batch.take(pa.array(unique))
        table = pa.Table.from_batches([kept])
        table = table.append_column(ASKED, asked)
        for name, values in found.items():
            table = table.append_column(name, pa.array(values[unique]))
        if self._files is None:
            self._tables.append(table)
            self._bytes += table.nbytes
            if self._bytes > self.limit:
                self._files = self._stack.enter_context(_Files(len(self.requests)))
                for kept in self._tables:
                    self._files.add(kept)
                self._tables = []
        else:
            self._files.add(table)

    def groups(self) -> Iterator[CandidateTable]:
        """Candidates by groups of requests, in the order of the requests; each request is in one table."""
        count = len(self.requests)
        if self._files is None:
            yield CandidateTable(self.platform, self.requests, range(count), self._tables)
            return
        for asked, tables in self._files.groups():
            yield CandidateTable(self.platform, self.requests, asked, tables)


class _Files:
    """Tables in a folder, separated by groups of requests. Tables of one schema share a file."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self._folder = tempfile.TemporaryDirectory(prefix="clay-candidates-")
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._paths: dict[int, list[Path]] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._folder.cleanup()

    def add(self, table: pa.Table) -> None:
        numbers = pc.list_flatten(table[ASKED]).to_numpy()
        rows = pc.list_parent_indices(table[ASKED]).to_numpy()
        groups = numbers.astype(np.int64) * GROUPS // self.requests
        for group in np.unique(groups).tolist():
            here = groups == group
            unique, counts = np.unique(rows[here], return_counts=True)
            offsets = np.concatenate([[0], np.cumsum(counts)])
            asked = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers[here]))
            piece = table.take(pa.array(unique))
            piece = piece.set_column(piece.schema.get_field_index(ASKED), ASKED, asked)
            self._writer(group, piece.schema).write_table(piece)

    def _writer(self, group: int, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        writer = self._writers.get(group)
        if writer is None or self._schemas[group] != schema:
            if writer is not None:
                writer.close()
            paths = self._paths.setdefault(group, [])
            paths.append(Path(self._folder.name) / f"{group}-{len(paths)}.arrows")
            self._writers[group] = pa.ipc.new_stream(
                str(paths[-1]), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
            )
            self._schemas[group] = schema
        return self._writers[group]

    @cached_property
    def _schemas(self) -> dict[int, pa.Schema]:
        return {}

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def groups(self) -> Iterator[tuple[range, list[pa.Table]]]:
        self._close()
        edges = [-(-group * self.requests // GROUPS) for group in range(GROUPS + 1)]
        for group, (first, after) in enumerate(pairwise(edges)):
            tables = []
            for path in self._paths.pop(group, []):
                with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
                    tables.append(reader.read_all())
                path.unlink()
            if first < after:
                yield range(first, after), tables


@dataclass
class CandidateTable:
    """All candidates of some requests.

    Attributes:
        platform: the candidates' platform.
        requests: all requests of the search.
        asked: numbers of this table's requests.
        tables: candidates in the order of the snapshot; several schemas if its files differ.
    """

    platform: AnyPlatform
    requests: Sequence[Request]
    asked: range
    tables: Sequence[pa.Table]
    _parts: list[Part] = field(init=False)
    _pairs: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] = field(init=False)
    _kept: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self._parts = [Part(self.platform, table) for table in _by_schema(self.tables)]
        parts, rows, numbers = [], [], []
        for number, part in enumerate(self._parts):
            asked = part.table[ASKED]
            numbers.append(pc.list_flatten(asked).to_numpy().astype(np.int64))
            rows.append(pc.list_parent_indices(asked).to_numpy().astype(np.int64))
            parts.append(np.full(len(rows[-1]), number))
        joined = [np.concatenate([np.empty(0, np.int64), *given]) for given in (numbers, parts, rows)]
        order = np.argsort(joined[0], kind="stable")
        self._pairs = joined[0][order], joined[1][order], joined[2][order]

    def answers(self, only: NDArray[np.int64] | None = None) -> Iterator[Answer]:
        """Answers to requests, with the candidates as returned by `read_candidates`, each id once.

        Args:
            only: numbers of the requests to answer, ascending; None: all of this table's.
        """
        numbers, parts, rows = self._pairs
        wanted = np.asarray(self.asked if only is None else only, np.int64)
        firsts, lasts = np.searchsorted(numbers, wanted), np.searchsorted(numbers, wanted, side="right")
        start = 0
        while start < len(wanted):
            sizes = np.cumsum(lasts[start:] - firsts[start:])
            end = start + max(1, int(np.searchsorted(sizes, ROWS, side="right")))
            chosen = np.concatenate([np.arange(a, b) for a, b in zip(firsts[start:end], lasts[start:end], strict=True)])
            chosen = chosen.astype(np.int64)
            of = parts[chosen]
            # Items are made in batches, and released with their requests.
            reading = [part.read(rows[chosen[of == number]]) for number, part in enumerate(self._parts)]
            pairs = iter(of.tolist())
            for number, size in zip(wanted[start:end].tolist(), (lasts - firsts)[start:end].tolist(), strict=True):
                found: dict[str, tuple[Item | str, bool]] = {}
                for part in islice(pairs, size):
                    name, candidate, sound = next(reading[part])
                    found.setdefault(name, (candidate, sound))
                yield _answer(self.requests[number], found.values())
            start = end

    def columns(self) -> tuple[Candidates, NDArray[np.bool_], NDArray[np.int64]]:
        """The first candidate of each id as columns; which of them columns cannot decide; and their missing assets.

        Missing assets are bits in the platform's order.
        """
        numbers, parts, rows = self._pairs
        starts = np.cumsum([0, *(part.table.num_rows for part in self._parts)])
        place = starts[parts] + rows
        read = [part.values for part in self._parts]
        joined = {name: np.concatenate([values[name] for values in read]) for name in read[0]}
        kept = np.arange(len(place)) if self._has_each_id_once() else _first_of_each_id(numbers, joined["id"][place])
        place = np.asarray(place[kept], np.int64)
        self._kept = place
        ids, times, odd, lacking = (joined.pop(name)[place] for name in ("id", "moment", "odd", "lacking"))

        def shapes() -> NDArray[Any]:
            return np.asarray(np.concatenate([part.shapes for part in self._parts])[place])

        properties = {name: values[place] for name, values in joined.items()}
        return Candidates(ids, times, properties, shapes, self.requests, numbers[kept]), odd.astype(np.bool_), lacking

    def _has_each_id_once(self) -> bool:
        """Whether ids are known to be unique."""
        if len(self._parts) != 1:
            return False
        ids = self._parts[0].column("id")
        return bool(pc.count_distinct(ids, mode="all").as_py() == len(ids))

    def documents(self, rows: NDArray[np.int64]) -> list[Item]:
        """The items of some rows of `columns`."""
        place = self._kept[rows]
        starts = np.cumsum([0, *(part.table.num_rows for part in self._parts)])
        found: list[Item] = [{}] * len(rows)
        for number, part in enumerate(self._parts):
            here = np.flatnonzero((place >= starts[number]) & (place < starts[number + 1]))
            for at, (_, document, _) in zip(here.tolist(), part.read(place[here] - starts[number]), strict=True):
                assert not isinstance(document, str)  # columns only give valid ones
                found[at] = document
        return found

    def briefs(self, candidates: Candidates, rows: NDArray[np.int64]) -> list[Item]:
        """The ids of some candidates and, if available, their cloud cover."""
        names = candidates.ids[rows].tolist()
        if CLOUD_COVER not in self.platform.rules.property_names:
            return [{"id": name, "properties": {}} for name in names]
        covers = candidates.properties.get(CLOUD_COVER)
        if covers is None or covers.dtype != np.float64:  # not declared as a number
            return self.documents(rows)
        return [
            {"id": name, "properties": {} if np.isnan(cover) else {CLOUD_COVER: cover}}
            for name, cover in zip(names, covers[rows].tolist(), strict=True)
        ]


def _answer(request: Request, read: Sized[tuple[Item | str, bool]]) -> Answer:
    """The answer from some candidates, with whether each is known to be sound."""
    answer = answer_of(request, [candidate for candidate, _ in read])
    return replace(answer, sound=[sound for candidate, sound in read if not isinstance(candidate, str)])


def _first_of_each_id(numbers: NDArray[np.int64], ids: NDArray[Any]) -> NDArray[np.int64]:
    """Rows except those whose request has an earlier row of the same id; ascending. Requests must be in order."""
    codes = pa.array(ids, pa.string()).dictionary_encode()
    labels = codes.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    _, first = np.unique(numbers * max(len(codes.dictionary), 1) + labels, return_index=True)
    return np.sort(first)


def _by_schema(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Consecutive tables of the same schema, concatenated."""
    joined: list[list[pa.Table]] = []
    for table in tables:
        if joined and joined[-1][0].schema.equals(table.schema):
            joined[-1].append(table)
        else:
            joined.append([table])
    return [pa.concat_tables(of_one).combine_chunks() for of_one in joined]
