"""One S3 server for several processes: it stays while any of them uses it, and ends with the last, even if killed."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from clay_assets_tests.conftest import REPOSITORY, not_run
from clay_assets_tests.servers.s3 import missing
from clay_assets_tests.servers.shared_s3 import shared_s3

SECONDS = 120
USER = """
import sys, time
from pathlib import Path
from clay_assets_tests.servers.shared_s3 import shared_s3
with shared_s3(Path(sys.argv[1])) as server:
    print(server.endpoint_url, flush=True)
    time.sleep(600)
"""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.server
@pytest.mark.slow
def test_it_stays_while_it_is_used_and_ends_with_its_last_user(tmp_path: Path) -> None:
    if reason := missing():
        not_run("S3 on Ceph RGW", reason)
    command = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        url = first.stdout.readline().strip()
        with shared_s3(tmp_path) as server:
            assert server.endpoint_url == url
            first.kill()
            first.wait(SECONDS)
            time.sleep(2)  # in which its keeper would notice
            server.new_bucket("still-there")
    end = time.monotonic() + SECONDS
    while answers(url):
        assert time.monotonic() < end
        time.sleep(0.1)
    while Path(server.configuration).parent.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
