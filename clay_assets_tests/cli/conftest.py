"""Storages with hand-made tables, and the command that inspects them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from clay_assets.cli import main
from clay_assets_tests.reconciliation.stores import done, made
from clay_assets_tests.training.conftest import made as chip_storage

__all__ = ["chip_storage", "done", "made"]

Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process; settings by keyword."""

    def run(*arguments: str, **settings: object) -> Result:
        for name, value in settings.items():
            monkeypatch.setenv(f"CLAY_{name.upper()}", str(value))
        return CliRunner().invoke(main, list(arguments))

    return run
