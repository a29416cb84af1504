"""Storages made by hand."""

from clay_assets_tests.reconciliation.stores import done, made

__all__ = ["done", "made"]
