"""Dagster pipeline for the training-chip index of an Earth-observation foundation model."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("clay_assets")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"
