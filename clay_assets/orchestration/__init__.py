"""How Dagster sees the pipeline: partitions, resources, IO managers, checks, metadata and jobs. No stage's work is
done here; a stage's `assets.py` takes what it needs from here.
"""
