"""A STAC API as a catalogue: item search through pystac-client.

Servers differ in how they handle footprints across the antimeridian, so intersection is checked here: items found are
compared with the place, and near ±180° the search is repeated where a server may see such footprints.

Requests at one place with consecutive periods, such as the quarters of a tile, share one search if it has few pages and
every item clearly belongs to one of them. Otherwise, or if it fails, they are searched one by one.

Searches only use what all of the catalogues support: `intersects`, `datetime`, `query` with eq, and `fields` if the
server declares it. No `sortby`: every candidate is fetched and ranked here, and a sorted search can repeat an item from
page to page (pystac-client issue 855).

STAC API: https://api.stacspec.org/v1.0.0/item-search
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import numpy as np
import requests as http
import shapely
from pystac import Link, STACError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry.base import BaseGeometry
from tenacity import Retrying
from urllib3 import Retry

from clay_assets.catalogues.base import Answer, answer_of, read_candidates
from clay_assets.catalogues.pace import Pace
from clay_assets.errors import InputError, SourceError
from clay_assets.executors import run_bounded
from clay_assets.executors.interpreter import quick_switches
from clay_assets.grids import HALF_TURN
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.stac import Item, shapes_of
from clay_assets.transport.retries import ATTEMPTS, BACK_OFF, CONNECT_TIMEOUT, WORK_ATTEMPTS, retrying, urllib3_retry

logger = logging.getLogger(__name__)

PAGE_SIZE = 100  # a quarter of one tile holds about 20 to 45 items, so one page is usually enough
MAX_PAGES = 10
SILENCE = 25  # read time-out, seconds; a search takes less, and all attempts together a few minutes
MOST_TOGETHER = 12  # maximum number of requests per search
TOO_LARGE = 8  # shared searches with too many items, after which no more are tried
TIMES = ("datetime", "start_datetime", "end_datetime")
TOO_MANY_REQUESTS = 429
POOL_SIZE = 64  # connections to keep; the most requests that can be in flight
_Found: TypeAlias = tuple[dict[str, Item], ...]  # id → feature, at the place and elsewhere
GIVE_UP_AFTER = 32  # consecutive failed searches, after which the API is considered down
# Errors raised for missing or unexpected responses.
UNUSABLE = (APIError, http.RequestException, ValueError, KeyError, TypeError, AttributeError, STACError)
# Responses truncated while they are read, which urllib3 does not retry.
BROKEN_OFF = (http.exceptions.ChunkedEncodingError, http.exceptions.ContentDecodingError)
OUTSIDE = "outside the place"
# REACH: distance from ±180 at which footprints may cross it, degrees at the equator, the width of the widest scene.
# MARGIN: degrees by which the additional search along meridians extends beyond the place. STEP: spacing of its points.
REACH, MARGIN, STEP = 5.0, 1.0, 0.2
POLE, MOST_POLEWARD = 90.0, 89.0
CORE_FIELDS = (
    "id",
    "type",
    "stac_version",
    "stac_extensions",
    "collection",
    "geometry",
    "bbox",
    "links",
    "properties",
)


class ApiCatalogue:
    """A STAC API.

    Args:
        url: root of the API.
        requests_in_flight: maximum number of concurrent searches.
        attempts: maximum number of attempts per HTTP exchange, with exponential back-off and jitter.
        back_off: initial back-off in seconds.
        timeout: connect and read time-outs in seconds. With the defaults, a search without an answer fails after about
            two minutes.
    """

    def __init__(
        self,
        url: str,
        *,
        requests_in_flight: int = 12,
        attempts: int = ATTEMPTS,
        back_off: float = BACK_OFF,
        timeout: tuple[float, float] = (CONNECT_TIMEOUT, SILENCE),
    ) -> None:
        self.url = url
        self.requests_in_flight = requests_in_flight
        self.attempts = attempts
        self.back_off = back_off
        self.timeout = timeout
        self._pace = Pace(requests_in_flight)
        self._opened: Client | None = None
        self._opening = threading.Lock()

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers in order of arrival; a search that finally fails is an answer with an error.

        Raises:
            SourceError: the API's root does not answer, or so many searches fail in a row that it must be down.
            InputError: not an API with item search.
        """
        if not requests:
            return
        self._client()
        failed_in_a_row = 0
        groups = _Groups(requests)
        # More threads than requests in flight, so that requests continue while answers are parsed.
        threads = 2 * self.requests_in_flight - 1
        with quick_switches(), ThreadPoolExecutor(threads, thread_name_prefix="stac") as pool:
            for group, future in run_bounded(
                pool, lambda asked: self._searched(platform, asked, groups), groups, 2 * threads
            ):
                for request, found in zip(group, future.result(), strict=True):
                    answer = _answer(platform, request, found)
                    failed_in_a_row = failed_in_a_row + 1 if answer.error else 0
                    if failed_in_a_row == GIVE_UP_AFTER:
                        raise SourceError(
                            f"{self.url}: {GIVE_UP_AFTER} searches in a row failed, the last with: "
                            f"{answer.error}. Run again when the API answers."
                        )
                    yield answer

    def tables(self, platform: AnyPlatform, requests: Sequence[Request]) -> None:
        """None: an API returns items, not tables."""

    def doubts(self, platform: AnyPlatform, requests: Sequence[Request], found: int) -> list[str]:
        """A missing collection, if nothing was found: APIs return no items for it."""
        wanted = platform.scenes.collection
        if found or not requests or wanted is None:
            return []
        try:
            if self._client().get_collection(wanted) is not None:
                return []
        except UNUSABLE:  # an API need not describe its collections
            logger.info("%s: does not describe the collection %s", self.url, wanted, exc_info=True)
            return []
        return [f"{self.url}: no collection {wanted}. Check the address in the CLAY_STAC_… setting."]

    def any_item(self, platform: AnyPlatform) -> Item | None:
        """The first item of an unlimited search in the platform's collection."""
        wanted = platform.scenes.collection
        client = self._client()
        try:
            found = client.search(collections=[wanted] if wanted else None, limit=1, max_items=1).items_as_dicts()
            return next(found, None)
        except UNUSABLE as error:
            raise SourceError(f"{self.url}: search in {wanted} failed ({_brief(error)}). Run again.") from error

    def stored(self, platform: AnyPlatform, ids: Sequence[str]) -> list[Item]:
        """None: an API's items still need to be migrated."""
        return []

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The candidates unchanged: an API returns full items."""
        return list(items)

    def _searched(self, platform: AnyPlatform, group: Sequence[Request], groups: _Groups) -> list[_Found | SourceError]:
        """The items found for each request of a group, by one search if possible, else one by one."""
        if len(group) > 1 and groups.one_search:
            together = replace(group[0], end=group[-1].end)
            try:
                found = self._features(platform, together, pages=len(group) - 1)
            except _TooManyError:
                groups.one_search_was_too_large()
            except SourceError as error:
                logger.info("%s; its %d parts are searched one by one.", error, len(group))
            else:
                parts = [_parts(features, group) for features in found]
                if all(part is not None for part in parts):
                    return [tuple(_by_id(part[at]) for part in parts if part) for at in range(len(group))]
        return [self._one(platform, request) for request in group]

    def _one(self, platform: AnyPlatform, request: Request) -> _Found | SourceError:
        try:
            return tuple(map(_by_id, self._features(platform, request)))
        except SourceError as error:
            return error

    def _features(self, platform: AnyPlatform, request: Request, pages: int = MAX_PAGES) -> list[list[Item]]:
        """The features at the place of a request, and, near ±180°, those where servers may see its footprints.

        Args:
            platform: the platform to search for.
            request: the search.
            pages: maximum number of pages.

        Raises:
            _TooManyError: there are more pages.
            SourceError: the search failed.
        """
        elsewhere = _where_servers_see_it(request.geometry)
        asked = [request, *([replace(request, geometry=elsewhere)] if elsewhere else [])]
        return [
            [
                item
                for wanted in request.filters or ({},)
                for page in self._pages(platform, one, wanted, pages)
                for item in page["features"]
            ]
            for one in asked
        ]

    def _pages(
        self, platform: AnyPlatform, request: Request, wanted: Mapping[str, Any], most: int
    ) -> list[dict[str, Any]]:
        for attempt in self._retrying():
            with attempt:
                try:
                    return self._read_pages(platform, request, wanted, most)
                except APIError as error:
                    raise _kind(error)(self._failed(request, error)) from error
                except UNUSABLE as error:
                    raise _BrokenAnswerError(self._failed(request, error)) from error
        raise AssertionError("tenacity either returns or raises")

    def _read_pages(
        self, platform: AnyPlatform, request: Request, wanted: Mapping[str, Any], most: int
    ) -> list[dict[str, Any]]:
        client = self._client()
        last = request.end - timedelta(microseconds=1)  # the API's intervals are closed, ours are half-open
        search = client.search(
            collections=[platform.scenes.collection] if platform.scenes.collection else None,
            datetime=f"{request.start:%Y-%m-%dT%H:%M:%SZ}/{last:%Y-%m-%dT%H:%M:%S.%f}Z",
            intersects=shapely.geometry.mapping(request.geometry),
            query={name: {"eq": value} for name, value in wanted.items()} or None,
            fields=self._fields(client, platform),
            limit=PAGE_SIZE,
        )
        pages = []
        for page in search.pages_as_dicts():
            if not all(isinstance(item, dict) for item in page["features"]):
                raise ValueError("response with features that are not items")
            pages.append(page)
            if most < MAX_PAGES and (_matched(page) > most * PAGE_SIZE or (len(pages) == most and _goes_on(page))):
                raise _TooManyError(f"{self.url}: search {request.id} has more than {most} pages")
            if len(pages) == MAX_PAGES and _goes_on(page):
                # A better item may be on the remaining pages, so none is picked.
                raise _RefusedError(
                    f"{self.url}: search {request.id} has more than {MAX_PAGES} pages of {PAGE_SIZE} items; "
                    "the API ignores part of the search, or repeats pages"
                )
        got, matched = sum(len(page["features"]) for page in pages), max(map(_matched, pages), default=0)
        if got < matched:
            raise _RefusedError(
                f"{self.url}: search {request.id} ends after {got} of {matched} items, without a link to the next page"
            )
        return pages

    def _fields(self, client: Client, platform: AnyPlatform) -> dict[str, list[str]] | None:
        # Names with a dot, as in old items, cannot be used in a field path.
        if any("." in name for name in platform.assets.aliases) or not client.conforms_to(ConformanceClasses.FIELDS):
            return None
        assets = [f"assets.{name}" for name in dict.fromkeys((*platform.asset_names, *platform.assets.aliases))]
        return {"include": [*CORE_FIELDS, *assets]}

    def _client(self) -> Client:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Client:
        retries = urllib3_retry(self.attempts, self.back_off)
        for attempt in self._retrying():
            with attempt:
                try:
                    # `open` resets the time-out, so one given to `_SearchIO` would be lost.
                    client = Client.open(self.url, stac_io=_SearchIO(retries, self._pace), timeout=self.timeout)
                except (*UNUSABLE, ClientTypeError) as error:
                    raise _kind(error)(
                        f"{self.url}: did not answer as a STAC API ({_brief(error)}). "
                        "Check the address in the CLAY_STAC_… setting, and the network."
                    ) from error
                if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
                    raise InputError(
                        f"{self.url}: STAC catalogue without item search. "
                        "Give the root of a STAC API in the CLAY_STAC_… setting, or a snapshot."
                    )
                return client
        raise AssertionError("tenacity either returns or raises")

    def _retrying(self) -> Retrying:
        # On top of urllib3's retries of statuses and connections: for responses that are truncated or not JSON.
        return retrying(WORK_ATTEMPTS, back_off=self.back_off, on=_BrokenAnswerError)

    def _failed(self, request: Request, error: Exception) -> str:
        return f"{self.url}: search {request.id} failed ({_brief(error)})"


def _where_servers_see_it(place: BaseGeometry) -> BaseGeometry | None:
    """Where else servers may find footprints that cover a place; None if nowhere.

    A server may treat longitudes as planar: a footprint across the antimeridian then circles the world and crosses the
    meridian of 0°, or leaves the world and crosses that of 180°.
    """
    west, south, east, north = place.bounds
    poleward = max(abs(south), abs(north))
    reach = REACH / max(math.cos(math.radians(min(poleward, MOST_POLEWARD))), REACH / HALF_TURN)
    if west > -HALF_TURN + reach and east < HALF_TURN - reach:
        return None
    south, north = max(south - MARGIN, -POLE), min(north + MARGIN, POLE)
    # Points, since databases may fail to intersect an invalid footprint with other geometries.
    latitudes = np.linspace(south, north, math.ceil((north - south) / STEP) + 1)
    return shapely.MultiPoint([(lon, lat) for lon in (-HALF_TURN, 0, HALF_TURN) for lat in latitudes])


def _answer(platform: AnyPlatform, request: Request, found: _Found | SourceError) -> Answer:
    """The answer to a request, from the items found at its place and elsewhere."""
    if isinstance(found, SourceError):
        return Answer(request, error=str(found))
    told, *others = found
    read = read_candidates(platform, list(told.values()))
    # Servers make mistakes with footprints across the antimeridian, or ignore the place.
    read = [
        OUTSIDE if touches is False else one
        for one, touches in zip(read, _touching(request.geometry, read), strict=True)
    ]
    also = read_candidates(
        platform, [document for other in others for name, document in other.items() if name not in told]
    )
    read += [one for one, touches in zip(also, _touching(request.geometry, also), strict=True) if touches]
    return answer_of(request, read)


def _by_id(features: Sequence[Item]) -> dict[str, Item]:
    """Features by id."""
    found: dict[str, Item] = {}
    for item in features:
        found.setdefault(repr(item.get("id")), item)
    return found


class _Groups:
    """Groups of requests that can share a search: at one place, with the same filters and consecutive periods.

    Attributes:
        one_search: whether shared searches are still tried.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.one_search = True
        self._too_large = 0
        self._groups: list[list[Request]] = []
        last: dict[tuple[str, bytes, str], list[Request]] = {}
        for request in sorted(requests, key=lambda one: (one.location, one.start)):
            key = request.location, shapely.to_wkb(request.geometry), repr(request.filters)
            group = last.get(key)
            if group is None or group[-1].end != request.start or len(group) == MOST_TOGETHER:
                group = last[key] = []
                self._groups.append(group)
            group.append(request)

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self._groups)

    def one_search_was_too_large(self) -> None:
        """Record that a shared search had too many items; after several, no more are tried."""
        self._too_large += 1
        self.one_search = self._too_large < TOO_LARGE


