"""The servers written in Python, `FaultProxy`, `FileServer` and `BlobService`, in a separate process.

rasterio holds the GIL in some calls in which GDAL sends requests, so a server in a thread of the same process would
deadlock with its client.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from multiprocessing.managers import BaseManager, BaseProxy
from pathlib import Path
from typing import Any, cast

from clay_assets_tests.servers.blobs import BlobService
from clay_assets_tests.servers.daemon import Daemon, WorkFolder, free_port
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

KEY = "CLAY_TESTS_SERVERS_KEY"
FAULT_METHODS = ("answer", "garbage", "empty", "reset", "stall", "delay", "truncate", "region", "clear", "stop")


class _Remote(BaseProxy):
    """Exposed methods and properties of an object in the other process."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._exposed_:
            return lambda *args, **kwargs: self._callmethod(name, args, kwargs)
        return self._callmethod("__getattribute__", (name,))


class _RemoteFaultProxy(_Remote):
    _exposed_ = (*FAULT_METHODS, "__getattribute__")


class _RemoteFileServer(_Remote):
    _exposed_ = ("stop", "__getattribute__")


class _RemoteBlobService(_Remote):
    _exposed_ = ("revoke", "forbid", "refuse_together", "hand_out_for", "stop", "__getattribute__")


class _Manager(BaseManager):
    pass


_Manager.register("fault_proxy", FaultProxy, proxytype=_RemoteFaultProxy)
_Manager.register("file_server", FileServer, proxytype=_RemoteFileServer)
_Manager.register("blob_service", BlobService, proxytype=_RemoteBlobService)


class ServerProcess:
    """A running process in which proxies and file servers can be started; takes about 0.3 s."""

    def __init__(self) -> None:
        """Start the process."""
        self._folder = WorkFolder("clay-servers-")
        self._daemon: Daemon | None = None
        key, port = secrets.token_hex(16), free_port()
        self._manager = _Manager(("127.0.0.1", port), authkey=key.encode())
        try:
            self._daemon = Daemon(
                "Python servers",
                [sys.executable, "-m", __name__, str(port)],
                self._folder.path / "servers.log",
                env={**os.environ, KEY: key, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            self._daemon.wait_until(self._answers, 30)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        self._manager.connect()
        return True

    def fault_proxy(self, target_url: str) -> FaultProxy:
        """Start a `FaultProxy` there; returns an object with its methods and properties."""
        start = cast("Callable[[str], FaultProxy]", self._manager.fault_proxy)  # type: ignore[attr-defined]
        return start(target_url)

    def file_server(self, folder: Path) -> FileServer:
        """Start a `FileServer` there; returns an object with its methods and properties."""
        start = cast("Callable[[Path], FileServer]", self._manager.file_server)  # type: ignore[attr-defined]
        return start(folder.resolve())

    def blob_service(self, folder: Path) -> BlobService:
        """Start a `BlobService` there; returns an object with its methods and properties."""
        start = cast("Callable[[Path], BlobService]", self._manager.blob_service)  # type: ignore[attr-defined]
        return start(folder.resolve())

    def stop(self) -> None:
        """Stop the process with all of its servers."""
        if self._daemon is not None:
            self._daemon.stop()
        self._folder.remove()


if __name__ == "__main__":
    _Manager(("127.0.0.1", int(sys.argv[1])), authkey=os.environ[KEY].encode()).get_server().serve_forever()
