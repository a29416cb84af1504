"""A local STAC API with latency and a rate limit; run as a separate process.

    python benchmarks/stac_server.py --latency 0.2 --limit 40 [--items 30]

Prints its address. Every tile has `--items` Sentinel-2 items in each quarter of 2020. Requests beyond the limit per
second are refused with 429 and `Retry-After: 1`. `GET /counts` returns the numbers of accepted and refused searches,
and the seconds from the first accepted to the last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

ASSETS = ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22", "scl"]
CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
    "https://api.stacspec.org/v1.0.0/item-search#query",
]


class Server:
    """The API; see the module docstring."""

    def __init__(self, latency: float, limit: int, items: int, matched: bool) -> None:
        self.latency, self.limit, self.items, self.matched = latency, limit, items, matched
        self.recent: deque[float] = deque()
        self.accepted, self.refused = 0, 0
        self.first = self.last = 0.0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                length = next(
                    (int(line.split(":")[1]) for line in head if line.lower().startswith("content-length")), 0
                )
                body = await reader.readexactly(length)
                status, extra, document = await self.answer(method, path, body)
                content = json.dumps(document).encode()
                lines = [f"HTTP/1.1 {status} x", "Content-Type: application/json", f"Content-Length: {len(content)}"]
                writer.write("\r\n".join([*lines, *extra, "", ""]).encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, list[str], Any]:
        """Returns status, extra headers, document."""
        if path == "/counts":
            return 200, [], [self.accepted, self.refused, self.last - self.first]
        if not path.startswith("/search"):
            return 200, [], self.root()
        now = time.monotonic()
        while self.recent and self.recent[0] <= now - 1:
            self.recent.popleft()
        if len(self.recent) >= self.limit:
            self.refused += 1
            return 429, ["Retry-After: 1"], {"code": "TooManyRequests"}
        self.recent.append(now)
        self.accepted += 1
        self.first, self.last = self.first or now, now
        found = self.found(json.loads(body))
        await asyncio.sleep(now + self.latency - time.monotonic())  # latency of the entire request
        return 200, [], found

    def root(self) -> dict[str, Any]:
        """The landing page."""
        links = [
            {"rel": "self", "href": self.url, "type": "application/json"},
            {"rel": "root", "href": self.url, "type": "application/json"},
            {"rel": "search", "href": f"{self.url}/search", "method": "POST", "type": "application/geo+json"},
        ]
        head = {"type": "Catalog", "stac_version": "1.0.0", "id": "slow", "description": "slow"}
        return {**head, "conformsTo": CONFORMS, "links": links}

    def found(self, search: dict[str, Any]) -> dict[str, Any]:
        """A page of a tile's items between two times."""
        start, end = (datetime.fromisoformat(text) for text in search["datetime"].split("/"))
        code = search.get("query", {}).get("grid:code", {}).get("eq", "MGRS-")
        step = timedelta(days=91) / self.items
        first = datetime(2020, 1, 1, tzinfo=UTC)
        moments = [first + n * step for n in range(4 * self.items)]
        items = [item(code, moment, search["intersects"]) for moment in moments if start <= moment <= end]
        offset, size = int(search.get("token", 0)), search["limit"]
        body = {**search, "token": str(offset + size)}
        more = [{"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": body}]
        page = {"type": "FeatureCollection", "features": items[offset : offset + size]}
        matched = {"numberMatched": len(items)} if self.matched else {}
        return {**page, **matched, "links": more if offset + size < len(items) else []}


def item(code: str, moment: datetime, geometry: dict[str, Any]) -> dict[str, Any]:
    """A Sentinel-2 item of a tile."""
    name = f"S2A_{code.removeprefix('MGRS-')}_{moment:%Y%m%dT%H%M}_0_L2A"
    cloud = hash((code, moment)) % 1000 / 10
    properties = {"datetime": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "eo:cloud_cover": cloud, "grid:code": code}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": geometry,
        "properties": {**properties, "s2:nodata_pixel_percentage": 0.0},
        "links": [],
        "assets": {asset: {"href": f"https://example.com/{name}/{asset}.tif"} for asset in ASSETS},
    }


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--limit", type=int, default=40, help="requests a second")
    parser.add_argument("--items", type=int, default=30, help="of a tile in a quarter")
    parser.add_argument("--no-count", action="store_true", help="leave numberMatched out")
    given = parser.parse_args()
    server = Server(given.latency, given.limit, given.items, not given.no_count)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    print(server.url, flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
