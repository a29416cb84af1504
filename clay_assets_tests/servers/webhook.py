"""A web server that takes what is posted to it, or answers as it is told."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: Any, owner: Webhook, **kwargs: Any) -> None:
        self.owner = owner
        super().__init__(*args, **kwargs)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.owner.seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
        if self.owner.status is None:  # hang up without a word
            self.close_connection = True
            return
        self.send_response(self.owner.status)
        for name, value in self.owner.headers.items():
            self.send_header(name, value)
        answer = self.owner.answer.encode()
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


class Webhook:
    """Listens on 127.0.0.1 in threads; a context manager.

    Attributes:
        url: where to post; its path is a secret, as Slack's are.
        status, answer, headers: what is answered; with the status None, nothing is.
        seen: path, content type and JSON of what was posted so far.
    """

    SECRET = "T000-B000-hunter2"

    def __init__(self) -> None:
        self.status: int | None = 200
        self.answer = "ok"
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, owner=self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.02), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/{self.SECRET}"

    @property
    def texts(self) -> list[str]:
        return [body["text"] for _, _, body in self.seen]

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
