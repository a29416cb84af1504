"""Evaluates whole tables of candidates by a platform's rules over columns.

Decides the requests for which the columns suffice, and leaves the others to `eligibility`, which evaluates them item by
item, with the same result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from shapely.errors import ShapelyError

from clay_assets.catalogues.candidates import CandidateTable
from clay_assets.catalogues.choice import OLDER, Choice, excluded_reason
from clay_assets.platforms.base import Options
from clay_assets.platforms.column_rules import Candidates
from clay_assets.platforms.processing import superseded
from clay_assets.recipes.exclusions import NOTHING

ELIGIBLE, UNTOLD = 0, -1  # codes of reasons


def judged(
    table: CandidateTable, options: Options, excluded: Mapping[str, str] = NOTHING
) -> Generator[Choice, None, NDArray[np.int64]]:
    """Choices for the requests for which columns suffice; returns the numbers of the others, ascending."""
    asked = np.arange(table.asked.start, table.asked.stop, dtype=np.int64)
    if not table.tables:
        for number in asked.tolist():
            yield Choice(table.requests[number], 0)
        return asked[:0]
    candidates, codes, reasons = _coded(table, options, excluded)
    numbers = candidates.numbers_of_requests
    left = np.unique(numbers[codes == UNTOLD])
    best = _best(table, candidates, codes)
    sizes = np.bincount(numbers - asked[0], minlength=len(asked))
    rejected: dict[int, Counter[str]] = {}
    refused = codes > ELIGIBLE
    pairs, counts = np.unique(numbers[refused] * len(reasons) + codes[refused], return_counts=True)
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        number, code = divmod(pair, len(reasons))
        rejected.setdefault(number, Counter())[reasons[code]] = count
    told = np.setdiff1d(asked, left, assume_unique=True)
    items = dict(zip(best, table.briefs(candidates, np.array(list(best.values()), np.int64)), strict=True))
    for number, size in zip(told.tolist(), sizes[told - asked[0]].tolist(), strict=True):
        yield Choice(table.requests[number], size, items.get(number), rejected.get(number) or Counter())
    return left


def _coded(
    table: CandidateTable, options: Options, excluded: Mapping[str, str]
) -> tuple[Candidates, NDArray[np.int64], list[str]]:
    """The candidates, the code of each one's reason, and the reasons by code."""
    platform = table.platform
    rules = platform.rules.by_columns
    assert rules is not None
    candidates, odd, lacking = table.columns()
    reasons = ["", OLDER]
    codes = np.full(len(candidates), ELIGIBLE, np.int64)
    out = np.zeros(len(candidates), np.bool_)
    if excluded:
        out = np.isin(candidates.ids.astype(str), list(excluded))
        found, back = np.unique(candidates.ids[out].astype(str), return_inverse=True)
        codes[out] = len(reasons) + back
        reasons += [excluded_reason(name, excluded[name]) for name in found.tolist()]
    try:
        refusals = rules.refuse(candidates, options)
    except ShapelyError:  # of an unknown item, found item by item
        return candidates, np.full(len(candidates), UNTOLD, np.int64), reasons
    for applies, reason in refusals:
        if reason is None:
            codes[applies & (codes == ELIGIBLE)] = UNTOLD
            continue
        codes[applies & (codes == ELIGIBLE)] = len(reasons)
        reasons.append(reason)
    for bits in np.unique(lacking[lacking != 0]).tolist():
        missing = [name for bit, name in enumerate(platform.asset_names) if bits >> bit & 1]
        codes[(lacking == bits) & (codes == ELIGIBLE)] = len(reasons)
        reasons.append(f"without asset {', '.join(missing)}")
    codes[odd] = UNTOLD
    # All items of a request, since an undecided item may be a processing of another.
    untold = np.isin(candidates.numbers_of_requests, np.unique(candidates.numbers_of_requests[codes == UNTOLD]))
    older, unknown = _older(table, candidates, (lacking == 0) & ~untold & ~out)
    codes[older] = 1
    codes[unknown] = UNTOLD
    return candidates, codes, reasons


def _older(
    table: CandidateTable, candidates: Candidates, rows: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of older processings, and rows of requests that must be evaluated item by item.

    Args:
        table: table of the candidates.
        candidates: all candidates.
        rows: mask of complete candidates in decided requests.
    """
    processings = table.platform.rules.processings
    none = np.empty(0, np.int64)
    if processings is None:
        return none, none
    together = _together(table, candidates, np.flatnonzero(rows))
    if not together.size:
        return none, none
    documents = table.documents(together)
    numbers = candidates.numbers_of_requests[together]
    edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
    older, unknown = [none], [none]
    for first, after in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        here = together[first:after]
        try:
            told = superseded([processings.tell(item) for item in documents[first:after]])
        except Exception:  # a bug of the rule; its item is found item by item
            unknown.append(here)
        else:
            older.append(here[np.array(told)])
    return np.concatenate(older), np.concatenate(unknown)


def _together(table: CandidateTable, candidates: Candidates, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows that may be processings of the same acquisition as another of their request; ascending."""
    rules = table.platform.rules.processings
    assert rules is not None
    numbers = candidates.numbers_of_requests
    if rules.apart is not None:
        order = rows[np.lexsort((candidates.times[rows], numbers[rows]))]
        times, of = candidates.times[order], numbers[order]
        near = (np.diff(of) == 0) & (np.diff(times) <= rules.apart.total_seconds() * 1000)
        paired = np.zeros(len(order), np.bool_)
        paired[1:] |= near
        paired[:-1] |= near
        rows = np.sort(order[paired])
    if rules.acquisition is not None and rows.size:
        told = [rules.acquisition(name) for name in candidates.ids[rows].tolist()]
        unknown = np.array([one is None for one in told], np.bool_)
        known: dict[object, int] = {}
        labels = np.array([known.setdefault(one, len(known)) for one in told], np.int64)
        keys = numbers[rows] * len(known) + labels
        _, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
        open_ended = np.isin(numbers[rows], numbers[rows][unknown])
        rows = rows[(counts[back] > 1) | open_ended]
    return rows


def _best(table: CandidateTable, candidates: Candidates, codes: NDArray[np.int64]) -> dict[int, int]:
    """Number of a request → row of the eligible candidate that ranks first."""
    rules = table.platform.rules.by_columns
    assert rules is not None
    rows = np.flatnonzero(codes == ELIGIBLE)
    if not rows.size:
        return {}
    chosen = candidates.take(rows)
    keys = rules.rank(chosen)
    leading = _lowest(chosen.numbers_of_requests, keys[0]) if keys else np.arange(len(rows))
    rows, chosen, keys = rows[leading], chosen.take(leading), [key[leading] for key in keys]
    ids = pc.rank(pa.array(chosen.ids, pa.string()), tiebreaker="dense").to_numpy()
    numbers = chosen.numbers_of_requests
    order = np.lexsort((ids, *reversed(keys), numbers))
    first = order[np.flatnonzero(np.diff(numbers[order], prepend=-1))]
    return dict(zip(numbers[first].tolist(), rows[first].tolist(), strict=True))


def _lowest(numbers: NDArray[np.int64], key: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the candidates with the lowest first key in their request; ascending.

    Narrows the candidates first, as sorting ids is slow.
    """
    order = np.lexsort((key, numbers))
    first = order[np.flatnonzero(np.diff(numbers[order], prepend=-1))]
    lowest = key[first][np.searchsorted(numbers[first], numbers)]
    return np.flatnonzero((key == lowest) | ((key != key) & (lowest != lowest)))  # NaN is last