def _parts(features: Sequence[Item], group: Sequence[Request]) -> list[list[Item]] | None:
    """The features of each request of a group; None if one does not clearly belong to a single request.

    Servers differ in their treatment of items with an interval, or with unreadable times.
    """
    parts: list[list[Item]] = [[] for _ in group]
    for item in features:
        places = set()
        properties = item.get("properties")
        times = [properties.get(name) for name in TIMES] if isinstance(properties, dict) else []
        for text in times:
            moment = _moment(text) if text is not None else None
            if text is not None:
                places.add(next((at for at, one in enumerate(group) if moment and one.start <= moment < one.end), None))
        if len(places) != 1 or None in places:
            return None
        parts[places.pop()].append(item)  # type: ignore[index]
    return parts


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _goes_on(page: Mapping[str, Any]) -> bool:
    return any(link.get("rel") == "next" for link in page.get("links", []))


def _touching(place: BaseGeometry, candidates: Sequence[Item | str]) -> list[bool | None]:
    """Whether each candidate intersects a place; None for candidates without a footprint."""
    shapes = shapes_of([{} if isinstance(one, str) else one for one in candidates])
    touching = shapely.intersects(np.array([*shapes, None], dtype=object)[:-1], place).tolist()
    return [None if shape is None else touches for shape, touches in zip(shapes, touching, strict=True)]


