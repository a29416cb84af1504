"""Tests that need PyTorch. They run, module by module, in an environment with PyTorch (`oracle.environment.Torch`).

Without PyTorch, this folder's conftest.py collects the tests without importing them, and reports their results from the
other environment.
"""
