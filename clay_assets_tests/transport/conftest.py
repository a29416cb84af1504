"""Two web servers with the same raster: to a client they are two hosts, since their ports differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.rasters import raster
from clay_assets_tests.transport.readers import NAME, PIXELS

Serve = Callable[[Path], FileServer]
Proxy = Callable[[str], FaultProxy]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A folder with a raster, for servers."""
    folder = tmp_path / "web"
    (folder / "moved").mkdir(parents=True)
    for path in (folder / NAME, folder / "moved" / NAME):
        raster(path, PIXELS.astype(np.uint16))
    return folder


@pytest.fixture
def here(web: Path, file_server: Serve, fault_proxy: Proxy) -> FaultProxy:
    """The host that a secret is for."""
    return fault_proxy(file_server(web).url)


@pytest.fixture
def elsewhere(web: Path, file_server: Serve, fault_proxy: Proxy) -> FaultProxy:
    """Another host."""
    return fault_proxy(file_server(web).url)
