"""A catalogue: one interface with two implementations, a STAC API and a STAC-GeoParquet snapshot.

Both answer requests with candidates that have passed `stac.read_item`. Which of them are eligible for a request is
decided in `eligibility`, by the same code for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from clay_assets.errors import InputError
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.stac import Item

if TYPE_CHECKING:
    from clay_assets.catalogues.candidates import CandidateTable


@dataclass(frozen=True)
class Answer:
    """A catalogue's answer to one request.

    Attributes:
        request: the request.
        candidates: items that intersect the request in space and time and match its filters.
        invalid: reason → number of invalid items that were dropped.
        error: why there is no answer, or None.
        sound: whether each candidate is known to satisfy all declarations and to have all assets; empty: unknown.
    """

    request: Request
    candidates: list[Item] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    sound: Sequence[bool] = ()


class Catalogue(Protocol):
    """A source of candidates for requests."""

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """One answer per request, in any order. Candidates may lack fields that the choice does not need."""
        ...

    def tables(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[CandidateTable] | None:
        """The candidates of `search` as tables, by groups of requests; None if the catalogue has no tables."""
        ...

    def doubts(self, platform: AnyPlatform, requests: Sequence[Request], found: int) -> list[str]:
        """Reasons, as sentences, why the catalogue may not be the platform's; empty if there are none.

        Args:
            platform: the platform that searched it.
            requests: the platform's searches.
            found: number of candidates found.
        """
        ...

    def any_item(self, platform: AnyPlatform) -> Item | None:
        """Any item of a platform's collection, as in the catalogue; None if it has none.

        Raises:
            InputError: not a catalogue of the expected kind.
            SourceError: the catalogue did not answer.
        """
        ...

    def stored(self, platform: AnyPlatform, ids: Sequence[str]) -> list[Item]:
        """Those of the chosen items that are available in stored form; in any order.

        That is the form of `Platform.read_item` followed by `as_stac_1_1`.
        """
        ...

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The full items of the chosen candidates, as in the catalogue, in any order."""
        ...


def read_candidates(platform: AnyPlatform, documents: Sequence[Item]) -> list[Item | str]:
    """Validated candidates, or the reasons why documents are not valid items, in the same order.

    Reasons do not contain the item's id, so that items with the same fault are counted together.
    """
    read = platform.read_items(documents)
    return [
        str(one).removeprefix(f"{document.get('id')}: ").rstrip(".") if isinstance(one, InputError) else one
        for document, one in zip(documents, read, strict=True)
    ]


def answer_of(request: Request, read: Iterable[Item | str]) -> Answer:
    """Build an answer from the results of `read_candidates`."""
    answer = Answer(request)
    for candidate in read:
        if isinstance(candidate, str):
            answer.invalid[candidate] += 1
        else:
            answer.candidates.append(candidate)
    return answer
