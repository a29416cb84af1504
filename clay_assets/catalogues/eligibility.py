"""Which candidates are eligible for a request, and which is the best. The platform's rules decide, whichever catalogue
answered.

A bad item is refused, and counted under its reason. What a rule raises is no bad item but a bug of the rule.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from shapely.errors import ShapelyError

from clay_assets.catalogues.base import Answer, Catalogue
from clay_assets.catalogues.choice import OLDER, Choice, excluded_reason
from clay_assets.catalogues.judging import judged
from clay_assets.errors import ClayError, InputError
from clay_assets.platforms.base import AnyPlatform, Options, Request
from clay_assets.platforms.processing import superseded
from clay_assets.recipes.exclusions import NOTHING
from clay_assets.stac import Item, as_stac_1_1, item_datetime

LONGEST_ERROR = 300  # characters of an error in a reason; the log has the whole

logger = logging.getLogger(__name__)


class RuleError(ClayError):
    """A rule of a platform has a bug. The request that met it fails; it says nothing of its items."""


def eligible_items(
    platform: AnyPlatform, answer: Answer, options: Options, excluded: Mapping[str, str] = NOTHING
) -> tuple[list[Item], Counter[str]]:
    """The candidates that a request may take, and how many were refused for each reason.

    Of several processings of one acquisition the newest that is sound is judged, and stands for them all: an older
    one is not taken in its place where it is, say, too cloudy. Items that are excluded by name stand for nothing.

    Args:
        platform: whose rules decide.
        answer: of the catalogue.
        options: the platform's recipe fields.
        excluded: item id → why it is never taken.

    Raises:
        RuleError: the platform's `refuse` raised, or what tells its processings.
    """
    rejected = Counter(answer.invalid)
    sound: list[Item] = []
    lacking: list[list[str]] = []
    for item, known in zip(answer.candidates, answer.sound or repeat(False, len(answer.candidates)), strict=True):
        why = excluded.get(item["id"])
        if why is not None:
            fault: str | None = excluded_reason(item["id"], why)
        else:
            fault = None if known else _fault(platform, item, answer.request)
        if fault is None:
            sound.append(item)
            lacking.append([] if known else platform.missing(item, platform.asset_names))
        else:
            rejected[fault] += 1
    older = _older(platform, [item for item, missing in zip(sound, lacking, strict=True) if not missing])
    eligible: list[Item] = []
    for item, missing in zip(sound, lacking, strict=True):
        refusal = OLDER if id(item) in older else _refusal(platform, item, answer.request, options)
        if refusal is None and missing:
            refusal = f"without asset {', '.join(missing)}"
        if refusal is None:
            eligible.append(item)
        else:
            rejected[refusal] += 1
    return eligible, rejected


def best_item(platform: AnyPlatform, items: Iterable[Item], request: Request) -> tuple[Item | None, Counter[str]]:
    """The item that ranks first, None if there is none; and how many could not be ranked for each reason.

    Raises:
        RuleError: the platform's `rank` raised, or its keys cannot be compared.
    """
    best: Item | None = None
    lowest: Any = None
    rejected: Counter[str] = Counter()
    for item in items:
        try:
            key = platform.rules.rank(item, request)
            if best is None or key < lowest:
                best, lowest = item, key
        except ShapelyError as error:
            rejected[_invalid_footprint(error)] += 1
        except Exception as error:
            raise _rule_error(platform, "rank", f"item {item['id']}", error) from error
    return best, rejected


def best_candidate(
    platform: AnyPlatform, answer: Answer, options: Options, excluded: Mapping[str, str] = NOTHING
) -> tuple[Item | None, Counter[str]]:
    """The eligible candidate that ranks first, None if there is none; and how many were refused for each reason.

    Raises:
        RuleError: one of the platform's rules raised.
    """
    eligible, rejected = eligible_items(platform, answer, options, excluded)
    best, unranked = best_item(platform, eligible, answer.request)
    return best, rejected + unranked


def resolved_requests(
    platform: AnyPlatform, search: Request, eligible: Sequence[Item], options: Options, seed: int
) -> list[Request]:
    """The requests that a search becomes, by a platform that has `resolve`.

    Raises:
        RuleError: `resolve` raised.
    """
    assert platform.rules.resolve is not None
    try:
        return list(platform.rules.resolve(search, eligible, options, seed))
    except ShapelyError as error:  # nobody knows of which item, so none can be refused
        raise RuleError(
            f"{platform.key}: resolve of request {search.id} met an {_invalid_footprint(error)}. "
            "Check the catalogue's items at this place."
        ) from error
    except Exception as error:
        raise _rule_error(platform, "resolve", f"the items of request {search.id}", error) from error


def full_items(
    platform: AnyPlatform, catalogue: Catalogue, chosen: Mapping[str, Item]
) -> tuple[list[Item], dict[str, str]]:
    """The chosen candidates as whole items of STAC 1.1, ordered by id; and id → reason of those that prove invalid.

    An item is read once more: a candidate may lack the member that makes the whole of it invalid.
    """
    whole: dict[str, Item] = {}
    invalid = {}
    found = catalogue.complete(platform, [chosen[name] for name in sorted(chosen)])
    for item, read in zip(found, platform.read_items(found), strict=True):
        try:
            if isinstance(read, InputError):
                raise read
            whole[item["id"]] = as_stac_1_1(read)
        except InputError as error:
            invalid[item["id"]] = str(error)
    for name in set(chosen) - set(whole) - set(invalid):
        invalid[name] = f"{name}: found, but not found again. Search again, once the catalogue is at rest."
    return [whole[name] for name in sorted(whole)], invalid


def _fault(platform: AnyPlatform, item: Item, request: Request) -> str | None:
    """Why no rule can judge an item, or need not."""
    try:
        moment = item_datetime(item)
    except InputError:  # of a stored item; those of catalogues were read
        return "invalid item (datetime)"
    if not request.start <= moment < request.end:
        return "outside the period"
    if item.get("geometry") is None:
        return "without footprint"
    for declared in platform.rules.properties:
        if problem := declared.problem(item["properties"]):
            return problem
    return None


def _older(platform: AnyPlatform, items: Sequence[Item]) -> set[int]:
    """Those items, by `id()`, of which there is a newer processing among them."""
    if platform.rules.processings is None:
        return set()
    told = []
    items = platform.rules.processings.together(items)
    for item in items:
        try:
            told.append(platform.rules.processings.tell(item))
        except ShapelyError:
            raise
        except Exception as error:
            raise _rule_error(platform, "processings", f"item {item['id']}", error) from error
    return {id(item) for item, older in zip(items, superseded(told), strict=True) if older}


def _refusal(platform: AnyPlatform, item: Item, request: Request, options: Options) -> str | None:
    try:
        refusal = platform.rules.refuse(item, request, options)
        if not isinstance(refusal, str | None):  # True, False: would refuse every item without a reason
            raise TypeError(f"answered {refusal!r}, neither a reason nor None")
    except ShapelyError as error:
        return _invalid_footprint(error)
    except Exception as error:
        raise _rule_error(platform, "refuse", f"item {item['id']}", error) from error
    return refusal


def choices(
    platform: AnyPlatform,
    catalogue: Catalogue,
    requests: Sequence[Request],
    options: Options,
    excluded: Mapping[str, str] = NOTHING,
) -> Iterator[Choice]:
    """What each request gets, in any order.

    Where the platform declares its rules over columns too, and the catalogue has tables, items are read only for the
    requests of which columns do not tell everything.

    Args:
        platform: whose rules decide.
        catalogue: where to look.
        requests: searches to make.
        options: the platform's recipe fields.
        excluded: item id → why it is never taken.

    Raises:
        SourceError: the catalogue as a whole does not answer.
    """
    tables = catalogue.tables(platform, requests) if platform.rules.by_columns else None
    if tables is None:
        for answer in catalogue.search(platform, requests):
            yield _choice(platform, answer, options, excluded)
        return
    for table in tables:
        left = yield from judged(table, options, excluded)
        for answer in table.answers(left):
            yield _choice(platform, answer, options, excluded)


def _choice(platform: AnyPlatform, answer: Answer, options: Options, excluded: Mapping[str, str]) -> Choice:
    candidates = len(answer.candidates) + answer.invalid.total()
    if answer.error is not None:
        return Choice(answer.request, candidates, error=answer.error)
    try:
        item, rejected = best_candidate(platform, answer, options, excluded)
    except RuleError as error:
        return Choice(answer.request, candidates, error=str(error))
    return Choice(answer.request, candidates, item, rejected)


def _rule_error(platform: AnyPlatform, rule: str, on: str, error: Exception) -> RuleError:
    """What tells which rule raised, and on what. Errors of geometry operations are no bugs: footprints are the
    catalogue's.
    """
    logger.error("%s: %s raised on %s", platform.key, rule, on, exc_info=error)
    return RuleError(f"{platform.key}: {rule} raised {repr(error)[:LONGEST_ERROR]} on {on}. Fix the platform's rule.")


def _invalid_footprint(error: ShapelyError) -> str:
    # By its class alone: the text has coordinates, and items with the same fault are counted together.
    return f"invalid footprint ({type(error).__name__})"
