from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from clay_assets_tests.conftest import NOT_RUN, TORCH
from clay_assets_tests.oracle.environment import TESTS_SECONDS, OracleUnavailableError, Torch

HERE = importlib.util.find_spec("torch") is not None  # True in the environment with PyTorch
KEY = pytest.StashKey[dict[str, tuple[str, str]]]()  # test → outcome and text, for modules that were run


class FailedThereError(Exception):
    """A test failed in the environment that has PyTorch."""


class TorchTest(pytest.Item):
    """A test function, by name, with all its cases."""

    def runtest(self) -> None:
        try:
            outcomes = self._outcomes()
        except OracleUnavailableError as error:
            pytest.skip(f"{NOT_RUN}{TORCH}: {error}")
        outcome, text = outcomes.get(self.name, ("failed", "it was not run: " + outcomes.get("", ("", ""))[1]))
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            raise FailedThereError(text)

    def _outcomes(self) -> dict[str, tuple[str, str]]:
        assert self.parent is not None
        if KEY not in self.parent.stash:
            self.parent.stash[KEY] = _run(self.path, self.config)
        return self.parent.stash[KEY]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, FailedThereError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class TorchModule(pytest.File):
    """A test module that is not imported here."""

    def collect(self) -> Iterator[TorchTest]:
        for node in ast.parse(self.path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                test = TorchTest.from_parent(self, name=node.name)
                test.add_marker(pytest.mark.timeout(TESTS_SECONDS))
                test.add_marker(pytest.mark.server)  # a library in a separate environment
                yield test


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Replace the module that pytest would import."""
    if HERE or module_path.parent != Path(__file__).parent:
        return None
    return TorchModule.from_parent(parent, path=module_path)


def _run(module: Path, config: pytest.Config) -> dict[str, tuple[str, str]]:
    """Run a module in the other environment; returns test → outcome and output."""
    folder = config._tmp_path_factory.mktemp("torch")  # type: ignore[attr-defined]
    report = folder / "report.xml"
    done = Torch().pytest(str(module), f"--junitxml={report}", f"--basetemp={folder / 'there'}")
    found: dict[str, tuple[str, str]] = {"": ("", (done.stdout + done.stderr)[-3000:])}
    if not report.exists():
        return found
    for case in ET.parse(report).iter("testcase"):
        name = re.split(r"\[", case.get("name", ""), maxsplit=1)[0]
        failed = [*case.findall("failure"), *case.findall("error")]
        skipped = case.find("skipped")
        if failed:
            found[name] = "failed", "\n".join(filter(None, [found.get(name, ("", ""))[1], failed[0].text]))
        elif found.get(name, ("passed",))[0] != "failed":
            found[name] = ("passed", "") if skipped is None else ("skipped", skipped.get("message", ""))
    return found
