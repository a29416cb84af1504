"""A catalogue: one interface with two implementations, a STAC API and a STAC-GeoParquet snapshot.

Both answer requests with candidates that have passed `stac.read_item`. Which of them a request may take is decided in
`eligibility`, by the same code for both.
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
        invalid: reason → number of items that are not valid and so were dropped.
        error: why there is no answer, None if there is one.
        sound: which candidates are known to break no declaration and to lack no asset; empty: not known.
    """

    request: Request
    candidates: list[Item] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    sound: Sequence[bool] = ()


class Catalogue(Protocol):
    """Where scenes are looked up."""

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """One answer per request, in any order. Candidates may lack what is not needed to choose."""
        ...

    def tables(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[CandidateTable] | None:
        """What `search` finds, as tables of candidates by groups of requests; None from a catalogue that has items."""
        ...

    def doubts(self, platform: AnyPlatform, requests: Sequence[Request], found: int) -> list[str]:
        """Why the catalogue may not be the platform's, as sentences; none where nothing speaks against it.

        Args:
            platform: that searched it.
            requests: its searches.
            found: how many candidates they had.
        """
        ...

    def any_item(self, platform: AnyPlatform) -> Item | None:
        """Some item of a platform's collection, as the catalogue has it; None where there is none.

        Raises:
            InputError: it is no catalogue of the kind that its address says.
            SourceError: it did not answer.
        """
        ...

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The chosen candidates as whole items, in any order, as the catalogue has them."""
        ...


def read_candidate(platform: AnyPlatform, document: Item) -> Item | str:
    """A candidate as the pipeline trusts it, or the reason why the document is not a valid item.

    The reason leaves out the item's id, so that items with the same fault are counted together.
    """
    return read_candidates(platform, [document])[0]


def read_candidates(platform: AnyPlatform, documents: Sequence[Item]) -> list[Item | str]:
    """Many documents as `read_candidate` gives them, in the same order."""
    read = platform.read_items(documents)
    return [
        str(one).removeprefix(f"{document.get('id')}: ").rstrip(".") if isinstance(one, InputError) else one
        for document, one in zip(documents, read, strict=True)
    ]


def answer_of(request: Request, read: Iterable[Item | str]) -> Answer:
    """The answer that consists of some candidates, as `read_candidate` gives them."""
    answer = Answer(request)
    for candidate in read:
        if isinstance(candidate, str):
            answer.invalid[candidate] += 1
        else:
            answer.candidates.append(candidate)
    return answer
