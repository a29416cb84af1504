"""Catalogues in which scenes are searched: STAC APIs, STAC-GeoParquet snapshots, static catalogues. Does not import any
stage.
"""
