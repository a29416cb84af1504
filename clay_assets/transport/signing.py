"""Signatures of the Planetary Computer's files, requested when a file is read, since they expire within the hour.

Two optional environment variables, which its own SDK reads too: `PC_SDK_SUBSCRIPTION_KEY` raises the service's rate
limits, and `PC_SDK_SAS_URL` names another token service.

https://planetarycomputer.microsoft.com/docs/concepts/sas/
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from clay_assets.errors import ClayError, InputError, SourceError
from clay_assets.transport.access import Access, Secret
from clay_assets.transport.retries import retrying

logger = logging.getLogger(__name__)

BLOB_HOST = ".blob.core.windows.net"
TOKEN_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
SERVICE_VARIABLE, KEY_VARIABLE = "PC_SDK_SAS_URL", "PC_SDK_SUBSCRIPTION_KEY"
KEY_HEADER = "Ocp-Apim-Subscription-Key"
SPARE = timedelta(minutes=2)  # a token that expires sooner is renewed: reading a large file takes a while
PATIENCE = 60.0  # seconds to wait for a token, retries included


@dataclass(frozen=True)
class _Token:
    query: Secret
    expiry: datetime


class BlobSigner:
    """Signs hrefs of Azure blob storage with tokens of the Planetary Computer, each kept until it expires.

    Threads that need the same token wait for one request, and share its answer, also if it fails.

    Args:
        patience: seconds to wait for a token.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._tokens: dict[str, _Token] = {}
        self._failures: dict[str, tuple[float, str]] = {}  # account/container → time and reason of the last failure
        self._requesting = threading.Lock()

    def __reduce__(self) -> tuple[Callable[[float], BlobSigner], tuple[float]]:
        # In other processes too, all jobs share one signer and its tokens.
        return shared_signer, (self.patience,)

    def sign(self, href: str) -> str:
        """The href with a read-only signature; hrefs of other hosts, and signed ones, unchanged.

        Raises:
            SourceError: no token from the service.
        """
        parts = urlsplit(href)
        if not parts.netloc.endswith(BLOB_HOST) or "sig=" in parts.query:
            return href
        place, began = _place(href), time.monotonic()
        with self._requesting:
            token = self._tokens.get(place)
            if token is None or token.expiry - datetime.now(UTC) < SPARE:
                failed_at, reason = self._failures.get(place, (0.0, ""))
                if failed_at > began:  # while this thread waited for the lock
                    raise _no_signature(href, reason)
                try:
                    token = self._tokens[place] = _within(self.patience, lambda: _requested(place))
                except (ClayError, OSError, ValueError) as error:
                    reason = str(error).partition(". ")[0]  # the remedy is added with the file's name
                    self._failures[place] = time.monotonic(), reason
                    self._tokens.pop(place, None)
                    raise _no_signature(href, reason) from None
        return f"{href}?{token.query}"

    def forget(self, address: str) -> None:
        """Drop the token of a signed address, unless it was already renewed."""
        place = _place(address)
        with self._requesting:
            token = self._tokens.get(place)
            if token is not None and token.query == urlsplit(address).query:
                del self._tokens[place]
                logger.info("the signature of %s was refused; the next read requests a new one", place)


def shared_signer(patience: float = PATIENCE) -> BlobSigner:
    """The signer of this process: threads share it, and a token is valid for all files of a container."""
    return _signer(patience)


@cache  # not on the function above, which would cache a default and the same explicit value separately
def _signer(patience: float) -> BlobSigner:
    return BlobSigner(patience)


def _requested(place: str) -> _Token:
    key = os.environ.get(KEY_VARIABLE)
    service = os.environ.get(SERVICE_VARIABLE) or TOKEN_SERVICE
    document = retrying()(_answer, f"{service.rstrip('/')}/{place}", {KEY_HEADER: Secret(key)} if key else {})
    try:
        expiry = datetime.fromisoformat(document["msft:expiry"])
        return _Token(Secret(document["token"]), expiry if expiry.tzinfo else expiry.replace(tzinfo=UTC))
    except (LookupError, TypeError, ValueError) as error:  # the text of the error may show the token
        raise ValueError(f"unexpected answer from the token service ({type(error).__name__})") from None


def _answer(url: str, headers: dict[str, str]) -> Any:
    from clay_assets.transport.http import exchange  # here, so that definitions load without an HTTP library

    with exchange("GET", url, Access(), headers=headers) as answer:
        try:
            return answer.json()
        except ValueError:
            raise InputError("unexpected answer from the token service (not JSON).") from None


def _place(href: str) -> str:
    """Account and container of an href, as at the end of token addresses."""
    parts = urlsplit(href)
    return f"{parts.netloc.removesuffix(BLOB_HOST)}/{parts.path.lstrip('/').partition('/')[0]}"


def _no_signature(href: str, reason: str) -> SourceError:
    return SourceError(
        f"{href}: no signature from the Planetary Computer ({reason}). Run again; if it persists, check its "
        f"status page, and {KEY_VARIABLE} if it is set."
    )


def _within(seconds: float, request: Callable[[], _Token]) -> _Token:
    """The answer, or TimeoutError: time-outs of exchanges bound neither their retries nor an endless body."""
    done: list[_Token | Exception] = []

    def run() -> None:
        try:
            done.append(request())
        except Exception as error:  # handed over to the caller
            done.append(error)

    thread = threading.Thread(target=run, name="clay-sign", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(done[0], Exception):
        raise done[0]
    return done[0]
