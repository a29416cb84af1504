"""Shared drawing code (`style`, `maps`, `bars`), which needs no display, and the land outline as package data.

Each stage draws its own pictures in its `pictures` module: functions that return images as bytes, small enough for
Dagster's event log.
"""
