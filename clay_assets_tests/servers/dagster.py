"""Dagster as deployed: a code server, the webserver and the daemon, each in its own process.

Their shared instance is configured by `dagster.yaml` in their `DAGSTER_HOME`.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests

from clay_assets_tests.servers.daemon import Daemon, free_port

STARTING = 120  # seconds; each imports Dagster, possibly on a busy machine
T = TypeVar("T")


class DagsterServers:
    """Code server, webserver and daemon.

    Args:
        home: `DAGSTER_HOME` with its dagster.yaml; process logs are also written there.
        environment: additional variables.

    Attributes:
        url: address of the webserver.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._daemons: list[Daemon] = []
        self.environment = {**os.environ, **environment, "DAGSTER_HOME": str(home)}
        code, web = free_port(), free_port()
        self.url = f"http://127.0.0.1:{web}"
        self.location = ["--grpc-port", str(code)]
        programs = {
            "code": ["dagster", "api", "grpc", "-m", "clay_assets.definitions", "-h", "127.0.0.1", "-p", str(code)],
            "webserver": ["dagster-webserver", "-h", "127.0.0.1", "-p", str(web), *self.location],
            "daemon": ["dagster-daemon", "run", *self.location],
        }
        try:
            for name, (program, *arguments) in programs.items():
                command = [str(Path(sys.executable).with_name(program)), *arguments]
                daemon = Daemon(f"Dagster's {name}", command, home / f"{name}.log", env=self.environment)
                self._daemons.append(daemon)
                if name == "code":  # the others need it when they start
                    daemon.wait_until(lambda: _listens(code), STARTING)
            self._daemons[1].wait_until(self._loaded, STARTING)
        except BaseException:
            self.stop()
            raise

    def _loaded(self) -> bool:
        (location,) = self.graphql("{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }")[
            "workspaceOrError"
        ]["locationEntries"]
        return bool(location["loadStatus"] == "LOADED")

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a query's response; errors raise an AssertionError."""
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60)
        body = answer.json()
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float = 200, every: float = 0.5) -> T:
        """Wait for a result of `look`; if there is none, the error contains the processes' logs."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(every)
        raise AssertionError(f"no {what} in {seconds:.0f} s\n" + "\n".join(daemon.tail() for daemon in self._daemons))

    def stop(self) -> None:
        """Stop all three, the code server last."""
        for daemon in reversed(self._daemons):
            daemon.stop()


def _listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