def _matched(page: Mapping[str, Any]) -> int:
    """Number of matched items by a page, 0 if not given."""
    context = page.get("context")
    told = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return told if isinstance(told, int) and not isinstance(told, bool) else 0


class _SearchIO(StacApiIO):
    """Keeps the pace, and raises on responses without features, which pystac-client takes as the end of the search."""

    def __init__(self, retries: Retry, pace: Pace) -> None:
        super().__init__(max_retries=None)
        adapter = http.adapters.HTTPAdapter(max_retries=_paced(retries, pace), pool_maxsize=POOL_SIZE)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)
        send = self.session.send

        def in_a_slot(*args: Any, **kwargs: Any) -> http.Response:
            with pace.slot():
                return send(*args, **kwargs)

        self.session.send = in_a_slot  # type: ignore[method-assign]

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        document = super().read_json(source, *args, **kwargs)
        if "parameters" in kwargs and not (isinstance(document, dict) and isinstance(document.get("features"), list)):
            raise ValueError(f"response without features: {str(document)[:100]}")
        return document

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Pages with features; pystac-client takes one without as the last, even if its count is higher."""
        page, got, without = self.read_json(url, method=method, parameters=parameters), 0, 0
        while True:
            got += len(page["features"])
            link = next((link for link in page.get("links", []) if link.get("rel") == "next"), None)
            if page["features"]:
                yield page
            elif _matched(page) <= got:
                return
            elif link is None or without == MAX_PAGES:
                raise ValueError(f"response without features, after {got} of {_matched(page)} items")
            else:
                without += 1
            if link is None:
                return
            page = self.read_json(Link.from_dict(link), parameters=parameters)


def _paced(retries: Retry, pace: Pace) -> Retry:
    """A retry policy that reports refusals to the pace, and keeps the pace in all attempts."""

    class Paced(type(retries)):  # type: ignore[misc]
        def sleep(self, response: Any = None) -> None:
            if response is not None and response.status == TOO_MANY_REQUESTS:
                pace.refused()
                with pace.out_of_slot():
                    super().sleep(response)
            else:
                super().sleep(response)
            pace.wait()

    return Paced(
        **{
            name: getattr(retries, name)
            for name in ("total", "backoff_factor", "backoff_jitter", "status_forcelist", "allowed_methods")
        },
        respect_retry_after_header=retries.respect_retry_after_header,
        retry_after_max=retries.retry_after_max,
    )


class _TooManyError(Exception):
    """A shared search has too many items."""


class _RefusedError(SourceError):
    """The server refused or did not answer in all retries of urllib3; more would not help now."""


class _BrokenAnswerError(SourceError):
    """The response was truncated or unexpected; another attempt may help."""


def _kind(error: Exception) -> type[SourceError]:
    # The cause of pystac-client's APIError is its context.
    tried = isinstance(error, APIError) and not isinstance(error.__context__, BROKEN_OFF)
    return _RefusedError if tried else _BrokenAnswerError


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
