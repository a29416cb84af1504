"""Storages with hand-made tables, and chains."""

from clay_assets_tests.chain import new_chain
from clay_assets_tests.reconciliation.stores import done, made

__all__ = ["done", "made", "new_chain"]
