"""Runs of a phase in several processes: which steps run, which do not, and the state after Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from clay_assets.runs.side_by_side import DIED, NOT_RUN, run_side_by_side
from clay_assets_tests.conftest import REPOSITORY
from clay_assets_tests.runs.side_by_side_defs import load, phases


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    monkeypatch.setenv("SIDE_BY_SIDE_FOLDER", str(tmp_path))
    return tmp_path


def made(home: Path) -> list[str]:
    """The materialised partitions according to Dagster's own storage."""
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as instance:
        return sorted(instance.get_materialized_partitions(dg.AssetKey("place")))


def processes(home: Path) -> set[str]:
    return {path.name.split()[-1] for path in home.glob("begun *")}


@pytest.mark.slow
def test_all_are_run_phase_by_phase(home: Path) -> None:
    ended = list(run_side_by_side(phases(), load, home, 2))
    assert [error for _, error in ended] == [None] * 6
    assert {str(step) for step, _ in ended[:2]} == {"ground", "sky"}
    assert {str(step) for step, _ in ended[2:]} == {f"places {part}" for part in "abcd"}
    assert made(home) == ["a", "b", "c", "d"]
    assert str(os.getpid()) not in processes(home)
    assert len(processes(home)) <= 2


@pytest.mark.slow
def test_what_builds_on_a_failure_is_not_run_and_all_else_is(home: Path) -> None:
    (home / "no ground").touch()
    ended = {str(step): error for step, error in run_side_by_side(phases(), load, home, 1)}
    assert ended["ground"] == "ground: no ground"
    assert ended["places a"] == ended["places b"] == NOT_RUN
    assert ended["sky"] is ended["places c"] is ended["places d"] is None
    assert made(home) == ["c", "d"]


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_of_its_runs(home: Path) -> None:
    (home / "die b").touch()
    ended = {str(step): error for step, error in run_side_by_side(phases(), load, home, 1)}
    assert ended["places a"] is None
    assert ended["places b"] == ended["places c"] == ended["places d"] == DIED
    assert made(home) == ["a"]


DEMO = """
import sys
from pathlib import Path
from clay_assets.runs.side_by_side import run_side_by_side
from clay_assets_tests.runs.side_by_side_defs import load, phases
if __name__ == "__main__":
    try:
        for step, error in run_side_by_side(phases(), load, Path(sys.argv[1]), 2):
            print(step, error, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
"""


@pytest.mark.slow
def test_ctrl_c_ends_what_has_begun_and_begins_no_more(home: Path) -> None:
    (home / "wait").touch()
    script = home / "demo.py"
    script.write_text(DEMO)
    # Its own process group, as in a terminal: Ctrl-C reaches all of its processes.
    shell = subprocess.Popen(
        [sys.executable, str(script), str(home)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while len(list(home.glob("begun *"))) < 2:
            assert time.monotonic() < deadline
            assert shell.poll() is None
            time.sleep(0.05)
        os.killpg(shell.pid, signal.SIGINT)
        time.sleep(0.5)
        (home / "wait").unlink()
        said, _ = shell.communicate(timeout=120)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 130
    assert said.splitlines()[-1] == "interrupted"
    assert len(list(home.glob("begun *"))) == 2
    assert len(made(home)) == 2  # and both were completed
