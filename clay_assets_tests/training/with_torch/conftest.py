from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from clay_assets_tests.conftest import NOT_RUN, TORCH
from clay_assets_tests.oracle.environment import TESTS_SECONDS, OracleUnavailableError, Torch

HERE = importlib.util.find_spec("torch") is not None  # True in the environment with PyTorch
Outcomes = dict[tuple[str, str], tuple[str, str]]  # name of the module and of the test → outcome and text
KEY = pytest.StashKey[Outcomes]()  # of the tests that were run there
LAST = ("", "")  # whose text is the end of what that process printed


class FailedThereError(Exception):
    """A test failed in the environment that has PyTorch."""


class TorchTest(pytest.Item):
    """A test function, by name, with all its cases."""

    def runtest(self) -> None:
        try:
            outcomes = self._outcomes()
        except OracleUnavailableError as error:
            pytest.skip(f"{NOT_RUN}{TORCH}: {error}")
        unknown = "failed", "it was not run: " + outcomes[LAST][1]
        outcome, text = outcomes.get((self.path.stem, self.name), unknown)
        if outcome == "skipped":
            pytest.skip(text)
        if outcome == "failed":
            raise FailedThereError(text)

    def _outcomes(self) -> Outcomes:
        """Run all selected modules at once, as importing PyTorch and making scenes takes longer than most tests."""
        if KEY not in self.session.stash:
            modules = {str(item.path) for item in self.session.items if isinstance(item, TorchTest)}
            self.session.stash[KEY] = _run(sorted(modules), self.config)
        return self.session.stash[KEY]

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
                test.add_marker(pytest.mark.xdist_group(TORCH))  # one worker runs them all
                yield test


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Replace the module that pytest would import."""
    if HERE or module_path.parent != Path(__file__).parent:
        return None
    return TorchModule.from_parent(parent, path=module_path)


def _run(modules: Sequence[str], config: pytest.Config) -> Outcomes:
    """Run modules in the other environment."""
    folder = config._tmp_path_factory.mktemp("torch")  # type: ignore[attr-defined]
    report = folder / "report.xml"
    done = Torch().pytest(*modules, f"--junitxml={report}", f"--basetemp={folder / 'there'}")
    found: Outcomes = {LAST: ("", (done.stdout + done.stderr)[-3000:])}
    if not report.exists():
        return found
    for case in ET.parse(report).iter("testcase"):
        module = case.get("classname", "").rpartition(".")[2]
        name = module, re.split(r"\[", case.get("name", ""), maxsplit=1)[0]
        failed = [*case.findall("failure"), *case.findall("error")]
        skipped = case.find("skipped")
        if failed:
            found[name] = "failed", "\n".join(filter(None, [found.get(name, ("", ""))[1], failed[0].text]))
        elif found.get(name, ("passed",))[0] != "failed":
            found[name] = ("passed", "") if skipped is None else ("skipped", skipped.get("message", ""))
    return found
