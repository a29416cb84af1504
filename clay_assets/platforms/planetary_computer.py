"""What platforms of Microsoft's Planetary Computer share: files that are read with a signature, asked for when read.

Items keep unsigned hrefs, since a signature expires within the hour. `PC_SDK_SUBSCRIPTION_KEY`, the library's own
variable, is an optional key that raises the service's rate limits.

https://planetarycomputer.microsoft.com/docs/concepts/sas/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import ClassVar
from urllib.parse import urlsplit

from clay_assets.access import Access
from clay_assets.errors import SourceError

HOST = ".blob.core.windows.net"
PATIENCE = 60  # seconds to wait for a token; the library itself would wait for ever


class BlobSigner:
    """Signs hrefs of Azure blob storage with tokens that `planetary-computer` fetches and keeps until they expire.

    Args:
        patience: seconds to wait for a token.
    """

    _asking = threading.Lock()  # one question for all the threads that start at once, and one answer
    _failed: ClassVar[dict[str, tuple[float, str]]] = {}  # account/container → when no token came, and why

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience

    def sign(self, href: str) -> str:
        """The href with a read-only signature; those of other hosts as they are.

        Raises:
            SourceError: the service gives no token.
        """
        if not urlsplit(href).netloc.endswith(HOST):
            return href
        import planetary_computer  # an asset that reads nothing there need not load it

        place, began = _place(href), time.monotonic()
        with self._asking:
            when, reason = self._failed.get(place, (0.0, ""))
            if when > began:  # while this thread waited for its turn
                raise _no_signature(href, reason)
            try:
                return _within(self.patience, lambda: str(planetary_computer.sign_url(href)))
            except OSError as error:  # those of requests are
                reason = f"{type(error).__name__}: {error}"
            except (ValueError, LookupError, TypeError) as error:  # whose text may show the token
                reason = f"its answer is no token, {type(error).__name__}"
            self._failed[place] = time.monotonic(), reason
            _forget(place)
        raise _no_signature(href, reason)

    def forget(self, address: str) -> None:
        """Drop the token of a signed address, so that the next signature is a new one, if it is not one already."""
        with self._asking:
            _forget(_place(address), urlsplit(address).query)


def _place(href: str) -> str:
    """Account and container of an href, as the addresses of tokens end."""
    parts = urlsplit(href)
    return f"{parts.netloc.removesuffix(HOST)}/{parts.path.lstrip('/').partition('/')[0]}"


def _forget(place: str, token: str | None = None) -> None:
    from planetary_computer.sas import TOKEN_CACHE

    for address in [address for address in TOKEN_CACHE if address.endswith(f"/{place}")]:
        if token in (None, TOKEN_CACHE[address].token):
            del TOKEN_CACHE[address]


def _no_signature(href: str, reason: str) -> SourceError:
    return SourceError(
        f"{href}: the Planetary Computer gives no signature ({reason}). Run again; if it persists, see its status "
        "page, and PC_SDK_SUBSCRIPTION_KEY if you set one."
    )


def _within(seconds: float, ask: Callable[[], str]) -> str:
    answers: Queue[str | Exception] = Queue()

    def run() -> None:
        try:
            answers.put(ask())
        except Exception as error:  # handed over to the caller
            answers.put(error)

    asking = threading.Thread(target=run, name="clay-sign", daemon=True)
    asking.start()
    asking.join(seconds)
    if answers.empty():
        raise TimeoutError(f"no answer within {seconds:g} s")
    answer = answers.get()
    if isinstance(answer, Exception):
        raise answer
    return answer


SIGNER = BlobSigner()


def signed(account: str, signer: BlobSigner = SIGNER) -> Access:
    """How the files of one storage account are reached, such as `naipeuwest`."""
    return Access(signer=signer, places=(f"{account}{HOST}",))
