"""A STAC API as a catalogue: item search through pystac-client.

Where a footprint lies is for us to say, as servers differ about those across the antimeridian: what they find is held
against the place, and near ±180° it is also searched for where they may see it.

A server is asked only what all of the catalogues answer: `intersects`, `datetime`, `query` with eq, and `fields`
where it says that it knows them. No `sortby`: every candidate is fetched and ranked here, and a sorted search can
repeat an item from page to page (pystac-client issue 855).

STAC API: https://api.stacspec.org/v1.0.0/item-search
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import requests as http
import shapely
from pystac import STACError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry.base import BaseGeometry
from tenacity import Retrying

from clay_assets.catalogues.base import Answer, answer_of, read_candidate
from clay_assets.errors import InputError, SourceError
from clay_assets.executors import run_bounded
from clay_assets.grids import HALF_TURN
from clay_assets.platforms.base import AnyPlatform, Request
from clay_assets.stac import Item
from clay_assets.transport.retries import ATTEMPTS, BACK_OFF, CONNECT_TIMEOUT, WORK_ATTEMPTS, retrying, urllib3_retry

logger = logging.getLogger(__name__)

PAGE_SIZE = 100  # a quarter of one tile holds about 20 to 45 items, so one page is the rule
MAX_PAGES = 10
SILENCE = 25  # seconds of an answer; a search takes less, and all attempts together a few minutes
GIVE_UP_AFTER = 32  # searches that fail one after another; by then the API is down, not a search bad
# What an answer raises that is missing, or not what was asked for.
UNUSABLE = (APIError, http.RequestException, ValueError, KeyError, TypeError, AttributeError, STACError)
# Answers that break off while they are read; urllib3 has done its retries by then.
BROKEN_OFF = (http.exceptions.ChunkedEncodingError, http.exceptions.ContentDecodingError)
OUTSIDE = "outside the place"
# Where footprints may reach across the antimeridian: degrees at the equator, as wide as the widest scene. The meridians
# that are searched besides reach a little beyond the place; in degrees.
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
        requests_in_flight: searches at once.
        attempts: tries for one HTTP exchange, with exponential back-off and jitter.
        back_off: seconds of back-off to begin with.
        timeout: seconds to connect, seconds of silence while reading. With the defaults a search that is never
            answered is given up after about two minutes.
    """

    def __init__(
        self,
        url: str,
        *,
        requests_in_flight: int = 8,
        attempts: int = ATTEMPTS,
        back_off: float = BACK_OFF,
        timeout: tuple[float, float] = (CONNECT_TIMEOUT, SILENCE),
    ) -> None:
        self.url = url
        self.requests_in_flight = requests_in_flight
        self.attempts = attempts
        self.back_off = back_off
        self.timeout = timeout
        self._opened: Client | None = None
        self._opening = threading.Lock()

    def search(self, platform: AnyPlatform, requests: Sequence[Request]) -> Iterator[Answer]:
        """Answers as they come in; a search that fails for good is an answer with an error.

        Raises:
            SourceError: the API's root does not answer, or so many searches fail in a row that it must be down.
            InputError: it is no API with item search.
        """
        if not requests:
            return
        self._client()
        failed_in_a_row = 0
        with ThreadPoolExecutor(self.requests_in_flight, thread_name_prefix="stac") as pool:
            for request, future in run_bounded(
                pool, lambda asked: self._answer(platform, asked), requests, 2 * self.requests_in_flight
            ):
                try:
                    answer = future.result()
                except SourceError as error:
                    answer = Answer(request, error=str(error))
                failed_in_a_row = failed_in_a_row + 1 if answer.error else 0
                if failed_in_a_row == GIVE_UP_AFTER:
                    raise SourceError(
                        f"{self.url}: {GIVE_UP_AFTER} searches in a row failed, so no more are made; the last: "
                        f"{answer.error}. Run again when the API answers."
                    )
                yield answer

    def tables(self, platform: AnyPlatform, requests: Sequence[Request]) -> None:
        """None: an API answers with items."""

    def doubts(self, platform: AnyPlatform, requests: Sequence[Request], found: int) -> list[str]:
        """That there is no such collection, where nothing was found; APIs answer that with no items."""
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

    def complete(self, platform: AnyPlatform, items: Sequence[Item]) -> list[Item]:
        """The candidates as they are: an API answers with whole items."""
        return list(items)

    def _answer(self, platform: AnyPlatform, request: Request) -> Answer:
        wrapped = _where_servers_see_it(request.geometry)
        told = self._found(platform, request)
        elsewhere = self._found(platform, replace(request, geometry=wrapped)) if wrapped else {}
        read = [_at(request.geometry, read_candidate(platform, document)) for document in told.values()]
        also = (read_candidate(platform, document) for name, document in elsewhere.items() if name not in told)
        return answer_of(request, [*read, *(one for one in also if _touches(request.geometry, one))])

    def _found(self, platform: AnyPlatform, request: Request) -> dict[str, Item]:
        """The features that the server finds, each once."""
        found: dict[str, Item] = {}
        for wanted in request.filters or ({},):
            for page in self._pages(platform, request, wanted):
                for item in page["features"]:
                    found.setdefault(repr(item.get("id")), item)
        return found

    def _pages(self, platform: AnyPlatform, request: Request, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        for attempt in self._retrying():
            with attempt:
                try:
                    return self._read_pages(platform, request, wanted)
                except APIError as error:
                    raise _kind(error)(self._failed(request, error)) from error
                except UNUSABLE as error:
                    raise _BrokenAnswerError(self._failed(request, error)) from error
        raise AssertionError("tenacity either returns or raises")

    def _read_pages(self, platform: AnyPlatform, request: Request, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
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
                raise ValueError("answered with features that are not items")
            pages.append(page)
            if len(pages) == MAX_PAGES and any(link.get("rel") == "next" for link in page.get("links", [])):
                # What was not seen might be better, so nothing is taken.
                raise _RefusedError(
                    f"{self.url}: search {request.id} goes on after {MAX_PAGES} pages of {PAGE_SIZE} items; "
                    "the API ignores part of the search, or repeats itself"
                )
        got, matched = sum(len(page["features"]) for page in pages), max(map(_matched, pages), default=0)
        if got < matched:
            raise _RefusedError(
                f"{self.url}: search {request.id} ends after {got} of {matched} items, without a link to the next page"
            )
        return pages

    def _fields(self, client: Client, platform: AnyPlatform) -> dict[str, list[str]] | None:
        # Names with a dot, as old items have them, cannot be said in a field path.
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
                    # `open` sets the time-out anew, so the one given to `_SearchIO` would be lost.
                    client = Client.open(self.url, stac_io=_SearchIO(max_retries=retries), timeout=self.timeout)
                except (*UNUSABLE, ClientTypeError) as error:
                    raise _kind(error)(
                        f"{self.url}: did not answer as a STAC API ({_brief(error)}). "
                        "Check the address in the CLAY_STAC_… setting, and the network."
                    ) from error
                if not client.conforms_to(ConformanceClasses.ITEM_SEARCH):
                    raise InputError(
                        f"{self.url}: is a STAC catalogue without item search. "
                        "Give the root of a STAC API in the CLAY_STAC_… setting, or a snapshot."
                    )
                return client
        raise AssertionError("tenacity either returns or raises")

    def _retrying(self) -> Retrying:
        # Above urllib3's retries, which see statuses and connections: for answers that break off or are not JSON.
        return retrying(WORK_ATTEMPTS, back_off=self.back_off, on=_BrokenAnswerError)

    def _failed(self, request: Request, error: Exception) -> str:
        return f"{self.url}: search {request.id} failed ({_brief(error)})"


def _where_servers_see_it(place: BaseGeometry) -> BaseGeometry | None:
    """Where else than at a place servers may find footprints that cover it; None where there is no such place.

    A server may read the longitudes of a footprint on a plane: one across the antimeridian then circles the world and
    meets the meridian of 0°, or leaves the world and meets that of 180°.
    """
    west, south, east, north = place.bounds
    poleward = max(abs(south), abs(north))
    reach = REACH / max(math.cos(math.radians(min(poleward, MOST_POLEWARD))), REACH / HALF_TURN)
    if west > -HALF_TURN + reach and east < HALF_TURN - reach:
        return None
    south, north = max(south - MARGIN, -POLE), min(north + MARGIN, POLE)
    # Points, since databases may refuse to compare a footprint that is not valid with anything else.
    latitudes = np.linspace(south, north, math.ceil((north - south) / STEP) + 1)
    return shapely.MultiPoint([(lon, lat) for lon in (-HALF_TURN, 0, HALF_TURN) for lat in latitudes])


def _touches(place: BaseGeometry, candidate: Item | str) -> bool:
    if isinstance(candidate, str) or candidate["geometry"] is None:
        return False
    return bool(shapely.intersects(shapely.geometry.shape(candidate["geometry"]), place))


def _at(place: BaseGeometry, candidate: Item | str) -> Item | str:
    """A candidate, or why it is none: servers err where footprints cross the antimeridian, or do not look at places."""
    if isinstance(candidate, str) or candidate["geometry"] is None or _touches(place, candidate):
        return candidate
    return OUTSIDE


def _matched(page: Mapping[str, Any]) -> int:
    """How many items a page says that the search has, 0 if it does not say."""
    context = page.get("context")
    told = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return told if isinstance(told, int) else 0


class _SearchIO(StacApiIO):
    """Takes an answer without features for what it is; pystac-client takes it for the end of the search."""

    def read_json(self, source: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        document = super().read_json(source, *args, **kwargs)
        if "parameters" in kwargs and not (isinstance(document, dict) and isinstance(document.get("features"), list)):
            raise ValueError(f"answered without features: {str(document)[:100]}")
        return document


class _RefusedError(SourceError):
    """The server refused, or was silent, through all the retries that urllib3 makes; more would not help now."""


class _BrokenAnswerError(SourceError):
    """The answer broke off, or was not what was asked for; another attempt may help."""


def _kind(error: Exception) -> type[SourceError]:
    # pystac-client tells the cause of an APIError by the exception that it was raised in.
    tried = isinstance(error, APIError) and not isinstance(error.__context__, BROKEN_OFF)
    return _RefusedError if tried else _BrokenAnswerError


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
