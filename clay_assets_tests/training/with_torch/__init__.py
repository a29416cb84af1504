"""Tests that need PyTorch. They run in an environment that has it (see `oracle.environment.Torch`), module by module.

In an environment without, this folder's conftest.py finds their names without importing them, and reports each as it
went there.
"""
