"""One S3 server for all workers of a test run: three of them took a twentieth of its time, most of it idle.

The first worker that needs it starts a keeper, which no worker is the parent of. The keeper ends the server when the
last worker has let go of it, also by being killed, since the lock that each holds is given up by the system.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from clay_assets_tests.servers.daemon import ServerStartError, ServerUnavailableError
from clay_assets_tests.servers.s3 import S3Programs, S3Server, missing

STARTING = 500  # seconds
ADDRESS, USERS, STARTER, LOG = "address.json", "users.lock", "starter.lock", "keeper.log"


@contextmanager
def shared_s3(folder: Path) -> Iterator[S3Server]:
    """The server of all that give the same folder; tests of several workers write to it at the same time.

    Raises:
        ServerUnavailableError: its software is not on this machine.
        ServerStartError: it did not start.
    """
    if reason := missing():
        raise ServerUnavailableError(reason)
    folder.mkdir(exist_ok=True)
    with (folder / USERS).open("w") as users, (folder / STARTER).open("w") as starter:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starter, fcntl.LOCK_EX)
        if not (folder / ADDRESS).exists():
            _start_keeper(folder)
        fcntl.flock(starter, fcntl.LOCK_UN)
        yield S3Server(**json.loads((folder / ADDRESS).read_text(encoding="utf-8")))


def _start_keeper(folder: Path) -> None:
    with (folder / LOG).open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    end = time.monotonic() + STARTING
    while not (folder / ADDRESS).exists():
        if keeper.poll() is not None or time.monotonic() > end:
            keeper.kill()
            raise ServerStartError(f"no S3 server:\n{(folder / LOG).read_text(errors='replace')}")
        time.sleep(0.05)


def _keep(folder: Path) -> None:
    programs = S3Programs()
    try:
        new = folder / f"{ADDRESS}.new"
        new.write_text(json.dumps(asdict(programs.server)), encoding="utf-8")
        new.replace(folder / ADDRESS)
        with (folder / USERS).open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)  # once nobody uses it
            (folder / ADDRESS).unlink(missing_ok=True)  # who comes now starts another
    finally:
        programs.stop()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
