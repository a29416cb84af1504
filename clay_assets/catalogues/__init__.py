"""Catalogues to search for scenes: STAC APIs, STAC-GeoParquet snapshots, static catalogues. Imports no stage."""
