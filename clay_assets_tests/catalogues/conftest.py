"""Chains on the miniature planet."""

from clay_assets_tests.chain import new_chain

__all__ = ["new_chain"]
