"""What the library logs: retries, waits requested by servers, kept scenes, and unexpected errors with traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from clay_assets.chips.cells import FAILED
from clay_assets.chips.indexing import index_scenes
from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import Planet
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.runs.whole_chain import Step, run_steps
from clay_assets.sources.downloads import read_bytes
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.chain import QUIET, Chain
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

S2 = "sentinel-2-l2a"


def test_a_retry_is_logged_with_the_wait_that_the_server_asks_for(
    tmp_path: Path,
    file_server: Callable[[Path], FileServer],
    fault_proxy: Callable[[str], FaultProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "a.json").write_text("{}")
    proxy = fault_proxy(file_server(tmp_path).url)
    proxy.answer(503, times=1, headers={"Retry-After": "1"})
    caplog.set_level(logging.INFO, "clay_assets")
    assert read_bytes(f"{proxy.url}/a.json") == b"{}"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "clay_assets.transport.retries"]
    assert line.startswith(f"attempt 1 of 5 failed: {proxy.url}/a.json: the server answered 503.")
    assert "as the server asks (1 s)" in line


def test_an_unexpected_error_is_logged_with_its_traceback(
    planet: Planet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def judge(pixels: object) -> None:
        raise ZeroDivisionError("a bug of the platform")

    broken = replace(PLATFORMS[S2], quality=replace(PLATFORMS[S2].quality, judge=judge))  # type: ignore[arg-type]
    monkeypatch.setitem(PLATFORMS, S2, broken)
    item = next(item for item in planet.items(S2) if "scl" in item["assets"])
    with ThreadPoolExecutor(1) as pool:
        cell = index_scenes(S2, 2020, [item], LocalStore(tmp_path / "clay"), load_recipe("clay_v1"), pool, 2)
    assert cell.ledger[["outcome", "error"]].to_numpy().tolist() == [[FAILED, "a bug of the platform"]]
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.getMessage() == f"{item['id']}: unexpected ZeroDivisionError"
    assert record.exc_text or record.exc_info
    assert "in judge" in caplog.text


def test_a_run_s_event_log_has_the_lines_of_our_loggers(built: Chain, tmp_path: Path) -> None:
    overrides = {**QUIET, "python_logs": {"managed_python_loggers": ["clay_assets"], "python_log_level": "INFO"}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as instance:
        definitions = build_definitions(**built.clay.overrides)
        step = Step("chips", f"{S2}|2020")
        ((_, result),) = run_steps([step], definitions.resolve_job_def, instance, "CRITICAL")
        assert result is not None
        assert result.success
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any("scenes were indexed before and are kept" in line for line in lines)
