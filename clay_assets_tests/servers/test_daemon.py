"""Programs started by tests show their log when they fail, and do not outlive the test process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clay_assets_tests.servers.daemon import Daemon, ServerStartError, WorkFolder


@pytest.fixture
def folder() -> Iterator[WorkFolder]:
    made = WorkFolder("clay-test-")
    yield made
    made.remove()
    assert not made.path.exists()


@pytest.mark.slow
def test_a_program_that_ends_or_hangs_shows_its_log(folder: WorkFolder) -> None:
    log = folder.path / "log"
    broken = Daemon("broken", ["sh", "-c", "echo no such disk; exit 3"], log)
    with pytest.raises(ServerStartError, match="broken ended with code 3 while starting:\nno such disk"):
        broken.wait_until(lambda: False, 10)
    broken.stop()
    silent = Daemon("silent", ["sh", "-c", "echo thinking; sleep 60"], log)
    with pytest.raises(ServerStartError, match=r"silent was not ready in 0 s[\s\S]*thinking"):
        silent.wait_until(lambda: False, 0.3)
    silent.stop()


OWNER = """
import sys, time
from pathlib import Path
from clay_assets_tests.servers.daemon import Daemon, WorkFolder
folder = WorkFolder("clay-test-")
daemon = Daemon("sleeper", ["sleep", "60"], folder.path / "log")
print(folder.path, daemon.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux'")
def test_nothing_outlives_a_killed_test_process() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert owner.stdout is not None
    path, pid = owner.stdout.readline().split()
    owner.kill()
    owner.wait(10)
    owner.stdout.close()
    end = time.monotonic() + 60
    left = True
    while left and time.monotonic() < end:
        time.sleep(0.1)
        left = Path(path).exists() or Path(f"/proc/{pid}").exists()
    assert not left
