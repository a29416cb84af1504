"""The building blocks of assets: partitions, resources, IO managers, gates, checks and metadata.

Stages import this package; it does not import any stage. Jobs, schedules and sensors are in `runs`.
"""
