"""HTTP: a single session, consistent handling of statuses, and secrets that are only sent to their host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import requests

from clay_assets.errors import InputError, SourceError
from clay_assets.transport.access import Access, keep_signatures_out, safe_cause, without_signature
from clay_assets.transport.retries import STATUSES, TIMEOUT, BusyError, urllib3_retry

DENIED = {401, 403}
ABSENT = {404, 410}
POOL_SIZE = 64
# Headers that may be sent on to another host after a redirect; others may be secrets. `requests` has already updated
# the last two for that host.
HARMLESS = {
    *("accept", "accept-encoding", "connection", "content-length", "content-type", "range", "user-agent"),
    *("cookie", "proxy-authorization"),
}
# Errors of `requests` for unusable addresses, which no retry can fix.
WRONG = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.TooManyRedirects,
)

keep_signatures_out("urllib3.connectionpool")


class DeniedError(InputError):
    """A web server refused access."""


class AbsentError(InputError):
    """A web server does not have the file."""


class Session(requests.Session):
    """A session that sends no secret to the host of a redirect; `requests` itself drops only Authorization."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop possible secrets if a redirect leads to another host."""
        if not self.same_host(str(response.request.url), str(prepared_request.url)):
            for name in [name for name in prepared_request.headers if name.lower() not in HARMLESS]:
                del prepared_request.headers[name]
            super().rebuild_auth(prepared_request, response)  # type: ignore[no-untyped-call]

    def same_host(self, before: str, after: str) -> bool:
        """Whether two URLs have the same host, port and scheme, so that secrets may be sent to both."""
        return not self.should_strip_auth(before, after)  # type: ignore[no-untyped-call]


@cache  # kept per process, with its connections, for the thousands of small files of a catalogue; safe between threads
def session() -> Session:
    """The session of this process."""
    made = Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=POOL_SIZE)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made


os.register_at_fork(after_in_child=session.cache_clear)  # its connections belong to the parent


@contextmanager
def exchange(
    method: str, href: str, access: Access | None = None, *, stream: bool = False, headers: dict[str, str] | None = None
) -> Iterator[requests.Response]:
    """A successful HTTP exchange; a refused signature is renewed once.

    Args:
        method: `GET`, `HEAD`, …
        href: address as stored.
        access: how the href is accessed.
        stream: do not read the body.
        headers: additional headers.

    Raises:
        InputError: file not found or otherwise wrong; `DeniedError` if access is refused.
        BusyError, SourceError: the same exchange may succeed later.
    """
    access = access or Access()
    sent: dict[str, Any] = {**(headers or {}), **access.http_headers()}
    answer = _ask(method, access.address(href), stream, sent)
    if answer.status_code in DENIED and access.signer is not None:
        answer.close()
        access.signer.forget(str(answer.request.url))
        answer = _ask(method, access.address(href), stream, sent)
    with answer:
        check_answer(href, answer, access)
        try:
            yield answer
        except requests.RequestException as error:
            raise _unread(href, error) from safe_cause(error)


def _ask(method: str, url: str, stream: bool, headers: dict[str, Any]) -> requests.Response:
    # With `auth`, `requests` keeps Authorization; otherwise a login in ~/.netrc would replace it.
    given = any(name.lower() == "authorization" for name in headers)
    try:
        return session().request(
            method,
            url,
            timeout=TIMEOUT,
            stream=stream,
            headers=headers or None,
            auth=_as_given if given else None,
            allow_redirects=True,
        )
    except WRONG as error:
        raise InputError(f"{without_signature(f'{url}: not a usable address ({error})')}. Check it.") from safe_cause(
            error
        )
    except requests.RequestException as error:
        raise _unread(url, error) from safe_cause(error)


def _as_given(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _unread(url: str, error: Exception) -> SourceError:
    return SourceError(
        f"{without_signature(f'{url}: could not be read ({error})')}. Check the network, or run again later."
    )


def check_answer(href: str, answer: requests.Response, access: Access | None = None) -> None:
    """Raise the error for a response's status: BusyError if it is temporary, InputError if it is not."""
    href = without_signature(href)
    status = answer.status_code
    if status in STATUSES:
        wait = urllib3_retry().get_retry_after(answer.raw) or 0
        raise BusyError(f"{href}: the server answered {status}. Run again later.", wait)
    if status in DENIED:
        raise DeniedError(f"{href}: access refused ({status} {answer.reason}). {(access or Access()).remedy(href)}")
    if status in ABSENT:
        raise AbsentError(f"{href}: file not found ({status} {answer.reason}). Check the address.")
    if not answer.ok:
        raise InputError(f"{href}: the server answered {status} {answer.reason}. Check the address.")
