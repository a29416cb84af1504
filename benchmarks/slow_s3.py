"""An S3 server behind a proxy that adds latency, maps all scenes to one, and logs requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import ROOT

sys.path.insert(0, str(ROOT))  # for the servers of the tests

DELAY = 0.05  # seconds
BUCKET = "scenes"


async def proxy(target: str, log: Path) -> None:
    """Answer late, map all scenes to one, and log every request; one upstream connection for each client connection."""
    host, port = target.removeprefix("http://").split(":")
    with log.open("a", buffering=1) as lines:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
            with contextlib.suppress(OSError, EOFError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    method, path, _ = head.split(" ", 2)
                    await asyncio.sleep(DELAY)
                    up_writer.write(re.sub(r"scene-\d+/", "scene-00/", head, count=1).encode("latin-1"))
                    answer = await up_reader.readuntil(b"\r\n\r\n")
                    writer.write(answer)
                    size = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
                    left = 0 if method == "HEAD" or size is None else int(size[1])
                    asked = re.search(r"range: *(\S+)", head, re.IGNORECASE)
                    seen = {"method": method, "path": path, "range": asked and asked[1], "bytes": left}
                    lines.write(json.dumps(seen) + "\n")
                    while left:
                        data = await up_reader.read(min(left, 1 << 20))
                        writer.write(data)
                        await writer.drain()
                        left -= len(data)
            up_writer.close()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 22)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


@contextlib.contextmanager
def remote(files: Path, folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Serve files as those of the scene `scene-00` on an S3 server behind the proxy.

    Yields:
        The environment variables for access, which are set in this process meanwhile, and the proxy's log.
    """
    from clay_assets_tests.servers.s3 import S3Programs

    log, before = folder / "requests.jsonl", dict(os.environ)
    log.unlink(missing_ok=True)
    programs = S3Programs()
    server = programs.server
    try:
        server.new_bucket(BUCKET, public_read=True)
        for path in sorted(files.iterdir()):
            server.client().upload_file(str(path), BUCKET, f"scene-00/{path.name}")
        command = [sys.executable, __file__, server.endpoint_url, str(log)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                host = f"127.0.0.1:{int(process.stdout.readline())}"
                env = {
                    **{"AWS_ENDPOINT_URL": f"http://{host}", "AWS_REGION": "us-east-1"},
                    **{"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"},
                    **{"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
                    # As advised in GDAL's guide for cloud-optimised files.
                    **{"AWS_NO_SIGN_REQUEST": "YES", "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"},
                }
                os.environ.update(env)
                yield env, log
            finally:
                os.environ.clear()
                os.environ.update(before)
                process.terminate()
    finally:
        programs.stop()


if __name__ == "__main__":
    asyncio.run(proxy(sys.argv[1], Path(sys.argv[2])))
