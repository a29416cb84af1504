"""HTTPS with a self-signed certificate that clients must trust: a small server, and TLS in front of another one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from clay_assets_tests.servers.daemon import Daemon, free_port


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, owner: TlsServer, **kwargs: Any) -> None:
        self.owner = owner
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.owner.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        target = self.owner.redirects.get(self.path)
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        body = b"" if target else b"content"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class TlsServer:
    """Listens on 127.0.0.1 in threads; a context manager.

    Args:
        certificate: PEM file written by `make_certificate`.

    Attributes:
        redirects: path → redirect target; other paths are answered with `content`.
        seen: path, and headers by lower-case name, of all requests so far.
    """

    def __init__(self, certificate: Path) -> None:
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, owner=self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.02), daemon=True)
        self._thread.start()
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def make_certificate(folder: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1, valid for a day, to one PEM file."""
    path = folder / "certificate.pem"
    options = ["-nodes", "-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *options, "-keyout", str(path), "-out", f"{path}.x509"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    path.write_text(path.read_text() + Path(f"{path}.x509").read_text())
    return path


@contextlib.contextmanager
def tls_in_front_of(url: str, certificate: Path, log: Path) -> Iterator[str]:
    """An `https://` address in front of a server; in a separate process, as required by rasterio (see `process`).

    Args:
        url: `http://127.0.0.1:port` of the server.
        certificate: PEM file written by `make_certificate`.
        log: file for the output of the process.
    """
    port, target = free_port(), urlsplit(url).port
    code = Path(__file__).parents[2]
    daemon = Daemon(
        "TLS",
        [sys.executable, "-m", __name__, str(certificate), str(port), str(target)],
        log,
        env={"PYTHONPATH": str(code)},
    )

    def listens() -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    try:
        daemon.wait_until(listens, 30)
        yield f"https://127.0.0.1:{port}"
    finally:
        daemon.stop()


def _forward(certificate: str, port: int, target: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(accepted: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),  # a client that does not trust the certificate disconnects
            context.wrap_socket(accepted, server_side=True) as client,
            socket.create_connection(("127.0.0.1", target)) as server,
        ):
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    with socket.create_server(("127.0.0.1", port)) as listening:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    _forward(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
