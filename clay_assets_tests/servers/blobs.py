"""Signed files as in the Planetary Computer: a service that issues signatures, and blob storage that requires them.

Blob storage is addressed by its real host names, which cannot be resolved offline: clients use this server as their
HTTP proxy (`http_proxy`), and hrefs are `http://{account}.blob.core.windows.net/{container}/...`.

The service: https://planetarycomputer.microsoft.com/docs/concepts/sas/
Signatures: https://learn.microsoft.com/rest/api/storageservices/create-service-sas
"""

from __future__ import annotations

import io
import json
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from clay_assets_tests.servers.files import RangeHandler

HOST = ".blob.core.windows.net"
KEY_HEADER = "Ocp-Apim-Subscription-Key"
TOKENS = "/api/sas/v1/token/"
LIFETIME = timedelta(minutes=45)
PATIENCE = 30.0  # seconds that a rejected request waits for others


@dataclass(frozen=True)
class Asked:
    """One request for a token: account and container, and the subscription key sent with it."""

    place: str
    key: str | None


@dataclass(frozen=True)
class Served:
    """One request for a blob.

    Attributes:
        path: `account/container/...`, without the query.
        status: status of the response.
        size: bytes of its body.
    """

    method: str
    path: str
    status: int
    size: int


class _Handler(RangeHandler):
    owner: BlobService

    def send_head(self) -> BinaryIO | io.BytesIO | None:
        if self.path.startswith(TOKENS):
            return self._token(self.path.removeprefix(TOKENS))
        parts = urlsplit(self.path)  # of a proxied request: the full address
        account = (parts.hostname or "").removesuffix(HOST)
        container = parts.path.lstrip("/").partition("/")[0]
        if not self.owner.admits(f"{account}/{container}", parse_qs(parts.query)):
            self.owner.wait_for_others()
            self.owner.note(Served(self.command, account + parts.path, HTTPStatus.FORBIDDEN, 0))
            return self._answer(HTTPStatus.FORBIDDEN, b"<Error><Code>AuthenticationFailed</Code></Error>", "xml")
        self.path = f"/{account}{parts.path}"
        body = super().send_head()
        size = int(self.sent.get("Content-Length", 0)) if self.command == "GET" else 0
        self.owner.note(Served(self.command, self.path.lstrip("/"), self.status, size))
        return body

    def _token(self, place: str) -> io.BytesIO:
        key = self.headers.get(KEY_HEADER)
        return self._answer(HTTPStatus.OK, json.dumps(self.owner.new_token(place, key)).encode(), "json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> io.BytesIO:
        self.send_response(status)
        self.send_header("Content-Type", f"application/{kind}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)


class BlobService:
    """Serves a folder as signed blobs; a context manager. In tests use the fixture `blobs` (see `process`).

    Args:
        folder: folder that contains `account/container/...`.
    """

    def __init__(self, folder: Path) -> None:
        """Start serving, in threads."""
        self._lock = threading.Lock()
        self._valid: dict[str, tuple[str, datetime]] = {}
        self._handed_out: list[str] = []
        self._asked: list[Asked] = []
        self._served: list[Served] = []
        self._forbidden = False
        self._lifetime = LIFETIME
        self._until_revoked: int | None = None
        self._refused = threading.Condition(self._lock)
        self._together = self._waiting = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, owner=self, directory=str(folder)))
        self._server.daemon_threads = True
        serve = partial(self._server.serve_forever, poll_interval=0.02)  # seconds until it notices `stop`
        self._thread = threading.Thread(target=serve, name="blobs", daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    # --- the service ----------------------------------------------------------------------------------

    def new_token(self, place: str, key: str | None) -> dict[str, str]:
        """The response to a request for a token of `account/container`."""
        signature = secrets.token_urlsafe(32) + "+/="  # must be escaped in an address, as in real ones
        with self._lock:
            expiry = datetime.now(UTC) + self._lifetime
            self._valid[signature] = (place, expiry)
            self._handed_out.append(signature)
            self._asked.append(Asked(place, key))
        until = expiry.strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {"st": "2020-01-01T00:00:00Z", "se": until, "sp": "rl", "sv": "2021-06-08", "sr": "c"}
        return {"msft:expiry": until, "token": urlencode({**fields, "sig": signature})}

    def admits(self, place: str, query: dict[str, list[str]]) -> bool:
        """Whether a request's signature is currently valid for `account/container`."""
        with self._lock:
            held, expiry = self._valid.get(query.get("sig", [""])[0], ("", datetime.min.replace(tzinfo=UTC)))
            good = held == place and datetime.now(UTC) < expiry and not self._forbidden
            if good and self._until_revoked is not None:
                if not self._until_revoked:
                    self._valid.clear()
                    self._until_revoked = None
                    return False
                self._until_revoked -= 1
            return good

    def wait_for_others(self) -> None:
        """Wait until the number of rejected requests set by `refuse_together` is reached."""
        with self._refused:
            self._waiting += 1
            self._refused.notify_all()
            self._refused.wait_for(lambda: self._waiting >= self._together, PATIENCE)

    def note(self, served: Served) -> None:
        """Record a request for a blob."""
        with self._lock:
            self._served.append(served)

    # --- what tests can change -----------------------------------------------------------------------

    def revoke(self, after: int = 0) -> None:
        """Revoke all signatures after the given number of further blobs."""
        with self._lock:
            self._until_revoked = after or None
            if not after:
                self._valid.clear()

    def refuse_together(self, count: int) -> None:
        """Delay the first rejections until the given number of requests is waiting."""
        with self._lock:
            self._together, self._waiting = count, 0

    def forbid(self) -> None:
        """Reject every signature from now on, including new ones."""
        with self._lock:
            self._forbidden = True

    def hand_out_for(self, seconds: float) -> None:
        """Set the validity of new signatures."""
        with self._lock:
            self._lifetime = timedelta(seconds=seconds)

    # --- recorded requests --------------------------------------------------------------------------------

    @property
    def asked(self) -> list[Asked]:
        """Requests for a token so far."""
        with self._lock:
            return list(self._asked)

    @property
    def served(self) -> list[Served]:
        """Requests for blobs so far."""
        with self._lock:
            return list(self._served)

    @property
    def signatures(self) -> list[str]:
        """Text that no file or message may contain: the part of each issued signature unaffected by escaping."""
        with self._lock:
            return [signature.rstrip("+/=") for signature in self._handed_out]

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        """Return the running service."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop it."""
        self.stop()
