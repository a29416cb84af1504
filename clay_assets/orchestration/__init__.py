"""What assets are declared with: partitions, resources, IO managers, gates, checks, metadata.

Stages import from here; nothing here imports a stage. Jobs, schedules and sensors are in `runs`.
"""
