"""Which candidates are eligible for a request, and which is the best, by the platform's rules, for all catalogues.

A bad item is refused, and counted under its reason. An exception in a rule is a bug of the rule, not a bad item.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from shapely.errors import ShapelyError

from clay_assets.catalogues.base import Answer, Catalogue
from clay_assets.catalogues.candidate_rows import brief
from clay_assets.catalogues.choice import OLDER, Choice, excluded_reason
from clay_assets.catalogues.judging import judged
from clay_assets.errors import ClayError, InputError
from clay_assets.platforms.base import AnyPlatform, Options, Request
from clay_assets.platforms.processing import superseded
from clay_assets.recipes.exclusions import NOTHING
from clay_assets.stac import Item, as_stac_1_1, item_datetime

LONGEST_ERROR = 300  # characters of an error in a reason; the log has all of it

logger = logging.getLogger(__name__)


class RuleError(ClayError):
    """A rule of a platform has a bug, so the request fails, whatever its items."""


def eligible_items(
    platform: AnyPlatform, answer: Answer, options: Options, excluded: Mapping[str, str] = NOTHING
) -> tuple[list[Item], Counter[str]]:
    """The eligible candidates of a request, and the number of refused ones by reason.

    Only the newest valid processing of an acquisition is considered: if it is, for example, too cloudy, an older one is
    not used instead. Items excluded by id are ignored in this.

    Args:
        platform: the platform, whose rules decide.
        answer: the catalogue's answer.
        options: the recipe's options for the platform.
        excluded: item id → why it is excluded.

    Raises:
        RuleError: the platform's `refuse` or its processings raised.
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
    """The item that ranks first, or None; and the number of items that could not be ranked, by reason.

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
    """The eligible candidate that ranks first, or None; and the number of refused ones by reason.

    Raises:
        RuleError: one of the platform's rules raised.
    """
    eligible, rejected = eligible_items(platform, answer, options, excluded)
    best, unranked = best_item(platform, eligible, answer.request)
    return best, rejected + unranked


def resolved_requests(
    platform: AnyPlatform, search: Request, eligible: Sequence[Item], options: Options, seed: int
) -> list[Request]:
    """The requests derived from a search by a platform with `resolve`.

    Raises:
        RuleError: `resolve` raised.
    """
    assert platform.rules.resolve is not None
    try:
        return list(platform.rules.resolve(search, eligible, options, seed))
    except ShapelyError as error:  # the item is unknown, so none can be refused
        raise RuleError(
            f"{platform.key}: {_invalid_footprint(error)} in resolve of request {search.id}. "
            "Check the catalogue's items at this place."
        ) from error
    except Exception as error:
        raise _rule_error(platform, "resolve", f"the items of request {search.id}", error) from error


def full_items(
    platform: AnyPlatform, catalogue: Catalogue, chosen: Mapping[str, Item]
) -> tuple[list[Item], dict[str, str]]:
    """The full STAC 1.1 items of the chosen candidates, ordered by id; and id → reason for the invalid ones.

    Items are validated again: a candidate may lack the invalid field of the full item.
    """
    whole = {item["id"]: item for item in catalogue.stored(platform, list(chosen))} if chosen else {}
    invalid = {}
    found = catalogue.complete(platform, [chosen[name] for name in sorted(set(chosen) - set(whole))])
    for item, read in zip(found, platform.read_items(found), strict=True):
        try:
            if isinstance(read, InputError):
                raise read
            whole[item["id"]] = as_stac_1_1(read)
        except InputError as error:
            invalid[item["id"]] = str(error)
    for name in set(chosen) - set(whole) - set(invalid):
        invalid[name] = f"{name}: no longer in the catalogue. Run again when the catalogue does not change."
    return [whole[name] for name in sorted(whole)], invalid


def _fault(platform: AnyPlatform, item: Item, request: Request) -> str | None:
    """Why an item is refused before the rules run, or None."""
    try:
        moment = item_datetime(item)
    except InputError:  # only stored items; those of catalogues were validated
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
    """The items, by `id()`, for which there is a newer processing."""
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
        if not isinstance(refusal, str | None):  # True or False would refuse items without a reason
            raise TypeError(f"returned {refusal!r}, neither a reason nor None")
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
    """The choice for each request, in any order.

    If the platform also declares its rules over columns, and the catalogue has tables, items are only read for requests
    that columns cannot decide.

    Args:
        platform: the platform, whose rules decide.
        catalogue: the catalogue to search.
        requests: the searches to make.
        options: the platform's recipe fields.
        excluded: item id → why it is excluded.

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
    return Choice(answer.request, candidates, item and brief(item), rejected)


def _rule_error(platform: AnyPlatform, rule: str, on: str, error: Exception) -> RuleError:
    """The error that names the rule and its input. Errors of geometry operations do not count as bugs: footprints come
    from the catalogue.
    """
    logger.error("%s: %s raised on %s", platform.key, rule, on, exc_info=error)
    return RuleError(f"{platform.key}: {rule} raised {repr(error)[:LONGEST_ERROR]} on {on}. Fix the platform's rule.")


def _invalid_footprint(error: ShapelyError) -> str:
    # Only its class: the text has coordinates, and items with the same fault are counted together.
    return f"invalid footprint ({type(error).__name__})"
