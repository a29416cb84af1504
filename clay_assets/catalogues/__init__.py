"""Where scenes are looked up: STAC APIs, STAC-GeoParquet snapshots, static catalogues. Used by the stages, and uses
none of them.
"""
