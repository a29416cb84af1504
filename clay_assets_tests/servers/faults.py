"""A proxy in front of any HTTP server that answers wrongly, late or not at all, as planned, and counts requests.

It forwards the client's Host header, so that S3 signatures stay valid and a STAC API's paging links point to the proxy.
Each request gets its own connection. Expected reactions of clients belong in the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

STALL_FOREVER = 3600.0
UPSTREAM_SECONDS = 60.0
HEAD_LIMIT = 1 << 20
BLOCK = 1 << 16


@dataclass
class Fault:
    """One planned fault; created by `FaultProxy`'s methods.

    Attributes:
        kind: answer, reset, stall, truncate or delay.
        times: number of further requests that get it; None: all.
        path: regular expression searched in the request's path and query.
        method: HTTP method that it is limited to, or None.
    """

    kind: str
    times: int | None
    path: str
    method: str | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0
    keep: int = 0
    signed_for: str = ""  # requests whose signature contains this scope are not affected


@dataclass(frozen=True)
class Seen:
    """One request that reached the proxy.

    Attributes:
        path: path and query.
        headers: headers by lower-case name.
        at: `time.monotonic()` when its head arrived.
        fault: kind of the fault it got, or None.
    """

    method: str
    path: str
    headers: dict[str, str]
    at: float
    fault: str | None


class FaultProxy:
    """A running proxy; a context manager. In tests use the fixture `fault_proxy` (see `process`).

    Faults are applied in the order in which they were planned: the first one with times left whose path and method
    match. Other requests are forwarded.

    Args:
        target_url: `http://host:port` of the server behind it.
    """

    def __init__(self, target_url: str) -> None:
        """Listen on a free port of 127.0.0.1, in a thread."""
        target = urlsplit(target_url)
        if target.hostname is None or target.port is None:
            raise ValueError(f"target needs host and port: {target_url!r}")
        self._target = (target.hostname, target.port)
        self._lock = threading.Lock()
        self._plan: list[Fault] = []
        self._seen: list[Seen] = []
        self._in_flight = self._max_in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_LIMIT))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _add(self, fault: Fault) -> None:
        with self._lock:
            self._plan.append(fault)

    # --- the plan ---------------------------------------------------------------------------------

    def answer(
        self,
        status: int,
        *,
        times: int | None = 1,
        retry_after: float | str | None = None,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        path: str = "",
        method: str | None = None,
    ) -> None:
        """Answer with this status instead of the server; `retry_after` in seconds or as an HTTP date."""
        extra = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._add(Fault("answer", times, path, method, status, {**extra, **(headers or {})}, body))

    def region(self, name: str) -> None:
        """Answer like S3 for a bucket in another region, unless a request is signed for that region."""
        body = f"<Error><Code>PermanentRedirect</Code><Region>{name}</Region></Error>".encode()
        headers = {"x-amz-bucket-region": name, "Content-Type": "application/xml"}
        self._add(Fault("answer", None, "", None, 301, headers, body, signed_for=f"/{name}/s3/"))

    def garbage(self, *, times: int | None = 1, path: str = "", method: str | None = None) -> None:
        """Answer 200 with HTML that claims to be JSON."""
        body, kind = b"<html><body>It works!</body></html>", {"Content-Type": "application/json"}
        self._add(Fault("answer", times, path, method, 200, kind, body))

    def empty(self, *, times: int | None = 1, path: str = "", method: str | None = None) -> None:
        """Answer 200 without a body."""
        self.answer(200, times=times, path=path, method=method)

    def reset(self, *, times: int | None = 1, path: str = "", method: str | None = None) -> None:
        """Reset the connection (RST) after the request has arrived."""
        self._add(Fault("reset", times, path, method))

    def stall(
        self,
        seconds: float = STALL_FOREVER,
        *,
        times: int | None = 1,
        path: str = "",
        method: str | None = None,
    ) -> None:
        """Send nothing for this time, then close without a response."""
        self._add(Fault("stall", times, path, method, seconds=seconds))

    def delay(self, seconds: float, *, times: int | None = None, path: str = "", method: str | None = None) -> None:
        """Wait for this time, then forward the request; by default for all requests."""
        self._add(Fault("delay", times, path, method, seconds=seconds))

    def truncate(self, keep: int = 100, *, times: int | None = 1, path: str = "", method: str | None = None) -> None:
        """Forward the response's head and `keep` bytes of its body, then close."""
        self._add(Fault("truncate", times, path, method, keep=keep))

    def clear(self) -> None:
        """Forget plan and counts."""
        with self._lock:
            self._plan.clear()
            self._seen.clear()
            self._max_in_flight = self._in_flight

    # --- recorded requests ----------------------------------------------------------------------------

    @property
    def seen(self) -> list[Seen]:
        """Requests so far, in order of arrival."""
        with self._lock:
            return list(self._seen)

    @property
    def total(self) -> int:
        """Number of requests so far."""
        with self._lock:
            return len(self._seen)

    @property
    def max_in_flight(self) -> int:
        """Largest number of simultaneous requests."""
        with self._lock:
            return self._max_in_flight

    # --- one request ------------------------------------------------------------------------------

    def _meet(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        with self._lock:
            met = None
            for fault in self._plan:
                if fault.times == 0 or fault.method not in (None, method) or not re.search(fault.path, path):
                    continue
                if fault.signed_for and fault.signed_for in headers.get("authorization", path):
                    continue
                if fault.times is not None:
                    fault.times -= 1
                met = fault
                break
            self._seen.append(Seen(method, path, headers, time.monotonic(), met.kind if met else None))
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
            return met

    def _once_not_in_flight(self) -> Callable[[], None]:
        """A function that decrements the count once, however often it is called."""
        left = [1]

        def ended() -> None:
            with self._lock:
                self._in_flight -= left.pop() if left else 0

        return ended

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended: Callable[[], None] | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ", 2)
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            fault = self._meet(method, path, headers)
            ended = self._once_not_in_flight()
            if "100-continue" in headers.get("expect", ""):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _request_body(reader, headers)
            await self._answer(fault, head, body, reader, writer, ended)
        except (OSError, EOFError):
            pass  # either side disconnected, which is what this proxy is for
        finally:
            if ended:
                ended()
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(
        self,
        fault: Fault | None,
        head: list[str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ended: Callable[[], None],
    ) -> None:
        match fault:
            case Fault(kind="answer"):
                await _write_answer(fault, writer)
                return
            case Fault(kind="reset"):
                _reset(writer)
                return
            case Fault(kind="stall"):
                await _pause(reader, fault.seconds)
                return
            case Fault(kind="delay"):
                await _pause(reader, fault.seconds)
        # This hop only: no second request on this connection; the body was already acknowledged.
        kept = [line for line in head if line and not line.lower().startswith(("connection:", "expect:"))]
        up_reader, up_writer = await asyncio.open_connection(*self._target, limit=HEAD_LIMIT)
        try:
            up_writer.write("\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1") + body)
            await up_writer.drain()
            async with asyncio.timeout(UPSTREAM_SECONDS):
                held = await up_reader.readuntil(b"\r\n\r\n")
                left = fault.keep if fault is not None and fault.kind == "truncate" else None
                while left != 0 and (block := await up_reader.read(BLOCK if left is None else min(left, BLOCK))):
                    left = None if left is None else left - len(block)
                    writer.write(held)
                    await writer.drain()
                    held = block
            # After the last bytes the client may send its next request before the end of this one is registered here.
            ended()
            writer.write(held)
            await writer.drain()
        finally:
            up_writer.close()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if not self._thread.is_alive():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        waiting = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def __enter__(self) -> Self:
        """Return the running proxy."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


async def _request_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read a request's raw body, including chunk sizes."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    parts = []
    while True:
        size = await reader.readuntil(b"\r\n")
        parts += [size, await reader.readexactly(int(size.split(b";")[0], 16))]
        parts.append(await reader.readuntil(b"\r\n"))
        if int(size.split(b";")[0], 16) == 0:
            return b"".join(parts)


async def _pause(reader: asyncio.StreamReader, seconds: float) -> None:
    """Wait, or raise EOFError as soon as the client disconnects, so that it is not counted as in flight."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read(1)
        raise EOFError("the client closed the connection")


async def _write_answer(fault: Fault, writer: asyncio.StreamWriter) -> None:
    headers = {"Content-Length": str(len(fault.body)), "Connection": "close", **fault.headers}
    lines = [
        f"HTTP/1.1 {fault.status} Planned",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode("latin-1") + fault.body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
