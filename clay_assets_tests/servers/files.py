"""A static HTTP file server with byte ranges, which the standard library's lacks, for hrefs and downloads.

Follows RFC 9110, section 14, with one range per request, as used by GDAL and downloaders.
"""

from __future__ import annotations

import io
import re
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files of a folder, whole or in part.

    Attributes:
        owner: the server that it belongs to.
        status, sent: status and headers of the response, once its head is written.
    """

    protocol_version = "HTTP/1.1"
    status = 0

    def __init__(self, *args: Any, owner: Any, **kwargs: Any) -> None:
        self.owner = owner
        self.sent: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def send_head(self) -> BinaryIO | io.BytesIO | None:
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file() or not any(wanted.groups()):
            return super().send_head()
        size = path.stat().st_size
        first, last = wanted.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            return io.BytesIO(file.read(stop - start))

    def send_response(self, code: int, message: str | None = None) -> None:
        self.status, self.sent = code, {}
        super().send_response(code, message)

    def send_header(self, keyword: str, value: str) -> None:
        self.sent[keyword] = value
        super().send_header(keyword, value)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Handler(RangeHandler):
    def send_head(self) -> BinaryIO | io.BytesIO | None:
        self.owner.count(f"{self.command} {self.path}")
        return super().send_head()


class FileServer:
    """Serves a folder on 127.0.0.1; a context manager. In tests use the fixture `file_server`.

    Args:
        folder: its root.
    """

    def __init__(self, folder: Path) -> None:
        """Start serving, in threads."""
        self._lock = threading.Lock()
        self._requests: list[str] = []
        handler = partial(_Handler, owner=self, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        serve = partial(self._server.serve_forever, poll_interval=0.02)  # seconds until it notices `stop`
        self._thread = threading.Thread(target=serve, name="file-server", daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def count(self, request: str) -> None:
        """Record a request."""
        with self._lock:
            self._requests.append(request)

    @property
    def requests(self) -> list[str]:
        """Requests so far, as "GET /path"."""
        with self._lock:
            return list(self._requests)

    @property
    def total(self) -> int:
        """Number of requests so far."""
        return len(self.requests)

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()
