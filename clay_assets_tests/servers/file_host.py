"""A file server with ETags that counts requests and whose responses tests can change."""

from __future__ import annotations

import re
import threading
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from clay_assets_tests.servers.files import RangeHandler


class _Handler(RangeHandler):
    owner: Host

    def send_head(self) -> Any:
        self.owner.seen.append((self.command, self.headers.get("Range", ""), self.headers.get("X-Key")))
        if self.owner.whole:
            del self.headers["Range"]
        if self.owner.page:
            body = b"<!DOCTYPE html><html><form>Please log in</form></html>"
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None
        return super().send_head()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Content-Range" and self.owner.shift:
            start, stop, size = map(int, re.findall(r"\d+", value))
            value = f"bytes {start + self.owner.shift}-{stop + self.owner.shift}/{size}"
        if keyword != "Last-Modified" or self.owner.modified:
            super().send_header(keyword, value)

    def end_headers(self) -> None:
        if self.owner.etag:
            super().send_header("ETag", self.owner.etag)
        super().end_headers()


class Host:
    """A file server with ETags whose responses tests can change."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[tuple[str, str, str | None]] = []
        self.etag: str | None = '"first"'
        self.modified = self.whole = self.page = False
        self.shift = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, owner=self, directory=str(folder)))
        self._server.daemon_threads = True
        threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.02), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
