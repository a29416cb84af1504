"""How every picture looks: `style`, `maps` and `bars`, drawn without a display, and the land outline as package data.

Each stage draws its own pictures in its `pictures` module: functions that return the bytes of an image, small enough
for Dagster's event log.
"""
